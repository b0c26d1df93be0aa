//! Process plumbing every component shares: the TLS provider, logging and shutdown.

pub mod log;
pub mod shutdown;
pub mod tls;

pub use tokio_util::sync::CancellationToken;
