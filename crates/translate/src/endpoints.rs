//! Endpoints of a service port as one proxy sees them: filtered, grouped by locality, replaced by network gateways, weighted.

use crate::context::Context;
use crate::destination_rule::MergedRule;
use crate::locality_lb;
use crate::proto::{address, fields_of, text};
use crate::registry::{Endpoint, Health, Service, ServicePort, TrafficDistribution};
use crate::traffic_policy::{Policy, subset};
use api::istio::{ClientTlsMode, MutualTlsMode};
use std::collections::BTreeMap;
use xds::envoy::config::core::v3::{HealthStatus, Metadata};
use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

/// Which cluster the endpoints are for.
pub(crate) struct ClusterRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    pub(crate) subset: &'a str,
    pub(crate) rule: Option<&'a MergedRule>,
    /// A cluster of an AUTO_PASSTHROUGH gateway, which forwards mutual TLS as it is.
    pub(crate) sni_forwarding: bool,
}

/// One endpoint with what locality load balancing compares.
pub(crate) struct Member<'a> {
    pub(crate) endpoint: LbEndpoint,
    pub(crate) labels: MemberLabels<'a>,
}

/// Labels of an endpoint; a network gateway has only its cluster and network.
pub(crate) enum MemberLabels<'a> {
    Workload(&'a Endpoint),
    Gateway { cluster: String, network: String },
}

impl MemberLabels<'_> {
    pub(crate) fn get(&self, key: &str) -> &str {
        match self {
            Self::Workload(endpoint) => endpoint.label(key),
            Self::Gateway { cluster, network } => match key {
                "topology.istio.io/cluster" => cluster,
                "topology.istio.io/network" => network,
                _ => "",
            },
        }
    }
}

/// Endpoints of one locality.
pub(crate) struct Group<'a> {
    pub(crate) locality: crate::Locality,
    pub(crate) members: Vec<Member<'a>>,
    pub(crate) weight: Option<u32>,
    pub(crate) priority: u32,
}

impl Group<'_> {
    pub(crate) fn sum(&self) -> u32 {
        self.members
            .iter()
            .map(|member| member.endpoint.load_balancing_weight.unwrap_or(1))
            .fold(0, u32::saturating_add)
    }

    fn refresh_weight(&mut self) {
        self.weight = Some(self.sum()).filter(|weight| *weight > 0);
    }
}

/// The load assignment of a cluster for a proxy. Endpoints that are names are only for clusters that ask DNS.
pub(crate) fn load_assignment(
    context: &Context<'_>,
    cluster: &ClusterRef<'_>,
    names: bool,
) -> ClusterLoadAssignment {
    let rule = cluster.rule.map(|rule| &rule.spec);
    let subset = rule.and_then(|rule| subset(rule, cluster.subset));
    let mut policy = Policy::of_rule(rule, cluster.port.number);
    if !cluster.subset.is_empty() {
        policy = policy.with_subset(
            subset.and_then(|subset| subset.traffic_policy.as_ref()),
            cluster.port.number,
        );
    }
    let tls_mode = tls_mode_for_endpoints(cluster);
    let labels = subset.map(|subset| &subset.labels);
    let snapshot = context.snapshot;
    let cluster_local = snapshot.is_cluster_local(&cluster.service.host);
    // Where endpoints are preferred by place, their health tells when to go elsewhere.
    let hide_unhealthy = cluster.service.traffic_distribution == TrafficDistribution::Any
        && policy
            .outlier
            .is_some_and(|outlier| outlier.min_health_percent > 0);
    let sessions = cluster
        .service
        .labels
        .get("istio.io/persistent-session")
        .is_some_and(|value| !value.is_empty());
    let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
    for endpoint in context.endpoints_of(cluster.service) {
        let visible = context.proxy.network_view.is_empty()
            || endpoint.network.is_empty()
            || context.proxy.network_view.contains(&endpoint.network);
        if endpoint.port_name != cluster.port.name
            || !visible
            || cluster_local && endpoint.cluster != context.proxy.cluster
            || cluster.service.node_local && endpoint.node != context.proxy.node_name
            || labels.is_some_and(|labels| !endpoint.has_labels(labels))
            || hide_unhealthy && endpoint.health == Health::Unhealthy
            || !sessions && endpoint.is_draining()
        {
            continue;
        }
        let gateways = &snapshot.registry.gateways;
        let nowhere = endpoint.address.is_empty();
        if nowhere && gateways.of(&endpoint.network, &endpoint.cluster).is_empty() {
            continue;
        }
        let named = !endpoint.address.is_empty()
            && endpoint.port != 0
            && !crate::host::is_ip(&endpoint.address);
        if named && !names {
            continue;
        }
        let mtls = match tls_mode {
            Some(mode) => mode == ClientTlsMode::IstioMutual && endpoint.mtls,
            None => endpoint.mtls && !plaintext_demanded(context, endpoint),
        };
        let group = groups
            .entry(endpoint.locality_text.clone())
            .or_insert_with(|| Group {
                locality: endpoint.locality.clone(),
                members: Vec::new(),
                weight: None,
                priority: 0,
            });
        // Behind the gateway of the proxy's own network there is nobody without an address, but, as in istiod, a place for them.
        if nowhere && in_network(context, &endpoint.network) {
            continue;
        }
        group.members.push(Member {
            endpoint: lb_endpoint(endpoint, mtls),
            labels: MemberLabels::Workload(endpoint),
        });
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.iter_mut().for_each(Group::refresh_weight);
    if !snapshot.registry.gateways.is_empty() {
        groups
            .iter_mut()
            .for_each(|group| replace_by_gateways(context, group));
    }
    if cluster.sni_forwarding {
        for group in &mut groups {
            group.members.retain(|member| is_mtls(&member.endpoint));
            group.refresh_weight();
        }
    }
    locality_lb::apply(context, cluster.service, &policy, &mut groups);
    ClusterLoadAssignment {
        cluster_name: cluster.name.to_owned(),
        endpoints: groups.into_iter().map(to_proto).collect(),
        ..Default::default()
    }
}

fn to_proto(group: Group<'_>) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(group.locality.to_proto()),
        lb_endpoints: group
            .members
            .into_iter()
            .map(|member| member.endpoint)
            .collect(),
        load_balancing_weight: group.weight,
        priority: group.priority,
        ..Default::default()
    }
}

