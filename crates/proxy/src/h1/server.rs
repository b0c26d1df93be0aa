//! The server side of an HTTP/1 connection: one task, no channels.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header;
use http::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::decode::{Decoded, Decoder, Framing};
use super::head::{
    HeadError, HeadRules, HeaderCase, RequestHead, Version, has_token, parse_request, write_header,
    write_length, write_status_line,
};
use crate::body::{Body, BodyError, Frame, Tunnel};
use crate::http::connection::Connection;
use crate::http::message::{Ended, Informational, Protocol, Request, Response};
use crate::io::{Io, poll_read_buf};
use crate::stats::HttpStats;

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

/// Turns what stands on the wire into a request: the forms of the target, the host, the framing.
fn request(
    head: RequestHead,
    inner: &Shared,
    info: &Informational,
    conn: &Connection,
) -> Result<Request, HeadError> {
    let options = conn.options();
    let proxy_continue = options.proxy_100_continue;
    let RequestHead {
        method,
        target,
        version,
        mut headers,
        framing,
        bytes,
        ..
    } = head;
    let target = std::str::from_utf8(&target).map_err(|_| HeadError::InvalidUrl)?;
    if !target.is_ascii() {
        return Err(HeadError::Codec);
    }
    // Two hosts are two opinions about where this goes (RFC 9112, 3.2).
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(HeadError::InvalidAuthority);
    }
    if !conn.admits_names(&mut headers, Protocol::Http11) {
        return Err(HeadError::Underscore);
    }
    // What names itself hop by hop is removed; what others rely on must not be.
    let guarded = headers.get_all(header::CONNECTION).iter().any(|value| {
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
            .iter()
            .any(|name| has_token(value, name))
    });
    if guarded {
        return Err(HeadError::ConnectionHeader);
    }
    let host = headers.remove(header::HOST);
    let mut authority = match &host {
        Some(host) => Some(
            host.to_str()
                .map_err(|_| HeadError::InvalidAuthority)?
                .to_owned(),
        ),
        None if version == Version::Http10 && !options.default_host.is_empty() => {
            Some(options.default_host.clone())
        }
        None => None,
    };
    let mut scheme = None;
    let path = if method == Method::CONNECT {
        // The authority form replaces the host.
        let port = target.rsplit_once(':').map_or("", |(_, port)| port);
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeadError::InvalidUrl);
        }
        authority = Some(target.to_owned());
        String::new()
    } else if target == "*" && method != Method::OPTIONS {
        return Err(HeadError::InvalidUrl);
    } else if target.starts_with('/') || target == "*" {
        target.to_owned()
    } else {
        if !target.contains("://") {
            return Err(match target.starts_with('*') {
                true => HeadError::InvalidUrl,
                false => HeadError::Codec,
            });
        }
        let uri: http::Uri = target.parse().map_err(|_| HeadError::InvalidUrl)?;
        let absolute = uri.authority().ok_or(HeadError::InvalidUrl)?;
        scheme = match uri.scheme_str() {
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            _ => return Err(HeadError::InvalidScheme),
        };
        // A user in front of the host is nobody's business.
        let absolute = absolute.as_str();
        authority = Some(
            absolute
                .rsplit_once('@')
                .map_or(absolute, |(_, host)| host)
                .to_owned(),
        );
        uri.path_and_query()
            .map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned())
    };
    if authority
        .as_deref()
        .is_some_and(|host| !host.bytes().all(authority_byte))
    {
        return Err(HeadError::InvalidAuthority);
    }
    let expect = headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expect && !proxy_continue {
        headers.remove(header::EXPECT);
        info.push(StatusCode::CONTINUE, HeaderMap::new());
    }
    let upgrade = headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| has_token(value, "upgrade"));
    // Nobody upgrades to HTTP/2 this way any more: the request is served as it is.
    let h2c = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"));
    if h2c {
        headers.remove(header::UPGRADE);
        headers.remove(header::CONNECTION);
        headers.remove("http2-settings");
    }
    let upgrade = upgrade && !h2c;
    let body = match framing {
        // After CONNECT and after an upgrade whatever follows belongs to the tunnel.
        Framing::None => Body::Empty,
        _ => Body::H1Request(RequestBody {
            inner: inner.clone(),
        }),
    };
    if let Framing::Length(length) = framing {
        // One line, however many equal ones there were.
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(Request {
        method,
        scheme,
        authority,
        path,
        headers,
        body,
        protocol: if version == Version::Http10 {
            Protocol::Http10
        } else {
            Protocol::Http11
        },
        upgrade,
        extended_connect: None,
        wire_bytes: bytes as u64,
        info: info.clone(),
        start: Instant::now(),
    })
}

/// Whether a host may contain this byte.
fn authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(&byte)
}

fn write_info(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, case: HeaderCase) {
    write_status_line(out, Version::Http11, status);
    for (name, value) in headers {
        write_header(out, name, value, case);
    }
    out.put_slice(b"\r\n");
}

enum Written {
    KeepAlive,
    Close,
    /// The answer could not be completed; the client must notice.
    Cut,
}

