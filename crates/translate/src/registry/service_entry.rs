//! Services and endpoints of ServiceEntries and WorkloadEntries.

use super::kubernetes::Cluster;
use super::{
    Endpoint, Health, Resolution, Service, ServiceKey, ServicePort, TargetPort,
    TrafficDistribution, UNSPECIFIED,
};
use crate::objects::{Config, Labels, selects};
use crate::protocol::Protocol;
use crate::visibility::Visibility;
use crate::{Locality, host};
use api::istio::{self, Location, ServiceEntry, WorkloadEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The services of a ServiceEntry: one for each host and address.
pub(crate) fn services(entry: &Config<ServiceEntry>, default_export_to: &[String]) -> Vec<Service> {
    let spec = &entry.spec;
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
    let mut addresses: Vec<String> = spec
        .addresses
        .iter()
        .map(|address| plain_ip(address))
        .collect();
    if addresses.is_empty() {
        addresses.push(UNSPECIFIED.to_owned());
    }
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
                visibility: Visibility::new(&spec.export_to, &entry.namespace, default_export_to),
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
                subject_alt_names: spec.subject_alt_names.clone(),
                external_name: None,
                aliases: Vec::new(),
                node_local: false,
                traffic_distribution: entry
                    .annotations
                    .get("networking.istio.io/traffic-distribution")
                    .map(|text| TrafficDistribution::parse(text))
                    .unwrap_or_default(),
                selects_workloads: spec.workload_selector.is_some(),
            });
        }
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
    let copies = spec.addresses.len().max(1);
    for name in &spec.hosts {
        let key = (name.clone(), entry.namespace.clone());
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
    for workload in workloads
        .iter()
        .filter(|workload| workload.namespace == entry.namespace)
    {
        if !selects(selector, &all_labels(workload)) {
            continue;
        }
        push(of_workload_entry(
            workload,
            &port.name,
            target,
            config_cluster,
        ));
    }
    for cluster in clusters {
        for pod in cluster
            .pods
            .iter()
            .filter(|pod| pod.namespace == entry.namespace)
        {
            if selects(selector, &pod.labels) {
                let health = if pod.ready {
                    Health::Healthy
                } else {
                    Health::Unhealthy
                };
                push(cluster.endpoint_of_pod(pod, target, &port.name, health));
            }
        }
    }
}

/// Labels of a WorkloadEntry: those of its spec and of its metadata.
pub(crate) fn all_labels(workload: &Config<WorkloadEntry>) -> Labels {
    let mut labels = workload.labels.clone();
    labels.extend(workload.spec.labels.clone());
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
    endpoint.workload = workload.name.clone();
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
    let network = entry
        .labels
        .get("topology.istio.io/network")
        .unwrap_or(&entry.network);
    Endpoint {
        address: entry.address.clone(),
        port,
        port_name: port_name.to_owned(),
        network: if entry.network.is_empty() {
            network.clone()
        } else {
            entry.network.clone()
        },
        labels: Arc::new(entry.labels.clone()),
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
        locality: Locality::parse(&entry.locality),
        weight: entry.weight,
        mtls,
        service_account: entry.service_account.clone(),
        workload: String::new(),
        node: String::new(),
        health: Health::Unset,
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
        .filter(|service| !service.selector.is_empty())
    {
        for workload in workloads
            .iter()
            .filter(|workload| workload.namespace == service.namespace)
        {
            if !selects(&service.selector, &all_labels(workload)) {
                continue;
            }
            if !host::is_ip(&workload.spec.address) && !workload.spec.address.is_empty() {
                continue;
            }
            for port in &service.ports {
                let target = match &port.target {
                    TargetPort::Number(number) => *number,
                    TargetPort::Name(name) => workload
                        .spec
                        .ports
                        .get(name)
                        .copied()
                        .unwrap_or(port.number),
                    TargetPort::Same => port.number,
                };
                out.push((
                    service.key(),
                    of_workload_entry(workload, &port.name, target, cluster),
                ));
            }
        }
    }
    out
}
