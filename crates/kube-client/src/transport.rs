//! Connections: TCP, TLS, and a keep-alive pool that shares one HTTP/2 connection where the
//! server speaks it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Auth, Config, Error, Result};

/// A peer that does not answer within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An HTTP/2 connection that is silent this long is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// ... and dropped when none comes.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for watches that bring much at once; they share one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

pub(crate) type HttpClient = Pool<Connector, Full<Bytes>>;

pub(crate) fn connect(config: &Config) -> Result<HttpClient> {
    let connector = Connector::new(config, &[pki::tls::HTTP2, pki::tls::HTTP1])?;
    Ok(Pool::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector))
}

#[derive(Clone)]
pub(crate) struct Connector {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    pub(crate) fn new(config: &Config, protocols: &[&[u8]]) -> Result<Self> {
        let wrong = |reason: &str| Error::Config(format!("server {:?}: {reason}", config.server));
        let uri: Uri = config
            .server
            .parse()
            .map_err(|_| wrong("it is not a URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let name = config.tls_server_name.as_deref().unwrap_or(host).to_owned();
                let name = ServerName::try_from(name)
                    .map_err(|_| wrong("its host is no valid name for a certificate"))?;
                (
                    Some((
                        TlsConnector::from(Arc::new(tls_config(config, protocols)?)),
                        name,
                    )),
                    443,
                )
            }
            _ => return Err(wrong("it must begin with https://")),
        };
        Ok(Self {
            host: host.into(),
            port: uri.port_u16().unwrap_or(default_port),
            tls,
        })
    }

    async fn connect(self) -> io::Result<TokioIo<Stream>> {
        self.stream().await.map(TokioIo::new)
    }

    /// A new connection of its own.
    pub(crate) async fn stream(self) -> io::Result<Stream> {
        let attempt = async {
            let tcp = TcpStream::connect((&*self.host, self.port)).await?;
            tcp.set_nodelay(true)?;
            Ok(match self.tls {
                None => Stream::Plain(tcp),
                Some((tls, name)) => Stream::Tls(Box::new(tls.connect(name, tcp).await?)),
            })
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            )),
        }
    }
}

fn tls_config(config: &Config, protocols: &[&[u8]]) -> Result<rustls::ClientConfig> {
    let wrong = |error: pki::Error| Error::Config(format!("server {:?}: {error}", config.server));
    let identity = match &config.auth {
        Auth::ClientCert { cert_pem, key_pem } => {
            Some(pki::tls::Identity::from_pem(cert_pem, key_pem).map_err(wrong)?)
        }
        _ => None,
    };
    let trust = pki::tls::ServerTrust::Name {
        roots_pem: config.ca_pem.clone(),
    };
    pki::tls::client_config(runtime::tls::provider(), &trust, identity, protocols).map_err(wrong)
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(pki::tls::HTTP2) => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, data),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
