//! The server side of an HTTP/1 connection: one task, no channels.

mod request;
mod response;
mod tunnel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode, header};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::decode::{Decoded, Decoder};
use super::head::{HeadError, HeadRules, RequestHead, Version, parse_request};
use crate::body::{BodyError, Frame};
use crate::http::connection::Connection;
use crate::http::message::{Ended, Informational, Protocol};
use crate::io::{Io, poll_read_buf};
use crate::stats::HttpStats;
use request::request;
use response::{Written, write_info, write_response};

const READ_CHUNK: usize = 8 * 1024;
/// How much a client may send ahead while its request is being answered.
const READ_AHEAD: usize = 64 * 1024;
/// Bodies up to this size are copied behind the head into one write.
const COALESCE: usize = 16 * 1024;

pub(crate) struct Inner {
    io: Io,
    rbuf: BytesMut,
    decoder: Decoder,
    eof: bool,
    failed: bool,
    read_bytes: u64,
    /// Trailers of requests are passed on.
    trailers: bool,
    stats: Arc<HttpStats>,
}

type Shared = Rc<RefCell<Inner>>;

impl Inner {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(poll_read_buf(&mut self.io, cx, &mut self.rbuf, READ_CHUNK));
        match n {
            Ok(0) => {
                self.eof = true;
                Poll::Ready(Ok(0))
            }
            Ok(n) => {
                self.read_bytes += n as u64;
                self.stats.downstream_cx_rx_bytes_total.add(n as u64);
                Poll::Ready(Ok(n))
            }
            Err(error) => {
                self.eof = true;
                self.failed = true;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match self.decoder.decode(&mut self.rbuf) {
                // Trailers are not meant for everybody: by default they end here.
                Ok(Decoded::Frame(Frame::Trailers(_))) if !self.trailers => {
                    return Poll::Ready(None);
                }
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(_) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(BodyError::Protocol)));
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => {
                    self.failed = true;
                    return Poll::Ready(Some(Err(BodyError::Closed)));
                }
                Ok(_) => {}
            }
        }
    }

    /// Ready when the client has gone while its answer is under way.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.failed {
            return Poll::Ready(());
        }
        while self.decoder.is_done() && self.rbuf.len() < READ_AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Whether the client went away in the middle of its request.
    fn broken_off(&mut self) -> bool {
        self.eof && self.failed && !self.decoder.is_done()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, data));
        if let Ok(n) = written {
            self.stats.downstream_cx_tx_bytes_total.add(n as u64);
        }
        Poll::Ready(written)
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        while !buf.is_empty() {
            match ready!(self.poll_write(cx, buf)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => buf.advance(n),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of a request, read from the connection while the request is handled.
pub struct RequestBody {
    inner: Shared,
}

impl RequestBody {
    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.inner.borrow_mut().poll_body(cx)
    }

    /// Whether everything was read.
    pub fn is_end(&self) -> bool {
        self.inner.borrow().decoder.is_done()
    }
}

enum Next {
    Request(Box<RequestHead>),
    Refused(HeadError),
    /// The head does not come.
    Late,
    /// Nothing was asked for too long.
    Idle,
    /// The connection has lasted long enough.
    Expired,
    Closed,
}

/// An idle timer that is set anew only when it fires, not at every request.
struct Idle {
    timer: Option<Pin<Box<Sleep>>>,
    timeout: Option<Duration>,
    since: Instant,
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.timeout else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let deadline = self.since + timeout;
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.into());
        }
    }
}

