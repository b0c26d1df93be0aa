//! Connection pools: one per worker, host and protocol. No locks; the limits are the cluster's.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use dataplane::circuit::{Permit, Priority, Resource};
use dataplane::cluster::UpstreamProtocol;
use dataplane::stream::TlsSession;
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::connect::{ConnectError, Connected, Handshake, connect};
use super::host::Host;
use crate::h1::client::{ClientConnection as H1, Home, Lease};
use crate::h2::client::ClientConnection as H2;

/// Which connections are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The host.
    pub host: u64,
    /// HTTP/2 instead of HTTP/1.
    pub http2: bool,
    /// The application protocols offered by TLS, if the request chose them.
    pub alpn: Option<Arc<[Vec<u8>]>>,
    /// The server name of the handshake, if it comes from the request.
    pub sni: Option<Arc<str>>,
    /// 1 for the high priority.
    pub priority: u8,
    /// The connection that the host is told of by the PROXY protocol.
    pub ends: Option<Ends>,
}

/// A connection of a client: where it comes from and where it goes.
pub type Ends = (SocketAddr, SocketAddr);

/// Why no connection could be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireError {
    /// A circuit breaker is open.
    Overflow,
    /// Connecting failed.
    Connect(ConnectError),
}

/// The pools of a worker.
#[derive(Default)]
pub struct Pools {
    pools: RefCell<HashMap<Key, Rc<HostPool>>>,
    /// Whether a pool was asked for since the last sweep.
    used: Cell<bool>,
}

/// How often pools are swept while they are used, or promise to close connections soon.
const BUSY: Duration = Duration::from_secs(1);
/// How often otherwise: an idle proxy shall sleep.
const QUIET: Duration = Duration::from_secs(5);
/// What soon is.
const SOON: Duration = Duration::from_secs(20);

impl Pools {
    /// The pool for this key.
    pub fn get(&self, key: Key, cluster: &Arc<Cluster>, host: &Arc<Host>) -> Rc<HostPool> {
        self.used.set(true);
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(&key) {
            return pool.clone();
        }
        let pool = Rc::new_cyclic(|this| HostPool {
            this: this.clone(),
            key: key.clone(),
            cluster: cluster.clone(),
            host: host.clone(),
            idle: RefCell::default(),
            waiting: RefCell::default(),
            connections: Cell::new(0),
            streams: RefCell::default(),
            opening: RefCell::default(),
        });
        pools.insert(key, pool.clone());
        pool
    }

    /// Closes what was idle for too long, is dead, or leads to a host or cluster that is gone. Says when to do it again.
    pub fn sweep(&self, now: Instant) -> Duration {
        let mut busy = self.used.replace(false);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.pools.borrow_mut().retain(|_, pool| {
            let gone = pool.host.is_removed() || pool.cluster.is_removed();
            let timeout = pool.cluster.config.idle_timeout;
            busy |= timeout.is_some_and(|timeout| timeout < SOON);
            let idle_for = |since: Instant| now.saturating_duration_since(since);
            {
                let mut idle = pool.idle.borrow_mut();
                idle.retain_mut(|connection| {
                    let old = timeout
                        .is_some_and(|timeout| idle_for(connection.idle_since.get()) >= timeout);
                    if old {
                        pool.cluster.stats.upstream_cx_idle_timeout.inc();
                    }
                    if gone || old {
                        connection.lease.closed(false, false);
                        return false;
                    }
                    let alive = connection.poll_idle(&mut cx);
                    if !alive {
                        connection.lease.closed(true, false);
                    }
                    alive
                });
                if idle.is_empty() && idle.capacity() > 8 {
                    *idle = Vec::new();
                }
            }
            pool.streams.borrow_mut().retain(|connection| {
                let old = connection.active() == 0
                    && timeout.is_some_and(|timeout| idle_for(connection.idle_since()) >= timeout);
                if gone || old {
                    connection.retire();
                }
                connection.usable()
            });
            let empty = pool.idle.borrow().is_empty()
                && pool.streams.borrow().is_empty()
                && pool.waiting.borrow().is_empty();
            !empty
                || Rc::strong_count(pool) > 1
                || (!gone && pool.host.created.elapsed() < Duration::from_secs(60))
        });
        if busy { BUSY } else { QUIET }
    }

    /// The connections that are idle now, over all pools.
    pub fn idle(&self) -> usize {
        self.pools
            .borrow()
            .values()
            .map(|pool| pool.idle.borrow().len())
            .sum()
    }
}

