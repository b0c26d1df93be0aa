//! Taking configuration in use: compile, warm, swap, and open or close sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use dataplane::address::Address;
use dataplane::cluster::{Discovery, HostSet};
use parking_lot::Mutex;
use runtime::CancellationToken;
use tokio::sync::Notify;
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener as ListenerMessage;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::prost_types::Any;
use xds::type_url;

use super::kept::Kept;
use super::listener::Listener;
use super::routes::Routes;
use super::{Shared, Snapshot};
use crate::http::filters::{FilterContext, HttpFilter};
use crate::memory::Trimmer;
use crate::stats::Gauge;
use crate::stats::groups::{ClusterManagerStats, ListenerManagerStats};
use crate::upstream::Cluster;
use crate::upstream::cluster::join;
use crate::worker::Handle;
use crate::xds_client::ads::{Interests, Received, Sink};

/// Endpoints as they came.
#[derive(Clone)]
pub struct Endpoints {
    /// The message, for dumps.
    pub message: Kept<ClusterLoadAssignment>,
    /// The version the server gave it.
    pub version: String,
    /// When it came.
    pub updated: SystemTime,
    /// Compiled.
    pub set: Arc<HostSet>,
}

/// An update that was refused.
#[derive(Clone)]
pub struct Refused {
    /// Why.
    pub details: String,
    /// The version that was refused.
    pub version: String,
    /// When.
    pub at: SystemTime,
}

/// A listening socket.
struct Socket {
    address: SocketAddr,
    stop: CancellationToken,
}

/// Everything that came, in use or not yet.
#[derive(Default)]
pub struct State {
    /// Clusters in use.
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Clusters that wait for their endpoints.
    pub warming_clusters: BTreeMap<String, Arc<Cluster>>,
    /// Names of clusters of the bootstrap.
    pub static_clusters: BTreeSet<String>,
    /// Endpoints by EDS name.
    pub endpoints: BTreeMap<String, Endpoints>,
    /// Route tables of RDS.
    pub routes: BTreeMap<String, Arc<Routes>>,
    /// Listeners in use.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Listeners that wait for routes or certificates.
    pub warming_listeners: BTreeMap<String, Arc<Listener>>,
    /// Refused listeners by name.
    pub refused_listeners: BTreeMap<String, Refused>,
    /// Refused clusters by name.
    pub refused_clusters: BTreeMap<String, Refused>,
    /// The last version of a type.
    pub versions: HashMap<&'static str, String>,
    /// Secrets that do not come over ADS.
    pub local_secrets: BTreeSet<String>,
    sockets: HashMap<(String, SocketAddr), Socket>,
    /// LDS was applied once.
    listeners_came: bool,
    /// New connections are not taken any more; `true`: only inbound ones are not.
    stopped: Option<bool>,
}

impl State {
    /// The address a listener is really on, for port 0.
    pub fn listening(&self, name: &str) -> Option<SocketAddr> {
        self.sockets
            .iter()
            .find(|((listener, _), _)| listener == name)
            .map(|(_, socket)| socket.address)
    }
}

/// Takes configuration in use.
pub struct Manager {
    /// What the parts of the proxy share.
    pub shared: Arc<Shared>,
    workers: Vec<Handle>,
    state: Mutex<State>,
    changed: Arc<Notify>,
    trimmer: Trimmer,
    runtime: tokio::runtime::Handle,
    clusters: Arc<ClusterManagerStats>,
    listeners: Arc<ListenerManagerStats>,
    /// Waits for ADS before it calls itself live.
    dynamic: bool,
    this: std::sync::Weak<Manager>,
}

impl Manager {
    /// A manager with nothing in use. Must be called inside of the main runtime. `dynamic`: more will come over ADS.
    pub fn new(shared: Arc<Shared>, workers: Vec<Handle>, dynamic: bool) -> Arc<Self> {
        let clusters = shared.stats.group::<ClusterManagerStats>("cluster_manager");
        let listeners = shared
            .stats
            .group::<ListenerManagerStats>("listener_manager");
        Arc::new_cyclic(|this| Self {
            shared,
            workers,
            state: Mutex::default(),
            changed: Arc::default(),
            trimmer: Trimmer::default(),
            runtime: tokio::runtime::Handle::current(),
            clusters,
            listeners,
            dynamic,
            this: this.clone(),
        })
    }