/// Serves one downstream HTTP/1 connection until it ends. `rbuf` holds what was read already.
pub async fn serve(io: Io, rbuf: BytesMut, conn: Rc<Connection>) {
    let stats = conn.manager.stats.clone();
    stats.downstream_cx_rx_bytes_total.add(rbuf.len() as u64);
    let inner: Shared = Rc::new(RefCell::new(Inner {
        io,
        stats,
        rbuf,
        decoder: Decoder::Done,
        eof: false,
        failed: false,
        read_bytes: 0,
        trailers: conn.options().trailers,
    }));
    let options = conn.options();
    let mut idle = Idle {
        timer: None,
        timeout: options.idle_timeout,
        since: Instant::now(),
    };
    let rules = HeadRules {
        max_head: options.max_head,
        max_headers: options.max_headers,
        custom_methods: options.custom_methods,
    };
    let mut limits = HeadLimits {
        timeout: options.head_timeout,
        began: None,
        end: options.max_duration.map(|limit| Instant::now() + limit),
        timer: None,
    };
    let mut wbuf = BytesMut::new();
    let mut served = 0u64;
    loop {
        idle.since = Instant::now();
        let next = poll_fn(|cx| poll_head(&inner, &mut idle, &mut limits, &rules, cx)).await;
        let head = match next {
            Next::Request(head) => head,
            Next::Closed => break,
            Next::Idle => {
                conn.manager.stats.downstream_cx_idle_timeout.inc();
                break;
            }
            Next::Expired => {
                conn.manager.stats.downstream_cx_max_duration_reached.inc();
                break;
            }
            Next::Late => {
                let response = Box::pin(conn.head_timeout()).await;
                let _ = write_response(
                    &inner,
                    &mut wbuf,
                    response,
                    Version::Http11,
                    false,
                    true,
                    &conn,
                )
                .await;
                close(&inner, &conn).await;
                return;
            }
            Next::Refused(why) => {
                let response = Box::pin(conn.refuse(why.answer(), Protocol::Http11)).await;
                let _ = write_response(
                    &inner,
                    &mut wbuf,
                    response,
                    Version::Http11,
                    false,
                    true,
                    &conn,
                )
                .await;
                close(&inner, &conn).await;
                return;
            }
        };
        let version = head.version;
        if version == Version::Http10 && !options.accept_http_10 {
            let answer = (
                StatusCode::UPGRADE_REQUIRED,
                "Upgrade Required",
                "low_version",
            );
            let response = Box::pin(conn.refuse(answer, Protocol::Http11)).await;
            let _ = write_response(
                &inner,
                &mut wbuf,
                response,
                Version::Http11,
                false,
                true,
                &conn,
            )
            .await;
            close(&inner, &conn).await;
            return;
        }
        let is_head = head.method == Method::HEAD;
        let keep_alive = head.keep_alive;
        // Only a client that waits can be told something before the answer.
        let info = if head.headers.contains_key(header::EXPECT) {
            Informational::new()
        } else {
            Informational::default()
        };
        let request = match request(*head, &inner, &info, &conn) {
            Ok(request) => request,
            Err(why) => {
                let response = Box::pin(conn.refuse(why.answer(), Protocol::Http11)).await;
                let _ = write_response(
                    &inner,
                    &mut wbuf,
                    response,
                    Version::Http11,
                    false,
                    true,
                    &conn,
                )
                .await;
                close(&inner, &conn).await;
                return;
            }
        };
        let mut handling = Box::pin(conn.clone().call(request));
        let response = poll_fn(|cx| {
            let polled = handling.as_mut().poll(cx);
            if polled.is_pending() && (!info.is_empty() || !wbuf.is_empty()) {
                for (status, headers) in info.drain() {
                    write_info(&mut wbuf, status, &headers, options.header_case);
                }
                if let Poll::Ready(Err(_)) = inner.borrow_mut().poll_write_all(cx, &mut wbuf) {
                    return Poll::Ready(None);
                }
            }
            match polled {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => inner.borrow_mut().poll_gone(cx).map(|()| None),
            }
        })
        .await;
        drop(handling);
        let Some(response) = response else {
            // Dropping the handler has told everyone that the client went away.
            conn.manager
                .stats
                .downstream_cx_destroy_remote_active_rq
                .inc();
            return;
        };
        if inner.borrow_mut().broken_off() {
            // Nobody reads any more.
            let mut response = response;
            response.stream.finish(Ended::Downstream);
            return;
        }
        served += 1;
        let last = options.max_requests.is_some_and(|max| served >= max);
        if last {
            conn.manager.stats.downstream_cx_max_requests_reached.inc();
        }
        let expired = limits.end.is_some_and(|end| Instant::now() >= end);
        if expired {
            conn.manager.stats.downstream_cx_max_duration_reached.inc();
        }
        let request_complete = inner.borrow().decoder.is_done();
        let draining = !last && !expired && conn.draining();
        if draining {
            conn.manager.stats.downstream_rq_drain_close.inc();
        }
        let close_after =
            !keep_alive || !request_complete || response.close || last || expired || draining;
        for (status, headers) in info.drain() {
            write_info(&mut wbuf, status, &headers, options.header_case);
        }
        match write_response(
            &inner,
            &mut wbuf,
            response,
            version,
            is_head,
            close_after,
            &conn,
        )
        .await
        {
            Written::KeepAlive => {}
            Written::Close => {
                close(&inner, &conn).await;
                return;
            }
            Written::Cut => {
                inner.borrow().io.reset_on_close();
                return;
            }
        }
    }
    let _ = poll_fn(|cx| Pin::new(&mut inner.borrow_mut().io).poll_shutdown(cx)).await;
}

/// The limits between requests.
struct HeadLimits {
    /// How long a head may take from its first byte.
    timeout: Option<Duration>,
    /// When the first byte of the head came.
    began: Option<Instant>,
    /// When the connection ends.
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadLimits {
    fn poll(&mut self, nothing_came: bool, cx: &mut Context<'_>) -> Poll<Next> {
        let head = match (self.timeout, nothing_came) {
            (Some(timeout), false) => Some(*self.began.get_or_insert_with(Instant::now) + timeout),
            _ => None,
        };
        let end = self.end.filter(|_| nothing_came);
        let Some(at) = head.or(end) else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if timer.deadline() != at.into() {
            timer.as_mut().reset(at.into());
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(if nothing_came {
            Next::Expired
        } else {
            Next::Late
        })
    }
}

fn poll_head(
    inner: &Shared,
    idle: &mut Idle,
    limits: &mut HeadLimits,
    rules: &HeadRules,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    let mut inner = inner.borrow_mut();
    loop {
        if !inner.rbuf.is_empty() {
            match parse_request(&mut inner.rbuf, rules) {
                Ok(Some(head)) => {
                    limits.began = None;
                    inner.decoder = Decoder::new(head.framing);
                    return Poll::Ready(Next::Request(Box::new(head)));
                }
                Ok(None) => {}
                Err(why) => return Poll::Ready(Next::Refused(why)),
            }
        }
        match inner.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => break,
        }
    }
    if inner.rbuf.is_empty() && idle.poll(cx).is_ready() {
        return Poll::Ready(Next::Idle);
    }
    limits.poll(inner.rbuf.is_empty(), cx)
}

/// Closes politely.
async fn close(inner: &Shared, conn: &Connection) {
    let patience = conn.options().close_patience;
    crate::io::close(inner, |inner| &mut inner.io, patience).await;
}
