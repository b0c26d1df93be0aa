//! Hash policies of routes: how a request becomes a place on the ring of its destination.

use crate::context::Context;
use crate::destination_rule::MergedRule;
use crate::proto::duration;
use crate::registry::Service;
use crate::traffic_policy::{port_entry, subset};
use api::istio::{ConsistentHashLb, Destination, HttpRoute, TrafficPolicy};
use std::sync::Arc;
use xds::envoy::config::route::v3::route_action::{HashPolicy, hash_policy};

/// The hash policy of a service without VirtualService: that of the rule, unless an entry for the port has one.
pub(crate) fn of_service(
    context: &Context<'_>,
    service: &Service,
    port: u32,
) -> Option<HashPolicy> {
    let rule = rule_of(context, service)?;
    let policy = rule.spec.traffic_policy.as_ref()?;
    at_port(policy, Some(port))
        .or_else(|| of_policy(policy))
        .and_then(to_envoy)
}

/// The hash policy of the destination of a rule. Entries for a port count only where the destination names that port; the subset comes
/// before the rule.
pub(crate) fn of_destination(
    context: &Context<'_>,
    service: &Service,
    destination: &Destination,
) -> Option<HashPolicy> {
    let rule = &rule_of(context, service)?.spec;
    let port = HttpRoute::port(&destination.port);
    let of_subset = subset(rule, &destination.subset).and_then(|own| own.traffic_policy.as_ref());
    let of_rule = rule.traffic_policy.as_ref();
    [of_subset, of_rule]
        .into_iter()
        .flatten()
        .find_map(|policy| at_port(policy, port).or_else(|| of_policy(policy)))
        .and_then(to_envoy)
}

fn rule_of<'a>(context: &'a Context<'_>, service: &Service) -> Option<&'a Arc<MergedRule>> {
    let rules = &context.snapshot.destination_rules;
    rules.outbound(context.proxy, &service.host, &service.namespace)
}

fn of_policy(policy: &TrafficPolicy) -> Option<&ConsistentHashLb> {
    policy.load_balancer.as_ref()?.consistent_hash.as_ref()
}

fn at_port(policy: &TrafficPolicy, port: Option<u32>) -> Option<&ConsistentHashLb> {
    let entry = port_entry(policy, port?)?;
    entry.load_balancer.as_ref()?.consistent_hash.as_ref()
}

fn to_envoy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        hash_policy::PolicySpecifier::Header(hash_policy::Header {
            header_name: name.clone(),
            ..Default::default()
        })
    } else if let Some(cookie) = &hash.http_cookie {
        hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| hash_policy::CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        })
    } else if hash.use_source_ip.is_some() {
        hash_policy::PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties {
            source_ip: hash.use_source_ip == Some(true),
        })
    } else if let Some(name) = &hash.http_query_parameter_name {
        hash_policy::PolicySpecifier::QueryParameter(hash_policy::QueryParameter {
            name: name.clone(),
        })
    } else {
        return None;
    };
    Some(HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    })
}
