//! TCP: a connection to a host of a cluster, bytes in both directions, half-closes passed on.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BytesMut};
use dataplane::circuit::Priority;
use dataplane::cluster::Discovery;
use dataplane::lb::PickContext;
use dataplane::outlier::HostResult;
use dataplane::stream::Metadata;
use dataplane::{ResponseFlags, StreamInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::access_log::Moment;
use crate::config::Shared;
use crate::config::listener::{Chain, Listener, NetworkFilter, TcpCluster, TcpProxy, Tunnel};
use crate::http::istio::{Facts, TCP_MAGIC, Workload, labels};
use crate::io::{Io, poll_read_buf};
use crate::network_filters::admit;
use crate::upstream::connect::ConnectError;
use crate::upstream::pool;
use crate::upstream::{Cluster, Host};
use crate::worker::Worker;

const BUFFER: usize = 16 * 1024;
/// The largest metadata a peer may send.
const MAX_PREAMBLE: usize = 64 * 1024;

struct Session {
    start: Instant,
    start_wall: SystemTime,
    flags: ResponseFlags,
    details: Cow<'static, str>,
    failure: String,
    termination: String,
    cluster_name: Option<String>,
    cluster: Option<Arc<Cluster>>,
    host: Option<Arc<Host>>,
    local: Option<std::net::SocketAddr>,
    attempts: u32,
    received: u64,
    sent: u64,
    peer: Option<Arc<Workload>>,
}

/// Serves one TCP connection.
#[allow(clippy::too_many_arguments)]
pub async fn serve(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    chain: Arc<Chain>,
    proxy: Arc<TcpProxy>,
    info: dataplane::Connection,
    io: Io,
    negotiated: Option<Vec<u8>>,
) {
    proxy.stats.downstream_cx_total.inc();
    let mut session = Session {
        start: Instant::now(),
        start_wall: SystemTime::now(),
        flags: ResponseFlags::NONE,
        details: Cow::Borrowed(""),
        failure: String::new(),
        termination: String::new(),
        cluster_name: None,
        cluster: None,
        host: None,
        local: None,
        attempts: 0,
        received: 0,
        sent: 0,
        peer: None,
    };
    run(
        &worker,
        &shared,
        &listener,
        &chain,
        &proxy,
        &info,
        io,
        negotiated,
        &mut session,
    )
    .await;
    finish(&worker, &shared, &chain, &proxy, &info, session);
}

#[allow(clippy::too_many_arguments)]
async fn run(
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
    listener: &Arc<Listener>,
    chain: &Arc<Chain>,
    proxy: &Arc<TcpProxy>,
    info: &dataplane::Connection,
    io: Io,
    negotiated: Option<Vec<u8>>,
    session: &mut Session,
) {
    let mut io = io;
    let mut early = BytesMut::new();
    if let Io::Plain(plain) = &mut io {
        early = plain.take_prefix();
    }
    let exchange = chain
        .filters
        .iter()
        .any(|filter| matches!(filter, NetworkFilter::MetadataExchange));
    if exchange && negotiated.as_deref() == Some(b"istio-peer-exchange") {
        match exchange_metadata(shared, &mut io, &mut early).await {
            Ok(peer) => session.peer = peer,
            Err(_) => return,
        }
    }
    // Its places among limited connections are held until the end.
    let _admitted = match admit(worker, shared, chain, info, Some(&proxy.stats)).await {
        Ok(admitted) => admitted,
        Err(why) => {
            session.termination = why;
            io.reset_on_close();
            return;
        }
    };
    let chosen = choose(&proxy.clusters, worker.random());
    let name = if chain
        .filters
        .iter()
        .any(|filter| matches!(filter, NetworkFilter::SniCluster))
    {
        info.server_name.as_deref().unwrap_or_default().to_owned()
    } else {
        chosen.map_or_else(String::new, |chosen| chosen.name.clone())
    };
    session.cluster_name = Some(name.clone());
    let Some(cluster) = shared.cluster(&name) else {
        session.flags.set(ResponseFlags::NO_CLUSTER_FOUND);
        session.details = Cow::Borrowed("cluster_not_found");
        proxy.stats.downstream_cx_no_route.inc();
        io.reset_on_close();
        return;
    };
    session.cluster = Some(cluster.clone());
    let mut tried = Vec::new();
    let mut attempt = 0;
    let (connected, lease) = loop {
        attempt += 1;
        session.attempts = attempt;
        let host = match &cluster.config.discovery {
            Discovery::OriginalDst { port, .. } => {
                let mut destination = info.local;
                if let Some(port) = port {
                    destination.set_port(*port);
                }
                (destination != listener.address).then(|| cluster.original_destination(destination))
            }
            Discovery::DynamicForwardProxy => {
                let port = chain.filters.iter().find_map(|filter| match filter {
                    NetworkFilter::SniForward(port) => Some(*port),
                    _ => None,
                });
                match (info.server_name.as_deref(), port) {
                    (Some(name), Some(port)) => tokio::net::lookup_host((name, port))
                        .await
                        .ok()
                        .and_then(|mut found| found.next())
                        .map(|address| cluster.original_destination(address)),
                    _ => None,
                }
            }
            _ => {
                let source = || info.remote.ip().to_canonical().to_string();
                let context = PickContext {
                    hash: proxy
                        .hash_source_ip
                        .then(|| dataplane::route::xxhash64(source().as_bytes(), 0)),
                    tried: &tried,
                    reselections: 3,
                    criteria: chosen.and_then(|chosen| chosen.criteria.as_ref()),
                    ..PickContext::default()
                };
                cluster
                    .pick(&context, &mut || worker.random())
                    .map(|(index, host)| {
                        tried.push(index);
                        host
                    })
            }
        };
        let Some(host) = host else {
            cluster.stats.upstream_cx_none_healthy.inc();
            session.flags.set(ResponseFlags::NO_HEALTHY_UPSTREAM);
            io.reset_on_close();
            return;
        };
        session.host = Some(host.clone());
        if cluster
            .breakers
            .open(Priority::Default, dataplane::circuit::Resource::Connections)
        {
            cluster.stats.upstream_cx_overflow.inc();
            session.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
            io.reset_on_close();
            return;
        }
        match pool::open(
            &cluster,
            &host,
            Priority::Default,
            None,
            None,
            Some((info.remote, info.local)),
            std::rc::Weak::new(),
        )
        .await
        {
            Ok(opened) => {
                host.stats.rq_total.inc();
                host.stats.rq_success.inc();
                cluster.stats.upstream_rq_total.inc();
                cluster.record(&host, HostResult::LocalOriginSuccess, &mut || {
                    worker.random()
                });
                break opened;
            }
            Err(error) => {
                host.stats.rq_error.inc();
                cluster.record(&host, HostResult::LocalOriginFailure, &mut || {
                    worker.random()
                });
                if attempt < proxy.connect_attempts {
                    continue;
                }
                session
                    .flags
                    .set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
                session
                    .flags
                    .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                session.failure = error.reason().replace(char::is_whitespace, "_");
                if error == ConnectError::Timeout {
                    session.failure = "connection_timeout".into();
                }
                cluster.stats.upstream_cx_connect_attempts_exceeded.inc();
                io.reset_on_close();
                return;
            }
        }
    };
    session.local = connected.local;
    let mut upstream = connected.io;
    let mut from_upstream = BytesMut::new();
    if let Some(tunnel) = &proxy.tunnel
        && let Err(why) = ask_for_tunnel(tunnel, info, &mut upstream, &mut from_upstream).await
    {
        session
            .flags
            .set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        session.failure = why.replace(char::is_whitespace, "_");
        io.reset_on_close();
        return;
    }
    if cluster.metadata_exchange && connected.alpn.as_deref() == Some(b"istio-peer-exchange") {
        if upstream
            .write_all(&shared.identity.tcp_preamble())
            .await
            .is_err()
        {
            return;
        }
        let _ = upstream.flush().await;
        match read_preamble(&mut upstream, &mut from_upstream).await {
            Ok(body) => session.peer = body.and_then(|body| shared.identity.tcp_peer(&body)),
            Err(_) => return,
        }
    }
    opened_stats(shared, chain, info, session);
    let outcome = copy(&mut io, early, &mut upstream, from_upstream, proxy, session).await;
    {
        use crate::h1::client::Lease;
        lease.closed(outcome == Copied::Upstream, false);
        lease.received(session.sent);
        lease.sent(session.received);
    }
    if outcome == Copied::Cut {
        io.reset_on_close();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Copied {
    Downstream,
    Upstream,
    Cut,
    Idle,
}

/// One direction of a connection.
struct Half {
    buf: BytesMut,
    ended: bool,
    shut: bool,
}

async fn copy(
    down: &mut Io,
    early: BytesMut,
    up: &mut Io,
    early_up: BytesMut,
    proxy: &TcpProxy,
    session: &mut Session,
) -> Copied {
    let mut to_up = Half {
        buf: early,
        ended: false,
        shut: false,
    };
    let mut to_down = Half {
        buf: early_up,
        ended: false,
        shut: false,
    };
    session.received += to_up.buf.len() as u64;
    session.sent += to_down.buf.len() as u64;
    let mut idle = proxy
        .idle_timeout
        .map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let mut life = proxy
        .max_duration
        .map(|limit| Box::pin(tokio::time::sleep(limit)));
    let mut last = Instant::now();
    let mut first_end = None;
    std::future::poll_fn(|cx| {
        loop {
            let before = (
                session.received,
                session.sent,
                to_up.buf.len(),
                to_down.buf.len(),
                to_up.shut,
                to_down.shut,
            );
            let mut received = 0;
            let mut sent = 0;
            let up_result = pump(down, up, &mut to_up, &mut received, cx);
            let down_result = pump(up, down, &mut to_down, &mut sent, cx);
            session.received += received;
            session.sent += sent;
            if up_result.is_err() || down_result.is_err() {
                return std::task::Poll::Ready(Copied::Cut);
            }
            if first_end.is_none() {
                if to_up.ended {
                    first_end = Some(Copied::Downstream);
                } else if to_down.ended {
                    first_end = Some(Copied::Upstream);
                }
            }
            if to_up.shut && to_down.shut {
                return std::task::Poll::Ready(first_end.take().unwrap_or(Copied::Downstream));
            }
            let after = (
                session.received,
                session.sent,
                to_up.buf.len(),
                to_down.buf.len(),
                to_up.shut,
                to_down.shut,
            );
            if before == after {
                break;
            }
            last = Instant::now();
        }
        if let (Some(timer), Some(timeout)) = (&mut idle, proxy.idle_timeout) {
            while timer.as_mut().poll(cx).is_ready() {
                if last.elapsed() >= timeout {
                    proxy.stats.idle_timeout.inc();
                    return std::task::Poll::Ready(Copied::Idle);
                }
                timer.as_mut().reset((last + timeout).into());
            }
        }
        if let Some(timer) = &mut life
            && timer.as_mut().poll(cx).is_ready()
        {
            proxy.stats.max_downstream_connection_duration.inc();
            session.flags.set(ResponseFlags::DURATION_TIMEOUT);
            return std::task::Poll::Ready(Copied::Idle);
        }
        std::task::Poll::Pending
    })
    .await
}

fn pump(
    from: &mut Io,
    to: &mut Io,
    half: &mut Half,
    count: &mut u64,
    cx: &mut std::task::Context<'_>,
) -> std::io::Result<()> {
    use std::pin::Pin;
    use std::task::Poll;
    if half.buf.is_empty() && !half.ended {
        match poll_read_buf(from, cx, &mut half.buf, BUFFER) {
            Poll::Ready(Ok(0)) => half.ended = true,
            Poll::Ready(Ok(n)) => *count += n as u64,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {
                // Nothing to hold a buffer for.
                if half.buf.capacity() > 0 {
                    half.buf = BytesMut::new();
                }
            }
        }
    }
    while !half.buf.is_empty() {
        match Pin::new(&mut *to).poll_write(cx, &half.buf) {
            Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => half.buf.advance(n),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if let Poll::Ready(Err(error)) = Pin::new(&mut *to).poll_flush(cx) {
        return Err(error);
    }
    if half.ended
        && half.buf.is_empty()
        && !half.shut
        && Pin::new(&mut *to).poll_shutdown(cx).is_ready()
    {
        half.shut = true;
    }
    Ok(())
}

/// Asks an HTTP proxy for a tunnel, with CONNECT over HTTP/1.1.
async fn ask_for_tunnel(
    tunnel: &Tunnel,
    info: &dataplane::Connection,
    upstream: &mut Io,
    rest: &mut BytesMut,
) -> Result<(), String> {
    let metadata = Metadata::new();
    let stream = StreamInfo::new(info, &metadata, info.start);
    let host = tunnel.host.value(&stream);
    let mut headers = http::HeaderMap::new();
    tunnel.headers.apply_response(&mut headers, &stream);
    let mut request = format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n").into_bytes();
    for (name, value) in &headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let exchange = async {
        upstream
            .write_all(&request)
            .await
            .map_err(|error| error.to_string())?;
        upstream.flush().await.map_err(|error| error.to_string())?;
        loop {
            let mut space = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut space);
            let parsed = head.parse(rest).map_err(|error| error.to_string())?;
            if let httparse::Status::Complete(length) = parsed {
                return match head.code {
                    Some(200..=299) => {
                        rest.advance(length);
                        Ok(())
                    }
                    code => Err(format!("the proxy answers {}", code.unwrap_or(0))),
                };
            }
            if rest.len() > MAX_PREAMBLE {
                return Err("the answer of the proxy is too long".to_owned());
            }
            match upstream.read_buf(rest).await {
                Ok(0) => return Err("the proxy closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| "the proxy does not answer".to_owned())?
}

fn choose(clusters: &[TcpCluster], random: u64) -> Option<&TcpCluster> {
    let total: u64 = clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight))
        .sum();
    let mut at = if total == 0 { 0 } else { random % total };
    for cluster in clusters {
        match at.checked_sub(u64::from(cluster.weight)) {
            Some(rest) => at = rest,
            None => return Some(cluster),
        }
    }
    clusters.first()
}

async fn exchange_metadata(
    shared: &Shared,
    io: &mut Io,
    early: &mut BytesMut,
) -> std::io::Result<Option<Arc<Workload>>> {
    let body = read_preamble(io, early).await?;
    if body.is_none() {
        return Ok(None);
    }
    io.write_all(&shared.identity.tcp_preamble()).await?;
    io.flush().await?;
    Ok(body.and_then(|body| shared.identity.tcp_peer(&body)))
}

/// Reads the preamble of the metadata exchange; `None` when the peer sends none.
async fn read_preamble<R: AsyncRead + Unpin>(
    io: &mut R,
    buf: &mut BytesMut,
) -> std::io::Result<Option<BytesMut>> {
    let reading = async {
        while buf.len() < 8 {
            let n = buf.len().min(4);
            if buf[..n] != TCP_MAGIC.to_be_bytes()[..n] {
                return Ok(None);
            }
            if io.read_buf(buf).await? == 0 {
                return Ok(None);
            }
        }
        if buf[..4] != TCP_MAGIC.to_be_bytes() {
            return Ok(None);
        }
        let length = u32::from_be_bytes([buf[4], buf[5], buf[6], buf[7]]) as usize;
        if length > MAX_PREAMBLE {
            return Err(std::io::Error::other("metadata of the peer is too large"));
        }
        while buf.len() < 8 + length {
            if io.read_buf(buf).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        buf.advance(8);
        Ok(Some(buf.split_to(length)))
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

fn istio_labels(
    shared: &Shared,
    chain: &Chain,
    info: &dataplane::Connection,
    session: &Session,
) -> Option<String> {
    let config = chain.filters.iter().find_map(|filter| match filter {
        NetworkFilter::IstioStats(config) => Some(config),
        _ => None,
    })?;
    let endpoint = if config.source && session.peer.is_none() {
        session.host.as_ref().and_then(|host| {
            let host = host.info.load();
            Some(
                shared
                    .identity
                    .endpoint(host.metadata.get("istio")?.get("workload")?.as_str()?),
            )
        })
    } else {
        None
    };
    let service = session
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.service.as_ref());
    let name = session.cluster_name.as_deref().unwrap_or_default();
    let service = match service {
        Some(service) => (
            service.host.as_str(),
            service.name.as_str(),
            service.namespace.as_str(),
        ),
        None if matches!(
            name,
            "BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster"
        ) =>
        {
            ("", name, "")
        }
        None => ("", "", ""),
    };
    let tls = info.tls.as_deref();
    let peer_principal = tls
        .and_then(|tls| tls.peer.as_ref())
        .and_then(|peer| peer.uris.first());
    let own_principal = if config.source || tls.is_some() {
        shared.own_principal()
    } else {
        String::new()
    };
    let flags = if session.flags.is_empty() {
        "-".to_owned()
    } else {
        session.flags.short()
    };
    Some(labels(&Facts {
        source: config.source,
        own: &shared.identity.own,
        peer: session.peer.as_deref().or(endpoint.as_deref()),
        own_principal: &own_principal,
        peer_principal: peer_principal.map_or("", String::as_str),
        service,
        protocol: "tcp",
        code: None,
        grpc_status: "",
        flags: &flags,
        mutual_tls: tls.is_some_and(|tls| tls.peer.is_some()),
    }))
}

fn opened_stats(shared: &Shared, chain: &Chain, info: &dataplane::Connection, session: &Session) {
    if let Some(labels) = istio_labels(shared, chain, info, session) {
        shared
            .stats
            .labelled
            .counter("istio_tcp_connections_opened_total", &labels)
            .inc();
    }
}

fn finish(
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
    chain: &Chain,
    proxy: &TcpProxy,
    info: &dataplane::Connection,
    session: Session,
) {
    proxy
        .stats
        .downstream_cx_rx_bytes_total
        .add(session.received);
    proxy.stats.downstream_cx_tx_bytes_total.add(session.sent);
    if let Some(labels) = istio_labels(shared, chain, info, &session) {
        let labelled = &shared.stats.labelled;
        labelled
            .counter("istio_tcp_connections_closed_total", &labels)
            .inc();
        labelled
            .counter("istio_tcp_sent_bytes_total", &labels)
            .add(session.sent);
        labelled
            .counter("istio_tcp_received_bytes_total", &labels)
            .add(session.received);
    }
    if proxy.access_log.is_empty() {
        return;
    }
    let metadata = Metadata::new();
    let mut stream = StreamInfo::new(info, &metadata, session.start_wall);
    stream.flags = session.flags;
    stream.response_code_details = Some(&*session.details).filter(|details| !details.is_empty());
    stream.upstream_transport_failure_reason =
        Some(&*session.failure).filter(|failure| !failure.is_empty());
    stream.connection_termination_details =
        Some(&*session.termination).filter(|details| !details.is_empty());
    stream.bytes_received = session.received;
    stream.bytes_sent = session.sent;
    stream.duration = Some(session.start.elapsed());
    stream.upstream_host = session.host.as_ref().and_then(|host| host.address.socket());
    stream.upstream_local = session.local;
    stream.attempts = Some(session.attempts).filter(|attempts| *attempts > 0);
    stream.upstream_cluster = session
        .cluster
        .as_ref()
        .map(|cluster| &*cluster.config.stat_name);
    stream.upstream_cluster_raw = session.cluster_name.as_deref();
    stream.filter_chain_name = Some(&*chain.name).filter(|name| !name.is_empty());
    for log in &proxy.access_log {
        log.log(Moment::TcpConnectionEnd, &stream, worker, shared);
    }
}
