//! An API server made of a list of prepared answers.
#![allow(dead_code, missing_docs)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// What a watch that shall begin with the present state has in its query.
pub const INITIAL_EVENTS: &str = "sendInitialEvents=true";

pub type Body = BoxBody<Bytes, Infallible>;

/// What the server saw of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: http::Version,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: Value,
}

pub type Handler = dyn Fn(&Seen) -> Response<Body> + Send + Sync;

pub struct Server {
    pub url: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(tls: Option<rustls::ServerConfig>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, handler, log) = (acceptor.clone(), handler.clone(), log.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (handler, log) = (handler.clone(), log.clone());
                        async move {
                            let seen = look(request).await;
                            log.lock().unwrap().push(seen.clone());
                            Ok::<_, Infallible>(handler(&seen))
                        }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    match acceptor {
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(tcp).await else {
                                return;
                            };
                            let _ = server.serve_connection(TokioIo::new(stream), service).await;
                        }
                        None => {
                            let _ = server.serve_connection(TokioIo::new(tcp), service).await;
                        }
                    }
                });
            }
        });
        Self { url, seen }
    }

    /// Answers from a list, in order; requests beyond it get 500. Watches that shall begin with the present state are refused,
    /// as servers before 1.32 do, and do not count.
    pub async fn scripted(answers: Vec<Response<Body>>) -> Self {
        let answers = Mutex::new(VecDeque::from(answers));
        let handler = move |seen: &Seen| {
            if seen.target.contains(INITIAL_EVENTS) {
                return json(
                    422,
                    &serde_json::json!({"kind": "Status", "code": 422, "reason": "Invalid"}),
                );
            }
            let next = answers.lock().unwrap().pop_front();
            next.unwrap_or_else(|| json(500, &serde_json::json!({"kind": "Status", "code": 500, "message": "script is over"})))
        };
        Self::start(None, Arc::new(handler)).await
    }

    pub fn targets(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| !seen.target.contains(INITIAL_EVENTS))
            .map(|seen| format!("{} {}", seen.method, seen.target))
            .collect()
    }
}

async fn look(request: Request<Incoming>) -> Seen {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let mut seen = Seen {
        method: request.method().to_string(),
        target: request.uri().path_and_query().unwrap().to_string(),
        version: request.version(),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: Value::Null,
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    seen
}

pub fn json(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    Response::builder().status(code).body(body).unwrap()
}

/// An answer whose chunks are sent by the test; it ends when the sender is dropped.
pub fn stream() -> (mpsc::UnboundedSender<String>, Response<Body>) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let chunks = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    (
        sender,
        Response::new(BodyExt::boxed(StreamBody::new(frames))),
    )
}

/// An answer that is complete and closed.
pub fn events(lines: &[Value]) -> Response<Body> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Response::new(Full::new(Bytes::from(text)).boxed())
}
