//! Everything a control plane knows at one moment, indexed once so that building many proxies is cheap.

use crate::destination_rule::DestinationRules;
use crate::envoy_filter::{self, EnvoyFilterPatches};
use crate::objects::{Config, identity, items, selects, text, typed};
use crate::peer_authentication::PeerPolicies;
use crate::registry::endpoint_index::{EndpointChanges, EndpointIndex};
use crate::registry::kubernetes::{Cluster, Namespace, Settings};
use crate::registry::{Endpoint, Registry, Service, ServiceKey, network, service_entry};
use crate::virtual_service::{VirtualServiceConfig, prepare};
use crate::{Problem, ProxyInfo, discovery, host};
use api::istio::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, ExtensionProvider, Gateway, MeshConfig,
    MeshNetworks, PeerAuthentication, RequestAuthentication, ServiceEntry, Sidecar, Telemetry,
    VirtualService, WorkloadEntry,
};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

/// The Kubernetes objects of one cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterObjects {
    /// The id of the cluster.
    pub id: String,
    /// Its network, if it is not known from MeshNetworks or from the label of the system namespace.
    pub network: Option<String>,
    /// Namespaces, Nodes, Pods, Services, EndpointSlices, and of the config cluster Ingresses and IngressClasses (in any order); others
    /// are skipped.
    pub objects: Vec<Arc<Value>>,
}

/// What a [`Snapshot`] is made from.
#[derive(Debug, Clone, Default)]
pub struct SnapshotInput {
    /// The cluster whose istiod this is: its services come first, and the Istio configuration is its own.
    pub config_cluster: String,
    /// All clusters that are read.
    pub clusters: Vec<ClusterObjects>,
    /// Istio objects of the config cluster.
    pub config: Vec<Arc<Value>>,
    /// The settings of the mesh.
    pub mesh: MeshConfig,
    /// The networks of the mesh.
    pub networks: MeshNetworks,
    /// Key sets that were fetched, by `jwksUri`; for an issuer without one by the issuer. Where one is missing, no token of
    /// that issuer is accepted.
    pub jwks: BTreeMap<String, String>,
    /// Domain of Kubernetes services; empty means `cluster.local`.
    pub domain: String,
}

/// Everything a control plane knows at one moment.
///
/// What does not depend on pods and endpoints is shared between the snapshots that [`Snapshot::next`] makes one of another, as long as it
/// stays the same.
#[derive(Debug)]
pub struct Snapshot {
    settled: Arc<Settled>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) endpoints: EndpointIndex,
    /// Share of traced requests where nothing else says, in percent (istiod's PILOT_TRACE_SAMPLING).
    pub(crate) trace_sampling: f64,
    problems: Vec<Problem>,
}

/// What differs between two snapshots of the same services.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) endpoints: EndpointChanges,
    pub(crate) routing: RoutingChanges,
}

/// Which objects of the kinds in [`ROUTING`] differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoutingChanges {
    None,
    /// VirtualServices with rules for HTTP only, of which listeners know nothing.
    HttpRoutes,
    Any,
}

/// The part of a snapshot that does not depend on pods and endpoints.
#[derive(Debug)]
pub struct Settled {
    pub(crate) domain: String,
    pub(crate) mesh: MeshConfig,
    pub(crate) registry: Registry,
    pub(crate) virtual_services: Vec<Arc<VirtualServiceConfig>>,
    pub(crate) destination_rules: DestinationRules,
    pub(crate) gateways: Vec<Config<Gateway>>,
    pub(crate) sidecars: Vec<Config<Sidecar>>,
    pub(crate) peer_policies: PeerPolicies,
    pub(crate) request_authentications: Vec<Config<RequestAuthentication>>,
    pub(crate) authorization_policies: Vec<Config<AuthorizationPolicy>>,
    pub(crate) telemetries: Vec<Config<Telemetry>>,
    pub(crate) envoy_filters: Vec<EnvoyFilterPatches>,
    service_entries: Vec<Config<ServiceEntry>>,
    workload_entries: Vec<Config<WorkloadEntry>>,
    jwks: BTreeMap<String, String>,
    problems: Vec<Problem>,
    source: Source,
}

impl Deref for Snapshot {
    type Target = Settled;

    fn deref(&self) -> &Settled {
        &self.settled
    }
}

