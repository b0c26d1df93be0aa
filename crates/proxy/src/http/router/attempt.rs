//! One try: a connection to the host, the request on it, and what comes back.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use dataplane::circuit::{Priority, Resource};
use dataplane::cluster::UpstreamProtocol;
use dataplane::local_reply::ResetReason;
use dataplane::route::Route;
use dataplane::stream::TlsSession;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::super::connect;
use super::super::connection::{Answer, Connection, Flow};
use super::super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::super::message::{Informational, Protocol};
use super::super::record::{Active, Head, Record};
use super::{ATTEMPT_COUNT, SERVICE_TIME, count_local};
use crate::body::{Body, BodyError, SharedReplay};
use crate::h1;
use crate::h1::head::HeaderCase;
use crate::h2;
use crate::upstream::connect::ConnectError;
use crate::upstream::host::Transport;
use crate::upstream::pool::{AcquireError, ConnectionLease, Ends, Key};
use crate::upstream::{Cluster, Host};
use crate::worker::Worker;

/// How a try failed.
pub(in crate::http) struct Failure {
    pub(in crate::http) reason: ResetReason,
    pub(in crate::http) transport: String,
    pub(in crate::http) request_sent: bool,
    /// It never got a connection: there is no host to speak of.
    pub(in crate::http) pending: bool,
    /// Nothing is wrong with the upstream: the client's body broke off.
    pub(in crate::http) client: bool,
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
pub(in crate::http) struct Success {
    pub(in crate::http) answer: h1::client::Answer,
    pub(in crate::http) active: Active,
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
    pub(in crate::http) fn status(&self) -> StatusCode {
        self.answer.status
    }

    /// Its headers.
    pub(in crate::http) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.answer.headers)
    }

    /// Its body.
    pub(in crate::http) fn body(&mut self) -> &mut Body {
        &mut self.answer.body
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) async fn attempt(
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
pub(in crate::http) async fn send_to(
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
pub(super) fn answer(
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
