//! Rules of policies as permissions and principals of Envoy's RBAC filter.
#![allow(deprecated)] // istiod still writes the plain metadata matchers

use super::values::{header, quote, regex, text, with_prefix};
use crate::listener::filter_chain::cidr_range;
use crate::route::matches::metadata_list_matcher;
use api::istio::{AuthorizationRule, AuthorizationSource, Condition, MeshConfig, Operation};
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::rbac::v3::{Permission, Policy, Principal, permission, principal};
use xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use xds::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, StringMatcher, ValueMatcher,
    list_matcher, metadata_matcher, path_matcher, value_matcher,
};

const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// What rules depend on beside themselves.
pub(crate) struct RuleScope<'a> {
    pub(crate) mesh: &'a MeshConfig,
    /// Namespace of service accounts without one.
    pub(crate) namespace: &'a str,
    /// For connections, about which nothing of HTTP is known.
    pub(crate) tcp: bool,
    /// Whether a rule with something of HTTP is left out for connections (else only that condition is).
    pub(crate) strict: bool,
}

/// A rule; `None` if it can never match on this kind of chain.
pub(crate) fn policy(scope: &RuleScope<'_>, rule: &AuthorizationRule) -> Option<Policy> {
    if scope.tcp && scope.strict && needs_http(rule) {
        return None;
    }
    let no_operation = Operation::default();
    let no_source = AuthorizationSource::default();
    let mut permissions = Vec::new();
    let operations: Vec<&Operation> = rule
        .to
        .iter()
        .map(|to| to.operation.as_ref().unwrap_or(&no_operation))
        .collect();
    for operation in if operations.is_empty() {
        vec![&no_operation]
    } else {
        operations
    } {
        let mut rules = operation_rules(scope, operation);
        rules.extend(rule.when.iter().flat_map(permission_conditions));
        if rules.is_empty() {
            rules.push(permission::Rule::Any(true));
        }
        permissions.push(permission::Rule::AndRules(permission_set(rules)));
    }
    let mut principals = Vec::new();
    let sources: Vec<&AuthorizationSource> = rule
        .from
        .iter()
        .map(|from| from.source.as_ref().unwrap_or(&no_source))
        .collect();
    for source in if sources.is_empty() {
        vec![&no_source]
    } else {
        sources
    } {
        let mut ids = source_ids(scope, source);
        ids.extend(
            rule.when
                .iter()
                .flat_map(|condition| principal_conditions(scope, condition)),
        );
        if ids.is_empty() {
            ids.push(principal::Identifier::Any(true));
        }
        principals.push(principal::Identifier::AndIds(principal_set(ids)));
    }
    Some(Policy {
        permissions: permissions.into_iter().map(permission_of).collect(),
        principals: principals.into_iter().map(principal_of).collect(),
        ..Default::default()
    })
}

/// Matches nothing.
pub(crate) fn never() -> Policy {
    let nothing = permission::Rule::NotRule(Box::new(permission_of(permission::Rule::Any(true))));
    let nobody =
        principal::Identifier::NotId(Box::new(principal_of(principal::Identifier::Any(true))));
    Policy {
        permissions: vec![permission_of(nothing)],
        principals: vec![principal_of(nobody)],
        ..Default::default()
    }
}

fn needs_http(rule: &AuthorizationRule) -> bool {
    let operation = rule
        .to
        .iter()
        .filter_map(|to| to.operation.as_ref())
        .any(|operation| {
            let lists = [
                &operation.hosts,
                &operation.not_hosts,
                &operation.methods,
                &operation.not_methods,
                &operation.paths,
                &operation.not_paths,
            ];
            lists.iter().any(|list| !list.is_empty())
        });
    let source = rule
        .from
        .iter()
        .filter_map(|from| from.source.as_ref())
        .any(|source| {
            !source.request_principals.is_empty() || !source.not_request_principals.is_empty()
        });
    operation
        || source
        || rule
            .when
            .iter()
            .any(|condition| is_http_key(&condition.key))
}

fn is_http_key(key: &str) -> bool {
    key.starts_with("request.") || key.starts_with("experimental.envoy.filters.http.")
}

