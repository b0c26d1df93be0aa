//! What a sidecar does to the gateway's requests, as a test wants it: each request takes the next of some
//! given ways.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::{Router, extract::State};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Way {
    /// It goes to the service at this port.
    To(u16),
    /// It goes there after a while: an injected delay.
    Late(u16, Duration),
    /// It is answered as Envoy does for an injected abort.
    Abort,
    /// It is answered as Envoy does when no endpoint is left.
    NoUpstream,
}

#[derive(Debug, Default)]
struct Plan {
    ways: Vec<Way>,
    next: usize,
}

/// A stand-in for the mesh between the gateway and one service.
pub struct Mesh {
    plan: Arc<Mutex<Plan>>,
    port: u16,
}

impl Mesh {
    pub async fn start(ways: Vec<Way>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::new(Mutex::new(Plan { ways, next: 0 }));
        let app = Router::new().fallback(take).with_state(plan.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { plan, port }
    }

    /// From now on requests take these ways in turn.
    pub fn plan(&self, ways: Vec<Way>) {
        *self.plan.lock().unwrap() = Plan { ways, next: 0 };
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn take(State(plan): State<Arc<Mutex<Plan>>>, request: Request<Body>) -> Response<Body> {
    let way = {
        let mut plan = plan.lock().unwrap();
        plan.next += 1;
        plan.ways[(plan.next - 1) % plan.ways.len()].clone()
    };
    match way {
        Way::Abort => (StatusCode::SERVICE_UNAVAILABLE, "fault filter abort").into_response(),
        Way::NoUpstream => (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream").into_response(),
        Way::To(port) => forward(port, request).await,
        Way::Late(port, delay) => {
            tokio::time::sleep(delay).await;
            forward(port, request).await
        }
    }
}

async fn forward(port: u16, mut request: Request<Body>) -> Response<Body> {
    let path = request.uri().path_and_query().expect("a path").clone();
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(format!("127.0.0.1:{port}"))
        .path_and_query(path)
        .build()
        .expect("an address");
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    match client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}
