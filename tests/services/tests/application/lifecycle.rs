//! A process in a cluster: it is asked whether it is well, told to fail, and told to end.

use std::time::Duration;

use crate::harness::Theater;
use crate::harness::http::{get, post, try_send};
use crate::harness::process::{Process, Redis};
use axum::body::Body;
use axum::http::Request;

#[tokio::test]
async fn health_endpoints_answer_without_a_store_and_stay_out_of_the_log() {
    let users = Process::service("user-service", &[("REDIS_URL", "127.0.0.1:1")]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&users.url(path)).await.status, 200);
    }
    get(&users.url("/users/")).await.error(503);
    users
        .logged("the refusal is logged", |line| {
            line["path"] == "/users/" && line["status"] == 503
        })
        .await;
    let log = users.log();
    assert!(
        log.iter().all(|line| line["path"] != "/healthz"),
        "seen {log:?}"
    );
}

#[tokio::test]
async fn a_pod_told_to_fail_fails_for_real_and_stays_healthy() {
    let theater = Theater::start().await;
    for (service, path) in [
        (&theater.users, "/users/"),
        (&theater.movies, "/movies/1"),
        (&theater.bookings, "/bookings/"),
    ] {
        let fault = service.url("/fault");
        let mode = async || {
            get(&fault).await.json()["mode"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let before = get(&service.url(path)).await.status;
        assert_eq!(mode().await, "off");
        let message = post(&fault, r#"{"mode":"sleep"}"#).await.error(400);
        assert!(
            message.contains("mode") && message.contains("hang"),
            "seen {message}"
        );

        assert_eq!(post(&fault, r#"{"mode":"error"}"#).await.status, 200);
        assert!(
            get(&service.url(path))
                .await
                .error(500)
                .contains("told to fail")
        );
        assert!(get(&service.url(path)).await.header("x-pod-name").is_some());
        assert_eq!(mode().await, "error");

        post(&fault, r#"{"mode":"hang"}"#).await;
        let url = service.url(path);
        let hanging = tokio::spawn(async move { get(&url).await.status });
        tokio::time::timeout(Duration::from_millis(300), async {
            loop {
                assert_eq!(get(&service.url("/healthz")).await.status, 200);
                assert_eq!(get(&service.url("/readyz")).await.status, 200);
            }
        })
        .await
        .expect_err("it is asked again and again");
        assert!(!hanging.is_finished(), "it was answered");

        // Whoever waits is answered as soon as the pod is well again.
        post(&fault, r#"{"mode":"off"}"#).await;
        assert_eq!(hanging.await.unwrap(), before);
        let document = get(&service.url("/openapi.json")).await.json();
        assert!(document["paths"]["/fault"]["post"].is_object());
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_process_ends() {
    let redis = Redis::start().await;
    let mut users = Process::service("user-service", &[("REDIS_URL", &redis.address())]);
    // The request is in flight: its body is not complete.
    let (mut sender, body) =
        futures::channel::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let request = Request::post(users.url("/users/"))
        .body(Body::from_stream(body))
        .unwrap();
    let answer = tokio::spawn(try_send(request));
    sender.try_send(Ok(r#"{"name":"유관순","#)).unwrap();
    // It has arrived once a later one has been answered.
    get(&users.url("/users/")).await;
    users.terminate();
    crate::harness::until("no new connection is taken", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", users.port))
            .await
            .is_err()
            .then_some(())
    })
    .await;
    sender.try_send(Ok(r#""email":"yu@example.com"}"#)).unwrap();
    drop(sender);
    assert_eq!(answer.await.unwrap().expect("an answer").status, 201);
    assert!(users.ended().await.success());
    users
        .logged("it says that it stopped", |line| {
            line["message"] == "stopped"
        })
        .await;
}

#[tokio::test]
async fn an_idle_connection_does_not_keep_a_process_from_ending() {
    let mut users = Process::service("user-service", &[("REDIS_URL", "127.0.0.1:1")]);
    let _idle = tokio::net::TcpStream::connect(("127.0.0.1", users.port))
        .await
        .unwrap();
    get(&users.url("/healthz")).await;
    let started = std::time::Instant::now();
    users.terminate();
    assert!(users.ended().await.success());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it waited for nothing"
    );
}
