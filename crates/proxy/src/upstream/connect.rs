//! Opening upstream connections: marks, source addresses, timeouts, TLS.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::cluster::AutoSni;
use dataplane::stream::TlsSession;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::host::{Address, Host, Transport};
use crate::io::Io;
use crate::stats::ClusterStats;
use crate::tls::session;
use crate::tls::verify::Fault;

/// The mark that exempts this proxy's own connections from redirection (Istio's 0x539).
pub const MARK: u32 = 1337;

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// It took too long.
    Timeout,
    /// The other side refused, or the network did.
    Remote(String),
    /// TLS failed.
    Tls(String),
}

impl ConnectError {
    /// What Envoy logs as the transport failure reason; spaces become underscores in the log.
    pub fn reason(&self) -> &str {
        match self {
            Self::Timeout => "",
            Self::Remote(reason) | Self::Tls(reason) => reason,
        }
    }
}

/// How to open connections to the hosts of a cluster.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The time for everything.
    pub timeout: Duration,
    /// The address to come from.
    pub source: Option<std::net::IpAddr>,
    /// Probe idle connections: time, interval, probes.
    pub keepalive: Option<(u32, u32, u32)>,
    /// Mark sockets.
    pub mark: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            source: None,
            keepalive: None,
            mark: None,
        }
    }
}

/// What a request wants of the TLS handshake.
#[derive(Default)]
pub struct Handshake<'a> {
    /// The application protocols to offer, if not those of the cluster.
    pub alpn: Option<&'a Arc<[Vec<u8>]>>,
    /// The name from the request, and what it is for.
    pub sni: Option<(&'a str, &'a AutoSni)>,
    /// The connection of a client that the host is told of, if it wants to be told.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

/// A connection with what the handshake agreed on.
pub struct Connected {
    /// The stream.
    pub io: Io,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The application protocol that TLS agreed on.
    pub alpn: Option<Vec<u8>>,
    /// What is known of the TLS session, if there is one.
    pub session: Option<Arc<TlsSession>>,
    /// TLS resumed a session.
    pub tls: bool,
}

/// Opens a connection to a host.
///
/// # Errors
/// Why it could not.
pub async fn connect(
    host: &Host,
    options: &ConnectOptions,
    handshake: &Handshake<'_>,
    stats: &ClusterStats,
) -> Result<Connected, ConnectError> {
    match tokio::time::timeout(options.timeout, open(host, options, handshake, stats)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn open(
    host: &Host,
    options: &ConnectOptions,
    handshake: &Handshake<'_>,
    stats: &ClusterStats,
) -> Result<Connected, ConnectError> {
    let address = match &host.address {
        Address::Pipe(path) => {
            let stream = UnixStream::connect(path).await.map_err(remote)?;
            return Ok(Connected {
                io: Io::Unix(stream),
                local: None,
                alpn: None,
                session: None,
                tls: false,
            });
        }
        Address::Socket(address) => *address,
    };
    if matches!(host.transport, Transport::Unusable) {
        return Err(ConnectError::Tls("TLS error: settings are unusable".into()));
    }
    let mut tcp = open_tcp(address, options).await?;
    let local = tcp.local_addr().ok();
    if let (Some(version), Some(local)) = (host.proxy_protocol, local) {
        let head = version.head(handshake.ends, (local, address));
        tcp.write_all(&head).await.map_err(remote)?;
    }
    let Transport::Tls(context) = &host.transport else {
        return Ok(Connected {
            io: Io::tcp(tcp),
            local,
            alpn: None,
            session: None,
            tls: false,
        });
    };
    let alpn = handshake.alpn.unwrap_or(&context.alpn);
    let validated = handshake
        .sni
        .filter(|(_, auto)| auto.validate)
        .map(|(name, _)| name);
    let Some(config) = context.config(alpn, validated) else {
        return Err(ConnectError::Tls(
            "TLS error: Secret is not supplied by SDS".into(),
        ));
    };
    let chosen = handshake
        .sni
        .filter(|(_, auto)| auto.send)
        .map(|(name, _)| name);
    let name = context.server_name(chosen, &host.info.load().hostname, address.ip());
    let sent = match &name {
        ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
        _ => None,
    };
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| tls_error(&error, stats))?;
    stats.ssl_handshake.inc();
    let session = stream.get_ref().1;
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let told = session::opened(session, sent, context.certificate().as_deref());
    Ok(Connected {
        io: Io::ClientTls(Box::new(stream)),
        local,
        alpn,
        session: Some(Arc::new(told)),
        tls: true,
    })
}

async fn open_tcp(
    address: SocketAddr,
    options: &ConnectOptions,
) -> Result<TcpStream, ConnectError> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(remote)?;
    if let Some(mark) = options.mark {
        set_mark(&socket, mark);
    }
    if let Some(source) = options.source
        && source.is_ipv4() == address.is_ipv4()
    {
        // The port is chosen at connect time, so that one source address serves more than 28,000 connections.
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1).map_err(remote)?;
        socket.bind(SocketAddr::new(source, 0)).map_err(remote)?;
    }
    let _ = socket.set_nodelay(true);
    if let Some((time, interval, probes)) = options.keepalive {
        let _ = socket.set_keepalive(true);
        for (option, value) in [
            (libc::TCP_KEEPIDLE, time),
            (libc::TCP_KEEPINTVL, interval),
            (libc::TCP_KEEPCNT, probes),
        ] {
            if value > 0 {
                let _ = set_option(&socket, libc::IPPROTO_TCP, option, value as libc::c_int);
            }
        }
    }
    socket.connect(address).await.map_err(remote)
}

fn set_mark(socket: &TcpSocket, mark: u32) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark as libc::c_int)
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "cannot mark upstream sockets with {mark} ({error}): without CAP_NET_ADMIN in its network namespace the \
             proxy must run as user 1337, or redirected pods will loop"
        );
    }
}

/// Sets an integer socket option.
pub fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open and the option value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn remote(error: io::Error) -> ConnectError {
    // As the C library says it, without Rust's "(os error N)".
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    ConnectError::Remote(format!("delayed connect error: {text}"))
}

fn tls_error(error: &io::Error, stats: &ClusterStats) -> ConnectError {
    const REFUSED: &str = "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed";
    match Fault::of(error) {
        Fault::Names(why) => {
            stats.ssl_fail_verify_san.inc();
            ConnectError::Tls(format!("{REFUSED}: {why}:TLS_error_end"))
        }
        Fault::Unknown => {
            stats.ssl_fail_verify_cert_hash.inc();
            ConnectError::Tls(format!("{REFUSED}: cert hash and spki:TLS_error_end"))
        }
        Fault::Certificate(why) => {
            stats.ssl_fail_verify_error.inc();
            ConnectError::Tls(format!("{REFUSED}: {why}:TLS_error_end"))
        }
        Fault::NoCertificate | Fault::Other => {
            stats.ssl_connection_error.inc();
            let closed = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            );
            ConnectError::Tls(if closed {
                "TLS error: connection closed during the handshake".into()
            } else {
                format!("TLS_error:{error}:TLS_error_end")
            })
        }
    }
}
