//! Services whose endpoints are found by DNS for the host of each request (dynamic forward proxy).

use crate::cluster::connection_pool::{self, HttpOptions};
use crate::cluster::outbound::ServiceCluster;
use crate::cluster::{metadata_exchange, outlier, set_http_options, tls};
use crate::context::{Context, ListenerClass};
use crate::http_filters::http_filter;
use crate::listener::tcp_routes::ServiceOn;
use crate::network_filters::{network_filter, outbound_chain};
use crate::proto::{boolean, fields_of, text};
use crate::protocol::Protocol;
use crate::registry::{Resolution, Service};
use crate::traffic_policy::Policy;
use api::istio::{ClientTlsMode, Duration, OutboundTrafficPolicyMode};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DnsLookupFamily, LbPolicy,
};
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::{ClusterConfig, cluster_config};
use xds::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as http;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

/// The cluster for unknown hosts when these are reached by their name.
pub(crate) const ANY_CLUSTER: &str = "AllowAnyDynamicDNSCluster";

fn cache(name: &str) -> DnsCacheConfig {
    DnsCacheConfig {
        name: format!("{name}_dfp_dns_cache"),
        dns_lookup_family: DnsLookupFamily::V4Only as i32,
        ..Default::default()
    }
}

/// The cache for hosts that belong to no service. Where the agent answers the questions of the workload, it is asked, too.
fn any_cache(context: &Context<'_>) -> DnsCacheConfig {
    let agent = context.proxy.dns_capture.then(|| {
        let (host, port) = agent_address(context.proxy.metadata_text("DNS_PROXY_ADDR"));
        let address = crate::proto::address(&host, port);
        TypedExtensionConfig {
            name: "envoy.network.dns_resolver.cares".to_owned(),
            typed_config: Some(xds::any::pack(&CaresDnsResolverConfig {
                resolvers: vec![address],
                ..Default::default()
            })),
        }
    });
    DnsCacheConfig {
        max_hosts: Some(1024),
        typed_dns_resolver_config: agent,
        ..cache("allow_any")
    }
}

/// Where an agent with these settings answers.
fn agent_address(told: &str) -> (String, u32) {
    let (host, port) = told.rsplit_once(':').unwrap_or(("127.0.0.1", ""));
    let host = match host.trim_matches(['[', ']']) {
        "localhost" => "127.0.0.1",
        host => host,
    };
    (host.to_owned(), port.parse().unwrap_or(15053))
}

fn base(
    context: &Context<'_>,
    name: &str,
    config: &ClusterConfig,
    options: &mut HttpOptions,
    policy: &Policy<'_>,
) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: crate::names::stat(name),
        lb_policy: LbPolicy::ClusterProvided as i32,
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
            typed_config: Some(xds::any::pack(config)),
        })),
        ..Default::default()
    };
    if !context.proxy.plain_envoy {
        cluster.filters.push(metadata_exchange());
    }
    let pool = connection_pool::effective_pool(context, policy);
    connection_pool::apply(context, &mut cluster, options, pool, policy.retry_budget);
    cluster
}

/// Lets the proxy connect without checking the name of the request.
pub(crate) fn allow_insecure(cluster: &mut Cluster) {
    if let Some(ClusterDiscoveryType::ClusterType(own)) = &mut cluster.cluster_discovery_type
        && let Some(packed) = &own.typed_config
        && let Ok(Some(mut config)) = xds::any::unpack::<ClusterConfig>(packed)
    {
        config.allow_insecure_cluster_options = true;
        own.typed_config = Some(xds::any::pack(&config));
    }
}

/// The cluster of a service port whose hosts are resolved one by one; `None` for protocols in which they are not named. There are none
/// for subsets.
pub(crate) fn cluster(context: &Context<'_>, source: &ServiceCluster<'_>) -> Option<Cluster> {
    let (service, port) = (source.service, source.port);
    if source.sni_forwarding
        || !matches!(
            port.protocol,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls
        )
    {
        return None;
    }
    let defaults = context.snapshot.mesh.default_traffic_policy.as_ref();
    let policy =
        Policy::of_rule(source.rule.map(|rule| &rule.spec), port.number).or_of_mesh(defaults);
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(
            cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache(&service.host)),
        ),
        ..Default::default()
    };
    let mut options = HttpOptions::new(port.protocol, false);
    let pool = policy.pool;
    connection_pool::choose_upstream(context, &mut options, port.protocol, pool);
    let name = crate::names::outbound(port.number, "", &service.host);
    let mut cluster = base(context, &name, &config, &mut options, &policy);
    let mut origin = fields_of([]);
    if service.mesh_external {
        origin.fields.insert("external".to_owned(), boolean(true));
    }
    if let Some(rule) = source.rule {
        let path = crate::names::config_path("destination-rule", &rule.namespace, &rule.name);
        origin.fields.insert("config".to_owned(), text(path));
    }
    if !origin.fields.is_empty() {
        cluster.metadata = Some(crate::proto::metadata("istio", origin));
    }
    cluster.outlier_detection = policy.outlier.map(outlier::settings);
    let upstream = tls::Upstream {
        service,
        policy,
        sni: String::new(),
        selected: source.is_selected(),
        port_name: &port.name,
        asks_all: false,
        dynamic: true,
    };
    tls::apply(context, &mut cluster, &mut options, &upstream);
    if let Some(options) = options.finish() {
        set_http_options(&mut cluster, &options);
    }
    Some(cluster)
}

