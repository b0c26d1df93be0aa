//! Accepting connections: original destinations, a look at the first bytes, the choice of a filter chain, TLS.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BytesMut};
use dataplane::listener::ConnectionFacts;
use dataplane::stream::Metadata;
use dataplane::{ResponseFlags, StreamInfo};
use runtime::CancellationToken;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::access_log::Moment;
use crate::config::Shared;
use crate::config::listener::{Chain, ChainKind, InspectorKind, Listener};
use crate::http::connection::Connection;
use crate::io::{Io, Prefixed, poll_read_buf};
use crate::network_filters::admit;
use crate::tls::hello::{Inspection, inspect};
use crate::tls::server::ServerContext;
use crate::tls::session;
use crate::tls::verify::Fault;
use crate::worker::Worker;
use crate::{h1, h2, tcp_proxy};

/// What HTTP/2 connections begin with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Opens the socket of a listener.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr, backlog: u32) -> std::io::Result<std::net::TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        IpAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(backlog)?;
    listener.into_std()
}

/// Accepts connections on this worker until the token is cancelled. The listener's configuration is looked up by
/// name for each connection, so that it may change under the socket.
pub async fn accept(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    name: String,
    socket: std::net::TcpListener,
    stop: CancellationToken,
) {
    let socket = match socket
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(socket))
    {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!("listener {name}: {error}");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (tcp, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or a client that left at once: nothing that ends the listener.
                if error.raw_os_error() == Some(libc::EMFILE)
                    || error.raw_os_error() == Some(libc::ENFILE)
                {
                    tracing::warn!("listener {name}: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        let Some(listener) = shared.snapshot.load().listeners.get(&name).cloned() else {
            continue;
        };
        tokio::task::spawn_local(connection(
            worker.clone(),
            shared.clone(),
            listener,
            tcp,
            remote,
        ));
    }
}

struct Counted(Arc<Listener>, Instant);

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.0.stats;
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats
            .downstream_cx_length_ms
            .record(self.1.elapsed().as_millis() as u64);
    }
}

fn counted(listener: &Arc<Listener>) -> Counted {
    listener.stats.downstream_cx_total.inc();
    listener.stats.downstream_cx_active.inc();
    Counted(listener.clone(), Instant::now())
}

/// What was found out about a connection before its chain is chosen.
struct Inspected {
    server_name: Option<String>,
    alpn: Vec<String>,
    tls: bool,
    source: SocketAddr,
}

