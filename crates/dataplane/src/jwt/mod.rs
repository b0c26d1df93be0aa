//! JSON web tokens: the rules behind RequestAuthentications.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::extensions::filters::http::jwt_authn::v3 as config;
use xds::envoy::extensions::filters::http::jwt_authn::v3::{
    jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType,
    requirement_rule::RequirementType,
};

use crate::cluster::duration;
use crate::error::ConfigError;
use crate::flags::ResponseFlags;
use crate::local_reply::LocalReply;
use crate::matching::StringMatch;
use crate::request::{RequestHead, RequestHeadMut};
use crate::route::{MatchFacts, RouteMatcher};
use crate::stream::Metadata;

mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use keys::Jwks;
use token::Token;

/// The filter's name, under which claims are kept in the dynamic metadata.
pub const FILTER: &str = "envoy.filters.http.jwt_authn";

/// Why a token is not accepted; prints as Envoy's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Failure {
    #[error("Jwt is missing")]
    Missing,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt verification fails")]
    Verification,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    #[error("Jwks remote fetch is failed")]
    JwksFetch,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    BadFormat,
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    #[error("Jwt header [alg] field is required and must be a string")]
    HeaderAlg,
    #[error("Jwt header [alg] is not supported")]
    HeaderAlgUnknown,
    #[error("Jwt header [kid] field is not a string")]
    HeaderKid,
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    #[error("Jwt payload [iss] field is not a string")]
    PayloadIss,
    #[error("Jwt payload [exp] field is not an integer")]
    PayloadExp,
    #[error("Jwt payload [nbf] field is not an integer")]
    PayloadNbf,
    #[error("Jwt payload [iat] field is not an integer")]
    PayloadIat,
    #[error("Jwt payload [aud] field is not a string or string list")]
    PayloadAud,
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
}

impl Failure {
    /// The answer, and its www-authenticate header.
    pub fn reply(self, head: &RequestHead<'_>) -> (LocalReply, String) {
        let text = self.to_string();
        let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
        let path: String = head.path.chars().take(256).collect();
        let mut challenge = format!(
            "Bearer realm=\"{}://{}{path}\"",
            head.scheme, head.authority
        );
        if self != Self::Missing {
            challenge.push_str(", error=\"invalid_token\"");
        }
        let reply = LocalReply {
            status: if self == Self::Audience { 403 } else { 401 },
            body: text.into(),
            flags: ResponseFlags::NONE,
            details: details.into(),
            headers: &[],
            grpc_status: None,
        };
        (reply, challenge)
    }
}

/// What accepted tokens change.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// For the dynamic metadata, under [`FILTER`].
    pub metadata: Metadata,
    /// The route is to be chosen anew, now that the claims are known.
    pub clear_route_cache: bool,
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, String)>,
}

impl Effects {
    /// Removes tokens that are not to be forwarded, adds headers made of claims.
    pub fn apply(&self, head: &mut RequestHeadMut<'_>) {
        for name in &self.remove {
            head.headers.remove(name);
        }
        for (name, value) in &self.set {
            if let Ok(value) = HeaderValue::from_str(value) {
                head.headers.insert(name, value);
            }
        }
    }
}

/// A `jwt_authn` filter, compiled.
#[derive(Debug)]
pub struct JwtAuthn {
    providers: Vec<Provider>,
    rules: Vec<(RouteMatcher, Option<Requirement>)>,
    named: Vec<(String, Requirement)>,
    bypass_preflight: bool,
}

#[derive(Debug)]
struct Provider {
    name: String,
    issuer: String,
    audiences: Vec<String>,
    subjects: Option<StringMatch>,
    require_expiration: bool,
    max_lifetime: Option<Duration>,
    skew: Duration,
    /// `None`: fetched by the proxy.
    keys: Option<Arc<Jwks>>,
    locations: Vec<Location>,
    forward: bool,
    payload_header: Option<(HeaderName, bool)>,
    payload_in_metadata: String,
    header_in_metadata: String,
    space_delimited: Vec<String>,
    claims_to_headers: Vec<(HeaderName, Vec<String>)>,
    clear_route_cache: bool,
}

#[derive(Debug)]
enum Location {
    Header { name: HeaderName, prefix: String },
    Parameter(String),
    Cookie(String),
}

#[derive(Debug)]
enum Requirement {
    Provider(usize, Option<Vec<String>>),
    Any(Vec<Requirement>),
    All(Vec<Requirement>),
    AllowMissing,
    AllowMissingOrFailed,
}

/// The keys of providers whose key sets are fetched, by provider name.
pub type RemoteKeys<'a> = &'a dyn Fn(&str) -> Option<Arc<Jwks>>;