/// What [`Settled`] is made from, to tell whether it would be the same again.
#[derive(Debug)]
struct Source {
    config_cluster: String,
    domain: String,
    config: Vec<Arc<Value>>,
    mesh: MeshConfig,
    networks: MeshNetworks,
    jwks: BTreeMap<String, String>,
    /// Id and Service objects of each cluster.
    clusters: Vec<(String, Vec<Arc<Value>>)>,
    /// Ingress and IngressClass objects of the config cluster.
    ingresses: Vec<Arc<Value>>,
    /// What namespaces of each cluster say about their services.
    namespaces: Vec<HashMap<String, Namespace>>,
}

/// Kinds that say where requests go and who may send them, but not which services there are. Without a Sidecar object, the
/// clusters of a service depend on none of them but its DestinationRule.
const ROUTING: [&str; 4] = [
    "VirtualService",
    "DestinationRule",
    "AuthorizationPolicy",
    "RequestAuthentication",
];

impl Source {
    /// Objects are the same when they are the same in memory: what a watch has not changed.
    fn is_same(&self, other: &Self) -> bool {
        self.is_same_apart_from(&[], other)
    }

    /// Whether both have the same objects, those of some kinds of Istio's left aside.
    fn is_same_apart_from(&self, kinds: &[&str], other: &Self) -> bool {
        fn same<'a>(
            a: impl Iterator<Item = &'a Arc<Value>>,
            b: impl Iterator<Item = &'a Arc<Value>>,
        ) -> bool {
            a.map(Arc::as_ptr).eq(b.map(Arc::as_ptr))
        }
        let counts = |object: &&Arc<Value>| !kinds.contains(&text(object, &["kind"]));
        self.config_cluster == other.config_cluster
            && self.domain == other.domain
            && same(
                self.config.iter().filter(counts),
                other.config.iter().filter(counts),
            )
            && same(self.ingresses.iter(), other.ingresses.iter())
            && self.clusters.len() == other.clusters.len()
            && self
                .clusters
                .iter()
                .zip(&other.clusters)
                .all(|(a, b)| a.0 == b.0 && same(a.1.iter(), b.1.iter()))
            && self.namespaces == other.namespaces
            && self.mesh == other.mesh
            && self.networks == other.networks
            && self.jwks == other.jwks
    }

    fn routing_changes_since(&self, before: &Self) -> RoutingChanges {
        let pointers = |config: &[Arc<Value>]| config.iter().map(Arc::as_ptr).collect();
        let both: [HashSet<*const Value>; 2] = [pointers(&self.config), pointers(&before.config)];
        let differ = self.config.iter().chain(&before.config).filter(|object| {
            let pointer = Arc::as_ptr(object);
            !both.iter().all(|known| known.contains(&pointer))
        });
        let is_http = |object: &Arc<Value>| {
            let has = |field| items(object, &["spec", field]).next().is_some();
            text(object, &["kind"]) == "VirtualService" && !has("tcp") && !has("tls")
        };
        if differ.clone().all(is_http) {
            RoutingChanges::HttpRoutes
        } else {
            RoutingChanges::Any
        }
    }
}

/// The key set that istiod sends where it could not fetch one: nobody has the private key.
const UNKNOWN_KEYS: &str = r#"{
  "keys": [
    {
      "kty": "RSA",
      "e": "AQAB",
      "n": "0xObjM0UvS_oaazjpEYlAbwctEJ4L8pH3OuTb7qth7gUwqet-EzQB4dgFdvSdMgrLnSncQGRjpEYz3F3viIbH-3EN3TxSlPNviHxeOdyiBVfumN8dMxbLvVJUpfNOnvmMxJcl-8NNjAwcOjk4otSALaYgYYyOPyvKtgVdrQr-FoubWX4yrjxW-MJ2-7OBeepUUNOsVwGV23YX03sVkkyvY3otRflkBcY3_HKpBxJl9wk2GyOShN4_PNUF9-vwfnvOXMbCDX-w4PTef4geeb_GiT40YCKHTKMSPVanGRn5GExIWmki-mmqh94-mPTJyBR74ShspL3BxPZitDL574T1w"
    }
  ]
}"#;

