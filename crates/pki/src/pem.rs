//! Reading PEM: certificates, chains, bundles and private keys.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result};

/// All certificates of a PEM text, in order. `what` names the text in errors.
///
/// # Errors
/// When a section is damaged or there is no certificate at all.
pub fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(what, &error.to_string()))?;
    if found.is_empty() {
        return Err(pem_error(what, "it holds no CERTIFICATE section"));
    }
    Ok(found)
}

/// The first private key of a PEM text (PKCS#8, SEC1 or PKCS#1).
///
/// # Errors
/// When there is none or it is damaged.
pub fn private_key(pem: &str, what: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| pem_error(what, &error.to_string()))
}

/// One certificate as PEM, 64 columns, with a line end after the last line.
pub fn encode_certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / 64 + 64);
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(64) {
        // base64 output is ASCII, so every cut is on a character boundary.
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

fn pem_error(what: &str, reason: &str) -> Error {
    Error::Pem {
        what: what.to_owned(),
        reason: reason.to_owned(),
    }
}
