//! CONNECT requests that end here and become connections.

use std::cell::OnceCell;
use std::rc::Weak;
use std::sync::Arc;

use bytes::BytesMut;
use dataplane::circuit::{Priority, Resource};
use dataplane::local_reply::ResetReason;
use http::{HeaderMap, StatusCode};

use super::record::Active;
use super::router::{Failure, Reached, Success};
use crate::body::{Body, Tunnel};
use crate::h1;
use crate::upstream::connect::ConnectError;
use crate::upstream::{Cluster, Host, pool};

/// Ends a CONNECT here: its bytes go into a connection to the host.
pub(super) async fn terminate(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    priority: Priority,
    ends: Option<pool::Ends>,
    reached: &OnceCell<Reached>,
) -> Result<Success, Failure> {
    let failure = |reason, transport: &str| Failure {
        pending: reason == ResetReason::Overflow,
        reason,
        transport: transport.to_owned(),
        request_sent: false,
        client: false,
    };
    let overflow = || failure(ResetReason::Overflow, "");
    if cluster.breakers.open(priority, Resource::Connections) {
        cluster.stats.upstream_cx_overflow.inc();
        return Err(overflow());
    }
    let permit = cluster.breakers.try_acquire(priority, Resource::Requests);
    let permit = permit.ok_or_else(overflow)?;
    let opened = pool::open(cluster, host, priority, None, None, ends, Weak::new()).await;
    let (connected, lease) = opened.map_err(|error| {
        let reason = match error {
            ConnectError::Timeout => ResetReason::ConnectionTimeout,
            _ => ResetReason::RemoteConnectionFailure,
        };
        failure(reason, error.reason())
    })?;
    cluster.stats.upstream_rq_total.inc();
    host.stats.rq_total.inc();
    let _ = reached.set(Reached {
        local: connected.local,
        session: connected.session.clone(),
    });
    let tunnel = Tunnel::Connection(h1::client::Upgraded {
        io: connected.io,
        rbuf: BytesMut::new(),
        lease: Box::new(lease),
    });
    Ok(Success {
        answer: h1::client::Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            head_bytes: 0,
            body: Body::Tunnel(Box::new(tunnel)),
        },
        active: Active::new(cluster.clone(), host.clone(), permit),
    })
}
