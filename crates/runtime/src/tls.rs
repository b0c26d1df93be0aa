//! One TLS provider for the whole program.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// The one cryptography provider (ring). Every `rustls` configuration names it explicitly
/// (`builder_with_provider`), so that a second provider pulled in by a dependency can never
/// make the process-wide default ambiguous.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
        .clone()
}
