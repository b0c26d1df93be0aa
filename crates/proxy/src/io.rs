//! Byte streams of the data path: plain TCP, TLS and Unix sockets behind one type.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A TCP connection of which the first bytes were already read, by a listener filter that looked at them.
pub struct Prefixed {
    prefix: BytesMut,
    tcp: TcpStream,
}

impl Prefixed {
    /// Bytes that were read before, then the socket.
    pub fn new(tcp: TcpStream, prefix: BytesMut) -> Self {
        Self { prefix, tcp }
    }

    /// The bytes read before that nobody took yet.
    pub fn take_prefix(&mut self) -> BytesMut {
        std::mem::take(&mut self.prefix)
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            if self.prefix.is_empty() {
                self.prefix = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// A connection, whatever carries it.
pub enum Io {
    /// Plain TCP, downstream or upstream.
    Plain(Prefixed),
    /// TLS that this proxy terminates.
    ServerTls(Box<tokio_rustls::server::TlsStream<Prefixed>>),
    /// TLS that this proxy originates.
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A Unix domain socket.
    Unix(UnixStream),
}

impl Io {
    /// A plain connection from the start.
    pub fn tcp(tcp: TcpStream) -> Self {
        Self::Plain(Prefixed::new(tcp, BytesMut::new()))
    }

    /// The socket underneath, unless it is a Unix socket.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(io) => Some(io.tcp()),
            Self::ServerTls(io) => Some(io.get_ref().0.tcp()),
            Self::ClientTls(io) => Some(io.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    /// Makes a following close a reset: the peer sees that the stream was cut, not ended.
    pub fn reset_on_close(&self) {
        if let Some(tcp) = self.socket() {
            let _ = tcp.set_zero_linger();
        }
    }
}

macro_rules! delegate {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Plain($io) => $call,
            Io::ServerTls($io) => $call,
            Io::ClientTls($io) => $call,
            Io::Unix($io) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, io => Pin::new(io).poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_shutdown(cx))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Unix(_) => true,
            Self::ServerTls(io) => io.is_write_vectored(),
            Self::ClientTls(io) => io.is_write_vectored(),
        }
    }
}

/// Closes politely: what was written is sent, the rest of what the peer says is read for a while, so that the last words are not
/// lost to a reset (Envoy's delayed close). `io_of` finds the stream in what holds it.
pub async fn close<T>(holder: &RefCell<T>, io_of: impl Fn(&mut T) -> &mut Io, patience: Duration) {
    let _ = poll_fn(|cx| Pin::new(io_of(&mut holder.borrow_mut())).poll_shutdown(cx)).await;
    let drain = poll_fn(|cx| {
        let mut space = [0; 1024];
        loop {
            let mut unread = ReadBuf::new(&mut space);
            match ready!(Pin::new(io_of(&mut holder.borrow_mut())).poll_read(cx, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    });
    let _ = tokio::time::timeout(patience, drain).await;
}

/// Reads once into the free space of `buf`, growing it by `chunk` when it is full. `Ok(0)` is the end.
pub fn poll_read_buf<R: AsyncRead + Unpin>(
    io: &mut R,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
    chunk: usize,
) -> Poll<io::Result<usize>> {
    if buf.capacity() - buf.len() < 512 {
        buf.reserve(chunk);
    }
    let n = {
        let spare = buf.spare_capacity_mut();
        let mut read = ReadBuf::uninit(spare);
        match Pin::new(io).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => read.filled().len(),
        }
    };
    // SAFETY: `poll_read` has initialised the first `n` bytes of the spare capacity.
    unsafe { buf.set_len(buf.len() + n) };
    Poll::Ready(Ok(n))
}

/// The address by which others know this machine, if it has one: what a route to anywhere would come from. Nothing is sent.
pub fn node_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}