impl JwtAuthn {
    /// Compiles the filter.
    pub fn compile(config: &config::JwtAuthentication) -> Result<Self, ConfigError> {
        let mut providers = Vec::with_capacity(config.providers.len());
        for (name, provider) in &config.providers {
            let at = |error: ConfigError| error.within(&format!("providers[{name:?}]"));
            providers.push(Provider::compile(name, provider).map_err(at)?);
        }
        let requirement =
            |config: &config::JwtRequirement| Requirement::compile(config, &providers);
        let mut named = Vec::new();
        for (name, config) in &config.requirement_map {
            named.push((
                name.clone(),
                requirement(config).map_err(|e| e.within("requirement_map"))?,
            ));
        }
        let mut rules = Vec::with_capacity(config.rules.len());
        for (index, rule) in config.rules.iter().enumerate() {
            let at = |error: ConfigError| error.within(&format!("rules[{index}]"));
            let matcher = rule
                .r#match
                .as_ref()
                .ok_or_else(|| at(ConfigError::new("match", "is missing")))?;
            let needed = match &rule.requirement_type {
                None => None,
                Some(RequirementType::Requires(config)) => Some(requirement(config).map_err(at)?),
                Some(RequirementType::RequirementName(name)) => {
                    let config = config.requirement_map.get(name).ok_or_else(|| {
                        at(ConfigError::new(
                            "requirement_name",
                            format!("{name:?} is not in requirement_map"),
                        ))
                    })?;
                    Some(requirement(config).map_err(at)?)
                }
            };
            rules.push((
                RouteMatcher::compile(matcher).map_err(|e| at(e.within("match")))?,
                needed,
            ));
        }
        if config.filter_state_rules.is_some() {
            return Err(ConfigError::new("filter_state_rules", "are not supported"));
        }
        Ok(Self {
            providers,
            rules,
            named,
            bypass_preflight: config.bypass_cors_preflight,
        })
    }

    /// The providers whose keys must be fetched, by name.
    pub fn remote_providers(&self) -> impl Iterator<Item = &str> {
        self.providers
            .iter()
            .filter(|provider| provider.keys.is_none())
            .map(|provider| provider.name.as_str())
    }

    /// Judges a request by the first rule that matches it. `named` is the requirement that the route asks for
    /// instead. Without rule or requirement everybody passes.
    pub fn check(
        &self,
        head: &RequestHead<'_>,
        facts: &MatchFacts<'_>,
        named: Option<&str>,
        now: SystemTime,
        remote: RemoteKeys<'_>,
    ) -> Result<Effects, Failure> {
        let preflight = head.method == Method::OPTIONS
            && head.headers.contains_key("origin")
            && head.headers.contains_key("access-control-request-method");
        if self.bypass_preflight && preflight {
            return Ok(Effects::default());
        }
        let requirement = match named {
            Some(name) => self
                .named
                .iter()
                .find(|(own, _)| own == name)
                .map(|(_, requirement)| requirement),
            None => {
                let rule = self
                    .rules
                    .iter()
                    .find(|(matcher, _)| matcher.matches(head, facts));
                rule.and_then(|(_, requirement)| requirement.as_ref())
            }
        };
        let mut effects = Effects::default();
        if let Some(requirement) = requirement {
            let check = Check {
                filter: self,
                head,
                now,
                remote,
            };
            check.requirement(requirement, &mut effects)?;
        }
        Ok(effects)
    }
}

/// One request before the judge.
struct Check<'a> {
    filter: &'a JwtAuthn,
    head: &'a RequestHead<'a>,
    now: SystemTime,
    remote: RemoteKeys<'a>,
}

