//! Services and endpoints of Kubernetes clusters.

use super::{
    Endpoint, Health, Resolution, Service, ServiceKey, ServicePort, TRAFFIC_DISTRIBUTION,
    TargetPort, TrafficDistribution, UNSPECIFIED,
};
use crate::objects::{Labels, at, identity, items, labels, selects, text};
use crate::protocol::Protocol;
use crate::snapshot::ClusterObjects;
use crate::visibility::Visibility;
use crate::{Locality, Problem};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const NETWORK_LABEL: &str = "topology.istio.io/network";

/// A pod as far as the registry needs it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ip: String,
    pub(crate) labels: Arc<Labels>,
    pub(crate) service_account: String,
    pub(crate) node: String,
    pub(crate) workload: String,
    pub(crate) ready: bool,
    /// Named container ports.
    pub(crate) ports: BTreeMap<String, u32>,
}

/// One cluster, read once.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) pods: Vec<Arc<Pod>>,
    pods_by_ip: HashMap<String, usize>,
    pods_by_name: HashMap<(String, String), usize>,
    nodes: HashMap<String, Locality>,
    /// Namespaces that say something about their services.
    pub(crate) namespaces: HashMap<String, Namespace>,
    /// Network by MeshNetworks and by the label of the system namespace.
    pub(crate) network: String,
    pub(crate) services: Vec<Arc<Service>>,
    /// The Service objects, in their order.
    pub(crate) service_objects: Vec<Arc<Value>>,
    /// The Ingress and IngressClass objects.
    pub(crate) ingress_objects: Vec<Arc<Value>>,
    pub(crate) problems: Vec<Problem>,
    settings: Settings,
    /// What was read, by the address of the object, which is kept so that no other takes its place.
    read: HashMap<usize, (Arc<Value>, Parsed)>,
}

/// What of the mesh counts when objects are read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) system_namespace: String,
    /// Domain of services.
    pub(crate) domain: String,
    pub(crate) trust_domain: String,
    /// `exportTo` of services that have none.
    pub(crate) export_to: Vec<String>,
    /// Whether labels of namespaces say something about their services.
    pub(crate) reads_namespace_labels: bool,
}

/// What a namespace says about its services.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Namespace {
    pub(crate) traffic_distribution: Option<String>,
    /// Read only where they count ([`Settings::reads_namespace_labels`]).
    pub(crate) labels: Labels,
}

/// What an object was read as.
#[derive(Debug, Clone)]
enum Parsed {
    Pod(Option<Arc<Pod>>),
    Service(Option<Arc<Service>>),
}

impl Cluster {
    /// Reads a cluster. Objects that `before` has read as well, at the same address, are not read again.
    pub(crate) fn read(input: &ClusterObjects, settings: &Settings, before: Option<&Self>) -> Self {
        let namespaces = namespaces(input, settings);
        let before = before.filter(|before| {
            before.id == input.id && before.settings == *settings && before.namespaces == namespaces
        });
        let mut cluster = Self {
            id: input.id.clone(),
            network: input.network.clone().unwrap_or_default(),
            settings: settings.clone(),
            namespaces,
            ..Self::default()
        };
        for object in &input.objects {
            match text(object, &["kind"]) {
                "Namespace" => cluster.read_namespace(object),
                "Node" => {
                    let labels = labels(object, &["metadata", "labels"]);
                    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
                    let locality = Locality {
                        region: label("topology.kubernetes.io/region"),
                        zone: label("topology.kubernetes.io/zone"),
                        subzone: label("topology.istio.io/subzone"),
                    };
                    cluster
                        .nodes
                        .insert(text(object, &["metadata", "name"]).to_owned(), locality);
                }
                "Pod" | "Service" => cluster.read_once(object, before),
                "Ingress" | "IngressClass" => cluster.ingress_objects.push(object.clone()),
                _ => {}
            }
        }
        cluster
    }

