//! `/exec`, `/attach` and `/run`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc};

use super::channels::{self, FromClient, PROTOCOLS};
use super::{Shared, query_flag, query_values, spdy_streams};
use crate::cri::{ExecSpec, Input, Output, Process, run_to_end};
use crate::engine::{Engine, Live};

type Target = Path<(String, String, String)>;

/// The upgrade, or why the request is none; looked at after the target, whose absence says more.
pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// What a client hears that does not speak WebSocket.
pub(super) fn no_upgrade(rejection: &WebSocketUpgradeRejection) -> Response {
    let text = format!(
        "unable to upgrade connection: this node speaks WebSocket and SPDY/3.1: {rejection}"
    );
    (StatusCode::BAD_REQUEST, text).into_response()
}

/// The running container a request names, or the answer that says why there is none.
fn find(
    engine: &Engine,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<Arc<Live>, Box<Response>> {
    let not_found = |text: String| Box::new((StatusCode::NOT_FOUND, text).into_response());
    let handle = engine
        .find(namespace, pod)
        .ok_or_else(|| not_found(format!("pod {pod:?} not found")))?;
    let known =
        crate::pod_sync::roles(&handle.pod.read()).any(|(_, known)| known.name == container);
    if !known {
        return Err(not_found(format!(
            "container {container:?} not found in pod {pod:?}"
        )));
    }
    handle.live(container).ok_or_else(|| {
        not_found(format!(
            "unable to upgrade connection: container not found (\"{container}\")"
        ))
    })
}

/// What the client wants of the streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    fn new(query: &str) -> Self {
        // The API server says `stdin`, the kubelet's own protocol `input`: both are understood.
        let flag = |a: &str, b: &str| query_flag(query, a) || query_flag(query, b);
        Self {
            stdin: flag("stdin", "input"),
            stdout: flag("stdout", "output"),
            stderr: flag("stderr", "error"),
            tty: query_flag(query, "tty"),
        }
    }
}

pub(super) async fn exec(
    State(engine): Shared,
    Path((namespace, pod, container)): Target,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
    request: Request,
) -> Response {
    let query = query.unwrap_or_default();
    let live = match find(&engine, &namespace, &pod, &container) {
        Ok(live) => live,
        Err(response) => return *response,
    };
    let argv = query_values(&query, "command");
    if argv.is_empty() {
        return (
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container",
        )
            .into_response();
    }
    let wanted = Wanted::new(&query);
    if spdy_streams::is_asked(request.headers()) {
        return spdy_streams::serve(request, live, wanted, spdy_streams::Job::Exec(argv));
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return no_upgrade(&rejection),
    };
    upgrade
        .protocols(PROTOCOLS)
        .on_upgrade(move |socket| async move {
            let (mut sink, source, version) = open(socket);
            let spec = ExecSpec {
                argv,
                tty: wanted.tty,
                stdin: wanted.stdin,
            };
            match live.process.exec(spec).await {
                Ok((process, streams)) => {
                    let stdin = streams.stdin.filter(|_| wanted.stdin);
                    let mut client =
                        tokio::spawn(from_client(source, stdin, process.clone(), version.closes));
                    let ended = async {
                        pump(&mut sink, wanted, streams.stdout, streams.stderr).await;
                        process.wait().await
                    };
                    let status = tokio::select! {
                        status = ended => Some(status),
                        // The client went away: what it started goes with it.
                        _ = &mut client => None,
                    };
                    match status {
                        Some(status) => {
                            finish(&mut sink, version, &channels::exit_status(status.code)).await
                        }
                        None => process.kill(libc::SIGKILL),
                    }
                    client.abort();
                }
                Err(problem) => {
                    let message = format!("error executing command in container: {problem}");
                    finish(&mut sink, version, &channels::failure(&message)).await;
                }
            }
            close(&mut sink).await;
        })
}

