//! EnvoyFilter.

use crate::Object;
use crate::message::Message;
use crate::problem::Validation;
use crate::{jsonpb, selector};
use api::field::quote;
use api::go::regexp;
use serde_json::Value;

const LONGEST_VERSION: usize = 1024;
const HCM: &str = "envoy.filters.network.http_connection_manager";

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    v.warn("EnvoyFilter exposes internal implementation details that may change at any time. Prefer other APIs if possible, and exercise extreme caution, especially around upgrades.");
    if let error @ Some(_) =
        selector::by_labels(spec.get("workloadSelector"), "Envoy filter", &mut v)
    {
        return Validation {
            error,
            warning: None,
        };
    }
    for change in spec.messages("configPatches") {
        config_patch(change, &mut v);
    }
    v
}

fn config_patch(change: Message<'_>, v: &mut Validation) {
    let matched = change.sub("match");
    if matched.text("context") == "WAYPOINT" {
        return;
    }
    let mut fail = |text: &str| v.fail(format!("Envoy filter: {text}"));
    let apply_to = change.name("applyTo", "INVALID");
    if apply_to == "INVALID" {
        return fail("missing applyTo");
    }
    let Some(patch) = change.get("patch") else {
        return fail("missing patch");
    };
    let operation = patch.name("operation", "INVALID");
    if operation == "INVALID" {
        return fail("missing patch operation");
    }
    if operation != "REMOVE" && !patch.has("value") {
        return fail("missing patch value for non-remove operation");
    }
    let version = matched.sub("proxy").text("proxyVersion");
    if version.len() > LONGEST_VERSION {
        v.warn(format!(
            "Envoy filter: proxyVersion match exceeds {LONGEST_VERSION} characters and will be ignored"
        ));
    } else if let Err(why) = regexp::check(version) {
        return fail(&format!("invalid regex for proxy version, [{why}]"));
    }
    if !matches_its_class(matched, apply_to, v) {
        return;
    }
    check_value(apply_to, patch.raw("value"), v);
}

/// Whether the match is of the class of objects to change. False ends the check of this patch.
fn matches_its_class(matched: Message<'_>, apply_to: &str, v: &mut Validation) -> bool {
    let objects = ["listener", "routeConfiguration", "cluster", "waypoint"];
    if !objects.into_iter().any(|object| matched.has(object)) {
        return true;
    }
    match apply_to {
        "LISTENER" | "FILTER_CHAIN" | "NETWORK_FILTER" | "HTTP_FILTER" => {
            if matched.has("listener") {
                return listener_match(matched.sub("listener"), apply_to, v);
            }
            v.fail(
                "Envoy filter: applyTo for listener class objects cannot have non listener match",
            );
            return false;
        }
        "ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE"
            if !matched.has("routeConfiguration") =>
        {
            v.fail("Envoy filter: applyTo for http route class objects cannot have non route configuration match");
        }
        "CLUSTER" if !matched.has("cluster") => {
            v.fail("Envoy filter: applyTo for cluster class objects cannot have non cluster match");
        }
        _ => {}
    }
    true
}

fn listener_match(listener: Message<'_>, apply_to: &str, v: &mut Validation) -> bool {
    let Some(filter) = listener.sub("filterChain").get("filter") else {
        return true;
    };
    if matches!(apply_to, "LISTENER" | "FILTER_CHAIN") {
        v.warn(format!(
            "Envoy filter: filter match has no effect when used with {apply_to}"
        ));
    }
    let name = filter.text("name");
    let sub = filter.get("subFilter");
    let sub_name = sub.map_or("", |sub| sub.text("name"));
    let problem = if name.is_empty() {
        "filter match has no name to match on".to_string()
    } else if sub.is_none() {
        String::new()
    } else if apply_to != "HTTP_FILTER" {
        "subfilter match can be used with applyTo HTTP_FILTER only".to_string()
    } else if name != HCM && name != "envoy.http_connection_manager" {
        format!("subfilter match requires filter match with {HCM}")
    } else if sub_name.is_empty() {
        "subfilter match has no name to match on".to_string()
    } else {
        String::new()
    };
    if !problem.is_empty() {
        v.fail(format!("Envoy filter: {problem}"));
        return false;
    }
    for name in [name, sub_name] {
        if let Some((_, new)) = OLD_NAMES.iter().find(|(old, _)| *old == name) {
            v.warn(format!(
                "using deprecated filter name {}; use {} instead",
                quote(name),
                quote(new)
            ));
        }
    }
    true
}