    fn read_once(&mut self, object: &Arc<Value>, before: Option<&Self>) {
        let address = Arc::as_ptr(object) as usize;
        let known = before.and_then(|before| before.read.get(&address));
        let parsed = known.map_or_else(
            || {
                if text(object, &["kind"]) == "Pod" {
                    Parsed::Pod(pod(object).map(Arc::new))
                } else {
                    Parsed::Service(
                        service(object, &self.id, &self.settings, &self.namespaces).map(Arc::new),
                    )
                }
            },
            |(_, parsed)| parsed.clone(),
        );
        match &parsed {
            Parsed::Pod(Some(pod)) => {
                let index = self.pods.len();
                self.pods_by_ip.insert(pod.ip.clone(), index);
                self.pods_by_name
                    .insert((pod.namespace.clone(), pod.name.clone()), index);
                self.pods.push(pod.clone());
            }
            Parsed::Pod(None) => {}
            Parsed::Service(found) => {
                self.service_objects.push(object.clone());
                match found {
                    Some(service) => self.services.push(service.clone()),
                    None => self.problems.push(Problem::new(
                        identity(object),
                        "metadata",
                        "has no name or namespace and is ignored",
                    )),
                }
            }
        }
        self.read.insert(address, (object.clone(), parsed));
    }

    fn read_namespace(&mut self, object: &Value) {
        let labels = labels(object, &["metadata", "labels"]);
        let name = text(object, &["metadata", "name"]);
        if name == self.settings.system_namespace
            && let Some(network) = labels.get(NETWORK_LABEL)
        {
            self.network = network.clone();
        }
    }

    pub(crate) fn pod_by_ip(&self, ip: &str) -> Option<&Arc<Pod>> {
        self.pods_by_ip.get(ip).map(|index| &self.pods[*index])
    }

    /// `region/zone/subzone` of a pod.
    fn locality_of(&self, pod: &Pod) -> String {
        if let Some(text) = pod.labels.get("istio-locality") {
            return text.replace('.', "/");
        }
        match self.nodes.get(&pod.node) {
            Some(place) if !place.is_empty() => {
                format!("{}/{}/{}", place.region, place.zone, place.subzone)
            }
            _ => String::new(),
        }
    }

    fn network_of(&self, labels: &Labels) -> String {
        labels
            .get(NETWORK_LABEL)
            .filter(|network| !network.is_empty())
            .unwrap_or(&self.network)
            .clone()
    }

    /// The endpoint that a pod is for a port.
    pub(crate) fn endpoint_of_pod(
        &self,
        pod: &Pod,
        port: u32,
        port_name: &str,
        health: Health,
    ) -> Endpoint {
        let locality_text = self.locality_of(pod);
        Endpoint {
            address: pod.ip.clone(),
            port,
            port_name: port_name.to_owned(),
            network: self.network_of(&pod.labels),
            mtls: pod
                .labels
                .get("security.istio.io/tlsMode")
                .is_some_and(|mode| mode == "istio"),
            labels: pod.labels.clone(),
            namespace: pod.namespace.clone(),
            cluster: self.id.clone(),
            locality: Locality::parse(&locality_text),
            locality_text,
            weight: 0,
            service_account: pod.service_account.clone(),
            workload: pod.workload.clone(),
            node: pod.node.clone(),
            health,
            of_entry: false,
        }
    }