async fn connection(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    tcp: TcpStream,
    remote: SocketAddr,
) {
    let _ = tcp.set_nodelay(true);
    let mut local = tcp.local_addr().unwrap_or(listener.address);
    let mut listener = listener;
    let redirected = listener.use_original_dst
        || listener
            .inspectors
            .iter()
            .any(|inspector| inspector.kind == InspectorKind::OriginalDst);
    if redirected && let Some(original) = original_destination(&tcp) {
        local = original;
    }
    if listener.use_original_dst {
        let snapshot = shared.snapshot.load();
        let any = SocketAddr::new(
            if local.is_ipv4() {
                [0, 0, 0, 0].into()
            } else {
                [0u16; 8].into()
            },
            local.port(),
        );
        let target = snapshot
            .by_address
            .get(&local)
            .or_else(|| snapshot.by_address.get(&any));
        if let Some(target) = target
            && target.name != listener.name
        {
            listener = target.clone();
        }
    }
    let _counted = counted(&listener);
    let start = SystemTime::now();
    let mut buf = BytesMut::new();
    let mut tcp = tcp;
    let inspected = match inspection(&listener, &mut tcp, &mut buf, local, remote).await {
        Ok(inspected) => inspected,
        Err(()) => return,
    };
    let mut info = dataplane::Connection {
        id: worker.next_connection(),
        remote: inspected.source,
        local,
        tls: None,
        server_name: inspected.server_name.as_deref().map(Arc::from),
        start,
    };
    let alpn: Vec<&str> = inspected.alpn.iter().map(String::as_str).collect();
    let facts = ConnectionFacts {
        destination: local,
        source: inspected.source,
        direct_source: remote.ip(),
        server_name: inspected.server_name.as_deref().unwrap_or_default(),
        transport_protocol: if inspected.tls { "tls" } else { "raw_buffer" },
        application_protocols: &alpn,
    };
    let chain = listener
        .matcher
        .find(&facts)
        .and_then(|choice| listener.chain(choice))
        .cloned();
    let Some(chain) = chain else {
        listener.stats.no_filter_chain_match.inc();
        if !listener.access_log.is_empty() {
            let metadata = Metadata::new();
            let mut stream = StreamInfo::new(&info, &metadata, start);
            stream.flags = ResponseFlags::NO_ROUTE_FOUND;
            stream.response_code_details = Some("filter_chain_not_found");
            stream.duration = Some(Duration::ZERO);
            for log in &listener.access_log {
                log.log(Moment::NotSet, &stream, &worker, &shared);
            }
        }
        // The peer shall see a reset, not an empty answer.
        let _ = tcp.set_zero_linger();
        return;
    };
    let mut negotiated = None;
    let io = match &chain.tls {
        None => Io::Plain(Prefixed::new(tcp, buf)),
        Some(context) => {
            let Some(config) = context.config() else {
                listener.stats.ssl_connection_error.inc();
                tracing::debug!("{}: no certificate yet", listener.name);
                return;
            };
            let accepting = handshake(context, config, Prefixed::new(tcp, buf));
            let accepted = match chain.handshake_timeout {
                Some(timeout) => tokio::time::timeout(timeout, accepting).await.ok(),
                None => Some(accepting.await),
            };
            match accepted {
                Some(Ok(stream)) => {
                    listener.stats.ssl_handshake.inc();
                    let opened = stream.get_ref().1;
                    negotiated = opened.alpn_protocol().map(<[u8]>::to_vec);
                    info.tls = Some(Arc::new(session::accepted(opened, context, &shared)));
                    if opened.peer_certificates().is_none() {
                        listener.stats.ssl_no_certificate.inc();
                    }
                    Io::ServerTls(Box::new(stream))
                }
                Some(Err(error)) => {
                    let stats = &listener.stats;
                    match Fault::of(&error) {
                        Fault::NoCertificate => &stats.ssl_fail_verify_no_cert,
                        Fault::Names(_) => &stats.ssl_fail_verify_san,
                        Fault::Unknown => &stats.ssl_fail_verify_cert_hash,
                        Fault::Certificate(_) => &stats.ssl_fail_verify_error,
                        Fault::Other => &stats.ssl_connection_error,
                    }
                    .inc();
                    tracing::debug!("{}: TLS with {remote}: {error}", listener.name);
                    return;
                }
                None => return,
            }
        }
    };
    let draining = chain.clone();
    let drain_time = shared.drain_policy.time;
    // Connections of a chain that was replaced are asked to close, and closed when the drain time ends.
    tokio::select! {
        () = serve(worker, shared, listener, chain, info, io, negotiated) => {}
        () = async {
            draining.drain.begun().await;
            tokio::time::sleep(drain_time).await;
        } => {}
    }
}

/// Takes a TLS handshake. A client that offers no protocol of ours is not turned away: it speaks without one.
async fn handshake(
    context: &ServerContext,
    config: Arc<rustls::ServerConfig>,
    io: Prefixed,
) -> std::io::Result<tokio_rustls::server::TlsStream<Prefixed>> {
    if config.alpn_protocols.is_empty() {
        return tokio_rustls::TlsAcceptor::from(config).accept(io).await;
    }
    let acceptor = rustls::server::Acceptor::default();
    let start = tokio_rustls::LazyConfigAcceptor::new(acceptor, io).await?;
    let strange = start
        .client_hello()
        .alpn()
        .is_some_and(|mut offered| !offered.any(|name| context.speaks(name)));
    if !strange {
        return start.into_stream(config).await;
    }
    let mut silent = (*config).clone();
    silent.alpn_protocols.clear();
    start.into_stream(Arc::new(silent)).await
}