    /// Looks at everything.
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Takes a secret in use that comes from here, not over ADS.
    ///
    /// # Errors
    /// When its contents are no certificates or key.
    pub fn set_local_secret(&self, secret: Secret, version: &str) -> Result<(), String> {
        let mut state = self.state.lock();
        state.local_secrets.insert(secret.name.clone());
        self.shared
            .secrets
            .set(secret, version)
            .map_err(|error| error.to_string())?;
        self.warm(&mut state);
        self.publish(&state);
        Ok(())
    }

    /// Names a secret that will come from here.
    pub fn expect_local_secret(&self, name: &str) {
        self.state.lock().local_secrets.insert(name.to_owned());
    }

    /// Takes the clusters and listeners of a bootstrap in use.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn apply_static(
        &self,
        clusters: Vec<Kept<ClusterMessage>>,
        listeners: Vec<Kept<ListenerMessage>>,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        for kept in clusters {
            let message = kept.read();
            self.add_cluster(&mut state, &message, kept, "")
                .map_err(|error| format!("cluster {}: {error}", message.name))?;
            state.static_clusters.insert(message.name);
        }
        for mut kept in listeners {
            let mut message = kept.read();
            if message.name.is_empty() {
                message.name = format!("listener-{}", uuid::Uuid::new_v4());
                kept = Kept::of(&message);
            }
            self.add_listener(&mut state, &message, kept, "", true)
                .map_err(|error| format!("listener {}: {error}", message.name))?;
        }
        if !self.dynamic {
            state.listeners_came = true;
        }
        self.warm(&mut state);
        self.publish(&state);
        self.trimmer.changed(&self.runtime);
        Ok(())
    }

    fn add_cluster(
        &self,
        state: &mut State,
        message: &ClusterMessage,
        kept: Kept<ClusterMessage>,
        version: &str,
    ) -> Result<(), String> {
        let name = message.name.clone();
        let current = state
            .warming_clusters
            .get(&name)
            .or_else(|| state.clusters.get(&name));
        if current.is_some_and(|current| current.message.is(&kept, message)) {
            return Ok(());
        }
        let counter = match current {
            Some(_) => &self.clusters.cluster_modified,
            None => &self.clusters.cluster_added,
        };
        let shared = &self.shared;
        let cluster = Cluster::new(
            message,
            kept,
            version,
            &shared.stats,
            &shared.secrets,
            shared.mark,
        )?;
        counter.inc();
        let ready = match &cluster.config.discovery {
            Discovery::Eds(service) => match state.endpoints.get(service) {
                Some(endpoints) => {
                    cluster.set_members(endpoints.set.clone());
                    true
                }
                None => false,
            },
            Discovery::StrictDns | Discovery::LogicalDns => {
                self.resolve(&cluster);
                false
            }
            _ => true,
        };
        self.look_after(&cluster, message);
        if ready {
            activate(state, cluster);
        } else {
            state.warming_clusters.insert(name, cluster);
        }
        Ok(())
    }

    fn remove_cluster(&self, state: &mut State, name: &str) {
        if state.static_clusters.contains(name) {
            return;
        }
        state.refused_clusters.remove(name);
        let gone = [
            state.warming_clusters.remove(name),
            state.clusters.remove(name),
        ];
        for cluster in gone.into_iter().flatten() {
            cluster.remove();
            self.clusters.cluster_removed.inc();
            let prefix = format!("cluster.{}", cluster.config.stat_name);
            self.shared.stats.remove(&prefix);
        }
    }

    /// The timers of a cluster.
    fn look_after(&self, cluster: &Arc<Cluster>, message: &ClusterMessage) {
        if let Some(outlier) = &cluster.config.outlier {
            let interval = outlier.interval.max(Duration::from_millis(1));
            let cluster = Arc::downgrade(cluster);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    cluster.sweep_outliers();
                }
            });
        }
        if matches!(
            cluster.config.discovery,
            Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy
        ) {
            let age = dataplane::cluster::duration(message.cleanup_interval.as_ref())
                .unwrap_or(Duration::from_secs(5))
                .max(Duration::from_secs(1));
            if age > Duration::from_secs(86_400 * 365) {
                return;
            }
            let cluster = Arc::downgrade(cluster);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(age).await;
                    let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    cluster.forget_original(age);
                }
            });
        }
    }

    /// Keeps resolving the names of a cluster.
    fn resolve(&self, cluster: &Arc<Cluster>) {
        let weak = Arc::downgrade(cluster);
        let manager = self.this.clone();
        self.runtime.spawn(async move {
            let mut first = true;
            loop {
                let (refresh, set, logical) = {
                    let Some(cluster) = weak.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    let Some(set) = cluster.config.assignment.clone() else {
                        return;
                    };
                    (
                        cluster.config.dns.refresh,
                        set,
                        cluster.config.discovery == Discovery::LogicalDns,
                    )
                };
                let mut answers: HashMap<String, Vec<IpAddr>> = HashMap::new();
                let mut failed = false;
                for host in &set.hosts {
                    let Address::Name { host, port } = &host.address else {
                        continue;
                    };
                    match tokio::net::lookup_host((host.as_str(), *port)).await {
                        Ok(found) => {
                            let mut found: Vec<IpAddr> =
                                found.map(|address| address.ip()).collect();
                            found.dedup();
                            if found.iter().any(IpAddr::is_ipv4) {
                                found.retain(IpAddr::is_ipv4);
                            }
                            if logical {
                                found.truncate(1);
                            }
                            answers.insert(host.clone(), found);
                        }
                        Err(_) => failed = true,
                    }
                }
                let Some(cluster) = weak.upgrade() else {
                    return;
                };
                cluster.stats.config.update_attempt.inc();
                if failed && !first {
                    // Better the old addresses than none.
                    cluster.stats.config.update_failure.inc();
                } else {
                    cluster.stats.config.update_success.inc();
                    let resolved =
                        set.resolved(&mut |name| answers.get(name).cloned().unwrap_or_default());
                    let same = {
                        let members = cluster.members.load();
                        **members.balancer.hosts() == resolved && !first
                    };
                    if !same {
                        cluster.set_members(Arc::new(resolved));
                    }
                }
                if first {
                    first = false;
                    let Some(manager) = manager.upgrade() else {
                        return;
                    };
                    let mut state = manager.state.lock();
                    let waiting = state
                        .warming_clusters
                        .get(cluster.name())
                        .is_some_and(|other| other.id == cluster.id);
                    if waiting && let Some(cluster) = state.warming_clusters.remove(cluster.name())
                    {
                        activate(&mut state, cluster);
                        manager.publish(&state);
                    }
                }
                drop(cluster);
                tokio::time::sleep(refresh.max(Duration::from_millis(500))).await;
            }
        });
    }

    fn add_listener(
        &self,
        state: &mut State,
        message: &ListenerMessage,
        kept: Kept<ListenerMessage>,
        version: &str,
        fixed: bool,
    ) -> Result<(), String> {
        let stopped = match state.stopped {
            Some(inbound_only) => !inbound_only || message.traffic_direction == 1,
            None => false,
        };
        if stopped {
            return Ok(());
        }
        let name = message.name.clone();
        let current = state
            .warming_listeners
            .get(&name)
            .or_else(|| state.listeners.get(&name));
        if let Some(current) = current {
            if current.message.is(&kept, message) {
                return Ok(());
            }
            self.listeners.listener_modified.inc();
        } else {
            self.listeners.listener_added.inc();
        }
        // Log files are flushed by tasks of the main runtime, whoever brings the configuration.
        let _entered = self.runtime.enter();
        let active = state.listeners.get(&name).map(|listener| &**listener);
        let listener = Listener::compile(message, kept, version, &self.shared, fixed, active)?;
        for routes in listener.inline_routes() {
            // Routes in a listener may only name clusters that exist, unless they say otherwise.
            if !routes.validate_clusters {
                continue;
            }
            let known = |name: &str| {
                state.clusters.contains_key(name) || state.warming_clusters.contains_key(name)
            };
            if let Some(name) = routes.table.clusters().find(|name| !known(name)) {
                return Err(format!("route: unknown cluster '{name}'"));
            }
        }
        if listener.bind {
            for address in
                std::iter::once(listener.address).chain(listener.additional.iter().copied())
            {
                self.open(state, &name, address)?;
            }
        }
        state.refused_listeners.remove(&name);
        state.warming_listeners.insert(name, listener);
        Ok(())
    }

    /// Opens a socket, once; workers find out what to do with a connection when it comes.
    fn open(&self, state: &mut State, name: &str, address: SocketAddr) -> Result<(), String> {
        let key = (name.to_owned(), address);
        // Without workers there is nobody to serve: the configuration is only looked at.
        if self.workers.is_empty() || state.sockets.contains_key(&key) {
            return Ok(());
        }
        let _entered = self.runtime.enter();
        let socket = crate::listener::bind(address, 1024).map_err(|error| {
            self.listeners.listener_create_failure.inc();
            let text = error.to_string();
            format!(
                "cannot bind '{address}': {}",
                text.split(" (os error").next().unwrap_or_default()
            )
        })?;
        self.listeners.listener_create_success.inc();
        let local = socket.local_addr().unwrap_or(address);
        if address.port() == 0 {
            tracing::info!("listener {name} is on {local}");
        }
        let stop = CancellationToken::new();
        for worker in &self.workers {
            let (name, stop, shared) = (name.to_owned(), stop.clone(), self.shared.clone());
            let Ok(socket) = socket.try_clone() else {
                continue;
            };
            worker.run(move |worker| {
                tokio::task::spawn_local(crate::listener::accept(
                    worker, shared, name, socket, stop,
                ));
            });
        }
        state.sockets.insert(
            key,
            Socket {
                address: local,
                stop,
            },
        );
        Ok(())
    }

    /// The address a listener is really on, for port 0.
    pub fn listening(&self, name: &str) -> Option<SocketAddr> {
        self.state.lock().listening(name)
    }

    fn remove_listener(&self, state: &mut State, name: &str) {
        if state
            .listeners
            .get(name)
            .is_some_and(|listener| listener.fixed)
        {
            return;
        }
        state.refused_listeners.remove(name);
        state.warming_listeners.remove(name);
        if let Some(listener) = state.listeners.remove(name) {
            self.drain(&listener, None);
            self.listeners.listener_removed.inc();
        }
        close_sockets(state, name, &[]);
    }

    /// Lets the connections of a listener drain that is replaced or removed; where only filter chains changed `in_place`, those of
    /// the chains that are gone, which are asked to close whatever the policy.
    fn drain(&self, old: &Listener, in_place: Option<&Listener>) {
        let mut chains = 0;
        for chain in old.all_chains() {
            let stays =
                in_place.is_some_and(|new| new.all_chains().any(|kept| Arc::ptr_eq(kept, chain)));
            if !stays {
                chain.drain.begin(in_place.is_some());
                chains += 1;
            }
        }
        let stats = self.listeners.clone();
        let draining: fn(&ListenerManagerStats) -> &Gauge = match in_place {
            Some(_) => {
                stats.listener_in_place_updated.inc();
                |stats| &stats.total_filter_chains_draining
            }
            None => {
                chains = 1;
                |stats| &stats.total_listeners_draining
            }
        };
        (0..chains).for_each(|_| draining(&stats).inc());
        let time = self.shared.drain_policy.time;
        self.runtime.spawn(async move {
            tokio::time::sleep(time).await;
            (0..chains).for_each(|_| draining(&stats).dec());
        });
    }

    /// Takes no new connections any more, on inbound listeners or on all, those that come later included.
    pub fn stop_listeners(&self, inbound_only: bool) {
        let mut state = self.state.lock();
        state.stopped = Some(inbound_only && state.stopped != Some(false));
        for ((name, _), socket) in &state.sockets {
            let inbound = || {
                state
                    .listeners
                    .get(name)
                    .is_some_and(|on| on.direction == 1)
            };
            if (!inbound_only || inbound()) && !socket.stop.is_cancelled() {
                socket.stop.cancel();
                self.listeners.listener_stopped.inc();
            }
        }
    }

    /// Brings listeners into use that have what they wait for.
    fn warm(&self, state: &mut State) {
        let ready: Vec<String> = state
            .warming_listeners
            .iter()
            .filter(|(_, listener)| {
                listener
                    .route_names()
                    .all(|name| state.routes.contains_key(name))
                    && listener
                        .extension_names()
                        .all(|name| self.shared.extensions.read().contains_key(name))
                    && listener
                        .secret_names()
                        .all(|name| self.shared.secrets.get(name).is_some())
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some(listener) = state.warming_listeners.remove(&name) else {
                continue;
            };
            let addresses: Vec<SocketAddr> = if listener.bind {
                std::iter::once(listener.address)
                    .chain(listener.additional.iter().copied())
                    .collect()
            } else {
                Vec::new()
            };
            if let Some(old) = state.listeners.insert(name.clone(), listener.clone()) {
                self.drain(&old, Some(&*listener).filter(|new| new.in_place));
            }
            close_sockets(state, &name, &addresses);
        }
    }

    /// Shows the state to the workers.
    fn publish(&self, state: &State) {
        let mut by_address = HashMap::new();
        for listener in state.listeners.values() {
            by_address.insert(listener.address, listener.clone());
            for address in &listener.additional {
                by_address.insert(*address, listener.clone());
            }
        }
        let mut routes: HashMap<String, Arc<Routes>> = HashMap::with_capacity(state.routes.len());
        routes.extend(
            state
                .routes
                .iter()
                .map(|(name, routes)| (name.clone(), routes.clone())),
        );
        let snapshot = Snapshot {
            clusters: state
                .clusters
                .values()
                .map(|cluster| (cluster.config.name.clone(), cluster.clone()))
                .collect(),
            routes,
            listeners: state
                .listeners
                .iter()
                .map(|(name, listener)| (name.clone(), listener.clone()))
                .collect(),
            by_address,
        };
        self.shared.snapshot.store(Arc::new(snapshot));
        self.clusters
            .active_clusters
            .set(state.clusters.len() as u64);
        self.clusters
            .warming_clusters
            .set(state.warming_clusters.len() as u64);
        self.listeners
            .total_listeners_active
            .set(state.listeners.len() as u64);
        self.listeners
            .total_listeners_warming
            .set(state.warming_listeners.len() as u64);
        let complete = state.listeners_came
            && state.warming_listeners.is_empty()
            && state.warming_clusters.is_empty();
        if complete && self.shared.state.load(Ordering::Relaxed) >= 2 {
            self.shared.state.store(0, Ordering::Relaxed);
            self.shared.server.live.set(1);
            self.shared
                .server
                .initialization_time_ms
                .record(self.shared.started.elapsed().as_millis() as u64);
            self.listeners.workers_started.set(1);
            tracing::info!("ready after {:?}", self.shared.started.elapsed());
        }
    }

    fn apply_clusters(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        self.clusters.cds_update_attempt.inc();
        for resource in updated {
            let outcome = decode(resource.body).and_then(|(message, kept)| {
                self.add_cluster(state, &message, kept, &resource.version)
            });
            match outcome {
                Ok(()) => {
                    state.refused_clusters.remove(&resource.name);
                }
                Err(error) => {
                    let details = error.clone();
                    refused.push(format!("{}: {error}", resource.name));
                    state.refused_clusters.insert(
                        resource.name,
                        Refused {
                            details,
                            version: resource.version,
                            at: SystemTime::now(),
                        },
                    );
                }
            }
        }
        for name in removed {
            self.remove_cluster(state, &name);
        }
        if refused.is_empty() {
            self.clusters.cds_update_success.inc();
            Ok(())
        } else {
            self.clusters.cds_update_rejected.inc();
            Err(format!(
                "Error adding/updating cluster(s) {}",
                refused.join(", ")
            ))
        }
    }

    fn apply_listeners(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        self.listeners.lds_update_attempt.inc();
        // Removals first: a listener may take over the address of one that goes.
        for name in removed {
            self.remove_listener(state, &name);
        }
        for resource in updated {
            let outcome = decode(resource.body).and_then(|(message, kept)| {
                self.add_listener(state, &message, kept, &resource.version, false)
            });
            if let Err(error) = outcome {
                refused.push(format!("{}: {error}", resource.name));
                let entry = Refused {
                    details: error,
                    version: resource.version,
                    at: SystemTime::now(),
                };
                state.refused_listeners.insert(resource.name, entry);
            }
        }
        state.listeners_came = true;
        self.warm(state);
        if refused.is_empty() {
            self.listeners.lds_update_success.inc();
            Ok(())
        } else {
            self.listeners.lds_update_rejected.inc();
            Err(format!(
                "Error adding/updating listener(s) {}",
                refused.join(", ")
            ))
        }
    }

    fn apply_endpoints(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: &[String],
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        for resource in updated {
            let compiled =
                decode(resource.body).and_then(|(message, kept): (ClusterLoadAssignment, _)| {
                    HostSet::compile(&message)
                        .map(|set| (message.cluster_name, kept, set))
                        .map_err(|errors| join(&errors))
                });
            match compiled {
                Ok((name, message, set)) => {
                    let set = Arc::new(set);
                    let endpoints = Endpoints {
                        message,
                        version: resource.version,
                        updated: SystemTime::now(),
                        set: set.clone(),
                    };
                    state.endpoints.insert(name.clone(), endpoints);
                    set_endpoints(state, &name, &set);
                }
                Err(error) => refused.push(format!("{}: {error}", resource.name)),
            }
        }
        for name in removed {
            state.endpoints.remove(name);
            set_endpoints(state, name, &Arc::default());
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join(", "))
        }
    }

    fn apply_routes(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: &[String],
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        for resource in updated {
            let compiled = decode(resource.body).and_then(|(message, kept)| {
                Routes::compile(&message, Some(kept), &resource.version)
            });
            match compiled {
                Ok(routes) => {
                    state.routes.insert(routes.name.clone(), routes);
                }
                Err(error) => refused.push(format!("{}: {error}", resource.name)),
            }
        }
        for name in removed {
            state.routes.remove(name);
        }
        self.warm(state);
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join(", "))
        }
    }

    fn apply_extensions(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: &[String],
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        let mut changed = Vec::new();
        let context = FilterContext {
            shared: &self.shared,
            stat_prefix: "",
            direction: 0,
        };
        for resource in updated {
            let outcome =
                decode(resource.body).and_then(|(config, _): (TypedExtensionConfig, _)| {
                    let any = config
                        .typed_config
                        .as_ref()
                        .ok_or("typed_config is missing")?;
                    let any = super::listener::unwrap_struct(any)?;
                    HttpFilter::compile(&any, &context)?;
                    Ok((any, config))
                });
            match outcome {
                Ok((any, config)) => {
                    changed.push((config.name.clone(), any));
                    let mut extensions = self.shared.extensions.write();
                    extensions.insert(config.name.clone(), (config, resource.version));
                }
                Err(error) => refused.push(format!("{}: {error}", resource.name)),
            }
        }
        for name in removed {
            self.shared.extensions.write().remove(name);
        }
        for (name, settings) in &changed {
            let using = state
                .listeners
                .values()
                .chain(state.warming_listeners.values());
            for listener in using {
                if let Err(error) = listener.discovered(name, settings, &self.shared) {
                    refused.push(format!("{}: {error}", listener.name));
                }
            }
        }
        self.warm(state);
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join(", "))
        }
    }

    fn apply_secrets(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: &[String],
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        for resource in updated {
            let outcome = decode(resource.body).and_then(|(secret, _): (Secret, _)| {
                self.shared
                    .secrets
                    .set(secret, &resource.version)
                    .map_err(|error| error.to_string())
            });
            if let Err(error) = outcome {
                refused.push(format!("{}: {error}", resource.name));
            }
        }
        for name in removed {
            self.shared.secrets.remove(name);
        }
        self.warm(state);
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join(", "))
        }
    }
}