    /// Endpoints from EndpointSlices, by host and namespace of their service.
    pub(crate) fn endpoints(
        &self,
        input: &ClusterObjects,
        domain: &str,
    ) -> Vec<(ServiceKey, Endpoint)> {
        let mut slices: Vec<&Value> = input
            .objects
            .iter()
            .map(AsRef::as_ref)
            .filter(|object| text(object, &["kind"]) == "EndpointSlice")
            .collect();
        slices.sort_by_key(|slice| {
            (
                text(slice, &["metadata", "namespace"]),
                text(slice, &["metadata", "name"]),
            )
        });
        let keeping = self
            .services
            .iter()
            .filter(|service| service.keeps_draining());
        let draining: BTreeSet<&String> = keeping.map(|service| &service.host).collect();
        let mut seen: BTreeSet<(ServiceKey, String, String)> = BTreeSet::new();
        let mut out = Vec::new();
        for slice in slices {
            let namespace = text(slice, &["metadata", "namespace"]);
            let labels = at(slice, &["metadata", "labels"]);
            let service = labels
                .map(|labels| text(labels, &["kubernetes.io/service-name"]))
                .unwrap_or_default();
            if service.is_empty() || text(slice, &["addressType"]) == "FQDN" {
                continue;
            }
            let key = (
                format!("{service}.{namespace}.svc.{domain}"),
                namespace.to_owned(),
            );
            for endpoint in items(slice, &["endpoints"]) {
                let condition =
                    |name: &str| at(endpoint, &["conditions", name]).and_then(Value::as_bool);
                // What is not said of an endpoint that is not ready counts as true.
                let leaving = condition("terminating") != Some(false);
                let health = match condition("ready") {
                    None | Some(true) => Health::Healthy,
                    Some(false)
                        if leaving
                            && condition("serving") != Some(false)
                            && draining.contains(&key.0) =>
                    {
                        Health::Draining
                    }
                    Some(false) if leaving => continue,
                    Some(false) => Health::Unhealthy,
                };
                for address in items(endpoint, &["addresses"]).filter_map(Value::as_str) {
                    for port in items(slice, &["ports"]) {
                        let name = text(port, &["name"]);
                        let Some(number) = at(port, &["port"]).and_then(Value::as_u64) else {
                            continue;
                        };
                        if seen.insert((key.clone(), address.to_owned(), name.to_owned())) {
                            let found = self.endpoint(
                                endpoint,
                                namespace,
                                address,
                                number as u32,
                                name,
                                health,
                            );
                            out.extend(found.map(|found| (key.clone(), found)));
                        }
                    }
                }
            }
        }
        out
    }

    /// `None` while the pod that is meant is not known: then it is waited for.
    fn endpoint(
        &self,
        source: &Value,
        namespace: &str,
        address: &str,
        port: u32,
        port_name: &str,
        health: Health,
    ) -> Option<Endpoint> {
        let pod = match at(source, &["targetRef"]) {
            Some(target) if text(target, &["kind"]) == "Pod" => {
                let target_namespace = Some(text(target, &["namespace"]))
                    .filter(|name| !name.is_empty())
                    .unwrap_or(namespace);
                let key = (
                    target_namespace.to_owned(),
                    text(target, &["name"]).to_owned(),
                );
                Some(&self.pods[*self.pods_by_name.get(&key)?])
            }
            _ => self
                .pod_by_ip(address)
                .filter(|pod| pod.namespace == namespace),
        };
        // Of an address that no pod has, nothing else is known: not even by the node that is named there.
        let Some(pod) = pod.map(AsRef::as_ref) else {
            return Some(Endpoint {
                address: address.to_owned(),
                port,
                port_name: port_name.to_owned(),
                labels: Arc::default(),
                namespace: String::new(),
                network: self.network.clone(),
                cluster: self.id.clone(),
                locality: Locality::default(),
                locality_text: String::new(),
                weight: 0,
                mtls: false,
                service_account: String::new(),
                workload: String::new(),
                node: String::new(),
                health,
                of_entry: false,
            });
        };
        Some(Endpoint {
            address: address.to_owned(),
            ..self.endpoint_of_pod(pod, port, port_name, health)
        })
    }

    /// The target port of a service port on one of its pods.
    pub(crate) fn target_port(port: &ServicePort, pod: Option<&Pod>) -> u32 {
        match &port.target {
            TargetPort::Same => port.number,
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => pod
                .and_then(|pod| pod.ports.get(name))
                .copied()
                .unwrap_or(port.number),
        }
    }

