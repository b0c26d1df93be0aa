//! The router: picks a host, sends the request, tries again, and gives the answer back.

mod attempt;
mod pick;
mod retry;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dataplane::cluster::UpstreamProtocol;
use dataplane::lb::{Criteria, PickContext};
use dataplane::lists::{self, Direction};
use dataplane::local_reply::{self, LocalReply, ResetReason};
use dataplane::outlier::HostResult;
use dataplane::retry::{Attempt, RetryState};
use dataplane::route::Route;
use dataplane::{ResponseFlags, request};
use http::header::HeaderName;
use http::{HeaderMap, Method};

use super::connection::{Answer, Connection, Flow};
use super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::limits::{self, Limits};
use super::message::Informational;
use super::record::{Head, Record};
use super::{internal_redirect, mirror};
use crate::body::Replay;
use crate::upstream::Cluster;
use attempt::{answer, attempt};
use pick::{Pick, pick};
use retry::{again, back_off};

pub use attempt::Reached;
pub(super) use attempt::{Failure, Success, send_to};
pub(super) use pick::speaks_http2;

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
