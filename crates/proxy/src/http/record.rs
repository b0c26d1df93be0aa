//! The record of one request: what filters, router and codecs found out, and what is made of it at the end.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane::circuit::Permit;
use dataplane::route::Route;
use dataplane::stream::{Metadata, WireBytes};
use dataplane::tracing::Context;
use dataplane::{RequestHead, RequestHeadMut, ResponseFlags, StreamInfo};
use http::{HeaderMap, Method};

use super::connection::Connection;
use super::filters::HttpFilter;
use super::filters::discovered::Settings;
use super::istio::{Facts, HttpSeries, Workload, labels};
use super::message::{Ended, Observer, Protocol};
use super::router::Reached;
use crate::access_log::Moment;
use crate::body::{BodyError, SharedReplay};
use crate::tracer::{Kind, Span, Tracer};
use crate::upstream::{Cluster, Host};

/// The head of a request, owned.
pub struct Head {
    /// The method.
    pub method: Method,
    /// The scheme.
    pub scheme: &'static str,
    /// The host.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// All other headers.
    pub headers: HeaderMap,
}

impl Head {
    /// Nothing yet.
    pub fn empty() -> Self {
        Self {
            method: Method::GET,
            scheme: "http",
            authority: String::new(),
            path: String::new(),
            headers: HeaderMap::new(),
        }
    }

    /// To read.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
        }
    }

    /// To change.
    pub fn change(&mut self) -> RequestHeadMut<'_> {
        RequestHeadMut {
            method: &self.method,
            scheme: self.scheme,
            authority: &mut self.authority,
            path: &mut self.path,
            headers: &mut self.headers,
        }
    }
}

/// A request that an upstream works on: counted while it lives.
pub struct Active {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    _permit: Permit,
}

impl Active {
    /// Begins.
    pub fn new(cluster: Arc<Cluster>, host: Arc<Host>, permit: Permit) -> Self {
        cluster.stats.upstream_rq_active.inc();
        host.stats.rq_active.inc();
        Self {
            cluster,
            host,
            _permit: permit,
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.cluster.stats.upstream_rq_active.dec();
        self.host.stats.rq_active.dec();
    }
}

/// The record of one request.
pub struct Record {
    /// The connection it came on.
    pub conn: Rc<Connection>,
    /// Its head, as it is now.
    pub head: Head,
    /// How it came.
    pub protocol: Protocol,
    /// When.
    pub start: Instant,
    /// The same as a date.
    pub start_wall: SystemTime,
    /// The status sent.
    pub code: Option<u16>,
    /// Why.
    pub details: Cow<'static, str>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Body bytes that came through a tunnel, or with the request that was redirected to this one.
    pub bytes_tunnelled: u64,
    /// Bytes of heads.
    pub wire: WireBytes,
    /// The body of the request.
    pub replay: Option<SharedReplay>,
    /// The cluster chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// The name of the cluster chosen, also if there is none of that name.
    pub cluster_name: Option<Arc<str>>,
    /// The host of the last try.
    pub host: Option<Arc<Host>>,
    /// The connection it got to it.
    pub reached: OnceCell<Reached>,
    /// How the last try was spoken.
    pub upstream_protocol: Option<&'static str>,
    /// What went wrong with the transport.
    pub transport_failure: String,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The entry of the weighted clusters.
    pub weighted: Option<usize>,
    /// Tries.
    pub attempts: u32,
    /// When the last try was sent.
    pub sent: Option<Instant>,
    /// When the head of the answer came.
    pub first_byte: Option<Instant>,
    /// The headers of the answer.
    pub response_headers: Option<HeaderMap>,
    /// Its trailers.
    pub response_trailers: Option<HeaderMap>,
    /// What filters left.
    pub metadata: Metadata,
    /// The client through x-forwarded-for.
    pub remote: Option<SocketAddr>,
    /// The peer that metadata exchange found.
    pub peer: Option<Arc<Workload>>,
    /// Counted towards the upstream.
    pub active: Option<Active>,
    /// Faults in progress are counted.
    pub fault_active: bool,
    /// It was a gRPC request when it came.
    pub grpc: bool,
    /// Its place in a trace.
    pub trace: Option<Trace>,
    /// How often it was redirected by this proxy itself.
    pub redirects: u32,
    /// From which routes to which.
    pub redirect_steps: Vec<(String, String)>,
    /// It is a health check, and no traffic.
    pub health_check: bool,
}

/// The spans of one request.
pub struct Trace {
    /// Who collects them.
    pub tracer: Arc<Tracer>,
    /// The span of the request.
    pub context: Context,
    /// The span of the try under way, and when it began.
    pub attempt: Option<(Context, SystemTime, Instant)>,
    /// The name.
    pub name: String,
    /// The side.
    pub kind: Kind,
    /// The trace's number, for logs.
    pub id: String,
}

thread_local! {
    static SERIES: RefCell<HashMap<SeriesKey, Rc<HttpSeries>>> = RefCell::default();
}

#[derive(PartialEq, Eq, Hash)]
struct SeriesKey {
    source: bool,
    chain: usize,
    peer: u64,
    cluster: u64,
    route: usize,
    code: u16,
    flags: ResponseFlags,
    grpc: String,
    principal: Option<String>,
    host: String,
}

/// More kinds of requests than this and the lookup starts anew.
const MAX_SERIES: usize = 4096;

impl Record {
    /// Bytes of the request's body so far.
    pub fn bytes_received(&self) -> u64 {
        self.replay
            .as_ref()
            .map_or(0, |replay| replay.borrow().bytes)
            + self.bytes_tunnelled
    }

