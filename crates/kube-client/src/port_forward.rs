//! Connections to ports of pods through the API server: SPDY/3.1 frames inside a WebSocket, as kubectl
//! sends them since 1.31.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::transport::Connector;
use crate::{Error, Result};

const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Streams of a client have odd numbers.
const ERROR_STREAM: u32 = 1;
const DATA_STREAM: u32 = 3;
const FIN: u8 = 1;
const BUFFER: usize = 64 * 1024;

/// One connection to a port of a pod.
#[derive(Debug)]
pub struct PortForward {
    stream: DuplexStream,
    problem: Arc<Mutex<Option<String>>>,
}

impl PortForward {
    /// Why the node could not connect, if it said so. Reading ends early then.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// As [`PortForward::problem`], for when the stream has been handed on.
    pub fn problem_handle(&self) -> impl Fn() -> Option<String> + use<> {
        let problem = self.problem.clone();
        move || problem.lock().clone()
    }
}

impl AsyncRead for PortForward {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PortForward {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Opens a connection; `head` are the headers that prove who asks.
pub(crate) async fn open(
    connector: Connector,
    base: &str,
    path: &str,
    head: &[(http::HeaderName, http::HeaderValue)],
    port: u16,
) -> Result<PortForward> {
    use tungstenite::client::IntoClientRequest as _;
    let transport = |reason: String| Error::Transport {
        server: base.to_owned(),
        reason,
    };
    let address = format!("{}{path}", base.replacen("http", "ws", 1));
    let mut request = address
        .into_client_request()
        .map_err(|error| Error::Request(format!("{path}: {error}")))?;
    for (name, value) in head {
        request.headers_mut().insert(name, value.clone());
    }
    request.headers_mut().insert(
        http::header::SEC_WEBSOCKET_PROTOCOL,
        http::HeaderValue::from_static(PROTOCOL),
    );
    let stream = connector
        .stream()
        .await
        .map_err(|error| transport(error.to_string()))?;
    let socket = match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => socket,
        Err(tungstenite::Error::Http(response)) => {
            let code = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            return Err(Error::from_response(code, &body));
        }
        Err(error) => return Err(transport(error.to_string())),
    };
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let problem = Arc::new(Mutex::new(None));
    let (mut sink, source) = socket.split();
    for frame in opening(port) {
        let sent = sink.send(Message::Binary(frame)).await;
        sent.map_err(|error| transport(error.to_string()))?;
    }
    let (mut from_us, to_us) = tokio::io::split(theirs);
    let (pings, mut asked) = tokio::sync::mpsc::channel::<Bytes>(4);
    tokio::spawn(receive(source, to_us, pings, problem.clone()));
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                ping = asked.recv() => match ping {
                    Some(ping) => if sink.send(Message::Binary(ping)).await.is_err() { break },
                    // The other direction is over.
                    None => break,
                },
                read = from_us.read(&mut buffer) => {
                    let length = read.unwrap_or(0);
                    let frame = data(DATA_STREAM, &buffer[..length], length == 0);
                    if sink.send(Message::Binary(frame)).await.is_err() {
                        break;
                    }
                    if length == 0 {
                        while let Some(ping) = asked.recv().await {
                            if sink.send(Message::Binary(ping)).await.is_err() {
                                break;
                            }
                        }
                        break;
                    }
                }
            }
        }
        let _ = sink.close().await;
    });
    Ok(PortForward {
        stream: ours,
        problem,
    })
}

async fn receive<S>(
    mut source: S,
    mut to_us: tokio::io::WriteHalf<DuplexStream>,
    pings: tokio::sync::mpsc::Sender<Bytes>,
    problem: Arc<Mutex<Option<String>>>,
) where
    S: futures::Stream<Item = tungstenite::Result<Message>> + Unpin,
{
    let mut buffer = BytesMut::new();
    let mut reason = Vec::new();
    'reading: while let Some(Ok(message)) = source.next().await {
        match message {
            Message::Binary(bytes) => buffer.extend_from_slice(&bytes),
            Message::Close(_) => break,
            _ => continue,
        }
        while let Some(frame) = frame(&mut buffer) {
            match frame {
                Frame::Data {
                    id: DATA_STREAM,
                    bytes,
                    fin,
                } => {
                    if to_us.write_all(&bytes).await.is_err() || fin {
                        break 'reading;
                    }
                }
                Frame::Data {
                    id: ERROR_STREAM,
                    bytes,
                    ..
                } => {
                    reason.extend_from_slice(&bytes);
                    if !reason.is_empty() {
                        *problem.lock() = Some(String::from_utf8_lossy(&reason).into_owned());
                    }
                }
                Frame::Ping(id) => {
                    let _ = pings.send(control(6, 0, &id.to_be_bytes())).await;
                }
                Frame::GoAway | Frame::Reset(DATA_STREAM) => break 'reading,
                Frame::Data { .. } | Frame::Reset(_) | Frame::Other => {}
            }
        }
    }
    let _ = to_us.shutdown().await;
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Data {
        id: u32,
        bytes: Bytes,
        fin: bool,
    },
    Reset(u32),
    Ping(u32),
    GoAway,
    /// Replies to our streams, settings and the like.
    Other,
}