/// Names of filters before they had types, and their names today.
const OLD_NAMES: &[(&str, &str)] = &[
    ("envoy.buffer", "envoy.filters.http.buffer"),
    ("envoy.cors", "envoy.filters.http.cors"),
    ("envoy.csrf", "envoy.filters.http.csrf"),
    ("envoy.http_dynamo_filter", "envoy.filters.http.dynamo"),
    ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
    ("envoy.fault", "envoy.filters.http.fault"),
    (
        "envoy.grpc_http1_bridge",
        "envoy.filters.http.grpc_http1_bridge",
    ),
    (
        "envoy.grpc_json_transcoder",
        "envoy.filters.http.grpc_json_transcoder",
    ),
    ("envoy.grpc_web", "envoy.filters.http.grpc_web"),
    ("envoy.gzip", "envoy.filters.http.gzip"),
    ("envoy.health_check", "envoy.filters.http.health_check"),
    ("envoy.ip_tagging", "envoy.filters.http.ip_tagging"),
    ("envoy.lua", "envoy.filters.http.lua"),
    ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
    ("envoy.router", "envoy.filters.http.router"),
    ("envoy.squash", "envoy.filters.http.squash"),
    (
        "envoy.listener.http_inspector",
        "envoy.filters.listener.http_inspector",
    ),
    (
        "envoy.listener.original_dst",
        "envoy.filters.listener.original_dst",
    ),
    (
        "envoy.listener.original_src",
        "envoy.filters.listener.original_src",
    ),
    (
        "envoy.listener.proxy_protocol",
        "envoy.filters.listener.proxy_protocol",
    ),
    (
        "envoy.listener.tls_inspector",
        "envoy.filters.listener.tls_inspector",
    ),
    (
        "envoy.client_ssl_auth",
        "envoy.filters.network.client_ssl_auth",
    ),
    ("envoy.http_connection_manager", HCM),
    ("envoy.mongo_proxy", "envoy.filters.network.mongo_proxy"),
    ("envoy.ratelimit", "envoy.filters.network.ratelimit"),
    ("envoy.redis_proxy", "envoy.filters.network.redis_proxy"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
];

/// The message that a patch changes.
fn message_of(apply_to: &str) -> Option<&'static str> {
    Some(match apply_to {
        "CLUSTER" => "envoy.config.cluster.v3.Cluster",
        "LISTENER" => "envoy.config.listener.v3.Listener",
        "FILTER_CHAIN" => "envoy.config.listener.v3.FilterChain",
        "NETWORK_FILTER" => "envoy.config.listener.v3.Filter",
        "LISTENER_FILTER" => "envoy.config.listener.v3.ListenerFilter",
        "HTTP_FILTER" => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "ROUTE_CONFIGURATION" => "envoy.config.route.v3.RouteConfiguration",
        "VIRTUAL_HOST" => "envoy.config.route.v3.VirtualHost",
        "HTTP_ROUTE" => "envoy.config.route.v3.Route",
        "EXTENSION_CONFIG" => "envoy.config.core.v3.TypedExtensionConfig",
        "BOOTSTRAP" => "envoy.config.bootstrap.v3.Bootstrap",
        _ => return None,
    })
}

/// The value is such a message; fields that it does not have are a warning.
fn check_value(apply_to: &str, value: &Value, v: &mut Validation) {
    if value.is_null() {
        return;
    }
    let message = message_of(apply_to).and_then(|name| xds::json::descriptor(name).ok());
    let Some(message) = message else {
        return v.fail(format!(
            "Envoy filter: unknown object type for applyTo {apply_to}"
        ));
    };
    if let Err(why) = jsonpb::check(&message, value, false) {
        let why = format!("Envoy filter: {why}");
        return v.fail(if !why.contains("could not resolve Any message type") {
            why
        } else if why.contains(".v2.") {
            format!("referenced type unknown (hint: try using the v3 XDS API): {why}")
        } else {
            format!("referenced type unknown: {why}")
        });
    }
    if let Err(why) = jsonpb::check(&message, value, true) {
        return v.warn(format!("Envoy filter: {why}"));
    }
    let missing = jsonpb::without_typed_config(&message, value);
    if !missing.is_empty() {
        v.warn(format!(
            "using deprecated types by name without typed_config; {}",
            missing.join(", ")
        ));
    }
}
