//! The client side of an HTTP/1 connection: a value that a request owns while it uses it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header;
use http::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncWrite;

use super::decode::{Decoded, Decoder, Framing};
use super::head::{
    HeadError, HeaderCase, MAX_HEAD, Version, parse_response, write_header, write_length,
};
use crate::body::{Body, BodyError, Frame, SharedReplay};
use crate::io::{Io, poll_read_buf};

const READ_CHUNK: usize = 8 * 1024;
const COALESCE: usize = 16 * 1024;

/// Takes a connection back when it can serve another request, or learns that it is gone.
pub trait Home {
    /// The connection is idle again.
    fn give_back(&self, connection: Box<ClientConnection>);
}

/// An open HTTP/1 connection to an upstream.
pub struct ClientConnection {
    io: Io,
    rbuf: BytesMut,
    wbuf: BytesMut,
    /// What is accounted to this connection while it lives; dropped with it.
    pub lease: Box<dyn Lease>,
    /// Requests sent on it.
    pub requests: u64,
    /// When it was opened.
    pub opened: Instant,
    /// When it last became idle.
    pub idle_since: Cell<Instant>,
    home: Option<Rc<dyn Home>>,
}

/// What a connection accounts for: counters that change when bytes move and when it closes.
pub trait Lease {
    /// So many bytes were read.
    fn received(&self, bytes: u64);
    /// So many bytes were written.
    fn sent(&self, bytes: u64);
    /// The peer will close it after this answer.
    fn close_announced(&self) {}
    /// It closes; `remote` tells who began.
    fn closed(&self, remote: bool, with_request: bool);
    /// Facts for logs: the local address.
    fn local_address(&self) -> Option<std::net::SocketAddr>;
    /// As itself.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An upgraded connection.
pub struct Upgraded {
    /// The connection.
    pub io: Io,
    /// What was read behind the head of the answer.
    pub rbuf: BytesMut,
    /// Keeps the accounting alive.
    pub lease: Box<dyn Lease>,
}

/// What to send: the head in wire form order.
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, or the authority for CONNECT.
    pub target: &'a str,
    /// The host header.
    pub authority: &'a str,
    /// All other headers, hop-by-hop ones removed.
    pub headers: &'a HeaderMap,
    /// The upgrade token to ask for.
    pub upgrade: Option<&'a str>,
    /// How to write names.
    pub case: HeaderCase,
    /// Forward trailers.
    pub trailers: bool,
}

/// Why no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The connection ended; `after_bytes` tells whether part of an answer had come.
    Closed {
        /// Something of the answer had been read.
        after_bytes: bool,
    },
    /// The answer is not HTTP, or its head is too large.
    Protocol(HeadError),
    /// The body of the request broke off: the client is gone.
    RequestBody(BodyError),
}

/// The head of an answer; the body comes with it.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The bytes of the head.
    pub head_bytes: u64,
    /// The body; it brings the connection home when it is through.
    pub body: Body,
}

/// The body of the request while it is sent.
struct Pump {
    replay: Option<SharedReplay>,
    cursor: usize,
    chunked: bool,
    trailers: bool,
    large: Option<Bytes>,
    done: bool,
}

