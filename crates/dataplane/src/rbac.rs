//! Role based access control: the rules behind AuthorizationPolicies, for HTTP and TCP.

use regex::Regex;
use serde_json::Value;
use xds::envoy::config::rbac::v3 as config;
use xds::envoy::config::rbac::v3::{permission, principal};
use xds::envoy::config::route::v3::HeaderMatcher;
use xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpFilter;
use xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkFilter;
use xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use xds::envoy::r#type::matcher::v3::{PathMatcher, filter_state_matcher, path_matcher};

use crate::address::Cidr;
use crate::error::ConfigError;
use crate::flags::ResponseFlags;
use crate::local_reply::{LocalReply, RBAC_DENIED};
use crate::matching::{HeaderMatch, MetadataMatch, StringMatch, uri_template};
use crate::stream::{Metadata, StreamInfo};

/// The filter state object in which Istio keeps the peer's identity.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";
/// The same for our own identity.
const LOCAL_PRINCIPAL: &str = "io.istio.local_principal";

/// What the rules say to a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Who matches a policy is allowed, everybody else denied.
    Allow,
    /// Who matches a policy is denied, everybody else allowed.
    Deny,
    /// Everybody is allowed; matches are noted.
    Log,
}

/// One set of policies, compiled.
#[derive(Debug)]
pub struct Rules {
    action: Action,
    policies: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    name: String,
    permissions: Vec<Rule>,
    principals: Vec<Rule>,
}

/// Permissions and principals alike: a formula over the stream.
#[derive(Debug)]
enum Rule {
    And(Vec<Rule>),
    Or(Vec<Rule>),
    Not(Box<Rule>),
    Any(bool),
    Header(HeaderMatch),
    Path(StringMatch),
    Template(Regex),
    DestinationIp(Cidr),
    DestinationPorts(std::ops::Range<i32>),
    ServerName(StringMatch),
    Metadata(MetadataMatch),
    RouteMetadata(MetadataMatch),
    Authenticated(Option<StringMatch>),
    DirectIp(Cidr),
    RemoteIp(Cidr),
    FilterState(String, StringMatch),
    FilterStateIp(String, Vec<Cidr>),
}

/// What the rules decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the stream may go on.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'a str>,
}

impl Decision<'_> {
    /// `%RESPONSE_CODE_DETAILS%` (and of TCP the connection termination details) of a denial.
    pub fn details(&self) -> String {
        let policy: String = self
            .policy
            .unwrap_or("none")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join("_");
        format!("rbac_access_denied_matched_policy[{policy}]")
    }

    /// The answer to a denied request.
    pub fn reply(&self) -> LocalReply {
        LocalReply {
            details: self.details().into(),
            flags: ResponseFlags::NONE,
            ..RBAC_DENIED
        }
    }
}

/// An RBAC filter: rules that count and rules that are only watched.
#[derive(Debug, Default)]
pub struct Rbac {
    rules: Option<Rules>,
    shadow: Option<Rules>,
    shadow_prefix: String,
}

impl Rbac {
    /// Compiles the HTTP filter (or what a route says instead of it).
    pub fn of_http(filter: &HttpFilter) -> Result<Self, ConfigError> {
        Self::compile(
            filter.matcher.is_some() || filter.shadow_matcher.is_some(),
            filter.rules.as_ref(),
            filter.shadow_rules.as_ref(),
            &filter.shadow_rules_stat_prefix,
        )
    }

    /// Compiles the network filter.
    pub fn of_network(filter: &NetworkFilter) -> Result<Self, ConfigError> {
        Self::compile(
            filter.matcher.is_some() || filter.shadow_matcher.is_some(),
            filter.rules.as_ref(),
            filter.shadow_rules.as_ref(),
            &filter.shadow_rules_stat_prefix,
        )
    }

    fn compile(
        matchers: bool,
        rules: Option<&config::Rbac>,
        shadow: Option<&config::Rbac>,
        shadow_prefix: &str,
    ) -> Result<Self, ConfigError> {
        if matchers {
            return Err(ConfigError::new("matcher", "is not supported; use rules"));
        }
        let compiled = |rules: Option<&config::Rbac>, field| {
            let rules = rules.map(Rules::compile).transpose();
            rules.map_err(|error| error.within(field))
        };
        Ok(Self {
            rules: compiled(rules, "rules")?,
            shadow: compiled(shadow, "shadow_rules")?,
            shadow_prefix: shadow_prefix.to_owned(),
        })
    }