async fn serve(
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    chain: Arc<Chain>,
    info: dataplane::Connection,
    io: Io,
    negotiated: Option<Vec<u8>>,
) {
    match &chain.kind {
        ChainKind::Tcp(proxy) => {
            let proxy = proxy.clone();
            tcp_proxy::serve(worker, shared, listener, chain, proxy, info, io, negotiated).await;
        }
        ChainKind::Http(manager) => {
            let manager = manager.clone();
            let stats = manager.stats.clone();
            stats.downstream_cx_total.inc();
            stats.downstream_cx_active.inc();
            let mut io = io;
            let _admitted = match admit(&worker, &shared, &chain, &info, None).await {
                Ok(admitted) => admitted,
                Err(why) => {
                    tracing::debug!("{}: refused: {why}", listener.name);
                    io.reset_on_close();
                    stats.downstream_cx_active.dec();
                    stats.downstream_cx_destroy.inc();
                    return;
                }
            };
            let tls = info.tls.is_some();
            if tls {
                stats.downstream_cx_ssl_total.inc();
                stats.downstream_cx_ssl_active.inc();
            }
            let mut buf = BytesMut::new();
            if let Io::Plain(plain) = &mut io {
                buf = plain.take_prefix();
            }
            let http2 = match (manager.codec, negotiated.as_deref()) {
                (2, _) => Some(true),
                (1, _) => Some(false),
                (_, Some(alpn)) if alpn == b"h2" || alpn == b"istio-h2" => Some(true),
                (_, Some(_)) => Some(false),
                (_, None) => sniff(&mut io, &mut buf, manager.options.idle_timeout).await,
            };
            let conn = Rc::new(Connection {
                limits: Default::default(),
                worker,
                shared,
                listener,
                chain: chain.clone(),
                manager: manager.clone(),
                info,
            });
            match http2 {
                Some(true) => {
                    stats.downstream_cx_http2_total.inc();
                    stats.downstream_cx_http2_active.inc();
                    h2::server::serve(io, buf, conn).await;
                    stats.downstream_cx_http2_active.dec();
                }
                Some(false) => {
                    stats.downstream_cx_http1_total.inc();
                    stats.downstream_cx_http1_active.inc();
                    h1::server::serve(io, buf, conn).await;
                    stats.downstream_cx_http1_active.dec();
                }
                None => {}
            }
            if tls {
                stats.downstream_cx_ssl_active.dec();
            }
            stats.downstream_cx_active.dec();
            stats.downstream_cx_destroy.inc();
        }
    }
}

/// Reads until it is clear whether the client speaks HTTP/2; `None` when it leaves first.
async fn sniff(io: &mut Io, buf: &mut BytesMut, timeout: Option<Duration>) -> Option<bool> {
    let looking = async {
        loop {
            let n = buf.len().min(PREFACE.len());
            if buf[..n] != PREFACE[..n] {
                return Some(false);
            }
            if n == PREFACE.len() {
                return Some(true);
            }
            let read = std::future::poll_fn(|cx| poll_read_buf(io, cx, buf, 4096)).await;
            if !matches!(read, Ok(n) if n > 0) {
                return None;
            }
        }
    };
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, looking).await.ok().flatten(),
        None => looking.await,
    }
}

