//! Configuration at work: compiled, immutable, swapped as a whole. A request keeps what it began with.

pub mod drain;
pub mod kept;
pub mod listener;
pub mod manager;
pub mod routes;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use dataplane::drain::DrainPolicy;
use xds::envoy::config::core::v3::{Node, TypedExtensionConfig};

use crate::access_log::Sinks;
use crate::stats::{Registry, ServerStats};
use crate::tls::secrets::Secrets;
use crate::upstream::Cluster;
use drain::Drain;
use listener::Listener;
use routes::Routes;

/// Everything that is in use at one time.
#[derive(Default)]
pub struct Snapshot {
    /// Clusters by name.
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
    /// Route tables by name.
    pub routes: HashMap<String, Arc<Routes>>,
    /// Listeners by name.
    pub listeners: HashMap<String, Arc<Listener>>,
    /// The same by address, for connections handed over by original destination.
    pub by_address: HashMap<SocketAddr, Arc<Listener>>,
}

/// What the parts of a proxy share.
pub struct Shared {
    /// The configuration now.
    pub snapshot: ArcSwap<Snapshot>,
    /// Statistics.
    pub stats: Arc<Registry>,
    /// `server.*`
    pub server: Arc<ServerStats>,
    /// Certificates.
    pub secrets: Arc<Secrets>,
    /// Access log files.
    pub sinks: Sinks,
    /// Who this proxy is.
    pub node: Node,
    /// What it tells its peers about itself.
    pub identity: Arc<crate::http::istio::Identity>,
    /// When it started.
    pub started: Instant,
    /// The same as a date.
    pub started_at: SystemTime,
    /// The name of this machine, or of the pod.
    pub host_name: String,
    /// Marks of upstream sockets.
    pub mark: Option<u32>,
    /// The number of workers.
    pub concurrency: usize,
    /// 0 live, 1 draining, 2 pre-initializing, 3 initializing: Envoy's numbers.
    pub state: AtomicU8,
    /// `/healthcheck/fail` was called.
    pub health_failed: AtomicBool,
    /// The whole proxy drains.
    pub drain: Drain,
    /// Its inbound listeners do.
    pub drain_inbound: Drain,
    /// How connections drain, and how long those of replaced chains live on.
    pub drain_policy: DrainPolicy,
    /// Settings of filters that come on their own (ECDS), by name, with their versions.
    pub extensions: parking_lot::RwLock<HashMap<String, (TypedExtensionConfig, String)>>,
    /// Who collects spans where a connection manager names nobody: the bootstrap's `tracing`.
    pub tracer: std::sync::OnceLock<Arc<crate::tracer::Tracer>>,
}

impl Shared {
    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<Arc<Cluster>> {
        self.snapshot.load().clusters.get(name).cloned()
    }

    /// The certificate of this workload, as SDS names it.
    pub fn own_certificate(&self) -> Option<Arc<dataplane::stream::Certificate>> {
        let entry = self.secrets.get("default")?;
        let crate::tls::secrets::SecretValue::Identity(identity) = &entry.value else {
            return None;
        };
        crate::tls::session::known_certificate(identity.key.cert.first()?)
    }

    /// The principal of this workload; empty without a certificate.
    pub fn own_principal(&self) -> String {
        self.own_certificate()
            .and_then(|certificate| certificate.uris.first().cloned())
            .unwrap_or_default()
    }

    /// The state's name, as `/ready` says it.
    pub fn state(&self) -> &'static str {
        if self.health_failed.load(Ordering::Relaxed) {
            return "DRAINING";
        }
        match self.state.load(Ordering::Relaxed) {
            0 => "LIVE",
            1 => "DRAINING",
            2 => "PRE_INITIALIZING",
            _ => "INITIALIZING",
        }
    }
}
