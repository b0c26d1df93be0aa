//! A downstream connection that speaks HTTP, and what happens to each of its requests.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane::descriptors::Facts;
use dataplane::fault::Injection;
use dataplane::http_conn::PathOutcome;
use dataplane::local_ratelimit::{LocalRateLimit, Verdict};
use dataplane::local_reply::{self, LocalReply};
use dataplane::route::{MatchFacts, Outcome};
use dataplane::stream::WireBytes;
use dataplane::tracing::{Context, Reason};
use dataplane::{ResponseFlags, request};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use super::cors::{Cors, CorsOutcome};
use super::filters::grpc_web::{Dialect, FromText};
use super::filters::{HttpFilter, LocalLimit, NamedFilter, PerRoute, ResponseStep};
use super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::limits::{self, Limits, Reached};
use super::message::{Ended, Observer, Protocol, Request, Response, Stream};
use super::record::{Head, Record, Trace};
use super::router;
use crate::body::{Body, Replay};
use crate::config::Shared;
use crate::config::listener::{Chain, HttpManager, Listener, RouteSource};
use crate::config::routes::Routes;
use crate::h1::head::HeaderCase;
use crate::tracer::Kind;
use crate::upstream::Cluster;
use crate::worker::Worker;

/// What a route calls the operation, told from proxy to proxy.
pub(super) const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// What codecs need to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections without requests end after this.
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.0 is welcome.
    pub accept_http_10: bool,
    /// The most bytes of a head.
    pub max_head: usize,
    /// The most headers.
    pub max_headers: usize,
    /// Methods that nobody knows are welcome.
    pub custom_methods: bool,
    /// The host of an HTTP/1.0 request that names none; empty for none.
    pub default_host: String,
    /// How long a head may take.
    pub head_timeout: Option<Duration>,
    /// How long a connection may last.
    pub max_duration: Option<Duration>,
    /// How many requests a connection may carry.
    pub max_requests: Option<u64>,
    /// What happens to header names with underscores.
    pub underscores: dataplane::http_conn::Underscores,
    /// `expect: 100-continue` goes to the upstream instead of being answered here.
    pub proxy_100_continue: bool,
    /// How header names are written.
    pub header_case: HeaderCase,
    /// Trailers are passed on over HTTP/1.
    pub trailers: bool,
    /// `max_concurrent_streams`
    pub h2_max_streams: Option<u32>,
    /// `initial_stream_window_size`
    pub h2_stream_window: Option<u32>,
    /// `initial_connection_window_size`
    pub h2_connection_window: Option<u32>,
    /// Extended CONNECT is allowed.
    pub allow_connect: bool,
}

/// A downstream connection that speaks HTTP.
pub struct Connection {
    /// Where it runs.
    pub worker: Rc<Worker>,
    /// What everyone shares.
    pub shared: Arc<Shared>,
    /// Where it was accepted.
    pub listener: Arc<Listener>,
    /// The chain that serves it.
    pub chain: Arc<Chain>,
    /// The chain's connection manager.
    pub manager: Arc<HttpManager>,
    /// What is known about it.
    pub info: dataplane::Connection,
    /// Buckets that only count this connection, by the address of the limit they belong to.
    pub limits: RefCell<Vec<(usize, Rc<LocalRateLimit>)>>,
}

/// Reports to the record when the handler is dropped before it has answered.
struct Guard(Option<Box<Record>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut record) = self.0.take() {
            record.finish(ABANDONED.get());
        }
    }
}

thread_local! {
    /// Why a handler is dropped before it has answered.
    static ABANDONED: Cell<Ended> = const { Cell::new(Ended::Downstream) };
}

/// Drops a handler because its client has reset the stream, though not gone away.
pub fn drop_reset<T>(handler: T) {
    ABANDONED.set(Ended::Reset);
    drop(handler);
    ABANDONED.set(Ended::Downstream);
}

/// How a filter or the router answers.
pub enum Answer {
    /// With a reply of our own.
    Local(LocalReply),
    /// With a reply of our own that has further headers.
    Refused(LocalReply, HeaderMap),
    /// Not at all: the request, changed, is to be handled anew. The status is that of the redirect.
    Redirected(StatusCode),
    /// With an answer made elsewhere: status, headers, body, and whether it is a reply of our own.
    Ready(StatusCode, HeaderMap, Body, bool),
}

