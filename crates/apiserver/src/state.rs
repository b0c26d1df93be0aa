//! What all requests share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use runtime::CancellationToken;

use crate::admission::service::Allocator;
use crate::authn::Tokens;
use crate::registry::{Registry, Resource};
use crate::storage::{Key, Storage};

/// The server behind all connections.
pub(crate) struct Server {
    pub storage: Arc<Storage>,
    pub rbac: crate::authz::Rbac,
    pub registry: RwLock<Arc<Registry>>,
    pub tokens: Tokens,
    pub allocator: Allocator,
    pub kubelet: KubeletClient,
    pub counters: Arc<Counters>,
    pub shutdown: CancellationToken,
    pub turns: Turns,
    pub readings: crate::metrics_api::Readings,
    pub webhooks: crate::outbound::Pool,
    pub flow: Arc<crate::flow::Flow>,
    pub aggregator: crate::aggregation::Aggregator,
    /// Authority of client certificates, which extension servers are told.
    pub client_ca_pem: String,
    /// Where this server is reached by the cluster.
    pub advertise: SocketAddr,
}

/// Where writers that lost a race for one object queue up, so that none of many is starved.
pub(crate) struct Turns(Vec<tokio::sync::Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..64).map(|_| tokio::sync::Mutex::default()).collect())
    }
}

impl Turns {
    /// Waits for one's turn at an object (objects share queues, which does no harm).
    pub async fn wait(&self, key: &Key) -> tokio::sync::MutexGuard<'_, ()> {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        key.hash(&mut hasher);
        let n = usize::try_from(hasher.finish() % 64).unwrap_or(0);
        self.0[n].lock().await
    }
}

/// How kubelets are reached.
pub(crate) struct KubeletClient {
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub port: u16,
}

impl Server {
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().clone()
    }

    /// Who may do what at this moment.
    pub fn rights(&self) -> Arc<crate::authz::Rights> {
        self.rbac.rights(self.storage.cache())
    }

    /// Looks at the definitions again.
    pub fn rebuild_registry(&self) {
        // One at a time, so that a slower one cannot put an older picture over a newer.
        let mut registry = self.registry.write();
        *registry = Arc::new(crate::crd::registry(self, &registry));
    }

    /// What must have happened when a write is answered: a new kind is served at once.
    pub fn after_write(&self, resource: &Resource) {
        if crate::crd::is_definition(resource) {
            self.rebuild_registry();
        }
    }
}

/// Counters of `/metrics`.
#[derive(Default)]
pub(crate) struct Counters {
    /// Requests by (verb, resource, code).
    pub requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    pub connections: AtomicI64,
    pub watches: AtomicI64,
    pub webhook_calls: AtomicU64,
}

/// Counts one open watch for as long as it lives.
pub(crate) struct Watching(Arc<Counters>);

impl Counters {
    pub fn watching(self: &Arc<Self>) -> Watching {
        self.watches.fetch_add(1, Ordering::Relaxed);
        Watching(self.clone())
    }

    pub fn answered(&self, verb: &str, resource: &str, code: u16) {
        *self
            .requests
            .lock()
            .entry((verb.to_owned(), resource.to_owned(), code))
            .or_default() += 1;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// The present moment as `metav1.Time` shows it.
pub(crate) fn now() -> String {
    api::time::rfc3339(api::time::Time::now_utc())
}
