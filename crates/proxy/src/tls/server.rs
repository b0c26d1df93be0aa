//! Terminating TLS.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use xds::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext};

use super::secrets::{Identity, SecretValue, Secrets, Trust};
use super::verify::{ClientVerifier, Expected, SanMatcher};
use super::{TlsError, provider, secrets, verify, versions};

/// Where a secret comes from.
pub(crate) enum Source<T> {
    Inline(Arc<T>),
    Named(String),
}

/// The compiled `DownstreamTlsContext` of a filter chain.
pub struct ServerContext {
    certificates: Vec<Source<Identity>>,
    trust: Option<Source<Trust>>,
    expected: Expected,
    require_client: bool,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    provider: Arc<CryptoProvider>,
    secrets: Arc<Secrets>,
    cached: Mutex<Option<(u64, Arc<ServerConfig>)>>,
}

/// The parts of a validation context: where the roots are and the names they must show.
pub(crate) type Validation = (Option<Source<Trust>>, Expected);

pub(crate) fn validation(common: &CommonTlsContext) -> Result<Validation, TlsError> {
    Ok(match &common.validation_context_type {
        None => (None, Expected::default()),
        Some(ValidationContextType::ValidationContext(context)) => {
            let trust = secrets::trust(context)?;
            let expected = trust.expected.clone();
            (
                if trust.roots.is_empty() {
                    None
                } else {
                    Some(Source::Inline(Arc::new(trust)))
                },
                expected,
            )
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => (
            Some(Source::Named(config.name.clone())),
            Expected::default(),
        ),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let expected = match &combined.default_validation_context {
                Some(context) => Expected::of(context)?,
                None => Expected::default(),
            };
            let name = combined
                .validation_context_sds_secret_config
                .as_ref()
                .map(|config| config.name.clone())
                .ok_or_else(|| {
                    TlsError("combined_validation_context without an SDS secret".into())
                })?;
            (Some(Source::Named(name)), expected)
        }
        Some(_) => {
            return Err(TlsError(
                "validation contexts of certificate providers are not supported".into(),
            ));
        }
    })
}

/// The first of some certificates, if it is there.
pub(super) fn shown(certificates: &[Source<Identity>], secrets: &Secrets) -> Option<Vec<u8>> {
    let first = |identity: &Identity| Some(identity.key.cert.first()?.to_vec());
    match certificates.first()? {
        Source::Inline(identity) => first(identity),
        Source::Named(name) => match &secrets.get(name)?.value {
            SecretValue::Identity(identity) => first(identity),
            _ => None,
        },
    }
}

pub(crate) fn certificates(common: &CommonTlsContext) -> Result<Vec<Source<Identity>>, TlsError> {
    let mut all = Vec::new();
    for certificate in &common.tls_certificates {
        all.push(Source::Inline(Arc::new(secrets::identity(certificate)?)));
    }
    for config in &common.tls_certificate_sds_secret_configs {
        all.push(Source::Named(config.name.clone()));
    }
    Ok(all)
}

impl ServerContext {
    /// Compiles the message.
    ///
    /// # Errors
    /// When an inline certificate is broken or a feature is not supported.
    pub fn new(message: &DownstreamTlsContext, secrets: Arc<Secrets>) -> Result<Self, TlsError> {
        let common = message.common_tls_context.clone().unwrap_or_default();
        let (trust, expected) = validation(&common)?;
        if trust.is_none() && expected.names_certificates() {
            return Err(TlsError(
                "verify_certificate_hash and verify_certificate_spki need a trusted_ca here".into(),
            ));
        }
        let params = common.tls_params.clone().unwrap_or_default();
        Ok(Self {
            certificates: certificates(&common)?,
            trust,
            expected,
            require_client: message.require_client_certificate.unwrap_or(false),
            alpn: common
                .alpn_protocols
                .iter()
                .map(|alpn| alpn.clone().into_bytes())
                .collect(),
            provider: provider(&params)?,
            versions: versions(
                params.tls_minimum_protocol_version,
                params.tls_maximum_protocol_version,
            ),
            secrets,
            cached: Mutex::default(),
        })
    }

    /// The names of the secrets it needs.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let named = self.certificates.iter().filter_map(|source| match source {
            Source::Named(name) => Some(name.as_str()),
            Source::Inline(_) => None,
        });
        named.chain(self.trust.iter().filter_map(|source| match source {
            Source::Named(name) => Some(name.as_str()),
            Source::Inline(_) => None,
        }))
    }

    /// Whether this is one of the application protocols offered here.
    pub fn speaks(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|own| own == protocol)
    }

    /// The first of the certificates it shows.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        shown(&self.certificates, &self.secrets)
    }

    /// The configuration for the next handshake; `None` while a secret is missing.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        let generation = self.secrets.generation();
        let mut cached = self.cached.lock();
        if let Some((at, config)) = &*cached
            && *at == generation
        {
            return Some(config.clone());
        }
        let config = Arc::new(self.build()?);
        *cached = Some((generation, config.clone()));
        Some(config)
    }

    fn build(&self) -> Option<ServerConfig> {
        let mut keys = Vec::new();
        for source in &self.certificates {
            match source {
                Source::Inline(identity) => keys.push(identity.key.clone()),
                Source::Named(name) => match &self.secrets.get(name)?.value {
                    SecretValue::Identity(identity) => keys.push(identity.key.clone()),
                    _ => return None,
                },
            }
        }
        let provider = self.provider.clone();
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .ok()?;
        let builder = match &self.trust {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let (roots, mut expected) = match source {
                    Source::Inline(trust) => (trust.roots.clone(), Expected::default()),
                    Source::Named(name) => match &self.secrets.get(name)?.value {
                        SecretValue::Trust(trust) => (trust.roots.clone(), trust.expected.clone()),
                        _ => return None,
                    },
                };
                expected.extend(&self.expected);
                let verifier = ClientVerifier::new(roots, expected, self.require_client).ok()?;
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver(keys)));
        config.alpn_protocols = self.alpn.clone();
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
        config.send_tls13_tickets = 1;
        // Of TLS 1.2 the server's own order of suites counts; of TLS 1.3 the client's.
        config.ignore_client_order = self
            .versions
            .iter()
            .all(|version| version.version == rustls::ProtocolVersion::TLSv1_2);
        Some(config)
    }
}

/// Chooses among several certificates by server name, else the first.
#[derive(Debug)]
struct Resolver(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        if self.0.len() > 1
            && let Some(name) = hello.server_name()
        {
            let named = self.0.iter().filter(usable).find(|key| {
                key.cert.first().is_some_and(|cert| {
                    verify::names_match(cert, &[SanMatcher::exact(name)]).is_ok()
                })
            });
            if let Some(key) = named {
                return Some(key.clone());
            }
        }
        self.0.iter().find(usable).cloned()
    }
}