impl Connection {
    /// What codecs need to know.
    pub fn options(&self) -> &Options {
        &self.manager.options
    }

    /// Whether the connection is to be closed after the next answer.
    pub fn draining(&self) -> bool {
        self.chain.drained.is_cancelled() || self.shared.draining()
    }

    /// Ends when the connection is to be drained.
    pub async fn drained(self: Rc<Self>) {
        let mut drain = self.shared.drain.subscribe();
        let all = async {
            let _ = drain.wait_for(|drain| *drain).await;
        };
        tokio::select! {
            () = self.chain.drained.cancelled() => {}
            () = all => {}
        }
    }

    /// Counts a protocol error that has no request.
    pub fn protocol_error(&self) {
        self.manager.stats.downstream_cx_protocol_error.inc();
    }

    /// The answer to something that is no request: status, body and details.
    pub fn refuse(
        self: &Rc<Self>,
        why: (StatusCode, &'static str, &'static str),
        protocol: Protocol,
    ) -> Response {
        self.manager.stats.downstream_cx_protocol_error.inc();
        self.answer_without_request(why, protocol, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
    }

    /// The answer to a request whose head does not come.
    pub fn head_timeout(self: &Rc<Self>) -> Response {
        self.manager.stats.downstream_rq_header_timeout.inc();
        let why = (
            StatusCode::REQUEST_TIMEOUT,
            "request header timeout",
            "request_header_timeout",
        );
        self.answer_without_request(why, Protocol::Http11, ResponseFlags::NONE)
    }

    fn answer_without_request(
        self: &Rc<Self>,
        why: (StatusCode, &'static str, &'static str),
        protocol: Protocol,
        flags: ResponseFlags,
    ) -> Response {
        let (status, body, details) = why;
        self.count_request(protocol);
        let head = Head {
            method: Method::GET,
            scheme: "http",
            authority: String::new(),
            path: String::new(),
            headers: HeaderMap::new(),
        };
        let mut record = self.record(head, protocol, Instant::now(), 0);
        record.flags.set(flags);
        record.details = Cow::Borrowed(details);
        record.code = Some(status.as_u16());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        self.manager
            .rules
            .response(&mut headers, &self.worker.date(), None, false);
        Response {
            status,
            headers,
            body: Body::full(body),
            close: true,
            stream: Stream::new(record),
        }
    }

    fn count_request(&self, protocol: Protocol) {
        let stats = &self.manager.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        match protocol {
            Protocol::Http2 => stats.downstream_rq_http2_total.inc(),
            _ => stats.downstream_rq_http1_total.inc(),
        }
    }

    fn record(
        self: &Rc<Self>,
        head: Head,
        protocol: Protocol,
        start: Instant,
        wire_bytes: u64,
    ) -> Box<Record> {
        Box::new(Record {
            conn: self.clone(),
            head,
            protocol,
            start,
            start_wall: SystemTime::now(),
            code: None,
            details: Cow::Borrowed(""),
            flags: ResponseFlags::NONE,
            bytes_sent: 0,
            bytes_tunnelled: 0,
            wire: WireBytes {
                downstream_received: wire_bytes,
                ..WireBytes::default()
            },
            replay: None,
            cluster: None,
            cluster_name: None,
            host: None,
            upstream_local: None,
            upstream_certificate: None,
            upstream_protocol: None,
            transport_failure: String::new(),
            route: None,
            weighted: None,
            attempts: 0,
            sent: None,
            first_byte: None,
            response_headers: None,
            response_trailers: None,
            metadata: dataplane::stream::Metadata::new(),
            remote: None,
            peer: None,
            active: None,
            fault_active: false,
            grpc: false,
            trace: None,
            redirects: 0,
        })
    }

    /// Handles one request.
    pub async fn call(self: Rc<Self>, request: Request) -> Response {
        self.count_request(request.protocol);
        let upgrade = match (&request.extended_connect, request.upgrade) {
            (Some(protocol), _) => Some(protocol.clone()),
            (None, true) => request
                .headers
                .get(header::UPGRADE)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            (None, false) => None,
        };
        let missing_host = request.authority.is_none();
        let head = Head {
            // From here on the same as the upgrade of an HTTP/1.1 client.
            method: if request.extended_connect.is_some() {
                Method::GET
            } else {
                request.method
            },
            // Without one of its own, x-forwarded-proto decides later.
            scheme: request.scheme.unwrap_or_default(),
            authority: request.authority.unwrap_or_default(),
            path: request.path,
            headers: request.headers,
        };
        let protocol = request.protocol;
        let mut guard = Guard(Some(self.record(
            head,
            protocol,
            request.start,
            request.wire_bytes,
        )));
        if !request.body.is_end() {
            let record = guard.0.as_deref_mut().expect("just made");
            record.replay = Some(Replay::new(request.body, 0));
        }
        let info = request.info;
        loop {
            let record = guard.0.as_deref_mut().expect("not taken");
            record.grpc = request::is_grpc(&record.head.headers);
            let mut flow = Flow::default();
            let upgrades = upgrade.is_some() || record.head.method == Method::CONNECT;
            let answer = if missing_host {
                flow.close = true;
                Answer::Local(local_reply::MISSING_HOST)
            } else {
                let limits = flow.limits.clone();
                let start = record.start;
                let rules = &self.manager.rules;
                let from = |limit: Option<Duration>| limit.map(|limit| start + limit);
                limits
                    .idle
                    .set(rules.stream_idle_timeout.filter(|_| !upgrades));
                limits.end.set(from(rules.max_stream_duration));
                limits.request.set(from(rules.request_timeout));
                let body = record.replay.clone();
                let handled = self.handle(record, &mut flow, upgrade.clone(), &info);
                match limits::within(&limits, start, body, handled).await {
                    Ok(answer) => answer,
                    Err(reached) => self.too_late(reached, record),
                }
            };
            if let Answer::Redirected(status) = answer {
                let mut done = guard.0.take().expect("not taken");
                let next = self.redirected(&mut done);
                done.code = Some(status.as_u16());
                done.finish(Ended::Redirected);
                guard.0 = Some(next);
                continue;
            }
            if upgrades && !matches!(&answer, Answer::Ready(_, _, Body::Tunnel(_), _)) {
                // What would follow the head is not a request.
                flow.close = true;
            }
            return self.respond(guard.0.take().expect("not taken"), flow, answer);
        }
    }

    /// The record of the request that takes the place of a redirected one.
    fn redirected(self: &Rc<Self>, done: &mut Record) -> Box<Record> {
        self.count_request(done.protocol);
        let head = Head {
            method: done.head.method.clone(),
            scheme: done.head.scheme,
            authority: done.head.authority.clone(),
            path: done.head.path.clone(),
            headers: done.head.headers.clone(),
        };
        let mut next = self.record(head, done.protocol, Instant::now(), 0);
        next.redirects = done.redirects + 1;
        // What was received stays received; the body counts again when it is read again.
        next.bytes_tunnelled = done.bytes_received();
        next.remote = done.remote;
        next.peer = done.peer.clone();
        let frames = done
            .replay
            .as_ref()
            .and_then(|replay| replay.borrow().copy());
        next.replay = frames
            .filter(|frames| !frames.is_empty())
            .map(|frames| Replay::new(Body::Chained(frames.into(), Box::new(Body::Empty)), 0));
        next
    }

    /// The answer when a limit was reached before one came.
    fn too_late(&self, reached: Reached, record: &Record) -> Answer {
        let stats = &self.manager.stats;
        let complete = record
            .replay
            .as_ref()
            .is_none_or(|replay| replay.borrow().complete_now());
        Answer::Local(match reached {
            Reached::Idle => {
                stats.downstream_rq_idle_timeout.inc();
                LocalReply {
                    // Who was silent?
                    status: if complete { 504 } else { 408 },
                    ..local_reply::STREAM_IDLE_TIMEOUT
                }
            }
            Reached::End => {
                stats.downstream_rq_max_duration_reached.inc();
                local_reply::STREAM_DURATION
            }
            Reached::Request => {
                stats.downstream_rq_timeout.inc();
                local_reply::REQUEST_OVERALL_TIMEOUT
            }
        })
    }

    async fn handle(
        self: &Rc<Self>,
        record: &mut Record,
        flow: &mut Flow,
        upgrade: Option<String>,
        info: &super::message::Informational,
    ) -> Answer {
        let rules = &self.manager.rules;
        let connect = record.head.method == Method::CONNECT && upgrade.is_none();
        // A redirected request was looked at when it came.
        if record.redirects == 0
            && let Some(answer) = self.admit(record, flow, connect)
        {
            return answer;
        }
        flow.routes = match &self.manager.routes {
            RouteSource::Inline(routes) => Some(routes.clone()),
            RouteSource::Named(name) => self.shared.snapshot.load().routes.get(name).cloned(),
        };
        let mut outcome = self.select(record, flow);
        self.trace(record, flow);
        if let Some(idle) = record.route.as_ref().and_then(|route| route.idle_timeout) {
            flow.limits
                .idle
                .set(Some(idle).filter(|idle| !idle.is_zero() && upgrade.is_none()));
        }
        if let Some(protocol) = &upgrade {
            let said = record
                .route
                .as_ref()
                .and_then(|route| route.upgrade(protocol));
            if !rules.upgrade_allowed(protocol, said) {
                self.manager.stats.downstream_rq_ws_on_non_ws_route.inc();
                return Answer::Local(local_reply::UPGRADE_REFUSED);
            }
        } else if connect {
            let said = record
                .route
                .as_ref()
                .and_then(|route| route.upgrade("CONNECT"));
            // Without a route it is simply not found.
            if record.route.is_some() && !rules.upgrade_allowed("connect", said) {
                return Answer::Local(local_reply::UPGRADE_REFUSED);
            }
        }

        // Filters in order.
        for filter in &self.manager.filters {
            if let Some(answer) = self.filter(filter, record, flow).await {
                return answer;
            }
            if std::mem::take(&mut flow.reroute) {
                outcome = self.select(record, flow);
            }
        }

        self.manager.stats.rq_total.inc();
        match outcome {
            Outcome::NotFound { .. } => {
                self.manager.stats.no_route.inc();
                Answer::Local(local_reply::ROUTE_NOT_FOUND)
            }
            Outcome::Direct { status, body, .. } => {
                self.manager.stats.rq_direct_response.inc();
                record.details = Cow::Borrowed("direct_response");
                flow.route_headers = true;
                if status == 201 || status / 100 == 3 {
                    // What was created, or is meant, is what was asked for.
                    let head = &record.head;
                    let location = format!("{}://{}{}", head.scheme, head.authority, head.path);
                    flow.location = HeaderValue::from_str(&location).ok();
                }
                Answer::Local(LocalReply {
                    status,
                    body: String::from_utf8_lossy(&body).into_owned().into(),
                    flags: ResponseFlags::NONE,
                    details: Cow::Borrowed("direct_response"),
                    ..local_reply::ROUTE_NOT_FOUND
                })
            }
            Outcome::Redirect {
                status, location, ..
            } => {
                self.manager.stats.rq_direct_response.inc();
                flow.route_headers = true;
                redirect(status, &location, "direct_response", flow)
            }
            Outcome::Forward { route, .. } => {
                flow.route_headers = true;
                let Some(cluster) = record.cluster.clone() else {
                    self.manager.stats.no_cluster.inc();
                    return Answer::Local(local_reply::cluster_not_found(
                        route.cluster_not_found_status,
                    ));
                };
                router::route(self, record, flow, cluster, route, upgrade, info).await
            }
        }
    }

    /// What the connection manager makes of the head of a request before anything else; an answer refuses it.
    fn admit(&self, record: &mut Record, flow: &mut Flow, connect: bool) -> Option<Answer> {
        let rules = &self.manager.rules;
        // A QUERY is its body, and a body without a type means nothing.
        if record.head.method.as_str() == "QUERY"
            && !record.head.headers.contains_key(header::CONTENT_TYPE)
        {
            return Some(Answer::Local(LocalReply {
                status: 400,
                flags: ResponseFlags::NONE,
                details: Cow::Borrowed("query_missing_content_type"),
                ..local_reply::ROUTE_NOT_FOUND
            }));
        }
        if !connect {
            if !record.head.path.starts_with('/') {
                self.manager.stats.downstream_rq_non_relative_path.inc();
                return Some(Answer::Local(LocalReply {
                    details: Cow::Borrowed("absolute_path_rejected"),
                    flags: ResponseFlags::NONE,
                    ..local_reply::ROUTE_NOT_FOUND
                }));
            }
            match rules.normalize(&mut record.head.path) {
                PathOutcome::Go => {}
                PathOutcome::Reject => {
                    flow.close = true;
                    self.manager
                        .stats
                        .downstream_rq_failed_path_normalization
                        .inc();
                    return Some(Answer::Local(local_reply::PATH_NORMALIZATION_FAILED));
                }
                PathOutcome::Redirect(path) => {
                    if record.grpc {
                        flow.close = true;
                        return Some(Answer::Local(local_reply::PATH_NORMALIZATION_FAILED));
                    }
                    self.manager
                        .stats
                        .downstream_rq_redirected_with_normalized_path
                        .inc();
                    return Some(redirect(307, &path, "path_normalization_failed", flow));
                }
            }
        }
        let worker = self.worker.clone();
        match rules.request(&mut record.head.change(), &self.info, &|| worker.uuid()) {
            Ok(ingress) => {
                record.remote = Some(ingress.remote);
                record.head.scheme = ingress.scheme;
            }
            Err(reply) => return Some(Answer::Local(reply)),
        }
        record.head.headers.remove(header::CONNECTION);
        record.head.headers.remove(header::UPGRADE);
        record.head.headers.remove(header::TRANSFER_ENCODING);
        None
    }

    /// Decides whether the request is traced, and names its operation to the next one, or to itself.
    fn trace(&self, record: &mut Record, flow: &mut Flow) {
        let Some(tracing) = &self.manager.tracing else {
            return;
        };
        let route = record.route.clone();
        let own = route.as_ref().and_then(|route| route.tracing.as_deref());
        let mut random = || self.worker.random();
        let reason = tracing
            .rules
            .decide(&mut record.head.headers, own, &mut random);
        let stats = &self.manager.stats;
        match reason {
            Reason::NotTraceable => &stats.tracing_not_traceable,
            Reason::Sampled => &stats.tracing_random_sampling,
            Reason::ServiceForced => &stats.tracing_service_forced,
            Reason::ClientForced => &stats.tracing_client_enabled,
        }
        .inc();
        let decorated = route
            .as_ref()
            .filter(|route| route.decorator_propagate)
            .and_then(|route| route.decorator.clone());
        let mut told = None;
        if tracing.egress {
            if let Some(value) = decorated
                .as_ref()
                .and_then(|operation| HeaderValue::try_from(operation.as_str()).ok())
            {
                record.head.headers.insert(OPERATION, value);
            }
        } else {
            told = record
                .head
                .headers
                .remove(OPERATION)
                .and_then(|value| value.to_str().ok().map(str::to_owned))
                .filter(|value| !value.is_empty());
            if told.is_none() {
                flow.operation = decorated;
            }
        }
        let Some(tracer) = &tracing.tracer else {
            return;
        };
        let parent = Context::read(&record.head.headers, tracer.propagation);
        let sampled = reason != Reason::NotTraceable;
        let context = Context::child(parent.as_ref(), sampled, tracer.wide, &mut random);
        let name = told
            .or_else(|| route.and_then(|route| route.decorator.clone()))
            .unwrap_or_else(|| tracing.rules.operation(&record.info(), &record.head.view()));
        record.trace = Some(Trace {
            tracer: tracer.clone(),
            context,
            attempt: None,
            name,
            kind: if tracing.egress && !tracing.rules.upstream_spans {
                Kind::Client
            } else {
                Kind::Server
            },
            id: dataplane::tracing::trace_id(context.trace),
        });
    }

    /// Where does it go?
    pub(super) fn select(&self, record: &mut Record, flow: &Flow) -> Outcome {
        let mut random = || self.worker.random();
        let outcome = match &flow.routes {
            Some(routes) => {
                let facts = MatchFacts {
                    metadata: &record.metadata,
                    client_certificate: self
                        .info
                        .tls
                        .as_ref()
                        .and_then(|tls| tls.peer.as_ref())
                        .map(|_| true),
                };
                routes.table.find(&record.head.view(), &facts, &mut random)
            }
            None => Outcome::NotFound { virtual_host: None },
        };
        record.route = None;
        record.weighted = None;
        record.cluster_name = None;
        record.cluster = None;
        match &outcome {
            Outcome::Forward {
                route,
                cluster,
                weighted,
            } => {
                record.route = Some(route.clone());
                record.weighted = *weighted;
                record.cluster_name = Some(cluster.clone());
                record.cluster = self
                    .shared
                    .snapshot
                    .load()
                    .clusters
                    .get(&**cluster)
                    .cloned();
            }
            Outcome::Direct { route, .. } | Outcome::Redirect { route, .. } => {
                record.route = Some(route.clone());
            }
            Outcome::NotFound { .. } => {}
        }
        outcome
    }

    async fn filter(
        self: &Rc<Self>,
        named: &NamedFilter,
        record: &mut Record,
        flow: &mut Flow,
    ) -> Option<Answer> {
        let name = &named.name;
        let found = self.per_route(record, flow, name);
        let per_route = match found.as_deref() {
            Some(PerRoute::Switch { disabled: true, .. }) => return None,
            Some(PerRoute::Switch { config, .. }) => config.as_deref(),
            None if named.disabled => return None,
            other => other,
        };
        match &named.filter {
            HttpFilter::PeerMetadata(exchange) => {
                if exchange.from_downstream {
                    let id = record.head.headers.remove(PEER_METADATA_ID);
                    let metadata = record.head.headers.remove(PEER_METADATA);
                    flow.answer_metadata =
                        exchange.to_downstream && (id.is_some() || metadata.is_some());
                    if let Some(metadata) = metadata {
                        let id = id
                            .as_ref()
                            .and_then(|id| id.to_str().ok())
                            .unwrap_or_default();
                        record.peer = self.shared.identity.peer(id, metadata.as_bytes());
                    }
                }
                flow.tell_upstream = exchange.to_upstream
                    && !(exchange.skip_external
                        && record
                            .cluster
                            .as_ref()
                            .is_some_and(|cluster| cluster.service.is_none()));
                flow.learn_upstream = exchange.from_upstream;
            }
            HttpFilter::Alpn(alpn) => flow.alpn = Some(alpn.clone()),
            HttpFilter::Fault(own) => {
                let fault = match per_route {
                    Some(PerRoute::Fault(fault)) => fault,
                    _ => own,
                };
                let cluster = record.cluster_name.as_deref().unwrap_or_default();
                let active = self.manager.stats.fault_active_faults.get();
                if fault.overflows(active) {
                    self.manager.stats.fault_faults_overflow.inc();
                    return None;
                }
                let injection: Injection =
                    fault.draw(&record.head.view(), cluster, active, &mut || {
                        self.worker.random()
                    });
                if injection.delay.is_some() || injection.abort.is_some() {
                    record.fault_active = true;
                    self.manager.stats.fault_active_faults.inc();
                }
                if let Some(delay) = injection.delay {
                    self.manager.stats.fault_delays_injected.inc();
                    record.flags.set(ResponseFlags::DELAY_INJECTED);
                    tokio::time::sleep(delay).await;
                }
                if let Some(reply) = injection.abort {
                    self.manager.stats.fault_aborts_injected.inc();
                    return Some(Answer::Local(reply));
                }
            }
            HttpFilter::Rbac(own) => {
                let rules = match per_route {
                    Some(PerRoute::Rbac(rules)) => rules,
                    _ => own,
                };
                let stats = &self.manager.stats;
                let noted = rules.shadow(&record.info()).map(|decision| {
                    let counter = if decision.allowed {
                        &stats.rbac_shadow_allowed
                    } else {
                        &stats.rbac_shadow_denied
                    };
                    counter.inc();
                    rules.shadow_metadata(&decision)
                });
                if let Some(fields) = noted {
                    // Two filters of one name may watch for different reasons.
                    let entry = record.metadata.entry(name.clone());
                    match entry.or_insert_with(|| serde_json::Map::new().into()) {
                        serde_json::Value::Object(all) => all.extend(fields),
                        other => *other = fields.into(),
                    }
                }
                if rules.enforces() {
                    let info = record.info();
                    let decision = rules.decide(&info);
                    if !decision.allowed {
                        stats.rbac_denied.inc();
                        return Some(Answer::Local(decision.reply()));
                    }
                    stats.rbac_allowed.inc();
                }
            }
            HttpFilter::Cors => {
                if let Some(PerRoute::Cors(cors)) = per_route {
                    match cors.request(&record.head.method, &record.head.headers, &mut || {
                        self.worker.random()
                    }) {
                        CorsOutcome::None => {}
                        CorsOutcome::Denied => self.manager.stats.cors_origin_invalid.inc(),
                        CorsOutcome::Allowed => {
                            self.manager.stats.cors_origin_valid.inc();
                            flow.cors = record
                                .head
                                .headers
                                .get(header::ORIGIN)
                                .cloned()
                                .zip(Some(cors.clone()));
                        }
                        CorsOutcome::Preflight(headers) => {
                            if headers.is_empty() {
                                self.manager.stats.cors_origin_invalid.inc();
                            } else {
                                self.manager.stats.cors_origin_valid.inc();
                            }
                            record.details = Cow::Borrowed("cors_response");
                            return Some(Answer::Ready(StatusCode::OK, headers, Body::Empty, true));
                        }
                    }
                }
            }
            HttpFilter::IstioStats(_) => {}
            HttpFilter::Jwt(jwt) => {
                let route = match per_route {
                    Some(PerRoute::Jwt(route)) => Some(route),
                    _ => None,
                };
                return jwt.run(self, record, flow, route).await;
            }
            HttpFilter::LocalRateLimit(own) => {
                let limit = match per_route {
                    Some(PerRoute::LocalRateLimit(limit)) => &**limit,
                    _ => own,
                };
                return self.local_limit(limit, record, flow);
            }
            HttpFilter::RateLimit(limit) => {
                let route = match per_route {
                    Some(PerRoute::RateLimit(route)) => Some(route),
                    _ => None,
                };
                return limit.run(self, record, flow, route).await;
            }
            HttpFilter::ExtAuthz(service) => {
                let route = match per_route {
                    Some(PerRoute::ExtAuthz(route)) => Some(route),
                    _ => None,
                };
                return service.run(self, record, flow, route).await;
            }
            HttpFilter::Buffer(own) => {
                let limit = match per_route {
                    Some(PerRoute::Buffer(None)) => return None,
                    Some(PerRoute::Buffer(Some(limit))) => *limit,
                    _ => *own,
                };
                if let Some(replay) = record.replay.clone() {
                    match Replay::buffer(&replay, limit).await {
                        Ok(read) if read.complete => {
                            let headers = &mut record.head.headers;
                            if !headers.contains_key(header::CONTENT_LENGTH) {
                                headers.insert(header::CONTENT_LENGTH, read.bytes.len().into());
                            }
                        }
                        Ok(_) => return Some(Answer::Local(local_reply::REQUEST_TOO_LARGE)),
                        // The client is gone; sending will notice it as well.
                        Err(_) => {}
                    }
                }
            }
            HttpFilter::HeaderMutation(own) => {
                let route = match per_route {
                    Some(PerRoute::HeaderMutation(route)) => Some(route),
                    _ => None,
                };
                for mutations in std::iter::once(own).chain(route) {
                    let mut head = std::mem::replace(&mut record.head, Head::empty());
                    {
                        let mut info = record.info();
                        info.request = None;
                        mutations.request(&mut head.change(), &info);
                    }
                    record.head = head;
                    if !mutations.keeps_response() {
                        flow.response
                            .push(ResponseStep::Mutations(mutations.clone()));
                    }
                }
            }
            HttpFilter::HeaderToMetadata(own) => {
                let rules = match per_route {
                    Some(PerRoute::HeaderToMetadata(rules)) => rules,
                    _ => own,
                };
                rules.request(&mut record.head.change(), &mut record.metadata);
                if rules.reads_response() {
                    flow.response
                        .push(ResponseStep::HeaderToMetadata(rules.clone()));
                }
            }
            HttpFilter::SetMetadata(values) => values.apply(&mut record.metadata),
            HttpFilter::Compressor(compressor) => {
                if compressor.request(&mut record.head.headers) {
                    flow.response
                        .push(ResponseStep::Compress(compressor.clone()));
                }
            }
            HttpFilter::GrpcWeb => {
                if let Some(dialect) = Dialect::of(&record.head.headers) {
                    let text = dialect.request(&mut record.head.headers);
                    record.grpc = true;
                    if let (true, Some(replay)) = (text, &record.replay) {
                        let mut replay = replay.borrow_mut();
                        replay.wrap(|body| Body::Boxed(Box::new(FromText::new(body))));
                    }
                    flow.response.push(ResponseStep::GrpcWeb(dialect));
                }
            }
        }
        None
    }

    fn local_limit(
        &self,
        shared_limit: &LocalLimit,
        record: &mut Record,
        flow: &mut Flow,
    ) -> Option<Answer> {
        let limit = shared_limit.limit.as_ref()?;
        let stats = shared_limit.stats(&self.shared);
        let own;
        let limit = if limit.per_connection {
            own = self.own_limit(limit);
            &*own
        } else {
            limit
        };
        let none = dataplane::stream::Metadata::new();
        let route = record.route.as_deref();
        let verdict = limit.check(
            &record.head.view(),
            &Facts {
                remote: record.remote.unwrap_or(self.info.remote).ip(),
                cluster: record.cluster_name.as_deref().unwrap_or_default(),
                source_cluster: &self.shared.node.cluster,
                metadata: &record.metadata,
                route_metadata: route.map_or(&none, |route| &*route.metadata),
            },
            route.map_or(&[], |route| &route.rate_limits),
            self.shared.started.elapsed(),
            &mut || self.worker.random(),
        );
        if !matches!(verdict, Verdict::Disabled) {
            stats.enabled.inc();
        }
        let as_steps = |headers: HeaderMap| {
            let one = |(name, value): (Option<HeaderName>, HeaderValue)| {
                Some((name?, value, HeaderAppendAction::OverwriteIfExistsOrAdd))
            };
            headers.into_iter().filter_map(one).collect()
        };
        match verdict {
            Verdict::Disabled => None,
            Verdict::Ok { headers } => {
                stats.ok.inc();
                if !headers.is_empty() {
                    flow.response.push(ResponseStep::Headers(as_steps(headers)));
                }
                None
            }
            Verdict::NotEnforced => {
                stats.rate_limited.inc();
                let mut head = std::mem::replace(&mut record.head, Head::empty());
                {
                    let mut info = record.info();
                    info.request = None;
                    limit
                        .unenforced_headers
                        .apply_request(&mut head.change(), &info);
                }
                record.head = head;
                None
            }
            Verdict::Limited { reply, mut headers } => {
                stats.rate_limited.inc();
                stats.enforced.inc();
                limit
                    .response_headers
                    .apply_response(&mut headers, &record.info());
                Some(Answer::Refused(reply, headers))
            }
        }
    }

    /// The buckets of this connection for a limit whose buckets are not shared.
    fn own_limit(&self, limit: &LocalRateLimit) -> Rc<LocalRateLimit> {
        let key = std::ptr::from_ref(limit) as usize;
        let mut own = self.limits.borrow_mut();
        if let Some((_, found)) = own.iter().find(|(other, _)| *other == key) {
            return found.clone();
        }
        let made = Rc::new(limit.clone());
        own.push((key, made.clone()));
        made
    }

    fn per_route(&self, record: &Record, flow: &Flow, name: &str) -> Option<Arc<PerRoute>> {
        flow.routes
            .as_ref()?
            .filter(record.route.as_deref()?, name, record.weighted)
    }
}

/// What filters leave for the router and for the answer.
#[derive(Default)]
pub struct Flow {
    /// The route table in use.
    pub routes: Option<Arc<Routes>>,
    /// The application protocols to offer.
    pub alpn: Option<super::filters::Alpn>,
    /// Answer with our metadata.
    pub answer_metadata: bool,
    /// Tell the upstream our metadata.
    pub tell_upstream: bool,
    /// Read the upstream's metadata.
    pub learn_upstream: bool,
    /// An allowed origin and the policy that allows it.
    pub cors: Option<(HeaderValue, Arc<Cors>)>,
    /// The operation that the caller is told in the answer.
    pub operation: Option<String>,
    /// The route is to be chosen anew: what it depends on has changed.
    pub reroute: bool,
    /// What filters do to the answer, in the order of the request.
    pub response: Vec<ResponseStep>,
    /// The response headers of the route apply.
    pub route_headers: bool,
    /// Close the connection after the answer.
    pub close: bool,
    /// How long the stream may live and be silent.
    pub limits: Rc<Limits>,
    /// When the answer has to be through, and the cluster that takes too long otherwise.
    pub deadline: Option<(Instant, Arc<Cluster>)>,
    /// Where a redirect leads to.
    pub location: Option<HeaderValue>,
}

fn redirect(status: u16, location: &str, details: &'static str, flow: &mut Flow) -> Answer {
    flow.location = HeaderValue::from_str(location).ok();
    Answer::Local(LocalReply {
        status,
        flags: ResponseFlags::NONE,
        details: Cow::Borrowed(details),
        ..local_reply::ROUTE_NOT_FOUND
    })
}
