//! One connection that sends the same request again and again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::histogram::Histogram;

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub url: String,
    pub uri: Uri,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub keep_alive: bool,
    pub timeout: Duration,
}

impl Target {
    /// # Errors
    /// For a URL that is none of http, or a header without a colon.
    pub fn new(
        url: &str,
        method: Option<&str>,
        headers: &[String],
        body: Bytes,
        content_type: Option<&str>,
    ) -> Result<Self> {
        let url = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = url.parse().with_context(|| format!("Bad url {url}"))?;
        if uri.scheme_str() != Some("http") {
            bail!("only http:// is understood here, not {url}");
        }
        let authority = uri.authority().context("a URL without a host")?;
        let mut map = HeaderMap::new();
        map.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        map.insert(
            USER_AGENT,
            HeaderValue::from_str(&format!("fortio.org/fortio-{}", crate::VERSION))?,
        );
        let mut method = method.map(str::to_owned);
        if !body.is_empty() || content_type.is_some() {
            method.get_or_insert_with(|| "POST".into());
            map.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            map.insert(
                CONTENT_TYPE,
                HeaderValue::from_str(content_type.unwrap_or("application/octet-stream"))?,
            );
        }
        for header in headers {
            let (name, value) = header.split_once(':').with_context(|| {
                format!("invalid extra header '{header}', expecting Key: Value")
            })?;
            map.insert(
                HeaderName::from_bytes(name.trim().as_bytes())?,
                HeaderValue::from_str(value.trim())?,
            );
        }
        Ok(Self {
            url,
            method: method.unwrap_or_else(|| "GET".into()).parse()?,
            uri,
            headers: map,
            body,
            keep_alive: true,
            timeout: Duration::from_secs(3),
        })
    }

    /// Host and port.
    pub fn address(&self) -> (String, u16) {
        let host = self.uri.host().unwrap_or_default();
        (
            host.trim_matches(['[', ']']).to_owned(),
            self.uri.port_u16().unwrap_or(80),
        )
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// -1 when there was none.
    pub status: i32,
    pub head: usize,
    pub total: usize,
    pub headers: String,
    pub body: Bytes,
}

/// A client of its own connections.
pub(crate) struct Client {
    target: Target,
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    pub sockets: u64,
    pub connecting: Histogram,
}

impl Client {
    pub fn new(target: Target, address: SocketAddr, resolution: f64) -> Self {
        Self {
            target,
            address,
            connection: None,
            sockets: 0,
            connecting: Histogram::new(resolution),
        }
    }

    /// Sends the request once; what goes wrong is an answer with status -1, and its reason.
    pub async fn fetch(&mut self) -> (Answer, Option<String>) {
        let timeout = self.target.timeout;
        let result = match tokio::time::timeout(timeout, self.exchange()).await {
            Ok(Ok(answer)) => return (answer, None),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {}", crate::flags::shown(timeout)),
        };
        self.connection = None;
        (
            Answer {
                status: -1,
                ..Answer::default()
            },
            Some(result),
        )
    }

    async fn exchange(&mut self) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => self.connect().await?,
        };
        let path = self
            .target
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(self.target.body.clone()));
        *request.method_mut() = self.target.method.clone();
        *request.uri_mut() = path.parse()?;
        *request.headers_mut() = self.target.headers.clone();
        if !self.target.keep_alive {
            request
                .headers_mut()
                .insert("connection", HeaderValue::from_static("close"));
        }
        let response = connection.send_request(request).await?;
        let (parts, body) = response.into_parts();
        // As it is on the wire, apart from the way the body is framed.
        let mut headers = format!(
            "{:?} {} {}\r\n",
            parts.version,
            parts.status.as_str(),
            parts.status.canonical_reason().unwrap_or_default()
        );
        for (name, value) in &parts.headers {
            headers.push_str(&format!(
                "{}: {}\r\n",
                name,
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
        headers.push_str("\r\n");
        let body = body.collect().await?.to_bytes();
        let close = parts
            .headers
            .get("connection")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if self.target.keep_alive && !close {
            // The connection says that it is free a moment after the body's end.
            if connection.ready().await.is_ok() {
                self.connection = Some(connection);
            }
        }
        Ok(Answer {
            status: parts.status.as_u16().into(),
            head: headers.len(),
            total: headers.len() + body.len(),
            headers,
            body,
        })
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>> {
        let started = Instant::now();
        self.sockets += 1;
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("dial tcp {}", self.address))?;
        stream.set_nodelay(true)?;
        self.connecting.record(started.elapsed().as_secs_f64());
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
