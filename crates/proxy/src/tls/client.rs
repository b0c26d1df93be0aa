//! Originating TLS.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::secrets::{Identity, SecretValue, Secrets, Trust};
use super::server::{Source, certificates, shown, validation};
use super::verify::{Expected, SanMatcher, ServerVerifier};
use super::{TlsError, provider, versions};

/// The compiled `UpstreamTlsContext` of a cluster or of one of its transport socket matches.
pub struct ClientContext {
    certificates: Vec<Source<Identity>>,
    trust: Option<Source<Trust>>,
    expected: Expected,
    /// The server name to send; empty for none.
    pub sni: String,
    /// Send the name of the host instead.
    pub auto_host_sni: bool,
    /// Check the certificate against the server name.
    pub auto_san: bool,
    /// The protocols of the message, used where the request does not choose others.
    pub alpn: Arc<[Vec<u8>]>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    provider: Arc<CryptoProvider>,
    secrets: Arc<Secrets>,
    cached: Mutex<Cache>,
}

/// What a handshake is for: the protocols it offers, and a name that the certificate must have besides.
type Wanted = (Arc<[Vec<u8>]>, Option<String>);

/// `TLSv1_2` of `TlsParameters.TlsProtocol`.
const TLS_1_2: i32 = 3;

/// More configurations than this and the cache starts anew.
const MAX_CONFIGS: usize = 256;

#[derive(Default)]
struct Cache {
    generation: u64,
    configs: HashMap<Wanted, Arc<ClientConfig>>,
}

impl ClientContext {
    /// Compiles the message.
    ///
    /// # Errors
    /// When an inline certificate is broken or a feature is not supported.
    pub fn new(message: &UpstreamTlsContext, secrets: Arc<Secrets>) -> Result<Self, TlsError> {
        let common = message.common_tls_context.clone().unwrap_or_default();
        let (trust, expected) = validation(&common)?;
        let params = common.tls_params.clone().unwrap_or_default();
        // Envoy's client goes up to TLS 1.2 unless told otherwise.
        Ok(Self {
            certificates: certificates(&common)?,
            trust,
            expected,
            sni: message.sni.clone(),
            auto_host_sni: message.auto_host_sni,
            auto_san: message.auto_sni_san_validation,
            alpn: common
                .alpn_protocols
                .iter()
                .map(|alpn| alpn.clone().into_bytes())
                .collect(),
            provider: provider(&params)?,
            versions: versions(
                params.tls_minimum_protocol_version,
                match params.tls_maximum_protocol_version {
                    0 => TLS_1_2,
                    max => max,
                },
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

    /// Whether every secret it needs is there.
    pub fn ready(&self) -> bool {
        self.secret_names()
            .all(|name| self.secrets.get(name).is_some())
    }

    /// The configuration for a handshake that offers `alpn`; `None` while a secret is missing.
    /// `validated`: a name that the certificate must have besides.
    pub fn config(
        &self,
        alpn: &Arc<[Vec<u8>]>,
        validated: Option<&str>,
    ) -> Option<Arc<ClientConfig>> {
        let generation = self.secrets.generation();
        let mut cache = self.cached.lock();
        if cache.generation != generation {
            cache.generation = generation;
            cache.configs.clear();
        }
        let key = (alpn.clone(), validated.map(str::to_owned));
        if let Some(config) = cache.configs.get(&key) {
            return Some(config.clone());
        }
        let config = Arc::new(self.build(alpn, validated)?);
        // Names come from requests: there may be any number of them.
        if cache.configs.len() >= MAX_CONFIGS {
            cache.configs.clear();
        }
        cache.configs.insert(key, config.clone());
        Some(config)
    }

    fn build(&self, alpn: &[Vec<u8>], validated: Option<&str>) -> Option<ClientConfig> {
        let provider = self.provider.clone();
        let (roots, mut expected) = match &self.trust {
            None => (None, Expected::default()),
            Some(Source::Inline(trust)) => (Some(trust.roots.clone()), Expected::default()),
            Some(Source::Named(name)) => match &self.secrets.get(name)?.value {
                SecretValue::Trust(trust) => (Some(trust.roots.clone()), trust.expected.clone()),
                _ => return None,
            },
        };
        expected.extend(&self.expected);
        if self.auto_san && !self.sni.is_empty() {
            expected.sans.push(SanMatcher::exact(&self.sni));
        }
        if let Some(name) = validated {
            expected.sans.push(SanMatcher::exact(name));
        }
        let verifier = ServerVerifier {
            roots,
            expected,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.certificates.first() {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let key = match source {
                    Source::Inline(identity) => identity.key.clone(),
                    Source::Named(name) => match &self.secrets.get(name)?.value {
                        SecretValue::Identity(identity) => identity.key.clone(),
                        _ => return None,
                    },
                };
                builder
                    .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = alpn.to_vec();
        config.resumption = Resumption::in_memory_sessions(32);
        Some(config)
    }

    /// The certificate it shows to those who ask.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        shown(&self.certificates, &self.secrets)
    }

    /// What to send as the server name to a host of this name or address; the name the request chose goes first.
    pub fn server_name(
        &self,
        chosen: Option<&str>,
        host: &str,
        address: std::net::IpAddr,
    ) -> ServerName<'static> {
        let name = if let Some(chosen) = chosen {
            chosen
        } else if self.auto_host_sni && !host.is_empty() {
            host
        } else {
            &self.sni
        };
        match ServerName::try_from(name.to_owned()) {
            Ok(name) if !matches!(name, ServerName::IpAddress(_)) => name,
            // An address is never sent as a server name.
            _ => ServerName::IpAddress(address.into()),
        }
    }
}
