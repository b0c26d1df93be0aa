//! `fortio server`: echoes over HTTP (8080) and TCP (8078). The original's gRPC, UDP and page are not served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::{Flags, duration};

/// The largest body that is made up (`?size=`).
const LARGEST: usize = 64 << 20;

/// The longest that an answer is held back (`?delay=`), as in the original.
const LONGEST: Duration = Duration::from_millis(1500);

pub(crate) async fn main(args: &[String]) -> Result<ExitCode> {
    let flags = Flags::parse(args, &["http-port", "tcp-port", "loglevel"], &[])?;
    if let Some(other) = flags.rest.first() {
        bail!("Error: unexpected argument {other}");
    }
    let http = listen("http-port", flags.text("http-port").unwrap_or("8080")).await?;
    let tcp = listen("tcp-port", flags.text("tcp-port").unwrap_or("8078")).await?;
    if let Some(listener) = tcp {
        eprintln!(
            "Fortio {} tcp-echo server listening on {}",
            crate::VERSION,
            listener.local_addr()?
        );
        tokio::spawn(tcp_echo(listener));
    }
    if let Some(listener) = http {
        eprintln!(
            "Fortio {} HTTP echo server listening on {}",
            crate::VERSION,
            listener.local_addr()?
        );
        tokio::spawn(http_echo(listener));
    }
    eprintln!("gRPC, UDP, proxies and the web UI of the original are not served by this image");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `8080`, `127.0.0.1:8080`, or `disabled`.
async fn listen(flag: &str, text: &str) -> Result<Option<TcpListener>> {
    if text == "disabled" {
        return Ok(None);
    }
    let address = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => format!("0.0.0.0:{port}"),
        Err(_) => text.to_owned(),
    };
    TcpListener::bind(&address)
        .await
        .map(Some)
        .with_context(|| format!("-{flag}: cannot listen on {text}"))
}

async fn tcp_echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}

async fn http_echo(listener: TcpListener) {
    while let Ok((stream, from)) = listener.accept().await {
        tokio::spawn(async move {
            let service = service_fn(move |request| async move {
                Ok::<_, Infallible>(answer(from, request).await)
            });
            // A client that goes away in the middle is no event.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(from: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
    else {
        return plain(
            StatusCode::BAD_REQUEST,
            Bytes::from_static(b"cannot read the body\n"),
        );
    };
    if parts.uri.path().trim_end_matches('/').ends_with("/debug") {
        return plain(StatusCode::OK, Bytes::from(debug(from, &parts, &body)));
    }
    let wanted = match Wanted::parse(
        parts.uri.query().unwrap_or_default(),
        rand::random_range(0.0..100.0),
    ) {
        Ok(wanted) => wanted,
        Err(error) => {
            return plain(StatusCode::BAD_REQUEST, Bytes::from(format!("{error:#}\n")));
        }
    };
    tokio::time::sleep(wanted.delay).await;
    let body = match wanted.size {
        Some(size) => Bytes::from(vec![b'X'; size]),
        None => body,
    };
    let mut response = plain(wanted.status, body);
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    for (name, value) in wanted.headers {
        response.headers_mut().append(name, value);
    }
    if wanted.close {
        response
            .headers_mut()
            .insert("connection", HeaderValue::from_static("close"));
    }
    response
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=UTF-8"),
    );
    response
}

/// What the client sent, for people.
fn debug(from: SocketAddr, parts: &http::request::Parts, body: &Bytes) -> String {
    let mut text = format!(
        "Φορτίο version {} echo debug server - request from {from}\n\n{} {} {:?}\n\nheaders:\n\n",
        crate::VERSION,
        parts.method,
        parts.uri,
        parts.version
    );
    let mut headers: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    text.extend(headers);
    text.push_str(&format!("\nbody:\n\n{}\n", String::from_utf8_lossy(body)));
    text
}

/// What the query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    status: StatusCode,
    delay: Duration,
    size: Option<usize>,
    close: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Wanted {
    /// `draw` is a random number of 0 to 100 for what is asked for with a probability.
    fn parse(query: &str, draw: f64) -> Result<Self> {
        let mut wanted = Wanted::default();
        for (name, value) in query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        {
            match name {
                "status" => {
                    let status = weighted(value, draw)?.unwrap_or("200");
                    wanted.status = status
                        .parse()
                        .ok()
                        .with_context(|| format!("status {status:?} is none of HTTP"))?;
                }
                "delay" => {
                    let text = weighted(value, draw)?.unwrap_or("0");
                    wanted.delay = duration(text)
                        .with_context(|| format!("delay {text:?} is no duration"))?
                        .min(LONGEST);
                }
                "size" => {
                    let text = weighted(value, draw)?.unwrap_or("0");
                    let size: usize = text.parse().with_context(|| format!("size {text:?}"))?;
                    wanted.size = Some(size.min(LARGEST));
                }
                "close" => wanted.close = matches!(value, "" | "true" | "1"),
                "header" => {
                    let (name, value) = value
                        .split_once(':')
                        .with_context(|| format!("header {value:?} has no colon"))?;
                    wanted.headers.push((name.parse()?, value.parse()?));
                }
                other => bail!(
                    "unknown parameter {other:?}; status, delay, size, close and header are known"
                ),
            }
        }
        Ok(wanted)
    }
}

/// `503`, or `503:20,404:10`: each with its share in percent, otherwise nothing.
fn weighted(text: &str, draw: f64) -> Result<Option<&str>> {
    if !text.contains(':') {
        return Ok(Some(text));
    }
    let mut sum = 0.0;
    for part in text.split(',') {
        let (value, share) = part
            .split_once(':')
            .with_context(|| format!("{part:?} has no share"))?;
        sum += share
            .trim_end_matches('%')
            .parse::<f64>()
            .with_context(|| format!("share {share:?}"))?;
        if draw < sum {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A server for the tests of this crate, and where it listens.
#[cfg(test)]
pub(crate) async fn test_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(http_echo(listener));
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_decides_the_answer_and_what_is_not_known_is_refused() {
        let parse = |query| Wanted::parse(query, 15.0);
        assert_eq!(parse("status=503").unwrap().status, 503);
        assert_eq!(parse("status=503:20").unwrap().status, 503);
        assert_eq!(parse("status=503:10").unwrap().status, 200);
        assert_eq!(
            parse("delay=250ms&size=3&close=true&header=a:b").unwrap(),
            Wanted {
                delay: Duration::from_millis(250),
                size: Some(3),
                close: true,
                headers: vec![("a".parse().unwrap(), "b".parse().unwrap())],
                ..Wanted::default()
            }
        );
        assert_eq!(parse("delay=1h").unwrap().delay, LONGEST);
        for wrong in ["status=abc", "delay=soon", "gzip=true", "status=503:x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