fn decode<M: xds::Resource>(body: Any) -> Result<(M, Kept<M>), String> {
    let message = M::from_wire(&body.value).map_err(|error| error.to_string())?;
    if message.resource_name().is_empty() {
        return Err("it has no name".into());
    }
    Ok((message, Kept::encoded(body.value)))
}

fn activate(state: &mut State, cluster: Arc<Cluster>) {
    let name = cluster.name().to_owned();
    if let Some(old) = state.clusters.insert(name, cluster) {
        // Its idle connections close; requests that use it end regularly.
        old.remove();
    }
}

fn set_endpoints(state: &mut State, service: &str, set: &Arc<HostSet>) {
    let is = |cluster: &Arc<Cluster>| matches!(&cluster.config.discovery, Discovery::Eds(name) if name == service);
    for cluster in state.clusters.values().filter(|cluster| is(cluster)) {
        cluster.set_members(set.clone());
        cluster.stats.config.update_success.inc();
    }
    let warm: Vec<String> = state
        .warming_clusters
        .iter()
        .filter(|(_, cluster)| is(cluster))
        .map(|(name, _)| name.clone())
        .collect();
    for name in warm {
        if let Some(cluster) = state.warming_clusters.remove(&name) {
            cluster.set_members(set.clone());
            cluster.stats.config.update_success.inc();
            activate(state, cluster);
        }
    }
}

