//! booking-service: who sits where. A seat is never sold twice: a booking and all its seats are written
//! in one atomic step of the store, so that of two people who want the same seat of the same movie
//! at the same moment, in whichever cluster, one gets it and the other is told so.

pub mod seats;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_kit::{
    Error, Id, Identity, Json, MeshClient, Operation, Read, Result, Service, Store, TraceContext,
    created, document, text_field,
};

/// The port the service listens on unless `PORT` says otherwise.
pub const PORT: u16 = 8083;

/// How long a name may take to be found; without it the booking is made all the same.
const NAME_LIMIT: Duration = Duration::from_secs(1);

/// How often the next free seats are chosen anew when somebody else was faster.
const ATTEMPTS: usize = 20;

/// A booking, stored as `booking:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    /// Unique, never used again.
    pub id: String,
    /// Who sits there.
    pub user_id: String,
    /// What is shown.
    pub movie_id: String,
    /// Labels of the seats.
    pub seats: Vec<String>,
    /// The user's name, if user-service knew it when the booking was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// The movie's title, if movie-service knew it when the booking was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub movie_title: Option<String>,
}

/// What a client sends to book.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewBooking {
    user_id: String,
    movie_id: String,
    seats: seats::Wish,
}

/// The seat map of one movie.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeatMap {
    movie_id: String,
    rows: Vec<String>,
    per_row: u8,
    taken: Vec<String>,
}

/// What the handlers share.
pub struct Bookings {
    /// Where bookings are kept.
    pub store: Store,
    /// Calls to the other services.
    pub client: MeshClient,
    /// Address of user-service.
    pub users: String,
    /// Address of movie-service.
    pub movies: String,
}

const COUNTER: &str = "next:booking";

/// The routes of the service. They work below `/bookings` and below `/`.
pub fn routes(bookings: Arc<Bookings>) -> Router {
    Router::new()
        .route("/", get(list).post(book))
        .route("/bookings", get(list).post(book))
        .route("/bookings/", get(list).post(book))
        .route("/bookings/{id}", get(one))
        .route("/bookings/user/{user}", get(of_user))
        .route("/bookings/seats/{movie}", get(seat_map))
        .with_state(bookings)
}

async fn list(State(bookings): State<Arc<Bookings>>) -> Result<Read<Vec<Booking>>> {
    bookings.store.list("booking").await
}

async fn one(State(bookings): State<Arc<Bookings>>, Id(id): Id) -> Result<Read<Booking>> {
    bookings
        .store
        .get(&format!("booking:{id}"))
        .await?
        .found()
        .ok_or_else(|| Error::NotFound(format!("there is no booking {id:?}")))
}

async fn of_user(
    State(bookings): State<Arc<Bookings>>,
    Id(user): Id,
) -> Result<Read<Vec<Booking>>> {
    let mut found: Read<Vec<Booking>> = bookings.store.list("booking").await?;
    found.value.retain(|booking| booking.user_id == user);
    Ok(found)
}

async fn seat_map(State(bookings): State<Arc<Bookings>>, Id(movie): Id) -> Result<Json<SeatMap>> {
    let taken = bookings.taken(&movie).await?;
    Ok(Json(SeatMap {
        movie_id: movie,
        rows: seats::ROWS.iter().map(char::to_string).collect(),
        per_row: seats::PER_ROW,
        taken: seats::all()
            .into_iter()
            .zip(taken)
            .filter_map(|(label, taken)| taken.then_some(label))
            .collect(),
    }))
}

async fn book(
    State(bookings): State<Arc<Bookings>>,
    headers: HeaderMap,
    Json(new): Json<NewBooking>,
) -> Result<Response> {
    let user_id = text_field("userId", &new.user_id, 100)?;
    let movie_id = text_field("movieId", &new.movie_id, 100)?;
    let named = seats::named(&new.seats)?;
    let trace = TraceContext::of(&headers);
    let (user_name, movie_title) = futures::join!(
        bookings.name(&bookings.users, "users", &user_id, "name", &trace),
        bookings.name(&bookings.movies, "movies", &movie_id, "title", &trace),
    );
    let mut booking = Booking {
        id: bookings.store.next_number(COUNTER).await?.to_string(),
        user_id,
        movie_id,
        seats: Vec::new(),
        user_name,
        movie_title,
    };
    for _ in 0..ATTEMPTS {
        booking.seats = match &named {
            Some(labels) => labels.clone(),
            None => {
                let taken = bookings.taken(&booking.movie_id).await?;
                seats::next_free(new.seats.count(), &taken)?
            }
        };
        if bookings.take(&booking).await? {
            return Ok(created(&format!("/bookings/{}", booking.id), booking));
        }
        if let Some(labels) = &named {
            let taken = bookings.taken(&booking.movie_id).await?;
            return Err(seats::refusal(labels, &taken));
        }
    }
    Err(Error::Conflict(
        "others were faster every time; try again".into(),
    ))
}