impl Snapshot {
    /// Reads plain objects and indexes them. What cannot be read is left out and becomes a problem.
    pub fn from_objects(input: SnapshotInput) -> Self {
        Self::after(None, input)
    }

    /// The same as [`Snapshot::from_objects`], sharing with this one what has not changed: objects at the same address are the same.
    #[must_use]
    pub fn next(&self, input: SnapshotInput) -> Self {
        Self::after(Some(self), input)
    }

    fn after(before: Option<&Self>, input: SnapshotInput) -> Self {
        let domain = if input.domain.is_empty() {
            "cluster.local".to_owned()
        } else {
            input.domain
        };
        let mut objects = input.clusters;
        for cluster in &mut objects {
            if let Some(network) = network::of_cluster(&input.networks, &cluster.id) {
                cluster.network = Some(network);
            }
        }
        objects.sort_by_key(|cluster| (cluster.id != input.config_cluster, cluster.id.clone()));
        let mut config = input.config;
        discovery::select(
            &input.mesh.discovery_selectors,
            &input.config_cluster,
            &mut objects,
            &mut config,
        );
        let settings = Settings {
            system_namespace: input.mesh.root_namespace().to_owned(),
            domain: domain.clone(),
            trust_domain: input.mesh.trust_domain().to_owned(),
            export_to: input.mesh.default_service_export_to.clone(),
            reads_namespace_labels: input.mesh.service_entry_visibility.is_some(),
        };
        let clusters: Vec<Cluster> = objects
            .iter()
            .map(|cluster| {
                let known = before.and_then(|before| before.cluster(&cluster.id));
                Cluster::read(cluster, &settings, known)
            })
            .collect();
        let own = clusters
            .iter()
            .find(|cluster| cluster.id == input.config_cluster);
        let source = Source {
            ingresses: own.map_or_else(Vec::new, |own| own.ingress_objects.clone()),
            config_cluster: input.config_cluster,
            domain,
            config,
            mesh: input.mesh,
            networks: input.networks,
            jwks: input.jwks,
            clusters: clusters
                .iter()
                .map(|cluster| (cluster.id.clone(), cluster.service_objects.clone()))
                .collect(),
            namespaces: clusters
                .iter()
                .map(|cluster| cluster.namespaces.clone())
                .collect(),
        };
        let settled = match before.filter(|before| before.source.is_same(&source)) {
            Some(before) => before.settled.clone(),
            None => Arc::new(Settled::new(source, &objects, &clusters)),
        };
        let endpoints = EndpointIndex::new(
            &settled.registry,
            settled.all_endpoints(&objects, &clusters),
            settled.mesh.trust_domain(),
            &settled.mesh.trust_domain_aliases,
            before.map(|before| &before.endpoints),
        );
        let mut problems = settled.problems.clone();
        problems.extend(clusters.iter().flat_map(|cluster| cluster.problems.clone()));
        Self {
            settled,
            clusters,
            endpoints,
            trace_sampling: before.map_or(1.0, |before| before.trace_sampling),
            problems,
        }
    }

    /// What differs from an earlier snapshot, if nothing but pods, endpoints and routing does.
    pub(crate) fn changes_since(&self, before: &Self) -> Option<Changes> {
        let settled = Arc::ptr_eq(&self.settled, &before.settled);
        let known = if settled {
            self.problems == before.problems
        } else {
            self.source.is_same_apart_from(&ROUTING, &before.source)
        };
        let same = known && self.trace_sampling.to_bits() == before.trace_sampling.to_bits();
        same.then(|| Changes {
            endpoints: self.endpoints.changes_since(&before.endpoints),
            routing: if settled {
                RoutingChanges::None
            } else {
                self.source.routing_changes_since(&before.source)
            },
        })
    }

    pub(crate) fn cluster(&self, id: &str) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.id == id)
    }

    /// The proxy with the labels that its pod has at this moment.
    pub(crate) fn with_labels_of_pod<'a>(&self, proxy: &'a ProxyInfo) -> Cow<'a, ProxyInfo> {
        let cluster = self.cluster(&proxy.cluster);
        let pod = cluster.and_then(|cluster| cluster.pod_by_ip(proxy.ip()));
        proxy.with_labels_of(pod.map(AsRef::as_ref))
    }

    /// Sets the share of traced requests where nothing else says, in percent; 1 if this is not called.
    #[must_use]
    pub fn with_trace_sampling(mut self, percent: f64) -> Self {
        self.trace_sampling = percent;
        self
    }

    /// What could not be read, whatever the proxy.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The settings of the mesh.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }
}

