//! The proxy as a whole: workers, configuration, management server, admin interface, drain.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use dataplane::drain::DrainPolicy;
use runtime::CancellationToken;
use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use crate::access_log::Sinks;
use crate::admin;
use crate::bootstrap;
use crate::config::drain::Drain;
use crate::config::kept::{Kept, values};
use crate::config::manager::Manager;
use crate::config::{Shared, Snapshot};
use crate::memory;
use crate::stats::tags::Tags;
use crate::stats::{Registry, ServerStats};
use crate::tls::secrets::Secrets;
use crate::tracer::Tracer;
use crate::worker;
use crate::xds_client::{self, TargetSource};

/// The numbers of fields: of a bootstrap, and of its static resources.
const STATIC_RESOURCES: u32 = 2;
const LISTENERS: u32 = 1;
const CLUSTERS: u32 = 2;
const SECRETS: u32 = 3;

/// How to run, apart from the bootstrap.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads; 0 for one per core.
    pub concurrency: usize,
    /// The mark of upstream sockets.
    pub mark: Option<u32>,
    /// How connections of replaced listeners drain.
    pub drain: DrainPolicy,
    /// Serve the admin interface of the bootstrap.
    pub admin: bool,
    /// Open the sockets of listeners; without, the configuration is only compiled.
    pub bind: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 1,
            mark: None,
            drain: DrainPolicy {
                time: Duration::from_secs(600),
                gradual: true,
            },
            admin: true,
            bind: true,
        }
    }
}