impl Check<'_> {
    fn requirement(&self, requirement: &Requirement, effects: &mut Effects) -> Result<(), Failure> {
        match requirement {
            Requirement::Provider(index, audiences) => {
                let provider = &self.filter.providers[*index];
                let tokens = provider.tokens(self.head);
                if tokens.is_empty() {
                    return Err(Failure::Missing);
                }
                for (text, location) in tokens {
                    self.verify(&text, location, provider, audiences.as_deref(), effects)?;
                }
                Ok(())
            }
            Requirement::All(all) => all
                .iter()
                .try_for_each(|one| self.requirement(one, effects)),
            Requirement::Any(any) => {
                let mut worst = Failure::Missing;
                for one in any {
                    match self.requirement(one, effects) {
                        Ok(()) => return Ok(()),
                        // What is wrong with a token says more than that another would have been right.
                        Err(failure) => {
                            let weight = |failure| match failure {
                                Failure::Missing => 0,
                                Failure::UnknownIssuer => 1,
                                _ => 2,
                            };
                            if weight(failure) > weight(worst) {
                                worst = failure;
                            }
                        }
                    }
                }
                Err(worst)
            }
            Requirement::AllowMissing => self.by_issuer(effects),
            Requirement::AllowMissingOrFailed => {
                let _ = self.by_issuer(effects);
                Ok(())
            }
        }
    }

    /// Every token that is there must be valid for its issuer.
    fn by_issuer(&self, effects: &mut Effects) -> Result<(), Failure> {
        let mut seen: Vec<String> = Vec::new();
        for provider in &self.filter.providers {
            for (text, location) in provider.tokens(self.head) {
                if seen.iter().any(|other| *other == text) {
                    continue;
                }
                let issuer = Token::parse(&text)?.issuer;
                let own =
                    |provider: &&Provider| provider.issuer.is_empty() || provider.issuer == issuer;
                let provider = self
                    .filter
                    .providers
                    .iter()
                    .find(own)
                    .ok_or(Failure::UnknownIssuer)?;
                self.verify(&text, location, provider, None, effects)?;
                seen.push(text.into_owned());
            }
        }
        Ok(())
    }

    fn verify(
        &self,
        text: &str,
        location: &Location,
        provider: &Provider,
        audiences: Option<&[String]>,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let token = Token::parse(text)?;
        if !provider.issuer.is_empty() && provider.issuer != token.issuer {
            return Err(Failure::UnknownIssuer);
        }
        token.check_time(self.now, provider.skew)?;
        let subject = token
            .payload
            .get("sub")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (expires, lifetime) = token.lifetime();
        let too_long = provider
            .max_lifetime
            .is_some_and(|max| lifetime.is_none_or(|lifetime| lifetime > max.as_secs_f64()));
        if provider
            .subjects
            .as_ref()
            .is_some_and(|subjects| !subjects.matches(subject))
            || (provider.require_expiration && !expires)
            || too_long
        {
            return Err(Failure::Verification);
        }
        let allowed = audiences.unwrap_or(&provider.audiences);
        let plain = |audience: &str| plain_audience(audience).to_owned();
        if !allowed.is_empty()
            && !token
                .audiences
                .iter()
                .any(|audience| allowed.contains(&plain(audience)))
        {
            return Err(Failure::Audience);
        }
        match &provider.keys {
            Some(keys) => token.check_signature(keys)?,
            None => {
                token.check_signature(&*(self.remote)(&provider.name).ok_or(Failure::JwksFetch)?)?
            }
        }
        provider.accept(&token, location, effects);
        Ok(())
    }
}

/// `https://example.com/` and `example.com` are the same audience.
fn plain_audience(audience: &str) -> &str {
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
    fn compile(name: &str, config: &config::JwtProvider) -> Result<Self, ConfigError> {
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
    fn tokens<'a>(&'a self, head: &RequestHead<'a>) -> Vec<(Cow<'a, str>, &'a Location)> {
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

    fn accept(&self, token: &Token<'_>, location: &Location, effects: &mut Effects) {
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
                    use base64::Engine as _;
                    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(composite.to_string())
                }
                Some(Value::Null) | None => continue,
            };
            effects.set.push((name.clone(), text));
        }
        if let (false, Location::Header { name, .. }) = (self.forward, location) {
            effects.remove.push(name.clone());
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

impl Requirement {
    fn compile(
        config: &config::JwtRequirement,
        providers: &[Provider],
    ) -> Result<Self, ConfigError> {
        let provider = |name: &str| {
            providers
                .iter()
                .position(|provider| provider.name == name)
                .ok_or_else(|| {
                    ConfigError::new("provider_name", format!("there is no provider {name:?}"))
                })
        };
        let all = |list: &[config::JwtRequirement]| {
            list.iter()
                .map(|one| Self::compile(one, providers))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(match &config.requires_type {
            Some(RequiresType::ProviderName(name)) => Self::Provider(provider(name)?, None),
            Some(RequiresType::ProviderAndAudiences(both)) => {
                let audiences = both
                    .audiences
                    .iter()
                    .map(|audience| plain_audience(audience).to_owned())
                    .collect();
                Self::Provider(provider(&both.provider_name)?, Some(audiences))
            }
            Some(RequiresType::RequiresAny(list)) => Self::Any(all(&list.requirements)?),
            Some(RequiresType::RequiresAll(list)) => Self::All(all(&list.requirements)?),
            Some(RequiresType::AllowMissing(())) => Self::AllowMissing,
            Some(RequiresType::AllowMissingOrFailed(())) => Self::AllowMissingOrFailed,
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                return Err(ConfigError::new(
                    "extract_only_without_validation",
                    "is not supported",
                ));
            }
            // Nothing required.
            None => Self::AllowMissingOrFailed,
        })
    }
}
