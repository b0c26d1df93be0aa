//! Exec and attach for clients that speak SPDY/3.1: one stream each for the status, stdin, stdout, stderr and the size of the
//! terminal. Client libraries fall back to it, and older kubectls know nothing else.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc};

use super::channels;
use super::spdy::{self, Decoder, Encoder, Frame};
use super::streaming::Wanted;
use crate::cri::{ExecSpec, Input, Output, Process};
use crate::engine::Live;

/// Versions of the protocol, newest first. The last one carries the exit status as a `Status`.
const PROTOCOL: &str = "v4.channel.k8s.io";
const VERSION: &str = "x-stream-protocol-version";

/// What is done on the streams.
pub(super) enum Job {
    /// A program of its own.
    Exec(Vec<String>),
    /// The container's program; the flag: its stdin ends with the client.
    Attach { once: bool },
}

/// Does the client ask for SPDY?
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.eq_ignore_ascii_case("SPDY/3.1"))
}

/// Switches to SPDY and does the job.
pub(super) fn serve(mut request: Request, live: Arc<Live>, wanted: Wanted, job: Job) -> Response {
    let offered = request
        .headers()
        .get_all(VERSION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim() == PROTOCOL);
    if !offered {
        let text = format!("unable to upgrade: this node speaks {PROTOCOL} over SPDY only");
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let Some(upgrade) = request
        .extensions_mut()
        .remove::<hyper::upgrade::OnUpgrade>()
    else {
        return (StatusCode::BAD_REQUEST, "the connection cannot be upgraded").into_response();
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => run(TokioIo::new(connection), live, wanted, job).await,
            Err(problem) => tracing::debug!(%problem, "SPDY"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(VERSION, HeaderValue::from_static(PROTOCOL));
    response
}

/// The numbers of the client's streams.
#[derive(Default, Clone, Copy)]
struct Ids {
    error: Option<u32>,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

impl Ids {
    fn note(&mut self, kind: &str, id: u32) -> bool {
        let slot = match kind {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return false,
        };
        *slot = Some(id);
        true
    }

    /// All streams that the client asked for are there.
    fn complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && (!wanted.stdin || self.stdin.is_some())
            && (!wanted.stdout || self.stdout.is_some())
            && (!wanted.stderr || wanted.tty || self.stderr.is_some())
            && (!wanted.tty || self.resize.is_some())
    }
}

/// What the client says once the streams are there.
enum Said {
    Stdin(Bytes),
    StdinEnd,
    Resize(u16, u16),
}

async fn run<S>(connection: S, live: Arc<Live>, wanted: Wanted, job: Job)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut source, mut sink) = tokio::io::split(connection);
    let (sender, mut frames) = mpsc::channel::<Bytes>(32);
    let writing = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if sink.write_all(&frame).await.is_err() || sink.flush().await.is_err() {
                return;
            }
        }
        let _ = sink.shutdown().await;
    });
    let mut decoder = Decoder::new();
    let mut encoder = Encoder::default();
    let mut ids = Ids::default();
    let mut early = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while !ids.complete(wanted) {
        match decoder.next() {
            Ok(Some(Frame::SynStream { id, fin, headers })) => {
                let kind = headers
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case("streamtype"))
                    .map_or("", |(_, value)| value.as_str());
                let answer = if ids.note(kind, id) {
                    encoder.reply(id)
                } else {
                    spdy::reset(id)
                };
                let _ = sender.send(answer).await;
                if fin && ids.stdin == Some(id) {
                    early.push(Said::StdinEnd);
                }
            }
            Ok(Some(frame)) => early.extend(said(&ids, &frame)),
            Ok(None) => match source.read(&mut buffer).await {
                Ok(length @ 1..) => decoder.feed(&buffer[..length]),
                _ => return,
            },
            Err(problem) => {
                tracing::debug!(problem, "SPDY");
                return;
            }
        }
    }
    // What the client says from here on; the channel ends when it is gone.
    let (words, heard) = mpsc::channel::<Said>(16);
    let pings = sender.clone();
    let listening = tokio::spawn(async move {
        for word in early {
            let _ = words.send(word).await;
        }
        loop {
            match decoder.next() {
                Ok(Some(Frame::GoAway)) | Err(_) => return,
                Ok(Some(Frame::Ping { id })) => {
                    let _ = pings.send(spdy::ping(id)).await;
                }
                Ok(Some(frame)) => {
                    for word in said(&ids, &frame) {
                        if words.send(word).await.is_err() {
                            return;
                        }
                    }
                }
                Ok(None) => match source.read(&mut buffer).await {
                    Ok(length @ 1..) => decoder.feed(&buffer[..length]),
                    _ => return,
                },
            }
        }
    });
    let status = match job {
        Job::Exec(argv) => exec(&live, argv, wanted, ids, &sender, heard).await,
        Job::Attach { once } => attach(&live, once, wanted, ids, &sender, heard).await,
    };
    listening.abort();
    for id in [ids.stdout, ids.stderr].into_iter().flatten() {
        let _ = sender.send(spdy::data(id, &[], true)).await;
    }
    if let (Some(id), Some(status)) = (ids.error, status) {
        let text = status.to_string();
        let _ = sender.send(spdy::data(id, text.as_bytes(), true)).await;
    }
    drop(sender);
    let _ = writing.await;
}

