//! TLS configurations. The cryptography provider is always an argument, never the process default.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::{Error, Result, peer_identity, pem};

/// ALPN for HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";
/// ALPN for HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// A certificate chain with its key: what one side presents.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Private key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain (leaf first) and its key.
    ///
    /// # Errors
    /// When one of them is damaged or missing.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self> {
        Ok(Self {
            chain: pem::certificates(chain_pem, "certificate chain")?,
            key: pem::private_key(key_pem, "private key")?,
        })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks; a client without one may pass, a client with a wrong one may not.
    Optional {
        /// PEM bundle of the trusted roots.
        roots_pem: String,
    },
    /// A client must present one.
    Required {
        /// PEM bundle of the trusted roots.
        roots_pem: String,
    },
}

/// How a client decides whether it talks to the right server.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// The chain must lead to a root and the certificate must carry the DNS name or address.
    Name {
        /// PEM bundle of the trusted roots.
        roots_pem: String,
    },
    /// The chain must lead to a root and one URI name must be among these (mesh identities; DNS
    /// names play no part).
    Uri {
        /// PEM bundle of the trusted roots.
        roots_pem: String,
        /// Accepted identities, compared exactly. An empty list accepts nobody.
        any_of: Vec<String>,
    },
    /// The chain must lead to a root, any name will do (Envoy without subject matchers).
    Chain {
        /// PEM bundle of the trusted roots.
        roots_pem: String,
    },
}

/// A root store from a PEM bundle.
///
/// # Errors
/// When the bundle is empty or a certificate cannot serve as trust anchor.
pub fn roots(bundle_pem: &str) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for cert in pem::certificates(bundle_pem, "trusted roots")? {
        store
            .add(cert)
            .map_err(|error| Error::Certificate(format!("trusted root: {error}")))?;
    }
    Ok(store)
}

/// A server that presents `identity`. `alpn` in order of preference.
///
/// # Errors
/// When rustls refuses key, chain or roots.
pub fn server_config(
    provider: Arc<CryptoProvider>,
    identity: Identity,
    client_auth: &ClientAuth,
    alpn: &[&[u8]],
) -> Result<ServerConfig> {
    let verifier = client_verifier(&provider, client_auth)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(tls_error)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The verifier behind a [`ClientAuth`], for servers that choose certificates themselves.
///
/// # Errors
/// When the roots are unusable.
pub fn client_verifier(
    provider: &Arc<CryptoProvider>,
    client_auth: &ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let build = |roots_pem: &str| {
        Ok::<_, Error>(WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(roots_pem)?),
            provider.clone(),
        ))
    };
    match client_auth {
        ClientAuth::None => Ok(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::Optional { roots_pem } => build(roots_pem)?
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Tls(error.to_string())),
        ClientAuth::Required { roots_pem } => build(roots_pem)?
            .build()
            .map_err(|error| Error::Tls(error.to_string())),
    }
}

/// A client that trusts as `trust` says and presents `identity` when asked.
///
/// # Errors
/// When rustls refuses key, chain or roots.
pub fn client_config(
    provider: Arc<CryptoProvider>,
    trust: &ServerTrust,
    identity: Option<Identity>,
    alpn: &[&[u8]],
) -> Result<ClientConfig> {
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?;
    let builder = match trust {
        ServerTrust::Name { roots_pem } => builder.with_root_certificates(roots(roots_pem)?),
        ServerTrust::Uri { roots_pem, .. } | ServerTrust::Chain { roots_pem } => {
            let any_of = match trust {
                ServerTrust::Uri { any_of, .. } => Some(any_of.clone()),
                _ => None,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(UriVerifier {
                    roots: roots(roots_pem)?,
                    any_of,
                    algorithms,
                }))
        }
    };
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(tls_error)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn tls_error(error: rustls::Error) -> Error {
    Error::Tls(error.to_string())
}

/// Checks the chain as usual and then the URI names instead of the DNS name.
#[derive(Debug)]
struct UriVerifier {
    roots: RootCertStore,
    /// `None`: any name.
    any_of: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for UriVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let Some(any_of) = &self.any_of else {
            return Ok(ServerCertVerified::assertion());
        };
        let identity = peer_identity(end_entity)
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
        if identity.uris.iter().any(|uri| any_of.contains(uri)) {
            return Ok(ServerCertVerified::assertion());
        }
        let reason = Error::Certificate(format!(
            "the server is {:?}, expected one of {any_of:?}",
            identity.uris
        ));
        Err(CertificateError::Other(OtherError(Arc::new(reason))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
