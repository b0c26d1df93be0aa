//! Mirrors: copies of requests that go somewhere else, whose answers nobody waits for.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dataplane::circuit::Priority;
use dataplane::lb::PickContext;
use dataplane::route::Mirror;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::connection::Connection;
use super::message::Informational;
use super::record::{Head, Record};
use super::router::{EXPECTED_TIMEOUT, count_local, send_to, speaks_http2};
use crate::body::{Body, Replay};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// Puts a value at the end of the list in a header.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    let text = match headers.get(name).and_then(|value| value.to_str().ok()) {
        Some(before) => format!("{before},{value}"),
        None => value.to_owned(),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// What Envoy adds to requests of its own: that they come from inside, and their timeout.
pub(super) fn of_our_own(headers: &mut HeaderMap, timeout: Option<Duration>) {
    headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if let Some(timeout) = timeout {
        headers.insert(EXPECTED_TIMEOUT, (timeout.as_millis() as u64).into());
    }
}

/// What most of them say besides: this machine.
pub(super) fn from_here(conn: &Connection, headers: &mut HeaderMap) {
    from_address(conn.manager.rules.node_address, headers);
}

/// The same for what belongs to no connection.
pub(super) fn from_address(address: Option<IpAddr>, headers: &mut HeaderMap) {
    if let Some(address) = address {
        append(headers, &FORWARDED_FOR, &address.to_string());
    }
}

/// Sends a copy somewhere else and forgets the answer.
pub(super) fn send(
    conn: &Rc<Connection>,
    record: &Record,
    mirror: &Mirror,
    timeout: Option<Duration>,
) {
    let Some(cluster) = conn.shared.cluster(&mirror.cluster) else {
        return;
    };
    let mut headers = record.head.headers.clone();
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    of_our_own(&mut headers, timeout);
    from_here(conn, &mut headers);
    let head = Head {
        method: record.head.method.clone(),
        scheme: record.head.scheme,
        authority: mirror.authority(&record.head.authority),
        path: record.head.path.clone(),
        headers,
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
        let http2 = speaks_http2(&cluster, &host, protocol);
        let info = Informational::default();
        let reached = OnceCell::new();
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
            None,
            &info,
            &reached,
        );
        if let Ok(Ok(mut success)) = tokio::time::timeout(Duration::from_secs(60), sent).await {
            count_local(&cluster, success.answer.status.as_u16());
            while let Some(Ok(_)) = success.answer.body.frame().await {}
        }
    });
}
