//! The aggregated discovery service: configuration for proxies over one stream each.

pub mod session;
pub mod stream;
pub mod subscription;
