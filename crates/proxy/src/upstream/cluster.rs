//! A cluster at work: its members, its balancer, its limits and its outliers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use dataplane::circuit::Breakers;
use dataplane::cluster::{
    ClusterConfig, Discovery, HostSet, ProxyProtocol, Transport as TransportConfig,
};
use dataplane::lb::{HostLoad, LoadBalancer, PickContext, SubsetUse};
use dataplane::outlier::{Detection, Detector, HostResult, Verdict};
use parking_lot::Mutex;
use xds::envoy::config::cluster::v3::Cluster as Message;

use super::connect::ConnectOptions;
use super::host::{Address, Host, Transport};
use crate::config::kept::Kept;
use crate::stats::{ClusterStats, Registry};
use crate::tls::client::ClientContext;
use crate::tls::secrets::Secrets;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The members of a cluster at one time, and who gets the next request.
pub struct Members {
    /// In the order of [`HostSet::hosts`].
    pub hosts: Vec<Arc<Host>>,
    /// The balancer over them.
    pub balancer: LoadBalancer,
}

struct Load<'a>(&'a [Arc<Host>]);

impl HostLoad for Load<'_> {
    fn active_requests(&self, host: usize) -> u64 {
        self.0
            .get(host)
            .map_or(0, |host| host.stats.rq_active.get())
    }

    fn age(&self, host: usize) -> Duration {
        self.0
            .get(host)
            .map_or(Duration::MAX, |host| host.created.elapsed())
    }
}

/// A cluster at work.
pub struct Cluster {
    /// Unique in this process; a changed cluster of the same name is another one.
    pub id: u64,
    /// The decisions.
    pub config: ClusterConfig,
    /// The message, for dumps and for comparing the next one with it.
    pub message: Kept<Message>,
    /// The version the server gave it; empty for static ones.
    pub version: String,
    /// When it came.
    pub updated: SystemTime,
    /// Its statistics; they outlive it.
    pub stats: Arc<ClusterStats>,
    /// Its limits.
    pub breakers: Arc<Breakers>,
    /// How to open connections.
    pub connect: ConnectOptions,
    /// Its members.
    pub members: ArcSwap<Members>,
    /// TLS contexts by the address of their message, which the configuration keeps alive.
    contexts: Mutex<HashMap<usize, Arc<ClientContext>>>,
    secrets: Arc<Secrets>,
    detector: Mutex<Option<Detector<Address>>>,
    original: Mutex<HashMap<SocketAddr, Arc<Host>>>,
    removed: AtomicBool,
    /// Serialises changes of the members.
    changing: Mutex<Changes>,
    epoch: Instant,
    this: Weak<Self>,
    /// `istio` metadata: the service behind the cluster.
    pub service: Option<Service>,
    /// The filters upstream connections go through that this proxy knows: metadata exchange.
    pub metadata_exchange: bool,
    /// `fail_traffic_on_panic`: nobody rather than somebody who is not healthy.
    fail_on_panic: bool,
}

/// When balancers learn of changes. The first change of health is told at once, those that follow within the merge window
/// only at its end; other changes of the members never wait, and take along what does.
#[derive(Default)]
struct Changes {
    /// When they learnt of the last one.
    told: Option<Instant>,
    /// When they will learn of one that waits.
    due: Option<Instant>,
}

/// The service behind a cluster, as Istio's metadata names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The full name.
    pub host: String,
    /// The short name.
    pub name: String,
    /// The namespace.
    pub namespace: String,
}

