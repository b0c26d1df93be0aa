//! `/portForward`: SPDY streams inside a WebSocket, as kubectl has sent them since 1.31.
//!
//! For each connection the client opens two streams of the same `requestid`: `error`, on which a
//! message tells why the connection failed, and `data`. Clients that offer only the channel protocol get that (`forward_channels`).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::spdy::{self, Decoder, Encoder, Frame};
use super::streaming::{Upgrade, no_upgrade};
use super::{Shared, forward_channels, query_values};
use crate::cri::Sandbox;

const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

pub(super) async fn port_forward(
    State(engine): Shared,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    let Some(handle) = engine.find(&namespace, &pod) else {
        return (StatusCode::NOT_FOUND, format!("pod {pod:?} not found")).into_response();
    };
    let Some(sandbox) = handle.sandbox.read().clone() else {
        return (
            StatusCode::NOT_FOUND,
            format!("pod {pod:?} has no sandbox: it is starting or has ended"),
        )
            .into_response();
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return no_upgrade(&rejection),
    };
    let upgrade = upgrade.protocols([PROTOCOL, forward_channels::PROTOCOL]);
    let chosen = upgrade.selected_protocol();
    if chosen.is_some_and(|name| name == forward_channels::PROTOCOL) {
        let values = query_values(query.as_deref().unwrap_or_default(), "port");
        return match forward_channels::ports(&values) {
            Ok(ports) => {
                upgrade.on_upgrade(move |socket| forward_channels::serve(socket, sandbox, ports))
            }
            Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
        };
    }
    upgrade.on_upgrade(move |socket| tunnel(socket, sandbox))
}

/// Half of a forwarded connection that is waiting for its other stream.
#[derive(Default)]
struct Pending {
    error: Option<u32>,
    data: Option<(u32, u16)>,
}

async fn tunnel(socket: WebSocket, sandbox: Arc<dyn Sandbox>) {
    let (mut sink, mut source) = socket.split();
    let (sender, mut frames) = mpsc::channel::<Bytes>(32);
    let writing = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if sink.send(Message::Binary(frame)).await.is_err() {
                break;
            }
        }
        let _ = sink.close().await;
    });
    let mut connection = Connection {
        sender,
        sandbox,
        encoder: Encoder::default(),
        pending: HashMap::new(),
        inputs: HashMap::new(),
    };
    let mut decoder = Decoder::new();
    'reading: while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) => decoder.feed(&bytes),
            Message::Close(_) => break,
            _ => continue,
        }
        loop {
            match decoder.next() {
                Ok(Some(Frame::GoAway)) => break 'reading,
                Ok(Some(frame)) => connection.take(frame).await,
                Ok(None) => break,
                Err(problem) => {
                    tracing::debug!(problem, "port-forward");
                    break 'reading;
                }
            }
        }
    }
    drop(connection);
    writing.abort();
}

struct Connection {
    sender: mpsc::Sender<Bytes>,
    sandbox: Arc<dyn Sandbox>,
    encoder: Encoder,
    pending: HashMap<String, Pending>,
    /// Bytes of the client for each data stream; dropped when the client ends the stream.
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Connection {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { id, fin, headers } => self.open(id, fin, &headers).await,
            Frame::Data { id, fin, bytes } => {
                if let Some(input) = self.inputs.get(&id) {
                    if !bytes.is_empty() {
                        let _ = input.send(bytes).await;
                    }
                    if fin {
                        self.inputs.remove(&id);
                    }
                }
            }
            Frame::Reset { id } => {
                self.inputs.remove(&id);
            }
            Frame::Ping { id } => {
                let _ = self.sender.send(spdy::ping(id)).await;
            }
            Frame::GoAway | Frame::Other => {}
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: &[(String, String)]) {
        let header = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        let request = header("requestid").unwrap_or_default();
        let port: Option<u16> = header("port")
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0);
        let kind = header("streamtype").unwrap_or_default();
        let (Some(port), "error" | "data") = (port, kind.as_str()) else {
            let _ = self.sender.send(spdy::reset(id)).await;
            return;
        };
        let _ = self.sender.send(self.encoder.reply(id)).await;
        let pending = self.pending.entry(request.clone()).or_default();
        if kind == "error" {
            pending.error = Some(id);
        } else {
            pending.data = Some((id, port));
        }
        if let (Some(error), Some((data, port))) = (pending.error, pending.data) {
            self.pending.remove(&request);
            let (input, bytes) = mpsc::channel(16);
            if !(fin && id == data) {
                self.inputs.insert(data, input);
            }
            tokio::spawn(relay(
                self.sandbox.clone(),
                port,
                error,
                data,
                bytes,
                self.sender.clone(),
            ));
        }
    }
}

/// One connection to the pod.
async fn relay(
    sandbox: Arc<dyn Sandbox>,
    port: u16,
    error: u32,
    data: u32,
    mut input: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Bytes>,
) {
    let stream = match sandbox.connect(port).await {
        Ok(stream) => stream,
        Err(problem) => {
            let message =
                format!("failed to connect to localhost:{port} inside the pod: {problem}");
            let _ = sender
                .send(spdy::data(error, message.as_bytes(), true))
                .await;
            let _ = sender.send(spdy::data(data, &[], true)).await;
            return;
        }
    };
    let _ = stream.set_nodelay(true);
    let (mut from_pod, mut to_pod) = stream.into_split();
    let upstream = async {
        while let Some(bytes) = input.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_pod.shutdown().await;
    };
    let downstream = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_pod.read(&mut buffer).await {
            if sender
                .send(spdy::data(data, &buffer[..length], false))
                .await
                .is_err()
            {
                return;
            }
        }
        let _ = sender.send(spdy::data(data, &[], true)).await;
    };
    tokio::pin!(upstream);
    // The pod's end of the connection decides when it is over; the client may end its half earlier.
    tokio::select! {
        () = downstream => {}
        () = async { upstream.await; std::future::pending::<()>().await } => {}
        () = sender.closed() => {}
    }
    let _ = sender.send(spdy::data(error, &[], true)).await;
}
