//! Rules of VirtualServices as Envoy routes.

use super::actions::{self, HeaderChanges, header_changes};
use super::{fault_cors, hash, matches, retry};
use crate::context::Context;
use crate::names;
use crate::proto::{config_metadata, duration, seconds};
use crate::registry::Service;
use crate::virtual_service::VirtualServiceConfig;
use api::istio::{Destination, HttpMatchRequest, HttpRoute, HttpRouteDestination};
use xds::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use xds::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use xds::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteMatch, WeightedCluster, route, route_match::PathSpecifier,
};
use xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

/// Where routes are made for.
pub(crate) struct RouteScope<'a> {
    /// Port of the listener; on gateways the declared port of the server.
    pub(crate) port: u32,
    /// `mesh`, or the gateways of the server.
    pub(crate) gateways: &'a [&'a str],
    pub(crate) tls: bool,
    /// The service that a host means here.
    pub(crate) service: &'a dyn Fn(&str) -> Option<std::sync::Arc<Service>>,
}

/// The routes of a VirtualService, up to the first that takes everything.
pub(crate) fn routes(
    context: &Context<'_>,
    config: &VirtualServiceConfig,
    scope: &RouteScope<'_>,
) -> Vec<Route> {
    let mut out: Vec<Route> = Vec::new();
    for rule in &config.spec.http {
        if rule.matches.is_empty() {
            out.extend(translate(context, config, rule, None, scope));
            break;
        }
        let mut everything = false;
        for condition in &rule.matches {
            let Some(route) = translate(context, config, rule, Some(condition), scope) else {
                continue;
            };
            everything = route.r#match.as_ref().is_some_and(matches::is_catch_all);
            out.push(route);
            if everything {
                break;
            }
        }
        if everything {
            break;
        }
    }
    out
}

fn translate(
    context: &Context<'_>,
    config: &VirtualServiceConfig,
    rule: &HttpRoute,
    condition: Option<&HttpMatchRequest>,
    scope: &RouteScope<'_>,
) -> Option<Route> {
    let proxy = context.proxy;
    if let Some(condition) = condition
        && !matches::concerns(
            condition,
            scope.port,
            scope.gateways,
            &proxy.labels,
            &proxy.namespace,
        )
    {
        return None;
    }
    let mut out = Route {
        name: rule.name.clone(),
        r#match: Some(matches::route_match(condition, config.ingress)),
        metadata: Some(config_metadata(names::config_path(
            "virtual-service",
            &config.namespace,
            &config.name,
        ))),
        ..Default::default()
    };
    if let Some(condition) = condition {
        if !condition.name.is_empty() {
            out.name = format!("{}.{}", rule.name, condition.name);
        }
        out.stat_prefix = condition.stat_prefix.clone();
    }
    let changes = header_changes(rule.headers.as_ref());
    let authority = changes.authority.clone();
    add_headers(&mut out, changes);
    if let Some(redirect) = &rule.redirect {
        out.action =
            actions::redirect(redirect, scope.port, scope.tls).map(route::Action::Redirect);
    } else if let Some(response) = &rule.direct_response {
        out.action = Some(route::Action::DirectResponse(actions::direct_response(
            response,
        )));
    } else {
        let action = forward(context, rule, authority, scope, &mut out);
        out.action = Some(route::Action::Route(action));
    }
    out.decorator = Some(Decorator {
        operation: operation(&out, config, scope.port),
        ..Default::default()
    });
    if let Some(fault) = &rule.fault {
        out.typed_per_filter_config.insert(
            "envoy.filters.http.fault".to_owned(),
            fault_cors::faults(fault),
        );
    }
    if let Some(cors) = &rule.cors_policy {
        out.typed_per_filter_config
            .insert("envoy.filters.http.cors".to_owned(), fault_cors::cors(cors));
    }
    Some(out)
}

fn add_headers(route: &mut Route, changes: HeaderChanges) {
    route.request_headers_to_add.extend(changes.request_add);
    route
        .request_headers_to_remove
        .extend(changes.request_remove);
    route.response_headers_to_add.extend(changes.response_add);
    route
        .response_headers_to_remove
        .extend(changes.response_remove);
}

