//! Checking peers: the chain as usual, then the alternative names as the configuration wants them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use xds::envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext;
use xds::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::TlsError;

/// What one alternative name must look like.
#[derive(Debug, Clone)]
pub struct SanMatcher {
    kind: Option<SanType>,
    ignore_case: bool,
    pattern: Pattern,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

/// What a peer's certificate must be besides being of a trusted authority.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// One of these names is in it.
    pub sans: Vec<SanMatcher>,
    /// It is one of these: SHA-256 of the certificate, in lower-case hexadecimal.
    hashes: Vec<String>,
    /// It has one of these keys: SHA-256 of the public key, in base64.
    keys: Vec<String>,
}

impl Expected {
    /// What a validation context says.
    ///
    /// # Errors
    /// When a pattern or a digest is not one.
    pub fn of(message: &CertificateValidationContext) -> Result<Self, TlsError> {
        let hash = |text: &String| {
            let plain = text.replace(':', "").to_ascii_lowercase();
            let right = plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
            right
                .then_some(plain)
                .ok_or_else(|| TlsError(format!("Invalid hex-encoded SHA-256 {text}")))
        };
        let key = |text: &String| match BASE64.decode(text) {
            Ok(digest) if digest.len() == 32 => Ok(text.clone()),
            _ => Err(TlsError(format!("Invalid base64-encoded SHA-256 {text}"))),
        };
        Ok(Self {
            sans: sans(message)?,
            hashes: message
                .verify_certificate_hash
                .iter()
                .map(hash)
                .collect::<Result<_, _>>()?,
            keys: message
                .verify_certificate_spki
                .iter()
                .map(key)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether certificates or keys are named one by one.
    pub fn names_certificates(&self) -> bool {
        !self.hashes.is_empty() || !self.keys.is_empty()
    }

    /// All of another one's as well.
    pub fn extend(&mut self, other: &Self) {
        self.sans.extend(other.sans.iter().cloned());
        self.hashes.extend(other.hashes.iter().cloned());
        self.keys.extend(other.keys.iter().cloned());
    }

    fn check(&self, cert: &CertificateDer<'_>) -> Result<(), Error> {
        names_match(cert, &self.sans)?;
        if !self.names_certificates() {
            return Ok(());
        }
        let known = self.hashes.contains(&super::sha256_hex(cert))
            || pki::peer_identity(cert).is_ok_and(|identity| {
                let digest = ring::digest::digest(&ring::digest::SHA256, &identity.public_key);
                self.keys.contains(&BASE64.encode(digest))
            });
        if known {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// The name matchers of a validation context.
///
/// # Errors
/// When a pattern is not one.
#[allow(deprecated)]
fn sans(message: &CertificateValidationContext) -> Result<Vec<SanMatcher>, TlsError> {
    let typed = message
        .match_typed_subject_alt_names
        .iter()
        .filter_map(|san| Some((SanType::try_from(san.san_type).ok(), san.matcher.as_ref()?)));
    let any = message
        .match_subject_alt_names
        .iter()
        .map(|matcher| (None, matcher));
    typed
        .chain(any)
        .map(|(kind, matcher)| SanMatcher::new(kind, matcher))
        .collect()
}

impl SanMatcher {
    fn new(kind: Option<SanType>, matcher: &StringMatcher) -> Result<Self, TlsError> {
        let fold = |text: &String| {
            if matcher.ignore_case {
                text.to_lowercase()
            } else {
                text.clone()
            }
        };
        let pattern = match &matcher.match_pattern {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(fold(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(fold(text)),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(fold(text)),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(fold(text)),
            Some(MatchPattern::SafeRegex(regex)) => Pattern::Regex(
                dataplane::re2::whole(&regex.regex)
                    .map_err(|error| TlsError(format!("match_subject_alt_names: {error}")))?,
            ),
            _ => {
                return Err(TlsError(
                    "match_subject_alt_names: no pattern that this proxy knows".into(),
                ));
            }
        };
        Ok(Self {
            kind,
            ignore_case: matcher.ignore_case,
            pattern,
        })
    }

    /// Exactly this name, of any kind.
    pub fn exact(name: &str) -> Self {
        Self {
            kind: None,
            ignore_case: false,
            pattern: Pattern::Exact(name.to_owned()),
        }
    }

    fn matches(&self, name: &str, dns: bool) -> bool {
        let folded;
        let name = if self.ignore_case {
            folded = name.to_lowercase();
            &folded
        } else {
            name
        };
        match &self.pattern {
            // A certificate for *.example.com serves an exact a.example.com.
            Pattern::Exact(text) => {
                name == text
                    || (dns
                        && name.strip_prefix("*.").is_some_and(|suffix| {
                            text.split_once('.')
                                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(suffix))
                        }))
            }
            Pattern::Prefix(text) => name.starts_with(text.as_str()),
            Pattern::Suffix(text) => name.ends_with(text.as_str()),
            Pattern::Contains(text) => name.contains(text.as_str()),
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }
}

/// Nobody of these was expected.
#[derive(Debug, thiserror::Error)]
#[error("SAN matcher, certificate SANs are [{0}]")]
struct Unexpected(String);

/// Whether one of the certificate's names satisfies one of the matchers; no matchers accept everyone.
pub(super) fn names_match(cert: &CertificateDer<'_>, sans: &[SanMatcher]) -> Result<(), Error> {
    if sans.is_empty() {
        return Ok(());
    }
    let identity = pki::peer_identity(cert).map_err(|_| CertificateError::BadEncoding)?;
    let expected = sans.iter().any(|san| {
        let wants = |kind| san.kind.is_none() || san.kind == Some(kind);
        (wants(SanType::Uri) && identity.uris.iter().any(|name| san.matches(name, false)))
            || (wants(SanType::Dns) && identity.dns.iter().any(|name| san.matches(name, true)))
            || (wants(SanType::IpAddress)
                && identity
                    .ips
                    .iter()
                    .any(|ip| san.matches(&ip.to_string(), false)))
    });
    if expected {
        return Ok(());
    }
    let mut names = identity.dns;
    names.extend(identity.uris);
    names.extend(identity.ips.iter().map(ToString::to_string));
    let error = Arc::new(Unexpected(names.join(", ")));
    Err(CertificateError::Other(OtherError(error)).into())
}

/// What was wrong with a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The peer shows no certificate.
    NoCertificate,
    /// Its names are others than expected; the text names them.
    Names(String),
    /// It is none of the certificates that are expected, nor has one of their keys.
    Unknown,
    /// Its certificate is not to be trusted, and why.
    Certificate(String),
    /// Something else.
    Other,
}

impl Fault {
    /// What an error of a handshake means.
    pub fn of(error: &std::io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(error)))) => {
                Self::Names(error.to_string())
            }
            Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                Self::Unknown
            }
            Some(Error::InvalidCertificate(why)) => Self::Certificate(format!(
                "X509_verify_cert: certificate verification error at depth 0: {}",
                in_words(why)
            )),
            _ => Self::Other,
        }
    }
}

/// BoringSSL's words for what is wrong with a chain.
fn in_words(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate is not yet valid"
        }
        CertificateError::BadSignature => "certificate signature failure",
        CertificateError::Revoked => "certificate revoked",
        CertificateError::InvalidPurpose => "unsupported certificate purpose",
        CertificateError::UnhandledCriticalExtension => "unhandled critical extension",
        CertificateError::UnknownRevocationStatus => "unable to get certificate CRL",
        other => return format!("{other:?}"),
    }
    .to_owned()
}

/// Checks servers: the chain against roots (if there are any), then the names; never the host name by itself.
#[derive(Debug)]
pub struct ServerVerifier {
    /// What to trust; `None` trusts everybody, as Envoy does without a validation context.
    pub roots: Option<Arc<RootCertStore>>,
    /// What the certificate must be.
    pub expected: Expected,
    /// The algorithms of the provider.
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let cert = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &cert,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        self.expected.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks clients: the chain as usual, then the names.
#[derive(Debug)]
pub struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    expected: Expected,
}

impl ClientVerifier {
    /// Trusts chains that lead to `roots`; without `required` a client may show no certificate.
    ///
    /// # Errors
    /// When there is no root to trust.
    pub fn new(
        roots: Arc<RootCertStore>,
        expected: Expected,
        required: bool,
    ) -> Result<Self, TlsError> {
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(roots, runtime::tls::provider());
        if !required {
            builder = builder.allow_unauthenticated();
        }
        Ok(Self {
            inner: builder
                .build()
                .map_err(|error| TlsError(error.to_string()))?,
            expected,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        self.expected.check(end_entity)?;
        Ok(verified)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