/// Takes the next whole frame off the front.
fn frame(buffer: &mut BytesMut) -> Option<Frame> {
    let head = *buffer.first_chunk::<8>()?;
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if buffer.len() < 8 + length {
        return None;
    }
    buffer.advance(8);
    let mut bytes = buffer.split_to(length).freeze();
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if first >> 31 == 0 {
        let fin = head[4] & FIN != 0;
        return Some(Frame::Data {
            id: first,
            bytes,
            fin,
        });
    }
    let mut number = || bytes.try_get_u32().unwrap_or(0);
    Some(match first & 0xffff {
        3 => Frame::Reset(number() & 0x7fff_ffff),
        6 => Frame::Ping(number()),
        7 => Frame::GoAway,
        _ => Frame::Other,
    })
}

/// The frames that ask for a connection to `port`: a stream for errors, of which we send nothing, and one for data.
fn opening(port: u16) -> [Bytes; 3] {
    let port = port.to_string();
    let headers = |kind: &'static str| {
        [
            ("streamtype", kind),
            ("port", port.as_str()),
            ("requestid", "0"),
        ]
    };
    [
        syn_stream(ERROR_STREAM, true, &headers("error")),
        data(ERROR_STREAM, &[], true),
        syn_stream(DATA_STREAM, false, &headers("data")),
    ]
}

/// Opens a stream. All header blocks of a connection are one zlib stream with the dictionary of SPDY/3;
/// ours are stored, not compressed.
fn syn_stream(id: u32, first: bool, headers: &[(&str, &str)]) -> Bytes {
    let mut plain = BytesMut::new();
    plain.put_u32(headers.len() as u32);
    for (name, value) in headers {
        for text in [name, value] {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
    }
    let mut payload = BytesMut::new();
    payload.put_u32(id);
    // Associated stream, priority, credential slot.
    payload.put_slice(&[0; 6]);
    if first {
        payload.put_slice(&[0x78, 0xbb]);
        payload.put_u32(DICTIONARY_ADLER32);
    }
    payload.put_u8(0);
    payload.put_u16_le(plain.len() as u16);
    payload.put_u16_le(!(plain.len() as u16));
    payload.put_slice(&plain);
    // An empty block marks a flush: readers hand out what they have so far.
    payload.put_slice(&[0, 0, 0, 0xff, 0xff]);
    control(1, 0, &payload)
}

/// Names the dictionary of the SPDY/3 specification; stored blocks do not refer to it.
const DICTIONARY_ADLER32: u32 = 0xe3c6_a7c2;

fn control(kind: u16, flags: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + payload.len());
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u8(flags);
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(payload);
    frame.freeze()
}

fn data(id: u32, bytes: &[u8], fin: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(id);
    frame.put_u8(if fin { FIN } else { 0 });
    frame.put_uint(bytes.len() as u64, 3);
    frame.put_slice(bytes);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_any_pieces() {
        let mut wire = data(DATA_STREAM, b"hello", false).to_vec();
        wire.extend_from_slice(&control(6, 0, &7_u32.to_be_bytes()));
        wire.extend_from_slice(&data(DATA_STREAM, b"", true));
        for size in [1, 9, wire.len()] {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = frame(&mut buffer) {
                    seen.push(frame);
                }
            }
            let of_data = |bytes: &'static [u8], fin| Frame::Data {
                id: DATA_STREAM,
                bytes: Bytes::from_static(bytes),
                fin,
            };
            let expected = [of_data(b"hello", false), Frame::Ping(7), of_data(b"", true)];
            assert_eq!(seen, expected, "pieces of {size}");
        }
    }
}