/// The cluster that a destination means. Without a port it is the service's only one, else that of the listener.
pub(crate) fn destination_cluster(
    destination: &Destination,
    service: Option<&Service>,
    listener_port: u32,
) -> String {
    let port = HttpRoute::port(&destination.port).unwrap_or_else(|| match service {
        Some(service) if service.ports.len() == 1 => service.ports[0].number,
        _ => listener_port,
    });
    if destination.host.is_empty() {
        return "UnknownService".to_owned();
    }
    let host = service
        .and_then(|service| service.external_name.as_ref())
        .unwrap_or(&destination.host);
    names::outbound(port, &destination.subset, host)
}

#[allow(deprecated)] // max_grpc_timeout: istiod still writes it
fn forward(
    context: &Context<'_>,
    rule: &HttpRoute,
    authority: Option<String>,
    scope: &RouteScope<'_>,
    route: &mut Route,
) -> RouteAction {
    let timeout = rule.timeout.map_or(seconds(0), duration);
    let mut action = RouteAction {
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        ..Default::default()
    };
    let mut authority = authority;
    if let Some(rewrite) = &rule.rewrite {
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(matches::regex_matcher(&regex.pattern)),
                substitution: regex.rewrite.clone(),
            });
        } else if !rewrite.uri.is_empty() {
            action.prefix_rewrite = rewrite.uri.clone();
        }
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    let cluster_of = |destination: &Destination| {
        let service = (scope.service)(&destination.host);
        destination_cluster(destination, service.as_deref(), scope.port)
    };
    action.request_mirror_policies = actions::mirrors(rule, cluster_of);
    let mut sticky = false;
    if let [only] = rule.route.as_slice() {
        let changes = header_changes(only.headers.as_ref());
        authority = authority.or_else(|| changes.authority.clone());
        add_headers(route, changes);
        action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster_of(&only.destination)));
        let policy = hash_of(context, &only.destination);
        sticky = policy.is_some();
        action.hash_policy.extend(policy);
    } else {
        let clusters = rule
            .route
            .iter()
            .filter(|target| target.weight > 0)
            .map(|target| {
                action
                    .hash_policy
                    .extend(hash_of(context, &target.destination));
                weighted(target, cluster_of(&target.destination))
            });
        let clusters = clusters.collect();
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters,
            ..Default::default()
        }));
    }
    action.retry_policy = retry::policy(rule.retries.as_ref(), &context.snapshot.mesh, sticky);
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    action
}

fn weighted(target: &HttpRouteDestination, name: String) -> ClusterWeight {
    let changes = header_changes(target.headers.as_ref());
    ClusterWeight {
        name,
        weight: Some(target.weight as u32),
        request_headers_to_add: changes.request_add,
        request_headers_to_remove: changes.request_remove,
        response_headers_to_add: changes.response_add,
        response_headers_to_remove: changes.response_remove,
        host_rewrite_specifier: changes
            .authority
            .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

fn hash_of(
    context: &Context<'_>,
    destination: &Destination,
) -> Option<xds::envoy::config::route::v3::route_action::HashPolicy> {
    let service = context.scope.service(&destination.host)?;
    hash::of_destination(context, service, destination)
}

/// The name of the operation in traces: `host:port/path*`.
fn operation(route: &Route, config: &VirtualServiceConfig, port: u32) -> String {
    let path = path_of(route.r#match.as_ref());
    if let Some(route::Action::Route(action)) = &route.action
        && let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier
        && let Some((port, _, host)) = names::split(cluster)
    {
        return format!("{host}:{port}{path}");
    }
    format!("{}:{port}{path}", config.name)
}

fn path_of(condition: Option<&RouteMatch>) -> String {
    match condition.and_then(|condition| condition.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    }
}

/// The route of a service without VirtualService.
#[allow(deprecated)] // max_grpc_timeout: istiod still writes it
pub(crate) fn default_route(context: &Context<'_>, service: &Service, port: u32) -> Route {
    let host = service.host.to_ascii_lowercase();
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(names::outbound(port, "", &host))),
        timeout: Some(seconds(0)),
        max_grpc_timeout: Some(seconds(0)),
        retry_policy: retry::policy(None, &context.snapshot.mesh, false),
        hash_policy: hash::of_service(context, service, port)
            .into_iter()
            .collect(),
        ..Default::default()
    };
    Route {
        name: "default".to_owned(),
        r#match: Some(matches::route_match(None, false)),
        decorator: Some(Decorator {
            operation: format!("{host}:{port}/*"),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}
