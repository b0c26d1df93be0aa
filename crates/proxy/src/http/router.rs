//! The router: picks a host, sends the request, tries again, and gives the answer back.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use dataplane::circuit::{Priority, Resource};
use dataplane::cluster::{Discovery, UpstreamProtocol};
use dataplane::lb::{Criteria, PickContext};
use dataplane::lists::{self, Direction};
use dataplane::local_reply::{self, LocalReply, ResetReason};
use dataplane::outlier::HostResult;
use dataplane::retry::{Attempt, Decision, RetryState};
use dataplane::route::Route;
use dataplane::stream::TlsSession;
use dataplane::{ResponseFlags, request};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::connection::{Answer, Connection, Flow};
use super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::limits::{self, Limits};
use super::message::{Informational, Protocol};
use super::record::{Active, Head, Record};
use super::{connect, internal_redirect, mirror};
use crate::body::{Body, BodyError, Replay, SharedReplay};
use crate::h1;
use crate::h1::head::HeaderCase;
use crate::h2;
use crate::upstream::connect::ConnectError;
use crate::upstream::host::Transport;
use crate::upstream::pool::{AcquireError, ConnectionLease, Ends, Key};
use crate::upstream::{Cluster, Host};
use crate::worker::Worker;

/// How much of a request that cannot be passed on is read before it is answered, if it is there already.
const DRAINED: u64 = 64 * 1024;

pub(super) const EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(super) const SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
/// Headers that steer the router and end here.
const STEERING: [HeaderName; 9] = [
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
];

/// How a try failed.
pub(super) struct Failure {
    pub(super) reason: ResetReason,
    pub(super) transport: String,
    pub(super) request_sent: bool,
    /// It never got a connection: there is no host to speak of.
    pub(super) pending: bool,
    /// Nothing is wrong with the upstream: the client's body broke off.
    pub(super) client: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason.text())?;
        if !self.transport.is_empty() {
            write!(f, ": {}", self.transport)?;
        }
        Ok(())
    }
}

/// What a try brought.
pub(super) struct Success {
    pub(super) answer: h1::client::Answer,
    pub(super) active: Active,
}

/// A connection to an upstream that a request got.
#[derive(Default)]
pub struct Reached {
    /// Our end of it.
    pub local: Option<SocketAddr>,
    /// The TLS session, if there is one.
    pub session: Option<Arc<TlsSession>>,
}

impl Success {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.answer.status
    }

    /// Its headers.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.answer.headers)
    }

    /// Its body.
    pub(super) fn body(&mut self) -> &mut Body {
        &mut self.answer.body
    }
}

/// Whom a request can go to.
enum Pick {
    Host(Option<usize>, Arc<Host>),
    None,
}