impl ClientConnection {
    /// A connection that was just opened.
    pub fn new(io: Io, lease: Box<dyn Lease>) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            io,
            rbuf: BytesMut::new(),
            wbuf: BytesMut::new(),
            lease,
            requests: 0,
            opened: now,
            idle_since: Cell::new(now),
            home: None,
        })
    }

    /// Where it goes when it is idle again.
    pub fn set_home(&mut self, home: Rc<dyn Home>) {
        self.home = Some(home);
    }

    /// Whether the peer still holds its end: nothing may come on an idle connection.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> bool {
        // A buffer only for as long as there is something in it.
        match poll_read_buf(&mut self.io, cx, &mut self.rbuf, 512) {
            Poll::Pending => {
                self.rbuf = BytesMut::new();
                true
            }
            Poll::Ready(_) => false,
        }
    }

    /// Takes it apart: the stream and its accounting.
    pub fn into_parts(self) -> (Io, BytesMut, Box<dyn Lease>) {
        (self.io, self.rbuf, self.lease)
    }

    /// Sends a request and waits for the head of the answer. `on_info` sees 1xx answers.
    ///
    /// # Errors
    /// Why none came; the connection is gone then.
    pub async fn send(
        mut self: Box<Self>,
        out: Outgoing<'_>,
        body: Option<SharedReplay>,
        mut on_info: impl FnMut(StatusCode, HeaderMap),
    ) -> Result<Answer, SendError> {
        self.requests += 1;
        let mut this = Abandoned(Some(self));
        let connection = this.0.as_mut().expect("just put there");
        let is_head = *out.method == Method::HEAD;
        let chunked = write_request_head(&mut connection.wbuf, &out, body.is_some());
        let mut pump = Pump {
            done: body.is_none(),
            replay: body,
            cursor: 0,
            chunked,
            trailers: out.trailers,
            large: None,
        };
        let mut read = 0u64;
        let head = poll_fn(|cx| {
            match pump.poll(connection, cx) {
                Poll::Ready(Err(PumpError::Body(error))) => {
                    return Poll::Ready(Err(SendError::RequestBody(error)));
                }
                // The server may have answered before it closed its side: read what there is.
                Poll::Ready(Err(PumpError::Io)) => pump.done = true,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            loop {
                if !connection.rbuf.is_empty() {
                    match parse_response(&mut connection.rbuf, MAX_HEAD) {
                        Ok(Some(head)) if head.status.is_informational() && head.status != 101 => {
                            on_info(head.status, head.headers);
                            continue;
                        }
                        Ok(Some(head)) => return Poll::Ready(Ok(head)),
                        Ok(None) => {}
                        Err(why) => return Poll::Ready(Err(SendError::Protocol(why))),
                    }
                }
                match ready!(poll_read_buf(
                    &mut connection.io,
                    cx,
                    &mut connection.rbuf,
                    READ_CHUNK
                )) {
                    Ok(0) | Err(_) => {
                        return Poll::Ready(Err(SendError::Closed {
                            after_bytes: read > 0,
                        }));
                    }
                    Ok(n) => {
                        read += n as u64;
                        connection.lease.received(n as u64);
                    }
                }
            }
        })
        .await;
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                if let Some(connection) = this.0.take() {
                    connection
                        .lease
                        .closed(matches!(error, SendError::Closed { .. }), true);
                }
                return Err(error);
            }
        };
        let this = this.0.take().expect("it is taken here only");
        if !head.keep_alive {
            this.lease.close_announced();
        }
        let connect_ok = *out.method == Method::CONNECT && head.status.is_success();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && out.upgrade.is_some() || connect_ok {
            let this = *this;
            let tunnel = crate::body::Tunnel::Connection(Upgraded {
                io: this.io,
                rbuf: this.rbuf,
                lease: this.lease,
            });
            return Ok(Answer {
                status: head.status,
                headers: head.headers,
                head_bytes: head.bytes as u64,
                body: Body::Tunnel(Box::new(tunnel)),
            });
        }
        // Who was not asked to switch has nothing more to say.
        let bodiless = is_head
            || switches
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        let framing = if bodiless {
            Framing::None
        } else {
            head.framing
        };
        let reusable = !switches
            && head.keep_alive
            && framing != Framing::UntilClose
            && head.version == Version::Http11;
        let mut answer = ResponseBody {
            connection: Some(this),
            decoder: Decoder::new(framing),
            pump: if pump.done { None } else { Some(pump) },
            reusable,
            trailers: out.trailers,
        };
        let body = if answer.decoder.is_done() && answer.pump.is_none() {
            answer.release();
            Body::Empty
        } else {
            Body::H1Response(Box::new(answer))
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            head_bytes: head.bytes as u64,
            body,
        })
    }
}

/// A connection whose request may be given up before its answer comes.
struct Abandoned(Option<Box<ClientConnection>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.lease.closed(false, true);
        }
    }
}

fn write_request_head(wbuf: &mut BytesMut, out: &Outgoing<'_>, has_body: bool) -> bool {
    wbuf.reserve(512);
    wbuf.put_slice(out.method.as_str().as_bytes());
    wbuf.put_u8(b' ');
    wbuf.put_slice(out.target.as_bytes());
    wbuf.put_slice(b" HTTP/1.1\r\n");
    wbuf.put_slice(if out.case == HeaderCase::Lower {
        b"host: "
    } else {
        b"Host: "
    });
    wbuf.put_slice(out.authority.as_bytes());
    wbuf.put_slice(b"\r\n");
    let mut length = false;
    for (name, value) in out.headers {
        length |= name == header::CONTENT_LENGTH;
        write_header(wbuf, name, value, out.case);
    }
    let mut chunked = false;
    if let Some(token) = out.upgrade {
        if !out.headers.contains_key(header::UPGRADE) {
            wbuf.put_slice(b"connection: Upgrade\r\nupgrade: ");
            wbuf.put_slice(token.as_bytes());
            wbuf.put_slice(b"\r\n");
        }
    } else if !length {
        if has_body {
            chunked = true;
            wbuf.put_slice(b"transfer-encoding: chunked\r\n");
        } else if !matches!(
            *out.method,
            Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE
        ) {
            write_length(wbuf, 0);
        }
    }
    wbuf.put_slice(b"\r\n");
    chunked
}

enum PumpError {
    Body(BodyError),
    Io,
}

