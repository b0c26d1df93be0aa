//! HTTP/2 over the `h2` crate: server connections, client connections and their streams as bodies.

pub mod client;
pub mod server;
pub mod trailers;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream, SendStream};
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{BodyError, Frame};
use crate::io::Io;
use crate::stats::HttpStats;

/// Flow control windows: large enough for a local network, small enough for many connections.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The receiving half of a stream.
pub struct Incoming {
    stream: RecvStream,
    data_done: bool,
    done: bool,
    /// What lives as long as the stream: the slot it takes on its connection.
    _slot: Option<Box<dyn std::any::Any>>,
    /// The request that is still being sent while the answer comes.
    pump: Option<client::Pump>,
}

impl Incoming {
    /// Wraps a stream.
    pub fn new(stream: RecvStream, slot: Option<Box<dyn std::any::Any>>) -> Self {
        Self {
            data_done: stream.is_end_stream(),
            done: stream.is_end_stream(),
            stream,
            _slot: slot,
            pump: None,
        }
    }

    pub(crate) fn with_pump(mut self, pump: Option<client::Pump>) -> Self {
        self.pump = pump;
        self
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(pump) = &mut self.pump
            && pump.poll(cx).is_ready()
        {
            self.pump = None;
        }
        if self.done {
            return Poll::Ready(None);
        }
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if self.stream.is_end_stream() {
                        self.data_done = true;
                        self.done = true;
                    }
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(
                        if error.reason() == Some(Reason::NO_ERROR) && error.is_reset() {
                            None
                        } else {
                            Some(Err(body_error(&error)))
                        },
                    );
                }
                None => self.data_done = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.done = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::Trailers(trailers))))
            }
            Err(error) => {
                self.done = true;
                Poll::Ready(Some(Err(body_error(&error))))
            }
        }
    }

    /// Whether everything was read.
    pub fn is_end(&self) -> bool {
        self.done
    }
}

fn body_error(error: &::h2::Error) -> BodyError {
    if error.is_reset() {
        BodyError::Reset
    } else if error.is_io() || error.is_go_away() {
        BodyError::Closed
    } else {
        BodyError::Protocol
    }
}

/// The sending half of a stream.
pub struct Outgoing {
    stream: SendStream<Bytes>,
    ended: bool,
}

impl Outgoing {
    /// Wraps a stream.
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            ended: false,
        }
    }

    /// Sends some of `data`; `last`: nothing follows after all of it, which then ends the stream.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &Bytes,
        last: bool,
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.stream.reserve_capacity(data.len());
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                let n = capacity.min(data.len());
                self.ended = last && n == data.len();
                self.stream
                    .send_data(data.slice(..n), self.ended)
                    .map_err(io::Error::other)?;
                return Poll::Ready(Ok(n));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// Ends the stream.
    pub fn end(&mut self) -> io::Result<()> {
        if !self.ended {
            self.ended = true;
            self.stream
                .send_data(Bytes::new(), true)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Ends the stream with trailers.
    pub fn trailers(&mut self, trailers: HeaderMap) -> io::Result<()> {
        self.ended = true;
        self.stream
            .send_trailers(trailers)
            .map_err(io::Error::other)
    }

    /// Cuts the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.ended = true;
        self.stream.send_reset(reason);
    }

    /// Ready when the peer has reset the stream or is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}

/// A connection with bytes that were read before.
pub(crate) struct WithPrefix {
    prefix: BytesMut,
    io: Rc<RefCell<Io>>,
    /// What counts its bytes, if it is a client's.
    stats: Option<Arc<HttpStats>>,
    /// What looks at its trailers, if it is a client's.
    watch: Option<Box<trailers::Watch>>,
}

impl WithPrefix {
    pub(crate) fn new(
        io: Rc<RefCell<Io>>,
        prefix: BytesMut,
        stats: Option<Arc<HttpStats>>,
    ) -> Self {
        let watch = stats.as_ref().map(|_| Box::default());
        let this = Self {
            prefix,
            io,
            stats,
            watch,
        };
        this.received(this.prefix.len());
        this
    }

    fn received(&self, n: usize) {
        if let Some(stats) = &self.stats {
            stats.downstream_cx_rx_bytes_total.add(n as u64);
        }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(stats), Poll::Ready(Ok(n))) = (&self.stats, &written) {
            stats.downstream_cx_tx_bytes_total.add(*n as u64);
        }
        written
    }
}

impl AsyncRead for WithPrefix {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        if this.prefix.is_empty() {
            let read = Pin::new(&mut *this.io.borrow_mut()).poll_read(cx, buf);
            this.received(buf.filled().len() - before);
            if !matches!(read, Poll::Ready(Ok(()))) {
                return read;
            }
        } else {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..n]);
            this.prefix.advance(n);
        }
        if let Some(watch) = &mut this.watch
            && watch.finds_malformed(&buf.filled()[before..])
        {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WithPrefix {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.io.borrow_mut()).poll_write(cx, buf);
        self.sent(written)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.io.borrow_mut()).poll_write_vectored(cx, bufs);
        self.sent(written)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.borrow().is_write_vectored()
    }
}