    /// Services of this cluster that select a pod.
    pub(crate) fn services_of_pod<'a>(
        &'a self,
        pod: &'a Pod,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services.iter().filter(move |service| {
            service.namespace == pod.namespace
                && !service.selector.is_empty()
                && selects(&service.selector, &pod.labels)
        })
    }
}

/// Namespaces that say something about their services.
fn namespaces(input: &ClusterObjects, settings: &Settings) -> HashMap<String, Namespace> {
    let namespaces = input
        .objects
        .iter()
        .filter(|object| text(object, &["kind"]) == "Namespace")
        .filter(|object| text(object, &["metadata", "namespace"]).is_empty());
    namespaces
        .filter_map(|object| {
            let mut annotations = labels(object, &["metadata", "annotations"]);
            let mut own = Namespace {
                traffic_distribution: annotations.remove(TRAFFIC_DISTRIBUTION),
                ..Namespace::default()
            };
            if settings.reads_namespace_labels {
                own.labels = labels(object, &["metadata", "labels"]);
            }
            let name = text(object, &["metadata", "name"]).to_owned();
            (own != Namespace::default()).then_some((name, own))
        })
        .collect()
}

/// The name of what a pod belongs to: its Deployment, its CronJob, its other owner, or itself.
fn workload_name(pod: &Value) -> String {
    let name = text(pod, &["metadata", "name"]);
    let Some(owner) = items(pod, &["metadata", "ownerReferences"]).find(|owner| {
        at(owner, &["controller"])
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }) else {
        return name.to_owned();
    };
    let owner_name = text(owner, &["name"]);
    match text(owner, &["kind"]) {
        "ReplicaSet" => {
            let hash = at(pod, &["metadata", "labels"])
                .map(|labels| text(labels, &["pod-template-hash"]))
                .unwrap_or_default();
            match owner_name
                .strip_suffix(hash)
                .and_then(|rest| rest.strip_suffix('-'))
            {
                Some(deployment) if !hash.is_empty() => deployment.to_owned(),
                _ => owner_name.to_owned(),
            }
        }
        "Job" => match owner_name.rsplit_once('-') {
            Some((cron_job, time))
                if time.len() >= 8 && time.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                cron_job.to_owned()
            }
            _ => owner_name.to_owned(),
        },
        _ => owner_name.to_owned(),
    }
}

/// A pod that can be an endpoint; `None` if it has ended or has no address.
fn pod(object: &Value) -> Option<Pod> {
    let phase = text(object, &["status", "phase"]);
    let ip = text(object, &["status", "podIP"]).to_owned();
    if matches!(phase, "Succeeded" | "Failed") || ip.is_empty() {
        return None;
    }
    let ready = items(object, &["status", "conditions"]).any(|condition| {
        text(condition, &["type"]) == "Ready" && text(condition, &["status"]) == "True"
    });
    let mut ports = BTreeMap::new();
    let containers =
        items(object, &["spec", "containers"]).chain(items(object, &["spec", "initContainers"]));
    for port in containers.flat_map(|container| items(container, &["ports"])) {
        if let Some(number) = at(port, &["containerPort"]).and_then(Value::as_u64) {
            ports
                .entry(text(port, &["name"]).to_owned())
                .or_insert(number as u32);
        }
    }
    Some(Pod {
        name: text(object, &["metadata", "name"]).to_owned(),
        namespace: text(object, &["metadata", "namespace"]).to_owned(),
        workload: workload_name(object),
        ip,
        labels: Arc::new(labels(object, &["metadata", "labels"])),
        service_account: text(object, &["spec", "serviceAccountName"]).to_owned(),
        node: text(object, &["spec", "nodeName"]).to_owned(),
        ready,
        ports,
    })
}

