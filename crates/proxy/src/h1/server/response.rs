//! Writing answers.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use tokio::io::AsyncWrite;

use super::super::head::{HeaderCase, Version, write_header, write_length, write_status_line};
use super::tunnel::tunnel_copy;
use super::{COALESCE, Shared};
use crate::body::{Body, Frame};
use crate::http::connection::Connection;
use crate::http::message::{Ended, Response};

pub(super) fn write_info(
    out: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    case: HeaderCase,
) {
    write_status_line(out, Version::Http11, status);
    for (name, value) in headers {
        write_header(out, name, value, case);
    }
    out.put_slice(b"\r\n");
}

pub(super) enum Written {
    KeepAlive,
    Close,
    /// The answer could not be completed; the client must notice.
    Cut,
}

pub(super) async fn write_response(
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