async fn inspection(
    listener: &Listener,
    tcp: &mut TcpStream,
    buf: &mut BytesMut,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<Inspected, ()> {
    let mut inspected = Inspected {
        server_name: None,
        alpn: Vec::new(),
        tls: false,
        source: remote,
    };
    let wants = |kind: InspectorKind| {
        listener.inspectors.iter().any(|inspector| {
            inspector.kind == kind
                && !inspector
                    .disabled
                    .as_ref()
                    .is_some_and(|disabled| disabled.disabled(local.port()))
        })
    };
    if wants(InspectorKind::ProxyProtocol) {
        let source = proxy_protocol(tcp, buf).await.map_err(|_| {
            listener.stats.downstream_listener_filter_error.inc();
        })?;
        inspected.source = source.unwrap_or(remote);
    }
    let (tls, http) = (wants(InspectorKind::Tls), wants(InspectorKind::Http));
    if !tls && !http {
        // A chain that wants TLS can be told apart without an inspector only by there being no other.
        inspected.tls = listener
            .chains
            .iter()
            .chain(&listener.default)
            .all(|chain| chain.tls.is_some());
        return Ok(inspected);
    }
    let looking = async {
        let mut tls_open = tls;
        let mut http_open = http;
        loop {
            if tls_open {
                match inspect(buf) {
                    Inspection::Tls(hello) => {
                        inspected.tls = true;
                        inspected.server_name = hello.server_name;
                        inspected.alpn = hello.alpn;
                        return Ok(());
                    }
                    Inspection::NotTls => tls_open = false,
                    Inspection::More => {}
                }
            }
            if !tls_open && http_open {
                match looks_like_http(buf) {
                    Some(Some(protocol)) => {
                        inspected.alpn = vec![protocol.to_owned()];
                        return Ok(());
                    }
                    Some(None) => http_open = false,
                    None => {}
                }
            }
            if !tls_open && !http_open {
                return Ok(());
            }
            match tcp.read_buf(buf).await {
                Ok(0) | Err(_) => return Err(()),
                Ok(_) => {}
            }
        }
    };
    let outcome = match listener.inspect_timeout {
        Some(timeout) => match tokio::time::timeout(timeout, looking).await {
            Ok(outcome) => outcome,
            Err(_) => {
                listener.stats.downstream_pre_cx_timeout.inc();
                if listener.continue_on_timeout {
                    Ok(())
                } else {
                    Err(())
                }
            }
        },
        None => looking.await,
    };
    match outcome {
        Ok(()) => Ok(inspected),
        Err(()) => {
            listener.stats.downstream_listener_filter_remote_close.inc();
            Err(())
        }
    }
}

/// Whether the first bytes begin an HTTP request: the protocol, `Some(None)` for no, `None` for too few bytes.
pub fn looks_like_http(buf: &[u8]) -> Option<Option<&'static str>> {
    let n = buf.len().min(PREFACE.len());
    if n > 0 && buf[..n] == PREFACE[..n] {
        return if n == PREFACE.len() {
            Some(Some("h2c"))
        } else {
            None
        };
    }
    // method SP target SP version: judged by the first line, or by the first byte that cannot belong to one.
    let line_end = buf.iter().position(|&byte| byte == b'\n');
    let line = &buf[..line_end.unwrap_or(buf.len())];
    let method = line
        .iter()
        .position(|&byte| byte == b' ')
        .unwrap_or(line.len());
    let token = &line[..method];
    if token
        .iter()
        .any(|&byte| !(byte.is_ascii_alphabetic() || b"-_".contains(&byte)))
        || token.len() > 32
    {
        return Some(None);
    }
    if method == 0 && !line.is_empty() {
        return Some(None);
    }
    if line_end.is_none() {
        return if buf.len() > 64 * 1024 {
            Some(None)
        } else {
            None
        };
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") {
        Some(Some("http/1.1"))
    } else if line.ends_with(b" HTTP/1.0") {
        Some(Some("http/1.0"))
    } else {
        Some(None)
    }
}

