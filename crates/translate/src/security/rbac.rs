//! RBAC filters: AUDIT, DENY and ALLOW, each with its dry-run twin as shadow rules.

use super::conditions::{RuleScope, never, policy};
use crate::context::Context;
use crate::http_filters::http_filter;
use crate::network_filters::network_filter;
use crate::objects::Config;
use api::istio::{AuthorizationAction, AuthorizationPolicy};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::config::rbac::v3::{Rbac, rbac};
use xds::envoy::extensions::filters::http::rbac::v3 as http;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::rbac::v3 as network;

/// What a filter of one action enforces, and what it only records.
struct Rules {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    shadow_prefix: &'static str,
}

pub(crate) fn http_filters(
    context: &Context<'_>,
    policies: &[&Config<AuthorizationPolicy>],
) -> Vec<HttpFilter> {
    all(context, policies, false)
        .into_iter()
        .map(|rules| {
            let config = http::Rbac {
                rules: rules.rules,
                shadow_rules: rules.shadow,
                shadow_rules_stat_prefix: rules.shadow_prefix.to_owned(),
                ..Default::default()
            };
            http_filter("envoy.filters.http.rbac", xds::any::pack(&config))
        })
        .collect()
}

pub(crate) fn tcp_filters(
    context: &Context<'_>,
    policies: &[&Config<AuthorizationPolicy>],
) -> Vec<Filter> {
    all(context, policies, true)
        .into_iter()
        .map(|rules| {
            let config = network::Rbac {
                rules: rules.rules,
                shadow_rules: rules.shadow,
                shadow_rules_stat_prefix: rules.shadow_prefix.to_owned(),
                stat_prefix: "tcp.".to_owned(),
                ..Default::default()
            };
            network_filter("envoy.filters.network.rbac", xds::any::pack(&config))
        })
        .collect()
}

fn all(context: &Context<'_>, policies: &[&Config<AuthorizationPolicy>], tcp: bool) -> Vec<Rules> {
    use AuthorizationAction::{Allow, Audit, Deny};
    [Audit, Deny, Allow]
        .into_iter()
        .filter_map(|action| of_action(context, policies, action, tcp))
        .collect()
}

fn of_action(
    context: &Context<'_>,
    policies: &[&Config<AuthorizationPolicy>],
    action: AuthorizationAction,
    tcp: bool,
) -> Option<Rules> {
    let (dry, enforced): (Vec<_>, Vec<_>) = policies
        .iter()
        .filter(|policy| policy.spec.action == action)
        .partition(|policy| is_dry_run(policy));
    if dry.is_empty() && enforced.is_empty() {
        return None;
    }
    let rules = |policies: &[&&Config<AuthorizationPolicy>]| {
        (!policies.is_empty()).then(|| rbac(context, policies, action, tcp))
    };
    let denied = action == AuthorizationAction::Deny && !dry.is_empty();
    Some(Rules {
        rules: rules(&enforced),
        shadow: rules(&dry),
        shadow_prefix: if denied {
            "istio_dry_run_deny_"
        } else {
            "istio_dry_run_allow_"
        },
    })
}

fn is_dry_run(policy: &Config<AuthorizationPolicy>) -> bool {
    policy
        .annotations
        .get("istio.io/dry-run")
        .is_some_and(|value| matches!(value.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True"))
}

fn rbac(
    context: &Context<'_>,
    policies: &[&&Config<AuthorizationPolicy>],
    action: AuthorizationAction,
    tcp: bool,
) -> Rbac {
    let envoy = match action {
        AuthorizationAction::Deny => rbac::Action::Deny,
        AuthorizationAction::Audit => rbac::Action::Log,
        _ => rbac::Action::Allow,
    };
    let mut out = Rbac {
        action: envoy as i32,
        ..Default::default()
    };
    for config in policies {
        let name = |index: usize| {
            format!(
                "ns[{}]-policy[{}]-rule[{index}]",
                config.namespace, config.name
            )
        };
        if config.spec.rules.is_empty() {
            out.policies.insert(name(0), never());
        }
        let scope = RuleScope {
            mesh: &context.snapshot.mesh,
            namespace: &config.namespace,
            tcp,
            strict: action == AuthorizationAction::Allow,
        };
        for (index, rule) in config.spec.rules.iter().enumerate() {
            if let Some(policy) = policy(&scope, rule) {
                out.policies.insert(name(index), policy);
            }
        }
    }
    out
}
