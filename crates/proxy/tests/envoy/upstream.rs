//! The servers behind both proxies. They answer what the case says and remember what they got.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::case::{AnswerFull, Upstream};
use crate::watch::Watch;
use crate::wire::{Message, read_message};

/// What is to be answered, and what came.
#[derive(Default)]
pub struct Script {
    answers: Vec<AnswerFull>,
    /// One text per complete request.
    pub seen: Vec<String>,
    /// Request heads so far.
    pub arrived: usize,
    /// What the answers may wait for.
    watch: Option<Watch>,
}

impl Script {
    fn next(&mut self, name: &str, path: &str) -> AnswerFull {
        let at = self.answers.iter().position(|answer| {
            answer.from.as_deref().is_none_or(|from| from == name)
                && answer
                    .path
                    .as_deref()
                    .is_none_or(|part| path.contains(part))
        });
        let Some(at) = at else {
            return AnswerFull {
                body: Some(name.to_owned()),
                ..AnswerFull::default()
            };
        };
        let mut answer = self.answers[at].clone();
        match self.answers[at].times {
            Some(0) => {}
            Some(times) if times > 1 => self.answers[at].times = Some(times - 1),
            _ => drop(self.answers.remove(at)),
        }
        if answer.body.is_none() && answer.chunks.is_empty() {
            answer.body = Some(name.to_owned());
        }
        if let (Some(body), Some(times)) = (&mut answer.body, answer.body_times) {
            *body = body.repeat(times);
        }
        answer
    }
}

/// All servers of a scene.
pub struct Upstreams {
    pub addresses: BTreeMap<String, SocketAddr>,
    pub script: Arc<Mutex<Script>>,
    /// Bound and not listening: nobody else gets their ports, and who connects is refused.
    _refusing: Vec<TcpSocket>,
}

impl Upstreams {
    /// The standard ones: `a`, `b`, `c` (HTTP/1), `h2` (HTTP/2), `refused` (nobody), and those of the scene.
    pub async fn start(own: &BTreeMap<String, Upstream>, certs: &Path) -> Self {
        let mut all: BTreeMap<String, Upstream> = ["a", "b", "c"]
            .map(|name| (name.to_owned(), Upstream::default()))
            .into();
        all.insert(
            "h2".into(),
            Upstream {
                http2: true,
                ..Upstream::default()
            },
        );
        all.insert(
            "refused".into(),
            Upstream {
                refused: true,
                ..Upstream::default()
            },
        );
        all.extend(own.clone());
        let script: Arc<Mutex<Script>> = Arc::default();
        let mut addresses = BTreeMap::new();
        let mut refusing = Vec::new();
        for (name, kind) in all {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            addresses.insert(name.clone(), socket.local_addr().unwrap());
            if kind.refused {
                refusing.push(socket);
                continue;
            }
            let listener = socket.listen(1024).unwrap();
            let tls = kind.tls.as_ref().map(|certificate| {
                let alpn: &[&[u8]] = if kind.http2 { &[b"h2"] } else { &[b"http/1.1"] };
                crate::certs::server(certs, certificate, kind.client_certificate, alpn)
            });
            tokio::spawn(accept(listener, name.into(), kind, tls, script.clone()));
        }
        Self {
            addresses,
            script,
            _refusing: refusing,
        }
    }

    /// Begins anew with these answers.
    pub fn reset(&self, answers: Vec<AnswerFull>, watch: Option<Watch>) {
        *self.script.lock().unwrap() = Script {
            answers,
            watch,
            ..Script::default()
        };
    }
}

