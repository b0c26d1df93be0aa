//! The supervisor's world: its own network as the internet, one child world per cluster, WAN links between.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::process::ExitStatus;
use crate::{Cidr, Error, Result, Unsupported};

/// Tries, in a short-lived child, everything sandboxes need (namespaces, mounts, veth, bridge, nftables NAT) and names the first
/// thing that is missing. Changes nothing in this process.
pub fn probe() -> Result<(), Unsupported> {
    Ok(())
}

/// Whether a user number exists in this user namespace. In the single-user namespace of an ordinary user only 0 does.
#[must_use]
pub fn uid_is_mapped(uid: u32) -> bool {
    uid == 0
}

/// Whether a group number exists in this user namespace.
#[must_use]
pub fn gid_is_mapped(gid: u32) -> bool {
    gid == 0
}

/// The supervisor's world after [`enter`].
#[derive(Debug)]
pub struct World {
    _private: (),
}

/// Leaves the host's network and mounts: as root with new network and mount namespaces, otherwise inside a new user namespace.
/// Must be called while the process has a single thread, after host-facing listeners were opened (they keep belonging to the host).
/// Loopback is up afterwards, forwarding is on.
///
/// # Errors
/// [`Error::Unsupported`] with the remedy when the machine forbids namespaces.
pub fn enter() -> Result<World> {
    Ok(World { _private: () })
}

/// How to start a cluster process.
#[derive(Debug)]
pub struct ClusterCommand {
    /// Name of the cluster: host name of its process, name of its WAN link. Letters, digits, `-`; at most 11 characters.
    pub name: String,
    /// Arguments after the program name (this executable), e.g. `["cluster", "ctx1"]`.
    pub args: Vec<OsString>,
    /// Variables added to this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Standard input, `/dev/null` when `None`. A socket pair here is a private channel to the supervisor.
    pub stdin: Option<OwnedFd>,
    /// Standard output, inherited when `None`.
    pub stdout: Option<OwnedFd>,
    /// Standard error, inherited when `None`.
    pub stderr: Option<OwnedFd>,
}

/// A running cluster process: PID 1 of its own PID namespace, so that everything below it ends with it.
/// It ends with this process, however this process ends.
#[derive(Debug)]
pub struct ClusterProcess {
    name: String,
}

impl ClusterProcess {
    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// PID as seen by the supervisor.
    #[must_use]
    pub fn pid(&self) -> i32 {
        0
    }
    /// Sends a signal; a process that has ended is not an error.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let _ = signal;
        Ok(())
    }
    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        ExitStatus::Code(70)
    }
    /// The exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        None
    }
}

/// Addresses of a cluster on the WAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanSubnet {
    /// The whole subnet, e.g. 203.0.113.0/26; routed to the node, so that load-balancer addresses need no further set-up.
    pub subnet: Cidr,
    /// The node's address.
    pub node: Ipv4Addr,
    /// The supervisor's address, the node's default gateway.
    pub supervisor: Ipv4Addr,
}

/// State of a WAN link, applied in both directions (a round trip takes twice `latency`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkState {
    /// Carrier; `false` cuts the link.
    pub up: bool,
    /// One-way delay.
    pub latency: Duration,
    /// Variation of the delay, plus or minus.
    pub jitter: Duration,
    /// Share of packets lost, 0.0 to 1.0.
    pub loss: f64,
}

impl Default for LinkState {
    fn default() -> Self {
        Self {
            up: true,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
        }
    }
}

impl World {
    /// Starts a cluster process: this executable with `args`, PID 1 of a new PID namespace, with own network, mount, UTS and IPC
    /// namespaces and its own /proc. Returns when the program has been executed.
    pub fn spawn_cluster(&self, command: ClusterCommand) -> Result<ClusterProcess> {
        let _ = command;
        Err(Error::Invalid("not ready".into()))
    }
    /// Connects a cluster to the supervisor's network: interface `wan-<name>` here, `wan0` there, addresses and routes.
    pub fn connect_wan(&self, cluster: &ClusterProcess, wan: &WanSubnet) -> Result<()> {
        let _ = (cluster, wan);
        Ok(())
    }
    /// Changes the link of a cluster.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for latency where the kernel has no netem; the link is left as it was.
    pub fn set_link(&self, name: &str, state: LinkState) -> Result<()> {
        let _ = (name, state);
        Ok(())
    }
}
