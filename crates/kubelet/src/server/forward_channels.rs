//! `/portForward` in the channel protocol, as client libraries speak it that know no SPDY.
//!
//! The query names the ports; port number `i` has channel `2i` for its bytes and `2i + 1` for an error. The first message on
//! each of them is the port, two bytes, little end first. Each port is connected once; when the last has ended, so has the
//! WebSocket.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::channels::encode;
use crate::cri::Sandbox;

/// What is offered.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

/// The ports of a query, at most as many as have channels.
///
/// # Errors
/// The sentence for the client.
pub(super) fn ports(values: &[String]) -> Result<Vec<u16>, String> {
    if values.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    if values.len() > 127 {
        return Err("at most 127 ports can be forwarded over one connection".to_owned());
    }
    values
        .iter()
        .map(|value| match value.parse() {
            Ok(0) => Err("port \"0\" must be > 0".to_owned()),
            Ok(port) => Ok(port),
            Err(_) => Err(format!("unable to parse {value:?} as a port")),
        })
        .collect()
}

/// Carries bytes until every connection to the pod has ended or the client has gone away.
pub(super) async fn serve(socket: WebSocket, sandbox: Arc<dyn Sandbox>, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (sender, mut messages) = mpsc::channel::<Bytes>(32);
    let mut inputs = Vec::new();
    for (port, channel) in ports.into_iter().zip((0..=u8::MAX).step_by(2)) {
        let (input, bytes) = mpsc::channel(16);
        inputs.push(Some(input));
        tokio::spawn(relay(sandbox.clone(), port, channel, bytes, sender.clone()));
    }
    // The relays have their own; the last to end closes the queue.
    drop(sender);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => if sink.send(Message::Binary(message)).await.is_err() {
                    return;
                },
                None => break,
            },
            message = source.next() => match message {
                Some(Ok(Message::Binary(message))) => {
                    let channel = usize::from(message.first().copied().unwrap_or(1));
                    // Nothing is read from the client while its pod does not take what it has sent.
                    if channel % 2 == 0
                        && let Some(slot) = inputs.get_mut(channel / 2)
                        && let Some(input) = slot
                        && input.send(message.slice(1..)).await.is_err()
                    {
                        *slot = None;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    let _ = sink.close().await;
}

async fn relay(
    sandbox: Arc<dyn Sandbox>,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Bytes>,
) {
    for channel in [channel, channel + 1] {
        let _ = sender.send(encode(channel, &port.to_le_bytes())).await;
    }
    let stream = match sandbox.connect(port).await {
        Ok(stream) => stream,
        Err(problem) => {
            let message =
                format!("failed to connect to localhost:{port} inside the pod: {problem}");
            let _ = sender.send(encode(channel + 1, message.as_bytes())).await;
            return;
        }
    };
    let _ = stream.set_nodelay(true);
    let (mut from_pod, mut to_pod) = stream.into_split();
    let upstream = async {
        while let Some(bytes) = input.recv().await {
            if to_pod.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to_pod.shutdown().await;
        // What the pod still says has to arrive.
        std::future::pending::<()>().await;
    };
    let downstream = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_pod.read(&mut buffer).await {
            let message = encode(channel, &buffer[..length]);
            if sender.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = downstream => {}
        () = upstream => {}
        () = sender.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_are_read_or_refused_with_the_reason() {
        let read = |list: &[&str]| ports(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&["80", "5678"]), Ok(vec![80, 5678]));
        for (list, said) in [
            (&[][..], "required"),
            (&["0"], "must be > 0"),
            (&["70000"], "70000"),
            (&["x"], "\"x\""),
            (&["1"; 128], "127"),
        ] {
            let seen = read(list).unwrap_err();
            assert!(seen.contains(said), "seen {seen}, expected {said}");
        }
    }
}
