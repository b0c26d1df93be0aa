//! The service registry: services, endpoints and network gateways of all clusters and of ServiceEntries.

pub(crate) mod endpoint_index;
pub(crate) mod kubernetes;
pub(crate) mod network;
pub(crate) mod service_entry;

use crate::objects::Labels;
use crate::protocol::Protocol;
use crate::visibility::Visibility;
use crate::{Locality, ProxyInfo};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The address of services that have none.
pub(crate) const UNSPECIFIED: &str = "0.0.0.0";

/// How endpoints of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Known endpoints (EDS).
    Static,
    /// The address the client asked for.
    Passthrough,
    /// DNS, all answers.
    Dns,
    /// DNS, one answer at a time.
    DnsRoundRobin,
    /// DNS for the host of each request.
    DynamicDns,
    /// Another name of a service (ExternalName).
    Alias,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// As written in the Kubernetes service or ServiceEntry.
    pub(crate) target: TargetPort,
}

impl ServicePort {
    /// A port of which only number and name are known.
    pub(crate) fn bare(number: u32, name: &str) -> Self {
        Self {
            number,
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            target: TargetPort::Same,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Same,
    Number(u32),
    Name(String),
}

/// A service, or one address of a ServiceEntry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    /// The name in the registry, with capitals if it was written so.
    pub(crate) host: String,
    /// Short name of a Kubernetes service; for a ServiceEntry the host.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) created: String,
    pub(crate) kubernetes: bool,
    pub(crate) mesh_external: bool,
    pub(crate) ports: Vec<ServicePort>,
    /// `0.0.0.0` if there is none.
    pub(crate) address: String,
    /// Cluster IPs by cluster.
    pub(crate) cluster_vips: BTreeMap<String, Vec<String>>,
    /// Address from the ServiceEntry's status, for proxies that capture DNS.
    pub(crate) auto_address: Option<String>,
    pub(crate) resolution: Resolution,
    pub(crate) visibility: Visibility,
    pub(crate) selector: Labels,
    /// Labels of the object itself.
    pub(crate) labels: Labels,
    /// Accounts from annotations, and SANs of a ServiceEntry.
    pub(crate) accounts: BTreeSet<String>,
    /// Of an ExternalName service: the name that it stands for.
    pub(crate) external_name: Option<String>,
    /// Hosts of ExternalName services that point here.
    pub(crate) aliases: Vec<String>,
    pub(crate) node_local: bool,
    pub(crate) traffic_distribution: TrafficDistribution,
    /// Whether the first of several addresses that answers is taken (annotation `istio.io/connect-strategy`).
    pub(crate) races_connections: bool,
    /// Whether a ServiceEntry has a workloadSelector.
    pub(crate) selects_workloads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TrafficDistribution {
    #[default]
    Any,
    PreferClose,
    PreferSameNode,
}

impl TrafficDistribution {
    /// The field of a service if it is known, else the annotation of the object, else that of its namespace.
    pub(crate) fn of(field: &str, own: Option<&String>, namespace: Option<&String>) -> Self {
        match field {
            "PreferClose" | "PreferSameZone" => return Self::PreferClose,
            "PreferSameNode" => return Self::PreferSameNode,
            _ => {}
        }
        let annotation = [own, namespace]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty());
        match annotation.map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("preferclose" | "prefersamezone") => Self::PreferClose,
            Some("prefersamenode") => Self::PreferSameNode,
            _ => Self::Any,
        }
    }
}

/// The annotation that says which endpoints are preferred, of services, ServiceEntries and namespaces.
pub(crate) const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// Whether the annotations ask for the first address that answers.
pub(crate) fn races_connections(annotations: &Labels) -> bool {
    annotations
        .get("istio.io/connect-strategy")
        .is_some_and(|text| text.eq_ignore_ascii_case("RACE_FIRST_TCP_CONNECT"))
}

impl Service {
    pub(crate) fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Addresses for a proxy, the main one first: those that it can reach, of IPv4 or IPv6 as it has itself. None if the service has
    /// addresses in Kubernetes, of the other kind only.
    pub(crate) fn addresses_for(&self, proxy: &ProxyInfo) -> Vec<&str> {
        let own = self.vips_for(proxy);
        if !own.is_empty() {
            return own;
        }
        if !self.cluster_vips.is_empty() && !proxy.speaks(&self.address) {
            return Vec::new();
        }
        vec![self.address_without_vips(proxy)]
    }

    /// The main address for a proxy. Where there is none that it can reach, one that it cannot.
    pub(crate) fn address_for(&self, proxy: &ProxyInfo) -> &str {
        let own = self.vips_for(proxy);
        let first = own.first().copied();
        first.unwrap_or_else(|| self.address_without_vips(proxy))
    }

    fn vips_for(&self, proxy: &ProxyInfo) -> Vec<&str> {
        let vips = self.cluster_vips.get(&proxy.cluster).into_iter().flatten();
        vips.map(String::as_str)
            .filter(|address| proxy.speaks(address))
            .collect()
    }

    fn address_without_vips(&self, proxy: &ProxyInfo) -> &str {
        match &self.auto_address {
            Some(auto) if proxy.dns_capture && self.address == UNSPECIFIED => auto,
            _ => &self.address,
        }
    }

