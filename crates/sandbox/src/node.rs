//! A cluster's node network: bridge, addresses, forwarding, masquerade, filters.
//!
//! Pods reach everything, each other included, through the node (their address brings no route to the pod network), so that
//! connection tracking sees both directions of every connection and service addresses work between pods of the same bridge.

use std::net::Ipv4Addr;

use crate::links::{self, Links, Via};
use crate::nft::{ChainKind, Hook, PRIORITY_FILTER, PRIORITY_SRCNAT, Step, TCP, Table, Verdict};
use crate::{Cidr, Error, Result};

/// Interface of a node towards the WAN.
pub const WAN_INTERFACE: &str = "wan0";

const TABLE: &str = "theater-node";

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
/// Does not need the WAN link to exist yet. Blocking, a few milliseconds.
///
/// # Errors
/// The node's address is outside the pod network, or a request to the kernel failed.
pub fn setup(network: &NodeNetwork) -> Result<()> {
    let NodeNetwork {
        bridge,
        node_ip,
        pod_cidr,
        service_cidr,
        wan_subnet,
        ..
    } = network;
    if !pod_cidr.contains(*node_ip) {
        return Err(Error::Invalid(format!(
            "node address {node_ip} is outside the pod network {pod_cidr}"
        )));
    }
    for (path, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // Pods on one bridge talk through the node on purpose; do not tell them of a shorter way.
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        links::sysctl(path, value)?;
    }
    // Packets are looked at when they are routed; once is enough.
    links::sysctl_if_present("net/bridge/bridge-nf-call-iptables", "0")?;
    links::sysctl_if_present("net/ipv6/conf/default/disable_ipv6", "1")?;
    links::loopback_up()?;

    let mut l = Links::open()?;
    l.create_bridge(bridge, mac(*node_ip))?;
    let index = links::index(bridge)?;
    // Processes of the node reach host ports of pods at 127.0.0.1 too.
    links::sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    l.add_address(index, Cidr::new(*node_ip, pod_cidr.prefix), true)?;
    // Service addresses are translated before they reach the bridge; the route gives local processes a source address.
    l.add_route(*service_cidr, &Via::Link(index), Some(*node_ip))?;
    // Load-balancer addresses without a service end here and are refused.
    l.add_route(
        *wan_subnet,
        &Via::Local(links::index("lo")?),
        Some(*node_ip),
    )?;
    rules(network).commit()
}

fn rules(network: &NodeNetwork) -> Table {
    let NodeNetwork {
        pod_cidr,
        service_cidr,
        wan_ip,
        wan_subnet,
        wan_ports,
        ..
    } = network;
    let accept = || Step::Then(Verdict::Accept);
    let from_wan = || Step::InInterface(WAN_INTERFACE.into(), true);
    let mut t = Table::replace(TABLE);

    t.base_chain(
        "postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        PRIORITY_SRCNAT,
    );
    let to_wan = Step::OutInterface(WAN_INTERFACE.into(), true);
    t.rule(
        "postrouting",
        &[to_wan, Step::Source(*pod_cidr, true), Step::Masquerade],
    );

    t.base_chain("forward", ChainKind::Filter, Hook::Forward, PRIORITY_FILTER);
    t.rule("forward", &[Step::Established, accept()]);
    t.rule("forward", &[Step::DestinationTranslated, accept()]);
    // Translated packets no longer carry a service address.
    t.rule(
        "forward",
        &[
            Step::Destination(*service_cidr, true),
            Step::Protocol(TCP),
            Step::RejectTcp,
        ],
    );
    t.rule(
        "forward",
        &[Step::Destination(*service_cidr, true), Step::Reject],
    );
    t.rule(
        "forward",
        &[from_wan(), Step::Protocol(TCP), Step::RejectTcp],
    );
    t.rule("forward", &[from_wan(), Step::Reject]);

    t.base_chain("output", ChainKind::Filter, Hook::Output, PRIORITY_FILTER);
    t.rule(
        "output",
        &[
            Step::Destination(*service_cidr, true),
            Step::Protocol(TCP),
            Step::RejectTcp,
        ],
    );
    t.rule(
        "output",
        &[Step::Destination(*service_cidr, true), Step::Reject],
    );

    t.base_chain("input", ChainKind::Filter, Hook::Input, PRIORITY_FILTER);
    t.rule("input", &[Step::Established, accept()]);
    let node = Step::Destination(Cidr::new(*wan_ip, 32), true);
    for port in wan_ports {
        t.rule(
            "input",
            &[
                from_wan(),
                node.clone(),
                Step::Protocol(TCP),
                Step::Port(*port, true),
                accept(),
            ],
        );
    }
    // A load-balancer address that no service has: nobody listens there, not even a process of the node on all addresses.
    for filter in [
        vec![from_wan()],
        vec![
            Step::Destination(*wan_subnet, true),
            Step::Destination(Cidr::new(*wan_ip, 32), false),
        ],
    ] {
        let with = |last: &[Step]| [filter.as_slice(), last].concat();
        t.rule("input", &with(&[Step::Protocol(TCP), Step::RejectTcp]));
        t.rule("input", &with(&[Step::Reject]));
    }
    t
}

/// A locally administered MAC address made from an IPv4 address: a reused address keeps its MAC, no cache goes stale.
pub(crate) fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x7e, a, b, c, d]
}
