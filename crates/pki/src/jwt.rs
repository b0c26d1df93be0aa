//! Service-account tokens: JSON Web Tokens signed with ES256 (RFC 7515, 7518, 7519).
//!
//! Written on ring's signatures rather than with a JWT library: one algorithm, no algorithm
//! negotiation, and therefore none of the confusion attacks a general library must guard
//! against.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{Error, KeyPair};

/// The claims of a Kubernetes service-account token. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences. A single text is read as a list of one.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Expiry.
    pub exp: i64,
    /// When it was issued.
    #[serde(default)]
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Unique id of this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What the token is bound to.
    #[serde(
        rename = "kubernetes.io",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub kubernetes: Option<Bound>,
    /// Not valid before.
    #[serde(default)]
    pub nbf: i64,
    /// Subject: `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// The private claim `kubernetes.io`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of the service account.
    pub namespace: String,
    /// The node the pod runs on, when the token is bound to a pod; alone: the node the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectId>,
    /// The pod the token is bound to: it dies with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectId>,
    /// The Secret the token is bound to: it dies with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectId>,
    /// The service account.
    pub serviceaccount: ObjectId,
}

/// The claims of a token that lives in a Secret of type `kubernetes.io/service-account-token`: it has no audience and never expires,
/// but dies with its Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretClaims {
    /// Issuer: always [`SECRET_ISSUER`].
    pub iss: String,
    /// Namespace of the service account and of the Secret.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret the token is in.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// Name of the service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// Uid of the service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    /// Subject: `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Who issues the tokens that live in Secrets.
pub const SECRET_ISSUER: &str = "kubernetes/serviceaccount";

/// Name and uid of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectId {
    /// Name.
    pub name: String,
    /// Uid; absent for a node that is gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Not three base64url parts of JSON with the needed claims.
    #[error("token is malformed: {0}")]
    Malformed(String),
    /// The header names another algorithm.
    #[error("token is signed with {0:?}, only ES256 is accepted")]
    Algorithm(String),
    /// None of the trusted keys has the key id of the header.
    #[error("token is signed with the unknown key {0:?}")]
    UnknownKey(String),
    /// The signature is wrong.
    #[error("token signature is invalid")]
    Signature,
    /// The issuer is another one.
    #[error("token was issued by {0:?}")]
    Issuer(String),
    /// No audience is accepted here.
    #[error("token audiences {0:?} are invalid for this target")]
    Audience(Vec<String>),
    /// It has expired.
    #[error("token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("token is not valid yet")]
    NotYetValid,
}

/// Signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl Signer {
    /// A signer with this key.
    ///
    /// # Errors
    /// When ring refuses the key.
    pub fn new(key: &KeyPair) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let inner =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.to_der(), &random)
                .map_err(|error| Error::Key(format!("token signing key: {error}")))?;
        Ok(Self {
            key: inner,
            random,
            id: key.id(),
        })
    }

    /// The signed token in compact form.
    ///
    /// # Errors
    /// When the claims are not serialisable or the operating system has no randomness.
    pub fn sign<T: Serialize>(&self, claims: &T) -> Result<String, Error> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let payload = serde_json::to_vec(claims)
            .map_err(|error| Error::Key(format!("token claims: {error}")))?;
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = self
            .key
            .sign(&self.random, token.as_bytes())
            .map_err(|_| Error::Key("the operating system gave no randomness".to_owned()))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }
}

/// What a token must fit to be accepted.
#[derive(Debug, Clone)]
pub struct Expect<'a> {
    /// The issuer it must have.
    pub issuer: &'a str,
    /// It must carry at least one of these audiences.
    pub audiences: &'a [&'a str],
    /// The present moment, seconds since the Unix epoch.
    pub now: i64,
}

/// Checks tokens against a set of public keys.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    keys: Vec<PublicKey>,
}

#[derive(Debug, Clone)]
struct PublicKey {
    id: String,
    /// `04 || x || y`
    point: Vec<u8>,
}

