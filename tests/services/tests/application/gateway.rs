//! The proxy part of the gateway (spec A01, A06).

use axum::body::Body;
use axum::http::Request;
use axum::routing::{get as route_get, post as route_post};
use axum::{Json, Router};
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::json;

use crate::harness::http::{get, send};
use crate::harness::mesh::{Mesh, Way};
use crate::harness::process::{Process, Redis};

async fn upstream(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn gateway_to(users: &str) -> Process {
    Process::service("api-gateway", &[("USER_SERVICE_URL", users)])
}

#[tokio::test]
async fn large_bodies_flow_through_both_ways() {
    const SIZE: usize = 64 * 1024 * 1024;
    let app = Router::new()
        .route(
            "/users/count",
            route_post(async |body: Body| {
                let sizes = body.into_data_stream().map(|part| part.unwrap().len());
                sizes
                    .fold(0, async |sum, size| sum + size)
                    .await
                    .to_string()
            }),
        )
        .route(
            "/users/large",
            route_get(async || {
                let part = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
                let parts = std::iter::repeat_n(part, SIZE / (64 * 1024));
                Body::from_stream(futures::stream::iter(parts.map(Ok::<_, std::io::Error>)))
            }),
        );
    let gateway = gateway_to(&upstream(app).await);
    let part = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let parts = futures::stream::iter(
        (0..SIZE / part.len()).map(move |_| Ok::<_, std::io::Error>(part.clone())),
    );
    let request = Request::post(gateway.url("/users/count")).body(Body::from_stream(parts));
    assert_eq!(send(request.unwrap()).await.text(), SIZE.to_string());
    assert_eq!(get(&gateway.url("/users/large")).await.body.len(), SIZE);
    let peak = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let peak = peak
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap()
        .to_owned();
    let kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < SIZE / 1024 / 2, "a body was held in memory: {peak}");
}

#[tokio::test]
async fn the_first_bytes_arrive_before_the_last_are_sent() {
    let (sender, receiver) =
        futures::channel::mpsc::unbounded::<Result<&'static str, std::io::Error>>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let app = Router::new().route(
        "/users/stream",
        route_get(async move || Body::from_stream(receiver.lock().unwrap().take().unwrap())),
    );
    let gateway = gateway_to(&upstream(app).await);
    sender.unbounded_send(Ok("first")).unwrap();
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Body>();
    let mut response = client
        .get(gateway.url("/users/stream").parse().unwrap())
        .await
        .unwrap();
    let first = response
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(&first[..], b"first");
    sender.unbounded_send(Ok("last")).unwrap();
    drop(sender);
    assert_eq!(&response.collect().await.unwrap().to_bytes()[..], b"last");
}

#[tokio::test]
async fn a_request_goes_on_as_it_came() {
    let app = Router::new().fallback(async |request: Request<Body>| {
        let headers: serde_json::Map<_, _> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        Json(json!({"method": request.method().as_str(), "uri": request.uri().to_string(), "headers": headers}))
    });
    let upstream = upstream(app).await;
    let gateway = gateway_to(&upstream);
    let request = Request::delete(gateway.url("/users/a%20b/c?x=1&y=%2F"))
        .header("x-canary", "true")
        .header("x-request-id", "r")
        .header("b3", "1-2-1")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .body(Body::empty());
    let seen = send(request.unwrap()).await.json();
    assert_eq!(seen["method"], "DELETE");
    assert_eq!(seen["uri"], "/users/a%20b/c?x=1&y=%2F");
    for (name, value) in [("x-canary", "true"), ("x-request-id", "r"), ("b3", "1-2-1")] {
        assert_eq!(seen["headers"][name], value);
    }
    // The mesh chooses by the name of the service, so that is the host.
    assert_eq!(
        seen["headers"]["host"],
        upstream.trim_start_matches("http://")
    );
    assert!(seen["headers"].get("x-mine").is_none());
}

#[tokio::test]
async fn a_service_that_is_away_is_502_and_remembered() {
    let gateway = gateway_to("http://127.0.0.1:1");
    let answer = get(&gateway.url("/users/")).await;
    let message = answer.error(502);
    assert!(
        message.contains("users") && message.contains("refused"),
        "seen {message}"
    );
    assert_eq!(answer.header("x-service-name"), Some("api-gateway"));
    let history = get(&gateway.url("/traffic-history")).await.json();
    assert_eq!(history["users"]["requests"][0]["status"], 502);
    assert!(history["users"]["requests"][0]["cluster"].is_null());
}

#[tokio::test]
async fn an_answer_of_the_mesh_claims_no_pod_and_the_history_counts_clusters() {
    let redis = Redis::start().await;
    let address = redis.address();
    let replica = |cluster| {
        Process::service(
            "user-service",
            &[("REDIS_URL", &address), ("CLUSTER_NAME", cluster)],
        )
    };
    let (one, two) = (replica("ctx1"), replica("ctx2"));
    let mesh = Mesh::start(vec![
        Way::To(one.port),
        Way::To(two.port),
        Way::NoUpstream,
        Way::To(one.port),
    ])
    .await;
    let gateway = gateway_to(&mesh.url());
    for _ in 0..40 {
        let answer = get(&gateway.url("/users/")).await;
        assert_eq!(
            answer.status == 503,
            answer.header("x-service-cluster").is_none(),
            "seen {answer:?}"
        );
    }
    let history = get(&gateway.url("/traffic-history?last=4")).await.json();
    assert_eq!(
        history["users"]["clusters"],
        json!({"ctx1": 20, "ctx2": 10})
    );
    assert_eq!(history["users"]["requests"].as_array().unwrap().len(), 4);
    get(&gateway.url("/traffic-history?last=x"))
        .await
        .error(400);
}
