//! The gRPC channel to a management server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::tls::client::ClientContext;
use crate::upstream::connect::set_option;

/// A management server.
#[derive(Clone)]
pub struct Target {
    /// Where it is.
    pub address: TargetAddress,
    /// TLS to it.
    pub tls: Option<Arc<ClientContext>>,
    /// The `:authority` of the calls.
    pub authority: String,
    /// The mark of the socket.
    pub mark: Option<u32>,
    /// A file with a bearer token, read anew at every call.
    pub token_file: Option<PathBuf>,
}

/// Where a management server is.
#[derive(Clone, Debug)]
pub enum TargetAddress {
    /// A name or address with a port, resolved at every connection.
    Host(String, u16),
    /// A Unix domain socket.
    Pipe(PathBuf),
}

/// A connection, in TLS or not.
pub type BoxedIo = Box<dyn Io>;
/// What carries bytes both ways.
pub trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

impl Target {
    /// Opens a channel; fails at once when the server cannot be reached.
    ///
    /// # Errors
    /// Why the connection could not be made.
    pub async fn connect(&self) -> Result<Channel, String> {
        let this = self.clone();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::try_from(format!("{scheme}://{}", self.authority))
            .map_err(|error| format!("authority {:?}: {error}", self.authority))?
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(2 * 1024 * 1024);
        endpoint
            .connect_with_connector(tower::service_fn(move |_| {
                let this = this.clone();
                async move {
                    this.open()
                        .await
                        .map(TokioIo::new)
                        .map_err(std::io::Error::other)
                }
            }))
            .await
            .map_err(|error| describe(&error))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why it could not be made.
    pub async fn open(&self) -> Result<BoxedIo, String> {
        let (host, port) = match &self.address {
            TargetAddress::Pipe(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                return Ok(Box::new(stream));
            }
            TargetAddress::Host(host, port) => (host, *port),
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|error| format!("cannot resolve {host}: {error}"))?
            .collect();
        let mut last = format!("{host} has no address");
        for address in addresses {
            match self.open_tcp(address).await {
                Ok(tcp) => {
                    let Some(tls) = &self.tls else {
                        return Ok(Box::new(tcp));
                    };
                    let alpn: Arc<[Vec<u8>]> = Arc::from([b"h2".to_vec()]);
                    let config = tls
                        .config(&alpn, None)
                        .ok_or("TLS: a certificate is missing")?;
                    let name = tls.server_name(None, host, address.ip());
                    let stream = TlsConnector::from(config)
                        .connect(name, tcp)
                        .await
                        .map_err(|error| format!("TLS with {host}:{port}: {error}"))?;
                    return Ok(Box::new(stream));
                }
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }

    async fn open_tcp(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(mark) = self.mark {
            // A failure here was already reported for upstream sockets; it is not fatal as user 1337.
            let _ = set_option(
                &socket,
                libc::SOL_SOCKET,
                libc::SO_MARK,
                mark as libc::c_int,
            );
        }
        socket.set_nodelay(true)?;
        socket.connect(address).await
    }

    /// The bearer token to send, if there is one now.
    pub fn token(&self) -> Option<tonic::metadata::MetadataValue<tonic::metadata::Ascii>> {
        let token = std::fs::read_to_string(self.token_file.as_ref()?).ok()?;
        format!("Bearer {}", token.trim()).parse().ok()
    }
}

/// An error with all its causes in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let part = inner.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = inner.source();
    }
    text
}