    /// Everything as formats and rules see it.
    pub fn info(&self) -> StreamInfo<'_> {
        let mut info = StreamInfo::new(&self.conn.info, &self.metadata, self.start_wall);
        info.request = Some(self.head.view());
        info.response_headers = self.response_headers.as_ref();
        info.response_trailers = self.response_trailers.as_ref();
        info.protocol = Some(self.protocol.as_str());
        info.response_code = self.code;
        info.response_code_details = if self.details.is_empty() {
            None
        } else {
            Some(&self.details)
        };
        info.flags = self.flags;
        info.health_check = self.health_check;
        info.bytes_received = self.bytes_received();
        info.bytes_sent = self.bytes_sent;
        info.wire = self.wire;
        info.downstream_remote = self.remote;
        info.upstream_transport_failure_reason = if self.transport_failure.is_empty() {
            None
        } else {
            Some(&self.transport_failure)
        };
        info.request_duration = match &self.replay {
            None => Some(Duration::ZERO),
            Some(replay) => {
                let complete = replay.borrow().completed();
                complete.map(|at| at.saturating_duration_since(self.start))
            }
        };
        info.host_name = Some(&self.conn.shared.host_name);
        info.sent_duration = self.sent.map(|at| at - self.start);
        info.response_duration = self.first_byte.map(|at| at - self.start);
        if let Some(host) = &self.host {
            info.upstream_host = host.address.socket();
        }
        if let Some(reached) = self.reached.get() {
            info.upstream_local = reached.local;
            info.upstream_tls = reached.session.as_deref();
            info.upstream_protocol = self.upstream_protocol;
        }
        // One that does not exist is none.
        if let Some(cluster) = &self.cluster {
            info.upstream_cluster = Some(&cluster.config.stat_name);
            info.upstream_cluster_raw = Some(&cluster.config.name);
            info.cluster_metadata = Some(&cluster.config.metadata);
        }
        info.attempts = Some(self.attempts).filter(|attempts| *attempts > 0);
        if let Some(route) = &self.route {
            info.route_name = Some(&*route.name).filter(|name| !name.is_empty());
            info.virtual_host_name = Some(&route.virtual_host);
            info.route_metadata = Some(&route.metadata);
        }
        if let Some(trace) = &self.trace {
            info.trace_id = Some(&trace.id);
            info.span_id = Some(trace.context.span);
            info.traced = trace.context.sampled == Some(true);
        }
        info.filter_chain_name = Some(&*self.conn.chain.name).filter(|name| !name.is_empty());
        info
    }

    /// Begins the span of a try, if tries have spans, and tells the upstream its place in the trace.
    pub fn trace_attempt(&mut self) {
        let conn = self.conn.clone();
        let Some(tracing) = &conn.manager.tracing else {
            return;
        };
        self.end_attempt();
        let Some(trace) = &mut self.trace else { return };
        let context = if tracing.rules.upstream_spans {
            let sampled = trace.context.sampled == Some(true);
            let child = Context::child(Some(&trace.context), sampled, true, &mut || {
                conn.worker.random()
            });
            trace.attempt = Some((child, SystemTime::now(), Instant::now()));
            child
        } else {
            trace.context
        };
        if !tracing.rules.silent {
            context.write(&mut self.head.headers, trace.tracer.propagation);
        }
    }

    /// Reports the span of the last try.
    fn end_attempt(&mut self) {
        let Some((context, start, began)) =
            self.trace.as_mut().and_then(|trace| trace.attempt.take())
        else {
            return;
        };
        self.report(context, Kind::Client, start, began.elapsed());
    }

    fn report(
        &self,
        context: Context,
        kind: Kind,
        start: SystemTime,
        duration: std::time::Duration,
    ) {
        let (Some(trace), Some(tracing)) = (&self.trace, &self.conn.manager.tracing) else {
            return;
        };
        if context.sampled != Some(true) {
            return;
        }
        let shared = &self.conn.shared;
        let tags = tracing
            .rules
            .tags(&self.info(), &self.head.view(), &shared.node.id);
        let span = Span {
            context,
            name: trace.name.clone(),
            kind,
            start,
            duration,
            local: self.conn.info.local.ip(),
            tags,
        };
        trace.tracer.report(&self.conn.worker, shared, span);
    }

