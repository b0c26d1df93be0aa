//! HTTP for the commands: a small server, plain or TLS, and a small client.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// The body of an answer.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A request, read as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: Method,
    pub path: String,
    /// Decoded pairs of the query, then of a form in the body.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub from: SocketAddr,
    pub body: Bytes,
}

impl Request {
    /// The first value of a query or form field; empty when there is none.
    pub fn value(&self, name: &str) -> &str {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

/// What answers requests.
pub(crate) type Handler =
    Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// Makes a handler of an async function.
pub(crate) fn handler<F, A>(f: F) -> Handler
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |request| Box::pin(f(request)))
}

/// An answer with text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// An answer with JSON.
pub(crate) fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// A redirect.
pub(crate) fn redirect(code: StatusCode, location: &str) -> Response<Body> {
    let mut response = text(code, format!("<a href=\"{location}\">Found</a>.\n\n"));
    if let Ok(value) = location.parse() {
        response.headers_mut().insert(http::header::LOCATION, value);
    }
    response
}

/// Undoes percent-encoding of a query; what is malformed stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                i += 1;
            }
            (other, _) => {
                out.push(other);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The decoded pairs of `a=b&c=d`.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// The settings of a TLS server, from files.
pub(crate) fn tls_from_files(certificate: &str, key: &str) -> Result<Arc<rustls::ServerConfig>> {
    // The image has these two files; here they are made when they are needed.
    if (certificate, key) == ("/localhost.crt", "/localhost.key")
        && !std::path::Path::new(certificate).exists()
    {
        return tls_of_localhost();
    }
    let read = |file: &str| std::fs::read(file).with_context(|| format!("open {file}"));
    tls(&read(certificate)?, &read(key)?)
}

/// The settings of a TLS server with a fresh certificate of its own for localhost.
pub(crate) fn tls_of_localhost() -> Result<Arc<rustls::ServerConfig>> {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    tls(
        made.cert.pem().as_bytes(),
        made.signing_key.serialize_pem().as_bytes(),
    )
}

/// The settings of a TLS server, from PEM.
pub(crate) fn tls(certificate: &[u8], key: &[u8]) -> Result<Arc<rustls::ServerConfig>> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .context("certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("private key")?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts connections for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Handler,
) -> Result<()> {
    let tls = tls.map(tokio_rustls::TlsAcceptor::from);
    loop {
        let (stream, from) = listener.accept().await?;
        let handler = handler.clone();
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => connection(stream, from, handler).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(stream, from, handler).await,
                    Err(error) => log(&format!("http: TLS handshake error from {from}: {error}")),
                },
            }
        });
    }
}

/// Listens on all addresses and accepts for ever.
pub(crate) async fn listen_and_serve(
    port: u16,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Handler,
) -> Result<()> {
    serve(bind(port).await?, tls, handler).await
}

/// A listener on all addresses, IPv6 too where the machine has it.
pub(crate) async fn bind(port: u16) -> Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port))
            .await
            .with_context(|| format!("listen tcp :{port}")),
    }
}

async fn connection<S>(stream: S, from: SocketAddr, handler: Handler)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(all) => all.to_bytes(),
                Err(error) => {
                    return Ok(text(StatusCode::BAD_REQUEST, format!("{error}\n")));
                }
            };
            let mut query = pairs(parts.uri.query().unwrap_or(""));
            let form = parts
                .headers
                .get(http::header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
            if form {
                query.extend(pairs(&String::from_utf8_lossy(&body)));
            }
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query,
                headers: parts.headers,
                from: plain(from),
                body,
            };
            Ok::<_, Infallible>(handler(request).await)
        }
    });
    // A client that goes away in the middle is no event.
    let _ = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// IPv4 clients of a socket for both families are shown as what they are.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A GET over a fresh connection; the status and the whole body.
pub(crate) async fn get(
    host: &str,
    port: u16,
    path: &str,
    patience: Duration,
) -> Result<(StatusCode, Bytes)> {
    let work = async {
        let stream = TcpStream::connect((host, port))
            .await
            .with_context(|| format!("dial tcp {host}:{port}"))?;
        let authority = format!("{host}:{port}");
        request(stream, &authority, path, None).await
    };
    match tokio::time::timeout(patience, work).await {
        Ok(answer) => answer,
        Err(_) => bail!(
            "Get \"http://{host}:{port}{path}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ),
    }
}

/// One GET over `stream`.
pub(crate) async fn request<S>(
    stream: S,
    authority: &str,
    path: &str,
    bearer: Option<&str>,
) -> Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut builder = http::Request::builder()
        .uri(path)
        .header(http::header::HOST, authority)
        .header(http::header::CONNECTION, "close");
    if let Some(token) = bearer {
        builder = builder.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = sender
        .send_request(builder.body(Full::new(Bytes::new()))?)
        .await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, body))
}

/// One line for the log of the container.
pub(crate) fn log(line: &str) {
    eprintln!("{line}");
}

/// The name of this host.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            pairs("msg=a%20b+c&flag&bad=%zz"),
            [
                ("msg".to_owned(), "a b c".to_owned()),
                ("flag".into(), String::new()),
                ("bad".into(), "%zz".into())
            ]
        );
    }
}