    /// The decision that counts; without rules everybody is allowed.
    pub fn decide(&self, info: &StreamInfo<'_>) -> Decision<'_> {
        self.rules.as_ref().map_or(
            Decision {
                allowed: true,
                policy: None,
            },
            |rules| rules.decide(info),
        )
    }

    /// Whether there are rules at all (statistics count only then).
    pub fn enforces(&self) -> bool {
        self.rules.is_some()
    }

    /// The decision that is only watched, if there is one.
    pub fn shadow(&self, info: &StreamInfo<'_>) -> Option<Decision<'_>> {
        Some(self.shadow.as_ref()?.decide(info))
    }

    /// What the shadow rules leave for later filters (ext_authz asks for it), under the filter's name.
    pub fn shadow_metadata(&self, decision: &Decision<'_>) -> Metadata {
        let mut fields = Metadata::new();
        let prefix = &self.shadow_prefix;
        if let Some(policy) = decision.policy {
            fields.insert(
                format!("{prefix}shadow_effective_policy_id"),
                Value::from(policy),
            );
        }
        let result = if decision.allowed {
            "allowed"
        } else {
            "denied"
        };
        fields.insert(format!("{prefix}shadow_engine_result"), Value::from(result));
        fields
    }
}

impl Rules {
    /// Compiles a set of policies.
    pub fn compile(rules: &config::Rbac) -> Result<Self, ConfigError> {
        let action = match config::rbac::Action::try_from(rules.action) {
            Ok(config::rbac::Action::Allow) => Action::Allow,
            Ok(config::rbac::Action::Deny) => Action::Deny,
            Ok(config::rbac::Action::Log) => Action::Log,
            Err(_) => {
                return Err(ConfigError::new(
                    "action",
                    format!("{} is not a known action", rules.action),
                ));
            }
        };
        let mut policies = Vec::with_capacity(rules.policies.len());
        for (name, policy) in &rules.policies {
            let at = |error: ConfigError| error.within(&format!("policies[{name:?}]"));
            if policy.condition.is_some() || policy.checked_condition.is_some() {
                return Err(at(ConfigError::new("condition", "CEL is not supported")));
            }
            policies.push(Policy {
                name: name.clone(),
                permissions: policy
                    .permissions
                    .iter()
                    .map(permission)
                    .collect::<Result<_, _>>()
                    .map_err(|e| at(e.within("permissions")))?,
                principals: policy
                    .principals
                    .iter()
                    .map(principal)
                    .collect::<Result<_, _>>()
                    .map_err(|e| at(e.within("principals")))?,
            });
        }
        Ok(Self { action, policies })
    }

    /// Decides. Of several policies that match, the first by name is the one that is named.
    pub fn decide(&self, info: &StreamInfo<'_>) -> Decision<'_> {
        let policy = self
            .policies
            .iter()
            .find(|policy| policy.matches(info))
            .map(|policy| policy.name.as_str());
        let allowed = match self.action {
            Action::Allow => policy.is_some(),
            Action::Deny => policy.is_none(),
            Action::Log => true,
        };
        Decision { allowed, policy }
    }
}

impl Policy {
    fn matches(&self, info: &StreamInfo<'_>) -> bool {
        self.permissions.iter().any(|rule| rule.matches(info))
            && self.principals.iter().any(|rule| rule.matches(info))
    }
}

impl Rule {
    fn matches(&self, info: &StreamInfo<'_>) -> bool {
        let connection = info.connection;
        match self {
            Self::And(all) => all.iter().all(|rule| rule.matches(info)),
            Self::Or(any) => any.iter().any(|rule| rule.matches(info)),
            Self::Not(rule) => !rule.matches(info),
            Self::Any(any) => *any,
            Self::Header(header) => match &info.request {
                Some(head) => header.matches(head),
                None => header.matches_headers(&http::HeaderMap::new()),
            },
            Self::Path(path) => info
                .request
                .is_some_and(|head| path.matches(head.path_only())),
            Self::Template(template) => info
                .request
                .is_some_and(|head| template.is_match(head.path_only())),
            Self::DestinationIp(range) => range.contains(connection.local.ip()),
            Self::DestinationPorts(ports) => ports.contains(&i32::from(connection.local.port())),
            Self::ServerName(name) => {
                name.matches(connection.server_name.as_deref().unwrap_or_default())
            }
            Self::Metadata(metadata) => metadata.matches(info.metadata),
            Self::RouteMetadata(metadata) => info
                .route_metadata
                .is_some_and(|route| metadata.matches(route)),
            Self::Authenticated(None) => connection.tls.is_some(),
            Self::Authenticated(Some(name)) => connection.peer_certificate().is_some_and(|peer| {
                peer.uris
                    .iter()
                    .chain(&peer.dns)
                    .any(|san| name.matches(san))
                    || name.matches(&peer.subject)
            }),
            Self::DirectIp(range) => range.contains(connection.remote.ip()),
            Self::RemoteIp(range) => range.contains(info.remote().ip()),
            Self::FilterState(key, text) => {
                filter_state(info, key).is_some_and(|value| text.matches(value))
            }
            Self::FilterStateIp(key, ranges) => filter_state(info, key)
                .and_then(|value| value.parse().ok())
                .is_some_and(|address| ranges.iter().any(|range| range.contains(address))),
        }
    }
}

/// A filter state object as text. The identities are read from the connection when nobody has set them.
fn filter_state<'a>(info: &StreamInfo<'a>, key: &str) -> Option<&'a str> {
    let set = info
        .filter_state
        .and_then(|state| state.get(key))
        .and_then(Value::as_str);
    set.or_else(|| match key {
        PEER_PRINCIPAL => info
            .connection
            .peer_certificate()?
            .uris
            .first()
            .map(String::as_str),
        LOCAL_PRINCIPAL => info
            .connection
            .tls
            .as_ref()?
            .local
            .as_ref()?
            .uris
            .first()
            .map(String::as_str),
        _ => None,
    })
}

fn header(config: &HeaderMatcher) -> Result<Rule, ConfigError> {
    HeaderMatch::compile(config)
        .map(Rule::Header)
        .map_err(|e| e.within("header"))
}

fn url_path(config: &PathMatcher) -> Result<Rule, ConfigError> {
    match &config.rule {
        Some(path_matcher::Rule::Path(path)) => StringMatch::compile(path)
            .map(Rule::Path)
            .map_err(|e| e.within("url_path.path")),
        None => Err(ConfigError::new("url_path.path", "is missing")),
    }
}

// metadata is deprecated in favour of sourced_metadata, but still sent.
#[allow(deprecated)]
fn permission(config: &config::Permission) -> Result<Rule, ConfigError> {
    use permission::Rule as Config;
    let set = |set: &permission::Set| {
        set.rules
            .iter()
            .map(permission_ref)
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(
        match config
            .rule
            .as_ref()
            .ok_or_else(|| ConfigError::new("rule", "is missing"))?
        {
            Config::AndRules(rules) => Rule::And(set(rules).map_err(|e| e.within("and_rules"))?),
            Config::OrRules(rules) => Rule::Or(set(rules).map_err(|e| e.within("or_rules"))?),
            Config::NotRule(rule) => Rule::Not(Box::new(
                permission(rule).map_err(|e| e.within("not_rule"))?,
            )),
            Config::Any(any) => Rule::Any(*any),
            Config::Header(config) => header(config)?,
            Config::UrlPath(path) => url_path(path)?,
            Config::UriTemplate(template) => {
                let any = template.typed_config.as_ref();
                let config = any.and_then(|any| {
                    xds::any::unpack::<UriTemplateMatchConfig>(any)
                        .ok()
                        .flatten()
                });
                let config = config.ok_or_else(|| {
                    ConfigError::new("uri_template", "is not a UriTemplateMatchConfig")
                })?;
                Rule::Template(
                    uri_template(&config.path_template).map_err(|e| e.within("uri_template"))?,
                )
            }
            Config::DestinationIp(range) => {
                Rule::DestinationIp(Cidr::compile(range).map_err(|e| e.within("destination_ip"))?)
            }
            Config::DestinationPort(port) => {
                let port = i32::try_from(*port)
                    .map_err(|_| ConfigError::new("destination_port", "is not a port"))?;
                Rule::DestinationPorts(port..port + 1)
            }
            Config::DestinationPortRange(range) => Rule::DestinationPorts(range.start..range.end),
            Config::Metadata(metadata) => {
                Rule::Metadata(MetadataMatch::compile(metadata).map_err(|e| e.within("metadata"))?)
            }
            Config::SourcedMetadata(metadata) => sourced(metadata)?,
            Config::RequestedServerName(name) => Rule::ServerName(
                StringMatch::compile(name).map_err(|e| e.within("requested_server_name"))?,
            ),
            Config::Matcher(matcher) => {
                return Err(ConfigError::new(
                    "matcher",
                    format!("{:?} is not supported", matcher.name),
                ));
            }
        },
    )
}

fn permission_ref(config: &config::Permission) -> Result<Rule, ConfigError> {
    permission(config)
}

// source_ip (means direct_remote_ip) and metadata are deprecated, but still sent.
#[allow(deprecated)]
fn principal(config: &config::Principal) -> Result<Rule, ConfigError> {
    use principal::Identifier as Config;
    let set = |set: &principal::Set| {
        set.ids
            .iter()
            .map(principal_ref)
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(
        match config
            .identifier
            .as_ref()
            .ok_or_else(|| ConfigError::new("identifier", "is missing"))?
        {
            Config::AndIds(ids) => Rule::And(set(ids).map_err(|e| e.within("and_ids"))?),
            Config::OrIds(ids) => Rule::Or(set(ids).map_err(|e| e.within("or_ids"))?),
            Config::NotId(id) => {
                Rule::Not(Box::new(principal(id).map_err(|e| e.within("not_id"))?))
            }
            Config::Any(any) => Rule::Any(*any),
            Config::Authenticated(authenticated) => {
                let name = authenticated
                    .principal_name
                    .as_ref()
                    .map(StringMatch::compile)
                    .transpose();
                Rule::Authenticated(name.map_err(|e| e.within("authenticated.principal_name"))?)
            }
            Config::SourceIp(range) | Config::DirectRemoteIp(range) => {
                Rule::DirectIp(Cidr::compile(range).map_err(|e| e.within("direct_remote_ip"))?)
            }
            Config::RemoteIp(range) => {
                Rule::RemoteIp(Cidr::compile(range).map_err(|e| e.within("remote_ip"))?)
            }
            Config::Header(config) => header(config)?,
            Config::UrlPath(path) => url_path(path)?,
            Config::Metadata(metadata) => {
                Rule::Metadata(MetadataMatch::compile(metadata).map_err(|e| e.within("metadata"))?)
            }
            Config::SourcedMetadata(metadata) => sourced(metadata)?,
            Config::FilterState(state) => match &state.matcher {
                Some(filter_state_matcher::Matcher::StringMatch(text)) => Rule::FilterState(
                    state.key.clone(),
                    StringMatch::compile(text).map_err(|e| e.within("filter_state"))?,
                ),
                Some(filter_state_matcher::Matcher::AddressMatch(addresses)) => {
                    let ranges = addresses.ranges.iter().map(|range| {
                        // The xds copy of the message has the same fields.
                        let address = range.address_prefix.parse().map_err(|_| {
                            ConfigError::new(
                                "address_match",
                                format!("{:?} is not an IP address", range.address_prefix),
                            )
                        })?;
                        Ok(Cidr::new(
                            address,
                            range.prefix_len.unwrap_or(0).min(128) as u8,
                        ))
                    });
                    Rule::FilterStateIp(
                        state.key.clone(),
                        ranges.collect::<Result<_, ConfigError>>()?,
                    )
                }
                None => return Err(ConfigError::new("filter_state", "has no matcher")),
            },
            Config::Custom(custom) => {
                return Err(ConfigError::new(
                    "custom",
                    format!("the principal {:?} is not supported", custom.name),
                ));
            }
        },
    )
}

fn principal_ref(config: &config::Principal) -> Result<Rule, ConfigError> {
    principal(config)
}

fn sourced(config: &config::SourcedMetadata) -> Result<Rule, ConfigError> {
    let matcher = config.metadata_matcher.as_ref();
    let matcher = matcher
        .ok_or_else(|| ConfigError::new("sourced_metadata.metadata_matcher", "is missing"))?;
    let matcher = MetadataMatch::compile(matcher).map_err(|e| e.within("sourced_metadata"))?;
    Ok(if config.metadata_source == 1 {
        Rule::RouteMetadata(matcher)
    } else {
        Rule::Metadata(matcher)
    })
}

#[cfg(test)]
mod tests;
