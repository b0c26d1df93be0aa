//! A switch that makes one pod fail for real, so that ejection, retries and recovery can be watched.
//! Health endpoints and the switch itself go on answering: the pod stays in the mesh, and can be mended.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Error, Json, Operation};

/// How a pod behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// As it should.
    Off,
    /// Every request is answered with 500.
    Error,
    /// No request is answered until the mode changes.
    Hang,
}

/// What `/fault` takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Fault {
    mode: Mode,
}

type Switch = Arc<watch::Sender<Mode>>;

/// The routes with the switch at `/fault`, which rules them all but itself.
pub fn with_switch(routes: Router) -> Router {
    let switch: Switch = Arc::new(watch::Sender::new(Mode::Off));
    let endpoint = Router::new()
        .route("/fault", get(report).post(turn))
        .with_state(switch.clone());
    routes
        .layer(middleware::from_fn_with_state(switch, obey))
        .merge(endpoint)
}

async fn report(State(switch): State<Switch>) -> Json<Fault> {
    let mode = *switch.borrow();
    Json(Fault { mode })
}

async fn turn(State(switch): State<Switch>, Json(fault): Json<Fault>) -> Json<Fault> {
    tracing::warn!(mode = ?fault.mode, "fault switch");
    switch.send_replace(fault.mode);
    Json(fault)
}

async fn obey(State(switch): State<Switch>, request: Request, next: Next) -> Response {
    let mut mode = switch.subscribe();
    // Never an error: the sender is in `switch`.
    let _ = mode.wait_for(|mode| *mode != Mode::Hang).await;
    if *mode.borrow() == Mode::Error {
        let message = "this pod was told to fail; POST /fault {\"mode\":\"off\"} to it ends that";
        return Error::Internal(message.into()).into_response();
    }
    next.run(request).await
}

/// What the switch adds to a service's OpenAPI document: operations and schemas.
pub fn described() -> ([Operation; 2], Value) {
    let operations = [
        Operation {
            verb: "get",
            path: "/fault",
            summary: "Whether this pod fails on purpose",
            request: None,
            answer: (200, "Fault"),
            errors: &[],
        },
        Operation {
            verb: "post",
            path: "/fault",
            summary: "Make this one pod fail for real: answer 500, or not at all",
            request: Some("Fault"),
            answer: (200, "Fault"),
            errors: &[400, 413, 415],
        },
    ];
    let schemas = json!({"Fault": {"type": "object", "required": ["mode"], "properties": {
        "mode": {"type": "string", "enum": [Mode::Off, Mode::Error, Mode::Hang]}}}});
    (operations, schemas)
}
