//! All resources of a proxy.

use crate::cluster::outbound::{self, ServiceCluster};
use crate::cluster::{inbound, passthrough};
use crate::context::{Context, ListenerClass, Reads};
use crate::envoy_filter::{self, GatewayPorts, Patches};
use crate::gateway_servers::MergedServers;
use crate::inbound_targets;
use crate::listener;
use crate::proxy_info::Interception;
use crate::registry::Resolution;
use crate::route;
use crate::{Problem, ProxyInfo, Snapshot};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
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
    /// ECDS: what filters with `config_discovery` ask for.
    pub extension_configs: BTreeMap<String, TypedExtensionConfig>,
    /// Names of Secrets that the resources ask istiod for: `kubernetes://<name>`, with `-cacert` for the CA. They are read
    /// from the namespace of the proxy.
    pub secrets: BTreeSet<String>,
    /// What could not be used.
    pub problems: Vec<Problem>,
}

/// Builds all resources of a proxy.
pub fn build(snapshot: &Snapshot, proxy: &ProxyInfo) -> Output {
    let proxy = snapshot.with_labels_of_pod(proxy);
    build_noting(&Context::new(snapshot, &proxy), &Wanted::EVERYTHING).0
}

/// What of a proxy's resources is to be built.
pub(crate) struct Wanted<'a> {
    /// Of the clusters of services, those of these hosts (in lower case).
    pub(crate) clusters_of: &'a dyn Fn(&str) -> bool,
    /// No listeners, nor clusters that only they lead to: there are those that were built then.
    pub(crate) listeners_as_in: Option<&'a Made>,
}

impl Wanted<'_> {
    pub(crate) const EVERYTHING: Wanted<'static> = Wanted {
        clusters_of: &|_| true,
        listeners_as_in: None,
    };
}

/// Builds resources of a proxy, and tells what they were made from.
pub(crate) fn build_noting(context: &Context<'_>, wanted: &Wanted<'_>) -> (Output, Made) {
    let (snapshot, proxy) = (context.snapshot, context.proxy);
    let mut out = Output::default();
    let mut made = Made::default();
    let patches = Patches::new(snapshot, proxy, &context.problems);
    if proxy.is_router() {
        build_router(context, &patches, &mut out, &mut made, wanted);
    } else {
        build_sidecar(context, &patches, &mut out, &mut made, wanted);
    }
    made.patched = !patches.is_empty();
    out.extension_configs = patches.extension_configs();
    if !out.extension_configs.is_empty() {
        let asked = envoy_filter::discovered_names(out.listeners.values());
        out.extension_configs.retain(|name, _| asked.contains(name));
    }
    drop(patches);
    out.problems = snapshot.problems().to_vec();
    out.problems.extend(context.problems.take());
    out.problems.sort();
    out.problems.dedup();
    made.reads = context.reads.take();
    (out, made)
}

/// What the resources of a proxy were made from, as far as a change of endpoints is concerned.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) reads: Reads,
    /// What each host in lower case has.
    pub(crate) by_host: ByHost,
    /// The names of listeners.
    pub(crate) listeners: BTreeSet<String>,
    /// The names of the routes that listeners of a sidecar ask for.
    pub(crate) route_names: BTreeSet<String>,
    /// Whether clusters that forward mutual TLS were built.
    pub(crate) auto_passthrough: bool,
    /// Whether EnvoyFilters had a hand in it.
    pub(crate) patched: bool,
}

/// Names of the clusters and of the load assignments of hosts in lower case.
pub(crate) type ByHost = HashMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn build_sidecar(
    context: &Context<'_>,
    patches: &Patches<'_>,
    out: &mut Output,
    made: &mut Made,
    wanted: &Wanted<'_>,
) {
    service_clusters(context, out, false, &mut made.by_host, wanted.clusters_of);
    let route_names = match wanted.listeners_as_in {
        Some(before) => &before.route_names,
        None => {
            made.route_names = sidecar_listeners(context, patches, out);
            &made.route_names
        }
    };
    let ports = GatewayPorts::new();
    let route_patches = patches.routes(ListenerClass::SidecarOutbound, &ports);
    for name in route_names {
        if let Some(mut routes) = route::sidecar::outbound(context, name) {
            route_patches.apply(&mut routes);
            out.routes.insert(name.clone(), routes);
        }
    }
}

/// Listeners, and the clusters that are no services' but their own. Returns the names of the routes that they ask for.
fn sidecar_listeners(
    context: &Context<'_>,
    patches: &Patches<'_>,
    out: &mut Output,
) -> BTreeSet<String> {
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
    patch_clusters(patches, false, out, |port| {
        targets
            .iter()
            .filter(|target| target.port == port && target.ingress.is_none())
            .flat_map(|target| &target.services)
            .map(|(service, _)| service.host.clone())
            .collect()
    });
    let (mut outbound, mut route_names) = listener::outbound::listeners(context);
    if context.proxy.interception != Interception::None {
        outbound.push(listener::virtual_outbound::listener(context));
    }
    let mut listeners = patches.listeners(ListenerClass::SidecarOutbound, outbound);
    listeners.extend(patches.listeners(
        ListenerClass::SidecarInbound,
        listener::inbound::listeners(context, &targets),
    ));
    if !patches.is_empty() {
        route_names = envoy_filter::route_names(&listeners).into_iter().collect();
    }
    out.listeners.extend(
        listeners
            .into_iter()
            .map(|listener| (listener.name.clone(), listener)),
    );
    route_names.into_iter().collect()
}