fn close_sockets(state: &mut State, name: &str, keep: &[SocketAddr]) {
    state.sockets.retain(|(listener, address), socket| {
        let close = listener == name && !keep.contains(address);
        if close {
            socket.stop.cancel();
        }
        !close
    });
}

impl Sink for Manager {
    fn apply(
        &self,
        url: &str,
        version: &str,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        let warming = state.warming_clusters.len();
        let outcome = match url {
            type_url::CLUSTER => self.apply_clusters(&mut state, updated, removed),
            type_url::LISTENER => self.apply_listeners(&mut state, updated, removed),
            type_url::ENDPOINT => self.apply_endpoints(&mut state, updated, &removed),
            type_url::ROUTE => self.apply_routes(&mut state, updated, &removed),
            type_url::SECRET => self.apply_secrets(&mut state, updated, &removed),
            type_url::EXTENSION_CONFIG => self.apply_extensions(&mut state, updated, &removed),
            other => return Err(format!("{other} is not supported")),
        };
        let known = [
            type_url::CLUSTER,
            type_url::LISTENER,
            type_url::ENDPOINT,
            type_url::ROUTE,
            type_url::SECRET,
            type_url::EXTENSION_CONFIG,
        ];
        if let Some(url) = known.into_iter().find(|known| *known == url) {
            state.versions.insert(url, version.to_owned());
        }
        // A cluster in use has got its members already; all else is as it was, unless one has become warm.
        if url != type_url::ENDPOINT || state.warming_clusters.len() != warming {
            self.publish(&state);
        }
        self.trimmer.changed(&self.runtime);
        outcome
    }

