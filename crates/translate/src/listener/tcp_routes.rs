//! Chains for connections that are not looked into: `tcp` and `tls` rules, or the service itself.

use super::filter_chain::Chain;
use crate::context::{Context, ListenerClass};
use crate::host;
use crate::names;
use crate::network_filters::{apply_rule, logged_proxy, outbound_chain, with_protocol};
use crate::objects::{Labels, selects};
use crate::proto::config_metadata;
use crate::protocol::Protocol;
use crate::registry::{Resolution, Service, ServicePort, UNSPECIFIED};
use crate::route::http_route::destination_cluster;
use crate::virtual_service::VirtualServiceConfig;
use api::istio::{L4MatchAttributes, RouteDestination, TlsMatchAttributes};
use std::collections::HashSet;
use std::sync::Arc;
use xds::envoy::config::core::v3::Metadata;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    self, weighted_cluster::ClusterWeight,
};

/// A service on a listener.
pub(crate) struct ServiceOn<'a> {
    pub(crate) service: &'a Service,
    /// Port, its name and protocol of the listener.
    pub(crate) port: u32,
    pub(crate) port_name: &'a str,
    pub(crate) protocol: Protocol,
    /// The service's range of addresses, if its address is one.
    pub(crate) cidr: Option<String>,
    /// The address of the listener.
    pub(crate) bind: &'a str,
}

/// Whether the conditions that are known beforehand hold.
pub(crate) struct Static<'a> {
    pub(crate) port: u32,
    pub(crate) gateways: &'a [&'a str],
    pub(crate) labels: &'a Labels,
    pub(crate) namespace: &'a str,
}

impl Static<'_> {
    pub(crate) fn tcp(&self, condition: &L4MatchAttributes) -> bool {
        self.holds(
            &condition.gateways,
            condition.port,
            &condition.source_labels,
            &condition.source_namespace,
        )
    }

    pub(crate) fn tls(&self, condition: &TlsMatchAttributes) -> bool {
        self.holds(
            &condition.gateways,
            condition.port,
            &condition.source_labels,
            &condition.source_namespace,
        )
    }

    fn holds(&self, gateways: &[String], port: u32, labels: &Labels, namespace: &str) -> bool {
        (gateways.is_empty()
            || gateways
                .iter()
                .any(|gateway| self.gateways.contains(&gateway.as_str())))
            && (port == 0 || port == self.port)
            && selects(labels, self.labels)
            && (namespace.is_empty() || namespace == self.namespace)
    }
}

/// The chains of a service on a sidecar.
pub(crate) fn chains(
    context: &Context<'_>,
    on: &ServiceOn<'_>,
    configs: &[&Arc<VirtualServiceConfig>],
) -> Vec<Chain> {
    let concerned: Vec<&Arc<VirtualServiceConfig>> = configs
        .iter()
        .filter(|config| {
            config
                .spec
                .hosts
                .iter()
                .any(|name| host::matches(name, &on.service.host))
        })
        .copied()
        .collect();
    if on.protocol.is_tls() {
        tls_chains(context, on, &concerned)
    } else {
        tcp_chains(context, on, &concerned)
    }
}

fn known<'a>(context: &'a Context<'_>, port: u32) -> Static<'a> {
    Static {
        port,
        gateways: &["mesh"],
        labels: &context.proxy.labels,
        namespace: &context.proxy.namespace,
    }
}

pub(crate) fn origin(config: &VirtualServiceConfig) -> Metadata {
    config_metadata(names::config_path(
        "virtual-service",
        &config.namespace,
        &config.name,
    ))
}

fn tls_chains(
    context: &Context<'_>,
    on: &ServiceOn<'_>,
    configs: &[&Arc<VirtualServiceConfig>],
) -> Vec<Chain> {
    let known = known(context, on.port);
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    let mut any = false;
    // Subnets of a condition also count for those after it that have none.
    let mut cidrs: Vec<String> = on.cidr.iter().cloned().collect();
    for config in configs {
        for rule in config.spec.tls.iter().filter(|rule| !rule.route.is_empty()) {
            for condition in rule.matches.iter().filter(|condition| known.tls(condition)) {
                any = true;
                if !condition.destination_subnets.is_empty() {
                    cidrs.clone_from(&condition.destination_subnets);
                }
                if !seen.insert((
                    condition.sni_hosts.clone(),
                    condition.destination_subnets.clone(),
                )) {
                    continue;
                }
                out.push(Chain {
                    server_names: condition.sni_hosts.clone(),
                    cidrs: cidrs.clone(),
                    filters: filters(
                        context,
                        ListenerClass::SidecarOutbound,
                        config,
                        &rule.route,
                        (on.port, on.port_name),
                        on.protocol,
                    ),
                    metadata: Some(origin(config)),
                    ..Chain::default()
                });
            }
        }
    }
    if any {
        return out;
    }
    let address = on.service.address_for(context.proxy);
    let by_name = on.cidr.is_some()
        || address == UNSPECIFIED && on.bind == UNSPECIFIED
        || host::is_wildcard(&on.service.host) && on.service.resolution == Resolution::DynamicDns;
    let mut server_names = Vec::new();
    if by_name {
        server_names.push(on.service.host.clone());
        for alias in &on.service.aliases {
            server_names.extend(crate::route::domains::all_forms(
                alias,
                &context.proxy.dns_domain,
            ));
        }
    }
    vec![Chain {
        server_names,
        ..service_chain(context, on)
    }]
}

