//! The API, verb by verb (spec A02 to A06, A09, B80 to B82).

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::Theater;
use crate::harness::http::{get, post, send};

#[tokio::test]
async fn the_theater_opens_with_three_users_three_movies_and_no_bookings() {
    let theater = Theater::start().await;
    let gateway = &theater.gateway;
    let users = get(&gateway.url("/users/")).await;
    let names: Vec<Value> = users
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["name"].clone())
        .collect();
    assert_eq!(names, ["홍길동", "이순신", "김유신"]);
    let movies = get(&gateway.url("/movies/")).await.json();
    let titles: Vec<(&Value, &Value)> = movies
        .as_array()
        .unwrap()
        .iter()
        .map(|movie| (&movie["title"], &movie["year"]))
        .collect();
    assert_eq!(
        titles,
        [
            (&json!("어벤져스"), &json!(2012)),
            (&json!("겨울왕국"), &json!(2013)),
            (&json!("기생충"), &json!(2019))
        ]
    );
    assert_eq!(get(&gateway.url("/bookings/")).await.json(), json!([]));
    // People read it: Korean as it is, all on one line, and the line ended.
    assert!(users.text().contains("홍길동"), "seen {}", users.text());
    assert_eq!(users.text().lines().count(), 1);
    assert!(users.text().ends_with("]\n"));
    assert_eq!(
        users.header("content-type"),
        Some("application/json; charset=utf-8")
    );
}

#[tokio::test]
async fn every_list_is_at_three_paths_and_every_element_at_one() {
    let theater = Theater::start().await;
    for (service, kind) in [
        (&theater.users, "users"),
        (&theater.movies, "movies"),
        (&theater.bookings, "bookings"),
    ] {
        let whole = get(&service.url(&format!("/{kind}/"))).await;
        assert_eq!(whole.status, 200, "seen {whole:?}");
        for path in ["/".to_owned(), format!("/{kind}")] {
            let answer = get(&service.url(&path)).await;
            assert_eq!(
                (answer.status, &answer.body),
                (200, &whole.body),
                "{kind} at {path}"
            );
        }
        if let Some(first) = whole.json().get(0) {
            let one = get(&service.url(&format!("/{kind}/1"))).await;
            assert_eq!((one.status, &one.json()), (200, first));
        }
        assert!(
            get(&service.url(&format!("/{kind}/none")))
                .await
                .error(404)
                .contains("none")
        );
        assert!(
            get(&service.url("/nothing/here"))
                .await
                .error(404)
                .contains("/nothing/here")
        );
        // An id that is not text is the client's mistake, and said in JSON as well.
        get(&service.url(&format!("/{kind}/%FF"))).await.error(400);
    }
}