impl Verifier {
    /// A verifier that trusts these keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a KeyPair>) -> Self {
        let keys = keys
            .into_iter()
            .map(|key| PublicKey {
                id: key.id(),
                point: key.public_point().to_vec(),
            })
            .collect();
        Self { keys }
    }

    /// A verifier from a JSON Web Key Set; keys of other types than EC P-256 are left out.
    ///
    /// # Errors
    /// When the set has no `keys` list or a P-256 key in it is damaged.
    pub fn from_jwks(jwks: &Value) -> Result<Self, Error> {
        let list = jwks["keys"]
            .as_array()
            .ok_or_else(|| Error::Key("key set: the list \"keys\" is missing".to_owned()))?;
        let mut keys = Vec::new();
        for entry in list {
            if entry["kty"] != "EC" || entry["crv"] != "P-256" {
                continue;
            }
            let id = entry["kid"].as_str().unwrap_or_default().to_owned();
            let mut point = vec![4];
            for name in ["x", "y"] {
                let bytes = entry[name]
                    .as_str()
                    .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
                    .filter(|bytes| bytes.len() == 32)
                    .ok_or_else(|| {
                        Error::Key(format!(
                            "key set: key {id:?}: {name} is not 32 bytes of base64url"
                        ))
                    })?;
                point.extend(bytes);
            }
            keys.push(PublicKey { id, point });
        }
        Ok(Self { keys })
    }

    /// The JSON Web Key Set of these keys, as served at `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .keys
            .iter()
            .map(|key| {
                json!({
                    "use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                    "x": URL_SAFE_NO_PAD.encode(&key.point[1..33]),
                    "y": URL_SAFE_NO_PAD.encode(&key.point[33..65]),
                })
            })
            .collect();
        json!({ "keys": keys })
    }

    /// Checks a token and returns its claims.
    ///
    /// # Errors
    /// The first thing that is wrong with it: form, signature, issuer, times, audience.
    pub fn verify(&self, token: &str, expect: &Expect<'_>) -> Result<Claims, Rejection> {
        let claims: Claims = self.verify_signature(token)?;
        if claims.iss != expect.issuer {
            return Err(Rejection::Issuer(claims.iss));
        }
        if expect.now < claims.nbf {
            return Err(Rejection::NotYetValid);
        }
        if expect.now >= claims.exp {
            return Err(Rejection::Expired);
        }
        if !claims
            .aud
            .iter()
            .any(|audience| expect.audiences.contains(&audience.as_str()))
        {
            return Err(Rejection::Audience(claims.aud));
        }
        Ok(claims)
    }

    /// Checks a token that should live in a Secret. Whether it still does is for the caller to see.
    ///
    /// # Errors
    /// When form, signature or issuer are wrong.
    pub fn verify_of_secret(&self, token: &str) -> Result<SecretClaims, Rejection> {
        let claims: SecretClaims = self.verify_signature(token)?;
        if claims.iss != SECRET_ISSUER {
            return Err(Rejection::Issuer(claims.iss));
        }
        Ok(claims)
    }

    fn verify_signature<T: DeserializeOwned>(&self, token: &str) -> Result<T, Rejection> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            kid: String,
        }

        let malformed = |reason: &str| Rejection::Malformed(reason.to_owned());
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or_else(|| malformed("it has no signature"))?;
        let (header, payload) = signed
            .split_once('.')
            .ok_or_else(|| malformed("it has fewer than three parts"))?;
        let header: Header = decode(header, "header")?;
        if header.alg != "ES256" {
            return Err(Rejection::Algorithm(header.alg));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| malformed("its signature is not base64url"))?;
        let mut candidates = self
            .keys
            .iter()
            .filter(|key| header.kid.is_empty() || key.id == header.kid)
            .peekable();
        if candidates.peek().is_none() {
            return Err(Rejection::UnknownKey(header.kid));
        }
        let genuine = candidates.any(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
                .verify(signed.as_bytes(), &signature)
                .is_ok()
        });
        if !genuine {
            return Err(Rejection::Signature);
        }
        decode(payload, "payload")
    }
}