/// Whether an endpoint of this network is reached directly.
fn in_network(context: &Context<'_>, network: &str) -> bool {
    network.is_empty() || network == context.proxy.network
}

/// The TLS mode that endpoints look at. Unlike in clusters, an entry for the port without `tls` inherits that of the rule.
fn tls_mode_for_endpoints(cluster: &ClusterRef<'_>) -> Option<ClientTlsMode> {
    let rule = &cluster.rule?.spec;
    let mode_of = |policy: Option<&api::istio::TrafficPolicy>| {
        let policy = policy?;
        let entry = policy
            .port_level_settings
            .iter()
            .find(|entry| {
                entry
                    .port
                    .as_ref()
                    .is_some_and(|port| port.number == cluster.port.number)
            })
            .and_then(|entry| entry.tls.as_ref());
        entry.or(policy.tls.as_ref()).map(|tls| tls.mode)
    };
    let own =
        subset(rule, cluster.subset).and_then(|subset| mode_of(subset.traffic_policy.as_ref()));
    own.or_else(|| mode_of(rule.traffic_policy.as_ref()))
}

/// Whether the workload takes plaintext only on this port.
fn plaintext_demanded(context: &Context<'_>, endpoint: &Endpoint) -> bool {
    let policies = &context.snapshot.peer_policies;
    if !policies.has_workload_policies(&endpoint.namespace) {
        return policies.of_namespace(&endpoint.namespace) == MutualTlsMode::Disable;
    }
    policies
        .of_workload(&endpoint.namespace, &endpoint.labels)
        .of_port(endpoint.port)
        == MutualTlsMode::Disable
}

fn lb_endpoint(endpoint: &Endpoint, mtls: bool) -> LbEndpoint {
    let health = match endpoint.health {
        _ if endpoint.is_draining() => HealthStatus::Draining,
        Health::Unset => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health as i32,
        metadata: Some(endpoint_metadata(mtls, endpoint.workload_metadata())),
        load_balancing_weight: Some(endpoint.weight()),
        host_identifier: Some(host_identifier(&endpoint.address, endpoint.port)),
    }
}

fn host_identifier(host: &str, port: u32) -> HostIdentifier {
    HostIdentifier::Endpoint(xds::envoy::config::endpoint::v3::Endpoint {
        address: Some(address(host, port)),
        ..Default::default()
    })
}

fn endpoint_metadata(mtls: bool, workload: String) -> Metadata {
    let mut metadata = Metadata::default();
    if mtls {
        metadata.filter_metadata.insert(
            "envoy.transport_socket_match".to_owned(),
            fields_of([("tlsMode", text("istio"))]),
        );
    }
    metadata.filter_metadata.insert(
        "istio".to_owned(),
        fields_of([("workload", text(workload))]),
    );
    metadata
}

fn is_mtls(endpoint: &LbEndpoint) -> bool {
    endpoint.metadata.as_ref().is_some_and(|metadata| {
        metadata
            .filter_metadata
            .contains_key("envoy.transport_socket_match")
    })
}

/// Endpoints of other networks become the gateways of these networks.
fn replace_by_gateways(context: &Context<'_>, group: &mut Group<'_>) {
    let gateways = &context.snapshot.registry.gateways;
    let mut through: BTreeMap<(String, u32, String, String), u32> = BTreeMap::new();
    let mut kept = Vec::new();
    for mut member in std::mem::take(&mut group.members) {
        let MemberLabels::Workload(endpoint) = member.labels else {
            continue;
        };
        let weight = endpoint.weight().saturating_mul(gateways.scale);
        let ways = gateways.of(&endpoint.network, &endpoint.cluster);
        if in_network(context, &endpoint.network) || ways.is_empty() {
            member.endpoint.load_balancing_weight = Some(weight);
            kept.push(member);
            continue;
        }
        if !is_mtls(&member.endpoint) {
            continue;
        }
        for way in ways {
            let key = (
                way.address.clone(),
                way.port,
                way.network.clone(),
                way.cluster.clone(),
            );
            let sum = through.entry(key).or_default();
            *sum = u32::wrapping_add(*sum, weight / ways.len() as u32);
        }
    }
    for ((host, port, network, cluster), weight) in through {
        let endpoint = LbEndpoint {
            metadata: Some(endpoint_metadata(true, format!(";;;;{cluster}"))),
            load_balancing_weight: Some(weight.max(1)),
            host_identifier: Some(host_identifier(&host, port)),
            ..Default::default()
        };
        kept.push(Member {
            endpoint,
            labels: MemberLabels::Gateway { cluster, network },
        });
    }
    group.members = kept;
    group.refresh_weight();
}