impl Pump {
    /// Sends as much as possible; ready when everything was sent.
    fn poll(
        &mut self,
        connection: &mut ClientConnection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            while !self.done && self.large.is_none() && connection.wbuf.len() < COALESCE {
                let Some(replay) = &self.replay else {
                    self.done = true;
                    break;
                };
                let polled = replay.borrow_mut().poll_at(&mut self.cursor, cx);
                match polled {
                    Poll::Pending => break,
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(PumpError::Body(error)));
                    }
                    Poll::Ready(None) => {
                        if self.chunked {
                            connection.wbuf.put_slice(b"0\r\n\r\n");
                        }
                        self.done = true;
                    }
                    Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                        if self.chunked {
                            connection.wbuf.put_slice(b"0\r\n");
                            if self.trailers {
                                for (name, value) in &trailers {
                                    write_header(
                                        &mut connection.wbuf,
                                        name,
                                        value,
                                        HeaderCase::Lower,
                                    );
                                }
                            }
                            connection.wbuf.put_slice(b"\r\n");
                        }
                        self.done = true;
                    }
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        if data.is_empty() {
                            continue;
                        }
                        if self.chunked {
                            connection
                                .wbuf
                                .put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                        }
                        if data.len() <= COALESCE {
                            connection.wbuf.put_slice(&data);
                            if self.chunked {
                                connection.wbuf.put_slice(b"\r\n");
                            }
                        } else {
                            self.large = Some(data);
                        }
                        if !self.chunked && replay.borrow().is_end(self.cursor) {
                            self.done = true;
                        }
                    }
                }
            }
            if connection.wbuf.is_empty() && self.large.is_none() {
                let _ = Pin::new(&mut connection.io).poll_flush(cx);
                if self.done {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
            match ready!(poll_write_buf(&mut connection.io, cx, &mut connection.wbuf)) {
                Ok(n) => connection.lease.sent(n as u64),
                Err(_) => return Poll::Ready(Err(PumpError::Io)),
            }
            if let Some(data) = &mut self.large {
                while !data.is_empty() {
                    match ready!(Pin::new(&mut connection.io).poll_write(cx, data)) {
                        Ok(n) if n > 0 => {
                            connection.lease.sent(n as u64);
                            data.advance(n);
                        }
                        _ => return Poll::Ready(Err(PumpError::Io)),
                    }
                }
                self.large = None;
                if self.chunked {
                    connection.wbuf.put_slice(b"\r\n");
                }
            }
        }
    }
}

fn poll_write_buf(
    io: &mut Io,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let total = buf.len();
    while !buf.is_empty() {
        match ready!(Pin::new(&mut *io).poll_write(cx, buf)) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => buf.advance(n),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(total))
}

/// The body of an answer; owns the connection until it is through.
pub struct ResponseBody {
    connection: Option<Box<ClientConnection>>,
    decoder: Decoder,
    pump: Option<Pump>,
    reusable: bool,
    /// Trailers are passed on.
    trailers: bool,
}

impl ResponseBody {
    /// Whether everything was read.
    pub fn is_end(&self) -> bool {
        self.decoder.is_done()
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(if self.decoder.is_done() {
                None
            } else {
                Some(Err(BodyError::Closed))
            });
        };
        if let Some(pump) = &mut self.pump {
            match pump.poll(connection, cx) {
                Poll::Ready(Ok(())) => self.pump = None,
                // The answer counts; the connection cannot be used again.
                Poll::Ready(Err(_)) => {
                    self.pump = None;
                    self.reusable = false;
                }
                Poll::Pending => {}
            }
        }
        loop {
            match self.decoder.decode(&mut connection.rbuf) {
                Ok(Decoded::Frame(Frame::Trailers(_))) if !self.trailers => {
                    self.release();
                    return Poll::Ready(None);
                }
                Ok(Decoded::Frame(frame)) => {
                    if self.decoder.is_done() {
                        self.release();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Decoded::End) => {
                    self.release();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(_) => {
                    connection.lease.closed(false, true);
                    self.connection = None;
                    return Poll::Ready(Some(Err(BodyError::Protocol)));
                }
            }
            match ready!(poll_read_buf(
                &mut connection.io,
                cx,
                &mut connection.rbuf,
                4 * READ_CHUNK
            )) {
                Ok(n) if n > 0 => connection.lease.received(n as u64),
                Ok(_) if self.decoder.end_of_connection() => {
                    self.reusable = false;
                    self.release();
                    return Poll::Ready(None);
                }
                _ => {
                    // Less than was promised is a breach of the protocol, however the connection ended.
                    connection.lease.closed(true, true);
                    self.connection = None;
                    return Poll::Ready(Some(Err(BodyError::Protocol)));
                }
            }
        }
    }

    /// The exchange is over: the connection goes home if it can be used again.
    fn release(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // Bytes nobody asked for, or a request that was not sent to its end: not usable.
        if !self.reusable || self.pump.is_some() || !connection.rbuf.is_empty() {
            connection.lease.closed(false, false);
            return;
        }
        connection.rbuf = BytesMut::new();
        if connection.wbuf.capacity() > 4096 {
            connection.wbuf = BytesMut::new();
        }
        connection.idle_since.set(Instant::now());
        if let Some(home) = connection.home.clone() {
            home.give_back(connection);
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.lease.closed(false, true);
        }
    }
}
