//! Network filters: metadata exchange, statistics, TCP proxy.

use crate::context::{Context, ListenerClass};
use crate::destination_rule::MergedRule;
use crate::proto::{boolean, duration, fields_of, text, typed_struct};
use crate::protocol::Protocol;
use crate::traffic_policy::{Policy, subset};
use xds::envoy::config::listener::v3::{Filter, filter};
use xds::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use xds::envoy::r#type::v3::{HashPolicy, hash_policy};
use xds::prost_types::Any;

pub(crate) fn network_filter(name: &str, config: Any) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(config)),
    }
}

/// The configuration of the TCP metadata exchange.
pub(crate) fn metadata_exchange_config() -> Any {
    typed_struct(
        "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        fields_of([
            ("protocol", text("istio-peer-exchange")),
            ("enable_discovery", boolean(true)),
        ]),
    )
}

pub(crate) fn metadata_exchange(context: &Context<'_>) -> Option<Filter> {
    (!context.proxy.plain_envoy)
        .then(|| network_filter("istio.metadata_exchange", metadata_exchange_config()))
}

/// Statistics of connections.
pub(crate) fn stats(context: &Context<'_>, class: ListenerClass) -> Vec<Filter> {
    if context.proxy.plain_envoy {
        return Vec::new();
    }
    let configs = context.telemetry.stats(class).into_iter();
    configs
        .map(|config| network_filter("istio.stats", xds::any::pack(&config)))
        .collect()
}

/// A TCP proxy to a cluster, with a log.
pub(crate) fn logged_proxy(context: &Context<'_>, class: ListenerClass, cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        access_log: context.logs.tcp(class),
        idle_timeout: context
            .proxy
            .idle_timeout
            .filter(|timeout| !timeout.is_zero())
            .map(duration),
        ..Default::default()
    }
}

pub(crate) fn tcp_proxy_filter(config: &TcpProxy) -> Filter {
    network_filter("envoy.filters.network.tcp_proxy", xds::any::pack(config))
}

/// What a DestinationRule says about connections that are proxied: only its top level and its subsets count.
pub(crate) fn apply_rule(proxy: &mut TcpProxy, rule: Option<&MergedRule>, subset_name: &str) {
    let Some(rule) = rule.map(|rule| &rule.spec) else {
        return;
    };
    let own = subset(rule, subset_name).and_then(|subset| subset.traffic_policy.as_ref());
    let mut policy = Policy::of_rule(Some(rule), 0);
    if !subset_name.is_empty() {
        policy = policy.with_subset(own, 0);
    }
    if let Some(tcp) = rule
        .traffic_policy
        .as_ref()
        .and_then(|policy| policy.connection_pool.as_ref()?.tcp.as_ref())
    {
        proxy.idle_timeout = tcp.idle_timeout.map(duration).or(proxy.idle_timeout);
        proxy.max_downstream_connection_duration = tcp.max_connection_duration.map(duration);
    }
    let hash = policy
        .load_balancer
        .and_then(|balancer| balancer.consistent_hash.as_ref());
    if hash.is_some_and(|hash| hash.use_source_ip == Some(true)) {
        proxy.hash_policy.push(HashPolicy {
            policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(
                hash_policy::SourceIp {},
            )),
        });
    }
    if let Some(tunnel) = policy.tunnel {
        proxy.tunneling_config = Some(tcp_proxy::TunnelingConfig {
            hostname: format!("{}:{}", tunnel.target_host, tunnel.target_port),
            use_post: tunnel.protocol.eq_ignore_ascii_case("POST"),
            ..Default::default()
        });
    }
}

/// Statistics and a TCP proxy: the filters of an outbound chain.
pub(crate) fn outbound_chain(
    context: &Context<'_>,
    class: ListenerClass,
    proxy: &TcpProxy,
) -> Vec<Filter> {
    stats(context, class)
        .into_iter()
        .chain([tcp_proxy_filter(proxy)])
        .collect()
}

/// Puts the filter that understands a protocol before the TCP proxy.
pub(crate) fn with_protocol(
    mut filters: Vec<Filter>,
    protocol: Protocol,
    stat_prefix: &str,
) -> Vec<Filter> {
    if protocol == Protocol::Mongo {
        let config = MongoProxy {
            stat_prefix: stat_prefix.to_owned(),
            ..Default::default()
        };
        let place = filters.len().saturating_sub(1);
        filters.insert(
            place,
            network_filter("envoy.filters.network.mongo_proxy", xds::any::pack(&config)),
        );
    }
    filters
}