/// Routes one request to a cluster.
pub async fn route(
    conn: &Rc<Connection>,
    record: &mut Record,
    flow: &mut Flow,
    cluster: Arc<Cluster>,
    route: Arc<Route>,
    upgrade: Option<String>,
    info: &Informational,
) -> Answer {
    let timeouts = route.timeouts(&record.head.view());
    if let Some(end) = timeouts.max_stream {
        flow.limits.end.set(Some(record.start + end));
    }
    let mut retry = RetryState::new(route.retry.as_deref(), &record.head.view());
    if request::is_steered(&record.head.headers) {
        for name in STEERING {
            record.head.headers.remove(name);
        }
    }
    let mut random = || conn.worker.random();
    let mut cookies = Vec::new();
    let hash = if route.has_hash_policy() {
        let source = record.remote.unwrap_or(conn.info.remote).ip();
        let result = route.hash(&record.head.view(), source, &mut random);
        cookies = result.set_cookies;
        result.hash
    } else {
        None
    };
    let own_criteria;
    let criteria = if cluster.config.subsets.is_none() {
        None
    } else {
        // What filters have found out about the request counts more than what the route says.
        let route = route.criteria(record.weighted).map(|criteria| &**criteria);
        own_criteria = Criteria::with(route, &record.metadata);
        own_criteria.as_ref().or(route)
    };
    // The values of mutations see the head as it was; the head is taken out so that it can be changed.
    let mut head = std::mem::replace(&mut record.head, Head::empty());
    {
        let mut info = record.info();
        info.request = None;
        route.apply_request(
            &mut head.change(),
            record.weighted,
            &info,
            conn.manager.suppress_envoy_headers,
        );
    }
    record.head = head;
    if flow.tell_upstream {
        record
            .head
            .headers
            .insert(PEER_METADATA, conn.shared.identity.header.clone());
        record
            .head
            .headers
            .insert(PEER_METADATA_ID, conn.shared.identity.id.clone());
    }
    if let Some(replay) = &record.replay
        && (retry.is_some() || !route.mirrors.is_empty() || route.internal_redirect.is_some())
    {
        replay.borrow_mut().keep(route.buffer_limit);
    }
    if upgrade.is_none() {
        for mirror in &route.mirrors {
            if mirror.fraction.draw(&mut || conn.worker.random()) {
                mirror::send(conn, record, mirror, timeouts.global);
            }
        }
    }
    let terminate = record.head.method == Method::CONNECT && route.terminates_connect;
    let priority = route.priority;
    let deadline = if upgrade.is_some() || terminate {
        None
    } else {
        timeouts.global.map(|timeout| Instant::now() + timeout)
    };
    let reselections = route
        .retry
        .as_ref()
        .map_or(0, |retry| retry.host_selection_attempts);
    let avoid = route
        .retry
        .as_ref()
        .is_some_and(|retry| retry.avoid_previous_hosts);
    let mut tried: Vec<usize> = Vec::new();
    let priorities_every = route
        .retry
        .as_ref()
        .and_then(|retry| retry.previous_priorities)
        .map(|frequency| frequency.max(1) as usize);
    let mut used_priorities: Vec<usize> = Vec::new();
    let mut retry_permit = None;

    loop {
        record.attempts += 1;
        record.trace_attempt();
        if !conn.manager.suppress_envoy_headers {
            // What is left of the whole time, for a later try less than for the first.
            let left = timeouts.global.map(|global| match deadline {
                Some(deadline) if record.attempts > 1 => {
                    deadline.saturating_duration_since(Instant::now())
                }
                _ => global,
            });
            let expected = match (timeouts.per_try, left) {
                (Some(per_try), Some(left)) => Some(per_try.min(left)),
                (per_try, left) => per_try.or(left),
            };
            if let Some(expected) = expected {
                record
                    .head
                    .headers
                    .insert(EXPECTED_TIMEOUT, (expected.as_millis() as u64).into());
            }
        }
        if route.attempt_count_in_request {
            record
                .head
                .headers
                .insert(ATTEMPT_COUNT, u64::from(record.attempts).into());
        }
        let context = PickContext {
            hash,
            tried: if avoid { &tried } else { &[] },
            reselections,
            criteria,
            tried_priorities: match priorities_every {
                // The list is looked at anew after every so many tries.
                Some(every) => &used_priorities[..used_priorities.len() / every * every],
                None => &[],
            },
        };
        let host = match pick(conn, record, &cluster, &context).await {
            Pick::Host(index, host) => {
                tried.extend(index);
                used_priorities.push(host.info.load().priority as usize);
                host
            }
            Pick::None => {
                cluster.stats.upstream_cx_none_healthy.inc();
                count_local(&cluster, 503);
                return Answer::Local(local_reply::NO_HEALTHY_UPSTREAM);
            }
        };
        if route.auto_host_rewrite
            && let info = host.info.load()
            // A further try to the same name has nothing to tell.
            && (record.attempts == 1 || record.head.authority != info.hostname)
        {
            let suppress = conn.manager.suppress_envoy_headers;
            route.apply_endpoint(&mut record.head.change(), &info.hostname, suppress);
        }
        record.host = Some(host.clone());
        record.transport_failure.clear();
        let http2 = speaks_http2(&cluster, &host, record.protocol);
        record.upstream_protocol = Some(if http2 { "HTTP/2" } else { "HTTP/1.1" });
        record.reached = OnceCell::new();
        let sent_at = Instant::now();
        let limits = Limits::default();
        limits.idle.set(
            route
                .retry
                .as_ref()
                .and_then(|retry| retry.per_try_idle_timeout)
                .filter(|_| upgrade.is_none()),
        );
        let body = record.replay.clone();
        let long = upgrade.is_some() || terminate;
        let cut = [
            (
                timeouts
                    .per_try
                    .filter(|_| !long)
                    .map(|timeout| sent_at + timeout),
                Cut::Try,
            ),
            (deadline, Cut::Route),
            (
                cluster
                    .config
                    .max_stream_duration
                    .map(|limit| sent_at + limit),
                Cut::Stream,
            ),
        ]
        .into_iter()
        .filter_map(|(at, cut)| Some((at?, cut)))
        // Of two at once the whole time counts more than that of a try.
        .min_by_key(|(at, cut)| (*at, *cut == Cut::Try));
        let result = {
            // Stays where it is made: it is large.
            let mut send = pin!(attempt(
                conn,
                record,
                flow,
                &cluster,
                &host,
                priority,
                http2,
                upgrade.as_deref(),
                terminate,
                info,
            ));
            let send = async {
                if limits.idle.get().is_none() {
                    return send.await.map_err(Unanswered::Failed);
                }
                match limits::within(&limits, sent_at, body, send.as_mut()).await {
                    Ok(result) => result.map_err(Unanswered::Failed),
                    Err(_) => Err(Unanswered::Cut(Cut::Idle)),
                }
            };
            match cut {
                None => send.await,
                Some((at, cut)) => match tokio::time::timeout_at(at.into(), send).await {
                    Ok(result) => result,
                    Err(_) => Err(Unanswered::Cut(cut)),
                },
            }
        };
        if cluster.config.protocol == UpstreamProtocol::Auto && host.agreed() == Some(true) {
            record.upstream_protocol = Some("HTTP/2");
        }
        if let Some(replay) = &record.replay
            && replay.borrow_mut().take_overflow()
        {
            cluster.stats.retry_or_shadow_abandoned.inc();
        }
        let result = match result {
            Ok(success) => Ok(success),
            Err(Unanswered::Failed(failure)) => Err(failure),
            Err(Unanswered::Cut(cut)) => {
                let complete = record
                    .replay
                    .as_ref()
                    .is_none_or(|replay| replay.borrow().complete_now());
                let stats = &cluster.stats;
                let (counter, outcome, reply) = match cut {
                    Cut::Route => (
                        &stats.upstream_rq_timeout,
                        None,
                        local_reply::REQUEST_TIMEOUT,
                    ),
                    Cut::Try => (
                        &stats.upstream_rq_per_try_timeout,
                        Some(Attempt::PerTryTimeout),
                        local_reply::PER_TRY_TIMEOUT,
                    ),
                    Cut::Idle => (
                        &stats.upstream_rq_per_try_idle_timeout,
                        Some(Attempt::PerTryTimeout),
                        local_reply::PER_TRY_IDLE_TIMEOUT,
                    ),
                    Cut::Stream => (
                        &stats.upstream_rq_max_duration_reached,
                        Some(Attempt::Reset {
                            reason: ResetReason::LocalReset,
                            request_sent: true,
                        }),
                        LocalReply {
                            // Who was slow?
                            status: if complete { 504 } else { 408 },
                            ..local_reply::MAX_STREAM_DURATION
                        },
                    ),
                };
                counter.inc();
                if cut != Cut::Stream {
                    host.stats.rq_timeout.inc();
                    cluster.record(&host, HostResult::LocalOriginTimeout, &mut random);
                }
                host.stats.rq_error.inc();
                if let Some(outcome) = outcome
                    && let Some(pause) = again(
                        conn,
                        record,
                        &cluster,
                        priority,
                        &mut retry,
                        &outcome,
                        &mut retry_permit,
                    )
                {
                    if let Some(answer) = back_off(pause, deadline, &cluster).await {
                        return answer;
                    }
                    continue;
                }
                count_local(&cluster, reply.status);
                return Answer::Local(reply);
            }
        };
        match result {
            Err(failure) if failure.client && failure.reason == ResetReason::ProtocolError => {
                // What the client sends is no body.
                flow.close = true;
                return Answer::Local(LocalReply {
                    status: 400,
                    body: Cow::Borrowed("Bad Request"),
                    flags: ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
                    details: Cow::Borrowed("http1.codec_error"),
                    ..local_reply::ROUTE_NOT_FOUND
                });
            }
            Err(failure) if failure.client => {
                // The connection is going away; nobody will read this.
                record
                    .flags
                    .set(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                return Answer::Local(LocalReply {
                    details: Cow::Borrowed("downstream_remote_disconnect"),
                    flags: ResponseFlags::NONE,
                    status: 400,
                    ..local_reply::ROUTE_NOT_FOUND
                });
            }
            Err(failure) => {
                if failure.reason != ResetReason::Overflow {
                    host.stats.rq_error.inc();
                    cluster.record(&host, HostResult::LocalOriginFailure, &mut random);
                }
                if failure.pending {
                    record.host = None;
                }
                record.transport_failure = failure.transport.replace(char::is_whitespace, "_");
                let outcome = Attempt::Reset {
                    reason: failure.reason,
                    request_sent: failure.request_sent,
                };
                if let Some(pause) = again(
                    conn,
                    record,
                    &cluster,
                    priority,
                    &mut retry,
                    &outcome,
                    &mut retry_permit,
                ) {
                    if let Some(answer) = back_off(pause, deadline, &cluster).await {
                        return answer;
                    }
                    continue;
                }
                if let Some(replay) = record.replay.clone() {
                    // What came while an upstream was tried was read, whether or not it could be passed on.
                    Replay::drain_ready(&replay, DRAINED).await;
                }
                let retried = retry.as_ref().is_some_and(|retry| retry.retries() > 0);
                let reply =
                    local_reply::upstream_reset(failure.reason, Some(&failure.transport), retried);
                count_local(&cluster, reply.status);
                return Answer::Local(reply);
            }
            Ok(mut success) => {
                lists::fold(Direction::Response, &mut success.answer.headers);
                let status = success.answer.status;
                let code = status.as_u16();
                // A gRPC status in the head is what counts for a gRPC request.
                let judged = if record.grpc {
                    grpc_outcome(&success.answer.headers).unwrap_or(code)
                } else {
                    code
                };
                cluster.record(&host, HostResult::Http(judged), &mut random);
                if code >= 500 {
                    host.stats.rq_error.inc();
                } else {
                    host.stats.rq_success.inc();
                }
                let outcome = Attempt::Response {
                    status: code,
                    headers: &success.answer.headers,
                };
                if let Some(pause) = again(
                    conn,
                    record,
                    &cluster,
                    priority,
                    &mut retry,
                    &outcome,
                    &mut retry_permit,
                ) {
                    cluster.stats.retry_codes.count(code);
                    drop(success);
                    if let Some(answer) = back_off(pause, deadline, &cluster).await {
                        return answer;
                    }
                    continue;
                }
                if let Some(policy) = &route.internal_redirect
                    && policy.follows(code)
                {
                    if internal_redirect::prepare(conn, record, flow, policy, code, &success) {
                        cluster
                            .stats
                            .upstream_internal_redirect_succeeded_total
                            .inc();
                        return Answer::Redirected(status);
                    }
                    cluster.stats.upstream_internal_redirect_failed_total.inc();
                }
                if record.attempts > 1 && code < 500 {
                    cluster.stats.upstream_rq_retry_success.inc();
                }
                drop(retry_permit);
                let websocket = upgrade
                    .as_ref()
                    .is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
                if websocket && !http2 && code != 101 && code < 400 {
                    // Neither the other protocol nor a refusal.
                    count_local(&cluster, code);
                    return Answer::Local(LocalReply {
                        status: code,
                        flags: ResponseFlags::NONE,
                        details: Cow::Borrowed("websocket_handshake_unsuccessful"),
                        ..local_reply::ROUTE_NOT_FOUND
                    });
                }
                return answer(
                    conn,
                    record,
                    flow,
                    &cluster,
                    &route,
                    success,
                    upgrade.is_some(),
                    deadline,
                    cookies,
                );
            }
        }
    }
}

/// The HTTP status that stands for a gRPC status in the head of an answer.
fn grpc_outcome(headers: &HeaderMap) -> Option<u16> {
    let status: u32 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    })
}