/// The connections of this worker to one host.
pub struct HostPool {
    this: Weak<HostPool>,
    key: Key,
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    #[allow(clippy::vec_box)]
    idle: RefCell<Vec<Box<H1>>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Handed>>>,
    /// How many connections this pool has, those being opened included.
    connections: Cell<usize>,
    streams: RefCell<Vec<H2>>,
    /// Those who wait for an HTTP/2 connection that is being opened.
    opening: RefCell<Option<Vec<Waiting>>>,
}

/// What a request gets that waits for a connection.
enum Handed {
    /// One that another request has left.
    Connection(Box<H1>),
    /// The right to open one.
    Place(Place),
}

/// The right to open a connection, since another one has ended. Whoever leaves without using it passes it on.
struct Place(Weak<HostPool>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.hand_on_place();
        }
    }
}

/// Who waits for an HTTP/2 connection.
type Waiting = oneshot::Sender<Result<H2, AcquireError>>;

/// Counts a request as pending while it lives.
struct Pending<'a>(&'a HostPool, #[allow(dead_code)] Permit);

impl<'a> Pending<'a> {
    fn enter(pool: &'a HostPool) -> Result<Self, AcquireError> {
        let stats = &pool.cluster.stats;
        let Some(permit) = pool
            .cluster
            .breakers
            .try_acquire(pool.priority(), Resource::Pending)
        else {
            stats.upstream_rq_pending_overflow.inc();
            return Err(AcquireError::Overflow);
        };
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        Ok(Self(pool, permit))
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.cluster.stats.upstream_rq_pending_active.dec();
    }
}

impl HostPool {
    fn priority(&self) -> Priority {
        if self.key.priority == 0 {
            Priority::Default
        } else {
            Priority::High
        }
    }

    /// A connection for one HTTP/1 request.
    ///
    /// # Errors
    /// When a breaker is open or connecting fails.
    pub async fn http1(&self) -> Result<Box<H1>, AcquireError> {
        match self.take_idle() {
            Some(connection) => Ok(connection),
            // Apart: most requests find a connection, and need no room for the opening of one.
            None => Box::pin(self.new_http1()).await,
        }
    }

    async fn new_http1(&self) -> Result<Box<H1>, AcquireError> {
        let _pending = Pending::enter(self)?;
        loop {
            // Over the limit a request waits, unless this pool has no connection that could come free: those of other
            // workers and other pools wake nobody here when they end.
            if self
                .cluster
                .breakers
                .open(self.priority(), Resource::Connections)
            {
                self.cluster.stats.upstream_cx_overflow.inc();
                if self.connections.get() > 0 {
                    let (send, receive) = oneshot::channel();
                    self.waiting.borrow_mut().push_back(send);
                    match receive.await {
                        Ok(Handed::Connection(connection)) => return Ok(connection),
                        Ok(Handed::Place(mut place)) => place.0 = Weak::new(),
                        Err(_) => {}
                    }
                    continue;
                }
            }
            self.cluster.stats.upstream_cx_http1_total.inc();
            let (connected, lease) = self.open_as_learnt().await?;
            let mut connection = H1::new(connected.io, Box::new(lease));
            if let Some(home) = self.this.upgrade() {
                connection.set_home(home);
            }
            return Ok(connection);
        }
    }

    /// The request that waits longest and is still wanted.
    fn next_waiting(&self) -> Option<oneshot::Sender<Handed>> {
        let mut waiting = self.waiting.borrow_mut();
        std::iter::from_fn(|| waiting.pop_front()).find(|waiting| !waiting.is_closed())
    }

    /// A connection has ended: whoever waits longest may open one.
    fn hand_on_place(&self) {
        if let Some(waiting) = self.next_waiting() {
            let _ = waiting.send(Handed::Place(Place(self.this.clone())));
        }
    }