fn permission_of(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn permission_set(rules: Vec<permission::Rule>) -> permission::Set {
    permission::Set {
        rules: rules.into_iter().map(permission_of).collect(),
    }
}

fn principal_of(identifier: principal::Identifier) -> Principal {
    Principal {
        identifier: Some(identifier),
    }
}

fn principal_set(ids: Vec<principal::Identifier>) -> principal::Set {
    principal::Set {
        ids: ids.into_iter().map(principal_of).collect(),
    }
}

/// Values, then forbidden values; each list is an alternative.
fn permission_lists(
    values: &[String],
    not_values: &[String],
    make: impl Fn(&str) -> Option<permission::Rule>,
) -> Vec<permission::Rule> {
    let any = |list: &[String]| {
        let rules: Vec<_> = list.iter().filter_map(|value| make(value)).collect();
        (!rules.is_empty()).then(|| permission::Rule::OrRules(permission_set(rules)))
    };
    let forbidden =
        any(not_values).map(|rule| permission::Rule::NotRule(Box::new(permission_of(rule))));
    any(values).into_iter().chain(forbidden).collect()
}

fn principal_lists(
    values: &[String],
    not_values: &[String],
    make: impl Fn(&str) -> Vec<principal::Identifier>,
) -> Vec<principal::Identifier> {
    let any = |list: &[String]| {
        let ids: Vec<_> = list.iter().flat_map(|value| make(value)).collect();
        (!ids.is_empty()).then(|| principal::Identifier::OrIds(principal_set(ids)))
    };
    any(values)
        .into_iter()
        .chain(any(not_values).map(not_id))
        .collect()
}

fn not_id(identifier: principal::Identifier) -> principal::Identifier {
    principal::Identifier::NotId(Box::new(principal_of(identifier)))
}

fn operation_rules(scope: &RuleScope<'_>, operation: &Operation) -> Vec<permission::Rule> {
    let mut out = Vec::new();
    let http = !scope.tcp;
    if http {
        let host = |value: &str| Some(permission::Rule::Header(header(":authority", value, true)));
        out.extend(permission_lists(
            &operation.hosts,
            &operation.not_hosts,
            host,
        ));
        let method = |value: &str| Some(permission::Rule::Header(header(":method", value, false)));
        out.extend(permission_lists(
            &operation.methods,
            &operation.not_methods,
            method,
        ));
        out.extend(permission_lists(
            &operation.paths,
            &operation.not_paths,
            |value| Some(path(value)),
        ));
    }
    out.extend(permission_lists(
        &operation.ports,
        &operation.not_ports,
        port,
    ));
    out
}

fn port(value: &str) -> Option<permission::Rule> {
    value.parse().ok().map(permission::Rule::DestinationPort)
}

fn path(value: &str) -> permission::Rule {
    if value.contains("{*}") || value.contains("{**}") {
        let config = UriTemplateMatchConfig {
            path_template: value.replace("{**}", "**").replace("{*}", "*"),
        };
        return permission::Rule::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(xds::any::pack(&config)),
        });
    }
    permission::Rule::UrlPath(PathMatcher {
        rule: Some(path_matcher::Rule::Path(text(value))),
    })
}

/// Conditions on the destination.
fn permission_conditions(condition: &Condition) -> Vec<permission::Rule> {
    let key = condition.key.as_str();
    let (values, not_values) = (&condition.values, &condition.not_values);
    if let Some(rest) = key.strip_prefix("experimental.") {
        return filter_metadata(rest, values, not_values);
    }
    match key {
        "destination.ip" => permission_lists(values, not_values, |value| {
            cidr_range(value).map(permission::Rule::DestinationIp)
        }),
        "destination.port" => permission_lists(values, not_values, port),
        "connection.sni" => permission_lists(values, not_values, |value| {
            Some(permission::Rule::RequestedServerName(text(value)))
        }),
        _ => Vec::new(),
    }
}

/// `envoy.filters.network.mysql_proxy[db.table]`: metadata of a filter; `[x]` is an entry of a list.
fn filter_metadata(key: &str, values: &[String], not_values: &[String]) -> Vec<permission::Rule> {
    let Some((filter, path)) = key
        .split_once('[')
        .and_then(|(filter, rest)| Some((filter, rest.strip_suffix(']')?)))
    else {
        return Vec::new();
    };
    let matcher = |list: &[String]| {
        let alternatives: Vec<ValueMatcher> = list
            .iter()
            .map(|value| {
                match value
                    .strip_prefix('[')
                    .and_then(|value| value.strip_suffix(']'))
                {
                    Some(inner) => list_value(string_value(text(inner))),
                    None => string_value(text(value)),
                }
            })
            .collect();
        (!alternatives.is_empty()).then(|| {
            permission::Rule::Metadata(MetadataMatcher {
                filter: filter.to_owned(),
                path: vec![segment(path)],
                value: Some(any_value(alternatives)),
                ..Default::default()
            })
        })
    };
    let forbidden =
        matcher(not_values).map(|rule| permission::Rule::NotRule(Box::new(permission_of(rule))));
    matcher(values).into_iter().chain(forbidden).collect()
}

