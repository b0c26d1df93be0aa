//! Reading one token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::ALGORITHMS;
use super::{Failure, Jwks};
use crate::jwt::keys::Mismatch;

/// A token, parsed but not verified.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) text: &'t str,
    /// The payload as it stands in the token.
    pub(super) payload_text: &'t str,
    pub(super) payload: Map<String, Value>,
    pub(super) header: Map<String, Value>,
    alg: String,
    kid: Option<String>,
    signature: Vec<u8>,
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
}

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Failure> {
        let mut parts = text.split('.');
        let (Some(header_text), Some(payload_text), Some(signature_text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::BadFormat);
        };
        let header = URL_SAFE_NO_PAD
            .decode(header_text)
            .map_err(|_| Failure::HeaderBase64)?;
        let header = object(&header).ok_or(Failure::HeaderJson)?;
        let alg = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(Failure::HeaderAlg)?
            .to_owned();
        if !ALGORITHMS.contains(&alg.as_str()) {
            return Err(Failure::HeaderAlgUnknown);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Failure::HeaderKid),
        };
        let payload = URL_SAFE_NO_PAD
            .decode(payload_text)
            .map_err(|_| Failure::PayloadBase64)?;
        let payload = object(&payload).ok_or(Failure::PayloadJson)?;
        let issuer = match payload.get("iss") {
            None => String::new(),
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(Failure::PayloadIss),
        };
        for (name, failure) in [
            ("exp", Failure::PayloadExp),
            ("nbf", Failure::PayloadNbf),
            ("iat", Failure::PayloadIat),
        ] {
            if payload
                .get(name)
                .is_some_and(|time| time.as_f64().is_none_or(|time| time < 0.0))
            {
                return Err(failure);
            }
        }
        let audiences = match payload.get("aud") {
            None => Vec::new(),
            Some(Value::String(audience)) => vec![audience.clone()],
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().ok_or(Failure::PayloadAud)?
            }
            Some(_) => return Err(Failure::PayloadAud),
        };
        let signature = URL_SAFE_NO_PAD
            .decode(signature_text)
            .map_err(|_| Failure::SignatureBase64)?;
        Ok(Self {
            text,
            payload_text,
            payload,
            header,
            alg,
            kid,
            signature,
            issuer,
            audiences,
        })
    }

    /// Checks `nbf` and `exp`.
    pub(super) fn check_time(&self, now: SystemTime, skew: Duration) -> Result<(), Failure> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let time = |name: &str| {
            self.payload
                .get(name)
                .and_then(Value::as_f64)
                .map(|time| time as u64)
        };
        let skew = skew.as_secs();
        if time("nbf").is_some_and(|not_before| now + skew < not_before) {
            return Err(Failure::NotYetValid);
        }
        if time("exp").is_some_and(|expiry| now > expiry.saturating_add(skew)) {
            return Err(Failure::Expired);
        }
        Ok(())
    }

    /// Seconds from `iat` to `exp`, where both are there; and whether there is an `exp`.
    pub(super) fn lifetime(&self) -> (bool, Option<f64>) {
        let time = |name: &str| self.payload.get(name).and_then(Value::as_f64);
        (
            time("exp").is_some(),
            time("exp")
                .zip(time("iat"))
                .map(|(expiry, issued)| expiry - issued),
        )
    }

    pub(super) fn check_signature(&self, keys: &Jwks) -> Result<(), Failure> {
        let signed = &self.text.as_bytes()[..self.text.rfind('.').unwrap_or_default()];
        keys.verify(self.kid.as_deref(), &self.alg, signed, &self.signature)
            .map_err(|mismatch| match mismatch {
                Mismatch::NoKey => Failure::NoKey,
                Mismatch::Signature => Failure::Verification,
            })
    }
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
