//! user-service: the people who go to the theater. Lists them, finds one, adds one.

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_kit::{
    Error, Id, Identity, Json, Operation, Read, Result, Service, Store, created, document,
    text_field,
};

/// The port the service listens on unless `PORT` says otherwise.
pub const PORT: u16 = 8081;

/// A person, stored as `user:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique, never used again.
    pub id: String,
    /// As the person wants to be called.
    pub name: String,
    /// Where to reach the person.
    pub email: String,
}

/// What a client sends to add a person.
#[derive(Debug, Deserialize)]
pub struct NewUser {
    name: String,
    email: String,
}

impl NewUser {
    fn check(&self) -> Result<(String, String)> {
        let name = text_field("name", &self.name, 100)?;
        let email = text_field("email", &self.email, 254)?;
        let (local, domain) = email.split_once('@').unwrap_or_default();
        if local.is_empty() || domain.is_empty() || email.contains(char::is_whitespace) {
            return Err(Error::BadRequest(format!(
                "email {email:?} is not an address like name@example.com"
            )));
        }
        Ok((name, email))
    }
}

const COUNTER: &str = "next:user";

/// The people there are from the start.
const FIRST: [(&str, &str); 3] = [
    ("홍길동", "hong@example.com"),
    ("이순신", "lee@example.com"),
    ("김유신", "kim@example.com"),
];

/// The routes of the service. They work below `/users` and below `/`.
pub fn routes(store: Arc<Store>) -> Router {
    Router::new()
        .route("/", get(list).post(add))
        .route("/users", get(list).post(add))
        .route("/users/", get(list).post(add))
        .route("/users/{id}", get(one))
        .with_state(store)
}

async fn list(State(store): State<Arc<Store>>) -> Result<Read<Vec<User>>> {
    store.list("user").await
}

async fn one(State(store): State<Arc<Store>>, Id(id): Id) -> Result<Read<User>> {
    store
        .get(&format!("user:{id}"))
        .await?
        .found()
        .ok_or_else(|| Error::NotFound(format!("there is no user {id:?}")))
}

async fn add(State(store): State<Arc<Store>>, Json(new): Json<NewUser>) -> Result<Response> {
    let (name, email) = new.check()?;
    let id = store.next_number(COUNTER).await?.to_string();
    let user = User { id, name, email };
    store.set(&format!("user:{}", user.id), &user).await?;
    Ok(created(&format!("/users/{}", user.id), user))
}

/// The first people and the counter behind their ids: the seed of the store.
fn first() -> Result<Vec<(String, String)>> {
    let mut pairs = vec![(COUNTER.to_owned(), FIRST.len().to_string())];
    for (number, (name, email)) in (1..).zip(FIRST) {
        let user = User {
            id: number.to_string(),
            name: name.into(),
            email: email.into(),
        };
        pairs.push((format!("user:{number}"), service_kit::write(&user)?));
    }
    Ok(pairs)
}

/// The service's OpenAPI document.
pub fn openapi() -> serde_json::Value {
    let operations = [
        Operation {
            verb: "get",
            path: "/users/",
            summary: "All users",
            request: None,
            answer: (200, "[]User"),
            errors: &[503],
        },
        Operation {
            verb: "post",
            path: "/users/",
            summary: "Add a user",
            request: Some("NewUser"),
            answer: (201, "User"),
            errors: &[400, 413, 415, 503],
        },
        Operation {
            verb: "get",
            path: "/users/{id}",
            summary: "One user",
            request: None,
            answer: (200, "User"),
            errors: &[404, 503],
        },
    ];
    let text = json!({"type": "string"});
    document(
        "user-service",
        &operations,
        json!({
            "User": {"type": "object", "required": ["id", "name", "email"],
                "properties": {"id": text, "name": text, "email": text}},
            "NewUser": {"type": "object", "required": ["name", "email"], "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100},
                "email": {"type": "string", "format": "email", "maxLength": 254}}},
        }),
    )
}

/// Runs the service until it is told to end. Environment: `PORT`, `REDIS_URL`, `CLUSTER_NAME`, `HOSTNAME`.
pub fn main() -> ExitCode {
    service_kit::run(async {
        let variable = |name: &str| std::env::var(name).ok();
        let port = service_kit::port(variable, PORT)?;
        let address = variable("REDIS_URL").unwrap_or_else(|| "redis:6379".into());
        let store = Arc::new(Store::new(&address)?.seeded_with(first()?));
        let service = Service {
            identity: Identity::from_environment("user-service", variable),
            routes: routes(store),
            openapi: openapi(),
        };
        service_kit::serve(service.with_fault_switch(), port).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_checked() {
        let check = |name: &str, email: &str| {
            NewUser {
                name: name.into(),
                email: email.into(),
            }
            .check()
        };
        assert!(check("홍길동", "hong@example.com").is_ok());
        for (name, email) in [
            ("", "a@b"),
            ("a", "b"),
            ("a", "@b"),
            ("a", "b@"),
            ("a", "b c@d"),
        ] {
            assert!(check(name, email).is_err(), "{name:?} {email:?}");
        }
    }
}
