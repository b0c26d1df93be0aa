//! CUSTOM policies: an external service decides about what the rules match.
//!
//! The rules are shadow rules of an RBAC filter; what they match is marked in metadata, and the ext_authz filter behind looks
//! only at marked requests. Where the service is not known, what the rules match is denied.

use super::conditions::{RuleScope, policy};
use super::values;
use crate::Problem;
use crate::context::Context;
use crate::http_filters::http_filter;
use crate::network_filters::network_filter;
use crate::objects::Config;
use crate::proto::{duration, seconds};
use crate::telemetry::provider_cluster;
use api::istio::{AuthorizationPolicy, Duration, ExtAuthzBody, ExtAuthzHttp, ExtensionProvider};
use std::collections::BTreeMap;
use xds::envoy::config::core::v3::{
    ApiVersion, GrpcService, HeaderValue, HttpUri, grpc_service, http_uri,
};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::config::rbac::v3::{Rbac, rbac};
use xds::envoy::extensions::filters::http::ext_authz::v3 as http;
use xds::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use xds::envoy::extensions::filters::network::ext_authz::v3 as network;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::rbac::v3 as network_rbac;
use xds::envoy::r#type::matcher::v3::{
    ListStringMatcher, MetadataMatcher, StringMatcher, ValueMatcher, metadata_matcher,
    string_matcher, value_matcher,
};
use xds::envoy::r#type::v3::HttpStatus;

const SHADOW_PREFIX: &str = "istio_ext_authz_";

/// The policies of one provider.
struct Group<'a> {
    name: &'a str,
    policies: Vec<&'a Config<AuthorizationPolicy>>,
    provider: Option<&'a ExtensionProvider>,
}

/// Policies by provider. Several providers on one workload are not supported by Istio.
fn groups<'a>(
    context: &Context<'a>,
    policies: &[&'a Config<AuthorizationPolicy>],
) -> Vec<Group<'a>> {
    let mut by_name: BTreeMap<&str, Vec<&Config<AuthorizationPolicy>>> = BTreeMap::new();
    for policy in policies {
        let name = policy
            .spec
            .provider
            .as_ref()
            .map(|provider| provider.name.as_str())
            .unwrap_or_default();
        by_name.entry(name).or_default().push(policy);
    }
    let several = by_name.len() > 1;
    by_name
        .into_iter()
        .map(|(name, policies)| {
            let provider = context.snapshot.provider(name).filter(|provider| !several && address(context, provider).is_some());
            if provider.is_none() {
                for policy in &policies {
                    let message = if several {
                        "this workload has CUSTOM policies with several providers, which is not supported; what they match is denied".to_owned()
                    } else {
                        format!("provider {name:?} or its service is not known; what this policy matches is denied")
                    };
                    let object = format!("AuthorizationPolicy/{}/{}", policy.namespace, policy.name);
                    context.problem(Problem::new(object, "spec.provider", message));
                }
            }
            Group { name, policies, provider }
        })
        .collect()
}

/// Cluster and host of the service of a provider.
fn address(context: &Context<'_>, provider: &ExtensionProvider) -> Option<(String, String)> {
    let (service, port) = match (
        &provider.envoy_ext_authz_http,
        &provider.envoy_ext_authz_grpc,
    ) {
        (Some(http), _) => (&http.service, http.port),
        (None, Some(grpc)) => (&grpc.service, grpc.port),
        (None, None) => return None,
    };
    provider_cluster(context.snapshot, service, port)
}

fn rules(context: &Context<'_>, group: &Group<'_>, tcp: bool) -> Rbac {
    let mut out = Rbac {
        action: rbac::Action::Deny as i32,
        ..Default::default()
    };
    let suffix = if group.provider.is_some() {
        ""
    } else {
        "-deny-due-to-bad-CUSTOM-action"
    };
    for config in &group.policies {
        let scope = RuleScope {
            mesh: &context.snapshot.mesh,
            namespace: &config.namespace,
            tcp,
            strict: false,
        };
        for (index, rule) in config.spec.rules.iter().enumerate() {
            let name = format!(
                "istio-ext-authz-{}-ns[{}]-policy[{}]-rule[{index}]{suffix}",
                group.name, config.namespace, config.name
            );
            if let Some(policy) = policy(&scope, rule) {
                out.policies.insert(name, policy);
            }
        }
    }
    out
}

pub(crate) fn http_filters(
    context: &Context<'_>,
    policies: &[&Config<AuthorizationPolicy>],
) -> Vec<HttpFilter> {
    let mut out = Vec::new();
    for group in groups(context, policies) {
        let rules = rules(context, &group, false);
        let Some((provider, (cluster, host))) = group
            .provider
            .and_then(|provider| Some((provider, address(context, provider)?)))
        else {
            let config = http_rbac::Rbac {
                rules: Some(rules),
                ..Default::default()
            };
            out.push(http_filter(
                "envoy.filters.http.rbac",
                xds::any::pack(&config),
            ));
            continue;
        };
        let marking = http_rbac::Rbac {
            shadow_rules: Some(rules),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            ..Default::default()
        };
        out.push(http_filter(
            "envoy.filters.http.rbac",
            xds::any::pack(&marking),
        ));
        let asking = http_asking(provider, group.name, cluster, host);
        out.push(http_filter(
            "envoy.filters.http.ext_authz",
            xds::any::pack(&asking),
        ));
    }
    out
}

