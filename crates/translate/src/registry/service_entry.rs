//! Services and endpoints of ServiceEntries and WorkloadEntries.

use super::kubernetes::{Cluster, Namespace, Pod};
use super::{
    Endpoint, Health, Resolution, Service, ServiceKey, ServicePort, TRAFFIC_DISTRIBUTION,
    TargetPort, TrafficDistribution, UNSPECIFIED, races_connections,
};
use crate::objects::{Config, Labels, selects, text};
use crate::protocol::Protocol;
use crate::visibility::Visibility;
use crate::{Locality, host};
use api::istio::{
    self, Location, MeshConfig, MeshVisibility, ServiceEntry, VisibilityRule, WorkloadEntry,
};
use api::selector::LabelSelector;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The services of a ServiceEntry: one for each host and address.
///
/// `namespaces`: what namespaces of the same cluster say about their services.
pub(crate) fn services(
    entry: &Config<ServiceEntry>,
    mesh: &MeshConfig,
    namespaces: Option<&HashMap<String, Namespace>>,
) -> Vec<Service> {
    let spec = &entry.spec;
    let namespace = namespaces.and_then(|all| all.get(&entry.namespace));
    let visibility = visibility(entry, mesh, namespace);
    let resolution = match spec.resolution {
        istio::Resolution::None => Resolution::Passthrough,
        istio::Resolution::Static => Resolution::Static,
        istio::Resolution::Dns => Resolution::Dns,
        istio::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        istio::Resolution::DynamicDns => Resolution::DynamicDns,
    };
    let ports: Vec<ServicePort> = spec
        .ports
        .iter()
        .map(|port| ServicePort {
            number: port.number,
            name: port.name.clone(),
            protocol: Protocol::parse(&port.protocol),
            target: if port.target_port == 0 {
                TargetPort::Same
            } else {
                TargetPort::Number(port.target_port)
            },
        })
        .collect();
    let addresses = addresses(spec);
    let mut out = Vec::new();
    for name in &spec.hosts {
        for address in &addresses {
            out.push(Service {
                host: name.clone(),
                name: name.clone(),
                namespace: entry.namespace.clone(),
                created: entry.created.clone(),
                kubernetes: false,
                mesh_external: spec.location == Location::MeshExternal,
                ports: ports.clone(),
                address: address.clone(),
                cluster_vips: BTreeMap::new(),
                auto_address: auto_address(entry, name),
                resolution,
                visibility: visibility.clone(),
                selector: spec
                    .workload_selector
                    .as_ref()
                    .map(|selector| selector.labels.clone())
                    .unwrap_or_default(),
                labels: entry.labels.clone(),
                accounts: spec
                    .subject_alt_names
                    .iter()
                    .cloned()
                    .collect::<BTreeSet<_>>(),
                external_name: None,
                aliases: Vec::new(),
                node_local: false,
                traffic_distribution: TrafficDistribution::of(
                    "",
                    entry.annotations.get(TRAFFIC_DISTRIBUTION),
                    namespace.and_then(|own| own.traffic_distribution.as_ref()),
                ),
                races_connections: races_connections(&entry.annotations),
                selects_workloads: spec.workload_selector.is_some(),
            });
        }
    }
    out
}

/// Who sees an entry: whom it names itself, of those whom the mesh allows for its namespace.
fn visibility(
    entry: &Config<ServiceEntry>,
    mesh: &MeshConfig,
    namespace: Option<&Namespace>,
) -> Visibility {
    let own = Visibility::new(
        &entry.spec.export_to,
        &entry.namespace,
        &mesh.default_service_export_to,
    );
    let rules = mesh.service_entry_visibility.as_ref();
    let Some(rules) = rules.filter(|rules| rules.apply_to_sidecars) else {
        return own;
    };
    let labels = namespace.map_or_else(|| json!({}), |namespace| json!(namespace.labels));
    let met = |rule: &VisibilityRule| {
        let selector = rule.namespace_selector.as_ref();
        selector.is_some_and(|selector| LabelSelector::from_value(selector).matches_labels(&labels))
    };
    let policy = rules
        .policies
        .iter()
        .find(|policy| policy.matching_rules.iter().all(met));
    match policy.map_or(rules.default_visibility, |policy| policy.visibility) {
        MeshVisibility::VisibilityUnspecified | MeshVisibility::Public => own,
        MeshVisibility::Namespace if own.allows(&entry.namespace, &entry.namespace) => {
            Visibility::Private
        }
        MeshVisibility::Namespace | MeshVisibility::None => Visibility::Nowhere,
    }
}

