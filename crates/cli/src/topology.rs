//! The two clusters: names, places and addresses (ARCHITECTURE.md, "Addresses").

use std::net::{Ipv4Addr, SocketAddr};

/// Everything about one cluster that is decided before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterFacts {
    /// The cluster's name, which is also its context in the kubeconfig and its id in the mesh.
    pub name: &'static str,
    /// The cloud it stands for, as shown to people.
    pub provider: &'static str,
    /// Value of the node label `cloud-provider`.
    pub cloud_provider: &'static str,
    /// Value of the node label `topology.kubernetes.io/region`.
    pub region: &'static str,
    /// Value of the node label `topology.kubernetes.io/zone`.
    pub zone: &'static str,
    /// The mesh network its pods are on (`topology.istio.io/network`).
    pub network: &'static str,
    /// Second octet of the pod network 10.x.0.0/16.
    pod_octet: u8,
    /// Second octet of the service network 10.x.0.0/16.
    service_octet: u8,
    /// First last octet of the cluster's /26 of the WAN 203.0.113.0/24 (RFC 5737 TEST-NET-3).
    wan_base: u8,
}

/// The clusters of the theater, in the order they are shown.
pub const CLUSTERS: [ClusterFacts; 2] = [
    ClusterFacts {
        name: "ctx1",
        provider: "NaverCloud",
        cloud_provider: "naver",
        region: "kr",
        zone: "kr-1",
        network: "network1",
        pod_octet: 10,
        service_octet: 97,
        wan_base: 0,
    },
    ClusterFacts {
        name: "ctx2",
        provider: "NHN Cloud",
        cloud_provider: "nhn",
        region: "kr",
        zone: "kr-2",
        network: "network2",
        pod_octet: 20,
        service_octet: 98,
        wan_base: 64,
    },
];

/// The port of every API server inside its own network.
pub const API_PORT: u16 = 6443;

/// Prefix length of the pod and service networks.
pub const CLUSTER_PREFIX: u8 = 16;

/// Prefix length of a cluster's part of the WAN.
pub const WAN_PREFIX: u8 = 26;

impl ClusterFacts {
    /// The cluster of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        CLUSTERS.iter().find(|cluster| cluster.name == name)
    }

    /// The one node's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("{}-node-1", self.name)
    }

    /// The node's address on the pod network, which is the pods' gateway.
    #[must_use]
    pub fn node_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.pod_octet, 0, 1)
    }

    /// First address of the pod network.
    #[must_use]
    pub fn pod_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.pod_octet, 0, 0)
    }

    /// First address of the service network.
    #[must_use]
    pub fn service_network(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.service_octet, 0, 0)
    }

    /// ClusterIP of the Service `kubernetes`.
    #[must_use]
    pub fn kubernetes_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.service_octet, 0, 1)
    }

    /// ClusterIP of the cluster DNS.
    #[must_use]
    pub fn dns_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.service_octet, 0, 10)
    }

    fn wan(&self, offset: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, self.wan_base + offset)
    }

    /// First address of the cluster's part of the WAN.
    #[must_use]
    pub fn wan_network(&self) -> Ipv4Addr {
        self.wan(0)
    }

    /// The node's address on the WAN.
    #[must_use]
    pub fn wan_ip(&self) -> Ipv4Addr {
        self.wan(1)
    }

    /// The other end of the node's WAN link: the internet, that is, the supervisor.
    #[must_use]
    pub fn wan_gateway(&self) -> Ipv4Addr {
        self.wan(62)
    }

    /// First and last address given to Services of type LoadBalancer.
    #[must_use]
    pub fn load_balancer_pool(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.wan(10), self.wan(60))
    }

    /// The API server as seen from the WAN.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        (self.wan_ip(), API_PORT).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_clusters_do_not_overlap() {
        let [one, two] = &CLUSTERS;
        assert_ne!(one.pod_network(), two.pod_network());
        assert_ne!(one.service_network(), two.service_network());
        let size = 1u8 << (32 - WAN_PREFIX);
        assert_eq!(
            u32::from(two.wan_network()) - u32::from(one.wan_network()),
            u32::from(size)
        );
        for cluster in &CLUSTERS {
            let (first, last) = cluster.load_balancer_pool();
            assert!(first > cluster.wan_ip() && last < cluster.wan_gateway());
        }
    }
}
