//! theater-e2e
