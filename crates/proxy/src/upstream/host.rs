//! One host of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use dataplane::cluster::ProxyProtocol;
use dataplane::outlier::HostMonitor;

use crate::stats::{Counter, Gauge};
use crate::tls::client::ClientContext;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Where a host listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Socket(SocketAddr),
    /// A Unix domain socket.
    Pipe(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Pipe(path) => f.write_str(&path.to_string_lossy()),
        }
    }
}

impl Address {
    /// The socket address, unless it is a Unix socket.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }
}

/// How to speak to a host.
#[derive(Clone)]
pub enum Transport {
    /// Plain.
    Raw,
    /// TLS.
    Tls(Arc<ClientContext>),
    /// Its settings broke: no connection can be made.
    Unusable,
}

/// What is counted per host and shown by `/clusters`.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct HostStats {
    pub cx_active: Gauge,
    pub cx_total: Counter,
    pub cx_connect_fail: Counter,
    pub rq_active: Gauge,
    pub rq_pending_active: Gauge,
    pub rq_total: Counter,
    pub rq_success: Counter,
    pub rq_error: Counter,
    pub rq_timeout: Counter,
}

/// One host of a cluster. Lives as long as its address is a member and its transport stays the same.
pub struct Host {
    /// Unique in this process.
    pub id: u64,
    /// Where it listens.
    pub address: Address,
    /// What the control plane says about it.
    pub info: arc_swap::ArcSwap<dataplane::cluster::Host>,
    /// How to speak to it.
    pub transport: Transport,
    /// It is told first who connects.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Its numbers.
    pub stats: HostStats,
    /// Outlier detection has put it aside.
    pub ejected: AtomicBool,
    /// It is no longer a member: its idle connections close.
    pub removed: AtomicBool,
    /// What outlier detection counts.
    pub monitor: HostMonitor,
    /// What the last handshake with it agreed on (`auto_config`): 0 nothing yet, else the version of HTTP.
    agreed: AtomicU8,
    /// When it became a member.
    pub created: std::time::Instant,
    /// The same, since the Unix epoch in seconds, for hosts that come and go (original destination).
    pub last_used: AtomicU64,
}

impl Host {
    /// A new member.
    pub fn new(
        address: Address,
        info: Arc<dataplane::cluster::Host>,
        (transport, proxy_protocol): (Transport, Option<ProxyProtocol>),
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            info: arc_swap::ArcSwap::new(info),
            transport,
            proxy_protocol,
            stats: HostStats::default(),
            ejected: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            monitor: HostMonitor::default(),
            agreed: AtomicU8::new(0),
            created: std::time::Instant::now(),
            last_used: AtomicU64::new(0),
        }
    }

    /// What it speaks, if a handshake has told (`auto_config`): `true` for HTTP/2.
    pub fn agreed(&self) -> Option<bool> {
        match self.agreed.load(Ordering::Relaxed) {
            0 => None,
            version => Some(version == 2),
        }
    }

    /// A handshake has told what it speaks.
    pub fn agree(&self, http2: bool) {
        self.agreed.store(1 + u8::from(http2), Ordering::Relaxed);
    }

    /// Whether outlier detection has put it aside.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether it left the cluster.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }
}
