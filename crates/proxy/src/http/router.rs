//! The router: picks a host, sends the request, tries again, and gives the answer back.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::ResponseFlags;
use dataplane::circuit::{Priority, Resource};
use dataplane::cluster::{Discovery, UpstreamProtocol};
use dataplane::lb::PickContext;
use dataplane::local_reply::{self, LocalReply, ResetReason};
use dataplane::outlier::HostResult;
use dataplane::retry::{Attempt, Decision, RetryState};
use dataplane::route::{Mirror, Route};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::connection::{Answer, Connection, Flow};
use super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::message::{Informational, Protocol};
use super::record::{Active, Head, Record};
use crate::body::{Body, BodyError, Replay, SharedReplay};
use crate::h1;
use crate::h1::head::HeaderCase;
use crate::h2;
use crate::upstream::connect::ConnectError;
use crate::upstream::host::Transport;
use crate::upstream::pool::{AcquireError, ConnectionLease, Key};
use crate::upstream::{Cluster, Host};
use crate::worker::Worker;

/// How much of a request body is kept for another try.
const RETRY_BUFFER: usize = 1024 * 1024;

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// Headers that steer the router and end here.
const STEERING: [HeaderName; 8] = [
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];

/// How a try failed.
pub(super) struct Failure {
    reason: ResetReason,
    transport: String,
    request_sent: bool,
    /// It never got a connection: there is no host to speak of.
    pending: bool,
    /// Nothing is wrong with the upstream: the client's body broke off.
    client: bool,
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
    answer: h1::client::Answer,
    local: Option<SocketAddr>,
    certificate: Option<Vec<u8>>,
    active: Active,
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
    let mut retry = if upgrade.is_none() {
        RetryState::new(route.retry.as_deref(), &record.head.view())
    } else {
        None
    };
    for name in STEERING {
        record.head.headers.remove(name);
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
        && (retry.is_some() || !route.mirrors.is_empty())
    {
        replay.borrow_mut().keep(RETRY_BUFFER);
    }
    if upgrade.is_none() {
        for mirror in &route.mirrors {
            if mirror.fraction.draw(&mut || conn.worker.random()) {
                shadow(conn, record, mirror);
            }
        }
    }
    let priority = route.priority;
    let deadline = if upgrade.is_some() {
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
        record.host = Some(host.clone());
        record.transport_failure.clear();
        let http2 = speaks_http2(&cluster, record.protocol);
        record.upstream_protocol = Some(if http2 { "HTTP/2" } else { "HTTP/1.1" });
        let send = attempt(
            conn,
            record,
            flow,
            &cluster,
            &host,
            priority,
            http2,
            upgrade.as_deref(),
            info,
        );
        let sent_at = Instant::now();
        let result = match limit(
            timeouts.per_try.filter(|_| upgrade.is_none()),
            deadline,
            sent_at,
        ) {
            None => send.await,
            Some((at, global)) => match tokio::time::timeout_at(at.into(), send).await {
                Ok(result) => result,
                Err(_) if global => {
                    cluster.stats.upstream_rq_timeout.inc();
                    host.stats.rq_timeout.inc();
                    host.stats.rq_error.inc();
                    cluster.record(&host, HostResult::LocalOriginTimeout, &mut random);
                    count_local(&cluster, 504);
                    return Answer::Local(local_reply::REQUEST_TIMEOUT);
                }
                Err(_) => {
                    cluster.stats.upstream_rq_per_try_timeout.inc();
                    host.stats.rq_timeout.inc();
                    host.stats.rq_error.inc();
                    cluster.record(&host, HostResult::LocalOriginTimeout, &mut random);
                    match again(
                        conn,
                        record,
                        &cluster,
                        priority,
                        &mut retry,
                        &Attempt::PerTryTimeout,
                        &mut retry_permit,
                    ) {
                        Some(pause) => {
                            cluster.stats.retry_codes.count(504);
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                        None => {
                            count_local(&cluster, 504);
                            return Answer::Local(local_reply::PER_TRY_TIMEOUT);
                        }
                    }
                }
            },
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
                    cluster.stats.retry_codes.count(503);
                    tokio::time::sleep(pause).await;
                    continue;
                }
                let retried = retry.as_ref().is_some_and(|retry| retry.retries() > 0);
                let reply =
                    local_reply::upstream_reset(failure.reason, Some(&failure.transport), retried);
                count_local(&cluster, reply.status);
                return Answer::Local(reply);
            }
            Ok(success) => {
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
                    tokio::time::sleep(pause).await;
                    continue;
                }
                if record.attempts > 1 && code < 500 {
                    cluster.stats.upstream_rq_retry_success.inc();
                }
                drop(retry_permit);
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

/// When a try has to end, and whether that is the end of all tries.
fn limit(
    per_try: Option<Duration>,
    deadline: Option<Instant>,
    now: Instant,
) -> Option<(Instant, bool)> {
    match (per_try.map(|timeout| now + timeout), deadline) {
        (Some(per_try), Some(deadline)) if per_try < deadline => Some((per_try, false)),
        (_, Some(deadline)) => Some((deadline, true)),
        (Some(per_try), None) => Some((per_try, false)),
        (None, None) => None,
    }
}

fn speaks_http2(cluster: &Cluster, downstream: Protocol) -> bool {
    match cluster.config.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => downstream == Protocol::Http2,
        // Without a handshake to ask, the safe choice; ALPN offers it alone.
        UpstreamProtocol::Auto => downstream == Protocol::Http2,
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
            match tokio::net::lookup_host((host, port))
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

/// Whether to try again, and after which pause.
fn again(
    conn: &Rc<Connection>,
    record: &mut Record,
    cluster: &Arc<Cluster>,
    priority: Priority,
    retry: &mut Option<RetryState>,
    outcome: &Attempt<'_>,
    permit: &mut Option<dataplane::circuit::Permit>,
) -> Option<Duration> {
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
            cluster.stats.upstream_rq_retry.inc();
            cluster.stats.upstream_rq_retry_backoff_exponential.inc();
            record.active = None;
            Some(after)
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
    info: &Informational,
) -> Result<Success, Failure> {
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
        info,
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
    info: &Informational,
) -> Result<Success, Failure> {
    let stats = &cluster.stats;
    let overflow = |pending| Failure {
        pending,
        reason: ResetReason::Overflow,
        transport: String::new(),
        request_sent: false,
        client: false,
    };
    let key = Key {
        host: host.id,
        http2,
        alpn,
        priority: u8::from(priority == Priority::High),
    };
    let pool = worker.pools.get(key, cluster, host);
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
        let local = connection.lease().local_address();
        let certificate = certificate(connection.lease());
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
        return Ok(Success {
            answer,
            local,
            certificate,
            active,
        });
    }
    let connection = pool.http1().await.map_err(acquire_error)?;
    let Some(permit) = cluster.breakers.try_acquire(priority, Resource::Requests) else {
        return Err(overflow(false));
    };
    stats.upstream_rq_total.inc();
    host.stats.rq_total.inc();
    let active = Active::new(cluster.clone(), host.clone(), permit);
    let local = connection.lease.local_address();
    let certificate = certificate(&*connection.lease);
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
    Ok(Success {
        answer,
        local,
        certificate,
        active,
    })
}

/// Why the request's own body ends a try.
fn body_reset(error: BodyError) -> ResetReason {
    match error {
        BodyError::Protocol => ResetReason::ProtocolError,
        _ => ResetReason::LocalReset,
    }
}

fn certificate(lease: &dyn h1::client::Lease) -> Option<Vec<u8>> {
    lease
        .as_any()
        .downcast_ref::<ConnectionLease>()?
        .peer_certificate
        .clone()
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
    let Success {
        answer,
        local,
        certificate,
        active,
    } = success;
    let h1::client::Answer {
        status,
        mut headers,
        head_bytes,
        body,
    } = answer;
    let code = status.as_u16();
    count_local(cluster, code);
    record.upstream_local = local;
    record.upstream_certificate = certificate;
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
    let complete = !upgrade
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
    let tunnel = matches!(body, Body::Tunnel(_));
    if upgrade && !tunnel {
        // The upstream does not want it: its status goes on, its body does not, and the connection ends.
        record.details = Cow::Borrowed("websocket_handshake_unsuccessful");
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        flow.close = true;
        return Answer::Ready(status, headers, Body::Empty, false);
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

/// Sends a copy somewhere else and forgets the answer.
fn shadow(conn: &Rc<Connection>, record: &Record, mirror: &Mirror) {
    let Some(cluster) = conn.shared.cluster(&mirror.cluster) else {
        return;
    };
    let mut authority = record.head.authority.clone();
    if !mirror.host_rewrite.is_empty() {
        authority.clone_from(&mirror.host_rewrite);
    } else if mirror.shadow_suffix {
        authority = match authority.split_once(':') {
            Some((host, port)) => format!("{host}-shadow:{port}"),
            None => format!("{authority}-shadow"),
        };
    }
    let head = Head {
        method: record.head.method.clone(),
        scheme: record.head.scheme,
        authority,
        path: record.head.path.clone(),
        headers: record.head.headers.clone(),
    };
    let replay = record.replay.clone();
    let conn = conn.clone();
    let protocol = record.protocol;
    tokio::task::spawn_local(async move {
        // The copy is sent when the original has been read; a body that does not fit the buffer has no copy.
        let body = match replay {
            None => None,
            Some(replay) => {
                let started = Instant::now();
                let frames = loop {
                    if let Some(frames) = replay.borrow().copy() {
                        break frames;
                    }
                    if replay.borrow().failed().is_some()
                        || started.elapsed() > Duration::from_secs(60)
                    {
                        cluster.stats.retry_or_shadow_abandoned.inc();
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                };
                Some(Replay::new(
                    Body::Chained(frames.into(), Box::new(Body::Empty)),
                    0,
                ))
            }
        };
        let Some((_, host)) = cluster.pick(&PickContext::default(), &mut || conn.worker.random())
        else {
            return;
        };
        let http2 = speaks_http2(&cluster, protocol);
        let info = Informational::default();
        let sent = send_to(
            &conn.worker,
            &head,
            body,
            &cluster,
            &host,
            Priority::Default,
            http2,
            None,
            None,
            &info,
        );
        if let Ok(Ok(mut success)) = tokio::time::timeout(Duration::from_secs(60), sent).await {
            count_local(&cluster, success.answer.status.as_u16());
            while let Some(Ok(_)) = success.answer.body.frame().await {}
        }
    });
}