    fn istio_stats(&self, elapsed_ms: u64) {
        for filter in &self.conn.manager.filters {
            let now;
            let filter = match &filter.filter {
                Settings::Own(filter) => filter,
                Settings::Discovered(discovered) => {
                    let Some(filter) = discovered.now() else {
                        continue;
                    };
                    now = filter;
                    &*now
                }
            };
            let HttpFilter::IstioStats(config) = filter else {
                continue;
            };
            let shared = &self.conn.shared;
            let endpoint_peer;
            let peer = match &self.peer {
                Some(peer) => Some(&**peer),
                None if config.source => {
                    endpoint_peer = self.host.as_ref().and_then(|host| {
                        let info = host.info.load();
                        let text = info
                            .metadata
                            .get("istio")?
                            .get("workload")?
                            .as_str()?
                            .to_owned();
                        Some(shared.identity.endpoint(&text))
                    });
                    endpoint_peer.as_deref()
                }
                None => None,
            };
            let grpc_status = if self.grpc {
                self.response_trailers
                    .as_ref()
                    .and_then(|trailers| trailers.get("grpc-status"))
                    .or_else(|| self.response_headers.as_ref()?.get("grpc-status"))
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            } else {
                String::new()
            };
            let tls = self.conn.info.tls.as_deref();
            let peer_certificate = tls.and_then(|tls| tls.peer.as_deref());
            let upstream_principal = if config.source {
                self.upstream_principal()
            } else {
                None
            };
            let peer_principal = if config.source {
                upstream_principal.clone()
            } else {
                peer_certificate.and_then(|certificate| certificate.uris.first().cloned())
            };
            let cluster_known = self
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.service.is_some());
            let key = SeriesKey {
                source: config.source,
                chain: Arc::as_ptr(&self.conn.chain) as usize,
                peer: peer.map_or(0, |peer| peer.key),
                cluster: self.cluster.as_ref().map_or(0, |cluster| cluster.id),
                route: self
                    .route
                    .as_ref()
                    .map_or(0, |route| Arc::as_ptr(route) as usize),
                code: self.code.unwrap_or(0),
                flags: self.flags,
                grpc: grpc_status,
                principal: peer_principal,
                host: if cluster_known {
                    String::new()
                } else {
                    self.head.authority.clone()
                },
            };
            let series = SERIES.with_borrow_mut(|series| {
                if let Some(found) = series.get(&key) {
                    return found.clone();
                }
                let made = Rc::new(HttpSeries::new(
                    &shared.stats,
                    &self.labels(config.source, config.host_fallback, peer, &key),
                ));
                if series.len() >= MAX_SERIES {
                    series.clear();
                }
                series.insert(key, made.clone());
                made
            });
            series.requests.inc();
            series.duration.record(elapsed_ms);
            series
                .request_bytes
                .record(self.wire.downstream_received + self.bytes_received());
            series
                .response_bytes
                .record(self.wire.downstream_sent + self.bytes_sent);
        }
    }

    fn upstream_principal(&self) -> Option<String> {
        let peer = self.reached.get()?.session.as_ref()?.peer.as_ref()?;
        peer.uris.first().cloned()
    }

    fn labels(
        &self,
        source: bool,
        host_fallback: bool,
        peer: Option<&Workload>,
        key: &SeriesKey,
    ) -> String {
        let conn = &self.conn;
        let tls = conn.info.tls.as_deref();
        let own_principal = if source {
            // The certificate this proxy shows to upstreams.
            if key.principal.is_some() {
                conn.shared.own_principal()
            } else {
                String::new()
            }
        } else {
            tls.and_then(|tls| tls.local.as_deref())
                .and_then(|certificate| certificate.uris.first().cloned())
                .unwrap_or_default()
        };
        let host = self.head.authority.split(':').next().unwrap_or_default();
        let route_name = self.route.as_ref().map_or("", |route| &*route.name);
        let service = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.service.as_ref());
        let cluster_name = self.cluster.as_ref().map_or("", |cluster| cluster.name());
        let (service_host, service_name, service_namespace) = match service {
            Some(service) => (
                service.host.as_str(),
                service.name.as_str(),
                service.namespace.as_str(),
            ),
            None => {
                let name = match (cluster_name, route_name) {
                    (
                        "BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster",
                        _,
                    ) => cluster_name,
                    (_, "block_all") => "BlackHoleCluster",
                    (_, "allow_any") => "PassthroughCluster",
                    _ if host_fallback => host,
                    _ => "",
                };
                let service_host = if host_fallback || name == cluster_name {
                    host
                } else {
                    ""
                };
                (service_host, name, "")
            }
        };
        let namespace_of_peer = key
            .principal
            .as_deref()
            .and_then(|principal| principal.split("/ns/").nth(1)?.split('/').next())
            .unwrap_or(service_namespace);
        let flags = if self.flags.is_empty() {
            "-".to_owned()
        } else {
            self.flags.short()
        };
        labels(&Facts {
            source,
            own: &conn.shared.identity.own,
            peer,
            own_principal: &own_principal,
            peer_principal: key.principal.as_deref().unwrap_or_default(),
            service: (
                service_host,
                service_name,
                if source {
                    namespace_of_peer
                } else {
                    service_namespace
                },
            ),
            protocol: if self.grpc { "grpc" } else { "http" },
            code: Some(key.code),
            grpc_status: &key.grpc,
            flags: &flags,
            mutual_tls: tls.is_some_and(|tls| tls.peer.is_some()),
        })
    }
}

