//! HTTP endpoints beside the mesh protocols: readiness, version, and what istioctl and people ask a
//! control plane (`/debug/*`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio::sync::watch;

use crate::ISTIO_VERSION;
use crate::ads::stream::Connections;
use crate::clusters::Clusters;
use crate::status;
use crate::world::Mesh;

/// What the endpoints show.
#[derive(Clone)]
pub struct Debug {
    /// The current version of the mesh.
    pub worlds: watch::Receiver<Option<Arc<Mesh>>>,
    /// The connected proxies.
    pub connections: Arc<Connections>,
    /// The clusters that are watched.
    pub clusters: Arc<Clusters>,
}

/// The routes.
pub fn routes(debug: Debug) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/debug/connections", get(connections))
        .route("/debug/syncz", get(syncz))
        .route("/debug/clusterz", get(clusterz))
        .fallback(elsewhere)
        .with_state(debug)
}

/// As Go's servers: a path with doubled slashes is sent to where it means. istioctl asks for `//version`.
async fn elsewhere(uri: Uri) -> Response {
    if !uri.path().contains("//") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let parts: Vec<&str> = uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let query = uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let location = format!("/{}{query}", parts.join("/"));
    (StatusCode::MOVED_PERMANENTLY, [(LOCATION, location)]).into_response()
}

async fn ready(State(debug): State<Debug>) -> (StatusCode, &'static str) {
    if debug.worlds.borrow().is_some() {
        (StatusCode::OK, "")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the clusters to be read\n",
        )
    }
}

/// `VERSION-REVISION-STATUS`, the form `istioctl version` takes apart.
async fn version() -> String {
    format!(
        "{ISTIO_VERSION}-theater_{}-Clean",
        env!("CARGO_PKG_VERSION")
    )
}

async fn connections(State(debug): State<Debug>) -> Json<Value> {
    let connections = debug.connections.list();
    Json(status::connections(&connections.iter().collect::<Vec<_>>()))
}

/// What `istioctl remote-clusters` reads.
async fn clusterz(State(debug): State<Debug>) -> Json<Value> {
    Json(Value::Array(debug.clusters.statuses()))
}

async fn syncz(State(debug): State<Debug>) -> Json<Value> {
    Json(
        debug
            .connections
            .list()
            .iter()
            .map(status::sync_status)
            .collect(),
    )
}