impl Bookings {
    /// Which seats of a movie are taken, in the order of [`seats::all`].
    async fn taken(&self, movie: &str) -> Result<Vec<bool>> {
        let keys: Vec<String> = seats::all()
            .iter()
            .map(|label| seat_key(movie, label))
            .collect();
        self.store.existing(&keys).await
    }

    /// Writes the booking and all its seats, or nothing when one of them is taken.
    async fn take(&self, booking: &Booking) -> Result<bool> {
        let mut pairs: Vec<(String, String)> = booking
            .seats
            .iter()
            .map(|label| (seat_key(&booking.movie_id, label), booking.id.clone()))
            .collect();
        pairs.push((
            format!("booking:{}", booking.id),
            service_kit::write(booking)?,
        ));
        self.store.create_all(&pairs).await
    }

    /// A name to show for an id; `None` when the other service does not know or does not answer.
    async fn name(
        &self,
        service: &str,
        kind: &str,
        id: &str,
        field: &str,
        trace: &TraceContext,
    ) -> Option<String> {
        // An id is what a client typed: only what is a path segment as it stands is asked for.
        if !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return None;
        }
        let url = format!("{}/{kind}/{id}", service.trim_end_matches('/'));
        match self.client.get(&url, trace).await {
            Ok(document) => document
                .get(field)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
            Err(error) => {
                tracing::info!(%error, "booking without a name");
                None
            }
        }
    }
}

fn seat_key(movie: &str, label: &str) -> String {
    format!("seat:{movie}:{label}")
}

/// The service's OpenAPI document.
pub fn openapi() -> Value {
    let operations = [
        Operation {
            verb: "get",
            path: "/bookings/",
            summary: "All bookings",
            request: None,
            answer: (200, "[]Booking"),
            errors: &[503],
        },
        Operation {
            verb: "post",
            path: "/bookings/",
            summary: "Book seats",
            request: Some("NewBooking"),
            answer: (201, "Booking"),
            errors: &[400, 409, 413, 415, 503],
        },
        Operation {
            verb: "get",
            path: "/bookings/{id}",
            summary: "One booking",
            request: None,
            answer: (200, "Booking"),
            errors: &[404, 503],
        },
        Operation {
            verb: "get",
            path: "/bookings/user/{userId}",
            summary: "The bookings of one user",
            request: None,
            answer: (200, "[]Booking"),
            errors: &[503],
        },
        Operation {
            verb: "get",
            path: "/bookings/seats/{movieId}",
            summary: "The seat map of one movie",
            request: None,
            answer: (200, "SeatMap"),
            errors: &[503],
        },
    ];
    let text = json!({"type": "string"});
    let labels = json!({"type": "array", "items": {"type": "string"}});
    document(
        "booking-service",
        &operations,
        json!({
            "Booking": {"type": "object", "required": ["id", "userId", "movieId", "seats"],
                "properties": {"id": text, "userId": text, "movieId": text, "seats": labels,
                    "userName": text, "movieTitle": text}},
            "NewBooking": {"type": "object", "required": ["userId", "movieId", "seats"],
                "properties": {"userId": {"type": "string", "minLength": 1, "maxLength": 100},
                    "movieId": {"type": "string", "minLength": 1, "maxLength": 100},
                    "seats": {"oneOf": [{"type": "integer", "minimum": 1, "maximum": 60}, labels]}}},
            "SeatMap": {"type": "object", "required": ["movieId", "rows", "perRow", "taken"],
                "properties": {"movieId": text, "rows": labels, "perRow": {"type": "integer"},
                    "taken": labels}},
        }),
    )
}

/// Runs the service until it is told to end. Environment: `PORT`, `REDIS_URL`, `USER_SERVICE_URL`,
/// `MOVIE_SERVICE_URL`, `CLUSTER_NAME`, `HOSTNAME`.
pub fn main() -> ExitCode {
    service_kit::run(async {
        let variable = |name: &str| std::env::var(name).ok();
        let address = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.into());
        let port = service_kit::port(variable, PORT)?;
        let bookings = Arc::new(Bookings {
            store: Store::new(&address("REDIS_URL", "redis:6379"))?,
            client: MeshClient::new(NAME_LIMIT),
            users: address("USER_SERVICE_URL", "http://user-service:8081"),
            movies: address("MOVIE_SERVICE_URL", "http://movie-service:8082"),
        });
        let service = Service {
            identity: Identity::from_environment("booking-service", variable),
            routes: routes(bookings),
            openapi: openapi(),
        };
        service_kit::serve(service.with_fault_switch(), port).await
    })
}