/// Reads a PROXY protocol header (version 1 or 2) and says who the client is.
async fn proxy_protocol(
    tcp: &mut TcpStream,
    buf: &mut BytesMut,
) -> std::io::Result<Option<SocketAddr>> {
    let broken = || std::io::Error::other("no PROXY protocol header");
    let reading = async {
        loop {
            match proxy_header(buf) {
                Err(NoProxyHeader) => return Err(broken()),
                Ok(Some((length, source))) => {
                    buf.advance(length);
                    return Ok(source);
                }
                Ok(None) => {}
            }
            if tcp.read_buf(buf).await? == 0 {
                return Err(broken());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), reading)
        .await
        .map_err(|_| broken())?
}

/// The bytes do not begin with a PROXY protocol header.
#[derive(Debug, PartialEq, Eq)]
pub struct NoProxyHeader;

/// The length of the PROXY protocol header at the beginning, and the client it names, if it names one; `None` for too few
/// bytes.
///
/// # Errors
/// When these bytes are no such header.
pub fn proxy_header(buf: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, NoProxyHeader> {
    const V1: &[u8] = b"PROXY ";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const V1_MAX: usize = 107;
    if buf.starts_with(V1) {
        let Some(end) = buf.iter().take(V1_MAX).position(|&byte| byte == b'\n') else {
            return if buf.len() < V1_MAX {
                Ok(None)
            } else {
                Err(NoProxyHeader)
            };
        };
        let text = std::str::from_utf8(&buf[..end]).map_err(|_| NoProxyHeader)?;
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let source = match parts[..] {
            ["PROXY", "UNKNOWN", ..] => None,
            ["PROXY", "TCP4" | "TCP6", source, _, port, _] => {
                let ip: IpAddr = source.parse().map_err(|_| NoProxyHeader)?;
                let port = port.parse().map_err(|_| NoProxyHeader)?;
                Some(SocketAddr::new(ip, port))
            }
            _ => return Err(NoProxyHeader),
        };
        return Ok(Some((end + 1, source)));
    }
    if !V1.starts_with(&buf[..buf.len().min(V1.len())])
        && !V2.starts_with(&buf[..buf.len().min(V2.len())])
        && !buf.starts_with(V2)
    {
        return Err(NoProxyHeader);
    }
    let Some((head, rest)) = buf.split_at_checked(16) else {
        return Ok(None);
    };
    let length = usize::from(head[14]) << 8 | usize::from(head[15]);
    let Some(addresses) = rest.get(..length) else {
        return Ok(None);
    };
    let source = match (head[12] & 15, head[13] >> 4, addresses) {
        // Said by the load balancer for itself.
        (0, _, _) => None,
        (_, 1, [a, b, c, d, _, _, _, _, high, low, _, _, ..]) => Some(SocketAddr::from((
            [*a, *b, *c, *d],
            u16::from_be_bytes([*high, *low]),
        ))),
        (_, 2, addresses) if length >= 36 => {
            let mut ip = [0u8; 16];
            ip.copy_from_slice(&addresses[..16]);
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Some(SocketAddr::from((ip, port)))
        }
        _ => None,
    };
    Ok(Some((16 + length, source)))
}

/// Where a redirected connection was going.
fn original_destination(tcp: &TcpStream) -> Option<SocketAddr> {
    const SO_ORIGINAL_DST: libc::c_int = 80;
    // SAFETY: the structure is plain data and large enough for the family asked for; the length says so.
    unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let found = libc::getsockopt(
            tcp.as_raw_fd(),
            libc::SOL_IP,
            SO_ORIGINAL_DST,
            (&raw mut address).cast(),
            &raw mut length,
        );
        if found == 0 {
            let ip = u32::from_be(address.sin_addr.s_addr);
            return Some(SocketAddr::from((
                std::net::Ipv4Addr::from(ip),
                u16::from_be(address.sin_port),
            )));
        }
        let mut address: libc::sockaddr_in6 = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        let found = libc::getsockopt(
            tcp.as_raw_fd(),
            libc::SOL_IPV6,
            SO_ORIGINAL_DST,
            (&raw mut address).cast(),
            &raw mut length,
        );
        (found == 0)
            .then(|| SocketAddr::from((address.sin6_addr.s6_addr, u16::from_be(address.sin6_port))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_recognised_by_its_first_line() {
        assert_eq!(looks_like_http(b""), None);
        assert_eq!(looks_like_http(b"GE"), None);
        assert_eq!(
            looks_like_http(b"GET / HTTP/1.1\r\n"),
            Some(Some("http/1.1"))
        );
        assert_eq!(
            looks_like_http(b"GET / HTTP/1.0\r\n"),
            Some(Some("http/1.0"))
        );
        assert_eq!(looks_like_http(b"*1\r\n$4\r\nPING\r\n"), Some(None));
        assert_eq!(looks_like_http(b"hello there\r\n"), Some(None));
        assert_eq!(looks_like_http(b"\x16\x03"), Some(None));
        assert_eq!(looks_like_http(b"PRI * HT"), None);
        assert_eq!(looks_like_http(PREFACE), Some(Some("h2c")));
    }
}
