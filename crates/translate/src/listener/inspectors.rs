//! Listener filters: what is found out about a connection before a filter chain is chosen.

use crate::context::Context;
use crate::proto::{duration, seconds};
use std::collections::BTreeSet;
use xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use xds::envoy::config::listener::v3::{
    ListenerFilter, ListenerFilterChainMatchPredicate as Predicate, listener_filter,
};
use xds::envoy::extensions::filters::listener as filters;
use xds::envoy::r#type::v3::Int32Range;
use xds::prost_types::{Any, Duration};

fn filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(crate) fn tls() -> ListenerFilter {
    let config = filters::tls_inspector::v3::TlsInspector {
        initial_read_buffer_size: Some(512),
        ..Default::default()
    };
    filter(
        "envoy.filters.listener.tls_inspector",
        xds::any::pack(&config),
    )
}

pub(crate) fn http() -> ListenerFilter {
    filter(
        "envoy.filters.listener.http_inspector",
        xds::any::pack(&filters::http_inspector::v3::HttpInspector {}),
    )
}

pub(crate) fn original_dst() -> ListenerFilter {
    filter(
        "envoy.filters.listener.original_dst",
        xds::any::pack(&filters::original_dst::v3::OriginalDst {}),
    )
}

pub(crate) fn original_src() -> ListenerFilter {
    let config = filters::original_src::v3::OriginalSrc {
        mark: 1337,
        ..Default::default()
    };
    filter(
        "envoy.filters.listener.original_src",
        xds::any::pack(&config),
    )
}

pub(crate) fn proxy_protocol() -> ListenerFilter {
    filter(
        "envoy.filters.listener.proxy_protocol",
        xds::any::pack(&filters::proxy_protocol::v3::ProxyProtocol::default()),
    )
}

/// How long the filters may take on a listener of a sidecar that looks into connections.
pub(crate) fn timeout(context: &Context<'_>, looks: bool) -> Duration {
    match context.snapshot.mesh.protocol_detection_timeout {
        Some(timeout) if looks => duration(timeout),
        _ => seconds(0),
    }
}

/// Destination ports as a condition.
pub(crate) fn ports(ports: &BTreeSet<u32>) -> Option<Predicate> {
    let range = |port: u32| Predicate {
        rule: Some(Rule::DestinationPortRange(Int32Range {
            start: port as i32,
            end: port as i32 + 1,
        })),
    };
    match ports.len() {
        0 => None,
        1 => ports.first().map(|port| range(*port)),
        _ => Some(Predicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: ports.iter().map(|port| range(*port)).collect(),
            })),
        }),
    }
}

pub(crate) fn not(predicate: Predicate) -> Predicate {
    Predicate {
        rule: Some(Rule::NotMatch(Box::new(predicate))),
    }
}
