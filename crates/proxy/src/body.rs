//! Message bodies as streams of frames, without boxing on the usual paths.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::h1;
use crate::h2;

/// One piece of a body.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Trailers; nothing follows.
    Trailers(HeaderMap),
}

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The peer closed the connection or reset the stream.
    Closed,
    /// The peer reset this stream only (HTTP/2).
    Reset,
    /// What the peer sent breaks the protocol.
    Protocol,
    /// The route's time was up.
    Timeout,
    /// Nothing moved for too long.
    Idle,
    /// The stream lasted too long.
    MaxDuration,
}

/// A body to read from.
pub enum Body {
    /// Nothing.
    Empty,
    /// All at once.
    Full(Option<Bytes>),
    /// From a client over HTTP/1.
    H1Request(h1::server::RequestBody),
    /// From an upstream over HTTP/1.
    H1Response(Box<h1::client::ResponseBody>),
    /// From either side over HTTP/2.
    H2(Box<h2::Incoming>),
    /// Bytes that were put aside, then the rest.
    Chained(VecDeque<Frame>, Box<Body>),
    /// An upgraded connection to the upstream.
    Tunnel(Box<Tunnel>),
    /// Anything else.
    Boxed(Box<dyn Source>),
}

/// An upgraded upstream connection: raw bytes in both directions.
pub enum Tunnel {
    /// The connection itself (HTTP/1 upgrade) with bytes already read.
    Connection(h1::client::Upgraded),
    /// A stream of an HTTP/2 connection (extended CONNECT).
    Stream(h2::Incoming, h2::Outgoing),
}

/// A body made by something else than a codec.
pub trait Source {
    /// The next frame; `None` is the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Whether it is certain that nothing follows.
    fn is_end(&self) -> bool {
        false
    }
}

impl Body {
    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(Some(bytes))
        }
    }

    /// The next frame; `None` is the end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::Data(bytes)))),
            Self::H1Request(body) => body.poll_frame(cx),
            Self::H1Response(body) => body.poll_frame(cx),
            Self::H2(body) => body.poll_frame(cx),
            Self::Chained(first, rest) => match first.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => rest.poll_frame(cx),
            },
            Self::Boxed(body) => body.poll_frame(cx),
        }
    }

    /// Whether it is certain that nothing follows.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::H1Request(body) => body.is_end(),
            Self::H1Response(body) => body.is_end(),
            Self::H2(body) => body.is_end(),
            Self::Chained(first, rest) => first.is_empty() && rest.is_end(),
            Self::Boxed(body) => body.is_end(),
            Self::Tunnel(_) => false,
        }
    }

    /// The next frame; `None` is the end.
    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// Reads at most `limit` bytes; an error when there is more or the body breaks off.
    ///
    /// # Errors
    /// [`BodyError::Protocol`] when the body is longer, else why it ended.
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = bytes::BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Frame::Data(bytes) = frame? {
                if all.len() + bytes.len() > limit {
                    return Err(BodyError::Protocol);
                }
                all.extend_from_slice(&bytes);
            }
        }
        Ok(all.freeze())
    }
}

/// A request body that several attempts and mirrors may read from the start, as long as it fits the buffer.
pub struct Replay {
    source: Body,
    kept: Vec<Frame>,
    kept_bytes: usize,
    limit: usize,
    /// Attempts may start from the beginning.
    replayable: bool,
    ended: bool,
    failed: Option<BodyError>,
    /// Frames dropped from the front because nobody may replay them any more.
    dropped: usize,
    /// More came than is kept, and nobody was told yet.
    overflowed: bool,
    /// Bytes of data seen.
    pub bytes: u64,
    /// What the client sent is counted already; what is read now is something else.
    counted: bool,
    /// When the last frame came.
    pub moved: Option<std::time::Instant>,
}

/// A request body that a filter has read ahead.
#[derive(Debug, Clone, Default)]
pub struct Buffered {
    /// What was read, at most as much as was asked for.
    pub bytes: Bytes,
    /// How much has come, which may be more than was asked for.
    pub total: usize,
    /// It is everything.
    pub complete: bool,
    /// Nothing follows what has come.
    pub last: bool,
}

/// A [`Replay`] shared by the request and the connection that sends it.
pub type SharedReplay = Rc<RefCell<Replay>>;

impl Replay {
    /// Keeps at most `limit` bytes for replays; `limit` 0 keeps none.
    pub fn new(source: Body, limit: usize) -> SharedReplay {
        Rc::new(RefCell::new(Self {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            replayable: limit > 0,
            ended: false,
            failed: None,
            dropped: 0,
            overflowed: false,
            bytes: 0,
            counted: false,
            moved: None,
        }))
    }

    /// Lets what comes pass through another body; only before anything was read.
    pub fn wrap(&mut self, wrap: impl FnOnce(Body) -> Body) {
        self.source = wrap(std::mem::replace(&mut self.source, Body::Empty));
    }

