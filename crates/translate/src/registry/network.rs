//! Networks and their gateways.

use crate::objects::{at, items, labels, text};
use crate::snapshot::ClusterObjects;
use api::istio::MeshNetworks;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The port of east-west gateways.
const DEFAULT_PORT: u32 = 15443;

/// A way into a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetworkGateway {
    pub(crate) network: String,
    pub(crate) cluster: String,
    pub(crate) address: String,
    pub(crate) port: u32,
}

/// The ways into all networks.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkGateways {
    by_network: BTreeMap<String, Vec<NetworkGateway>>,
    by_network_and_cluster: BTreeMap<(String, String), Vec<NetworkGateway>>,
    /// The least common multiple of the numbers of gateways, by which weights are scaled.
    pub(crate) scale: u32,
}

impl NetworkGateways {
    pub(crate) fn new(gateways: BTreeSet<NetworkGateway>) -> Self {
        let mut out = Self {
            scale: 1,
            ..Self::default()
        };
        for gateway in gateways {
            out.by_network_and_cluster
                .entry((gateway.network.clone(), gateway.cluster.clone()))
                .or_default()
                .push(gateway.clone());
            out.by_network
                .entry(gateway.network.clone())
                .or_default()
                .push(gateway);
        }
        let counts = out
            .by_network
            .values()
            .chain(out.by_network_and_cluster.values())
            .map(|list| list.len() as u32);
        out.scale = counts.fold(1, lcm);
        out
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_network.is_empty()
    }

    /// The gateways for endpoints of a cluster in a network: those of the cluster, else all of the network.
    pub(crate) fn of(&self, network: &str, cluster: &str) -> &[NetworkGateway] {
        if let Some(list) = self
            .by_network_and_cluster
            .get(&(network.to_owned(), cluster.to_owned()))
        {
            return list;
        }
        self.by_network.get(network).map_or(&[], Vec::as_slice)
    }
}

fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Gateways from labelled services of a cluster.
pub(crate) fn from_services(input: &ClusterObjects, out: &mut BTreeSet<NetworkGateway>) {
    for object in &input.objects {
        if text(object, &["kind"]) != "Service" {
            continue;
        }
        let labels = labels(object, &["metadata", "labels"]);
        let Some(network) = labels
            .get("topology.istio.io/network")
            .filter(|network| !network.is_empty())
        else {
            continue;
        };
        let port = labels
            .get("networking.istio.io/gatewayPort")
            .and_then(|port| port.parse().ok())
            .unwrap_or(DEFAULT_PORT);
        let mut addresses: Vec<&str> = Vec::new();
        match text(object, &["spec", "type"]) {
            "LoadBalancer" => {
                for ingress in items(object, &["status", "loadBalancer", "ingress"]) {
                    let ip = text(ingress, &["ip"]);
                    addresses.push(if ip.is_empty() {
                        text(ingress, &["hostname"])
                    } else {
                        ip
                    });
                }
            }
            "NodePort" | "ClusterIP" | "" => {}
            _ => continue,
        }
        addresses.extend(items(object, &["spec", "externalIPs"]).filter_map(Value::as_str));
        for address in addresses.into_iter().filter(|address| !address.is_empty()) {
            out.insert(NetworkGateway {
                network: network.clone(),
                cluster: input.id.clone(),
                address: address.to_owned(),
                port,
            });
        }
    }
}

/// Gateways from MeshNetworks. A `registryServiceName` stands for the load balancer addresses of that service.
pub(crate) fn from_mesh_networks(
    networks: &MeshNetworks,
    clusters: &[ClusterObjects],
    domain: &str,
    out: &mut BTreeSet<NetworkGateway>,
) {
    for (network, settings) in &networks.networks {
        for gateway in &settings.gateways {
            if let Some(address) = gateway
                .address
                .as_ref()
                .filter(|address| !address.is_empty())
            {
                out.insert(NetworkGateway {
                    network: network.clone(),
                    cluster: String::new(),
                    address: address.clone(),
                    port: gateway.port,
                });
            }
            let Some(wanted) = &gateway.registry_service_name else {
                continue;
            };
            for cluster in clusters {
                let own = settings
                    .endpoints
                    .iter()
                    .any(|endpoints| endpoints.from_registry.as_ref() == Some(&cluster.id));
                if !own {
                    continue;
                }
                for object in cluster
                    .objects
                    .iter()
                    .filter(|object| text(object, &["kind"]) == "Service")
                {
                    let host = format!(
                        "{}.{}.svc.{domain}",
                        text(object, &["metadata", "name"]),
                        text(object, &["metadata", "namespace"])
                    );
                    if host != *wanted {
                        continue;
                    }
                    for ingress in items(object, &["status", "loadBalancer", "ingress"]) {
                        let Some(address) = at(ingress, &["ip"]).and_then(Value::as_str) else {
                            continue;
                        };
                        out.insert(NetworkGateway {
                            network: network.clone(),
                            cluster: cluster.id.clone(),
                            address: address.to_owned(),
                            port: gateway.port,
                        });
                    }
                }
            }
        }
    }
}

/// The network of a cluster by MeshNetworks.
pub(crate) fn of_cluster(networks: &MeshNetworks, cluster: &str) -> Option<String> {
    networks
        .networks
        .iter()
        .find(|(_, settings)| {
            settings
                .endpoints
                .iter()
                .any(|endpoints| endpoints.from_registry.as_deref() == Some(cluster))
        })
        .map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_scale_by_the_least_common_multiple() {
        let gateway = |network: &str, address: &str| NetworkGateway {
            network: network.into(),
            cluster: "c".into(),
            address: address.into(),
            port: 15443,
        };
        let all = ["1", "2", "3"]
            .iter()
            .map(|ip| gateway("a", ip))
            .chain(["4", "5"].iter().map(|ip| gateway("b", ip)))
            .collect();
        let gateways = NetworkGateways::new(all);
        assert_eq!(gateways.scale, 6);
        assert_eq!(gateways.of("a", "other").len(), 3);
        assert!(gateways.of("c", "c").is_empty());
    }
}