/// Counts a status under the cluster, whoever gave it.
pub(super) fn count_local(cluster: &Cluster, status: u16) {
    cluster.stats.upstream_rq_codes.count(status);
    cluster.stats.external_codes.count(status);
}

/// What ends a try from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Its own time is up.
    Try,
    /// Nothing moved for too long.
    Idle,
    /// The time of the whole request is up.
    Route,
    /// Streams of the cluster must not last longer.
    Stream,
}

/// A try without an answer.
enum Unanswered {
    Failed(Failure),
    Cut(Cut),
}

/// What a host is spoken to in, as far as it is known: where the handshake decides, [`send_to`] finds out.
pub(super) fn speaks_http2(cluster: &Cluster, host: &Host, downstream: Protocol) -> bool {
    match cluster.config.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => downstream == Protocol::Http2,
        UpstreamProtocol::Auto => host.agreed() == Some(true),
    }
}

async fn pick(
    conn: &Rc<Connection>,
    record: &Record,
    cluster: &Arc<Cluster>,
    context: &PickContext<'_>,
) -> Pick {
    match &cluster.config.discovery {
        Discovery::OriginalDst { header, port } => {
            let named = header.as_ref().and_then(|name| {
                record
                    .head
                    .headers
                    .get(name.as_str())?
                    .to_str()
                    .ok()?
                    .parse::<SocketAddr>()
                    .ok()
            });
            let mut destination = match named {
                Some(address) => address,
                // Not redirected: there is no original destination.
                None if conn.info.local == conn.listener.address => return Pick::None,
                None => conn.info.local,
            };
            if let Some(port) = port {
                destination.set_port(*port);
            }
            Pick::Host(None, cluster.original_destination(destination))
        }
        Discovery::DynamicForwardProxy => {
            let authority = &record.head.authority;
            let default = if record.head.scheme == "https" {
                443
            } else {
                80
            };
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) => (host, port.parse().unwrap_or(default)),
                None => (authority.as_str(), default),
            };
            match Box::pin(tokio::net::lookup_host((host, port)))
                .await
                .ok()
                .and_then(|mut found| found.next())
            {
                Some(address) => Pick::Host(None, cluster.original_destination(address)),
                None => Pick::None,
            }
        }
        _ => match cluster.pick(context, &mut || conn.worker.random()) {
            Some((index, host)) => Pick::Host(Some(index), host),
            None => Pick::None,
        },
    }
}

