//! theater-dataplane
