//! Connections: TLS, HTTP/1.1 and HTTP/2, and what every request goes through.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authn::{self, User};
use crate::authz::Action;
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, drain, error_answer, for_people, indented};
use crate::state::{Server, unix_now};
use crate::target::{Query, Route, route};
use crate::{aggregation, flow, metrics_api, other, rest, shape};

/// How long a client may take to shake hands.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a connection may wait for the head of its next request: clients keep it open in between, and the real server closes
/// it after as long.
const IDLE: Duration = Duration::from_secs(90);
/// Bytes waiting to be sent on one connection or stream.
const BUFFER: usize = 64 << 10;
/// How long open requests may finish when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Accepts connections until the server stops.
pub(crate) async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            a = listener.accept() => a,
            () = server.shutdown.cancelled() => break,
        };
        let (stream, _) = match accepted {
            Ok(pair) => pair,
            Err(e) => {
                // Out of file descriptors, most likely: give some time to come back.
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (server, acceptor) = (server.clone(), acceptor.clone());
        connections.spawn(async move {
            server.counters.connections.fetch_add(1, Ordering::Relaxed);
            connection(&server, acceptor, stream).await;
            server.counters.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    drop(listener);
    connections.close();
    // Watches end by themselves when the token is cancelled; nobody else is waited for long.
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

async fn connection(server: &Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    // Small answers must not wait for more.
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificate_user = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| authn::certificate_user(chain.first()?))
        .map(Arc::new);
    let service = {
        let server = server.clone();
        service_fn(move |request| {
            let (server, user) = (server.clone(), certificate_user.clone());
            // Boxed: a connection keeps the place of it between requests, and while it watches.
            Box::pin(async move { Ok::<_, Infallible>(answer(&server, user, request).await) })
        })
    };
    // The handshake has settled the protocol, as with Go's server. Looking for it in the first bytes would leave each connection with a
    // buffer of twice the size.
    let two = tls.get_ref().1.alpn_protocol() == Some(pki::tls::HTTP2);
    let io = TokioIo::new(tls);
    let ended = if two {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            // One client keeps a watch per kind on one connection.
            .max_concurrent_streams(4096)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(io, service);
        // Boxed: it is the larger of the two.
        Box::pin(until_stopped(server, connection, |c| c.graceful_shutdown())).await
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(BUFFER);
        let connection = builder.serve_connection(io, service).with_upgrades();
        until_stopped(server, connection, |c| c.graceful_shutdown()).await
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended");
    }
}

/// Serves a connection; when the server stops, until its requests are answered.
async fn until_stopped<C: Future<Output = hyper::Result<()>>>(
    server: &Server,
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
) -> hyper::Result<()> {
    tokio::pin!(connection);
    tokio::select! {
        r = connection.as_mut() => r,
        () = server.shutdown.cancelled() => {
            finish(connection.as_mut());
            connection.await
        }
    }
}

/// Answers one request; failures become `Status` objects.
async fn answer(
    server: &Arc<Server>,
    certificate: Option<Arc<User>>,
    request: http::Request<Incoming>,
) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut request = request;
    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let raw_query = parts.uri.query().unwrap_or("").to_owned();
    let query = Query::parse(&raw_query);
    let route = route(&path);
    let mut class = None;
    let audit = uuid::Uuid::new_v4().to_string();
    let reusable = parts.version < Version::HTTP_2;
    // Somebody who waits to be told to send the body is not told so for nothing.
    let waiting = parts.headers.contains_key(header::EXPECT);
    let unread;
    let mut cut = false;
    let mut out = if other::is_public(&path) {
        unread = Some(body);
        let user = certificate.unwrap_or_else(|| Arc::new(authn::anonymous()));
        let admitted = flow::admit(server, &user, &method, &path, &query, None).await;
        let (known, pass) = taken_apart(admitted);
        class = known;
        match pass {
            Ok(_pass) => other::public(server, &query, &path),
            Err(refusal) => refusal,
        }
    } else {
        match authenticate(server, certificate, &parts.headers) {
            Err(e) => {
                unread = Some(body);
                error_answer(&e)
            }
            Ok(user) => {
                let request = Request {
                    method: parts.method,
                    path: path.clone(),
                    query,
                    raw_query,
                    headers: parts.headers,
                    user,
                    body: Mutex::new(Some(body)),
                    cut: AtomicBool::new(false),
                    upgrade: Mutex::new(upgrade),
                    warnings: Mutex::new(Vec::new()),
                };
                let admitted = flow::admit(
                    server,
                    &request.user,
                    &request.method,
                    &path,
                    &request.query,
                    route.as_ref(),
                )
                .await;
                let (known, pass) = taken_apart(admitted);
                class = known;
                let answer = match pass {
                    // Boxed: a connection that waits, or watches, is not to be as large as the largest request.
                    Ok(_pass) => Box::pin(dispatch(server, &request, route.as_ref()))
                        .await
                        .unwrap_or_else(|e| error_answer(&e)),
                    Err(refusal) => refusal,
                };
                let agent = request.header(header::USER_AGENT);
                let answer = if for_people(&request.query, agent) {
                    indented(answer).await
                } else {
                    answer
                };
                let warnings = std::mem::take(&mut *request.warnings.lock());
                unread = request.body.lock().take();
                cut = request.cut.load(Ordering::Relaxed);
                shape::with_warnings(answer, &warnings)
            }
        }
    };
    if reusable {
        if let Some(body) = unread.filter(|body| !body.is_end_stream()) {
            cut |= waiting || !drain(body).await;
        }
        if cut {
            // Said, so that the client does not send its next request into a connection that ends.
            let close = HeaderValue::from_static("close");
            out.headers_mut().insert(header::CONNECTION, close);
        }
    }
    if let Some(class) = class {
        class.write(&mut out);
    }
    let headers = out.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&audit) {
        headers.insert("audit-id", id);
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    let code = out.status();
    if let Some(Route::Resource(t)) = &route {
        server
            .counters
            .answered(method.as_str(), &t.plural, code.as_u16());
    }
    if code == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(%method, path, "answered 500");
    }
    tracing::debug!(%method, path, code = code.as_u16(), "answered");
    out
}

/// The class of a request, and the seats it holds or the answer that sends it away.
fn taken_apart(
    admitted: Option<flow::Admitted>,
) -> (Option<flow::Class>, Result<Option<flow::Pass>, Answer>) {
    match admitted {
        None => (None, Ok(None)),
        Some(admitted) => (Some(admitted.class), admitted.pass.map(Some)),
    }
}

/// Who is asking: a token, when there is one, else the certificate; then whom they act as.
fn authenticate(
    server: &Arc<Server>,
    certificate: Option<Arc<User>>,
    headers: &http::HeaderMap,
) -> ApiResult<Arc<User>> {
    let user = match (certificate, authn::bearer(headers)) {
        (Some(user), _) => user,
        (None, Some(token)) => match server
            .tokens
            .verify(&server.storage, &token, &[], unix_now())
        {
            Ok(verified) => {
                if let Some(secret) = &verified.secret {
                    authn::note_use(server, secret);
                }
                Arc::new(verified.user)
            }
            Err(why) => {
                tracing::debug!(error = %why, "a token was refused");
                return Err(ApiError::unauthorized());
            }
        },
        (None, None) => return Err(ApiError::unauthorized()),
    };
    let Some(asked) = authn::impersonation(headers)? else {
        return Ok(user);
    };
    for (resource, namespace, name) in asked.checks {
        let (group, resource, subresource, namespace) = match resource {
            // Extra fields are a subresource named by their key.
            "userextras" => ("authentication.k8s.io", resource, namespace, String::new()),
            _ => ("", resource, String::new(), namespace),
        };
        let action = Action::Resource {
            verb: "impersonate".into(),
            group: group.into(),
            resource: resource.into(),
            subresource,
            namespace,
            name,
        };
        server.rights().require(&user, &action)?;
    }
    Ok(Arc::new(asked.user))
}

async fn dispatch(
    server: &Arc<Server>,
    request: &Request,
    route: Option<&Route>,
) -> ApiResult<Answer> {
    let Some(route) = route else {
        return Err(ApiError::bad_request("the path is not validly encoded"));
    };
    // Only what a request is passed on to may know this method.
    let passed_on = matches!(route, Route::Resource(target) if target.subresource == "proxy");
    if request.method == Method::OPTIONS && !passed_on {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    match route {
        Route::Resource(target) => {
            if let Some(remote) = server.aggregator.find(&target.group, &target.version) {
                return aggregation::handle(server, request, target, &remote).await;
            }
            if target.group == metrics_api::GROUP {
                return metrics_api::handle(server, request, target).await;
            }
            rest::handle(server, request, target).await
        }
        Route::Other => match server.aggregator.find_path(&request.path) {
            None => other::handle(server, request),
            Some(remote) => {
                other::authorize(server, request)?;
                aggregation::pass_on(server, request, &remote).await
            }
        },
    }
}
