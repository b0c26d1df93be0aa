//! A downstream connection that speaks HTTP, and what happens to each of its requests.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use dataplane::http_conn::{PathOutcome, Underscores};
use dataplane::lists::{self, Direction};
use dataplane::local_ratelimit::LocalRateLimit;
use dataplane::local_reply::{self, LocalReply};
use dataplane::route::{MatchFacts, Outcome, Route};
use dataplane::stream::WireBytes;
use dataplane::tracing::{Context, Reason};
use dataplane::{ResponseFlags, request};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::cors::Cors;
use super::filters::ResponseStep;
use super::filters::discovered::Found;
use super::limits::{self, Limits, Reached};
use super::message::{Ended, Observer, Protocol, Request, Response};
use super::record::{Head, Record, Trace};
use super::router;
use crate::body::{Body, Replay};
use crate::config::Shared;
use crate::config::drain::Drain;
use crate::config::listener::{Chain, HttpManager, Listener, RouteSource};
use crate::config::routes::Routes;
use crate::h1::head::HeaderCase;
use crate::stats::groups::CodecStats;
use crate::tracer::Kind;
use crate::upstream::Cluster;
use crate::worker::Worker;

/// What a route calls the operation, told from proxy to proxy.
pub(super) const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
    /// How long a connection that is closed is read from.
    pub close_patience: Duration,
    /// How long a connection may last.
    pub max_duration: Option<Duration>,
    /// How many requests a connection may carry.
    pub max_requests: Option<u64>,
    /// What happens to header names with underscores.
    pub underscores: Underscores,
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
pub(super) struct Guard(Option<Box<Record>>);

impl Guard {
    /// The record; it is there until it is taken, which happens at the very end.
    pub(super) fn record(&mut self) -> &mut Record {
        self.0.as_deref_mut().expect("not taken")
    }

    /// Takes it: from now on somebody else reports.
    pub(super) fn take(&mut self) -> Box<Record> {
        self.0.take().expect("not taken")
    }
}

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

/// Handlers that are dropped while it lives were reset by their client, who has not gone away.
pub struct WasReset(());

impl WasReset {
    /// From now on.
    pub fn now() -> Self {
        ABANDONED.set(Ended::Reset);
        Self(())
    }
}

impl Drop for WasReset {
    fn drop(&mut self) {
        ABANDONED.set(Ended::Downstream);
    }
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

    /// Whether the connection is to be closed with the answer that is sent now.
    pub fn draining(&self) -> bool {
        let shared = &self.shared;
        let asked =
            |drain: &Drain| drain.closes(&shared.drain_policy, &mut || self.worker.random());
        asked(&self.chain.drain)
            || asked(&shared.drain)
            || self.listener.direction == 1 && asked(&shared.drain_inbound)
            || !self.listener.modify_only && shared.health_failed.load(Ordering::Relaxed)
    }

    /// Deals with header names that have underscores as the connection manager says; `false`: the request is to be refused.
    pub fn admits_names(&self, headers: &mut HeaderMap, protocol: Protocol) -> bool {
        let rule = self.options().underscores;
        let marked = |name: &HeaderName| name.as_str().contains('_');
        if rule == Underscores::Allow || !headers.keys().any(marked) {
            return true;
        }
        let codec = match protocol {
            Protocol::Http2 => "http2",
            _ => "http1",
        };
        let stats = self.shared.stats.group::<CodecStats>(codec);
        if rule == Underscores::Reject {
            stats.requests_rejected_with_underscores_in_headers.inc();
            return false;
        }
        let dropped: Vec<_> = headers
            .keys()
            .filter(|name| marked(name))
            .cloned()
            .collect();
        for name in dropped {
            headers.remove(name);
            stats.dropped_headers_with_underscores.inc();
        }
        true
    }

    /// Reports a request that the codec resets, and why.
    pub fn rejected(self: &Rc<Self>, request: Request, why: &'static str) {
        self.count_request(request.protocol);
        let head = Head {
            method: request.method,
            scheme: request.scheme.unwrap_or_default(),
            authority: request.authority.unwrap_or_default(),
            path: request.path,
            headers: request.headers,
        };
        let mut record = self.record(head, request.protocol, request.start, request.wire_bytes);
        record.finish(Ended::Rejected(why));
    }

    /// Counts a protocol error that has no request.
    pub fn protocol_error(&self) {
        self.manager.stats.downstream_cx_protocol_error.inc();
    }

