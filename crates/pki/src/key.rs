//! ECDSA P-256 key pairs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Error, Result};

/// An ECDSA P-256 key pair, kept as PKCS#8.
pub struct KeyPair {
    inner: rcgen::KeyPair,
}

impl KeyPair {
    /// A new random key pair from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self> {
        let inner = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self { inner })
    }

    /// Reads a PKCS#8 PEM text.
    ///
    /// # Errors
    /// When the text is damaged or the key is not ECDSA P-256.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let inner =
            rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|error| {
                    Error::Key(format!(
                        "expected an ECDSA P-256 key in PKCS#8 PEM: {error}"
                    ))
                })?;
        Ok(Self { inner })
    }

    /// The key pair as PKCS#8 PEM.
    pub fn to_pem(&self) -> String {
        crate::pem::encode("PRIVATE KEY", self.inner.serialized_der())
    }

    /// The key pair as PKCS#8 DER.
    pub fn to_der(&self) -> &[u8] {
        self.inner.serialized_der()
    }

    /// The uncompressed public point: `04 || x || y`, 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.inner.public_key_raw()
    }

    /// The key id Kubernetes gives signing keys: unpadded base64url of the SHA-256 of the
    /// DER SubjectPublicKeyInfo.
    pub fn id(&self) -> String {
        use rcgen::PublicKeyData as _;
        let spki = self.inner.subject_public_key_info();
        let digest = ring::digest::digest(&ring::digest::SHA256, &spki);
        URL_SAFE_NO_PAD.encode(digest)
    }

    pub(crate) fn rcgen(&self) -> &rcgen::KeyPair {
        &self.inner
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("KeyPair").field("id", &self.id()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.id(), again.id());
        assert_eq!(key.public_point().len(), 65);
        assert!(key.to_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let key = KeyPair::generate().unwrap();
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let error =
            KeyPair::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
                .unwrap_err();
        assert!(error.to_string().contains("ECDSA P-256"), "{error}");
    }
}
