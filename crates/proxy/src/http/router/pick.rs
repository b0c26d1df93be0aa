//! Which host a request goes to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use dataplane::cluster::{Discovery, UpstreamProtocol};
use dataplane::lb::PickContext;

use super::super::connection::Connection;
use super::super::message::Protocol;
use super::super::record::Record;
use crate::upstream::{Cluster, Host};

/// Whom a request can go to.
pub(super) enum Pick {
    Host(Option<usize>, Arc<Host>),
    None,
}

/// What a host is spoken to in, as far as it is known: where the handshake decides, [`super::send_to`] finds out.
pub(in crate::http) fn speaks_http2(cluster: &Cluster, host: &Host, downstream: Protocol) -> bool {
    match cluster.config.protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => downstream == Protocol::Http2,
        UpstreamProtocol::Auto => host.agreed() == Some(true),
    }
}

pub(super) async fn pick(
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
