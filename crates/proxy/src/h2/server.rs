//! The server side of an HTTP/2 connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::{Buf, Bytes, BytesMut};
use http::header;

use super::{CONNECTION_WINDOW, Incoming, Outgoing, STREAM_WINDOW, WithPrefix};
use crate::body::{Body, BodyError, Frame};
use crate::http::connection::{Connection, WasReset};
use crate::http::message::{Ended, Informational, Protocol, Request, Response};
use crate::io::{Io, close};

/// Serves one downstream HTTP/2 connection until it ends. `prefix` holds what was read already.
pub async fn serve(io: Io, prefix: BytesMut, conn: Rc<Connection>) {
    let options = conn.options();
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(options.h2_stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(options.h2_connection_window.unwrap_or(CONNECTION_WINDOW))
        .max_concurrent_streams(options.h2_max_streams.unwrap_or(1024))
        .max_header_list_size(options.max_head as u32)
        .max_send_buffer_size(256 * 1024);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let io = Rc::new(RefCell::new(io));
    let carried = WithPrefix::new(io.clone(), prefix, Some(conn.manager.stats.clone()));
    match builder.handshake::<_, Bytes>(carried).await {
        Ok(connection) => accept(connection, conn.clone()).await,
        Err(_) => conn.protocol_error(),
    }
    close(&io, |io| io, conn.options().close_patience).await;
}

/// Takes streams until the connection has ended or is in error; then everything that is to be said was written.
async fn accept(mut connection: ::h2::server::Connection<WithPrefix, Bytes>, conn: Rc<Connection>) {
    let options = conn.options();
    // Set by the stream whose answer says goodbye; sending that answer wakes this loop.
    let goodbye = Rc::new(Cell::new(false));
    let mut draining = false;
    let mut accepted_count = 0;
    let mut idle = options
        .idle_timeout
        .map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    loop {
        let accepted = poll_fn(|cx| {
            if !draining && goodbye.get() {
                draining = true;
                connection.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            if let Some(timer) = &mut idle
                && timer.as_mut().poll(cx).is_ready()
            {
                let timeout = options.idle_timeout.unwrap_or_default();
                if !connection.has_streams() && !draining {
                    draining = true;
                    connection.graceful_shutdown();
                }
                timer.as_mut().reset(tokio::time::Instant::now() + timeout);
                let _ = timer.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                let stream = stream(conn.clone(), request, respond, goodbye.clone());
                tokio::task::spawn_local(stream);
                accepted_count += 1;
                let max = conn.manager.rules.max_requests_per_connection;
                if !draining && max.is_some_and(|max| accepted_count >= max) {
                    draining = true;
                    connection.graceful_shutdown();
                }
            }
            Some(Err(error)) => {
                let malformed = error
                    .get_io()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData);
                if malformed || !error.is_io() && !error.is_go_away() {
                    conn.protocol_error();
                }
                return;
            }
            None => return,
        }
    }
}

async fn stream(
    conn: Rc<Connection>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    goodbye: Rc<Cell<bool>>,
) {
    let start = Instant::now();
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    let extended = parts
        .extensions
        .get::<::h2::ext::Protocol>()
        .map(|protocol| protocol.as_str().to_owned());
    let host = headers.remove(header::HOST);
    let authority = match parts.uri.authority() {
        Some(authority) => Some(authority.as_str().to_owned()),
        None => host.and_then(|host| host.to_str().ok().map(str::to_owned)),
    };
    // A user in front of the host is nobody's business.
    if authority.as_ref().is_some_and(|host| host.contains('@')) {
        conn.protocol_error();
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    }
    // Cookies may come in pieces; HTTP/1 knows one line (RFC 9113, 8.2.3).
    join_cookies(&mut headers);
    let end = body.is_end_stream();
    let wire = parts.uri.path().len()
        + headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len())
            .sum::<usize>();
    let info = if headers.contains_key(header::EXPECT) {
        Informational::new()
    } else {
        Informational::default()
    };
    let expect = !info.is_empty() || headers.contains_key(header::EXPECT);
    if expect && !conn.options().proxy_100_continue {
        headers.remove(header::EXPECT);
        let mut answer = http::Response::new(());
        *answer.status_mut() = http::StatusCode::CONTINUE;
        let _ = respond.send_informational(answer);
    }
    let path = match parts.uri.path_and_query() {
        Some(path) => path.as_str().to_owned(),
        None if parts.method == http::Method::CONNECT && extended.is_none() => String::new(),
        None => "/".to_owned(),
    };
    // What follows a CONNECT is no body: it goes through the tunnel, if there is one.
    let mut body = Some(body);
    let tunnels = extended.is_some() || parts.method == http::Method::CONNECT;
    let tunnel = body
        .take_if(|_| tunnels)
        .map(|body| Incoming::new(body, None));
    let mut request = Request {
        method: parts.method,
        scheme: match parts.uri.scheme_str() {
            Some("https") => Some("https"),
            Some(_) => Some("http"),
            None => None,
        },
        authority,
        path,
        headers,
        body: if end || tunnel.is_some() {
            Body::Empty
        } else {
            match body {
                Some(body) => Body::H2(Box::new(Incoming::new(body, None))),
                None => Body::Empty,
            }
        },
        protocol: Protocol::Http2,
        upgrade: false,
        extended_connect: extended,
        wire_bytes: wire as u64,
        info: info.clone(),
        start,
    };
    // The four pseudo headers count.
    if request.headers.len() + 4 > conn.options().max_headers {
        respond.send_reset(Reason::INTERNAL_ERROR);
        conn.rejected(request, "http2.too_many_headers");
        return;
    }
    if !conn.admits_names(&mut request.headers, Protocol::Http2) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        conn.rejected(request, "http2.unexpected_underscore");
        return;
    }
    let is_head = request.method == http::Method::HEAD;
    let response = {
        // Outlives the handler.
        let mut was_reset = None;
        let mut handling = pin!(conn.clone().call(request));
        poll_fn(|cx| {
            let polled = handling.as_mut().poll(cx);
            if polled.is_pending() {
                for (status, headers) in info.drain() {
                    let mut answer = http::Response::new(());
                    *answer.status_mut() = status;
                    *answer.headers_mut() = headers;
                    let _ = respond.send_informational(answer);
                }
            }
            match polled {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => respond.poll_reset(cx).map(|reset| {
                    was_reset = reset.is_ok().then(WasReset::now);
                    None
                }),
            }
        })
        .await
    };
    let Some(response) = response else {
        return;
    };
    if !goodbye.get() && conn.draining() {
        conn.manager.stats.downstream_rq_drain_close.inc();
        goodbye.set(true);
    }
    send(response, respond, is_head, tunnel).await;
}

