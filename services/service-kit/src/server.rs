//! Running a service: routes in, a process that starts, answers and ends as a cluster expects.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Error, Identity, Json};

/// How long requests in flight may take after SIGTERM.
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
    /// The routes with everything every service has: `/healthz` and `/readyz`, `/openapi.json`, JSON
    /// errors for unknown paths and verbs, routing headers, and a log line for each request.
    pub fn into_router(self) -> Router {
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

async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

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

/// Says on every answer who gave it, unless another service already did (the gateway passes
/// answers through), and logs the request.
async fn sign_and_log(
    State(identity): State<Arc<Headers>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-service-cluster", &identity.cluster),
        ("x-pod-name", &identity.pod),
        ("x-service-name", &identity.service),
    ] {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    // Health checks of every few seconds would bury everything else.
    if !matches!(path.as_str(), "/healthz" | "/readyz") {
        let status = response.status().as_u16();
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(%method, path, status, ms, "request");
    }
    response
}

/// Serves until SIGTERM, then lets requests in flight finish.
///
/// # Errors
/// When the port cannot be bound.
pub async fn serve(service: Service, port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on port {port}: {error}"))?;
    let name = service.identity.service.clone();
    tracing::info!(service = name, port, "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, service.into_router()).with_graceful_shutdown(async move {
        tokio::select! {
            _ = terminate.recv() => {}
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

/// An answer with status 201 and a JSON body.
#[must_use]
pub fn created<T: serde::Serialize>(document: T) -> Response {
    let mut response = Json(document).into_response();
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// The port to listen on: `PORT`, else the service's own.
///
/// # Errors
/// When `PORT` is not a port number.
pub fn port(variable: impl Fn(&str) -> Option<String>, default: u16) -> anyhow::Result<u16> {
    match variable("PORT").filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| anyhow::anyhow!("PORT {text:?} is not a port number")),
    }
}
