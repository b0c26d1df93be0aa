//! Request authentication and authorization.

mod conditions;
mod custom;
mod jwt;
mod rbac;
mod values;

use crate::context::{Context, ListenerClass};
use crate::objects::Config;
use crate::snapshot::policy_applies;
use api::istio::{AuthorizationAction, AuthorizationPolicy, LabelSelector};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// Filters of an HTTP connection manager.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpPolicies {
    /// CUSTOM policies.
    pub(crate) custom: Vec<HttpFilter>,
    /// Tokens.
    pub(crate) jwt: Vec<HttpFilter>,
    /// AUDIT, DENY, ALLOW.
    pub(crate) rules: Vec<HttpFilter>,
}

/// The filters of HTTP chains of a proxy.
pub(crate) fn http_policies(context: &Context<'_>, class: ListenerClass) -> HttpPolicies {
    let (custom, others) = policies(context);
    HttpPolicies {
        custom: custom::http_filters(context, &custom),
        jwt: jwt::filter(context, class).into_iter().collect(),
        rules: rbac::http_filters(context, &others),
    }
}

/// The filters of TCP chains of a proxy.
pub(crate) fn tcp_policies(context: &Context<'_>) -> Vec<Filter> {
    let (custom, others) = policies(context);
    let mut out = custom::tcp_filters(context, &custom);
    out.extend(rbac::tcp_filters(context, &others));
    out
}

/// Whether a policy of this namespace and with this selector is meant for the workload of the proxy.
fn applies(context: &Context<'_>, namespace: &str, selector: Option<&LabelSelector>) -> bool {
    policy_applies(
        namespace,
        selector.map(|selector| &selector.match_labels),
        context.snapshot.mesh.root_namespace(),
        &context.proxy.namespace,
        &context.proxy.labels,
    )
}

type Policies<'a> = Vec<&'a Config<AuthorizationPolicy>>;

/// The policies that apply to the workload of a proxy: those of external services, and the others.
fn policies<'a>(context: &Context<'a>) -> (Policies<'a>, Policies<'a>) {
    let root = context.snapshot.mesh.root_namespace();
    let all = &context.snapshot.authorization_policies;
    let (mut first, rest): (Policies<'a>, Policies<'a>) =
        all.iter().partition(|policy| policy.namespace == root);
    first.extend(rest);
    first
        .into_iter()
        .filter(|policy| {
            let spec = &policy.spec;
            let attached = spec.target_ref.is_some() || !spec.target_refs.is_empty();
            !attached && applies(context, &policy.namespace, spec.selector.as_ref())
        })
        .partition(|policy| policy.spec.action == AuthorizationAction::Custom)
}
