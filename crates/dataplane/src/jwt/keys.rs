//! JSON web keys and signatures.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// A set of public keys.
#[derive(Debug, Clone, Default)]
pub struct Jwks {
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    kid: Option<String>,
    alg: Option<String>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// No key for this kid and algorithm.
    NoKey,
    /// There was one, but the signature is not its own.
    Signature,
}

/// The algorithms a token may name.
pub(super) const ALGORITHMS: [&str; 12] = [
    "ES256", "ES384", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384",
    "EdDSA", "PS512",
];

impl Jwks {
    /// Reads a key set. Keys of kinds nobody knows are skipped; a set without any usable key is an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: Value =
            serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let list = json
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("has no list \"keys\"")?;
        let keys: Vec<Key> = list.iter().filter_map(Key::parse).collect();
        if keys.is_empty() {
            Err("has no usable key".to_owned())
        } else {
            Ok(Self { keys })
        }
    }

    /// Checks a signature over `signed` with the keys that fit.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        alg: &str,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Mismatch> {
        let mut result = Err(Mismatch::NoKey);
        for key in &self.keys {
            let other_kid = matches!((kid, &key.kid), (Some(kid), Some(own)) if kid != own);
            let other_alg = key.alg.as_deref().is_some_and(|own| own != alg);
            if other_kid || other_alg {
                continue;
            }
            if key.material.verify(alg, signed, signature) {
                return Ok(());
            }
            result = Err(Mismatch::Signature);
        }
        result
    }
}

impl Key {
    fn parse(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            URL_SAFE_NO_PAD
                .decode(text(name)?.trim_end_matches('='))
                .ok()
        };
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match text("kty")? {
            "RSA" => Material::Rsa {
                n: bytes("n")?,
                e: bytes("e")?,
            },
            "EC" => {
                let curve = text("crv")?.to_owned();
                let size = match curve.as_str() {
                    "P-256" => 32,
                    "P-384" => 48,
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                Material::Ec {
                    curve,
                    point: [&[4][..], &x, &y].concat(),
                }
            }
            "OKP" if text("crv")? == "Ed25519" => Material::Ed25519(bytes("x")?),
            "oct" => Material::Secret(bytes("k")?),
            _ => return None,
        };
        Some(Self {
            kid: text("kid").map(str::to_owned),
            alg: text("alg").map(str::to_owned),
            material,
        })
    }
}

impl Material {
    fn verify(&self, alg: &str, signed: &[u8], signed_with: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                let algorithm = match alg {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }
                    .verify(algorithm, signed, signed_with)
                    .is_ok()
            }
            Self::Ec { curve, point } => {
                let algorithm: &dyn signature::VerificationAlgorithm = match (alg, curve.as_str()) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point)
                    .verify(signed, signed_with)
                    .is_ok()
            }
            Self::Ed25519(key) => {
                alg == "EdDSA"
                    && UnparsedPublicKey::new(&signature::ED25519, key)
                        .verify(signed, signed_with)
                        .is_ok()
            }
            Self::Secret(secret) => {
                let algorithm = match alg {
                    "HS256" => ring::hmac::HMAC_SHA256,
                    "HS384" => ring::hmac::HMAC_SHA384,
                    "HS512" => ring::hmac::HMAC_SHA512,
                    _ => return false,
                };
                ring::hmac::verify(
                    &ring::hmac::Key::new(algorithm, secret),
                    signed,
                    signed_with,
                )
                .is_ok()
            }
        }
    }
}
