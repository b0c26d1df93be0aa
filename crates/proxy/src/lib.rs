//! theater-proxy
