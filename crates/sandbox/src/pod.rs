//! What the containers of a pod share: network, host name, System V IPC.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::error::Context;
use crate::links::{self, End, Links, Via};
use crate::node::mac;
use crate::{Cidr, Error, Result, sys};

/// Network identity of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// Name for messages, e.g. `namespace/pod`.
    pub name: String,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Prefix length of the pod network, shown on the address (all traffic goes through the gateway all the same).
    pub prefix: u8,
    /// The node's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Bridge of the node, `cni0`.
    pub bridge: String,
    /// Host name inside the pod, at most 63 characters.
    pub hostname: String,
    /// The pod has no network of its own but the node's; `ip` is then the node's address.
    pub host: bool,
    /// Kernel parameters of the pod's namespaces, by their names with dots.
    pub sysctls: Vec<(String, String)>,
}

impl PodNetwork {
    /// Name of the node's end of the pod's cable: the same address always gives the same name.
    fn cable(&self) -> String {
        format!("veth{:08x}", self.ip.to_bits())
    }
}

/// The namespaces of one pod. There is no pause process: the namespaces are held by descriptors of this
/// process and vanish with them, so that nothing can be left behind. A pod that is dropped without
/// [`PodSandbox::destroy`] disappears once its last process has ended.
#[derive(Debug)]
pub struct PodSandbox {
    network: PodNetwork,
    namespaces: Namespaces,
}

#[derive(Debug)]
struct Namespaces {
    net: OwnedFd,
    uts: OwnedFd,
    ipc: OwnedFd,
}

impl PodSandbox {
    /// Makes the namespaces, connects them to the bridge and brings the network up. Many may run at the same time.
    ///
    /// # Errors
    /// The bridge does not exist, the address is already a pod's, a system call failed.
    pub async fn create(network: PodNetwork) -> Result<PodSandbox> {
        blocking(move || Self::create_blocking(network)).await
    }

    /// Same for callers without a runtime.
    ///
    /// # Errors
    /// As [`PodSandbox::create`].
    pub fn create_blocking(network: PodNetwork) -> Result<PodSandbox> {
        if network.hostname.is_empty() || network.hostname.len() > 63 {
            return Err(Error::Invalid(format!(
                "pod {}: host name {:?} must have 1 to 63 characters",
                network.name, network.hostname
            )));
        }
        let mut node = Links::open()?;
        let bridge = links::index(&network.bridge)?;
        // Network, UTS and IPC namespaces belong to a thread; one that lives for this moment makes them.
        let namespaces = on_a_thread(|| -> Result<_> {
            let own = if network.host { 0 } else { libc::CLONE_NEWNET };
            sys::unshare(own | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC)
                .doing(format_args!("make namespaces of pod {}", network.name))?;
            let open = |kind: &str| {
                File::open(format!("/proc/thread-self/ns/{kind}"))
                    .map(OwnedFd::from)
                    .doing(format_args!("open the {kind} namespace"))
            };
            let namespaces = Namespaces {
                net: open("net")?,
                uts: open("uts")?,
                ipc: open("ipc")?,
            };
            sys::sethostname(&network.hostname)
                .doing(format_args!("set the host name of pod {}", network.name))?;
            let set_all = || {
                network
                    .sysctls
                    .iter()
                    .try_for_each(|(name, value)| links::sysctl(&name.replace('.', "/"), value))
            };
            if network.host {
                set_all()?;
                return Ok(namespaces);
            }
            links::sysctl_if_present("net/ipv6/conf/default/disable_ipv6", "1")?;
            links::sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
            // As container runtimes: ping without privilege.
            if links::sysctl("net/ipv4/ping_group_range", "0 2147483647").is_err() {
                links::sysctl("net/ipv4/ping_group_range", "0 0")?;
            }
            set_all()?;
            links::loopback_up()?;
            connect(&network, &mut node, bridge, namespaces.net.as_fd())?;
            Ok(namespaces)
        })??;
        Ok(PodSandbox {
            network,
            namespaces,
        })
    }

    /// The network it was created with.
    #[must_use]
    pub fn network(&self) -> &PodNetwork {
        &self.network
    }

    /// Descriptors of the namespaces with the flags to join them.
    pub(crate) fn namespaces(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.namespaces.net.as_fd(),
            self.namespaces.uts.as_fd(),
            self.namespaces.ipc.as_fd(),
        ]
    }

    /// Runs `f` on a thread inside the pod's network namespace, e.g. to open a socket there. The socket keeps belonging to the pod.
    ///
    /// # Errors
    /// No thread could be started or the namespace not be joined.
    pub async fn run_inside<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let net = self
            .namespaces
            .net
            .try_clone()
            .doing("duplicate a namespace descriptor")?;
        blocking(move || {
            on_a_thread(|| -> Result<T> {
                sys::setns(net.as_fd(), libc::CLONE_NEWNET).doing("enter a pod's network")?;
                Ok(f())
            })?
        })
        .await
    }

    /// Connects to `addr` from inside the pod (port-forward: 127.0.0.1), giving up after ten seconds.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connect_inside(&self, addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let connect = move || -> io::Result<std::net::TcpStream> {
            let stream = std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(10))?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        let stream = self.run_inside(connect).await.map_err(io::Error::other)??;
        tokio::net::TcpStream::from_std(stream)
    }

    /// Removes the pod from the bridge at once and lets its namespaces go. Containers should have been
    /// ended before; their processes keep the namespaces alive otherwise.
    ///
    /// # Errors
    /// The interface could not be deleted.
    pub async fn destroy(self) -> Result<()> {
        if self.network.host {
            return Ok(());
        }
        blocking(move || Links::open()?.delete(&self.network.cable())).await
    }
}

/// Runs in the pod's network namespace; `node` still speaks to the node's.
fn connect(network: &PodNetwork, node: &mut Links, bridge: u32, pod: BorrowedFd<'_>) -> Result<()> {
    let near = network.cable();
    let far = End {
        name: "eth0",
        mac: Some(mac(network.ip)),
    };
    match node.create_veth(
        &End {
            name: &near,
            mac: None,
        },
        Some(bridge),
        &far,
        pod,
    ) {
        Err(e) if e.errno() == Some(libc::EEXIST) => {
            return Err(Error::Invalid(format!(
                "pod {}: address {} is in use by another pod of this node",
                network.name, network.ip
            )));
        }
        other => other?,
    }
    let mut inside = Links::open()?;
    let eth0 = links::index("eth0")?;
    inside.up(eth0, true)?;
    inside.add_address(eth0, Cidr::new(network.ip, network.prefix), false)?;
    inside.add_route(Cidr::new(network.gateway, 32), &Via::Link(eth0), None)?;
    inside.add_route(
        Cidr::new(Ipv4Addr::UNSPECIFIED, 0),
        &Via::Gateway(network.gateway, eth0),
        None,
    )
}

/// Runs `f` on a thread of its own, whose namespaces it may change.
pub(crate) fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .stack_size(256 << 10)
            .spawn_scoped(scope, f);
        thread
            .doing("start a thread")?
            .join()
            .map_err(|_| Error::Invalid("a namespace thread panicked".into()))
    })
}

/// Runs blocking work on tokio's threads for that.
pub(crate) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(e) => Err(Error::Invalid(format!("blocking work did not finish: {e}"))),
    }
}
