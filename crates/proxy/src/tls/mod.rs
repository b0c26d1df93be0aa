//! TLS in both directions from Envoy's transport socket messages, with certificates that may change while it runs.

pub mod client;
pub mod hello;
pub mod secrets;
pub mod server;
pub mod verify;

use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};

/// Why a TLS setting cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// The bytes a data source points to.
///
/// # Errors
/// When a file cannot be read or a variable is not set.
pub fn data_source(source: &DataSource) -> Result<Vec<u8>, TlsError> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.to_vec()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::Filename(path)) => {
            std::fs::read(path).map_err(|error| TlsError(format!("cannot read {path}: {error}")))
        }
        Some(Specifier::EnvironmentVariable(name)) => std::env::var(name)
            .map(String::into_bytes)
            .map_err(|error| TlsError(format!("variable {name}: {error}"))),
        None => Ok(Vec::new()),
    }
}

/// The protocol versions between these two of Envoy's enumeration (0: its default).
pub(crate) fn versions(min: i32, max: i32) -> Vec<&'static rustls::SupportedProtocolVersion> {
    // TLS_AUTO 0, TLSv1_0 1, 1_1 2, 1_2 3, 1_3 4. Nothing below 1.2 is spoken here.
    let max = if max == 0 { 4 } else { max };
    let mut versions = Vec::new();
    if max >= 4 {
        versions.push(&rustls::version::TLS13);
    }
    if min <= 3 && max >= 3 {
        versions.push(&rustls::version::TLS12);
    }
    versions
}

/// The SHA-256 of some bytes in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}