    fn interests(&self) -> Interests {
        let state = self.state.lock();
        let all_clusters = || {
            state
                .clusters
                .values()
                .chain(state.warming_clusters.values())
        };
        let all_listeners = || {
            state
                .listeners
                .values()
                .chain(state.warming_listeners.values())
        };
        let endpoints = all_clusters()
            .filter_map(|cluster| match &cluster.config.discovery {
                Discovery::Eds(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let routes = all_listeners()
            .flat_map(|listener| listener.route_names())
            .map(str::to_owned)
            .collect();
        let extensions = all_listeners()
            .flat_map(|listener| listener.extension_names())
            .map(str::to_owned)
            .collect();
        let secrets = all_clusters()
            .flat_map(|cluster| cluster.secret_names())
            .chain(all_listeners().flat_map(|listener| listener.secret_names()))
            .filter(|name| !state.local_secrets.contains(*name))
            .map(str::to_owned)
            .collect();
        HashMap::from([
            (type_url::ENDPOINT, endpoints),
            (type_url::ROUTE, routes),
            (type_url::SECRET, secrets),
            (type_url::EXTENSION_CONFIG, extensions),
        ])
    }

    fn versions(&self, url: &str) -> BTreeMap<String, String> {
        let state = self.state.lock();
        match url {
            type_url::CLUSTER => state
                .clusters
                .iter()
                .chain(&state.warming_clusters)
                .filter(|(name, _)| !state.static_clusters.contains(*name))
                .map(|(name, cluster)| (name.clone(), cluster.version.clone()))
                .collect(),
            type_url::LISTENER => state
                .listeners
                .iter()
                .chain(&state.warming_listeners)
                .filter(|(_, listener)| !listener.fixed)
                .map(|(name, listener)| (name.clone(), listener.version.clone()))
                .collect(),
            type_url::ENDPOINT => state
                .endpoints
                .iter()
                .map(|(name, entry)| (name.clone(), entry.version.clone()))
                .collect(),
            type_url::ROUTE => state
                .routes
                .iter()
                .map(|(name, routes)| (name.clone(), routes.version.clone()))
                .collect(),
            type_url::SECRET => self
                .shared
                .secrets
                .all()
                .into_iter()
                .filter(|(name, _)| !state.local_secrets.contains(name))
                .map(|(name, entry)| (name, entry.version.clone()))
                .collect(),
            type_url::EXTENSION_CONFIG => self
                .shared
                .extensions
                .read()
                .iter()
                .map(|(name, (_, version))| (name.clone(), version.clone()))
                .collect(),
            _ => BTreeMap::new(),
        }
    }

    fn connected(&self, up: bool) {
        tracing::debug!("xDS stream is {}", if up { "up" } else { "down" });
    }

    fn interests_changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }
}