/// The addresses of an entry, each once; each makes a service of its own.
fn addresses(spec: &ServiceEntry) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for address in spec.addresses.iter().map(|address| plain_ip(address)) {
        if !out.contains(&address) {
            out.push(address);
        }
    }
    if out.is_empty() {
        out.push(UNSPECIFIED.to_owned());
    }
    out
}

/// A `/32` counts as an address.
fn plain_ip(address: &str) -> String {
    match address.split_once('/') {
        Some((ip, "32")) if ip.contains('.') => ip.to_owned(),
        Some((ip, "128")) if ip.contains(':') => ip.to_owned(),
        _ => address.to_owned(),
    }
}

/// The address that istiod's allocator wrote into the status.
fn auto_address(entry: &Config<ServiceEntry>, name: &str) -> Option<String> {
    if !entry.spec.addresses.is_empty() {
        return None;
    }
    let status = entry.status.as_ref()?;
    status
        .get("addresses")?
        .as_array()?
        .iter()
        .find_map(|address| {
            let fits = address
                .get("host")
                .and_then(|host| host.as_str())
                .is_none_or(|host| host == name);
            let value = address.get("value")?.as_str()?;
            (fits && value.contains('.')).then(|| value.to_owned())
        })
}

/// Endpoints of a ServiceEntry: listed, implied by DNS, or selected.
pub(crate) fn endpoints(
    entry: &Config<ServiceEntry>,
    workloads: &[Config<WorkloadEntry>],
    clusters: &[Cluster],
    config_cluster: &str,
) -> Vec<(ServiceKey, Endpoint)> {
    let spec = &entry.spec;
    let mut out = Vec::new();
    if spec.resolution == istio::Resolution::None && spec.workload_selector.is_none() {
        return out;
    }
    let copies = addresses(spec).len();
    for name in &spec.hosts {
        let key = (name.clone(), entry.namespace.clone());
        // Of a host whose answers are taken one at a time, one endpoint a port.
        let only_first = spec.resolution == istio::Resolution::DnsRoundRobin;
        let copies = if only_first { 1 } else { copies };
        for _ in 0..copies {
            for port in &spec.ports {
                let target = if port.target_port == 0 {
                    port.number
                } else {
                    port.target_port
                };
                match &spec.workload_selector {
                    Some(selector) => {
                        selected(
                            entry,
                            &selector.labels,
                            port,
                            target,
                            workloads,
                            clusters,
                            config_cluster,
                            |endpoint| {
                                out.push((key.clone(), endpoint));
                            },
                        );
                    }
                    None if spec.endpoints.is_empty() => {
                        let dns = matches!(
                            spec.resolution,
                            istio::Resolution::Dns | istio::Resolution::DnsRoundRobin
                        );
                        if dns && !host::is_wildcard(name) {
                            let implied = WorkloadEntry {
                                address: name.clone(),
                                ..WorkloadEntry::default()
                            };
                            let mut endpoint = endpoint(
                                &implied,
                                &port.name,
                                target,
                                &entry.namespace,
                                config_cluster,
                            );
                            endpoint.workload = entry.name.clone();
                            out.push((key.clone(), endpoint));
                        }
                    }
                    None => {
                        for (index, listed) in spec.endpoints.iter().enumerate() {
                            let mut endpoint = endpoint(
                                listed,
                                &port.name,
                                target,
                                &entry.namespace,
                                config_cluster,
                            );
                            endpoint.workload = format!("{}-{index}", entry.name);
                            out.push((key.clone(), endpoint));
                        }
                    }
                }
            }
        }
    }
    for (_, endpoint) in &mut out {
        endpoint.of_entry = true;
    }
    out
}

