//! Issuers: where their tokens lie, and what becomes of accepted ones.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use serde_json::Value;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::extensions::filters::http::jwt_authn::v3 as config;
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;

use super::token::Token;
use super::{Effects, Jwks, Location, Provider};
use crate::cluster::duration;
use crate::error::ConfigError;
use crate::matching::StringMatch;
use crate::request::RequestHead;

/// `https://example.com/` and `example.com` are the same audience.
pub(super) fn plain_audience(audience: &str) -> &str {
    let plain = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    plain.strip_suffix('/').unwrap_or(plain)
}

fn header_name(name: &str, field: &str) -> Result<HeaderName, ConfigError> {
    HeaderName::try_from(name)
        .map_err(|_| ConfigError::new(field, format!("{name:?} is not a header name")))
}

impl Provider {
    pub(super) fn compile(name: &str, config: &config::JwtProvider) -> Result<Self, ConfigError> {
        let keys = match &config.jwks_source_specifier {
            Some(JwksSourceSpecifier::LocalJwks(source)) => {
                let text = match &source.specifier {
                    Some(Specifier::InlineString(text)) => Cow::Borrowed(text.as_str()),
                    Some(Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes),
                    _ => {
                        return Err(ConfigError::new(
                            "local_jwks",
                            "only inline_string and inline_bytes are supported",
                        ));
                    }
                };
                // A set that cannot be read lets no token pass; Envoy says so with every token, too.
                Some(Arc::new(Jwks::parse(&text).unwrap_or_default()))
            }
            Some(JwksSourceSpecifier::RemoteJwks(_)) => None,
            None => return Err(ConfigError::new("jwks_source_specifier", "is missing")),
        };
        let mut locations = Vec::new();
        for header in &config.from_headers {
            let name = header_name(&header.name, "from_headers.name")?;
            locations.push(Location::Header {
                name,
                prefix: header.value_prefix.clone(),
            });
        }
        locations.extend(config.from_params.iter().cloned().map(Location::Parameter));
        locations.extend(config.from_cookies.iter().cloned().map(Location::Cookie));
        if locations.is_empty() {
            locations.push(Location::Header {
                name: http::header::AUTHORIZATION,
                prefix: "Bearer ".to_owned(),
            });
            locations.push(Location::Parameter("access_token".to_owned()));
        }
        let claim = |claim: &config::JwtClaimToHeader| {
            let path: Vec<String> = if claim.claim_path.is_empty() {
                claim.claim_name.split('.').map(str::to_owned).collect()
            } else {
                claim
                    .claim_path
                    .iter()
                    .map(|segment| segment.key.clone())
                    .collect()
            };
            Ok((
                header_name(&claim.header_name, "claim_to_headers.header_name")?,
                path,
            ))
        };
        let payload_header =
            Some(config.forward_payload_header.as_str()).filter(|name| !name.is_empty());
        Ok(Self {
            name: name.to_owned(),
            issuer: config.issuer.clone(),
            audiences: config
                .audiences
                .iter()
                .map(|audience| plain_audience(audience).to_owned())
                .collect(),
            subjects: config
                .subjects
                .as_ref()
                .map(StringMatch::compile)
                .transpose()
                .map_err(|e| e.within("subjects"))?,
            require_expiration: config.require_expiration,
            max_lifetime: duration(config.max_lifetime.as_ref()),
            skew: Duration::from_secs(if config.clock_skew_seconds == 0 {
                60
            } else {
                config.clock_skew_seconds.into()
            }),
            keys,
            locations,
            forward: config.forward,
            payload_header: payload_header
                .map(|name| {
                    Ok::<_, ConfigError>((
                        header_name(name, "forward_payload_header")?,
                        config.pad_forward_payload_header,
                    ))
                })
                .transpose()?,
            payload_in_metadata: config.payload_in_metadata.clone(),
            header_in_metadata: config.header_in_metadata.clone(),
            space_delimited: config
                .normalize_payload_in_metadata
                .as_ref()
                .map_or(Vec::new(), |normalize| {
                    normalize.space_delimited_claims.clone()
                }),
            claims_to_headers: config
                .claim_to_headers
                .iter()
                .map(claim)
                .collect::<Result<_, ConfigError>>()?,
            clear_route_cache: config.clear_route_cache,
        })
    }

    /// The tokens of a request that lie where this provider looks.
    pub(super) fn tokens<'a>(
        &'a self,
        head: &RequestHead<'a>,
    ) -> Vec<(Cow<'a, str>, &'a Location)> {
        let mut tokens = Vec::new();
        for location in &self.locations {
            match location {
                Location::Header { name, prefix } => {
                    let values = head
                        .headers
                        .get_all(name)
                        .iter()
                        .filter_map(|value| value.to_str().ok());
                    let after = |value: &'a str| {
                        value
                            .find(prefix.as_str())
                            .map(|at| &value[at + prefix.len()..])
                    };
                    let word = |value: &'a str| {
                        let end = value
                            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_=.+/".contains(c)));
                        Cow::Borrowed(&value[..end.unwrap_or(value.len())])
                    };
                    tokens.extend(
                        values
                            .filter_map(after)
                            .map(|value| (word(value.trim_start()), location)),
                    );
                }
                Location::Parameter(name) => {
                    tokens.extend(
                        head.query_param(name)
                            .map(|value| (Cow::Borrowed(value), location)),
                    );
                }
                Location::Cookie(name) => {
                    tokens.extend(
                        head.cookie(name)
                            .map(|value| (Cow::Borrowed(value), location)),
                    );
                }
            }
        }
        tokens
    }

    pub(super) fn accept(&self, token: &Token<'_>, location: &Location, effects: &mut Effects) {
        if let Some((name, pad)) = &self.payload_header {
            let padding = if *pad {
                "=".repeat((4 - token.payload_text.len() % 4) % 4)
            } else {
                String::new()
            };
            effects
                .set
                .push((name.clone(), format!("{}{padding}", token.payload_text)));
        }
        for (name, path) in &self.claims_to_headers {
            let mut value = path.first().and_then(|key| token.payload.get(key));
            for key in path.iter().skip(1) {
                value = value.and_then(|value| value.get(key));
            }
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(composite @ (Value::Object(_) | Value::Array(_))) => {
                    URL_SAFE_NO_PAD.encode(composite.to_string())
                }
                Some(Value::Null) | None => continue,
            };
            effects.set.push((name.clone(), text));
        }
        match location {
            _ if self.forward => {}
            Location::Header { name, .. } => effects.remove.push(name.clone()),
            Location::Parameter(name) => effects.remove_parameters.push(name.clone()),
            // Envoy leaves cookies alone.
            Location::Cookie(_) => {}
        }
        if !self.payload_in_metadata.is_empty() {
            let mut payload = token.payload.clone();
            for claim in &self.space_delimited {
                if let Some(Value::String(text)) = payload.get(claim) {
                    let words: Vec<Value> = text.split(' ').map(Value::from).collect();
                    payload.insert(claim.clone(), Value::Array(words));
                }
            }
            effects
                .metadata
                .insert(self.payload_in_metadata.clone(), Value::Object(payload));
        }
        if !self.header_in_metadata.is_empty() {
            effects.metadata.insert(
                self.header_in_metadata.clone(),
                Value::Object(token.header.clone()),
            );
        }
        effects.clear_route_cache |= self.clear_route_cache;
    }
}