pub(crate) fn tcp_filters(
    context: &Context<'_>,
    policies: &[&Config<AuthorizationPolicy>],
) -> Vec<Filter> {
    let mut out = Vec::new();
    for group in groups(context, policies) {
        let rules = rules(context, &group, true);
        let Some((provider, (cluster, host))) = group
            .provider
            .and_then(|provider| Some((provider, address(context, provider)?)))
        else {
            let config = network_rbac::Rbac {
                rules: Some(rules),
                stat_prefix: "tcp.".to_owned(),
                ..Default::default()
            };
            out.push(network_filter(
                "envoy.filters.network.rbac",
                xds::any::pack(&config),
            ));
            continue;
        };
        // A service that speaks HTTP cannot be asked about connections.
        let Some(settings) = &provider.envoy_ext_authz_grpc else {
            continue;
        };
        let marking = network_rbac::Rbac {
            shadow_rules: Some(rules),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            stat_prefix: "tcp.".to_owned(),
            ..Default::default()
        };
        out.push(network_filter(
            "envoy.filters.network.rbac",
            xds::any::pack(&marking),
        ));
        let asking = network::ExtAuthz {
            stat_prefix: "tcp.".to_owned(),
            grpc_service: Some(grpc(cluster, host, settings.timeout)),
            failure_mode_allow: settings.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(marked("envoy.filters.network.rbac", group.name)),
            ..Default::default()
        };
        out.push(network_filter(
            "envoy.filters.network.ext_authz",
            xds::any::pack(&asking),
        ));
    }
    out
}

/// Requests that the shadow rules of a provider matched.
fn marked(filter: &str, provider: &str) -> MetadataMatcher {
    let prefix = string_matcher::MatchPattern::Prefix(format!("istio-ext-authz-{provider}"));
    let segment = metadata_matcher::path_segment::Segment::Key(format!(
        "{SHADOW_PREFIX}shadow_effective_policy_id"
    ));
    MetadataMatcher {
        filter: filter.to_owned(),
        path: vec![metadata_matcher::PathSegment {
            segment: Some(segment),
        }],
        value: Some(ValueMatcher {
            match_pattern: Some(value_matcher::MatchPattern::StringMatch(StringMatcher {
                match_pattern: Some(prefix),
                ..Default::default()
            })),
        }),
        ..Default::default()
    }
}

fn grpc(cluster: String, host: String, timeout: Option<Duration>) -> GrpcService {
    let target = grpc_service::EnvoyGrpc {
        cluster_name: cluster,
        authority: host,
        ..Default::default()
    };
    GrpcService {
        timeout: Some(timeout.map_or(seconds(600), duration)),
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)),
        ..Default::default()
    }
}

fn http_asking(
    provider: &ExtensionProvider,
    name: &str,
    cluster: String,
    host: String,
) -> http::ExtAuthz {
    // Istiod does not pass on `clearRouteCache`.
    let mut out = http::ExtAuthz {
        transport_api_version: ApiVersion::V3 as i32,
        filter_enabled_metadata: Some(marked("envoy.filters.http.rbac", name)),
        ..Default::default()
    };
    if let Some(settings) = &provider.envoy_ext_authz_http {
        out.failure_mode_allow = settings.fail_open;
        out.status_on_error = status(&settings.status_on_error);
        out.with_request_body = settings.include_request_body_in_check.as_ref().map(body);
        out.allowed_headers = headers(
            settings
                .include_request_headers_in_check
                .iter()
                .chain(&settings.include_headers_in_check),
        );
        out.services = Some(http::ext_authz::Services::HttpService(http_service(
            settings, cluster, &host,
        )));
    } else if let Some(settings) = &provider.envoy_ext_authz_grpc {
        out.failure_mode_allow = settings.fail_open;
        out.status_on_error = status(&settings.status_on_error);
        out.with_request_body = settings.include_request_body_in_check.as_ref().map(body);
        out.services = Some(http::ext_authz::Services::GrpcService(grpc(
            cluster,
            host,
            settings.timeout,
        )));
    }
    out
}

fn http_service(settings: &ExtAuthzHttp, cluster: String, host: &str) -> http::HttpService {
    let additional = settings
        .include_additional_headers_in_check
        .iter()
        .map(|(key, value)| HeaderValue {
            key: key.clone(),
            value: value.clone(),
            ..Default::default()
        });
    let additional: Vec<HeaderValue> = additional.collect();
    let response = http::AuthorizationResponse {
        allowed_upstream_headers: headers(&settings.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&settings.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&settings.headers_to_downstream_on_allow),
        ..Default::default()
    };
    http::HttpService {
        server_uri: Some(HttpUri {
            uri: format!("http://{host}"),
            timeout: Some(settings.timeout.map_or(seconds(600), duration)),
            http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        path_prefix: settings.path_prefix.clone(),
        authorization_request: (!additional.is_empty()).then(|| http::AuthorizationRequest {
            headers_to_add: additional,
            ..Default::default()
        }),
        authorization_response: (response != http::AuthorizationResponse::default())
            .then_some(response),
        ..Default::default()
    }
}

fn headers<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<ListStringMatcher> {
    let patterns: Vec<StringMatcher> = names
        .into_iter()
        .map(|name| StringMatcher {
            ignore_case: true,
            ..values::text(name)
        })
        .collect();
    (!patterns.is_empty()).then_some(ListStringMatcher { patterns })
}

fn status(text: &str) -> Option<HttpStatus> {
    text.parse().ok().map(|code| HttpStatus { code })
}

fn body(settings: &ExtAuthzBody) -> http::BufferSettings {
    http::BufferSettings {
        max_request_bytes: settings.max_request_bytes,
        allow_partial_message: settings.allow_partial_message,
        pack_as_bytes: settings.pack_as_bytes,
    }
}