async fn write_response(
    inner: &Shared,
    wbuf: &mut BytesMut,
    response: Response,
    version: Version,
    is_head: bool,
    close_after: bool,
    conn: &Rc<Connection>,
) -> Written {
    let Response {
        status,
        headers,
        mut body,
        mut stream,
        ..
    } = response;
    let case = conn.options().header_case;
    if let Body::Tunnel(tunnel) = body {
        write_info(wbuf, status, &headers, case);
        let flushed = poll_fn(|cx| inner.borrow_mut().poll_write_all(cx, wbuf)).await;
        if flushed.is_err() {
            stream.finish(Ended::Downstream);
            return Written::Cut;
        }
        let ended = tunnel_copy(inner, *tunnel, &mut stream).await;
        stream.finish(ended);
        return if matches!(ended, Ended::Complete | Ended::Downstream) {
            Written::Close
        } else {
            Written::Cut
        };
    }
    let start = wbuf.len();
    write_status_line(wbuf, version, status);
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let mut length = false;
    for (name, value) in &headers {
        if name == header::CONTENT_LENGTH {
            // These have no body to measure (RFC 9110, 8.6).
            if status.is_informational() || status == StatusCode::NO_CONTENT {
                continue;
            }
            length = true;
        }
        write_header(wbuf, name, value, case);
    }
    let end = is_head || bodiless || body.is_end();
    let mut chunked = false;
    let mut close_after = close_after;
    if !length && !bodiless {
        if end {
            if !is_head {
                write_length(wbuf, 0);
            } else if version == Version::Http11 {
                wbuf.put_slice(b"transfer-encoding: chunked\r\n");
            }
        } else if version == Version::Http11 {
            chunked = true;
            wbuf.put_slice(b"transfer-encoding: chunked\r\n");
        } else {
            close_after = true;
        }
    }
    if close_after {
        wbuf.put_slice(if case == HeaderCase::Lower {
            b"connection: close\r\n"
        } else {
            b"Connection: close\r\n"
        });
    } else if version == Version::Http10 {
        wbuf.put_slice(b"connection: keep-alive\r\n");
    }
    wbuf.put_slice(b"\r\n");
    stream.head_written((wbuf.len() - start) as u64, headers);

    let mut large: Option<Bytes> = None;
    let mut body_done = end;
    let mut cut: Option<Ended> = None;
    let outcome = poll_fn(|cx| {
        loop {
            // Fill: gather what is ready, so that head and a small body leave in one write.
            while !body_done && large.is_none() && wbuf.len() < COALESCE {
                match body.poll_frame(cx) {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        if data.is_empty() {
                            continue;
                        }
                        stream.body_bytes(data.len() as u64);
                        if chunked {
                            write_chunk_size(wbuf, data.len());
                        }
                        if data.len() <= COALESCE {
                            wbuf.extend_from_slice(&data);
                            if chunked {
                                wbuf.put_slice(b"\r\n");
                            }
                        } else {
                            large = Some(data);
                        }
                        if body.is_end() && !chunked {
                            body_done = true;
                        }
                    }
                    Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                        if chunked {
                            wbuf.put_slice(b"0\r\n");
                            if conn.options().trailers {
                                for (name, value) in &trailers {
                                    write_header(wbuf, name, value, case);
                                }
                            }
                            wbuf.put_slice(b"\r\n");
                        }
                        stream.trailers(&trailers);
                        body_done = true;
                    }
                    Poll::Ready(None) => {
                        if chunked {
                            wbuf.put_slice(b"0\r\n\r\n");
                        }
                        body_done = true;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        // What was promised cannot be kept; flush what there is, then cut.
                        cut = Some(Ended::Upstream(error));
                        body_done = true;
                    }
                    Poll::Pending => break,
                }
            }
            // Write.
            if !wbuf.is_empty() || large.is_some() {
                let mut inner = inner.borrow_mut();
                match inner.poll_write_all(cx, wbuf) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                    Poll::Pending => return Poll::Pending,
                }
                if let Some(data) = &mut large {
                    while !data.is_empty() {
                        match inner.poll_write(cx, data) {
                            Poll::Ready(Ok(n)) if n > 0 => data.advance(n),
                            Poll::Ready(_) => return Poll::Ready(Err(())),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                    large = None;
                    if chunked {
                        wbuf.put_slice(b"\r\n");
                    }
                }
                continue;
            }
            if body_done {
                return match Pin::new(&mut inner.borrow_mut().io).poll_flush(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(result) => Poll::Ready(result.map_err(|_| ())),
                };
            }
            // Waiting for the upstream: flush what TLS holds back and notice a client that leaves.
            let mut inner = inner.borrow_mut();
            if let Poll::Ready(Err(_)) = Pin::new(&mut inner.io).poll_flush(cx) {
                return Poll::Ready(Err(()));
            }
            return inner.poll_gone(cx).map(|()| Err(()));
        }
    })
    .await;
    drop(body);
    if wbuf.capacity() > 64 * 1024 {
        *wbuf = BytesMut::new();
    }
    match (outcome, cut) {
        (Err(()), _) => {
            stream.finish(Ended::Downstream);
            wbuf.clear();
            Written::Cut
        }
        (Ok(()), Some(ended)) => {
            stream.finish(ended);
            Written::Cut
        }
        (Ok(()), None) => {
            stream.finish(Ended::Complete);
            if close_after || !inner.borrow().decoder.is_done() {
                Written::Close
            } else {
                Written::KeepAlive
            }
        }
    }
}

fn write_chunk_size(out: &mut BytesMut, size: usize) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Closes politely.
async fn close(inner: &Shared, conn: &Connection) {
    let patience = conn.options().close_patience;
    crate::io::close(inner, |inner| &mut inner.io, patience).await;
}

/// Copies both directions of an upgraded connection until both have ended.
async fn tunnel_copy(
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
