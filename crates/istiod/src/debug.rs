//! HTTP endpoints beside the mesh protocols: readiness, version, and what istioctl and people ask a
//! control plane (`/debug/*`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;
use xds::type_url;

use crate::ISTIO_VERSION;
use crate::ads::stream::{ConnectionStatus, Connections};
use crate::clusters::Clusters;
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
    let clients: Vec<Value> = debug
        .connections
        .list()
        .iter()
        .map(|connection| json!({"connectionId": connection.node}))
        .collect();
    Json(json!({"totalClients": clients.len(), "clients": clients}))
}

/// What `istioctl remote-clusters` reads.
async fn clusterz(State(debug): State<Debug>) -> Json<Value> {
    Json(Value::Array(debug.clusters.statuses()))
}

async fn syncz(State(debug): State<Debug>) -> Json<Value> {
    Json(debug.connections.list().iter().map(sync_status).collect())
}

/// One proxy in the form `istioctl proxy-status` reads.
fn sync_status(connection: &ConnectionStatus) -> Value {
    let name = connection.node.split('~').nth(2).unwrap_or_default();
    let mut status = json!({
        "cluster_id": connection.cluster,
        "proxy": name,
        "proxy_type": if connection.proxy.is_router() { "router" } else { "sidecar" },
        "istio_version": connection.version,
    });
    for of_type in &connection.types {
        let name = match of_type.type_url.as_str() {
            type_url::CLUSTER => "cluster",
            type_url::ENDPOINT => "endpoint",
            type_url::LISTENER => "listener",
            type_url::ROUTE => "route",
            _ => continue,
        };
        status[format!("{name}_sent")] = of_type.sent.clone().into();
        status[format!("{name}_acked")] = of_type.acked.clone().into();
    }
    status
}