impl Settled {
    fn new(source: Source, objects: &[ClusterObjects], clusters: &[Cluster]) -> Self {
        let mut problems = Vec::new();
        let mut config = Typed::read(&source.config, &mut problems);
        let own = source
            .clusters
            .iter()
            .find(|(id, _)| *id == source.config_cluster);
        config.add_ingresses(
            &source.ingresses,
            own.map_or(&[], |(_, services)| services),
            &source.mesh,
            &source.domain,
            &mut problems,
        );
        let (domain, mesh) = (source.domain.clone(), source.mesh.clone());
        let root = mesh.root_namespace().to_owned();
        let mut gateways = BTreeSet::new();
        for cluster in objects {
            network::from_services(cluster, &mut gateways);
        }
        network::from_mesh_networks(&source.networks, objects, &domain, &mut gateways);
        let services = all_services(
            clusters,
            &source.config_cluster,
            &config.service_entries,
            &mesh,
        );
        let registry = Registry::new(services, network::NetworkGateways::new(gateways));
        let virtual_services = prepare(
            config.virtual_services,
            &domain,
            &mesh.default_virtual_service_export_to,
            &mut problems,
        );
        let destination_rules = DestinationRules::new(
            config.destination_rules,
            &domain,
            &root,
            &mesh.default_destination_rule_export_to,
        );
        let envoy_filters = envoy_filter::prepare(config.envoy_filters, &mut problems);
        let peer_policies = PeerPolicies::new(config.peer_authentications, &root);
        Self {
            domain,
            registry,
            virtual_services,
            destination_rules,
            gateways: config.gateways,
            sidecars: config.sidecars,
            peer_policies,
            request_authentications: config.request_authentications,
            authorization_policies: config.authorization_policies,
            telemetries: config.telemetries,
            envoy_filters,
            service_entries: config.service_entries,
            workload_entries: config.workload_entries,
            jwks: source.jwks.clone(),
            mesh,
            problems,
            source,
        }
    }

    /// The endpoints of all services: of ServiceEntries, of WorkloadEntries that Kubernetes services select, of each cluster.
    fn all_endpoints(
        &self,
        objects: &[ClusterObjects],
        clusters: &[Cluster],
    ) -> Vec<(ServiceKey, Endpoint)> {
        let config_cluster = &self.source.config_cluster;
        let mut out = Vec::new();
        // Of hosts whose answers are taken one at a time, the oldest entry's endpoint counts, also where several entries have the host.
        let mut taken: HashSet<(ServiceKey, String)> = HashSet::new();
        for entry in &self.service_entries {
            let mut endpoints =
                service_entry::endpoints(entry, &self.workload_entries, clusters, config_cluster);
            let one = entry.spec.resolution == api::istio::Resolution::DnsRoundRobin;
            endpoints.retain(|(key, endpoint)| {
                let new = taken.insert((key.clone(), endpoint.port_name.clone()));
                new || !one
            });
            out.extend(endpoints);
        }
        if let Some(own) = clusters
            .iter()
            .find(|cluster| cluster.id == *config_cluster)
        {
            out.extend(service_entry::of_kubernetes_services(
                &own.services,
                &self.workload_entries,
                config_cluster,
            ));
        }
        let mut ids: Vec<usize> = (0..clusters.len()).collect();
        ids.sort_by_key(|index| &clusters[*index].id);
        for index in ids {
            out.extend(clusters[index].endpoints(&objects[index], &self.domain));
        }
        out
    }

    /// The WorkloadEntries, oldest first.
    pub(crate) fn workload_entries(&self) -> impl Iterator<Item = &Config<WorkloadEntry>> {
        self.workload_entries.iter()
    }

    /// The cluster whose configuration this is.
    pub(crate) fn config_cluster(&self) -> &str {
        &self.source.config_cluster
    }

    /// The fetched key set of a rule that does not hold its own.
    pub(crate) fn jwks_of(&self, rule: &api::istio::JwtRule) -> &str {
        let key = if rule.jwks_uri.is_empty() {
            &rule.issuer
        } else {
            &rule.jwks_uri
        };
        self.jwks.get(key).map_or(UNKNOWN_KEYS, String::as_str)
    }