async fn send(
    response: Response,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    from_client: Option<Incoming>,
) {
    let Response {
        status,
        mut headers,
        mut body,
        mut stream,
        ..
    } = response;
    let wire: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = if stream.wants_headers() {
        headers.clone()
    } else {
        std::mem::take(&mut headers)
    };
    if let Body::Tunnel(tunnel) = body {
        // The answer to an extended CONNECT is 200, not 101 (RFC 8441).
        *head.status_mut() = http::StatusCode::OK;
        head.headers_mut().remove(header::CONNECTION);
        head.headers_mut().remove(header::UPGRADE);
        let ended = match (respond.send_response(head, false), from_client) {
            (Ok(out), Some(from_client)) => {
                stream.head_written(wire as u64, headers);
                tunnel_copy(from_client, Outgoing::new(out), *tunnel, &mut stream).await
            }
            _ => Ended::Downstream,
        };
        stream.finish(ended);
        return;
    }
    let end = is_head || body.is_end();
    let out = respond.send_response(head, end);
    let Ok(out) = out else {
        stream.finish(Ended::Downstream);
        return;
    };
    stream.head_written(wire as u64, headers);
    if end {
        stream.finish(Ended::Complete);
        return;
    }
    let mut out = Outgoing::new(out);
    let mut pending: Option<Bytes> = None;
    let ended = poll_fn(|cx| {
        loop {
            if let Some(data) = &mut pending {
                match out.poll_write(cx, data, body.is_end()) {
                    Poll::Ready(Ok(n)) => {
                        stream.body_bytes(n as u64);
                        data.advance(n);
                        if data.is_empty() {
                            pending = None;
                        }
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Downstream),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    if !data.is_empty() {
                        pending = Some(data);
                    }
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    stream.trailers(&trailers);
                    return Poll::Ready(match out.trailers(trailers) {
                        Ok(()) => Ended::Complete,
                        Err(_) => Ended::Downstream,
                    });
                }
                Poll::Ready(None) => {
                    return Poll::Ready(match out.end() {
                        Ok(()) => Ended::Complete,
                        Err(_) => Ended::Downstream,
                    });
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Ended::Upstream(error));
                }
                Poll::Pending => return out.poll_reset(cx).map(|()| Ended::Reset),
            }
        }
    })
    .await;
    if matches!(ended, Ended::Upstream(_)) {
        // A reset overtakes what is queued: the head goes first, if the connection lets it.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        out.reset(Reason::INTERNAL_ERROR);
    }
    stream.finish(ended);
}

/// Carries an upgraded stream: bytes in both directions until the upstream ends it.
async fn tunnel_copy(
    mut from_client: Incoming,
    mut to_client: Outgoing,
    mut tunnel: crate::body::Tunnel,
    stream: &mut crate::http::message::Stream,
) -> Ended {
    let mut up: Option<Bytes> = None;
    let mut down: Option<Bytes> = None;
    let (mut client_ended, mut shut, mut server_ended) = (false, false, false);
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if up.is_none() && !client_ended {
                match from_client.poll_frame(cx) {
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        progress = true;
                        up = Some(data).filter(|data| !data.is_empty());
                    }
                    Poll::Ready(Some(Ok(Frame::Trailers(_))) | None) => {
                        progress = true;
                        client_ended = true;
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Ended::Downstream),
                    Poll::Pending => {}
                }
            }
            if let Some(data) = &mut up {
                match tunnel.poll_write(cx, data) {
                    Poll::Ready(Ok(n)) => {
                        progress = true;
                        stream.tunnel_received(n as u64);
                        data.advance(n);
                        if data.is_empty() {
                            up = None;
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Upstream(BodyError::Closed)),
                    Poll::Pending => {}
                }
            } else if client_ended && !shut && tunnel.poll_shutdown(cx).is_ready() {
                shut = true;
                progress = true;
            }
            if down.is_none() && !server_ended {
                match tunnel.poll_read(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        progress = true;
                        down = Some(data).filter(|data| !data.is_empty());
                    }
                    Poll::Ready(None) => {
                        progress = true;
                        server_ended = true;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        to_client.reset(Reason::CONNECT_ERROR);
                        return Poll::Ready(Ended::Upstream(error));
                    }
                    Poll::Pending => {}
                }
            }
            if let Some(data) = &mut down {
                match to_client.poll_write(cx, data, false) {
                    Poll::Ready(Ok(n)) => {
                        progress = true;
                        stream.body_bytes(n as u64);
                        data.advance(n);
                        if data.is_empty() {
                            down = None;
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Downstream),
                    Poll::Pending => {}
                }
            } else if server_ended {
                return Poll::Ready(match to_client.end() {
                    Ok(()) => Ended::Complete,
                    Err(_) => Ended::Downstream,
                });
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn join_cookies(headers: &mut http::HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = http::HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}