fn said(ids: &Ids, frame: &Frame) -> Vec<Said> {
    let mut out = Vec::new();
    match frame {
        Frame::Data { id, fin, bytes } if ids.stdin == Some(*id) => {
            if !bytes.is_empty() {
                out.push(Said::Stdin(bytes.clone()));
            }
            if *fin {
                out.push(Said::StdinEnd);
            }
        }
        Frame::Data { id, bytes, .. } if ids.resize == Some(*id) => {
            let size: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let part = |name: &str| u16::try_from(size[name].as_u64()?).ok();
            if let (Some(rows), Some(columns)) = (part("Height"), part("Width")) {
                out.push(Said::Resize(rows, columns));
            }
        }
        Frame::Reset { id } if ids.stdin == Some(*id) => out.push(Said::StdinEnd),
        _ => {}
    }
    out
}

async fn exec(
    live: &Live,
    argv: Vec<String>,
    wanted: Wanted,
    ids: Ids,
    sender: &mpsc::Sender<Bytes>,
    heard: mpsc::Receiver<Said>,
) -> Option<Value> {
    let spec = ExecSpec {
        argv,
        tty: wanted.tty,
        stdin: wanted.stdin,
    };
    let (process, streams) = match live.process.exec(spec).await {
        Ok(started) => started,
        Err(problem) => {
            let message = format!("error executing command in container: {problem}");
            return Some(channels::failure(&message));
        }
    };
    let stdin = streams.stdin.filter(|_| wanted.stdin);
    let mut client = tokio::spawn(listen(heard, stdin, process.clone()));
    let ended = async {
        let stdout = copy(streams.stdout, ids.stdout, sender);
        let stderr = copy(streams.stderr, ids.stderr, sender);
        tokio::join!(stdout, stderr);
        process.wait().await
    };
    let status = tokio::select! {
        status = ended => Some(channels::exit_status(status.code)),
        // The client went away: what it started goes with it.
        _ = &mut client => None,
    };
    if status.is_none() {
        process.kill(libc::SIGKILL);
    }
    client.abort();
    status
}

async fn listen(
    mut heard: mpsc::Receiver<Said>,
    mut stdin: Option<Input>,
    process: Arc<dyn Process>,
) {
    while let Some(word) = heard.recv().await {
        match word {
            Said::Stdin(bytes) => {
                if let Some(input) = &mut stdin
                    && (input.write_all(&bytes).await.is_err() || input.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Said::StdinEnd => stdin = None,
            Said::Resize(rows, columns) => process.resize(rows, columns),
        }
    }
}

/// Output that nobody asked for is read all the same, or the program would block.
async fn copy(output: Option<Output>, id: Option<u32>, sender: &mpsc::Sender<Bytes>) {
    let Some(mut output) = output else { return };
    let mut buffer = BytesMut::zeroed(16 * 1024);
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        if let Some(id) = id
            && sender
                .send(spdy::data(id, &buffer[..length], false))
                .await
                .is_err()
        {
            return;
        }
    }
}

async fn attach(
    live: &Live,
    once: bool,
    wanted: Wanted,
    ids: Ids,
    sender: &mpsc::Sender<Bytes>,
    mut heard: mpsc::Receiver<Said>,
) -> Option<Value> {
    let mut output = live.attach.subscribe();
    let send = |(stderr, bytes): (bool, Bytes)| async move {
        let id = if stderr { ids.stderr } else { ids.stdout };
        match id {
            Some(id) => sender.send(spdy::data(id, &bytes, false)).await.is_ok(),
            None => true,
        }
    };
    loop {
        tokio::select! {
            piece = output.recv() => match piece {
                Ok(piece) => {
                    if !send(piece).await {
                        return None;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            },
            () = live.ended.cancelled() => {
                while let Ok(piece) = output.try_recv() {
                    send(piece).await;
                }
                return Some(channels::exit_status(0));
            }
            word = heard.recv() => match word {
                Some(Said::Stdin(bytes)) if wanted.stdin => {
                    live.attach.write(&bytes).await;
                }
                Some(Said::StdinEnd) if once => live.attach.close_stdin().await,
                Some(Said::Resize(rows, columns)) => live.process.resize(rows, columns),
                Some(_) => {}
                None => {
                    if once && wanted.stdin {
                        live.attach.close_stdin().await;
                    }
                    return None;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_when_all_streams_are_there() {
        let wanted = Wanted {
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let mut ids = Ids::default();
        assert!(ids.note("error", 1) && ids.note("stdout", 3));
        assert!(!ids.complete(wanted));
        assert!(ids.note("stderr", 5) && ids.complete(wanted));
        assert!(!ids.note("strange", 7));
    }

    #[test]
    fn only_asked_upgrades_are_spdy() {
        let mut headers = HeaderMap::new();
        assert!(!is_asked(&headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!is_asked(&headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(is_asked(&headers));
    }
}
