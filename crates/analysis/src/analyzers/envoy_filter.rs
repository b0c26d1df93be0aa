//! `envoyfilter.EnvoyPatchAnalyzer`: patches without effect, or whose effect depends on the order (IST0151 to IST0155).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

const APPLY_TO: [&str; 12] = [
    "INVALID",
    "LISTENER",
    "FILTER_CHAIN",
    "NETWORK_FILTER",
    "HTTP_FILTER",
    "ROUTE_CONFIGURATION",
    "VIRTUAL_HOST",
    "HTTP_ROUTE",
    "CLUSTER",
    "EXTENSION_CONFIG",
    "BOOTSTRAP",
    "LISTENER_FILTER",
];
const OPERATIONS: [&str; 8] = [
    "INVALID",
    "MERGE",
    "ADD",
    "REMOVE",
    "INSERT_BEFORE",
    "INSERT_AFTER",
    "INSERT_FIRST",
    "REPLACE",
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    // Names of filters that were patched for some versions of the proxy only.
    let mut versioned: Vec<String> = Vec::new();
    for filter in context.each(Kind::EnvoyFilter) {
        let without_priority = filter.spec.number("priority") == 0;
        for (index, config) in filter.spec.items("configPatches").iter().enumerate() {
            let patch = config.field("patch");
            if patch.is_null() {
                break;
            }
            let name = patched(config);
            let apply_to = config.choice("applyTo", &APPLY_TO);
            let of_routes = matches!(apply_to, "ROUTE_CONFIGURATION" | "HTTP_ROUTE");
            let replaceable = matches!(apply_to, "NETWORK_FILTER" | "HTTP_FILTER" | "VIRTUAL_HOST");
            let message = match patch.choice("operation", &OPERATIONS) {
                "ADD" if of_routes => Some(messages::envoy_filter_uses_add_operation_incorrectly(
                    filter,
                )),
                "REMOVE" if of_routes => Some(
                    messages::envoy_filter_uses_remove_operation_incorrectly(filter),
                ),
                "REPLACE" if !replaceable => Some(
                    messages::envoy_filter_uses_replace_operation_incorrectly(filter),
                ),
                "REMOVE" | "REPLACE" | "INSERT_BEFORE" | "INSERT_AFTER" if without_priority => {
                    if versioned.contains(&name) {
                        Some(
                            messages::envoy_filter_uses_relative_operation_with_proxy_version(
                                filter,
                            ),
                        )
                    } else {
                        Some(messages::envoy_filter_uses_relative_operation(filter))
                    }
                }
                _ => None,
            };
            if let Some(message) = message {
                context.report(message.at(&format!("spec.configPatches[{index}].patch.value")));
            }
            let proxy = config.field("match").field("proxy");
            if !proxy.text("proxyVersion").is_empty() {
                versioned.push(name);
            }
        }
    }
}

/// The name of the filter that a patch is about: the one it brings, or else the one it looks for. Without a value there is none.
fn patched(config: &Value) -> String {
    let value = config.field("patch").field("value");
    if !value.is_object() {
        return String::new();
    }
    match value.get("name") {
        Some(name) => name.to_string(),
        None => config
            .field("match")
            .field("listener")
            .field("filterChain")
            .field("filter")
            .text("name")
            .to_owned(),
    }
}