async fn accept(
    listener: TcpListener,
    name: Arc<str>,
    kind: Upstream,
    tls: Option<Arc<rustls::ServerConfig>>,
    script: Arc<Mutex<Script>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (name, kind, tls, script) = (name.clone(), kind.clone(), tls.clone(), script.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tls {
                None => {
                    serve(stream, &name, &kind, script, |stream| {
                        let _ = stream.set_zero_linger();
                    })
                    .await
                }
                Some(tls) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &name, &kind, script, |stream| {
                            let _ = stream.get_ref().0.set_zero_linger();
                        })
                        .await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(
    stream: S,
    name: &str,
    kind: &Upstream,
    script: Arc<Mutex<Script>>,
    reset: impl Fn(&S),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if kind.echo {
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    } else if kind.logs {
        crate::logs::serve(stream, name, script).await;
    } else if kind.http2 {
        serve_http2(stream, name, script).await;
    } else {
        serve_http1(stream, name, script, reset).await;
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    name: &str,
    script: Arc<Mutex<Script>>,
    reset: impl Fn(&S),
) {
    let mut buffer = Vec::new();
    loop {
        let Some(mut message) = Message::head(&mut stream, &mut buffer).await else {
            return;
        };
        let path = message
            .head
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let answer = {
            let mut script = script.lock().unwrap();
            script.arrived += 1;
            script.next(name, &path)
        };
        for status in &answer.interim {
            let text = format!("HTTP/1.1 {status} Interim\r\nx-interim: {status}\r\n\r\n");
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
        let early = answer.then.as_deref() == Some("early");
        if !early {
            let complete = message.body(&mut stream, &mut buffer, true, false).await;
            let mut text = format!("{name}: {}", message.text());
            if !complete {
                text.push_str("\n<broken off>");
            }
            script.lock().unwrap().seen.push(text);
            if !complete {
                return;
            }
        }
        before_the_head(&answer, &script).await;
        if answer.then.as_deref() == Some("hang") && answer.cut.is_none() {
            // Until the proxy gives up.
            let mut sink = [0; 1024];
            while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
            return;
        }
        let is_head = message.head.starts_with("HEAD ");
        let (head, body) = http1(&answer, is_head);
        let all = head.len() + body.len();
        let cut = match (&answer.then, answer.cut) {
            (Some(_), Some(cut)) => cut.min(all),
            (Some(then), None) if then == "close" || then == "reset" => 0,
            _ => all,
        };
        let head_part = &head[..head.len().min(cut)];
        let body_part = &body[..cut.saturating_sub(head.len())];
        if stream.write_all(head_part).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(answer.body_delay)).await;
        if stream.write_all(body_part).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match answer.then.as_deref() {
            Some("close") => {
                let _ = stream.shutdown().await;
                return;
            }
            Some("reset") => {
                // What was sent must have been read before the reset overtakes it.
                if cut > 0 {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                reset(&stream);
                return;
            }
            Some("hang") => {
                let mut sink = [0; 1024];
                while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
                return;
            }
            Some("early") => {
                let _ = stream.shutdown().await;
                let _ = read_message(&mut stream, &mut buffer, true, false).await;
                return;
            }
            _ => {}
        }
        let lower = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if lower.starts_with("http/1.1 101") {
            // An upgraded connection sends everything back.
            let mut data = std::mem::take(&mut buffer);
            loop {
                if stream.write_all(&data).await.is_err() {
                    return;
                }
                data.resize(4096, 0);
                match stream.read(&mut data).await {
                    Ok(n) if n > 0 => data.truncate(n),
                    _ => return,
                }
            }
        }
        if lower.contains("connection: close") {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// The time, or whatever else, that passes before an answer begins.
async fn before_the_head(answer: &AnswerFull, script: &Mutex<Script>) {
    tokio::time::sleep(Duration::from_millis(answer.delay)).await;
    if let Some(wait) = &answer.until {
        let watch = script.lock().unwrap().watch.clone();
        let watch = watch.expect("cases have something to watch");
        if let Err(problem) = watch.until(wait, script).await {
            script.lock().unwrap().seen.push(problem);
        }
    }
}

fn http1(answer: &AnswerFull, is_head: bool) -> (Vec<u8>, Vec<u8>) {
    if let Some(raw) = &answer.raw {
        let end = raw.find("\r\n\r\n").map_or(raw.len(), |at| at + 4);
        return (
            raw.as_bytes()[..end].to_vec(),
            raw.as_bytes()[end..].to_vec(),
        );
    }
    let status = answer.status.unwrap_or(200);
    let mut head = format!("HTTP/1.1 {status} Said\r\n");
    for header in &answer.headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let mut body = Vec::new();
    let own_framing = answer.headers.iter().any(|header| {
        let header = header.to_ascii_lowercase();
        header.starts_with("content-length:") || header.starts_with("transfer-encoding:")
    });
    if !answer.chunks.is_empty() || !answer.trailers.is_empty() {
        head.push_str("transfer-encoding: chunked\r\n");
        for chunk in &answer.chunks {
            body.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        body.extend_from_slice(b"0\r\n");
        for trailer in &answer.trailers {
            body.extend_from_slice(format!("{trailer}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
    } else {
        let text = answer.body.clone().unwrap_or_default();
        if !own_framing && status != 204 && status != 304 && status != 101 {
            head.push_str(&format!("content-length: {}\r\n", text.len()));
            body = text.into_bytes();
        } else if own_framing {
            body = text.into_bytes();
        }
    }
    head.push_str("\r\n");
    if is_head {
        body.clear();
    }
    (head.into_bytes(), body)
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    name: &str,
    script: Arc<Mutex<Script>>,
) {
    let Ok(mut connection) = h2::server::Builder::new()
        .enable_connect_protocol()
        .handshake::<_, Bytes>(stream)
        .await
    else {
        return;
    };
    // An answer may end the connection.
    let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let next = tokio::select! {
            next = connection.accept() => next,
            _ = closed.recv() => return,
        };
        let Some(Ok((request, respond))) = next else {
            return;
        };
        let (name, script) = (name.to_owned(), script.clone());
        tokio::spawn(answer_http2(request, respond, name, script, close.clone()));
    }
}

async fn answer_http2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    name: String,
    script: Arc<Mutex<Script>>,
    close: tokio::sync::mpsc::Sender<()>,
) {
    let (parts, mut incoming) = request.into_parts();
    let path = parts
        .uri
        .path_and_query()
        .map(|path| path.to_string())
        .unwrap_or_default();
    let answer = {
        let mut script = script.lock().unwrap();
        script.arrived += 1;
        script.next(&name, &path)
    };
    if answer.then.as_deref() == Some("close") {
        let _ = close.send(()).await;
        return;
    }
    let mut head = format!(
        "{} {} HTTP/2\n:authority: {}\n:scheme: {}\n",
        parts.method,
        path,
        parts
            .uri
            .authority()
            .map_or("", |authority| authority.as_str()),
        parts.uri.scheme_str().unwrap_or_default()
    );
    for (key, value) in &parts.headers {
        head.push_str(&format!(
            "{key}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    let mut message = Message {
        head,
        ..Message::default()
    };
    let mut complete = true;
    while let Some(data) = incoming.data().await {
        match data {
            Ok(data) => {
                let _ = incoming.flow_control().release_capacity(data.len());
                message.body.extend_from_slice(&data);
            }
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    if let Ok(Some(trailers)) = incoming.trailers().await {
        for (key, value) in &trailers {
            message.trailers.push(format!(
                "{key}: {}",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
    }
    let mut text = format!("{name}: {}", message.text());
    if !complete {
        text.push_str("\n<broken off>");
    }
    script.lock().unwrap().seen.push(text);
    before_the_head(&answer, &script).await;
    match answer.then.as_deref() {
        Some("refuse") => return respond.send_reset(h2::Reason::REFUSED_STREAM),
        Some("reset") if answer.cut.is_none() => {
            return respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        Some("hang") => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            return;
        }
        _ => {}
    }
    let mut head = http::Response::builder().status(answer.status.unwrap_or(200));
    for header in &answer.headers {
        let (key, value) = header.split_once(": ").unwrap_or((header, ""));
        head = head.header(key, value);
    }
    let chunks: Vec<String> = if answer.chunks.is_empty() {
        answer
            .body
            .clone()
            .filter(|body| !body.is_empty())
            .into_iter()
            .collect()
    } else {
        answer.chunks.clone()
    };
    let end = chunks.is_empty() && answer.trailers.is_empty() || parts.method == http::Method::HEAD;
    let Ok(mut out) = respond.send_response(head.body(()).unwrap(), end) else {
        return;
    };
    if end {
        return;
    }
    tokio::time::sleep(Duration::from_millis(answer.body_delay)).await;
    for (index, chunk) in chunks.iter().enumerate() {
        let last = index + 1 == chunks.len() && answer.trailers.is_empty() && answer.then.is_none();
        if out.send_data(Bytes::from(chunk.clone()), last).is_err() {
            return;
        }
    }
    if answer.then.as_deref() == Some("reset") {
        tokio::time::sleep(Duration::from_millis(30)).await;
        return out.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    if !answer.trailers.is_empty() {
        let mut trailers = http::HeaderMap::new();
        for trailer in &answer.trailers {
            let (key, value) = trailer.split_once(": ").unwrap_or((trailer, ""));
            trailers.append(
                http::HeaderName::try_from(key).unwrap(),
                http::HeaderValue::from_str(value).unwrap(),
            );
        }
        let _ = out.send_trailers(trailers);
    }
}

/// A connection of the client.
pub async fn dial(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // One that is reset at once is seen when it is read.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
