//! Hash policies of routes: how a request becomes a place on the ring of its destination.

use crate::context::Context;
use crate::proto::duration;
use crate::registry::Service;
use crate::traffic_policy::{Policy, subset};
use api::istio::ConsistentHashLb;
use xds::envoy::config::route::v3::route_action::{HashPolicy, hash_policy};

/// The hash policy of a destination, if its cluster hashes by something of the request.
pub(crate) fn of_destination(
    context: &Context<'_>,
    service: &Service,
    port: u32,
    subset_name: &str,
) -> Option<HashPolicy> {
    let rule = context.snapshot.destination_rules.outbound(
        context.proxy,
        &service.host,
        &service.namespace,
    )?;
    let mut policy = Policy::of_rule(Some(&rule.spec), port);
    if !subset_name.is_empty() {
        policy = policy.with_subset(
            subset(&rule.spec, subset_name).and_then(|subset| subset.traffic_policy.as_ref()),
            port,
        );
    }
    policy
        .load_balancer?
        .consistent_hash
        .as_ref()
        .and_then(to_envoy)
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
