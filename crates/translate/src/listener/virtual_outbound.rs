//! The listener that redirected outbound connections arrive at.

use super::filter_chain::{PLAIN_HTTP, unknown_traffic};
use super::inspectors;
use crate::context::{Context, ListenerClass};
use crate::hcm::{self, HcmSpec, Routes};
use crate::names;
use crate::network_filters::{stats, tcp_proxy_filter};
use crate::proto::address;
use crate::protocol::Protocol;
use crate::proxy_info::Interception;
use api::istio::OutboundTrafficPolicyMode;
use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

/// Where outbound connections arrive by default.
pub(crate) const PORT: u32 = 15001;

pub(crate) fn listener(context: &Context<'_>) -> Listener {
    let class = ListenerClass::SidecarOutbound;
    let port = context.snapshot.mesh.proxy_listen_port.unwrap_or(PORT);
    let mut filter_chains = vec![black_hole(
        context,
        class,
        "virtualOutbound-blackhole",
        port,
    )];
    let mut listener_filters = Vec::new();
    if context.scope.mode == OutboundTrafficPolicyMode::AllowAnyDynamicDns {
        filter_chains.push(by_name(context));
        listener_filters.push(inspectors::http());
    }
    filter_chains.push(FilterChain {
        name: "virtualOutbound-catchall-tcp".to_owned(),
        filters: unknown_traffic(context),
        ..Default::default()
    });
    Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(address("0.0.0.0", port)),
        use_original_dst: Some(true),
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(1),
        access_log: context.logs.listener(class),
        transparent: (context.proxy.interception == Interception::Tproxy).then_some(true),
        filter_chains,
        listener_filters,
        ..Default::default()
    }
}

/// HTTP to hosts that belong to no service, which are found by their name.
fn by_name(context: &Context<'_>) -> FilterChain {
    let class = ListenerClass::SidecarOutbound;
    let host = crate::route::sidecar::catch_all(context);
    let routes = crate::route::configuration(host.name.clone(), vec![host]);
    let prefix = "outbound_virtualOutbound_allow_any_dynamic_dns".to_owned();
    let mut spec = HcmSpec::new(
        class,
        prefix,
        Routes::Inline(Box::new(routes)),
        Protocol::Http,
    );
    spec.before_router = crate::dynamic_dns::http_filters(context, None);
    FilterChain {
        name: "virtualOutbound-catchall-tcp-http".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            application_protocols: PLAIN_HTTP.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        filters: vec![hcm::filter(context, spec)],
        ..Default::default()
    }
}

/// A connection to the proxy's own port would go round in circles.
pub(crate) fn black_hole(
    context: &Context<'_>,
    class: ListenerClass,
    name: &str,
    port: u32,
) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: names::BLACK_HOLE.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(
            names::BLACK_HOLE.to_owned(),
        )),
        ..Default::default()
    };
    let filters: Vec<Filter> = stats(context, class)
        .into_iter()
        .chain([tcp_proxy_filter(&proxy)])
        .collect();
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(port),
            ..Default::default()
        }),
        filters,
        ..Default::default()
    }
}
