//! What the cluster's names stand for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use serde_json::Value;

/// A port with the name and protocol that SRV records use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Port name; empty for an unnamed one.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Number.
    pub port: u16,
}

/// One ready address of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Host name of its own (`<host>.<service>.<namespace>.svc…`); otherwise the address with dashes.
    pub hostname: Option<String>,
    /// Ports.
    pub ports: Vec<Port>,
}

impl Endpoint {
    /// The label under the service's name.
    pub fn label(&self) -> String {
        self.hostname
            .clone()
            .unwrap_or_else(|| self.ip.to_string().replace('.', "-"))
    }
}

/// What a service's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// One virtual address.
    ClusterIp(Ipv4Addr),
    /// The addresses of its ready endpoints.
    Headless(Vec<Endpoint>),
    /// Another name.
    External(String),
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What its name leads to.
    pub kind: ServiceKind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// All names of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The zone, without trailing dot: `cluster.local`.
    pub zone: String,
    services: HashMap<String, BTreeMap<String, Service>>,
    by_ip: HashMap<Ipv4Addr, String>,
}

impl Table {
    /// An empty table for `zone`.
    pub fn new(zone: &str) -> Self {
        Self {
            zone: zone.trim_end_matches('.').to_ascii_lowercase(),
            ..Self::default()
        }
    }

    /// Builds the table from `v1/Service` and `discovery.k8s.io/v1/EndpointSlice` objects.
    pub fn build<'a>(
        zone: &str,
        services: impl IntoIterator<Item = &'a Value>,
        slices: impl IntoIterator<Item = &'a Value>,
    ) -> Self {
        let mut endpoints: HashMap<(String, String), Vec<Endpoint>> = HashMap::new();
        for slice in slices {
            let meta = &slice["metadata"];
            let service = meta["labels"]["kubernetes.io/service-name"].as_str();
            let (Some(namespace), Some(service)) = (meta["namespace"].as_str(), service) else {
                continue;
            };
            endpoints
                .entry((namespace.to_owned(), service.to_owned()))
                .or_default()
                .extend(ready_endpoints(slice));
        }
        let mut table = Self::new(zone);
        for service in services {
            let meta = &service["metadata"];
            let (Some(namespace), Some(name)) = (meta["namespace"].as_str(), meta["name"].as_str())
            else {
                continue;
            };
            let spec = &service["spec"];
            let kind = match (spec["type"].as_str(), spec["clusterIP"].as_str()) {
                (Some("ExternalName"), _) => ServiceKind::External(
                    spec["externalName"]
                        .as_str()
                        .unwrap_or_default()
                        .trim_end_matches('.')
                        .to_owned(),
                ),
                (_, Some("None")) => {
                    let mut found = endpoints
                        .remove(&(namespace.to_owned(), name.to_owned()))
                        .unwrap_or_default();
                    found.sort_by_key(|endpoint| endpoint.ip);
                    let mut seen = HashSet::new();
                    found.retain(|endpoint| seen.insert((endpoint.ip, endpoint.hostname.clone())));
                    ServiceKind::Headless(found)
                }
                (_, Some(ip)) => match ip.parse() {
                    Ok(ip) => ServiceKind::ClusterIp(ip),
                    Err(_) => continue,
                },
                (_, None) => continue,
            };
            let ports = ports(&spec["ports"]);
            table.insert(namespace, name, Service { kind, ports });
        }
        table
    }

    /// Adds or replaces a service.
    pub fn insert(&mut self, namespace: &str, name: &str, service: Service) {
        let full = format!("{name}.{namespace}.svc.{}", self.zone);
        match &service.kind {
            ServiceKind::ClusterIp(ip) => {
                self.by_ip.insert(*ip, full);
            }
            ServiceKind::Headless(endpoints) => {
                for endpoint in endpoints
                    .iter()
                    .filter(|endpoint| endpoint.hostname.is_some())
                {
                    self.by_ip
                        .insert(endpoint.ip, format!("{}.{full}", endpoint.label()));
                }
            }
            ServiceKind::External(_) => {}
        }
        self.services
            .entry(namespace.to_owned())
            .or_default()
            .insert(name.to_owned(), service);
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(namespace)?.get(name)
    }
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.services.contains_key(namespace)
    }
    pub(super) fn name_of(&self, ip: Ipv4Addr) -> Option<&str> {
        self.by_ip.get(&ip).map(String::as_str)
    }
}

fn ports(list: &Value) -> Vec<Port> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port["name"].as_str().unwrap_or_default().to_owned(),
                protocol: port["protocol"]
                    .as_str()
                    .unwrap_or("TCP")
                    .to_ascii_lowercase(),
                port: u16::try_from(port["port"].as_u64()?).ok()?,
            })
        })
        .collect()
}

fn ready_endpoints(slice: &Value) -> Vec<Endpoint> {
    let ports = ports(&slice["ports"]);
    slice["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|endpoint| endpoint["conditions"]["ready"].as_bool() != Some(false))
        .flat_map(|endpoint| {
            let hostname = endpoint["hostname"]
                .as_str()
                .filter(|name| !name.is_empty())
                .map(str::to_owned);
            let ports = ports.clone();
            endpoint["addresses"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|address| address.as_str()?.parse().ok())
                .map(move |ip| Endpoint {
                    ip,
                    hostname: hostname.clone(),
                    ports: ports.clone(),
                })
                .collect::<Vec<_>>()
        })
        .collect()
}
