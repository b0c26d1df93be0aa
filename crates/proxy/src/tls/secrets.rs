//! Certificates and trust bundles by name, as SDS delivers them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};

use super::{TlsError, data_source};

/// A secret ready for use.
pub enum SecretValue {
    /// A certificate chain with its key.
    Identity(Identity),
    /// What to trust.
    Trust(Trust),
    /// Something this proxy has no use for (session ticket keys, generic secrets).
    Other,
}

/// A certificate chain with its key.
pub struct Identity {
    /// For handshakes.
    pub key: Arc<CertifiedKey>,
    /// For people: the chain in PEM.
    pub chain_pem: String,
}

/// A trust bundle.
pub struct Trust {
    /// For handshakes.
    pub roots: Arc<RootCertStore>,
    /// For people: the bundle in PEM.
    pub pem: String,
    /// What the peer's names must match, if the secret says so.
    pub expected: super::verify::Expected,
}

/// A secret with the message it came from.
pub struct Entry {
    /// Ready for use.
    pub value: SecretValue,
    /// For dumps.
    pub message: Secret,
    /// The version the server gave it.
    pub version: String,
    /// When it came.
    pub updated: std::time::SystemTime,
}

/// All secrets of a proxy.
pub struct Secrets {
    map: RwLock<HashMap<String, Arc<Entry>>>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            map: RwLock::default(),
            generation: AtomicU64::new(1),
            changed: watch::channel(0).0,
        }
    }
}

impl Secrets {
    /// Takes a secret in use.
    ///
    /// # Errors
    /// When its contents are no certificates or key; the previous one stays.
    pub fn set(&self, message: Secret, version: &str) -> Result<(), TlsError> {
        let unread = dataplane::unread::unread(&message);
        if !unread.is_empty() {
            return Err(TlsError(crate::upstream::cluster::join(&unread)));
        }
        let value = match &message.r#type {
            Some(secret::Type::TlsCertificate(certificate)) => {
                SecretValue::Identity(identity(certificate)?)
            }
            Some(secret::Type::ValidationContext(context)) => SecretValue::Trust(trust(context)?),
            _ => SecretValue::Other,
        };
        let name = message.name.clone();
        let entry = Entry {
            value,
            message,
            version: version.to_owned(),
            updated: std::time::SystemTime::now(),
        };
        self.map.write().insert(name, Arc::new(entry));
        self.touch();
        Ok(())
    }

    /// Forgets a secret.
    pub fn remove(&self, name: &str) {
        self.map.write().remove(name);
        self.touch();
    }

    fn touch(&self) {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.send_replace(generation);
    }

    /// The secret of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.map.read().get(name).cloned()
    }

    /// All secrets in the order of their names.
    pub fn all(&self) -> Vec<(String, Arc<Entry>)> {
        let mut all: Vec<_> = self
            .map
            .read()
            .iter()
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Changes whenever a secret changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Wakes when a secret changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Reads a certificate message.
///
/// # Errors
/// When chain and key are not PEM or do not belong together.
pub fn identity(message: &TlsCertificate) -> Result<Identity, TlsError> {
    let text = |source: &Option<xds::envoy::config::core::v3::DataSource>, what: &str| {
        let source = source
            .as_ref()
            .ok_or_else(|| TlsError(format!("tls_certificate has no {what}")))?;
        String::from_utf8(data_source(source)?).map_err(|_| TlsError(format!("{what} is not PEM")))
    };
    let chain_pem = text(&message.certificate_chain, "certificate_chain")?;
    let key_pem = text(&message.private_key, "private_key")?;
    identity_from_pem(chain_pem, &key_pem)
}

/// A chain and a key in PEM.
///
/// # Errors
/// When they are not PEM or do not belong together.
pub fn identity_from_pem(chain_pem: String, key_pem: &str) -> Result<Identity, TlsError> {
    let identity = pki::tls::Identity::from_pem(&chain_pem, key_pem)
        .map_err(|error| TlsError(error.to_string()))?;
    let key = CertifiedKey::from_der(identity.chain, identity.key, &runtime::tls::provider())
        .map_err(|error| TlsError(format!("certificate and key: {error}")))?;
    Ok(Identity {
        key: Arc::new(key),
        chain_pem,
    })
}

/// Reads a validation context message.
///
/// # Errors
/// When the bundle is not PEM.
pub fn trust(message: &CertificateValidationContext) -> Result<Trust, TlsError> {
    let pem = match &message.trusted_ca {
        Some(source) => String::from_utf8(data_source(source)?)
            .map_err(|_| TlsError("trusted_ca is not PEM".into()))?,
        None if message.system_root_certs.is_some() => system_roots()?,
        None => String::new(),
    };
    let roots = if pem.trim().is_empty() {
        RootCertStore::empty()
    } else {
        pki::tls::roots(&pem).map_err(|error| TlsError(error.to_string()))?
    };
    Ok(Trust {
        roots: Arc::new(roots),
        pem,
        expected: super::verify::Expected::of(message)?,
    })
}

/// The machine's own trust store.
fn system_roots() -> Result<String, TlsError> {
    for path in [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ] {
        if let Ok(pem) = std::fs::read_to_string(path) {
            return Ok(pem);
        }
    }
    Err(TlsError(
        "system_root_certs: this machine has no trust store at /etc/ssl or /etc/pki".into(),
    ))
}
