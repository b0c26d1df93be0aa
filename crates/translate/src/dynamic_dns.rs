//! Services whose endpoints are found by DNS for the host of each request (dynamic forward proxy).

use crate::context::{Context, ListenerClass};
use crate::http_filters::http_filter;
use crate::listener::tcp_routes::ServiceOn;
use crate::network_filters::{logged_proxy, network_filter, outbound_chain};
use crate::registry::{Resolution, Service};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType, DnsLookupFamily};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use xds::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as http;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;

/// The cluster for unknown hosts when these are reached by their name.
pub(crate) const ANY_CLUSTER: &str = "AllowAnyDynamicDNSCluster";

fn cache(name: &str) -> DnsCacheConfig {
    DnsCacheConfig {
        name: format!("{name}_dfp_dns_cache"),
        dns_lookup_family: DnsLookupFamily::V4Only as i32,
        ..Default::default()
    }
}

/// Makes a cluster resolve the host of each request.
pub(crate) fn set_cluster_type(cluster: &mut Cluster, service: &Service) {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache(&service.host))),
        ..Default::default()
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(xds::any::pack(&config)),
    }));
}

/// The filters that resolve hosts on a shared HTTP listener.
pub(crate) fn http_filters(context: &Context<'_>, port: u32) -> Vec<HttpFilter> {
    let services = context.scope.services.iter().filter(|service| service.resolution == Resolution::DynamicDns);
    services
        .filter(|service| service.port(port).is_some_and(|port| port.protocol.is_http_or_auto()))
        .map(|service| {
            let config = http::FilterConfig {
                implementation_specifier: Some(http::filter_config::ImplementationSpecifier::DnsCacheConfig(cache(&service.host))),
                ..Default::default()
            };
            http_filter("envoy.filters.http.dynamic_forward_proxy", xds::any::pack(&config))
        })
        .collect()
}

/// The filters of a TLS chain whose server name is resolved; `None` for other services.
pub(crate) fn chain_filters(context: &Context<'_>, on: &ServiceOn<'_>) -> Option<Vec<Filter>> {
    if on.service.resolution != Resolution::DynamicDns {
        return None;
    }
    let config = sni::FilterConfig {
        dns_cache_config: Some(cache(&on.service.host)),
        port_specifier: Some(sni::filter_config::PortSpecifier::PortValue(on.port)),
        ..Default::default()
    };
    let class = ListenerClass::SidecarOutbound;
    let cluster = crate::names::outbound(on.port, "", &on.service.host);
    let mut out = vec![network_filter("envoy.filters.network.sni_dynamic_forward_proxy", xds::any::pack(&config))];
    out.extend(outbound_chain(context, class, &logged_proxy(context, class, &cluster)));
    Some(out)
}