/// Patches clusters. Endpoints of those that are removed are not asked for.
fn patch_clusters(
    patches: &Patches<'_>,
    is_router: bool,
    out: &mut Output,
    hosts_behind: impl Fn(u32) -> Vec<String>,
) {
    if patches.is_empty() {
        return;
    }
    patches.clusters(&mut out.clusters, is_router, hosts_behind);
    let asked: BTreeSet<&str> = out
        .clusters
        .values()
        .map(|cluster| match &cluster.eds_cluster_config {
            Some(eds) if !eds.service_name.is_empty() => eds.service_name.as_str(),
            _ => cluster.name.as_str(),
        })
        .collect();
    out.endpoints
        .retain(|name, _| asked.contains(name.as_str()));
}

fn build_router(
    context: &Context<'_>,
    patches: &Patches<'_>,
    out: &mut Output,
    made: &mut Made,
    wanted: &Wanted<'_>,
) {
    let merged = MergedServers::new(context);
    service_clusters(context, out, false, &mut made.by_host, wanted.clusters_of);
    made.auto_passthrough = merged.auto_passthrough;
    if merged.auto_passthrough {
        service_clusters(context, out, true, &mut made.by_host, wanted.clusters_of);
    }
    if wanted.listeners_as_in.is_none() {
        add_clusters(out, [passthrough::black_hole(context)]);
        patch_clusters(patches, true, out, |_| Vec::new());
        let listeners = patches.listeners(
            ListenerClass::Gateway,
            listener::gateway::listeners(context, &merged),
        );
        made.listeners = listeners
            .iter()
            .map(|listener| listener.name.clone())
            .collect();
        out.listeners.extend(
            listeners
                .into_iter()
                .map(|listener| (listener.name.clone(), listener)),
        );
    }
    let mut ports = GatewayPorts::new();
    for server in merged.listeners.values().flatten() {
        ports
            .entry(server.bound_port)
            .or_default()
            .insert(server.declared_port());
    }
    let route_patches = patches.routes(ListenerClass::Gateway, &ports);
    let bound = wanted
        .listeners_as_in
        .map_or(&made.listeners, |before| &before.listeners);
    let asked = (!patches.is_empty()).then(|| envoy_filter::route_names(out.listeners.values()));
    for (name, servers) in merged.by_route_name() {
        if asked.as_ref().is_some_and(|asked| !asked.contains(name)) {
            continue;
        }
        let served = servers.iter().any(|server| {
            let bind = if server.server.bind.is_empty() {
                "0.0.0.0"
            } else {
                &server.server.bind
            };
            bound.contains(crate::names::listener(bind, server.bound_port).as_str())
        });
        if served {
            let mut routes = route::gateway::configuration_of(context, name, &servers);
            route_patches.apply(&mut routes);
            out.routes.insert(name.to_owned(), routes);
        }
    }
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
            .filter(|name| !name.is_empty() && name.as_str() != "builtin://")
        {
            out.insert(crate::cluster::tls::credential(name).name);
            if matches!(
                tls.mode,
                ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            ) {
                out.insert(crate::cluster::tls::credential(&format!("{name}-cacert")).name);
            }
        }
    }
    out
}

/// Clusters and load assignments of the hosts (in lower case) that are wanted.
pub(crate) fn service_clusters(
    context: &Context<'_>,
    out: &mut Output,
    sni_forwarding: bool,
    by_host: &mut ByHost,
    wanted: impl Fn(&str) -> bool,
) {
    for service in &context.scope.services {
        if service.resolution == Resolution::Alias || sni_forwarding && service.mesh_external {
            continue;
        }
        let host = service.host.to_ascii_lowercase();
        if !wanted(&host) {
            continue;
        }
        let rule = context.snapshot.destination_rules.outbound(
            context.proxy,
            &service.host,
            &service.namespace,
        );
        let (mut clusters, mut endpoints) = (Vec::new(), Vec::new());
        context.clusters_of(service, || {
            for port in outbound::ports(service) {
                let source = ServiceCluster {
                    service,
                    port,
                    rule: rule.map(AsRef::as_ref),
                    sni_forwarding,
                };
                outbound::clusters(context, &source, &mut clusters, &mut endpoints);
            }
        });
        let names = by_host.entry(host).or_default();
        names
            .0
            .extend(clusters.iter().map(|cluster| cluster.name.clone()));
        add_clusters(out, clusters);
        for assignment in endpoints {
            names.1.insert(assignment.cluster_name.clone());
            out.endpoints
                .entry(assignment.cluster_name.clone())
                .or_insert(assignment);
        }
    }
}

/// The first cluster of a name stays.
fn add_clusters(out: &mut Output, clusters: impl IntoIterator<Item = Cluster>) {
    for cluster in clusters {
        out.clusters.entry(cluster.name.clone()).or_insert(cluster);
    }
}
