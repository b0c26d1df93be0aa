//! Connections that were upgraded: bytes both ways.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::{READ_CHUNK, Shared};
use crate::body::{BodyError, Frame, Tunnel};
use crate::http::message::Ended;
use crate::io::poll_read_buf;

/// Copies both directions of an upgraded connection until both have ended.
pub(super) async fn tunnel_copy(
    inner: &Shared,
    tunnel: Tunnel,
    stream: &mut crate::http::message::Stream,
) -> Ended {
    let mut tunnel = tunnel;
    let mut to_client: VecDeque<Bytes> = VecDeque::new();
    let mut to_server: VecDeque<Bytes> = VecDeque::new();
    let (mut client_ended, mut server_ended) = (false, false);
    let mut client_shut = false;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            // client -> upstream
            if to_server.is_empty() && !client_ended {
                let mut inner = inner.borrow_mut();
                if inner.rbuf.is_empty() {
                    match inner.poll_fill(cx) {
                        Poll::Ready(Ok(0)) => client_ended = true,
                        Poll::Ready(Err(_)) => return Poll::Ready(Ended::Downstream),
                        Poll::Ready(Ok(_)) | Poll::Pending => {}
                    }
                }
                if !inner.rbuf.is_empty() {
                    to_server.push_back(inner.rbuf.split().freeze());
                    progress = true;
                }
            }
            if let Some(data) = to_server.front_mut() {
                match tunnel.poll_write(cx, data) {
                    Poll::Ready(Ok(n)) => {
                        stream.tunnel_received(n as u64);
                        data.advance(n);
                        if data.is_empty() {
                            to_server.pop_front();
                        }
                        progress = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Upstream(BodyError::Closed)),
                    Poll::Pending => {}
                }
            } else if client_ended {
                // HTTP knows no half of a connection: who ends his direction goes away.
                return Poll::Ready(Ended::Downstream);
            }
            // upstream -> client
            if to_client.is_empty() && !server_ended {
                match tunnel.poll_read(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        to_client.push_back(data);
                        progress = true;
                    }
                    Poll::Ready(None) => server_ended = true,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Upstream(error)),
                    Poll::Pending => {}
                }
            }
            {
                let mut inner = inner.borrow_mut();
                if let Some(data) = to_client.front_mut() {
                    match inner.poll_write(cx, data) {
                        Poll::Ready(Ok(n)) => {
                            stream.body_bytes(n as u64);
                            data.advance(n);
                            if data.is_empty() {
                                to_client.pop_front();
                            }
                            progress = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Ended::Downstream),
                        Poll::Pending => {}
                    }
                } else if server_ended
                    && !client_shut
                    && Pin::new(&mut inner.io).poll_shutdown(cx).is_ready()
                {
                    client_shut = true;
                    progress = true;
                }
                let _ = Pin::new(&mut inner.io).poll_flush(cx);
            }
            if server_ended && to_client.is_empty() && client_shut {
                // A tunnel ends when the upstream ends it; waiting for the client would keep it for ever.
                return Poll::Ready(Ended::Complete);
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await
}

impl Tunnel {
    /// Sends some of these bytes to the upstream.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &Bytes,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Connection(upgraded) => {
                let n = ready!(Pin::new(&mut upgraded.io).poll_write(cx, data))?;
                let _ = Pin::new(&mut upgraded.io).poll_flush(cx);
                Poll::Ready(Ok(n))
            }
            Self::Stream(_, out) => out.poll_write(cx, data, false),
        }
    }

    /// Tells the upstream that nothing follows.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Connection(upgraded) => Pin::new(&mut upgraded.io).poll_shutdown(cx),
            Self::Stream(_, out) => Poll::Ready(out.end()),
        }
    }

    /// The next bytes from the upstream.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Connection(upgraded) => {
                if upgraded.rbuf.is_empty() {
                    match ready!(poll_read_buf(
                        &mut upgraded.io,
                        cx,
                        &mut upgraded.rbuf,
                        READ_CHUNK
                    )) {
                        Ok(0) => return Poll::Ready(None),
                        Ok(_) => {}
                        Err(_) => return Poll::Ready(Some(Err(BodyError::Closed))),
                    }
                }
                Poll::Ready(Some(Ok(upgraded.rbuf.split().freeze())))
            }
            Self::Stream(body, _) => match ready!(body.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => Poll::Ready(Some(Ok(data))),
                Some(Ok(Frame::Trailers(_))) | None => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
            },
        }
    }
}