    /// A Kubernetes service without an address of its own, or a ServiceEntry without resolution.
    pub(crate) fn is_headless(&self) -> bool {
        self.resolution == Resolution::Passthrough
    }

    /// Whether sessions stay with endpoints that are going away.
    pub(crate) fn keeps_draining(&self) -> bool {
        [
            "istio.io/persistent-session",
            "istio.io/persistent-session-header",
        ]
        .iter()
        .any(|label| {
            self.labels
                .get(*label)
                .is_some_and(|value| !value.is_empty())
        })
    }

    pub(crate) fn key(&self) -> ServiceKey {
        (self.host.clone(), self.namespace.clone())
    }
}

/// Host and namespace.
pub(crate) type ServiceKey = (String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not said in EDS.
    Unset,
    Healthy,
    Unhealthy,
    /// On its way out, but still there for the sessions that it has.
    Draining,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) port_name: String,
    pub(crate) labels: Arc<Labels>,
    pub(crate) namespace: String,
    pub(crate) network: String,
    pub(crate) cluster: String,
    pub(crate) locality: Locality,
    /// The locality as it was written: what is written differently is a group of its own.
    pub(crate) locality_text: String,
    /// 0 counts as 1.
    pub(crate) weight: u32,
    /// Whether it has a sidecar.
    pub(crate) mtls: bool,
    pub(crate) service_account: String,
    pub(crate) workload: String,
    pub(crate) node: String,
    pub(crate) health: Health,
    /// Whether a ServiceEntry says that it is there, not Kubernetes.
    pub(crate) of_entry: bool,
}

impl Endpoint {
    pub(crate) fn weight(&self) -> u32 {
        self.weight.max(1)
    }

    /// Whether it is on its way out, also by its label.
    pub(crate) fn is_draining(&self) -> bool {
        let labelled = self.labels.get("istio.io/draining");
        self.health == Health::Draining || labelled.is_some_and(|value| !value.is_empty())
    }

    /// `workload;namespace;canonical name;canonical revision;cluster`, for telemetry.
    pub(crate) fn workload_metadata(&self) -> String {
        let name = canonical_name(&self.labels, &self.workload);
        let revision = canonical_revision(&self.labels);
        let revision = if revision == "latest" { "" } else { revision };
        format!(
            "{};{};{name};{revision};{}",
            self.workload, self.namespace, self.cluster
        )
    }

    /// A label, also those that come from the topology.
    pub(crate) fn label(&self, key: &str) -> &str {
        match key {
            "topology.kubernetes.io/region" => &self.locality.region,
            "topology.kubernetes.io/zone" => &self.locality.zone,
            "topology.istio.io/subzone" => &self.locality.subzone,
            "topology.istio.io/cluster" => &self.cluster,
            "topology.istio.io/network" => &self.network,
            "kubernetes.io/hostname" if !self.node.is_empty() => &self.node,
            _ => self.labels.get(key).map(String::as_str).unwrap_or_default(),
        }
    }

    pub(crate) fn has_labels(&self, selector: &Labels) -> bool {
        selector.iter().all(|(key, value)| self.label(key) == value)
    }
}

/// The canonical service of a workload.
pub(crate) fn canonical_name<'a>(labels: &'a Labels, workload: &'a str) -> &'a str {
    [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ]
    .iter()
    .find_map(|key| labels.get(*key))
    .map_or(workload, String::as_str)
}

/// The canonical revision of a workload.
pub(crate) fn canonical_revision(labels: &Labels) -> &str {
    [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ]
    .iter()
    .find_map(|key| labels.get(*key))
    .map_or("latest", String::as_str)
}

/// Everything that is known about services, apart from their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Oldest first, then by name, then by namespace.
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) gateways: network::NetworkGateways,
    by_host: HashMap<String, Vec<usize>>,
}

impl Registry {
    pub(crate) fn new(mut services: Vec<Service>, gateways: network::NetworkGateways) -> Self {
        services.sort_by(|a, b| {
            (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace))
        });
        resolve_aliases(&mut services);
        let services: Vec<Arc<Service>> = services.into_iter().map(Arc::new).collect();
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            by_host
                .entry(service.host.to_ascii_lowercase())
                .or_default()
                .push(index);
        }
        Self {
            services,
            gateways,
            by_host,
        }
    }

    /// All services of a host, oldest first; the case of the host does not matter.
    pub(crate) fn services_of(&self, host: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host
            .get(&host.to_ascii_lowercase())
            .into_iter()
            .flatten()
            .map(|index| &self.services[*index])
    }
}

/// ExternalName services become further names of the service they point to, also through other ExternalName services.
fn resolve_aliases(services: &mut [Service]) {
    let targets: HashMap<String, String> = services
        .iter()
        .filter_map(|service| Some((service.host.clone(), service.external_name.clone()?)))
        .collect();
    let concrete: HashMap<String, usize> = services
        .iter()
        .enumerate()
        .filter(|(_, service)| service.external_name.is_none())
        .map(|(index, service)| (service.host.clone(), index))
        .collect();
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for start in targets.keys() {
        let mut current = start;
        for _ in 0..10 {
            let Some(next) = targets.get(current) else {
                break;
            };
            if let Some(index) = concrete.get(next) {
                found.entry(*index).or_default().push(start.clone());
                break;
            }
            current = next;
        }
    }
    for (index, mut aliases) in found {
        aliases.sort();
        services[index].aliases = aliases;
    }
}
