//! movie-service: what is shown. Lists the movies, finds one, adds one.

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
pub const PORT: u16 = 8082;

/// A movie, stored as `movie:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movie {
    /// Unique, never used again.
    pub id: String,
    /// What is on the poster.
    pub title: String,
    /// What kind of movie it is.
    pub genre: String,
    /// When it came out.
    pub year: u16,
    /// Who made it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director: Option<String>,
}

/// What a client sends to add a movie.
#[derive(Debug, Deserialize)]
pub struct NewMovie {
    title: String,
    #[serde(default)]
    genre: Option<String>,
    #[serde(default)]
    year: Option<u16>,
    #[serde(default)]
    director: Option<String>,
}

/// The years in which a movie can have come out: from the first film on.
const YEARS: std::ops::RangeInclusive<u16> = 1888..=2100;

impl NewMovie {
    /// The movie with this id, once every field has been checked.
    fn check(self, id: String) -> Result<Movie> {
        let year = self
            .year
            .ok_or_else(|| Error::BadRequest("year is missing".into()))?;
        if !YEARS.contains(&year) {
            return Err(Error::BadRequest(format!(
                "year {year} is not between {} and {}",
                YEARS.start(),
                YEARS.end()
            )));
        }
        Ok(Movie {
            id,
            title: text_field("title", &self.title, 200)?,
            genre: text_field("genre", self.genre.as_deref().unwrap_or_default(), 50)?,
            year,
            director: self
                .director
                .filter(|name| !name.trim().is_empty())
                .map(|name| text_field("director", &name, 100))
                .transpose()?,
        })
    }
}

const COUNTER: &str = "next:movie";

/// The movies there are from the start.
const FIRST: [(&str, &str, u16, &str); 3] = [
    ("어벤져스", "액션", 2012, "조스 웨던"),
    ("겨울왕국", "애니메이션", 2013, "크리스 벅"),
    ("기생충", "드라마", 2019, "봉준호"),
];

/// The routes of the service. They work below `/movies` and below `/`.
pub fn routes(store: Arc<Store>) -> Router {
    Router::new()
        .route("/", get(list).post(add))
        .route("/movies", get(list).post(add))
        .route("/movies/", get(list).post(add))
        .route("/movies/{id}", get(one))
        .with_state(store)
}

async fn list(State(store): State<Arc<Store>>) -> Result<Read<Vec<Movie>>> {
    store.list("movie").await
}

async fn one(State(store): State<Arc<Store>>, Id(id): Id) -> Result<Read<Movie>> {
    store
        .get(&format!("movie:{id}"))
        .await?
        .found()
        .ok_or_else(|| Error::NotFound(format!("there is no movie {id:?}")))
}

async fn add(State(store): State<Arc<Store>>, Json(new): Json<NewMovie>) -> Result<Response> {
    let mut movie = new.check(String::new())?;
    movie.id = store.next_number(COUNTER).await?.to_string();
    store.set(&format!("movie:{}", movie.id), &movie).await?;
    Ok(created(&format!("/movies/{}", movie.id), movie))
}

/// The first movies and the counter behind their ids: the seed of the store.
fn first() -> Result<Vec<(String, String)>> {
    let mut pairs = vec![(COUNTER.to_owned(), FIRST.len().to_string())];
    for (number, (title, genre, year, director)) in (1..).zip(FIRST) {
        let movie = Movie {
            id: number.to_string(),
            title: title.into(),
            genre: genre.into(),
            year,
            director: Some(director.into()),
        };
        pairs.push((format!("movie:{number}"), service_kit::write(&movie)?));
    }
    Ok(pairs)
}

/// The service's OpenAPI document.
pub fn openapi() -> serde_json::Value {
    let operations = [
        Operation {
            verb: "get",
            path: "/movies/",
            summary: "All movies",
            request: None,
            answer: (200, "[]Movie"),
            errors: &[503],
        },
        Operation {
            verb: "post",
            path: "/movies/",
            summary: "Add a movie",
            request: Some("NewMovie"),
            answer: (201, "Movie"),
            errors: &[400, 413, 415, 503],
        },
        Operation {
            verb: "get",
            path: "/movies/{id}",
            summary: "One movie",
            request: None,
            answer: (200, "Movie"),
            errors: &[404, 503],
        },
    ];
    let text = json!({"type": "string"});
    let year = json!({"type": "integer", "minimum": YEARS.start(), "maximum": YEARS.end()});
    document(
        "movie-service",
        &operations,
        json!({
            "Movie": {"type": "object", "required": ["id", "title", "genre", "year"], "properties": {
                "id": text, "title": text, "genre": text, "year": year, "director": text}},
            "NewMovie": {"type": "object", "required": ["title", "genre", "year"], "properties": {
                "title": {"type": "string", "minLength": 1, "maxLength": 200},
                "genre": {"type": "string", "minLength": 1, "maxLength": 50},
                "year": year,
                "director": {"type": "string", "maxLength": 100}}},
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
            identity: Identity::from_environment("movie-service", variable),
            routes: routes(store),
            openapi: openapi(),
        };
        service_kit::serve(service.with_fault_switch(), port).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: serde_json::Value) -> Result<Movie> {
        serde_json::from_value::<NewMovie>(body)
            .unwrap()
            .check("7".into())
    }

    #[test]
    fn the_year_survives_and_the_director_may_be_missing() {
        let movie = check(json!({"title": "어벤져스", "genre": "액션", "year": 2019})).unwrap();
        assert_eq!(movie.year, 2019);
        let text = service_kit::write(&movie).unwrap();
        assert!(!text.contains("director"), "seen {text}");
    }

    #[test]
    fn every_field_is_checked() {
        for body in [
            json!({"title": "", "genre": "x", "year": 2000}),
            json!({"title": "x", "year": 2000}),
            json!({"title": "x", "genre": "x"}),
            json!({"title": "x", "genre": "x", "year": 1500}),
        ] {
            assert!(
                matches!(check(body.clone()), Err(Error::BadRequest(_))),
                "{body}"
            );
        }
    }
}
