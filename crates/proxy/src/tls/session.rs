//! What logs and rules are told about a TLS session.

use std::sync::Arc;

use dataplane::stream::{Certificate, TlsSession};
use rustls::{CommonState, NamedGroup, ProtocolVersion, SupportedCipherSuite};

use super::SUITES;
use super::server::ServerContext;
use crate::config::Shared;

/// A session that a client has opened.
pub fn accepted(
    session: &rustls::ServerConnection,
    context: &ServerContext,
    shared: &Shared,
) -> TlsSession {
    TlsSession {
        local: context
            .certificate()
            .and_then(|certificate| known_certificate(&certificate))
            .or_else(|| shared.own_certificate()),
        ..described(session)
    }
}

/// A session with an upstream that was told this server name; `shown` is our certificate, if we have one for it.
pub fn opened(
    session: &rustls::ClientConnection,
    server_name: Option<String>,
    shown: Option<&[u8]>,
) -> TlsSession {
    TlsSession {
        local: shown.and_then(known_certificate),
        server_name,
        ..described(session)
    }
}

fn described(session: &CommonState) -> TlsSession {
    let peer = session
        .peer_certificates()
        .and_then(|certificates| certificates.first())
        .and_then(|certificate| known_certificate(certificate));
    TlsSession {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: session
            .negotiated_cipher_suite()
            .map(cipher_name)
            .unwrap_or_default(),
        group: match session
            .negotiated_key_exchange_group()
            .map(|group| group.name())
        {
            Some(NamedGroup::X25519) => "X25519",
            Some(NamedGroup::secp256r1) => "P-256",
            Some(NamedGroup::secp384r1) => "P-384",
            _ => "",
        },
        peer,
        ..TlsSession::default()
    }
}

/// The name that OpenSSL has for a suite.
fn cipher_name(suite: SupportedCipherSuite) -> String {
    let old = SUITES.iter().find(|(known, ..)| *known == suite.suite());
    match old {
        Some((_, openssl, _)) => (*openssl).to_owned(),
        None => format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"),
    }
}

/// Reads a certificate, remembering the last ones: peers are few and come often.
pub fn known_certificate(der: &[u8]) -> Option<Arc<Certificate>> {
    thread_local! {
        static KNOWN: std::cell::RefCell<std::collections::HashMap<Vec<u8>, Arc<Certificate>>> =
            std::cell::RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(certificate) = known.get(der) {
            return Some(certificate.clone());
        }
        let certificate = Arc::new(read_certificate(der)?);
        if known.len() >= 256 {
            known.clear();
        }
        known.insert(der.to_vec(), certificate.clone());
        Some(certificate)
    })
}

fn read_certificate(der: &[u8]) -> Option<Certificate> {
    use base64::Engine as _;
    let identity = pki::peer_identity(der).ok()?;
    let digest = crate::tls::sha256_hex(der);
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let ips = identity.ips.iter().map(ToString::to_string).collect();
    Some(Certificate {
        uris: identity.uris,
        dns: identity.dns,
        ips,
        subject: identity.subject,
        issuer: identity.issuer,
        serial: identity.serial,
        sha256: digest,
        sha1: crate::tls::hex(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, der),
        url_encoded_pem: url_encode(&pem),
        not_before: Some(identity.not_before),
        not_after: Some(identity.not_after),
    })
}

fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
