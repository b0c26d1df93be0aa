//! Short HTTP requests of the agent to its own pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use proxy::upstream::connect::set_option;

/// A request.
pub struct Fetch<'a> {
    /// The method.
    pub method: Method,
    /// Where.
    pub address: SocketAddr,
    /// The host header.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Over TLS; whatever certificate the other side shows is good enough for a probe.
    pub tls: bool,
    /// The address to come from.
    pub source: Option<IpAddr>,
    /// The mark of the socket.
    pub mark: Option<u32>,
    /// The time for everything.
    pub timeout: Duration,
}

impl<'a> Fetch<'a> {
    /// To a server on this machine that is our own: as everybody would ask it, without TLS.
    pub fn local(method: Method, address: SocketAddr, path: &'a str, timeout: Duration) -> Self {
        Self {
            method,
            address,
            host: "localhost",
            path,
            headers: Vec::new(),
            tls: false,
            source: None,
            mark: None,
            timeout,
        }
    }
}

/// The most bytes of an answer that are read.
const LIMIT: usize = 64 << 20;

/// Opens a TCP connection with a source address and a mark.
pub async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    mark: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(mark) = mark {
        let _ = set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            mark as libc::c_int,
        );
    }
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

impl Fetch<'_> {
    /// Sends it and reads the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(self) -> Result<(StatusCode, Bytes), String> {
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.exchange()).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    async fn exchange(self) -> Result<(StatusCode, Bytes), String> {
        let tcp = connect(self.address, self.source, self.mark)
            .await
            .map_err(|error| error.to_string())?;
        if !self.tls {
            return self.over(tcp).await;
        }
        let provider = runtime::tls::provider();
        let verifier = proxy::tls::verify::ServerVerifier {
            roots: None,
            expected: proxy::tls::verify::Expected::default(),
            algorithms: provider.signature_verification_algorithms,
        };
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from(self.host.to_owned())
            .unwrap_or_else(|_| rustls_pki_types::ServerName::IpAddress(self.address.ip().into()));
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|error| error.to_string())?;
        self.over(stream).await
    }

    async fn over<S>(self, stream: S) -> Result<(StatusCode, Bytes), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let text = |error: hyper::Error| error.to_string();
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(text)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("connection", "close");
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", self.host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = send.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    }
}