    fn take_idle(&self) -> Option<Box<H1>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.poll_idle(&mut cx) {
                return Some(connection);
            }
            connection.lease.closed(true, false);
        }
    }

    /// A connection for an HTTP/2 stream.
    ///
    /// # Errors
    /// When a breaker is open or connecting fails.
    pub async fn http2(&self) -> Result<H2, AcquireError> {
        let limit = self.cluster.config.max_requests_per_connection.unwrap_or(0);
        let found = {
            let mut streams = self.streams.borrow_mut();
            streams.retain(H2::usable);
            streams
                .iter()
                .find(|connection| connection.active() < connection.max_streams())
                .cloned()
        };
        if let Some(connection) = found {
            if limit > 0 && connection.requests() + 1 >= limit {
                self.cluster.stats.upstream_cx_max_requests.inc();
                connection.retire();
            }
            return Ok(connection);
        }
        Box::pin(self.new_http2()).await
    }

    async fn new_http2(&self) -> Result<H2, AcquireError> {
        let _pending = Pending::enter(self)?;
        let wait = {
            let mut opening = self.opening.borrow_mut();
            match &mut *opening {
                Some(waiting) => {
                    let (send, receive) = oneshot::channel();
                    waiting.push(send);
                    Some(receive)
                }
                None => {
                    *opening = Some(Vec::new());
                    None
                }
            }
        };
        if let Some(wait) = wait {
            return match wait.await {
                Ok(result) => result,
                // Who was opening it has given up (its client left): the next one tries.
                Err(_) => self.http2().await,
            };
        }
        let guard = OpeningGuard(self);
        let result = self.open_http2().await;
        let waiting = self.opening.borrow_mut().take();
        std::mem::forget(guard);
        for waiting in waiting.into_iter().flatten() {
            let _ = waiting.send(result.clone());
        }
        result
    }

    async fn open_http2(&self) -> Result<H2, AcquireError> {
        let (connected, lease) = self.open_as_learnt().await?;
        self.start_http2(connected, lease).await
    }

    async fn start_http2(
        &self,
        connected: Connected,
        lease: ConnectionLease,
    ) -> Result<H2, AcquireError> {
        self.cluster.stats.upstream_cx_http2_total.inc();
        let connection = H2::start(connected.io, Rc::new(lease))
            .await
            .map_err(|error| {
                AcquireError::Connect(ConnectError::Remote(format!(
                    "HTTP/2 preface failed: {error}"
                )))
            })?;
        self.streams.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    /// Opens a connection to learn what the host speaks (`auto_config`): `true` for HTTP/2. The connection is there for
    /// whoever asks next, in `http2` if it is one of those.
    ///
    /// # Errors
    /// When a breaker is open or connecting fails.
    pub async fn learn(&self, http2: &Self) -> Result<bool, AcquireError> {
        let _pending = Pending::enter(self)?;
        let (connected, lease) = self.open().await?;
        let speaks = connected.alpn.as_deref() == Some(b"h2");
        if speaks {
            http2.start_http2(connected, lease).await?;
        } else {
            self.cluster.stats.upstream_cx_http1_total.inc();
            let mut connection = H1::new(connected.io, Box::new(lease));
            if let Some(home) = self.this.upgrade() {
                connection.set_home(home.clone());
                home.give_back(connection);
            }
        }
        self.host.agree(speaks);
        Ok(speaks)
    }

    /// Opens a connection that speaks what this pool is for. Where the handshake decides (`auto_config`), the host may have
    /// changed its mind since it was asked: this request fails, and the next one knows.
    async fn open_as_learnt(&self) -> Result<(Connected, ConnectionLease), AcquireError> {
        let opened = self.open().await?;
        let speaks = opened.0.alpn.as_deref() == Some(b"h2");
        if self.cluster.config.protocol == UpstreamProtocol::Auto && speaks != self.key.http2 {
            self.host.agree(speaks);
            let why = "the host speaks another version of HTTP now".to_owned();
            return Err(AcquireError::Connect(ConnectError::Remote(why)));
        }
        Ok(opened)
    }

    /// Opens a connection and accounts for it.
    pub async fn open(&self) -> Result<(Connected, ConnectionLease), AcquireError> {
        open(
            &self.cluster,
            &self.host,
            self.priority(),
            self.key.alpn.as_ref(),
            self.key.sni.as_deref(),
            self.key.ends,
            self.this.clone(),
        )
        .await
        .map_err(AcquireError::Connect)
    }
}