fn segment(key: &str) -> metadata_matcher::PathSegment {
    metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    }
}

fn string_value(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::StringMatch(matcher)),
    }
}

fn list_value(inner: ValueMatcher) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(
            ListMatcher {
                match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(inner))),
            },
        ))),
    }
}

/// One of several values; a single one stands for itself.
fn any_value(mut values: Vec<ValueMatcher>) -> ValueMatcher {
    if values.len() == 1 {
        return values.remove(0);
    }
    ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::OrMatch(OrMatcher {
            value_matchers: values,
        })),
    }
}

fn source_ids(scope: &RuleScope<'_>, source: &AuthorizationSource) -> Vec<principal::Identifier> {
    let mut out = principal_lists(&source.principals, &source.not_principals, |value| {
        peers(scope.mesh, value)
    });
    if !scope.tcp {
        out.extend(request_principals(
            &source.request_principals,
            &source.not_request_principals,
        ));
    }
    out.extend(principal_lists(
        &source.service_accounts,
        &source.not_service_accounts,
        |value| service_account(scope.namespace, value),
    ));
    out.extend(principal_lists(
        &source.trust_domains,
        &source.not_trust_domains,
        trust_domain,
    ));
    out.extend(principal_lists(
        &source.namespaces,
        &source.not_namespaces,
        namespace,
    ));
    out.extend(principal_lists(
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
        remote_ip,
    ));
    out.extend(principal_lists(
        &source.ip_blocks,
        &source.not_ip_blocks,
        peer_ip,
    ));
    out
}

fn authenticated(matcher: StringMatcher) -> principal::Identifier {
    principal::Identifier::Authenticated(principal::Authenticated {
        principal_name: Some(matcher),
    })
}

/// An identity, in every trust domain that means the same. What is no whole identity (`domain/ns/namespace/sa/account`) stays as it is.
fn peers(mesh: &MeshConfig, value: &str) -> Vec<principal::Identifier> {
    let mut domains = mesh.trust_domain_aliases.clone();
    domains.sort();
    let own = mesh.trust_domain();
    domains.retain(|domain| domain != own);
    domains.insert(0, own.to_owned());
    let whole = value.split('/').count() == 5;
    let expanded = value.split_once('/').filter(|(domain, _)| {
        whole
            && *domain != "*"
            && (*domain == "cluster.local" || domains.iter().any(|own| domains_meet(domain, own)))
    });
    let Some((domain, path)) = expanded else {
        return vec![authenticated(with_prefix("spiffe://", value))];
    };
    let mut values: Vec<String> = Vec::new();
    for own in domains {
        let kept = domain
            .strip_prefix('*')
            .is_some_and(|end| own.ends_with(end));
        let name = if kept {
            value.to_owned()
        } else {
            format!("{own}/{path}")
        };
        if !values.contains(&name) {
            values.push(name);
        }
    }
    let values = values.iter();
    values
        .map(|value| authenticated(with_prefix("spiffe://", value)))
        .collect()
}

/// Whether a trust domain that may begin or end with `*` means another one.
fn domains_meet(pattern: &str, domain: &str) -> bool {
    pattern == domain
        || pattern
            .strip_prefix('*')
            .is_some_and(|end| domain.ends_with(end))
        || pattern
            .strip_suffix('*')
            .is_some_and(|start| domain.starts_with(start))
}

fn service_account(default_namespace: &str, value: &str) -> Vec<principal::Identifier> {
    let (namespace, account) = value.split_once('/').unwrap_or((default_namespace, value));
    let pattern = format!(
        "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
        quote(namespace),
        quote(account)
    );
    vec![authenticated(regex(&pattern))]
}

fn trust_domain(value: &str) -> Vec<principal::Identifier> {
    use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let prefix = |text: String| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(text)),
        ..Default::default()
    };
    vec![authenticated(if value == "*" {
        prefix("spiffe://".to_owned())
    } else if value.contains('*') {
        let parts: Vec<String> = value.splitn(2, '*').map(quote).collect();
        regex(&format!("spiffe://{}/.*", parts.join("[^/]*")))
    } else {
        prefix(format!("spiffe://{value}/"))
    })]
}

fn namespace(value: &str) -> Vec<principal::Identifier> {
    let parts: Vec<String> = value.split('*').map(quote).collect();
    vec![authenticated(regex(&format!(
        ".*/ns/{}/.*",
        parts.join(".*")
    )))]
}

