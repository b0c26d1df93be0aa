//! Capture of a pod's TCP traffic by its sidecar: what `istio-iptables` does, as one nftables table.

use crate::{Cidr, Result};

/// Which ports of a list are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// `*`
    All,
    /// These; none at all when empty.
    Only(Vec<u16>),
}

/// Which destination networks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// `*`
    All,
    /// These; none at all when empty.
    Only(Vec<Cidr>),
}

/// The flags of `istio-iptables`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `-p`: where outbound connections go, 15001.
    pub outbound_port: u16,
    /// `-z`: where inbound connections go, 15006.
    pub inbound_port: u16,
    /// `-e`: HBONE port, never captured, 15008.
    pub tunnel_port: u16,
    /// `-u`: users whose connections are the proxy's own, 1337.
    pub proxy_uids: Vec<u32>,
    /// `-g`: groups likewise, 1337.
    pub proxy_gids: Vec<u32>,
    /// SO_MARK value that marks the proxy's own connections: 0x539 (1337).
    pub proxy_mark: u32,
    /// `-i`: destinations captured.
    pub outbound_networks: Networks,
    /// `-x`: destinations not captured.
    pub outbound_networks_excluded: Vec<Cidr>,
    /// `-q`: ports captured whatever the destination.
    pub outbound_ports: Vec<u16>,
    /// `-o`: ports not captured.
    pub outbound_ports_excluded: Vec<u16>,
    /// `-b`: inbound ports captured.
    pub inbound_ports: Ports,
    /// `-d`: inbound ports not captured, only with `-b *`.
    pub inbound_ports_excluded: Vec<u16>,
    /// `-c`: interfaces whose traffic is not captured.
    pub interfaces_excluded: Vec<String>,
}

impl Redirect {
    /// Parses the arguments of `istio-iptables` (without the program name). Flags that do not concern IPv4 REDIRECT are
    /// accepted when they change nothing here (`--log_output_level=…`); TPROXY and unknown flags are errors.
    pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<Redirect> {
        let _ = args;
        Err(crate::Error::Invalid("not ready".into()))
    }
    /// Installs the rules in the current network namespace in one transaction, replacing earlier ones. Needs CAP_NET_ADMIN.
    pub fn apply(&self) -> Result<()> {
        Ok(())
    }
}

/// Removes the rules (`istio-iptables --cleanup-only`); no rules is not an error.
pub fn remove() -> Result<()> {
    Ok(())
}