#[allow(clippy::too_many_arguments)]
fn selected(
    entry: &Config<ServiceEntry>,
    selector: &Labels,
    port: &istio::ServicePort,
    target: u32,
    workloads: &[Config<WorkloadEntry>],
    clusters: &[Cluster],
    config_cluster: &str,
    mut push: impl FnMut(Endpoint),
) {
    if selector.is_empty() {
        return;
    }
    let by_name = matches!(
        entry.spec.resolution,
        istio::Resolution::Dns | istio::Resolution::DnsRoundRobin
    );
    let mut pods: Vec<(&Cluster, &Pod)> = clusters
        .iter()
        .flat_map(|cluster| cluster.pods.iter().map(move |pod| (cluster, pod.as_ref())))
        .filter(|(_, pod)| pod.namespace == entry.namespace && selects(selector, &pod.labels))
        .collect();
    pods.sort_by_key(|(_, pod)| &pod.name);
    for (cluster, pod) in pods {
        let health = if pod.ready {
            Health::Healthy
        } else {
            Health::Unhealthy
        };
        push(cluster.endpoint_of_pod(pod, target, &port.name, health));
    }
    let mut entries: Vec<&Config<WorkloadEntry>> = workloads
        .iter()
        .filter(|workload| workload.namespace == entry.namespace)
        .filter(|workload| selects(selector, &all_labels(workload)))
        .filter(|workload| by_name || has_address(workload))
        .collect();
    entries.sort_by_key(|workload| &workload.name);
    for workload in entries {
        push(of_workload_entry(
            workload,
            &port.name,
            target,
            config_cluster,
        ));
    }
}

/// Whether a WorkloadEntry can be an endpoint where names are not resolved.
fn has_address(workload: &Config<WorkloadEntry>) -> bool {
    workload.spec.address.is_empty() || host::is_ip(&workload.spec.address)
}

/// Whether a WorkloadEntry counts: one whose health is watched only while it is well.
pub(crate) fn is_healthy(workload: &Config<WorkloadEntry>) -> bool {
    let watched = workload
        .annotations
        .get("proxy.istio.io/health-checks-enabled");
    if !watched
        .is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
    {
        return true;
    }
    let conditions = workload
        .status
        .as_ref()
        .and_then(|status| status.get("conditions")?.as_array().cloned())
        .unwrap_or_default();
    conditions.iter().any(|condition| {
        text(condition, &["type"]) == "Healthy" && text(condition, &["status"]) == "True"
    })
}

/// Labels of a WorkloadEntry: those of its spec, and before them those of its metadata.
pub(crate) fn all_labels(workload: &Config<WorkloadEntry>) -> Labels {
    let mut labels = workload.spec.labels.clone();
    labels.extend(workload.labels.clone());
    labels
}

/// The endpoint that a WorkloadEntry is for a port.
pub(crate) fn of_workload_entry(
    workload: &Config<WorkloadEntry>,
    port_name: &str,
    target: u32,
    cluster: &str,
) -> Endpoint {
    let mut spec = workload.spec.clone();
    spec.labels = all_labels(workload);
    let mut endpoint = endpoint(&spec, port_name, target, &workload.namespace, cluster);
    endpoint.workload = workload
        .annotations
        .get("istio.io/autoRegistrationGroup")
        .or_else(|| workload.labels.get("service.istio.io/workload-name"))
        .unwrap_or(&workload.name)
        .clone();
    endpoint
}