impl Observer for Record {
    fn wants_headers(&self) -> bool {
        self.conn.manager.observes_headers
    }

    fn head_written(&mut self, bytes: u64, headers: HeaderMap) {
        self.wire.downstream_sent += bytes;
        self.response_headers = Some(headers);
    }

    fn body_bytes(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
    }

    fn tunnel_received(&mut self, bytes: u64) {
        self.bytes_tunnelled += bytes;
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.response_trailers = Some(trailers.clone());
    }

    fn finish(&mut self, ended: Ended) {
        let stats = &self.conn.manager.stats;
        match ended {
            Ended::Complete | Ended::Redirected => {}
            Ended::Downstream | Ended::Reset | Ended::Rejected(_) => {
                let reset = match ended {
                    Ended::Reset => Some("http2.remote_reset"),
                    Ended::Rejected(why) => Some(why),
                    _ => None,
                };
                if let Some(why) = reset {
                    self.flags.set(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
                    self.details = Cow::Borrowed(why);
                } else {
                    self.flags
                        .set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                    self.details = Cow::Borrowed("downstream_remote_disconnect");
                }
                stats.downstream_rq_rx_reset.inc();
                if let Some(cluster) = &self.cluster
                    && self.active.is_some()
                    && self.first_byte.is_none()
                {
                    cluster.stats.upstream_rq_cancelled.inc();
                }
            }
            Ended::Upstream(error) => {
                let (flag, why) = match error {
                    BodyError::Closed => (
                        ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                        "connection_termination",
                    ),
                    BodyError::Reset => (ResponseFlags::UPSTREAM_REMOTE_RESET, "remote_reset"),
                    BodyError::Protocol => {
                        (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "protocol_error")
                    }
                    BodyError::Timeout => {
                        (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout")
                    }
                    BodyError::Idle => (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout"),
                    BodyError::MaxDuration => (ResponseFlags::NONE, "max_duration_timeout"),
                };
                self.flags.set(flag);
                self.details = if matches!(
                    error,
                    BodyError::Timeout | BodyError::Idle | BodyError::MaxDuration
                ) {
                    Cow::Borrowed(why)
                } else {
                    Cow::Owned(format!("upstream_reset_after_response_started{{{why}}}"))
                };
                if let Some(cluster) = &self.cluster
                    && error == BodyError::Reset
                {
                    cluster.stats.upstream_rq_rx_reset.inc();
                }
                stats.downstream_rq_tx_reset.inc();
            }
        }
        if let (Some(cluster), Some(sent)) = (&self.cluster, self.sent)
            && self.first_byte.is_some()
        {
            cluster
                .stats
                .upstream_rq_time
                .record(sent.elapsed().as_millis() as u64);
        }
        self.active = None;
        if std::mem::take(&mut self.fault_active) {
            stats.fault_active_faults.dec();
        }
        stats.downstream_rq_active.dec();
        let elapsed = self.start.elapsed();
        stats.downstream_rq_time.record(elapsed.as_millis() as u64);
        if let Some(code) = self.code.filter(|_| ended != Ended::Redirected) {
            stats.downstream_rq_codes.count(code);
            let listener = &self.conn.manager.listener_stats;
            listener.downstream_rq_codes.count(code);
        }
        self.istio_stats(elapsed.as_millis() as u64);
        if let Some(trace) = &self.trace {
            let (context, kind) = (trace.context, trace.kind);
            self.end_attempt();
            self.report(context, kind, self.start_wall, elapsed);
        }
        if !self.conn.manager.access_log.is_empty() {
            let mut info = self.info();
            info.duration = Some(elapsed);
            let conn = &self.conn;
            for log in &conn.manager.access_log {
                log.log(Moment::DownstreamEnd, &info, &conn.worker, &conn.shared);
            }
        }
    }
}