fn tcp_chains(
    context: &Context<'_>,
    on: &ServiceOn<'_>,
    configs: &[&Arc<VirtualServiceConfig>],
) -> Vec<Chain> {
    let known = known(context, on.port);
    let own_cidrs: Vec<String> = on.cidr.iter().cloned().collect();
    let mut out = Vec::new();
    let mut covered = false;
    for config in configs {
        for rule in config.spec.tcp.iter().filter(|rule| !rule.route.is_empty()) {
            let filters = || {
                filters(
                    context,
                    ListenerClass::SidecarOutbound,
                    config,
                    &rule.route,
                    (on.port, on.port_name),
                    on.protocol,
                )
            };
            let terminal = || Chain {
                cidrs: own_cidrs.clone(),
                filters: filters(),
                metadata: Some(origin(config)),
                ..Chain::default()
            };
            if rule.matches.is_empty() {
                out.push(terminal());
                return out;
            }
            let mut subnets: Vec<String> = Vec::new();
            for condition in rule.matches.iter().filter(|condition| known.tcp(condition)) {
                if condition.destination_subnets.is_empty() {
                    out.push(terminal());
                    return out;
                }
                subnets.extend(condition.destination_subnets.iter().cloned());
            }
            if !subnets.is_empty() {
                subnets.sort();
                covered |= subnets == own_cidrs;
                out.push(Chain {
                    cidrs: subnets,
                    filters: filters(),
                    ..Chain::default()
                });
            }
        }
    }
    if !covered {
        out.push(service_chain(context, on));
    }
    out
}

/// The chain to the service itself.
fn service_chain(context: &Context<'_>, on: &ServiceOn<'_>) -> Chain {
    let port = if let [only] = on.service.ports.as_slice() {
        only.number
    } else {
        on.port
    };
    let cluster = names::outbound(port, "", &on.service.host);
    let mut proxy = logged_proxy(context, ListenerClass::SidecarOutbound, &cluster);
    let pattern = &context.snapshot.mesh.outbound_cluster_stat_name;
    if !pattern.is_empty() {
        let bare = ServicePort::bare(port, "");
        proxy.stat_prefix = names::filled(pattern, on.service, &on.service.host, "", &bare, 0);
    }
    let rule = context.snapshot.destination_rules.outbound(
        context.proxy,
        &on.service.host,
        &on.service.namespace,
    );
    apply_rule(&mut proxy, rule.map(AsRef::as_ref), "");
    Chain {
        cidrs: on.cidr.iter().cloned().collect(),
        filters: crate::dynamic_dns::chain_filters(context, on, &proxy).unwrap_or_else(|| {
            let filters = outbound_chain(context, ListenerClass::SidecarOutbound, &proxy);
            with_protocol(filters, on.protocol, &proxy.stat_prefix)
        }),
        ..Chain::default()
    }
}

/// The filters of a `tcp` or `tls` rule.
pub(crate) fn filters(
    context: &Context<'_>,
    class: ListenerClass,
    config: &VirtualServiceConfig,
    targets: &[RouteDestination],
    (port, port_name): (u32, &str),
    protocol: Protocol,
) -> Vec<Filter> {
    let Some(first) = targets.first() else {
        return Vec::new();
    };
    let service = |name: &str| context.scope.service(name).cloned();
    let cluster = |target: &RouteDestination| {
        let service = service(&target.destination.host);
        destination_cluster(&target.destination, service.as_deref(), port)
    };
    let mut proxy = logged_proxy(context, class, &cluster(first));
    if targets.len() > 1 {
        let clusters = targets
            .iter()
            .filter(|target| target.weight > 0)
            .map(|target| ClusterWeight {
                name: cluster(target),
                weight: target.weight as u32,
                ..Default::default()
            });
        proxy.stat_prefix = format!("{}.{}", config.name, config.namespace);
        proxy.cluster_specifier = Some(tcp_proxy::ClusterSpecifier::WeightedClusters(
            tcp_proxy::WeightedCluster {
                clusters: clusters.collect(),
            },
        ));
    }
    if let Some(service) = service(&first.destination.host) {
        let rule = context.snapshot.destination_rules.outbound(
            context.proxy,
            &service.host,
            &service.namespace,
        );
        // With several destinations, what their subsets say is not looked at.
        let subset = match targets {
            [only] => only.destination.subset.as_str(),
            _ => "",
        };
        let pattern = &context.snapshot.mesh.outbound_cluster_stat_name;
        if targets.len() == 1 && !pattern.is_empty() {
            let port = ServicePort::bare(port, port_name);
            let host = &first.destination.host;
            proxy.stat_prefix = names::filled(pattern, &service, host, subset, &port, 0);
        }
        apply_rule(&mut proxy, rule.map(AsRef::as_ref), subset);
    }
    with_protocol(
        outbound_chain(context, class, &proxy),
        protocol,
        &proxy.stat_prefix,
    )
}
