//! api-gateway: the one entry of the theater. A plain proxy for `/users`, `/movies` and `/bookings` (it never
//! chooses a cluster: the mesh does), the web page, and what the page shows about both clusters, read
//! from their Kubernetes APIs at that moment.

mod clusters;
mod history;
mod kube;
mod page;
mod pods;
mod proxy;
mod topology;
mod weights;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::{any, get};
use serde_json::{Value, json};
use service_kit::{Error, Identity, Json, Operation, Result, Service, document};

use crate::clusters::Clusters;
use crate::history::History;
use crate::page::Page;
use crate::proxy::Proxy;

/// The port the service listens on unless `PORT` says otherwise.
pub const PORT: u16 = 8080;

/// What the handlers share.
pub struct Gateway {
    proxy: Proxy,
    clusters: Clusters,
    history: History,
    page: Page,
}

/// The routes of the gateway.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    let mut router = Router::new()
        .route("/", get(page::index))
        .route("/ui/{*file}", get(page::file))
        .route("/traffic-weights", get(traffic_weights))
        .route("/traffic-history", get(traffic_history))
        .route("/deployment-status", get(deployment_status))
        .route("/topology", get(topology));
    for prefix in proxy::PREFIXES {
        router = router
            .route(&format!("/{prefix}"), any(proxy::forward))
            .route(&format!("/{prefix}/"), any(proxy::forward))
            .route(&format!("/{prefix}/{{*rest}}"), any(proxy::forward));
    }
    router.with_state(gateway)
}

async fn traffic_weights(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(gateway.clusters.weights().await)
}

async fn deployment_status(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(gateway.clusters.deployments(SystemTime::now()).await)
}

async fn topology(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(gateway.clusters.topology().await)
}

/// `?last=10` asks for fewer than all that are remembered.
async fn traffic_history(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Result<Json<Value>> {
    let last = uri.query().and_then(|query| query.strip_prefix("last="));
    let last = last.map_or(Ok(history::REMEMBERED), str::parse);
    let last = last.map_err(|_| Error::BadRequest("last is not a number".into()))?;
    Ok(Json(gateway.history.report(last)))
}

/// The gateway's own OpenAPI document; those of the services are at the services.
fn openapi() -> Value {
    let show = |path, summary| Operation {
        verb: "get",
        path,
        summary,
        request: None,
        answer: (200, "Object"),
        errors: &[],
    };
    let operations = [
        show(
            "/traffic-weights",
            "Weights configured in the VirtualServices",
        ),
        show("/traffic-history", "Where the last requests were routed"),
        show("/deployment-status", "Pods of both clusters"),
        show(
            "/topology",
            "Clusters, services and the gateways between them",
        ),
    ];
    document(
        "api-gateway",
        &operations,
        json!({"Object": {"type": "object"}}),
    )
}

/// Runs the gateway until it is told to end. Environment: `PORT`, `USER_SERVICE_URL`, `MOVIE_SERVICE_URL`,
/// `BOOKING_SERVICE_URL`, `REMOTE_KUBECONFIG` (the other cluster), `KUBECONFIG` (the own cluster, for a gateway
/// outside of it), `UI_DIR`, `CLUSTER_NAME`, `HOSTNAME`.
pub fn main() -> ExitCode {
    service_kit::run(async {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.into());
        let port = service_kit::port(variable, PORT)?;
        let identity = Identity::from_environment("api-gateway", variable);
        let gateway = Gateway {
            proxy: Proxy::new([
                address("USER_SERVICE_URL", "http://user-service:8081"),
                address("MOVIE_SERVICE_URL", "http://movie-service:8082"),
                address("BOOKING_SERVICE_URL", "http://booking-service:8083"),
            ])?,
            clusters: Clusters::new(
                &identity.cluster,
                variable("KUBECONFIG").map(Into::into),
                variable("REMOTE_KUBECONFIG").map(Into::into),
            ),
            history: History::new(),
            page: Page::new(variable("UI_DIR").map(Into::into)),
        };
        let service = Service {
            identity,
            routes: routes(Arc::new(gateway)),
            openapi: openapi(),
        };
        service_kit::serve(service, port).await
    })
}
