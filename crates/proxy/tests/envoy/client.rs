//! The client: sends what a step says and writes down what came back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::case::{ClientTls, Part, RequestSpec};
use crate::upstream::{Script, dial};
use crate::watch::Watch;
use crate::wire::{find, more, read_message};

/// How long anything may take before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go and what the client may know of the servers.
#[derive(Clone)]
pub struct Client {
    pub target: SocketAddr,
    pub certs: PathBuf,
    pub script: Arc<Mutex<Script>>,
    pub watch: Watch,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Client {
    /// Sends one request; its answers as texts.
    pub async fn send(&self, spec: &RequestSpec) -> Vec<String> {
        let answered = async {
            if spec.http2 {
                vec![self.http2(spec).await]
            } else {
                self.http1(spec).await
            }
        };
        timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(|_| vec!["<nothing came>".to_owned()])
    }

    async fn connect(&self, tls: Option<&ClientTls>, alpn: &[u8]) -> Result<Box<dyn Io>, String> {
        let stream = dial(self.target)
            .await
            // Who is taken and cut at once may hear of the cut first.
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionReset => "<closed>".to_owned(),
                _ => "<connection refused>".to_owned(),
            })?;
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let alpn = match tls.alpn.first().map(String::as_str) {
            Some("none") => Vec::new(),
            Some(_) => tls
                .alpn
                .iter()
                .map(|name| name.clone().into_bytes())
                .collect(),
            None => vec![alpn.to_vec()],
        };
        let mut config = crate::certs::client(&self.certs, tls.certificate.as_deref(), &alpn);
        if tls.sni.as_deref() == Some("") {
            Arc::make_mut(&mut config).enable_sni = false;
        }
        let name = tls
            .sni
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or("test.local".into());
        let connector = tokio_rustls::TlsConnector::from(config);
        match connector
            .connect(ServerName::try_from(name).unwrap(), stream)
            .await
        {
            Ok(stream) => Ok(Box::new(stream)),
            Err(_) => Err("<handshake failed>".to_owned()),
        }
    }

    async fn http1(&self, spec: &RequestSpec) -> Vec<String> {
        let mut stream = match self.connect(spec.tls.as_ref(), b"http/1.1").await {
            Ok(stream) => stream,
            Err(error) => return vec![error],
        };
        let mut buffer = Vec::new();
        let parts = if spec.parts.is_empty() {
            vec![Part::Text(bytes_of(spec))]
        } else {
            spec.parts.clone()
        };
        let first = match &parts[0] {
            Part::Text(text) => text.clone(),
            _ => String::new(),
        };
        for part in &parts {
            match part {
                Part::Text(text) => {
                    // A proxy that has already answered and closed need not take everything.
                    if stream
                        .write_all(padded(text, spec).as_bytes())
                        .await
                        .is_err()
                    {
                        break;
                    }
                    let _ = stream.flush().await;
                }
                Part::Until { until } => {
                    while find(&buffer, until.as_bytes()).is_none() {
                        if !more(&mut stream, &mut buffer).await {
                            break;
                        }
                    }
                }
                Part::Wait { wait } => {
                    if let Err(problem) = self.watch.until(wait, &self.script).await {
                        return vec![problem];
                    }
                }
                Part::Time { time } => tokio::time::sleep(Duration::from_millis(*time)).await,
                Part::Shut { .. } => {
                    let _ = stream.shutdown().await;
                }
            }
        }
        if let Some(count) = spec.hang_up_when_seen {
            self.seen(count).await;
            return vec!["<hung up>".to_owned()];
        }
        let mut texts = Vec::new();
        let mut left = spec.answers.unwrap_or(1);
        let mut methods = first
            .split("\r\n\r\n")
            .filter(|head| !head.is_empty())
            .map(|head| head.starts_with("HEAD "));
        let mut is_head = methods.next().unwrap_or(false);
        while left > 0 {
            let Some((message, complete)) =
                read_message(&mut stream, &mut buffer, false, is_head).await
            else {
                texts.push("<closed>".to_owned());
                break;
            };
            let mut text = message.text();
            let interim = message
                .head
                .split(' ')
                .nth(1)
                .is_some_and(|code| code.starts_with('1') && code != "101");
            if !complete {
                text.push_str("\n<broken off>");
            }
            if !interim {
                left -= 1;
                is_head = methods.next().unwrap_or(is_head);
            }
            if message.closes() && !interim {
                // What is announced must come.
                let closed = timeout(PATIENCE / 2, async {
                    while more(&mut stream, &mut buffer).await {}
                });
                text.push_str(match closed.await {
                    Ok(()) if buffer.is_empty() => "",
                    Ok(()) => "\n<and more bytes>",
                    Err(_) => "\n<not closed>",
                });
                left = 0;
            }
            texts.push(text);
            if !complete {
                break;
            }
        }
        if spec.answers == Some(0) {
            while more(&mut stream, &mut buffer).await {}
            texts.push(format!("{}<closed>", String::from_utf8_lossy(&buffer)));
        }
        texts
    }

    async fn seen(&self, count: usize) {
        while self.script.lock().unwrap().arrived < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn http2(&self, spec: &RequestSpec) -> String {
        let stream = match self.connect(spec.tls.as_ref(), b"h2").await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let Ok((send, connection)) = h2::client::handshake(stream).await else {
            return "<no HTTP/2>".to_owned();
        };
        let driver = tokio::spawn(connection);
        let answer = async {
            let scheme = if spec.tls.is_some() { "https" } else { "http" };
            let host = spec.host.as_deref().unwrap_or("test.local");
            let path = spec.path.as_deref().unwrap_or("/");
            let method = spec.method.as_deref().unwrap_or("GET");
            let mut request = http::Request::builder()
                .method(method)
                .version(http::Version::HTTP_2);
            request = if method == "CONNECT" {
                request.uri(host)
            } else {
                request.uri(format!("{scheme}://{host}{path}"))
            };
            for header in &spec.headers {
                let (name, value) = header.split_once(':').expect("a header is `name: value`");
                request = request.header(name.to_ascii_lowercase(), value.trim_start());
            }
            let mut chunks = spec.chunks.clone();
            if let Some(body) = &spec.body {
                chunks.push(body.repeat(spec.body_times.unwrap_or(1)));
            }
            let end = chunks.is_empty() && spec.trailers.is_empty();
            let mut send = send.ready().await?;
            let (answer, mut out) = send.send_request(request.body(()).expect("a request"), end)?;
            for (index, chunk) in chunks.iter().enumerate() {
                let last = index + 1 == chunks.len() && spec.trailers.is_empty();
                let mut data = Bytes::from(chunk.clone());
                while !data.is_empty() {
                    out.reserve_capacity(data.len());
                    match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
                        Some(Ok(n)) => {
                            let part = data.split_to(n.min(data.len()));
                            let end = last && data.is_empty();
                            if out.send_data(part, end).is_err() {
                                break;
                            }
                        }
                        _ => break,
                    }
                }
            }
            if !spec.trailers.is_empty() {
                let mut trailers = http::HeaderMap::new();
                for trailer in &spec.trailers {
                    let (name, value) = trailer.split_once(": ").unwrap();
                    trailers.append(
                        http::HeaderName::try_from(name).unwrap(),
                        value.parse().unwrap(),
                    );
                }
                let _ = out.send_trailers(trailers);
            }
            if let Some(count) = spec.hang_up_when_seen {
                self.seen(count).await;
                out.send_reset(h2::Reason::CANCEL);
                return Ok("<hung up>".to_owned());
            }
            let (parts, mut body) = answer.await?.into_parts();
            let mut lines = Vec::new();
            for (name, value) in &parts.headers {
                lines.push(format!(
                    "{name}: {}",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
            lines.sort();
            let mut text = format!("HTTP/2 {}\n{}\n\n", parts.status.as_u16(), lines.join("\n"));
            let mut data = Vec::new();
            let mut broken = None;
            while let Some(chunk) = body.data().await {
                match chunk {
                    Ok(chunk) => {
                        let _ = body.flow_control().release_capacity(chunk.len());
                        data.extend_from_slice(&chunk);
                    }
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            if data.len() > 2048 {
                text.push_str(&format!("<{} bytes>", data.len()));
            } else {
                text.push_str(&String::from_utf8_lossy(&data));
            }
            match broken {
                Some(error) => text.push_str(&format!("\n<broken off: {}>", reason(&error))),
                None => {
                    if let Ok(Some(trailers)) = body.trailers().await {
                        for (name, value) in &trailers {
                            text.push_str(&format!(
                                "\ntrailer {name}: {}",
                                String::from_utf8_lossy(value.as_bytes())
                            ));
                        }
                    }
                }
            }
            Ok::<_, h2::Error>(text)
        };
        let text = answer
            .await
            .unwrap_or_else(|error| format!("<{}>", reason(&error)));
        // A reset must leave before the connection goes.
        let _ = timeout(Duration::from_millis(200), driver).await;
        text
    }
}

fn reason(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_go_away() => format!("GOAWAY {reason:?}"),
        Some(reason) => format!("RST_STREAM {reason:?}"),
        None => "closed".to_owned(),
    }
}

fn padded(text: &str, spec: &RequestSpec) -> String {
    match &spec.pad {
        Some((pad, times)) => text.replace("{pad}", &pad.repeat(*times)),
        None => text.to_owned(),
    }
}

/// The bytes of an HTTP/1 request.
fn bytes_of(spec: &RequestSpec) -> String {
    if let Some(raw) = &spec.raw {
        return raw.clone();
    }
    let method = spec.method.as_deref().unwrap_or("GET");
    let path = spec.path.as_deref().unwrap_or("/");
    let host = spec.host.as_deref().unwrap_or("test.local");
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for header in &spec.headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !spec.chunks.is_empty() || !spec.trailers.is_empty() {
        text.push_str("Transfer-Encoding: chunked\r\n\r\n");
        for chunk in &spec.chunks {
            text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        text.push_str("0\r\n");
        for trailer in &spec.trailers {
            text.push_str(&format!("{trailer}\r\n"));
        }
        text.push_str("\r\n");
    } else if let Some(body) = &spec.body {
        let body = body.repeat(spec.body_times.unwrap_or(1));
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        text.push_str("\r\n");
    }
    text
}