    pub(crate) fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.mesh
            .extension_providers
            .iter()
            .find(|provider| provider.name == name)
    }

    /// Whether only endpoints of the client's own cluster count for a host.
    pub(crate) fn is_cluster_local(&self, host_name: &str) -> bool {
        let mut best: Option<(&str, bool)> = None;
        let consider = |rule: &'_ str, local: bool| -> Option<bool> {
            if !host::is_wildcard(rule) {
                return (rule == host_name).then_some(local);
            }
            host::matches(rule, host_name).then_some(local)
        };
        let istiod = format!("istiod.{}.svc.{}", self.mesh.root_namespace(), self.domain);
        let defaults = [
            (format!("*.kube-system.svc.{}", self.domain), true),
            (format!("kubernetes.default.svc.{}", self.domain), true),
            (istiod, true),
        ];
        let settings: Vec<(&str, bool)> = self
            .mesh
            .service_settings
            .iter()
            .filter_map(|settings| Some((settings, settings.settings.as_ref()?.cluster_local)))
            .flat_map(|(settings, local)| {
                settings
                    .hosts
                    .iter()
                    .map(move |rule| (rule.as_str(), local))
            })
            .collect();
        // A setting replaces the default of the same host.
        let defaults = defaults
            .iter()
            .filter(|(rule, _)| !settings.iter().any(|(other, _)| other == rule));
        for (rule, local) in defaults
            .map(|(rule, local)| (rule.as_str(), *local))
            .chain(settings.iter().copied())
        {
            let Some(local) = consider(rule, local) else {
                continue;
            };
            let better = best.is_none_or(|(other, _)| host::by_specificity(rule, other).is_le());
            if better {
                best = Some((rule, local));
            }
        }
        best.is_some_and(|(_, local)| local)
    }

    /// Services that a namespace sees, private ones first, then those exported to it, then public ones; each oldest first.
    pub(crate) fn services_visible_to<'a>(&'a self, namespace: &'a str) -> Vec<&'a Arc<Service>> {
        use crate::visibility::Visibility;
        let of = |wanted: fn(&Visibility) -> bool| {
            self.registry.services.iter().filter(move |service| {
                wanted(&service.visibility)
                    && service.visibility.allows(&service.namespace, namespace)
            })
        };
        of(|visibility| *visibility == Visibility::Private)
            .chain(of(|visibility| {
                matches!(visibility, Visibility::Namespaces(_))
            }))
            .chain(of(|visibility| *visibility == Visibility::Public))
            .collect()
    }

    /// VirtualServices that a namespace sees, in the order in which they count.
    pub(crate) fn virtual_services_visible_to<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<VirtualServiceConfig>> {
        use crate::visibility::Visibility;
        let of = move |wanted: fn(&Visibility) -> bool| {
            self.virtual_services.iter().filter(move |config| {
                wanted(&config.visibility) && config.visibility.allows(&config.namespace, namespace)
            })
        };
        of(|visibility| *visibility == Visibility::Private)
            .chain(of(|visibility| {
                matches!(visibility, Visibility::Namespaces(_))
            }))
            .chain(of(|visibility| *visibility == Visibility::Public))
    }
}

/// The services of ServiceEntries and of all clusters. One that several clusters have is as in the first, with the addresses of all.
fn all_services(
    clusters: &[Cluster],
    config_cluster: &str,
    entries: &[Config<ServiceEntry>],
    mesh: &MeshConfig,
) -> Vec<Service> {
    let own = clusters.iter().find(|cluster| cluster.id == config_cluster);
    let namespaces = own.map(|cluster| &cluster.namespaces);
    let mut out: Vec<Service> = entries
        .iter()
        .flat_map(|entry| service_entry::services(entry, mesh, namespaces))
        .collect();
    let mut index: HashMap<String, usize> = HashMap::new();
    for service in clusters.iter().flat_map(|cluster| &cluster.services) {
        match index.get(&service.host) {
            Some(first) => {
                let first = &mut out[*first];
                first.cluster_vips.extend(service.cluster_vips.clone());
                first.accounts.extend(service.accounts.iter().cloned());
            }
            None => {
                index.insert(service.host.clone(), out.len());
                out.push(Service::clone(service));
            }
        }
    }
    out
}

