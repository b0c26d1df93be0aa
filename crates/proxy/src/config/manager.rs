//! Taking configuration in use: compile, warm, swap, and open or close sockets.

mod clusters;
mod listeners;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

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
use crate::stats::groups::{ClusterManagerStats, ListenerManagerStats};
use crate::upstream::Cluster;
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

impl Refused {
    fn now(details: String, version: String) -> Self {
        Self {
            details,
            version,
            at: SystemTime::now(),
        }
    }
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

    /// The address a listener is really on, for port 0.
    pub fn listening(&self, name: &str) -> Option<SocketAddr> {
        self.state.lock().listening(name)
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