impl Cluster {
    /// Compiles a cluster. Its members come later, except for those in the message.
    ///
    /// # Errors
    /// What of it this proxy cannot use.
    pub fn new(
        message: &Message,
        kept: Kept<Message>,
        version: &str,
        stats: &Registry,
        secrets: &Arc<Secrets>,
        mark: Option<u32>,
    ) -> Result<Arc<Self>, String> {
        let config = ClusterConfig::compile(message).map_err(|errors| join(&errors))?;
        for field in dataplane::unread::ignored(message) {
            tracing::warn!(
                "cluster {}: {field} has no effect in this proxy",
                message.name
            );
        }
        // A broken certificate refuses the cluster now, not the first connection later.
        let sockets = message.transport_socket.iter().chain(
            message
                .transport_socket_matches
                .iter()
                .filter_map(|entry| entry.transport_socket.as_ref()),
        );
        for socket in sockets {
            let transport =
                dataplane::cluster::transport(Some(socket)).map_err(|error| error.to_string())?;
            let inner = match &transport {
                TransportConfig::ProxyProtocol(_, inner) => inner,
                other => other,
            };
            if let TransportConfig::Tls(tls) = inner {
                ClientContext::new(tls, secrets.clone()).map_err(|error| error.to_string())?;
            }
        }
        let prefix = format!("cluster.{}", config.stat_name);
        let group = stats.group::<ClusterStats>(&prefix);
        if config.outlier.is_some() {
            group.outlier();
        }
        let connect = ConnectOptions {
            timeout: config.connect_timeout,
            source: config.bind_address,
            keepalive: config.tcp_keepalive.map(|keepalive| {
                let seconds = |time: Option<Duration>| time.map_or(0, |time| time.as_secs() as u32);
                (
                    seconds(keepalive.time),
                    seconds(keepalive.interval),
                    keepalive.probes.unwrap_or(0),
                )
            }),
            mark,
        };
        let empty = Arc::new(HostSet::default());
        let members = Members {
            hosts: Vec::new(),
            balancer: LoadBalancer::new(&config, empty, &|_| false, 0),
        };
        let detector = config.outlier.clone().map(Detector::new);
        let cluster = Arc::new_cyclic(|this| Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            breakers: Breakers::new(config.thresholds),
            service: service(message),
            metadata_exchange: config
                .filters
                .iter()
                .any(|filter| filter == "istio.metadata_exchange"),
            fail_on_panic: fails_on_panic(message),
            message: kept,
            version: version.to_owned(),
            updated: SystemTime::now(),
            stats: group,
            connect,
            members: ArcSwap::from_pointee(members),
            contexts: Mutex::default(),
            secrets: secrets.clone(),
            detector: Mutex::new(detector),
            original: Mutex::default(),
            removed: AtomicBool::new(false),
            changing: Mutex::default(),
            epoch: Instant::now(),
            this: this.clone(),
            config,
        });
        if let Some(set) = &cluster.config.assignment
            && matches!(cluster.config.discovery, Discovery::Static)
        {
            cluster.set_members(set.clone());
        }
        Ok(cluster)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether it was replaced or removed.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Takes it out of use: idle connections close, requests under way end regularly.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        // Its ejections end with it; a cluster of the same name that takes its place counts its own.
        if self.config.outlier.is_some()
            && let Some(stats) = self.stats.outlier().counted()
        {
            stats.ejections_active.set(0);
        }
    }

    /// The names of the secrets its connections need.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.config.secrets.iter().map(String::as_str)
    }

    /// New members. Those that stay keep their connections, numbers and outlier state.
    pub fn set_members(&self, set: Arc<HostSet>) {
        let mut changes = self.changing.lock();
        let before = self.members.load_full();
        changes.due = None;
        changes.told = (!before.hosts.is_empty()).then(Instant::now);
        let mut known: HashMap<&Address, &Arc<Host>> = before
            .hosts
            .iter()
            .map(|host| (&host.address, host))
            .collect();
        let mut hosts = Vec::with_capacity(set.hosts.len());
        for info in &set.hosts {
            let address = match &info.address {
                dataplane::address::Address::Socket(address) => Address::Socket(*address),
                dataplane::address::Address::Pipe(path) => Address::Pipe(path.into()),
                // A name nobody has resolved yet: unreachable until then.
                dataplane::address::Address::Name { .. } => {
                    Address::Socket(SocketAddr::from(([0, 0, 0, 0], 0)))
                }
            };
            let transport = self.transport_of(info);
            match known.remove(&address) {
                Some(host)
                    if host.proxy_protocol == transport.1
                        && same_transport(&host.transport, &transport.0) =>
                {
                    host.info.store(info.clone());
                    hosts.push(host.clone());
                }
                _ => hosts.push(Arc::new(Host::new(address, info.clone(), transport))),
            }
        }
        for host in &before.hosts {
            if !hosts.iter().any(|member| member.id == host.id) {
                host.removed.store(true, Ordering::Relaxed);
            }
        }
        if let Some(detector) = &mut *self.detector.lock() {
            detector.retain(|address| hosts.iter().any(|host| host.address == *address));
        }
        self.stats.config.membership_change.inc();
        self.install(hosts, set);
    }

    fn install(&self, hosts: Vec<Arc<Host>>, set: Arc<HostSet>) {
        let balancer = self.balancer(&hosts, set);
        let stats = &self.stats.config;
        let before = self.members.load().balancer.subsets();
        let subsets = balancer.subsets();
        stats.lb_subsets_active.set(subsets as u64);
        stats
            .lb_subsets_created
            .add(subsets.saturating_sub(before) as u64);
        stats
            .lb_subsets_removed
            .add(before.saturating_sub(subsets) as u64);
        let members = Arc::new(Members { hosts, balancer });
        self.members.store(members.clone());
        self.count(&members.hosts, &members.balancer);
    }

    /// The balancer over these hosts as they are now.
    fn balancer(&self, hosts: &[Arc<Host>], set: Arc<HostSet>) -> LoadBalancer {
        let ejected = |index: usize| hosts.get(index).is_some_and(|host| host.is_ejected());
        LoadBalancer::new(&self.config, set, &ejected, self.id)
    }

    /// Statistics never wait, and never come before what they count.
    fn count(&self, hosts: &[Arc<Host>], balancer: &LoadBalancer) {
        let stats = &self.stats.config;
        stats.membership_total.set(hosts.len() as u64);
        stats.membership_healthy.set(balancer.healthy() as u64);
        let ejected = hosts.iter().filter(|host| host.is_ejected()).count();
        if self.config.outlier.is_some() {
            let outlier = self.stats.outlier();
            if ejected > 0 || outlier.counted().is_some() {
                outlier.ejections_active.set(ejected as u64);
            }
        }
    }

    fn transport_of(&self, info: &dataplane::cluster::Host) -> (Transport, Option<ProxyProtocol>) {
        match self.config.transport(&info.metadata).0 {
            TransportConfig::ProxyProtocol(version, inner) => {
                (self.transport_by(inner), Some(*version))
            }
            other => (self.transport_by(other), None),
        }
    }

    fn transport_by(&self, config: &TransportConfig) -> Transport {
        match config {
            // One inside of another is of no use to anybody.
            TransportConfig::ProxyProtocol(..) => Transport::Unusable,
            TransportConfig::Raw => Transport::Raw,
            TransportConfig::Tls(tls) => {
                let mut contexts = self.contexts.lock();
                let key = Arc::as_ptr(tls) as usize;
                if let Some(context) = contexts.get(&key) {
                    return Transport::Tls(context.clone());
                }
                match ClientContext::new(tls, self.secrets.clone()) {
                    Ok(context) => {
                        let context = Arc::new(context);
                        contexts.insert(key, context.clone());
                        Transport::Tls(context)
                    }
                    // Checked when the cluster came; a file may have vanished since.
                    Err(error) => {
                        tracing::error!("cluster {}: {error}", self.config.name);
                        Transport::Unusable
                    }
                }
            }
        }
    }

    /// The host for a request.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<(usize, Arc<Host>)> {
        let members = self.members.load();
        let choice = members
            .balancer
            .choose(context, &Load(&members.hosts), random);
        match choice.subset {
            None => {}
            Some(SubsetUse::Selected) => self.stats.lb_subsets_selected.inc(),
            Some(SubsetUse::Fallback) => self.stats.lb_subsets_fallback.inc(),
            Some(SubsetUse::Panic) => self.stats.lb_subsets_fallback_panic.inc(),
        }
        let index = choice.host?;
        let host = members.hosts.get(index)?.clone();
        if choice.panic {
            self.stats.lb_healthy_panic.inc();
            if self.fail_on_panic {
                return None;
            }
        }
        Some((index, host))
    }

    /// The host at the original destination of a connection.
    pub fn original_destination(&self, destination: SocketAddr) -> Arc<Host> {
        let now = self.epoch.elapsed().as_secs();
        let mut original = self.original.lock();
        let host = original
            .entry(destination)
            .or_insert_with(|| {
                let info = dataplane::cluster::Host {
                    address: dataplane::address::Address::Socket(destination),
                    hostname: String::new(),
                    weight: 1,
                    health: dataplane::cluster::Health::Healthy,
                    locality: Arc::default(),
                    priority: 0,
                    metadata: Arc::default(),
                };
                let transport = self.transport_of(&info);
                Arc::new(Host::new(
                    Address::Socket(destination),
                    Arc::new(info),
                    transport,
                ))
            })
            .clone();
        host.last_used.store(now, Ordering::Relaxed);
        self.stats
            .config
            .membership_total
            .set(original.len() as u64);
        self.stats
            .config
            .membership_healthy
            .set(original.len() as u64);
        host
    }

    /// Forgets original destinations nobody used for `age`.
    pub fn forget_original(&self, age: Duration) {
        let now = self.epoch.elapsed().as_secs();
        let mut original = self.original.lock();
        original.retain(|_, host| {
            let keep = host.stats.cx_active.get() > 0
                || host.stats.rq_active.get() > 0
                || now.saturating_sub(host.last_used.load(Ordering::Relaxed)) < age.as_secs();
            if !keep {
                host.removed.store(true, Ordering::Relaxed);
            }
            keep
        });
    }

    /// Everyone who is a member now.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts = self.members.load().hosts.clone();
        hosts.extend(self.original.lock().values().cloned());
        hosts
    }

    /// Tells outlier detection what a host did.
    pub fn record(&self, host: &Arc<Host>, result: HostResult, random: &mut dyn FnMut() -> u64) {
        let Some(config) = &self.config.outlier else {
            return;
        };
        for detection in host.monitor.record(result, config).into_iter().flatten() {
            self.detected(host, detection, random);
        }
    }

    fn detected(&self, host: &Arc<Host>, detection: Detection, random: &mut dyn FnMut() -> u64) {
        let stats = self.stats.outlier();
        match detection {
            Detection::Consecutive5xx => stats.ejections_detected_consecutive_5xx.inc(),
            Detection::ConsecutiveGatewayFailure => {
                stats.ejections_detected_consecutive_gateway_failure.inc()
            }
            Detection::ConsecutiveLocalOriginFailure => {
                stats
                    .ejections_detected_consecutive_local_origin_failure
                    .inc();
            }
            Detection::SuccessRate => stats.ejections_detected_success_rate.inc(),
            Detection::FailurePercentage => stats.ejections_detected_failure_percentage.inc(),
        }
        let members = self.members.load().hosts.len();
        let verdict = match &mut *self.detector.lock() {
            Some(detector) => detector.detected(
                &host.address,
                detection,
                members,
                self.epoch.elapsed(),
                random,
            ),
            None => return,
        };
        match verdict {
            Verdict::Ejected { .. } => {
                // Who sees it counted sees no more requests there.
                host.ejected.store(true, Ordering::Relaxed);
                self.rebuild();
                match detection {
                    Detection::Consecutive5xx => {
                        stats.ejections_enforced_consecutive_5xx.inc();
                        stats.ejections_consecutive_5xx.inc();
                    }
                    Detection::ConsecutiveGatewayFailure => {
                        stats.ejections_enforced_consecutive_gateway_failure.inc()
                    }
                    Detection::ConsecutiveLocalOriginFailure => {
                        stats
                            .ejections_enforced_consecutive_local_origin_failure
                            .inc();
                    }
                    Detection::SuccessRate => {
                        stats.ejections_enforced_success_rate.inc();
                        stats.ejections_success_rate.inc();
                    }
                    Detection::FailurePercentage => {
                        stats.ejections_enforced_failure_percentage.inc()
                    }
                }
                stats.ejections_enforced_total.inc();
                stats.ejections_total.inc();
            }
            Verdict::Overflow => stats.ejections_overflow.inc(),
            Verdict::NotEnforced | Verdict::Already => {}
        }
    }

    /// The sweep of outlier detection: hosts come back.
    pub fn sweep_outliers(&self) {
        let back = match &mut *self.detector.lock() {
            Some(detector) => detector.tick(self.epoch.elapsed()),
            None => return,
        };
        let members = self.members.load_full();
        if !back.is_empty() {
            for host in &members.hosts {
                if back.contains(&host.address) {
                    host.ejected.store(false, Ordering::Relaxed);
                }
            }
            self.rebuild();
        }
        let Some(config) = &self.config.outlier else {
            return;
        };
        // Those that are out are not measured.
        let rates: Vec<_> = members
            .hosts
            .iter()
            .map(|host| (host, host.monitor.take_rate()))
            .filter(|(host, _)| !host.is_ejected())
            .collect();
        let measured: Vec<_> = rates.iter().map(|(_, rate)| *rate).collect();
        for (index, detection) in config.outliers_by_rate(&measured) {
            self.detected(rates[index].0, detection, &mut rand::random::<u64>);
        }
    }

    /// A host was ejected or came back.
    fn rebuild(&self) {
        let mut changes = self.changing.lock();
        let members = self.members.load_full();
        let (hosts, set) = (&members.hosts, members.balancer.hosts());
        let (now, window) = (Instant::now(), self.config.update_merge_window);
        let within = changes.told.is_some_and(|told| now - told <= window);
        if !within || window.is_zero() {
            *changes = Changes {
                told: Some(now),
                due: None,
            };
            self.install(hosts.clone(), set.clone());
            return;
        }
        self.count(hosts, &self.balancer(hosts, set.clone()));
        if changes.due.is_some() {
            return;
        }
        changes.due = Some(now + window);
        let this = self.this.clone();
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            let Some(this) = this.upgrade() else { return };
            let mut changes = this.changing.lock();
            if changes.due.is_some_and(|due| due <= Instant::now()) {
                *changes = Changes {
                    told: changes.due.take(),
                    due: None,
                };
                let members = this.members.load_full();
                this.install(members.hosts.clone(), members.balancer.hosts().clone());
            }
        });
    }
}

fn fails_on_panic(message: &Message) -> bool {
    use xds::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
    let Some(common) = &message.common_lb_config else {
        return false;
    };
    matches!(&common.locality_config_specifier,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) if zone.fail_traffic_on_panic)
}

fn same_transport(a: &Transport, b: &Transport) -> bool {
    match (a, b) {
        (Transport::Raw, Transport::Raw) => true,
        (Transport::Tls(a), Transport::Tls(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// All errors in one line.
pub fn join(errors: &[dataplane::ConfigError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn service(message: &Message) -> Option<Service> {
    use xds::prost_types::value::Kind;
    let istio = message.metadata.as_ref()?.filter_metadata.get("istio")?;
    let Some(Kind::ListValue(services)) = &istio.fields.get("services")?.kind else {
        return None;
    };
    let Some(Kind::StructValue(first)) = &services.values.first()?.kind else {
        return None;
    };
    let text = |name: &str| match first.fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    };
    Some(Service {
        host: text("host"),
        name: text("name"),
        namespace: text("namespace"),
    })
}
