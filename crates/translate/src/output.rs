//! All resources of a proxy.

use crate::cluster::outbound::{self, ServiceCluster};
use crate::cluster::{inbound, passthrough};
use crate::context::Context;
use crate::gateway_servers::MergedServers;
use crate::inbound_targets;
use crate::listener;
use crate::proxy_info::Interception;
use crate::registry::Resolution;
use crate::route;
use crate::snapshot::policy_applies;
use crate::{Problem, ProxyInfo, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;

/// All resources of a proxy, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// CDS.
    pub clusters: BTreeMap<String, Cluster>,
    /// EDS.
    pub endpoints: BTreeMap<String, ClusterLoadAssignment>,
    /// LDS.
    pub listeners: BTreeMap<String, Listener>,
    /// RDS.
    pub routes: BTreeMap<String, RouteConfiguration>,
    /// Names of Secrets that the resources ask istiod for: `kubernetes://<name>`, with `-cacert` for the CA. They are read
    /// from the namespace of the proxy.
    pub secrets: BTreeSet<String>,
    /// What could not be used.
    pub problems: Vec<Problem>,
}

/// Builds all resources of a proxy.
pub fn build(snapshot: &Snapshot, proxy: &ProxyInfo) -> Output {
    let context = Context::new(snapshot, proxy);
    let mut out = Output::default();
    if proxy.is_router() {
        build_router(&context, &mut out);
    } else {
        build_sidecar(&context, &mut out);
    }
    unsupported(&context);
    out.problems = snapshot.problems().to_vec();
    out.problems.extend(context.problems.into_inner());
    out.problems.sort();
    out.problems.dedup();
    out
}

/// What people can write but nothing here does yet.
fn unsupported(context: &Context<'_>) {
    let (snapshot, proxy) = (context.snapshot, context.proxy);
    let root = snapshot.mesh.root_namespace();
    for filter in &snapshot.envoy_filters {
        let selector = filter
            .spec
            .workload_selector
            .as_ref()
            .map(|selector| &selector.labels);
        if policy_applies(
            &filter.namespace,
            selector,
            root,
            &proxy.namespace,
            &proxy.labels,
        ) {
            let object = format!("EnvoyFilter/{}/{}", filter.namespace, filter.name);
            context.problem(Problem::new(
                object,
                "spec.configPatches",
                "EnvoyFilter patches are not applied yet",
            ));
        }
    }
}

fn build_sidecar(context: &Context<'_>, out: &mut Output) {
    service_clusters(context, out, false);
    let targets = inbound_targets::targets(context);
    add_clusters(
        out,
        targets
            .iter()
            .filter(|target| {
                context.proxy.interception != Interception::None || target.ingress.is_some()
            })
            .map(|target| inbound::cluster(context, target)),
    );
    add_clusters(
        out,
        [
            passthrough::black_hole(context),
            passthrough::outbound(context),
            passthrough::inbound(context),
        ],
    );
    if context.scope.mode == api::istio::OutboundTrafficPolicyMode::AllowAnyDynamicDns {
        add_clusters(out, [crate::dynamic_dns::any_cluster(context)]);
    }
    let (outbound, route_names) = listener::outbound::listeners(context);
    let mut listeners = outbound;
    if context.proxy.interception != Interception::None {
        listeners.push(listener::virtual_outbound::listener(context));
    }
    listeners.extend(listener::inbound::listeners(context, &targets));
    out.listeners.extend(
        listeners
            .into_iter()
            .map(|listener| (listener.name.clone(), listener)),
    );
    for name in route_names {
        if let Some(routes) = route::sidecar::outbound(context, &name) {
            out.routes.insert(name, routes);
        }
    }
}

fn build_router(context: &Context<'_>, out: &mut Output) {
    let merged = MergedServers::new(context);
    service_clusters(context, out, false);
    if merged.auto_passthrough {
        service_clusters(context, out, true);
    }
    add_clusters(out, [passthrough::black_hole(context)]);
    let listeners = listener::gateway::listeners(context, &merged);
    let bound: BTreeSet<&str> = listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    for (name, servers) in merged.by_route_name() {
        let served = servers.iter().any(|server| {
            let bind = if server.server.bind.is_empty() {
                "0.0.0.0"
            } else {
                &server.server.bind
            };
            bound.contains(crate::names::listener(bind, server.bound_port).as_str())
        });
        if served {
            out.routes.insert(
                name.to_owned(),
                route::gateway::configuration_of(context, name, &servers),
            );
        }
    }
    out.listeners.extend(
        listeners
            .into_iter()
            .map(|listener| (listener.name.clone(), listener)),
    );
    out.secrets = secrets(&merged);
}

/// Secrets of the servers' certificates.
fn secrets(merged: &MergedServers<'_>) -> BTreeSet<String> {
    use api::istio::ServerTlsMode;
    let mut out = BTreeSet::new();
    for tls in merged
        .listeners
        .values()
        .flatten()
        .filter_map(|server| server.server.tls.as_ref())
    {
        if matches!(
            tls.mode,
            ServerTlsMode::Passthrough
                | ServerTlsMode::AutoPassthrough
                | ServerTlsMode::IstioMutual
        ) {
            continue;
        }
        for name in tls
            .credential_names
            .iter()
            .chain([&tls.credential_name])
            .filter(|name| !name.is_empty())
        {
            out.insert(format!("kubernetes://{name}"));
            if matches!(
                tls.mode,
                ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            ) {
                out.insert(format!("kubernetes://{name}-cacert"));
            }
        }
    }
    out
}

fn service_clusters(context: &Context<'_>, out: &mut Output, sni_forwarding: bool) {
    let mut clusters = Vec::new();
    let mut endpoints = Vec::new();
    for service in &context.scope.services {
        if service.resolution == Resolution::Alias || sni_forwarding && service.mesh_external {
            continue;
        }
        let rule = context.snapshot.destination_rules.outbound(
            context.proxy,
            &service.host,
            &service.namespace,
        );
        for port in outbound::ports(service) {
            let source = ServiceCluster {
                service,
                port,
                rule: rule.map(AsRef::as_ref),
                sni_forwarding,
            };
            outbound::clusters(context, &source, &mut clusters, &mut endpoints);
        }
    }
    add_clusters(out, clusters);
    for assignment in endpoints {
        out.endpoints
            .entry(assignment.cluster_name.clone())
            .or_insert(assignment);
    }
}

/// The first cluster of a name stays.
fn add_clusters(out: &mut Output, clusters: impl IntoIterator<Item = Cluster>) {
    for cluster in clusters {
        out.clusters.entry(cluster.name.clone()).or_insert(cluster);
    }
}
