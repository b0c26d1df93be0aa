//! `virtualservice.JWTClaimRouteAnalyzer`: routes by claims of tokens that nobody checks (IST0149).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::hosts::short_or_full_name;
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut checks: BTreeMap<&str, Vec<Labels>> = BTreeMap::new();
    for authentication in context.each(Kind::RequestAuthentication) {
        checks
            .entry(authentication.namespace())
            .or_default()
            .push(labels::match_labels(&authentication.spec).unwrap_or_default());
    }
    for service in context.each(Kind::VirtualService) {
        let Some(key) = claim(&service.spec) else {
            continue;
        };
        for name in service.spec.texts("gateways") {
            if name == "mesh" {
                continue;
            }
            let (namespace, name) = short_or_full_name(service.namespace(), name);
            let Some(gateway) = context.store.find(Kind::Gateway, namespace, name) else {
                continue;
            };
            let selector = gateway.spec.texts_by_key("selector");
            for pod in context.each(Kind::Pod) {
                let checked = ["istio-system", pod.namespace()]
                    .iter()
                    .filter_map(|namespace| checks.get(namespace))
                    .flatten()
                    .any(|check| labels::selects(check, &pod.labels));
                if labels::selects(&selector, &pod.labels) && !checked {
                    context.report(messages::jwt_claim_based_routing_without_request_auth_n(
                        service,
                        key,
                        &gateway.full_name(),
                        pod.name(),
                    ));
                }
            }
        }
    }
}

/// The first header that stands for a claim.
fn claim(spec: &Value) -> Option<&str> {
    spec.items("http")
        .iter()
        .flat_map(|route| route.items("match"))
        .flat_map(|condition| {
            [
                condition.field("headers"),
                condition.field("withoutHeaders"),
            ]
        })
        .filter_map(Value::as_object)
        .flatten()
        .map(|(name, _)| name.as_str())
        .find(|name| is_claim(name))
}

/// `@request.auth.claims.group`, `@request.auth.claims[group][name]`.
fn is_claim(header: &str) -> bool {
    const PREFIX: &str = "@request.auth.claims";
    let Some((prefix, name)) = header.split_at_checked(PREFIX.len()) else {
        return false;
    };
    let dotted = name.starts_with('.') && name.len() > 1;
    let bracketed = name.starts_with('[') && name.ends_with(']') && name.len() > 2;
    prefix.eq_ignore_ascii_case(PREFIX) && (dotted || bracketed)
}

#[cfg(test)]
mod tests {
    use super::is_claim;

    #[test]
    fn claims_come_after_a_dot_or_in_brackets() {
        assert!(is_claim("@request.auth.claims.group"));
        assert!(is_claim("@Request.Auth.Claims[a][b]"));
        assert!(!is_claim("@request.auth.claims"));
        assert!(!is_claim("@request.auth.claims."));
        assert!(!is_claim("x-group"));
    }
}