/// Istio objects by kind, oldest first.
#[derive(Default)]
struct Typed {
    virtual_services: Vec<Config<VirtualService>>,
    destination_rules: Vec<Config<DestinationRule>>,
    gateways: Vec<Config<Gateway>>,
    service_entries: Vec<Config<ServiceEntry>>,
    workload_entries: Vec<Config<WorkloadEntry>>,
    sidecars: Vec<Config<Sidecar>>,
    peer_authentications: Vec<Config<PeerAuthentication>>,
    request_authentications: Vec<Config<RequestAuthentication>>,
    authorization_policies: Vec<Config<AuthorizationPolicy>>,
    telemetries: Vec<Config<Telemetry>>,
    envoy_filters: Vec<Config<EnvoyFilter>>,
}

impl Typed {
    fn read(objects: &[Arc<Value>], problems: &mut Vec<Problem>) -> Self {
        let mut out = Self::default();
        // Sorted once by age, so that every list is.
        let mut sorted: Vec<&Arc<Value>> = objects.iter().collect();
        sorted.sort_by_key(|object| {
            (
                text(object, &["metadata", "creationTimestamp"]),
                text(object, &["metadata", "name"]),
                text(object, &["metadata", "namespace"]),
            )
        });
        for object in sorted {
            match text(object, &["kind"]) {
                "VirtualService" => out.virtual_services.extend(typed(object, problems)),
                "DestinationRule" => out.destination_rules.extend(typed(object, problems)),
                "Gateway" if text(object, &["apiVersion"]).starts_with("networking.istio.io") => {
                    out.gateways.extend(typed(object, problems));
                }
                "ServiceEntry" => out.service_entries.extend(typed(object, problems)),
                "WorkloadEntry" => {
                    let entries = typed(object, problems).into_iter();
                    out.workload_entries
                        .extend(entries.filter(service_entry::is_healthy));
                }
                "Sidecar" => out.sidecars.extend(typed(object, problems)),
                "PeerAuthentication" => out.peer_authentications.extend(typed(object, problems)),
                "RequestAuthentication" => {
                    out.request_authentications.extend(typed(object, problems))
                }
                "AuthorizationPolicy" => out.authorization_policies.extend(typed(object, problems)),
                "Telemetry" => out.telemetries.extend(typed(object, problems)),
                "EnvoyFilter" => match text(object, &["apiVersion"]) {
                    "networking.istio.io/v1alpha3" => {
                        out.envoy_filters.extend(typed(object, problems));
                    }
                    version => problems.push(Problem::new(
                        identity(object),
                        "apiVersion",
                        format!(
                            "there is no EnvoyFilter in {version:?}; use networking.istio.io/v1alpha3"
                        ),
                    )),
                },
                _ => {}
            }
        }
        out
    }
}

impl Typed {
    /// Adds what Kubernetes Ingresses come to.
    fn add_ingresses(
        &mut self,
        ingresses: &[Arc<Value>],
        services: &[Arc<Value>],
        mesh: &MeshConfig,
        domain: &str,
        problems: &mut Vec<Problem>,
    ) {
        fn by_age<T>(list: &mut [Config<T>]) {
            list.sort_by(|a, b| {
                let of = |config: &Config<T>| {
                    (
                        config.created.clone(),
                        config.name.clone(),
                        config.namespace.clone(),
                    )
                };
                of(a).cmp(&of(b))
            });
        }
        if ingresses.is_empty() {
            return;
        }
        let (gateways, virtual_services) =
            crate::ingress::convert(ingresses, services, mesh, domain, problems);
        self.gateways.extend(gateways);
        self.virtual_services.extend(virtual_services);
        by_age(&mut self.gateways);
        by_age(&mut self.virtual_services);
    }
}

/// Whether a policy with an optional selector applies to a workload: those of the root namespace to all namespaces.
pub(crate) fn policy_applies(
    policy_namespace: &str,
    selector: Option<&BTreeMap<String, String>>,
    root: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    (policy_namespace == root || policy_namespace == namespace)
        && selector.is_none_or(|selector| selects(selector, labels))
}