    /// The answer to something that is no request: status, body and details.
    pub async fn refuse(
        self: &Rc<Self>,
        why: (StatusCode, &'static str, &'static str),
        protocol: Protocol,
    ) -> Response {
        self.manager.stats.downstream_cx_protocol_error.inc();
        self.answer_without_request(why, protocol, ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
            .await
    }

    /// The answer to a request whose head does not come.
    pub async fn head_timeout(self: &Rc<Self>) -> Response {
        self.manager.stats.downstream_rq_header_timeout.inc();
        let why = (
            StatusCode::REQUEST_TIMEOUT,
            "request header timeout",
            "request_header_timeout",
        );
        self.answer_without_request(why, Protocol::Http11, ResponseFlags::NONE)
            .await
    }

    async fn answer_without_request(
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
        let mut guard = Guard(Some(self.record(head, protocol, Instant::now(), 0)));
        let mut flow = Flow {
            close: true,
            ..Flow::default()
        };
        let answer = Answer::Local(LocalReply {
            status: status.as_u16(),
            body: Cow::Borrowed(body),
            flags,
            details: Cow::Borrowed(details),
            ..local_reply::ROUTE_NOT_FOUND
        });
        let answer = self.before_filters(guard.record(), &mut flow, answer);
        if flow.scripts {
            return Box::pin(self.respond_with_scripts(&mut guard, flow, answer)).await;
        }
        self.respond(guard.take(), flow, answer)
    }

    /// A stream begins: filters whose settings come on their own are as they are now.
    fn discover(&self, flow: &mut Flow) {
        if !self.manager.extensions.is_empty() {
            flow.discovered = Found::now(self.manager.filters.iter().map(|named| &named.filter));
        }
    }

    /// An answer that comes before any filter has seen the request. What filters and the route do to answers they do to it, too.
    fn before_filters(&self, record: &Record, flow: &mut Flow, answer: Answer) -> Answer {
        flow.route_headers = record.cluster_name.is_some();
        self.discover(flow);
        self.pass_by(0, record, flow);
        answer
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
            reached: OnceCell::new(),
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
            redirect_steps: Vec::new(),
            health_check: false,
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
        let mut headers = request.headers;
        lists::fold(Direction::Request, &mut headers);
        if let Some(protocol) = &request.extended_connect
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            headers.insert(header::UPGRADE, protocol);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
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
            headers,
        };
        let protocol = request.protocol;
        let mut guard = Guard(Some(self.record(
            head,
            protocol,
            request.start,
            request.wire_bytes,
        )));
        if !request.body.is_end() {
            let record = guard.record();
            record.replay = Some(Replay::new(request.body, 0));
        }
        let info = request.info;
        loop {
            let record = guard.record();
            record.grpc = request::is_grpc(&record.head.headers);
            let mut flow = Flow::default();
            let upgrades = upgrade.is_some() || record.head.method == Method::CONNECT;
            let answer = if missing_host {
                flow.close = true;
                let answer = Answer::Local(local_reply::MISSING_HOST);
                self.before_filters(record, &mut flow, answer)
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
                let handled = {
                    // Stays where it is made: it is large.
                    let handled = pin!(self.handle(record, &mut flow, upgrade.clone(), &info));
                    limits::within(&limits, start, body, handled).await
                };
                match handled {
                    Ok(answer) => answer,
                    Err(reached) => self.too_late(reached, record),
                }
            };
            if let Answer::Redirected(status) = answer {
                let mut done = guard.take();
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
            if flow.scripts {
                return Box::pin(self.respond_with_scripts(&mut guard, flow, answer)).await;
            }
            return self.respond(guard.take(), flow, answer);
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
        next.redirect_steps = std::mem::take(&mut done.redirect_steps);
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
        flow.routes = match &self.manager.routes {
            RouteSource::Inline(routes) => Some(routes.clone()),
            RouteSource::Named(name) => self.shared.snapshot.load().routes.get(name).cloned(),
        };
        // A redirected request was looked at when it came.
        if record.redirects == 0
            && let Some(answer) = self.admit(record, flow, connect, upgrade.is_some())
        {
            // Routes are for requests that say by which protocol they came; the others would be told it later.
            if record.head.headers.contains_key(FORWARDED_PROTO) {
                self.select(record, flow);
            }
            return self.before_filters(record, flow, answer);
        }
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
                let answer = Answer::Local(local_reply::UPGRADE_REFUSED);
                return self.before_filters(record, flow, answer);
            }
        } else if connect {
            let said = record
                .route
                .as_ref()
                .and_then(|route| route.upgrade("CONNECT"));
            // Without a route it is simply not found.
            if record.route.is_some() && !rules.upgrade_allowed("connect", said) {
                let answer = Answer::Local(local_reply::UPGRADE_REFUSED);
                return self.before_filters(record, flow, answer);
            }
        }

        // Filters in order.
        self.discover(flow);
        for (index, filter) in self.manager.filters.iter().enumerate() {
            if let Some(answer) = self.filter(index, filter, record, flow).await {
                self.pass_by(index + 1, record, flow);
                // What filters refuse has the headers of routes that lead to a cluster.
                flow.route_headers = record.cluster_name.is_some()
                    && matches!(answer, Answer::Local(_) | Answer::Refused(..));
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
                route,
                status,
                location,
            } => {
                self.manager.stats.rq_direct_response.inc();
                flow.route_headers = true;
                let suppress = self.manager.suppress_envoy_headers;
                route.apply_redirect(&mut record.head.change(), suppress);
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
    fn admit(
        &self,
        record: &mut Record,
        flow: &mut Flow,
        connect: bool,
        upgrades: bool,
    ) -> Option<Answer> {
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
        let headers = &mut record.head.headers;
        if !upgrades {
            headers.remove(header::CONNECTION);
            headers.remove(header::UPGRADE);
        }
        headers.remove(header::TRANSFER_ENCODING);
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
                    source: record.remote.unwrap_or(self.info.remote).ip(),
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
    /// Filters whose settings came on their own, as they were when the stream began.
    pub discovered: Found,
    /// What filters do to the answer, in the order of the request.
    pub response: Vec<ResponseStep>,
    /// Scripts are among them.
    pub scripts: bool,
    /// The response headers of the route apply.
    pub route_headers: bool,
    /// The route that did answer, where that is not the one in the record, and its weighted cluster.
    pub answered_by: Option<(Arc<Route>, Option<usize>)>,
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