pub(super) async fn attach(
    State(engine): Shared,
    Path((namespace, pod, container)): Target,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
    request: Request,
) -> Response {
    let query = query.unwrap_or_default();
    let live = match find(&engine, &namespace, &pod, &container) {
        Ok(live) => live,
        Err(response) => return *response,
    };
    let once = engine.find(&namespace, &pod).is_some_and(|handle| {
        crate::pod_sync::roles(&handle.pod.read())
            .any(|(_, known)| known.name == container && known.stdin_once == Some(true))
    });
    let wanted = Wanted::new(&query);
    if spdy_streams::is_asked(request.headers()) {
        return spdy_streams::serve(request, live, wanted, spdy_streams::Job::Attach { once });
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return no_upgrade(&rejection),
    };
    upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| async move {
        let (mut sink, mut source, version) = open(socket);
        let mut output = live.attach.subscribe();
        loop {
            tokio::select! {
                piece = output.recv() => match piece {
                    Ok((stderr, bytes)) => {
                        let channel = if stderr { channels::STDERR } else { channels::STDOUT };
                        let asked = if stderr { wanted.stderr } else { wanted.stdout };
                        if asked && sink.send(Message::Binary(channels::encode(channel, &bytes))).await.is_err() {
                            break;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = live.ended.cancelled() => {
                    while let Ok((stderr, bytes)) = output.try_recv() {
                        let channel = if stderr { channels::STDERR } else { channels::STDOUT };
                        let _ = sink.send(Message::Binary(channels::encode(channel, &bytes))).await;
                    }
                    finish(&mut sink, version, &channels::exit_status(0)).await;
                    break;
                }
                message = source.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => match channels::decode(&bytes, version.closes) {
                        FromClient::Stdin(bytes) if wanted.stdin => {
                            live.attach.write(&bytes).await;
                        }
                        FromClient::StdinEnd if once => live.attach.close_stdin().await,
                        FromClient::Resize(rows, columns) => live.process.resize(rows, columns),
                        _ => {}
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => {
                        if once && wanted.stdin {
                            live.attach.close_stdin().await;
                        }
                        break;
                    }
                    Some(Ok(_)) => {}
                },
            }
        }
        close(&mut sink).await;
    })
}

/// Runs a command and answers with its output.
pub(super) async fn run(
    State(engine): Shared,
    Path((namespace, pod, container)): Target,
    RawQuery(query): RawQuery,
) -> Response {
    let live = match find(&engine, &namespace, &pod, &container) {
        Ok(live) => live,
        Err(response) => return *response,
    };
    let command = query_values(&query.unwrap_or_default(), "cmd")
        .pop()
        .unwrap_or_default();
    let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if argv.is_empty() {
        return (StatusCode::BAD_REQUEST, "cmd is empty").into_response();
    }
    match run_to_end(live.process.as_ref(), &argv, Duration::from_secs(60)).await {
        Ok((_, output)) => output.into_response(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, problem.to_string()).into_response(),
    }
}

type Sink = SplitSink<WebSocket, Message>;

/// What the versions of the protocol differ in.
#[derive(Clone, Copy)]
struct Version {
    /// stdin can be closed.
    closes: bool,
    /// The status is an object.
    states: bool,
}

fn open(socket: WebSocket) -> (Sink, SplitStream<WebSocket>, Version) {
    let protocol = socket
        .protocol()
        .and_then(|protocol| protocol.to_str().ok().map(str::to_owned));
    let version = Version {
        closes: protocol.as_deref() == Some(PROTOCOLS[0]),
        states: !matches!(protocol.as_deref(), None | Some(channels::FIRST)),
    };
    let (sink, source) = socket.split();
    (sink, source, version)
}

/// An orderly end: clients take any other close code for a lost connection.
async fn close(sink: &mut Sink) {
    let frame = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    let _ = sink.send(Message::Close(Some(frame))).await;
    let _ = sink.close().await;
}

async fn finish(sink: &mut Sink, version: Version, status: &serde_json::Value) {
    let text = match (version.states, status["message"].as_str()) {
        (true, _) => status.to_string(),
        (false, Some(problem)) => problem.to_owned(),
        (false, None) => return,
    };
    let _ = sink
        .send(Message::Binary(channels::encode(
            channels::STATUS,
            text.as_bytes(),
        )))
        .await;
}

/// Feeds stdin and the terminal's size from the client; ends when the client is gone.
async fn from_client(
    mut source: SplitStream<WebSocket>,
    mut stdin: Option<Input>,
    process: Arc<dyn Process>,
    closes: bool,
) {
    while let Some(Ok(message)) = source.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => continue,
        };
        match channels::decode(&bytes, closes) {
            FromClient::Stdin(bytes) => {
                if let Some(input) = &mut stdin
                    && (input.write_all(&bytes).await.is_err() || input.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            FromClient::StdinEnd => stdin = None,
            FromClient::Resize(rows, columns) => process.resize(rows, columns),
            FromClient::Nothing => {}
        }
    }
}

/// Sends both outputs until they end, or until the client is gone.
async fn pump(sink: &mut Sink, wanted: Wanted, stdout: Option<Output>, stderr: Option<Output>) {
    let (sender, mut pieces) = mpsc::channel::<(u8, Bytes)>(8);
    for (channel, stream, asked) in [
        (channels::STDOUT, stdout, wanted.stdout),
        (channels::STDERR, stderr, wanted.stderr),
    ] {
        let Some(mut stream) = stream else { continue };
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                // Output nobody asked for is read all the same, or the program would block.
                if asked
                    && sender
                        .send((channel, Bytes::copy_from_slice(&buffer[..length])))
                        .await
                        .is_err()
                {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some((channel, bytes)) = pieces.recv().await {
        if sink
            .send(Message::Binary(channels::encode(channel, &bytes)))
            .await
            .is_err()
        {
            return;
        }
    }
}
