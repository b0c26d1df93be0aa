//! A cluster's node network: bridge, addresses, forwarding, masquerade, filters.

use std::net::Ipv4Addr;

use crate::{Cidr, Result};

/// Addresses of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    /// Bridge of the pods, `cni0`.
    pub bridge: String,
    /// The node's address on the bridge, gateway of the pods.
    pub node_ip: Ipv4Addr,
    /// Network of the pods; contains `node_ip`.
    pub pod_cidr: Cidr,
    /// Network of the cluster IPs.
    pub service_cidr: Cidr,
    /// The node's address on the WAN.
    pub wan_ip: Ipv4Addr,
    /// The cluster's WAN subnet (load-balancer pool included).
    pub wan_subnet: Cidr,
    /// Ports of the node reachable from the WAN: the API server's 6443.
    pub wan_ports: Vec<u16>,
}

/// Sets up the node network in the current network namespace. Call once, in the cluster process, before the first pod.
/// Does not need the WAN link to exist yet.
pub fn setup(network: &NodeNetwork) -> Result<()> {
    let _ = network;
    Ok(())
}
