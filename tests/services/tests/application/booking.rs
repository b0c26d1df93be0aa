//! Seats: chosen, counted, never sold twice (spec A04).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::Theater;
use crate::harness::http::{get, post, send};
use crate::harness::process::{Process, Redis};

fn wish(movie: &str, seats: Value) -> String {
    json!({"userId": "1", "movieId": movie, "seats": seats}).to_string()
}

#[tokio::test]
async fn the_literal_booking_of_the_course_is_accepted() {
    let theater = Theater::start().await;
    let body = r#"{"userId":"user-id","movieId":"movie-id","seats":2}"#;
    let booking = post(&theater.gateway.url("/bookings/"), body).await;
    assert_eq!(booking.status, 201, "seen {booking:?}");
    assert_eq!(booking.json()["seats"], json!(["A1", "A2"]));
    assert!(booking.json().get("userName").is_none());
}

#[tokio::test]
async fn names_are_asked_of_the_other_services_and_bookings_found_by_user() {
    let theater = Theater::start().await;
    let bookings = theater.gateway.url("/bookings/");
    let booking = post(&bookings, wish("3", json!(["C5", "c6"]))).await.json();
    assert_eq!(booking["userName"], "홍길동");
    assert_eq!(booking["movieTitle"], "기생충");
    assert_eq!(booking["seats"], json!(["C5", "C6"]));
    post(
        &bookings,
        json!({"userId": "2", "movieId": "3", "seats": 1}).to_string(),
    )
    .await;
    let of_user = get(&theater.gateway.url("/bookings/user/1")).await.json();
    assert_eq!(of_user, json!([booking]));
    assert_eq!(
        get(&theater.gateway.url("/bookings/user/none"))
            .await
            .json(),
        json!([])
    );
    let map = get(&theater.gateway.url("/bookings/seats/3")).await.json();
    assert_eq!(map["taken"], json!(["A1", "C5", "C6"]));
    assert_eq!(
        (map["rows"].as_array().unwrap().len(), &map["perRow"]),
        (6, &json!(10))
    );
}

#[tokio::test]
async fn a_booking_needs_no_names() {
    let mut theater = Theater::start().await;
    theater.users.kill();
    let started = Instant::now();
    let booking = post(&theater.gateway.url("/bookings/"), wish("1", json!(1))).await;
    assert_eq!(booking.status, 201, "seen {booking:?}");
    assert!(booking.json().get("userName").is_none());
    assert_eq!(booking.json()["movieTitle"], "어벤져스");
    // Nor when nobody ever answers.
    let hang = post(&theater.movies.url("/fault"), r#"{"mode":"hang"}"#).await;
    assert_eq!(hang.status, 200);
    let booking = post(&theater.gateway.url("/bookings/"), wish("1", json!(1))).await;
    assert_eq!(booking.status, 201, "seen {booking:?}");
    assert!(booking.json().get("movieTitle").is_none());
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_seat_is_sold_once_however_many_want_it_in_both_clusters() {
    let redis = Redis::start().await;
    let replica = |cluster| {
        Process::service(
            "booking-service",
            &[
                ("REDIS_URL", &redis.address()),
                ("CLUSTER_NAME", cluster),
                // Nobody there: names are not what this is about.
                ("USER_SERVICE_URL", "http://127.0.0.1:1"),
                ("MOVIE_SERVICE_URL", "http://127.0.0.1:1"),
            ],
        )
    };
    let replicas = [replica("ctx1"), replica("ctx2")];
    let attempts = (0..50).map(|number| {
        let url = replicas[number % 2].url("/bookings/");
        // Seats that overlap in one only: all or nothing.
        let other = format!("B{}", number % 10 + 1);
        async move { post(&url, wish("1", json!([other, "A7"]))).await }
    });
    let answers = futures::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(won.len(), 1, "seen {won:?}");
    for answer in lost {
        assert!(answer.error(409).contains("A7"), "seen {answer:?}");
    }
    let bookings = get(&replicas[1].url("/bookings/")).await.json();
    assert_eq!(bookings, json!([won[0].json()]));
    let taken = get(&replicas[0].url("/bookings/seats/1")).await.json();
    assert_eq!(taken["taken"].as_array().unwrap().len(), 2, "seen {taken}");
}

#[tokio::test]
async fn everybody_who_takes_the_next_free_seat_gets_another_one_until_all_are_sold() {
    let theater = Theater::start().await;
    let url = theater.bookings.url("/bookings/");
    let mut sold = HashSet::new();
    for _ in 0..6 {
        let answers =
            futures::future::join_all((0..10).map(|_| post(&url, wish("2", json!(1))))).await;
        for answer in answers {
            assert_eq!(answer.status, 201, "seen {answer:?}");
            let seat = answer.json()["seats"][0].as_str().unwrap().to_owned();
            assert!(sold.insert(seat.clone()), "{seat} was sold twice");
        }
    }
    assert_eq!(sold.len(), 60);
    for seats in [json!(1), json!(["A1"])] {
        let message = post(&url, wish("2", seats)).await.error(409);
        assert_eq!(message, "this movie is sold out");
    }
    let message = post(&url, wish("1", json!(61))).await.error(400);
    assert!(message.contains("at most 60"), "seen {message}");
    post(&url, wish("1", json!(59))).await;
    let message = post(&url, wish("1", json!(2))).await.error(409);
    assert!(message.contains("only 1"), "seen {message}");
}

#[tokio::test]
async fn trace_headers_reach_every_service_a_booking_asks() {
    let theater = Theater::start().await;
    let request = Request::post(theater.gateway.url("/bookings/"))
        .header("x-request-id", "id-of-the-test")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .header("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736")
        .body(Body::from(wish("1", json!(1))));
    assert_eq!(send(request.unwrap()).await.status, 201);
    for (service, path) in [
        (&theater.bookings, "/bookings/"),
        (&theater.users, "/users/1"),
        (&theater.movies, "/movies/1"),
    ] {
        service
            .logged(path, |line| {
                line["path"] == path
                    && line["request_id"] == "id-of-the-test"
                    && line["traceparent"]
                        .as_str()
                        .is_some_and(|value| value.contains("4bf92f3577b34da6"))
            })
            .await;
    }
}