/// A running proxy.
pub struct Proxy {
    /// What its parts share.
    pub shared: Arc<Shared>,
    /// Its configuration.
    pub manager: Arc<Manager>,
    /// The bootstrap it was started with, for dumps.
    pub bootstrap: Kept<Bootstrap>,
    /// Cancelled when it shall end.
    pub stop: CancellationToken,
    /// Where the admin interface is.
    pub admin: Option<std::net::SocketAddr>,
    tags: OnceLock<Tags>,
    threads: parking_lot::Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Proxy {
    /// The bootstrap's `stats_config`. It is compiled when statistics are asked for the first time: its expressions are the
    /// largest part of what an idle sidecar would hold.
    pub fn tags(&self) -> &Tags {
        self.tags
            .get_or_init(|| Tags::compile(self.bootstrap.read().stats_config.as_ref()))
    }

    /// Starts a proxy from a bootstrap. Must be called inside of a runtime, which then runs everything but the traffic.
    /// `control` is the management server to use instead of the bootstrap's.
    ///
    /// # Errors
    /// What of the bootstrap cannot be used.
    pub fn start(
        bootstrap: Bootstrap,
        options: &Options,
        control: Option<TargetSource>,
    ) -> Result<Arc<Self>, String> {
        memory::settle();
        let stats = Arc::new(Registry::default());
        let secrets = Arc::new(Secrets::default());
        let node = bootstrap.node.clone().unwrap_or_default();
        let concurrency = match options.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let server = stats.group::<ServerStats>("server");
        server.concurrency.set(concurrency as u64);
        server.state.set(2);
        let shared = Arc::new(Shared {
            host_name: host_name(),
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            server,
            stats,
            secrets: secrets.clone(),
            sinks: Sinks::default(),
            identity: Arc::new(crate::http::istio::Identity::new(&node)),
            node: node.clone(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            mark: options.mark,
            concurrency,
            state: AtomicU8::new(2),
            health_failed: AtomicBool::new(false),
            drain: Drain::default(),
            drain_inbound: Drain::default(),
            drain_policy: options.drain,
            extensions: Default::default(),
            tracer: std::sync::OnceLock::new(),
        });
        #[allow(deprecated)] // it is what Istio's bootstrap still says
        if let Some(http) = bootstrap
            .tracing
            .as_ref()
            .and_then(|tracing| tracing.http.as_ref())
        {
            let tracer =
                Tracer::compile(http, &shared).map_err(|error| format!("tracing.http: {error}"))?;
            let _ = shared.tracer.set(tracer);
        }
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..concurrency {
            let (handle, thread) = worker::start(index)
                .map_err(|error| format!("cannot start a worker thread: {error}"))?;
            workers.push(handle);
            threads.push(thread);
        }
        let server = match control {
            Some(target) => Some((target, xds_client::Mode::Delta)),
            None => bootstrap::management_server(&bootstrap, &secrets, options.mark)?.map(
                |(target, mode)| {
                    let target: TargetSource = Arc::new(move || Ok(target.clone()));
                    (target, mode)
                },
            ),
        };
        let dynamic = server.is_some()
            && bootstrap.dynamic_resources.as_ref().is_some_and(|dynamic| {
                dynamic.lds_config.is_some() || dynamic.cds_config.is_some()
            });
        let manager = Manager::new(
            shared.clone(),
            if options.bind { workers } else { Vec::new() },
            dynamic,
        );
        let kept = Kept::of(&bootstrap);
        let resources = values(kept.bytes(), STATIC_RESOURCES)
            .pop()
            .unwrap_or_default();
        for secret in values(&resources, SECRETS) {
            let secret = Kept::<Secret>::encoded(secret).read();
            let name = secret.name.clone();
            manager
                .set_local_secret(secret, "")
                .map_err(|error| format!("secret {name}: {error}"))?;
        }
        let listener = if options.admin {
            admin::bind(&bootstrap)?
        } else {
            None
        };
        // From here on only the encoding is held.
        drop(bootstrap);
        manager.apply_static(
            values(&resources, CLUSTERS)
                .into_iter()
                .map(Kept::encoded)
                .collect(),
            values(&resources, LISTENERS)
                .into_iter()
                .map(Kept::encoded)
                .collect(),
        )?;
        let stop = CancellationToken::new();
        if let Some((target, mode)) = server.filter(|_| dynamic && options.bind) {
            let sink = manager.clone();
            tokio::spawn(xds_client::run(target, node, mode, sink, stop.clone()));
        }
        let mut proxy = Self {
            shared,
            manager,
            bootstrap: kept,
            stop,
            admin: None,
            tags: OnceLock::new(),
            threads: parking_lot::Mutex::new(threads),
        };
        proxy.admin = listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        let proxy = Arc::new(proxy);
        if let Some(listener) = listener {
            admin::serve(proxy.clone(), listener)?;
        }
        Ok(proxy)
    }

    /// Asks connections to close with one of their next answers, those of inbound listeners or all; whether they were not asked
    /// before.
    pub fn drain(&self, inbound_only: bool) -> bool {
        let shared = &self.shared;
        match inbound_only {
            true => shared.drain_inbound.begin(false),
            false => shared.drain.begin(false),
        }
    }

    /// This proxy is about to end: it drains and is no longer ready.
    pub fn terminate(&self, inbound_only: bool) {
        self.drain(inbound_only);
        self.shared.state.store(1, Ordering::Relaxed);
    }

    /// The number of requests and connections under way, over all listeners.
    pub fn active_connections(&self) -> u64 {
        self.shared
            .snapshot
            .load()
            .listeners
            .values()
            .map(|listener| listener.stats.downstream_cx_active.get())
            .sum()
    }

    /// Where a listener really is, for port 0.
    pub(crate) fn manager_address(
        &self,
        name: &str,
        configured: std::net::SocketAddr,
        state: &crate::config::manager::State,
    ) -> std::net::SocketAddr {
        if configured.port() == 0 {
            state.listening(name).unwrap_or(configured)
        } else {
            configured
        }
    }

    /// Ends: what is waiting to be logged is written.
    pub fn shutdown(&self) {
        self.stop.cancel();
        self.shared.sinks.flush();
        // Workers end with the process; joining them would wait for connections nobody needs any more.
        self.threads.lock().clear();
    }
}

/// The name that the kernel has for this machine.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
