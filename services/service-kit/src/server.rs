//! Running a service: routes in, a process that starts, answers and ends as a cluster expects.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Error, Identity, Json, Operation, fault, openapi};

/// How long requests are still taken after SIGTERM: that long it may take until every caller, in both clusters, knows that the pod
/// goes. A second signal cuts it short.
const LINGER: Duration = Duration::from_secs(2);

/// How long requests in flight may take after that.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A service, ready to be served.
pub struct Service {
    /// Who answers.
    pub identity: Identity,
    /// Its routes.
    pub routes: Router,
    /// Its OpenAPI document, served at `/openapi.json`.
    pub openapi: Value,
}

impl Service {
    /// The service with a switch at `/fault` that makes this one pod fail for real.
    #[must_use]
    pub fn with_fault_switch(mut self) -> Self {
        let (operations, schemas) = fault::described();
        openapi::extend(&mut self.openapi, &operations, schemas);
        self.routes = fault::with_switch(self.routes);
        self
    }

    /// The routes with everything every service has: `/healthz` and `/readyz`, `/openapi.json`, JSON
    /// errors for unknown paths and verbs, routing headers, and a log line for each request.
    pub fn into_router(mut self) -> Router {
        let (operations, schemas) = health();
        openapi::extend(&mut self.openapi, &operations, schemas);
        let openapi = Arc::new(self.openapi);
        let identity = Arc::new(Headers::of(&self.identity));
        self.routes
            .route("/healthz", get(alive))
            .route("/readyz", get(alive))
            .route(
                "/openapi.json",
                get(move || {
                    let openapi = openapi.clone();
                    async move { Json((*openapi).clone()) }
                }),
            )
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_verb)
            .layer(middleware::from_fn_with_state(identity, sign_and_log))
    }
}

/// Both health endpoints: the process answers. Neither asks the store, because to take every pod out
/// of the mesh when the store is away would turn a clear 503 into "no healthy upstream".
async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The health endpoints in the OpenAPI document.
fn health() -> ([Operation; 2], Value) {
    let endpoint = |path, summary| Operation {
        verb: "get",
        path,
        summary,
        request: None,
        answer: (200, "Health"),
        errors: &[],
    };
    let operations = [
        endpoint("/healthz", "Whether the process is alive"),
        endpoint("/readyz", "Whether it takes requests"),
    ];
    let schemas = json!({"Health": {"type": "object", "required": ["status"],
        "properties": {"status": {"type": "string"}}}});
    (operations, schemas)
}

/// Marks an answer that another server gave: it is passed on as it came, unsigned. An answer of the
/// mesh itself (no healthy upstream, an injected fault) came from no pod, and must not claim to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded;

async fn no_such_path(request: Request) -> Error {
    Error::NotFound(format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_verb(method: Method) -> Error {
    Error::MethodNotAllowed {
        method: method.to_string(),
    }
}

struct Headers {
    service: HeaderValue,
    cluster: HeaderValue,
    pod: HeaderValue,
}

impl Headers {
    fn of(identity: &Identity) -> Self {
        let value = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self {
            service: value(&identity.service),
            cluster: value(&identity.cluster),
            pod: value(&identity.pod),
        }
    }
}

/// Says on every answer who gave it, unless it is a [`Forwarded`] one, and logs the request.
async fn sign_and_log(
    State(identity): State<Arc<Headers>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // What ties this line to those of other services and to the trace.
    let [request_id, traceparent] = ["x-request-id", "traceparent"].map(|name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(ToOwned::to_owned)
    });
    let mut response = next.run(request).await;
    if response.extensions().get::<Forwarded>().is_none() {
        let headers = response.headers_mut();
        headers.insert("x-service-cluster", identity.cluster.clone());
        headers.insert("x-pod-name", identity.pod.clone());
        headers.insert("x-service-name", identity.service.clone());
    }
    // Health checks of every few seconds would bury everything else.
    if !matches!(path.as_str(), "/healthz" | "/readyz") {
        let status = response.status().as_u16();
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(%method, path, status, ms, request_id, traceparent, "request");
    }
    response
}

/// Serves until some time after SIGTERM, or until SIGINT, then lets requests in flight finish.
///
/// # Errors
/// When the port cannot be bound.
pub async fn serve(service: Service, port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on port {port}: {error}"))?;
    let name = service.identity.service.clone();
    // The port that was asked for, or the one the system chose for port 0.
    let port = listener.local_addr()?.port();
    tracing::info!(service = name, port, "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, service.into_router()).with_graceful_shutdown(async move {
        tokio::select! {
            _ = terminate.recv() => tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            _ = interrupt.recv() => {}
        }
        let _ = ended.send(());
    });
    tokio::select! {
        result = server.into_future() => result?,
        () = async {
            if end.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(DRAIN_LIMIT).await;
        } => tracing::warn!("requests still in flight after {DRAIN_LIMIT:?}"),
    }
    tracing::info!(service = name, "stopped");
    Ok(())
}

/// The `main` of a service: logs to standard output, a small runtime, exit code 1 on failure.
pub fn run(service: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let format = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO);
    // Already set when a test runs two services in one process.
    let _ = format.try_init();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(service) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An answer with status 201, where the new thing is (header `Location`), and the thing itself.
#[must_use]
pub fn created<T: serde::Serialize>(path: &str, document: T) -> Response {
    let mut response = Json(document).into_response();
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// The port to listen on: `PORT`, else the service's own.
///
/// # Errors
/// When `PORT` is not a port number. Port 0 means any free port; the log says which.
pub fn port(variable: impl Fn(&str) -> Option<String>, default: u16) -> anyhow::Result<u16> {
    match variable("PORT").filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| anyhow::anyhow!("PORT {text:?} is not a port number")),
    }
}
