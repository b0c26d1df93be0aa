//! TLS in both directions from Envoy's transport socket messages, with certificates that may change while it runs.

pub mod client;
pub mod hello;
pub mod secrets;
pub mod server;
pub mod session;
pub mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup};
use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds::envoy::extensions::transport_sockets::tls::v3::TlsParameters;

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

/// The names that OpenSSL and IANA have for the suites of TLS 1.2 there are here.
const SUITES: [(CipherSuite, &str, &str); 6] = [
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];

/// The suites in BoringSSL's order, AES with 128 bits first.
static PREFERRED: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut own = (*runtime::tls::provider()).clone();
    own.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => 1,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 2,
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 3,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => 4,
        _ => 5,
    });
    Arc::new(own)
});

/// The provider with only those suites and curves that `cipher_suites` and `ecdh_curves` name. TLS 1.3 keeps all of its
/// suites, as in Envoy; suites that are too old for this proxy are as good as not named.
///
/// # Errors
/// When no curve is left, or no suite for a context that speaks nothing above TLS 1.2.
pub(crate) fn provider(params: &TlsParameters) -> Result<Arc<CryptoProvider>, TlsError> {
    let all = PREFERRED.clone();
    if params.cipher_suites.is_empty() && params.ecdh_curves.is_empty() {
        return Ok(all);
    }
    let mut own = (*all).clone();
    if !params.cipher_suites.is_empty() {
        // `[A|B]`: equal in preference.
        let wanted: Vec<&str> = params
            .cipher_suites
            .iter()
            .flat_map(|entry| entry.trim_matches(['[', ']']).split('|'))
            .collect();
        own.cipher_suites.retain(|suite| {
            let named = |(known, openssl, iana): &(CipherSuite, &str, &str)| {
                *known == suite.suite() && (wanted.contains(openssl) || wanted.contains(iana))
            };
            suite.tls13().is_some() || SUITES.iter().any(named)
        });
        let old_only = matches!(params.tls_maximum_protocol_version, 1..=3);
        if old_only
            && own
                .cipher_suites
                .iter()
                .all(|suite| suite.tls13().is_some())
        {
            return Err(TlsError(format!(
                "tls_params.cipher_suites: none of {wanted:?} is supported"
            )));
        }
    }
    if !params.ecdh_curves.is_empty() {
        own.kx_groups.retain(|group| {
            let name = match group.name() {
                NamedGroup::X25519 => "X25519",
                NamedGroup::secp256r1 => "P-256",
                NamedGroup::secp384r1 => "P-384",
                _ => return false,
            };
            params.ecdh_curves.iter().any(|wanted| wanted == name)
        });
        if own.kx_groups.is_empty() {
            return Err(TlsError(format!(
                "tls_params.ecdh_curves: none of {:?} is supported",
                params.ecdh_curves
            )));
        }
    }
    Ok(Arc::new(own))
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
    hex(&ring::digest::SHA256, bytes)
}

/// A digest of some bytes in lower-case hexadecimal.
pub(crate) fn hex(algorithm: &'static ring::digest::Algorithm, bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(algorithm, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}