fn endpoint(
    entry: &WorkloadEntry,
    port_name: &str,
    target: u32,
    namespace: &str,
    cluster: &str,
) -> Endpoint {
    let unix = entry.address.starts_with("unix://");
    let port = if unix {
        0
    } else {
        entry.ports.get(port_name).copied().unwrap_or(target)
    };
    let mtls = match entry.labels.get("security.istio.io/tlsMode") {
        Some(mode) => mode == "istio",
        None => !entry.service_account.is_empty(),
    };
    let locality_text = match entry.labels.get("istio-locality") {
        Some(text) if entry.locality.is_empty() => text.replace('.', "/"),
        _ => entry.locality.clone(),
    };
    Endpoint {
        address: entry.address.clone(),
        port,
        port_name: port_name.to_owned(),
        // Unlike for pods, the label of the network is only a label.
        network: entry.network.clone(),
        labels: Arc::new(entry.labels.clone()),
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
        locality: Locality::parse(&locality_text),
        locality_text,
        weight: entry.weight,
        mtls,
        service_account: entry.service_account.clone(),
        workload: String::new(),
        node: String::new(),
        health: Health::Unset,
        of_entry: false,
    }
}

/// WorkloadEntries that Kubernetes services select.
pub(crate) fn of_kubernetes_services(
    services: &[Arc<Service>],
    workloads: &[Config<WorkloadEntry>],
    cluster: &str,
) -> Vec<(ServiceKey, Endpoint)> {
    let mut out = Vec::new();
    for service in services
        .iter()
        .filter(|service| !service.selector.is_empty() && service.resolution == Resolution::Static)
    {
        for workload in workloads.iter().filter(|workload| {
            workload.namespace == service.namespace
                && has_address(workload)
                && selects(&service.selector, &all_labels(workload))
        }) {
            for port in &service.ports {
                if let Some(target) = target_of(workload, port) {
                    let mut endpoint = of_workload_entry(workload, &port.name, target, cluster);
                    endpoint.port = target;
                    out.push((service.key(), endpoint));
                }
            }
        }
    }
    out
}

/// The port of a WorkloadEntry behind a port of a Kubernetes service. A target port by name has to be among its ports; one by number
/// gives way to its port that is called like the service's.
pub(crate) fn target_of(workload: &Config<WorkloadEntry>, port: &ServicePort) -> Option<u32> {
    let own = |name: &String| {
        let number = workload.spec.ports.get(name).copied();
        number.filter(|number| *number != 0)
    };
    match &port.target {
        TargetPort::Number(number) => Some(own(&port.name).unwrap_or(*number)),
        TargetPort::Name(name) => own(name),
        TargetPort::Same => Some(port.number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mesh: serde_json::Value, labels: &[(&str, &str)], export_to: &[&str]) -> Visibility {
        let mesh: MeshConfig = serde_json::from_value(mesh).unwrap();
        let namespace = Namespace {
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Namespace::default()
        };
        let entry = Config {
            name: "e".to_owned(),
            namespace: "shop".to_owned(),
            created: String::new(),
            annotations: Labels::new(),
            labels: Labels::new(),
            spec: ServiceEntry {
                export_to: export_to.iter().map(|to| (*to).to_owned()).collect(),
                ..ServiceEntry::default()
            },
            status: None,
        };
        visibility(&entry, &mesh, Some(&namespace))
    }

    #[test]
    fn the_mesh_bounds_who_sees_service_entries() {
        let mesh = |apply: bool| {
            json!({"serviceEntryVisibility": {
                "defaultVisibility": "NAMESPACE",
                "applyToSidecars": apply,
                "policies": [
                    {"visibility": "NONE", "matchingRules": [
                        {"namespaceSelector": {"matchLabels": {"team": "a"}}},
                        {"namespaceSelector": {"matchLabels": {"stage": "test"}}},
                    ]},
                    {"visibility": "PUBLIC", "matchingRules": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]},
                ],
            }})
        };
        let team = ("team", "a");
        for (apply, labels, export_to, want) in [
            (true, &[][..], &[][..], Visibility::Private),
            (true, &[], &["other"], Visibility::Nowhere),
            (true, &[team], &[], Visibility::Public),
            (true, &[team], &["."], Visibility::Private),
            (true, &[team, ("stage", "test")], &[], Visibility::Nowhere),
            (false, &[], &[], Visibility::Public),
        ] {
            let got = seen(mesh(apply), labels, export_to);
            assert_eq!(got, want, "{labels:?} {export_to:?}");
        }
    }
}