fn peer_ip(value: &str) -> Vec<principal::Identifier> {
    cidr_range(value)
        .map(principal::Identifier::DirectRemoteIp)
        .into_iter()
        .collect()
}

fn remote_ip(value: &str) -> Vec<principal::Identifier> {
    cidr_range(value)
        .map(principal::Identifier::RemoteIp)
        .into_iter()
        .collect()
}

/// Issuer and subject of a token. Several are alternatives; a single one has no wrapper.
fn request_principals(values: &[String], not_values: &[String]) -> Vec<principal::Identifier> {
    let any = |list: &[String]| {
        let mut ids: Vec<_> = list.iter().map(|value| request_principal(value)).collect();
        match ids.len() {
            0 => None,
            1 => Some(ids.remove(0)),
            _ => Some(principal::Identifier::OrIds(principal_set(ids))),
        }
    };
    any(values)
        .into_iter()
        .chain(any(not_values).map(not_id))
        .collect()
}

/// `issuer/subject`, split at the last slash. A star counts at the beginning and at the end of the whole.
fn request_principal(value: &str) -> principal::Identifier {
    use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern::{Exact, Prefix, Suffix};
    let matcher = |pattern| StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    };
    let exact = |value: &str| matcher(Exact(value.to_owned()));
    let (issuer, subject) = match value.rsplit_once('/') {
        Some((issuer, subject)) if issuer.starts_with('*') => (text(issuer), exact(subject)),
        Some((issuer, subject)) if value.ends_with('*') => (exact(issuer), text(subject)),
        Some((issuer, subject)) => (exact(issuer), exact(subject)),
        None if value == "*" => (text("*"), text("*")),
        None if value.starts_with('*') => (text("*"), matcher(Suffix(value[1..].to_owned()))),
        None => match value.strip_suffix('*') {
            Some(begin) => (matcher(Prefix(begin.to_owned())), text("*")),
            None => (exact(value), exact("")),
        },
    };
    let claim = |name: &str, value| {
        principal::Identifier::Metadata(MetadataMatcher {
            filter: JWT_FILTER.to_owned(),
            path: vec![segment("payload"), segment(name)],
            value: Some(string_value(value)),
            ..Default::default()
        })
    };
    principal::Identifier::AndIds(principal_set(vec![
        claim("iss", issuer),
        claim("sub", subject),
    ]))
}

/// Conditions on the source.
fn principal_conditions(
    scope: &RuleScope<'_>,
    condition: &Condition,
) -> Vec<principal::Identifier> {
    let key = condition.key.as_str();
    let (values, not_values) = (&condition.values, &condition.not_values);
    if scope.tcp && is_http_key(key) {
        return Vec::new();
    }
    if let Some(name) = key
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return principal_lists(values, not_values, |value| {
            vec![principal::Identifier::Header(header(name, value, false))]
        });
    }
    if let Some(path) = key
        .strip_prefix("request.auth.claims[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return claims(path.split("][").collect(), values, not_values);
    }
    match key {
        "source.ip" => principal_lists(values, not_values, peer_ip),
        "remote.ip" => principal_lists(values, not_values, remote_ip),
        "source.namespace" => principal_lists(values, not_values, namespace),
        "source.principal" => principal_lists(values, not_values, |value| peers(scope.mesh, value)),
        "source.serviceAccount" => principal_lists(values, not_values, |value| {
            service_account(scope.namespace, value)
        }),
        "source.trustDomain" => principal_lists(values, not_values, trust_domain),
        "request.auth.principal" => request_principals(values, not_values),
        "request.auth.audiences" => claims(vec!["aud"], values, not_values),
        "request.auth.presenter" => claims(vec!["azp"], values, not_values),
        _ => Vec::new(),
    }
}

/// A claim that is one of the values, or a list with one of them.
fn claims(path: Vec<&str>, values: &[String], not_values: &[String]) -> Vec<principal::Identifier> {
    let matcher = |list: &[String]| {
        let alternatives: Vec<ValueMatcher> =
            list.iter().map(|value| string_value(text(value))).collect();
        if alternatives.is_empty() {
            return None;
        }
        let keys = ["payload"].into_iter().chain(path.iter().copied());
        Some(principal::Identifier::Metadata(metadata_list_matcher(
            JWT_FILTER,
            keys,
            any_value(alternatives),
            false,
        )))
    };
    matcher(values)
        .into_iter()
        .chain(matcher(not_values).map(not_id))
        .collect()
}
