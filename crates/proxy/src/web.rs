//! A small HTTP server for the admin interface and the agent.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use runtime::CancellationToken;

/// A request.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, slashes in a row made one.
    pub path: String,
    /// The parameters of the query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub peer: std::net::SocketAddr,
}

impl Request {
    /// The first parameter of this name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether there is a parameter of this name that is not `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.param(name)
            .is_some_and(|value| value != "false" && value != "0")
    }
}

/// An answer.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Answer {
    /// Text with this status.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=UTF-8",
            body: Bytes::from(body.into()),
            headers: Vec::new(),
        }
    }

    /// Text with status 200.
    pub fn ok(body: impl Into<String>) -> Self {
        Self::text(StatusCode::OK, body)
    }

    /// JSON with status 200, indented by one space as Envoy does.
    pub fn json(value: &serde_json::Value) -> Self {
        let mut body = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut body, formatter);
        if serde::Serialize::serialize(value, &mut serializer).is_err() {
            return Self::text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write JSON");
        }
        body.push(b'\n');
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body: body.into(),
            headers: Vec::new(),
        }
    }
}

/// Serves until the token is cancelled. Must be called inside of a runtime.
///
/// # Errors
/// When the socket cannot be used.
pub fn serve<H, F>(
    socket: std::net::TcpListener,
    stop: CancellationToken,
    handler: H,
) -> std::io::Result<()>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let handler = Arc::new(handler);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                continue;
            };
            let handler = handler.clone();
            let stop = stop.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(
                    move |request: http::Request<hyper::body::Incoming>| {
                        let handler = handler.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            // Nothing here needs a body; it is read so that the connection can be kept.
                            let _ = Limited::new(body, 1 << 20).collect().await;
                            let request = Request {
                                method: parts.method,
                                path: single_slashes(parts.uri.path()),
                                query: query(parts.uri.query().unwrap_or_default()),
                                headers: parts.headers,
                                peer,
                            };
                            Ok::<_, Infallible>(response(handler(request).await))
                        }
                    },
                );
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = stop.run_until_cancelled(serving).await;
            });
        }
    });
    Ok(())
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(answer.content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

fn single_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// The parameters of a query, decoded, in order.
pub fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    dataplane::request::percent_decoded(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            query("a=b%20c&d&e=%7C+x"),
            [
                ("a".into(), "b c".into()),
                ("d".into(), String::new()),
                ("e".into(), "| x".into())
            ]
        );
        assert_eq!(single_slashes("//version"), "/version");
    }
}
