//! The client side of an HTTP/2 connection: many requests share it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::h2::Reason;
use ::h2::client::SendRequest;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use super::{CONNECTION_WINDOW, Incoming, Outgoing, STREAM_WINDOW, WithPrefix};
use crate::body::{Body, BodyError, Frame, SharedReplay, Tunnel};
use crate::h1::client::{Answer, Lease};
use crate::io::Io;

/// An open HTTP/2 connection to an upstream. Cheap to clone.
#[derive(Clone)]
pub struct ClientConnection {
    send: SendRequest<Bytes>,
    shared: Rc<Shared>,
}

struct Shared {
    active: Cell<usize>,
    requests: Cell<u64>,
    closed: Cell<bool>,
    idle_since: Cell<Instant>,
    stop: tokio::sync::Notify,
    lease: Rc<dyn Lease>,
}

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The connection ended.
    Closed,
    /// The peer said that it did not look at the request.
    Refused,
    /// The peer reset the stream.
    Reset,
    /// What the peer sends is not HTTP/2.
    Protocol,
    /// The body of the request broke off: the client is gone.
    RequestBody(BodyError),
}

/// Pieces of a request for HTTP/2.
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port.
    pub authority: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// All other headers.
    pub headers: HeaderMap,
    /// The protocol of an extended CONNECT.
    pub protocol: Option<&'a str>,
}

impl ClientConnection {
    /// Speaks HTTP/2 on a connection that was just opened; its task runs on this worker.
    ///
    /// # Errors
    /// When the peer does not take the preface.
    pub async fn start(io: Io, lease: Rc<dyn Lease>) -> Result<Self, ::h2::Error> {
        let (send, connection) = ::h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .max_header_list_size(60 * 1024)
            .handshake::<_, Bytes>(WithPrefix::new(
                Rc::new(RefCell::new(io)),
                BytesMut::new(),
                None,
            ))
            .await?;
        let shared = Rc::new(Shared {
            active: Cell::new(0),
            requests: Cell::new(0),
            closed: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            stop: tokio::sync::Notify::new(),
            lease: lease.clone(),
        });
        let watched = shared.clone();
        tokio::task::spawn_local(async move {
            let remote = tokio::select! {
                _ = connection => true,
                () = watched.stop.notified() => false,
            };
            watched.closed.set(true);
            lease.closed(remote, watched.active.get() > 0);
        });
        Ok(Self { send, shared })
    }

    /// What is accounted to it.
    pub fn lease(&self) -> &dyn Lease {
        &*self.shared.lease
    }

    /// Whether new requests may use it.
    pub fn usable(&self) -> bool {
        !self.shared.closed.get()
    }

    /// Streams open now.
    pub fn active(&self) -> usize {
        self.shared.active.get()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.get()
    }

    /// How many streams the peer allows.
    pub fn max_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Since when no stream is open.
    pub fn idle_since(&self) -> Instant {
        self.shared.idle_since.get()
    }

    /// Takes no new requests; the streams that are open end regularly.
    pub fn retire(&self) {
        self.shared.closed.set(true);
        if self.shared.active.get() == 0 {
            self.shared.stop.notify_one();
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// Why none came.
    pub async fn send(
        &self,
        request: Request<'_>,
        body: Option<SharedReplay>,
        mut on_info: impl FnMut(StatusCode, HeaderMap),
    ) -> Result<Answer, SendError> {
        let mut send = self.send.clone();
        let slot = Slot::take(self.shared.clone());
        self.shared.requests.set(self.shared.requests.get() + 1);
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(|error| {
            self.shared.closed.set(true);
            send_error(&error)
        })?;
        let mut head = http::Request::new(());
        *head.method_mut() = request.method.clone();
        let mut uri = http::uri::Builder::new();
        if *request.method == Method::CONNECT && request.protocol.is_none() {
            uri = uri.authority(request.authority);
        } else {
            uri = uri
                .scheme(request.scheme)
                .authority(request.authority)
                .path_and_query(request.path);
        }
        *head.uri_mut() = uri.build().map_err(|_| SendError::Protocol)?;
        *head.headers_mut() = request.headers;
        if let Some(protocol) = request.protocol {
            head.extensions_mut()
                .insert(::h2::ext::Protocol::from(protocol));
        }
        let tunnel = request.protocol.is_some();
        let end = body.is_none() && !tunnel;
        let (mut response, stream) = send.send_request(head, end).map_err(|error| {
            if error.is_io() || error.is_go_away() {
                self.shared.closed.set(true);
            }
            send_error(&error)
        })?;
        let mut pump = Pump {
            out: Outgoing::new(stream),
            replay: body,
            cursor: 0,
            data: None,
            done: end || tunnel,
        };
        let answer = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = pump.poll(cx) {
                return Poll::Ready(Err(SendError::RequestBody(error)));
            }
            while let Poll::Ready(Some(Ok(info))) = response.poll_informational(cx) {
                let (parts, ()) = info.into_parts();
                on_info(parts.status, parts.headers);
            }
            std::pin::Pin::new(&mut response)
                .poll(cx)
                .map_err(|error| send_error(&error))
        })
        .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                pump.out.reset(Reason::CANCEL);
                return Err(error);
            }
        };
        let (parts, body) = answer.into_parts();
        let wire: usize = parts
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let incoming = Incoming::new(body, Some(Box::new(slot)));
        let body = if tunnel && parts.status.is_success() {
            Body::Tunnel(Box::new(Tunnel::Stream(incoming, pump.out)))
        } else {
            let incoming = incoming.with_pump(if pump.done { None } else { Some(pump) });
            if incoming.is_end() {
                Body::Empty
            } else {
                Body::H2(Box::new(incoming))
            }
        };
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            head_bytes: wire as u64,
            body,
        })
    }
}

fn send_error(error: &::h2::Error) -> SendError {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => SendError::Refused,
        _ if error.is_io() || error.is_go_away() => SendError::Closed,
        Some(_) if error.is_reset() => SendError::Reset,
        _ => SendError::Protocol,
    }
}

struct Slot(Rc<Shared>);

impl Slot {
    fn take(shared: Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(shared)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let active = self.0.active.get() - 1;
        self.0.active.set(active);
        if active == 0 {
            self.0.idle_since.set(Instant::now());
            if self.0.closed.get() {
                self.0.stop.notify_one();
            }
        }
    }
}

/// The body of a request while it is sent.
pub struct Pump {
    out: Outgoing,
    replay: Option<SharedReplay>,
    cursor: usize,
    data: Option<Bytes>,
    done: bool,
}

impl Pump {
    /// Sends as much as possible; ready when everything was sent.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        while !self.done {
            if let Some(data) = &mut self.data {
                let last = self
                    .replay
                    .as_ref()
                    .is_some_and(|replay| replay.borrow().is_end(self.cursor));
                match self.out.poll_write(cx, data, last) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(n)) => {
                        data.advance(n);
                        if data.is_empty() {
                            self.data = None;
                        }
                        continue;
                    }
                    // The peer wants no more of it; its answer decides.
                    Poll::Ready(Err(_)) => {
                        self.done = true;
                        break;
                    }
                }
            }
            let Some(replay) = &self.replay else { break };
            let polled = replay.borrow_mut().poll_at(&mut self.cursor, cx);
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    if !data.is_empty() {
                        self.data = Some(data);
                    }
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    let _ = self.out.trailers(trailers);
                    self.done = true;
                }
                Poll::Ready(None) => {
                    let _ = self.out.end();
                    self.done = true;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.out.reset(Reason::CANCEL);
                    self.done = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