/// The cluster for hosts that belong to no service; with TLS where the mesh asks for it.
pub(crate) fn any_cluster(context: &Context<'_>) -> Cluster {
    let policy = context.snapshot.mesh.outbound_traffic_policy.as_ref();
    let settings = policy
        .and_then(|policy| policy.tls.as_ref())
        .filter(|tls| tls.mode != ClientTlsMode::Disable);
    let config = ClusterConfig {
        allow_insecure_cluster_options: settings.is_none(),
        cluster_implementation_specifier: Some(
            cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(any_cache(context)),
        ),
        ..Default::default()
    };
    let mut options = match settings {
        Some(_) => HttpOptions::new(Protocol::Http, false),
        None => HttpOptions::new(Protocol::Auto, true),
    };
    let mut cluster = base(
        context,
        ANY_CLUSTER,
        &config,
        &mut options,
        &Policy::default(),
    );
    match settings {
        Some(settings) => {
            cluster.transport_socket =
                tls::to_any_host(context, &mut cluster, &mut options, settings);
        }
        None => options.idle_timeout(Duration::from_secs(300)),
    }
    if let Some(options) = options.finish() {
        set_http_options(&mut cluster, &options);
    }
    cluster
}

fn resolving_filter(cache: DnsCacheConfig) -> HttpFilter {
    let config = http::FilterConfig {
        implementation_specifier: Some(
            http::filter_config::ImplementationSpecifier::DnsCacheConfig(cache),
        ),
        ..Default::default()
    };
    http_filter(
        "envoy.filters.http.dynamic_forward_proxy",
        xds::any::pack(&config),
    )
}

/// The filters that resolve hosts on an HTTP listener: for the service that it was made for, and where unknown hosts are resolved.
pub(crate) fn http_filters(context: &Context<'_>, service: Option<&Service>) -> Vec<HttpFilter> {
    let own = service.filter(|service| {
        service.resolution == Resolution::DynamicDns && crate::host::is_wildcard(&service.host)
    });
    own.map(|service| cache(&service.host))
        .into_iter()
        .chain(
            (context.scope.mode == OutboundTrafficPolicyMode::AllowAnyDynamicDns)
                .then(|| any_cache(context)),
        )
        .map(resolving_filter)
        .collect()
}

/// The filters of a TLS chain whose server name is resolved, before `proxy`; `None` for other services.
pub(crate) fn chain_filters(
    context: &Context<'_>,
    on: &ServiceOn<'_>,
    proxy: &TcpProxy,
) -> Option<Vec<Filter>> {
    if on.service.resolution != Resolution::DynamicDns
        || !crate::host::is_wildcard(&on.service.host)
    {
        return None;
    }
    let config = sni::FilterConfig {
        dns_cache_config: Some(cache(&on.service.host)),
        port_specifier: Some(sni::filter_config::PortSpecifier::PortValue(on.port)),
        ..Default::default()
    };
    let mut out = outbound_chain(context, ListenerClass::SidecarOutbound, proxy);
    let name = "envoy.extensions.filters.network.sni_dynamic_forward_proxy";
    out.insert(out.len() - 1, network_filter(name, xds::any::pack(&config)));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_where_its_settings_say_that_it_answers() {
        for (told, host, port) in [
            ("", "127.0.0.1", 15053),
            ("localhost:15999", "127.0.0.1", 15999),
            ("10.0.0.1:53", "10.0.0.1", 53),
            ("[::1]:53", "::1", 53),
            ("nowhere", "127.0.0.1", 15053),
        ] {
            assert_eq!(agent_address(told), (host.to_owned(), port), "{told}");
        }
    }
}
