//! Redis: what is in it, and what happens without it (spec G01 to G03).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http::{get, post};
use crate::harness::process::{Process, Redis};
use crate::harness::{Theater, until};

#[tokio::test]
async fn six_replicas_that_start_together_seed_once() {
    let redis = Redis::start().await;
    let address = redis.address();
    let replicas: Vec<Process> = (0..6)
        .map(|_| Process::service("user-service", &[("REDIS_URL", &address)]))
        .collect();
    // Nobody has asked yet, so nobody has seeded: now all do at the same moment.
    let lists = futures::future::join_all(
        replicas
            .iter()
            .map(|replica| async { get(&replica.url("/users/")).await.json() }),
    )
    .await;
    for list in &lists {
        assert_eq!(list.as_array().unwrap().len(), 3, "seen {list}");
    }
    let additions = replicas.iter().enumerate().map(|(number, replica)| {
        let body = json!({"name": format!("user {number}"), "email": "a@b"}).to_string();
        async {
            post(&replica.url("/users/"), body).await.json()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        }
    });
    let mut ids = futures::future::join_all(additions).await;
    ids.sort();
    assert_eq!(ids, ["4", "5", "6", "7", "8", "9"]);
    // A replica that starts later finds everything as it is.
    drop(replicas);
    let late = Process::service("user-service", &[("REDIS_URL", &address)]);
    for _ in 0..20 {
        assert_eq!(
            get(&late.url("/users/"))
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            9
        );
    }
}

#[tokio::test]
async fn documents_are_json_under_the_keys_of_the_course() {
    let theater = Theater::start().await;
    for service in ["/users/", "/movies/"] {
        get(&theater.gateway.url(service)).await;
    }
    post(
        &theater.gateway.url("/bookings/"),
        r#"{"userId":"1","movieId":"1","seats":1}"#,
    )
    .await;
    for (key, part) in [
        ("user:1", "홍길동"),
        ("movie:3", "기생충"),
        ("booking:1", "\"seats\":[\"A1\"]"),
    ] {
        let answer = theater.redis.command(&format!("GET {key}")).await;
        assert!(answer.contains(part), "{key}: seen {answer}");
    }
}

#[tokio::test]
async fn without_the_store_people_read_what_is_known_and_nobody_writes() {
    let mut theater = Theater::start().await;
    let users = theater.gateway.url("/users/");
    let added = post(&users, r#"{"name":"유관순","email":"yu@example.com"}"#).await;
    assert_eq!(added.status, 201);
    let known = get(&users).await;
    assert_eq!(known.header("x-store"), None);
    theater.redis.stop();
    let started = Instant::now();
    let answers = futures::future::join_all((0..20).map(|_| get(&users))).await;
    for answer in answers {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json(), known.json());
        assert_eq!(answer.header("x-store"), Some("unavailable"));
        assert!(answer.header("age").is_some(), "how old it is");
    }
    let one = get(&theater.gateway.url("/users/4")).await;
    assert_eq!(one.json()["name"], "유관순");
    assert_eq!(one.header("x-store"), Some("unavailable"));
    // Nobody asked for movies while there was a store.
    let movies = get(&theater.gateway.url("/movies/")).await;
    assert_eq!(movies.header("x-service-name"), Some("movie-service"));
    assert!(movies.error(503).contains("store"));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "one waits for the other"
    );
    post(
        &theater.gateway.url("/bookings/"),
        r#"{"userId":"1","movieId":"1","seats":1}"#,
    )
    .await
    .error(503);
    assert_eq!(get(&theater.users.url("/readyz")).await.status, 200);
    theater.redis.start_again().await;
    let found = until("the store is found again", async || {
        let answer = get(&users).await;
        answer.header("x-store").is_none().then(|| answer.json())
    })
    .await;
    assert_eq!(found.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_store_that_was_restarted_is_noticed_by_nobody_who_reads() {
    let mut theater = Theater::start().await;
    let users = theater.gateway.url("/users/");
    assert_eq!(get(&users).await.status, 200);
    theater.redis.stop();
    theater.redis.start_again().await;
    assert_eq!(get(&users).await.status, 200);
}

#[tokio::test]
async fn a_store_that_never_answers_keeps_nobody_waiting() {
    // It takes connections and is silent.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let users = Process::service("user-service", &[("REDIS_URL", &address)]);
    let started = Instant::now();
    let url = users.url("/users/");
    for answer in futures::future::join_all((0..20).map(|_| get(&url))).await {
        answer.error(503);
    }
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "one waits for the other"
    );
}