/// What lies between two tries.
struct Pause {
    time: Duration,
    /// The upstream has asked for it.
    asked: bool,
}

/// Pauses before a further try, which does not come, and is not counted, where the time of the whole request is up before.
async fn back_off(pause: Pause, deadline: Option<Instant>, cluster: &Cluster) -> Option<Answer> {
    let ends = Instant::now().checked_add(pause.time);
    if let Some(deadline) = deadline
        && ends.is_none_or(|ends| ends >= deadline)
    {
        tokio::time::sleep_until(deadline.into()).await;
        return Some(Answer::Local(local_reply::REQUEST_TIMEOUT));
    }
    tokio::time::sleep(pause.time).await;
    let stats = &cluster.stats;
    stats.upstream_rq_retry.inc();
    match pause.asked {
        true => stats.upstream_rq_retry_backoff_ratelimited.inc(),
        false => stats.upstream_rq_retry_backoff_exponential.inc(),
    }
    None
}

/// Whether to try again, and after which pause.
fn again(
    conn: &Rc<Connection>,
    record: &mut Record,
    cluster: &Arc<Cluster>,
    priority: Priority,
    retry: &mut Option<RetryState>,
    outcome: &Attempt<'_>,
    permit: &mut Option<dataplane::circuit::Permit>,
) -> Option<Pause> {
    let retry = retry.as_mut()?;
    if record
        .replay
        .as_ref()
        .is_some_and(|replay| !replay.borrow().replayable())
    {
        return None;
    }
    // The retry that just ended gives its place back first.
    permit.take();
    let mut taken = None;
    let decision = retry.should_retry(
        outcome,
        || {
            taken = cluster.breakers.try_acquire(priority, Resource::Retries);
            taken.is_some()
        },
        &mut || conn.worker.random(),
    );
    match decision {
        Decision::Retry { after } => {
            *permit = taken;
            record.active = None;
            let asked = match outcome {
                Attempt::Response { headers, .. } => {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                    retry.asked_pause(headers, now.unwrap_or_default(), &mut || {
                        conn.worker.random()
                    })
                }
                _ => None,
            };
            Some(Pause {
                time: asked.unwrap_or(after),
                asked: asked.is_some(),
            })
        }
        Decision::No => None,
        Decision::LimitExceeded => {
            cluster.stats.upstream_rq_retry_limit_exceeded.inc();
            record
                .flags
                .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            None
        }
        Decision::Overflow => {
            cluster.stats.upstream_rq_retry_overflow.inc();
            record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
            None
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn attempt(
    conn: &Rc<Connection>,
    record: &Record,
    flow: &Flow,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    priority: Priority,
    http2: bool,
    upgrade: Option<&str>,
    terminate: bool,
    info: &Informational,
) -> Result<Success, Failure> {
    // Only who asks for it is told, so that connections can be shared otherwise.
    let ends = host
        .proxy_protocol
        .map(|_| (conn.info.remote, conn.info.local));
    if terminate {
        let reached = &record.reached;
        return Box::pin(connect::terminate(cluster, host, priority, ends, reached)).await;
    }
    let alpn = match (&flow.alpn, &host.transport) {
        (Some(alpn), Transport::Tls(_)) => {
            if http2 {
                alpn.http2.clone()
            } else {
                alpn.http11.clone()
            }
        }
        _ => None,
    };
    send_to(
        &conn.worker,
        &record.head,
        record.replay.clone(),
        cluster,
        host,
        priority,
        http2,
        alpn,
        upgrade,
        ends,
        info,
        &record.reached,
    )
    .await
}

#[allow(clippy::too_many_arguments)]
pub(super) async fn send_to(
    worker: &Worker,
    head: &Head,
    replay: Option<SharedReplay>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    priority: Priority,
    http2: bool,
    alpn: Option<Arc<[Vec<u8>]>>,
    upgrade: Option<&str>,
    ends: Option<Ends>,
    info: &Informational,
    reached: &OnceCell<Reached>,
) -> Result<Success, Failure> {
    let stats = &cluster.stats;
    let overflow = |pending| Failure {
        pending,
        reason: ResetReason::Overflow,
        transport: String::new(),
        request_sent: false,
        client: false,
    };
    let auto = cluster.config.protocol == UpstreamProtocol::Auto;
    let alpn = match &host.transport {
        Transport::Tls(context) if auto && alpn.is_none() && context.alpn.is_empty() => {
            static BOTH: LazyLock<Arc<[Vec<u8>]>> =
                LazyLock::new(|| [b"h2".to_vec(), b"http/1.1".to_vec()].into());
            Some(BOTH.clone())
        }
        _ => alpn,
    };
    let sni = server_name(head, cluster, host);
    let pool = |http2| {
        let key = Key {
            host: host.id,
            http2,
            alpn: alpn.clone(),
            sni: sni.clone(),
            priority: u8::from(priority == Priority::High),
            ends,
        };
        worker.pools.get(key, cluster, host)
    };
    let acquire_error = |error: AcquireError| match error {
        AcquireError::Overflow => overflow(true),
        AcquireError::Connect(error) => {
            stats.upstream_rq_pending_failure_eject.inc();
            Failure {
                pending: false,
                reason: match error {
                    ConnectError::Timeout => ResetReason::ConnectionTimeout,
                    _ => ResetReason::RemoteConnectionFailure,
                },
                transport: error.reason().to_owned(),
                request_sent: false,
                client: false,
            }
        }
    };
    let on_info = |status: StatusCode, headers: HeaderMap| info.push(status, headers);
    let http2 = match host.agreed() {
        _ if !auto => http2,
        Some(http2) => http2,
        None => Box::pin(async { pool(false).learn(&pool(true)).await })
            .await
            .map_err(acquire_error)?,
    };
    let pool = pool(http2);
    if http2 {
        let connection = pool.http2().await.map_err(acquire_error)?;
        let Some(permit) = cluster.breakers.try_acquire(priority, Resource::Requests) else {
            return Err(overflow(false));
        };
        stats.upstream_rq_total.inc();
        host.stats.rq_total.inc();
        let active = Active::new(cluster.clone(), host.clone(), permit);
        let mut headers = head.headers.clone();
        headers.remove(header::HOST);
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
        let request = h2::client::Request {
            method: if upgrade.is_some() {
                &Method::CONNECT
            } else {
                &head.method
            },
            scheme: head.scheme,
            authority: &head.authority,
            path: &head.path,
            headers,
            protocol: upgrade,
        };
        let _ = reached.set(reached_by(connection.lease()));
        let answer = connection
            .send(request, replay, on_info)
            .await
            .map_err(|error| {
                let (reason, client) = match error {
                    h2::client::SendError::Closed => (ResetReason::ConnectionTermination, false),
                    h2::client::SendError::Refused => {
                        (ResetReason::RemoteRefusedStreamReset, false)
                    }
                    h2::client::SendError::Reset => (ResetReason::RemoteReset, false),
                    h2::client::SendError::Protocol => (ResetReason::ProtocolError, false),
                    h2::client::SendError::RequestBody(error) => (body_reset(error), true),
                };
                if reason == ResetReason::RemoteReset {
                    stats.upstream_rq_rx_reset.inc();
                }
                Failure {
                    pending: false,
                    reason,
                    transport: String::new(),
                    request_sent: true,
                    client,
                }
            })?;
        return Ok(Success { answer, active });
    }
    let connection = pool.http1().await.map_err(acquire_error)?;
    let Some(permit) = cluster.breakers.try_acquire(priority, Resource::Requests) else {
        return Err(overflow(false));
    };
    stats.upstream_rq_total.inc();
    host.stats.rq_total.inc();
    let active = Active::new(cluster.clone(), host.clone(), permit);
    let _ = reached.set(reached_by(&*connection.lease));
    let out = h1::client::Outgoing {
        method: &head.method,
        target: if head.path.is_empty() {
            &head.authority
        } else {
            &head.path
        },
        authority: &head.authority,
        headers: &head.headers,
        upgrade,
        case: if cluster.config.proper_case {
            HeaderCase::ProperCase
        } else {
            HeaderCase::Lower
        },
        trailers: cluster.config.http1_trailers,
    };
    let answer = connection
        .send(out, replay, on_info)
        .await
        .map_err(|error| {
            let (reason, client) = match error {
                // Half a head is no HTTP; none at all is a connection that went away.
                h1::client::SendError::Closed { after_bytes: true } => {
                    stats.upstream_cx_protocol_error.inc();
                    (ResetReason::ProtocolError, false)
                }
                h1::client::SendError::Closed { after_bytes: false } => {
                    (ResetReason::ConnectionTermination, false)
                }
                h1::client::SendError::Protocol(_) => {
                    stats.upstream_cx_protocol_error.inc();
                    (ResetReason::ProtocolError, false)
                }
                h1::client::SendError::RequestBody(error) => (body_reset(error), true),
            };
            Failure {
                pending: false,
                reason,
                transport: String::new(),
                request_sent: true,
                client,
            }
        })?;
    Ok(Success { answer, active })
}

/// The server name for the handshake, where it comes from the request (`auto_sni`).
fn server_name(head: &Head, cluster: &Cluster, host: &Host) -> Option<Arc<str>> {
    let auto = cluster.config.auto_sni.as_ref()?;
    if !matches!(host.transport, Transport::Tls(_)) {
        return None;
    }
    let name = match &auto.header {
        None => head.authority.as_str(),
        Some(header) => head.headers.get(header)?.to_str().ok()?,
    };
    let name = match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => name,
    };
    // An address is never sent as a server name.
    let address = name.trim_start_matches('[').trim_end_matches(']');
    (!name.is_empty() && address.parse::<std::net::IpAddr>().is_err()).then(|| Arc::from(name))
}

/// Why the request's own body ends a try.
fn body_reset(error: BodyError) -> ResetReason {
    match error {
        BodyError::Protocol => ResetReason::ProtocolError,
        _ => ResetReason::LocalReset,
    }
}

fn reached_by(lease: &dyn h1::client::Lease) -> Reached {
    let own = lease.as_any().downcast_ref::<ConnectionLease>();
    Reached {
        local: lease.local_address(),
        session: own.and_then(|own| own.session.clone()),
    }
}

#[allow(clippy::too_many_arguments)]
fn answer(
    conn: &Rc<Connection>,
    record: &mut Record,
    flow: &mut Flow,
    cluster: &Arc<Cluster>,
    route: &Route,
    success: Success,
    upgrade: bool,
    deadline: Option<Instant>,
    cookies: Vec<String>,
) -> Answer {
    let now = Instant::now();
    let Success { answer, active } = success;
    let h1::client::Answer {
        status,
        mut headers,
        head_bytes,
        body,
    } = answer;
    let code = status.as_u16();
    count_local(cluster, code);
    record.active = Some(active);
    record.first_byte = Some(now);
    record.wire.upstream_received += head_bytes;
    record.details = Cow::Borrowed("via_upstream");
    let began = record.sent.unwrap_or(record.start);
    if record.sent.is_none() {
        record.sent = Some(record.start);
    }
    if flow.learn_upstream {
        let id = headers.remove(PEER_METADATA_ID);
        if let Some(metadata) = headers.remove(PEER_METADATA) {
            let id = id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default();
            record.peer = conn.shared.identity.peer(id, metadata.as_bytes());
        }
    }
    for cookie in cookies {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    // Of a request that is not complete nobody can say how long its answer took.
    let tunnel = matches!(body, Body::Tunnel(_));
    let complete = !upgrade
        && !tunnel
        && record
            .replay
            .as_ref()
            .is_none_or(|replay| replay.borrow().complete_now());
    if !conn.manager.suppress_envoy_headers && complete {
        let took = now.saturating_duration_since(began).as_millis() as u64;
        headers.insert(SERVICE_TIME, took.into());
    }
    if route.attempt_count_in_response {
        headers.insert(ATTEMPT_COUNT, u64::from(record.attempts).into());
    }
    if upgrade && !tunnel {
        // The upstream does not want it; what would follow the head is not a request.
        flow.close = true;
    }
    let status =
        if tunnel && record.protocol != Protocol::Http2 && status == StatusCode::OK && upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            StatusCode::SWITCHING_PROTOCOLS
        } else {
            status
        };
    flow.deadline = deadline.map(|deadline| (deadline, cluster.clone()));
    Answer::Ready(status, headers, body, false)
}