/// The issuer a token claims, unverified: to choose between authenticators before checking.
pub fn unverified_issuer(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    value["iss"].as_str().map(str::to_owned)
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str, name: &str) -> Result<T, Rejection> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Rejection::Malformed(format!("its {name} is not base64url")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Rejection::Malformed(format!("its {name} is not usable: {error}")))
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(list) => list,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    fn claims() -> Claims {
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: 2_000,
            iat: 1_000,
            iss: ISSUER.to_owned(),
            jti: Some("1".to_owned()),
            kubernetes: Some(Bound {
                namespace: "theater-msa".to_owned(),
                node: None,
                pod: Some(ObjectId {
                    name: "p".to_owned(),
                    uid: "u2".to_owned(),
                }),
                secret: None,
                serviceaccount: ObjectId {
                    name: "user".to_owned(),
                    uid: "u1".to_owned(),
                },
            }),
            nbf: 1_000,
            sub: "system:serviceaccount:theater-msa:user".to_owned(),
        }
    }

    fn expect(now: i64) -> Expect<'static> {
        Expect {
            issuer: ISSUER,
            audiences: &[ISSUER],
            now,
        }
    }

    #[test]
    fn a_token_round_trips_and_carries_kubernetes_claims() {
        let key = KeyPair::generate().unwrap();
        let token = Signer::new(&key).unwrap().sign(&claims()).unwrap();
        let verifier = Verifier::new([&key]);
        assert_eq!(verifier.verify(&token, &expect(1_500)).unwrap(), claims());
        let jwks = verifier.jwks();
        assert_eq!(jwks["keys"][0]["kid"], json!(key.id()));
        let other = Verifier::from_jwks(&jwks).unwrap();
        assert_eq!(other.verify(&token, &expect(1_500)).unwrap(), claims());
        let payload = token.split('.').nth(1).unwrap();
        let raw: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(raw["kubernetes.io"]["serviceaccount"]["name"], "user");
        assert_eq!(unverified_issuer(&token).as_deref(), Some(ISSUER));
    }

    #[test]
    fn times_issuer_and_audience_are_checked() {
        let key = KeyPair::generate().unwrap();
        let token = Signer::new(&key).unwrap().sign(&claims()).unwrap();
        let verifier = Verifier::new([&key]);
        assert_eq!(
            verifier.verify(&token, &expect(999)),
            Err(Rejection::NotYetValid)
        );
        assert_eq!(
            verifier.verify(&token, &expect(2_000)),
            Err(Rejection::Expired)
        );
        let other = Expect {
            issuer: "else",
            ..expect(1_500)
        };
        assert!(matches!(
            verifier.verify(&token, &other),
            Err(Rejection::Issuer(_))
        ));
        let other = Expect {
            audiences: &["istio-ca"],
            ..expect(1_500)
        };
        assert!(matches!(
            verifier.verify(&token, &other),
            Err(Rejection::Audience(_))
        ));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let key = KeyPair::generate().unwrap();
        let token = Signer::new(&key).unwrap().sign(&claims()).unwrap();
        let verifier = Verifier::new([&key]);
        let stranger = KeyPair::generate().unwrap();
        assert!(matches!(
            Verifier::new([&stranger]).verify(&token, &expect(1_500)),
            Err(Rejection::UnknownKey(_))
        ));
        let mut changed = claims();
        changed.sub = "system:serviceaccount:kube-system:root".to_owned();
        let parts: Vec<&str> = token.split('.').collect();
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&changed).unwrap());
        let forged = format!("{}.{payload}.{}", parts[0], parts[2]);
        assert_eq!(
            verifier.verify(&forged, &expect(1_500)),
            Err(Rejection::Signature)
        );
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let forged = format!("{none}.{payload}.");
        assert!(matches!(
            verifier.verify(&forged, &expect(1_500)),
            Err(Rejection::Algorithm(_))
        ));
        assert!(matches!(
            verifier.verify("x", &expect(1)),
            Err(Rejection::Malformed(_))
        ));
    }
}