fn service(
    object: &Value,
    cluster: &str,
    settings: &Settings,
    namespaces: &HashMap<String, Namespace>,
) -> Option<Service> {
    let Settings {
        domain,
        trust_domain,
        ..
    } = settings;
    let name = text(object, &["metadata", "name"]);
    let namespace = text(object, &["metadata", "namespace"]);
    if name.is_empty() || namespace.is_empty() {
        return None;
    }
    let annotations = labels(object, &["metadata", "annotations"]);
    let kind = text(object, &["spec", "type"]);
    let mut vips: Vec<String> = items(object, &["spec", "clusterIPs"])
        .filter_map(|ip| Some(ip.as_str()?.to_owned()))
        .collect();
    let main = text(object, &["spec", "clusterIP"]);
    if vips.is_empty() && !main.is_empty() {
        vips.push(main.to_owned());
    }
    vips.retain(|ip| ip != "None" && !ip.is_empty());
    let external_name =
        (kind == "ExternalName").then(|| text(object, &["spec", "externalName"]).to_owned());
    let resolution = match (&external_name, main) {
        (Some(_), _) => Resolution::Alias,
        (None, "None") => Resolution::Passthrough,
        (None, _) => Resolution::Static,
    };
    let ports = items(object, &["spec", "ports"]).filter_map(port).collect();
    let mut accounts = BTreeSet::new();
    let list = |key: &str| -> Vec<String> {
        annotations
            .get(key)
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    accounts.extend(list("alpha.istio.io/canonical-serviceaccounts"));
    for account in list("alpha.istio.io/kubernetes-serviceaccounts") {
        accounts.insert(format!(
            "spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
        ));
    }
    let export_to = list("networking.istio.io/exportTo")
        .into_iter()
        .map(|entry| entry.trim().to_owned())
        .collect::<Vec<_>>();
    let mut cluster_vips = BTreeMap::new();
    if !vips.is_empty() {
        cluster_vips.insert(cluster.to_owned(), vips.clone());
    }
    Some(Service {
        host: format!("{name}.{namespace}.svc.{domain}"),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        created: text(object, &["metadata", "creationTimestamp"]).to_owned(),
        kubernetes: true,
        mesh_external: false,
        ports,
        address: vips
            .into_iter()
            .next()
            .unwrap_or_else(|| UNSPECIFIED.to_owned()),
        cluster_vips,
        auto_address: None,
        resolution,
        visibility: Visibility::new(&export_to, namespace, &settings.export_to),
        selector: labels(object, &["spec", "selector"]),
        labels: labels(object, &["metadata", "labels"]),
        accounts,
        external_name,
        aliases: Vec::new(),
        node_local: text(object, &["spec", "internalTrafficPolicy"]) == "Local",
        traffic_distribution: TrafficDistribution::of(
            text(object, &["spec", "trafficDistribution"]),
            annotations.get(TRAFFIC_DISTRIBUTION),
            namespaces
                .get(namespace)
                .and_then(|own| own.traffic_distribution.as_ref()),
        ),
        races_connections: false,
        selects_workloads: false,
    })
}

fn port(port: &Value) -> Option<ServicePort> {
    let number = at(port, &["port"])?.as_u64()? as u32;
    let name = text(port, &["name"]);
    let transport = Some(text(port, &["protocol"]))
        .filter(|protocol| !protocol.is_empty())
        .unwrap_or("TCP");
    let app_protocol = at(port, &["appProtocol"]).and_then(Value::as_str);
    let target = match at(port, &["targetPort"]) {
        Some(Value::Number(target)) => target
            .as_u64()
            .filter(|target| *target != 0)
            .map_or(TargetPort::Same, |target| TargetPort::Number(target as u32)),
        Some(Value::String(target)) if !target.is_empty() => target
            .parse()
            .map_or_else(|_| TargetPort::Name(target.clone()), TargetPort::Number),
        _ => TargetPort::Same,
    };
    let protocol = Protocol::of_service_port(number, name, transport, app_protocol);
    Some(ServicePort {
        number,
        name: name.to_owned(),
        protocol,
        target,
    })
}