#[tokio::test]
async fn what_is_added_has_an_id_and_is_shown() {
    let theater = Theater::start().await;
    for (path, body) in [
        (
            "/users/",
            json!({"name": "유관순", "email": "yu@example.com"}),
        ),
        (
            "/movies/",
            json!({"title": "올드보이", "genre": "스릴러", "year": 2003}),
        ),
        (
            "/movies/",
            json!({"title": "괴물", "genre": "SF", "year": 2006, "director": "봉준호"}),
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1", "seats": ["A1"]}),
        ),
    ] {
        let created = post(&theater.gateway.url(path), body.to_string()).await;
        assert_eq!(created.status, 201, "{path}: seen {created:?}");
        let document = created.json();
        for (field, value) in body.as_object().unwrap() {
            assert_eq!(&document[field], value, "{path}: seen {document}");
        }
        let id = document["id"].as_str().expect("an id");
        let place = format!("{path}{id}");
        assert_eq!(created.header("location"), Some(place.as_str()));
        assert_eq!(get(&theater.gateway.url(&place)).await.json(), document);
        let list = get(&theater.gateway.url(path)).await.json();
        assert_eq!(list.as_array().unwrap().last(), Some(&document), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_400_and_names_the_field() {
    let theater = Theater::start().await;
    let long = "x".repeat(300);
    for (path, body, told) in [
        ("/users/", "{".to_owned(), "line 1"),
        ("/users/", String::new(), "not valid"),
        ("/users/", "[]".to_owned(), "not valid"),
        ("/users/", json!({"name": "a"}).to_string(), "email"),
        ("/users/", json!({"email": "a@b"}).to_string(), "name"),
        (
            "/users/",
            json!({"name": 5, "email": "a@b"}).to_string(),
            "name: invalid type",
        ),
        (
            "/users/",
            json!({"name": " ", "email": "a@b"}).to_string(),
            "name must not be empty",
        ),
        (
            "/users/",
            json!({"name": long, "email": "a@b"}).to_string(),
            "name must have at most",
        ),
        (
            "/users/",
            json!({"name": "a", "email": "b"}).to_string(),
            "email",
        ),
        (
            "/movies/",
            json!({"title": "a", "genre": "b"}).to_string(),
            "year is missing",
        ),
        (
            "/movies/",
            json!({"title": "a", "genre": "b", "year": 1500}).to_string(),
            "year 1500",
        ),
        (
            "/movies/",
            json!({"title": "a", "genre": "b", "year": "new"}).to_string(),
            "year: invalid type",
        ),
        (
            "/movies/",
            json!({"title": "a", "genre": "b", "year": 70000}).to_string(),
            "year",
        ),
        (
            "/movies/",
            json!({"title": "a", "year": 2000}).to_string(),
            "genre",
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1"}).to_string(),
            "seats",
        ),
        (
            "/bookings/",
            json!({"userId": "", "movieId": "1", "seats": 1}).to_string(),
            "userId",
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1", "seats": 0}).to_string(),
            "seats",
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1", "seats": -1}).to_string(),
            "seats: neither",
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1", "seats": ["Z9"]}).to_string(),
            "Z9",
        ),
        (
            "/bookings/",
            json!({"userId": "1", "movieId": "1", "seats": ["A1", "A1"]}).to_string(),
            "twice",
        ),
    ] {
        let message = post(&theater.gateway.url(path), body.clone())
            .await
            .error(400);
        assert!(
            message.contains(told),
            "{path} {body}: expected {told:?}, seen {message:?}"
        );
    }
    assert_eq!(
        get(&theater.gateway.url("/users/"))
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn other_verbs_large_bodies_and_other_types_are_refused_in_json() {
    let theater = Theater::start().await;
    for (path, allowed) in [
        ("/users/", "GET,HEAD,POST"),
        ("/movies/1", "GET,HEAD"),
        ("/bookings/", "GET,HEAD,POST"),
    ] {
        for verb in ["DELETE", "PUT", "PATCH"] {
            let request = Request::builder()
                .method(verb)
                .uri(theater.gateway.url(path));
            let answer = send(request.body(Body::empty()).unwrap()).await;
            assert!(answer.error(405).contains(verb));
            assert_eq!(answer.header("allow"), Some(allowed), "{verb} {path}");
        }
        let request = Request::head(theater.gateway.url(path)).body(Body::empty());
        assert_eq!(send(request.unwrap()).await.status, 200, "HEAD {path}");
    }
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(70_000));
    assert!(
        post(&theater.gateway.url("/users/"), large)
            .await
            .error(413)
            .contains("65536")
    );
    let request = Request::post(theater.gateway.url("/users/"))
        .header("content-type", "application/xml")
        .body(Body::from("<user/>"));
    assert!(
        send(request.unwrap())
            .await
            .error(415)
            .contains("application/json")
    );
    // curl -d without a header says it sends a form.
    let request = Request::post(theater.gateway.url("/users/"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(r#"{"name":"a","email":"a@b"}"#));
    assert_eq!(send(request.unwrap()).await.status, 201);
}

#[tokio::test]
async fn every_answer_says_who_gave_it() {
    let theater = Theater::start().await;
    for (path, service) in [
        ("/users/", "user-service"),
        ("/movies/1", "movie-service"),
        ("/bookings/", "booking-service"),
        ("/users/none", "user-service"),
        ("/users/a/b/c", "user-service"),
        ("/", "api-gateway"),
        ("/nothing", "api-gateway"),
        ("/traffic-history", "api-gateway"),
    ] {
        let answer = get(&theater.gateway.url(path)).await;
        assert_eq!(answer.header("x-service-name"), Some(service), "{path}");
        assert_eq!(
            answer.header("x-pod-name"),
            Some(format!("{service}-test").as_str()),
            "{path}"
        );
        assert_eq!(answer.header("x-service-cluster"), Some("ctx1"), "{path}");
        assert_eq!(
            answer.headers.get_all("x-pod-name").iter().count(),
            1,
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_service_describes_itself() {
    let theater = Theater::start().await;
    for (service, own) in [
        (&theater.users, "/users/{id}"),
        (&theater.movies, "/movies/{id}"),
        (&theater.bookings, "/bookings/seats/{movieId}"),
        (&theater.gateway, "/topology"),
    ] {
        let document = get(&service.url("/openapi.json")).await.json();
        assert_eq!(document["openapi"], "3.1.0");
        for path in [own, "/healthz", "/readyz"] {
            assert!(
                document["paths"].get(path).is_some(),
                "{path} in {document}"
            );
        }
        check_openapi(&document);
        for (path, operations) in document["paths"].as_object().unwrap() {
            // What is described is there.
            if operations.get("get").is_some() && !path.contains('{') {
                assert_eq!(get(&service.url(path)).await.status, 200, "{path}");
            }
        }
    }
}

/// The rules of OpenAPI 3.1 that a document put together by hand can break.
fn check_openapi(document: &Value) {
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let schemas = &document["components"]["schemas"];
    for (path, operations) in document["paths"].as_object().expect("paths") {
        assert!(path.starts_with('/'), "{path}");
        for (verb, operation) in operations.as_object().expect("operations") {
            assert!(["get", "post"].contains(&verb.as_str()), "{verb} {path}");
            let declared: Vec<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parameter| {
                    assert_eq!(
                        (&parameter["in"], &parameter["required"]),
                        (&json!("path"), &json!(true))
                    );
                    parameter["name"].as_str().expect("a name")
                })
                .collect();
            let in_path: Vec<&str> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(declared, in_path, "{verb} {path}");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{verb} {path}"
            );
            for (status, response) in responses {
                assert!(status.parse::<u16>().is_ok() && response["description"].is_string());
            }
        }
    }
    check_references(document, schemas);
}

fn check_references(value: &Value, schemas: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if let ("$ref", Some(reference)) = (name.as_str(), inner.as_str()) {
                    let target = reference
                        .strip_prefix("#/components/schemas/")
                        .expect("a schema");
                    assert!(schemas.get(target).is_some(), "{reference} leads nowhere");
                }
                check_references(inner, schemas);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| check_references(item, schemas)),
        _ => {}
    }
}
