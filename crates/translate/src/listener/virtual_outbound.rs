//! The listener that redirected outbound connections arrive at.

use super::filter_chain::unknown_traffic;
use crate::context::{Context, ListenerClass};
use crate::names;
use crate::network_filters::{stats, tcp_proxy_filter};
use crate::proto::address;
use crate::proxy_info::Interception;
use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

/// Where outbound connections arrive by default.
pub(crate) const PORT: u32 = 15001;

pub(crate) fn listener(context: &Context<'_>) -> Listener {
    let class = ListenerClass::SidecarOutbound;
    let port = context.snapshot.mesh.proxy_listen_port.unwrap_or(PORT);
    Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(address("0.0.0.0", port)),
        use_original_dst: Some(true),
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(1),
        access_log: context.logs.listener(class),
        transparent: (context.proxy.interception == Interception::Tproxy).then_some(true),
        filter_chains: vec![
            black_hole(context, class, "virtualOutbound-blackhole", port),
            FilterChain {
                name: "virtualOutbound-catchall-tcp".to_owned(),
                filters: unknown_traffic(context),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

/// A connection to the proxy's own port would go round in circles.
pub(crate) fn black_hole(context: &Context<'_>, class: ListenerClass, name: &str, port: u32) -> FilterChain {
    let proxy = TcpProxy {
        stat_prefix: names::BLACK_HOLE.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(names::BLACK_HOLE.to_owned())),
        ..Default::default()
    };
    let filters: Vec<Filter> = stats(context, class).into_iter().chain([tcp_proxy_filter(&proxy)]).collect();
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(FilterChainMatch { destination_port: Some(port), ..Default::default() }),
        filters,
        ..Default::default()
    }
}
