//! Requests and responses between codecs and filters, and the record of one stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};

use crate::body::{Body, BodyError};

/// The protocol a message was spoken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// As Envoy prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request, whatever protocol carried it.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The scheme, if the target named one (absolute form, HTTP/2).
    pub scheme: Option<&'static str>,
    /// The host, as sent.
    pub authority: Option<String>,
    /// Path and query.
    pub path: String,
    /// All other headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// How it came.
    pub protocol: Protocol,
    /// It asks for an upgrade (HTTP/1: `connection: upgrade`).
    pub upgrade: bool,
    /// The protocol of an extended CONNECT (HTTP/2).
    pub extended_connect: Option<String>,
    /// The bytes its head took.
    pub wire_bytes: u64,
    /// Where answers before the answer go.
    pub info: Informational,
    /// When its head was complete.
    pub start: Instant,
}

/// A response on its way to the client.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The connection must be closed afterwards (HTTP/1).
    pub close: bool,
    /// The record of the stream, finished by the codec.
    pub stream: Stream,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Regularly.
    Complete,
    /// Without an answer: the request goes on elsewhere.
    Redirected,
    /// The client went away.
    Downstream,
    /// The client reset the stream (HTTP/2).
    Reset,
    /// We reset it (HTTP/2) before anybody looked at it, and why.
    Rejected(&'static str),
    /// The upstream's answer broke off.
    Upstream(BodyError),
}

/// What follows a stream to its end: byte counts, then the access log and statistics.
pub trait Observer {
    /// Whether it wants to have the headers of the response.
    fn wants_headers(&self) -> bool;
    /// The head of the response took so many bytes; its headers come back, if they are wanted.
    fn head_written(&mut self, bytes: u64, headers: HeaderMap);
    /// So many bytes of the body went to the client.
    fn body_bytes(&mut self, bytes: u64);
    /// So many bytes came from the client through a tunnel.
    fn tunnel_received(&mut self, bytes: u64);
    /// The trailers of the response.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The end.
    fn finish(&mut self, ended: Ended);
}

/// Owns the observer of a stream; dropped without [`Stream::finish`] it reports that the client went away.
pub struct Stream(Option<Box<dyn Observer>>);

impl Stream {
    /// Reports to this observer.
    pub fn new(observer: Box<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    /// Reports to nobody.
    pub fn none() -> Self {
        Self(None)
    }

    /// See [`Observer::wants_headers`].
    pub fn wants_headers(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|observer| observer.wants_headers())
    }

    /// See [`Observer::head_written`].
    pub fn head_written(&mut self, bytes: u64, headers: HeaderMap) {
        if let Some(observer) = &mut self.0 {
            observer.head_written(bytes, headers);
        }
    }

    /// See [`Observer::body_bytes`].
    pub fn body_bytes(&mut self, bytes: u64) {
        if let Some(observer) = &mut self.0 {
            observer.body_bytes(bytes);
        }
    }

    /// See [`Observer::tunnel_received`].
    pub fn tunnel_received(&mut self, bytes: u64) {
        if let Some(observer) = &mut self.0 {
            observer.tunnel_received(bytes);
        }
    }

    /// See [`Observer::trailers`].
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(observer) = &mut self.0 {
            observer.trailers(trailers);
        }
    }

    /// See [`Observer::finish`]; only the first call counts.
    pub fn finish(&mut self, ended: Ended) {
        if let Some(mut observer) = self.0.take() {
            observer.finish(ended);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.finish(Ended::Downstream);
    }
}

/// The queue of informational (1xx) answers from the handler to the codec.
#[derive(Clone, Default)]
pub struct Informational(Option<Rc<RefCell<Queue>>>);

/// Answers before the answer.
pub type Queue = VecDeque<(StatusCode, HeaderMap)>;

impl Informational {
    /// A queue that somebody reads.
    pub fn new() -> Self {
        Self(Some(Rc::default()))
    }

    /// Sends one before the answer.
    pub fn push(&self, status: StatusCode, headers: HeaderMap) {
        if let Some(queue) = &self.0 {
            queue.borrow_mut().push_back((status, headers));
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|queue| queue.borrow().is_empty())
    }

    /// Takes all.
    pub fn drain(&self) -> Queue {
        self.0.as_ref().map_or_else(VecDeque::new, |queue| {
            std::mem::take(&mut *queue.borrow_mut())
        })
    }
}