    /// Puts other bytes in the place of a body that was read ahead as a whole; trailers stay.
    pub fn replace(&mut self, bytes: Bytes) {
        if !self.counted
            && let Body::Chained(frames, _) = &self.source
        {
            let length = |frame: &Frame| match frame {
                Frame::Data(data) => data.len() as u64,
                Frame::Trailers(_) => 0,
            };
            self.bytes += frames.iter().map(length).sum::<u64>();
            self.counted = true;
        }
        let mut frames: VecDeque<Frame> = match std::mem::replace(&mut self.source, Body::Empty) {
            Body::Chained(frames, _) => frames,
            _ => VecDeque::new(),
        };
        frames.retain(|frame| matches!(frame, Frame::Trailers(_)));
        if !bytes.is_empty() {
            frames.push_front(Frame::Data(bytes));
        }
        self.source = Body::Chained(frames, Box::new(Body::Empty));
    }

    /// The trailers of a body that was read ahead as a whole.
    pub fn trailers(&self) -> Option<HeaderMap> {
        match &self.source {
            Body::Chained(frames, _) => match frames.back() {
                Some(Frame::Trailers(trailers)) => Some(trailers.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Keeps up to `limit` bytes from now on; only before anything was read.
    pub fn keep(&mut self, limit: usize) {
        if self.dropped == 0 && self.kept.is_empty() && !self.ended {
            self.limit = limit;
            self.replayable = limit > 0;
        }
    }

    /// Reads ahead until the end or until more than `limit` bytes are there; whoever sends the body later gets all of
    /// it. To be used before anybody else reads.
    ///
    /// # Errors
    /// How the client's side failed.
    pub async fn buffer(this: &SharedReplay, limit: usize) -> Result<Buffered, BodyError> {
        let mut frames = VecDeque::new();
        let mut bytes = bytes::BytesMut::new();
        let result = loop {
            let frame = std::future::poll_fn(|cx| this.borrow_mut().source.poll_frame(cx)).await;
            match frame {
                None => break Ok(true),
                Some(Err(error)) => break Err(error),
                Some(Ok(frame)) => {
                    if let Frame::Data(data) = &frame {
                        bytes.extend_from_slice(data);
                    }
                    frames.push_back(frame);
                    if bytes.len() > limit {
                        break Ok(false);
                    }
                }
            }
        };
        let mut replay = this.borrow_mut();
        let rest = match result {
            Ok(false) => std::mem::replace(&mut replay.source, Body::Empty),
            _ => Body::Empty,
        };
        let last = rest.is_end();
        replay.source = Body::Chained(frames, Box::new(rest));
        match result {
            Ok(complete) => {
                let total = bytes.len();
                bytes.truncate(limit);
                Ok(Buffered {
                    total,
                    last,
                    bytes: bytes.freeze(),
                    complete,
                })
            }
            Err(error) => {
                replay.failed = Some(error);
                Err(error)
            }
        }
    }

    /// Everything, once the body is complete and nothing was dropped.
    pub fn copy(&self) -> Option<Vec<Frame>> {
        (self.complete_now() && self.dropped == 0).then(|| self.kept.clone())
    }

    /// Whether a new attempt can start from the first byte.
    pub fn replayable(&self) -> bool {
        self.replayable || (self.dropped == 0 && self.kept.is_empty() && !self.ended)
    }

    /// Whether the body was read to its end.
    pub fn complete(&self) -> bool {
        self.ended
    }

    /// Whether the body was read to its end or nothing of it is left to read.
    pub fn complete_now(&self) -> bool {
        self.ended || self.source.is_end()
    }

    /// When the last of it came, if it has come.
    pub fn completed(&self) -> Option<std::time::Instant> {
        self.moved.filter(|_| self.complete_now())
    }

    /// How the client's side failed, if it did.
    pub fn failed(&self) -> Option<BodyError> {
        self.failed
    }

    /// Gives up replaying: from now on only the one reader is served.
    pub fn stop_replay(&mut self) {
        self.replayable = false;
    }

    /// Whether more came than is kept for other tries, since this was last asked.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Reads what is there already and nobody wants any more, up to `limit` bytes.
    pub async fn drain_ready(this: &SharedReplay, limit: u64) {
        std::future::poll_fn(|cx| {
            let Ok(mut replay) = this.try_borrow_mut() else {
                return Poll::Ready(());
            };
            replay.stop_replay();
            let mut cursor = replay.dropped + replay.kept.len();
            let end = replay.bytes + limit;
            while replay.bytes < end {
                match replay.poll_at(&mut cursor, cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Whether nothing follows after `cursor`.
    pub fn is_end(&self, cursor: usize) -> bool {
        cursor >= self.dropped + self.kept.len() && (self.ended || self.source.is_end())
    }

    /// The frame at `cursor`, reading on where nobody has been yet.
    pub fn poll_at(
        &mut self,
        cursor: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(frame) = cursor
            .checked_sub(self.dropped)
            .and_then(|at| self.kept.get(at))
        {
            let frame = frame.clone();
            *cursor += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.failed {
            return Poll::Ready(Some(Err(error)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match self.source.poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.failed = Some(error);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.moved = Some(std::time::Instant::now());
                if let Frame::Data(bytes) = &frame {
                    if !self.counted {
                        self.bytes += bytes.len() as u64;
                    }
                    self.kept_bytes += bytes.len();
                }
                if self.replayable && self.kept_bytes <= self.limit {
                    self.kept.push(frame.clone());
                } else {
                    // Beyond the buffer limit the request can no longer be retried.
                    self.overflowed |= self.replayable;
                    self.replayable = false;
                    self.dropped += self.kept.len() + 1;
                    self.kept = Vec::new();
                }
                *cursor += 1;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