/// Opens a connection to a host of a cluster outside of a pool (TCP) or for one, and accounts for it.
///
/// # Errors
/// Why connecting failed.
pub async fn open(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    priority: Priority,
    alpn: Option<&Arc<[Vec<u8>]>>,
    sni: Option<&str>,
    ends: Option<Ends>,
    pool: Weak<HostPool>,
) -> Result<(Connected, ConnectionLease), ConnectError> {
    let mut lease = ConnectionLease::new(cluster.clone(), host.clone(), priority, pool);
    let start = Instant::now();
    let handshake = Handshake {
        alpn,
        sni: sni.zip(cluster.config.auto_sni.as_ref()),
        ends,
    };
    match connect(host, &cluster.connect, &handshake, &cluster.stats).await {
        Ok(connected) => {
            cluster
                .stats
                .upstream_cx_connect_ms
                .record(start.elapsed().as_millis() as u64);
            lease.local = connected.local;
            lease.session.clone_from(&connected.session);
            Ok((connected, lease))
        }
        Err(error) => {
            lease.closed(true, false);
            host.stats.cx_connect_fail.inc();
            cluster.stats.upstream_cx_connect_fail.inc();
            if error == ConnectError::Timeout {
                cluster.stats.upstream_cx_connect_timeout.inc();
            }
            Err(error)
        }
    }
}

struct OpeningGuard<'a>(&'a HostPool);

impl Drop for OpeningGuard<'_> {
    fn drop(&mut self) {
        // Dropping the senders wakes those who wait.
        self.0.opening.borrow_mut().take();
    }
}

impl Home for HostPool {
    fn give_back(&self, connection: Box<H1>) {
        let limit = self.cluster.config.max_requests_per_connection.unwrap_or(0);
        if limit > 0 && connection.requests >= limit {
            self.cluster.stats.upstream_cx_max_requests.inc();
            connection.lease.closed(false, false);
            return;
        }
        if self.host.is_removed() || self.cluster.is_removed() {
            connection.lease.closed(false, false);
            return;
        }
        match self.next_waiting() {
            Some(waiting) => {
                let _ = waiting.send(Handed::Connection(connection));
            }
            None => self.idle.borrow_mut().push(connection),
        }
    }
}

/// What one upstream connection accounts for.
pub struct ConnectionLease {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    pool: Weak<HostPool>,
    opened: Instant,
    local: Option<SocketAddr>,
    /// What is known of the TLS session, if there is one.
    pub session: Option<Arc<TlsSession>>,
    ending: std::cell::Cell<Option<(bool, bool)>>,
    permit: Option<Permit>,
}

impl ConnectionLease {
    fn new(
        cluster: Arc<Cluster>,
        host: Arc<Host>,
        priority: Priority,
        pool: Weak<HostPool>,
    ) -> Self {
        let stats = &cluster.stats;
        let permit = cluster.breakers.acquire(priority, Resource::Connections);
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        host.stats.cx_total.inc();
        host.stats.cx_active.inc();
        if let Some(pool) = pool.upgrade() {
            pool.connections.update(|count| count + 1);
        }
        Self {
            cluster,
            host,
            pool,
            opened: Instant::now(),
            local: None,
            session: None,
            ending: std::cell::Cell::new(None),
            permit: Some(permit),
        }
    }
}

impl Lease for ConnectionLease {
    fn received(&self, bytes: u64) {
        self.cluster.stats.upstream_cx_rx_bytes_total.add(bytes);
    }
    fn sent(&self, bytes: u64) {
        self.cluster.stats.upstream_cx_tx_bytes_total.add(bytes);
    }
    fn closed(&self, remote: bool, with_request: bool) {
        self.ending.set(Some((remote, with_request)));
    }
    fn close_announced(&self) {
        self.cluster.stats.upstream_cx_close_notify.inc();
    }
    fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        let stats = &self.cluster.stats;
        drop(self.permit.take());
        stats.upstream_cx_active.dec();
        self.host.stats.cx_active.dec();
        stats.upstream_cx_destroy.inc();
        let (remote, with_request) = self.ending.get().unwrap_or((false, false));
        if remote {
            stats.upstream_cx_destroy_remote.inc();
        } else {
            stats.upstream_cx_destroy_local.inc();
        }
        if with_request {
            stats.upstream_cx_destroy_with_active_rq.inc();
            if remote {
                stats.upstream_cx_destroy_remote_with_active_rq.inc();
            } else {
                stats.upstream_cx_destroy_local_with_active_rq.inc();
            }
        }
        stats
            .upstream_cx_length_ms
            .record(self.opened.elapsed().as_millis() as u64);
        if let Some(pool) = self.pool.upgrade() {
            pool.connections.update(|count| count - 1);
            pool.hand_on_place();
        }
    }
}
