//! JSON web tokens: the rules behind RequestAuthentications.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use xds::envoy::extensions::filters::http::jwt_authn::v3 as config;
use xds::envoy::extensions::filters::http::jwt_authn::v3::{
    jwt_requirement::RequiresType, requirement_rule::RequirementType,
};

use crate::error::ConfigError;
use crate::flags::ResponseFlags;
use crate::local_reply::LocalReply;
use crate::matching::StringMatch;
use crate::request::{RequestHead, RequestHeadMut};
use crate::route::{MatchFacts, RouteMatcher};
use crate::stream::Metadata;

mod keys;
mod provider;
#[cfg(test)]
mod tests;
mod token;

pub use keys::Jwks;
use provider::plain_audience;
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
    remove_parameters: Vec<String>,
    set: Vec<(HeaderName, String)>,
}

impl Effects {
    /// Removes tokens that are not to be forwarded, adds headers made of claims.
    pub fn apply(&self, head: &mut RequestHeadMut<'_>) {
        for name in &self.remove {
            head.headers.remove(name);
        }
        for name in &self.remove_parameters {
            if let Some((path, query)) = head.path.split_once('?') {
                let other = |pair: &&str| pair.split('=').next() != Some(name);
                let rest: Vec<&str> = query.split('&').filter(other).collect();
                *head.path = if rest.is_empty() {
                    path.to_owned()
                } else {
                    format!("{path}?{}", rest.join("&"))
                };
            }
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
