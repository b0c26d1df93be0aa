//! What the tests stand on. Everything a test starts listens on a port of its own and ends with the test.

pub mod browser;
pub mod http;
pub mod kube;
pub mod mesh;
pub mod process;

use std::time::{Duration, Instant};

use process::{Process, Redis};

/// Tries again until there is something, for at most 30 seconds.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A store and one replica of each service behind a gateway.
pub struct Theater {
    pub redis: Redis,
    pub users: Process,
    pub movies: Process,
    pub bookings: Process,
    pub gateway: Process,
}

impl Theater {
    pub async fn start() -> Self {
        let redis = Redis::start().await;
        let users = Process::service("user-service", &[("REDIS_URL", &redis.address())]);
        let movies = Process::service("movie-service", &[("REDIS_URL", &redis.address())]);
        let bookings = Process::service(
            "booking-service",
            &[
                ("REDIS_URL", &redis.address()),
                ("USER_SERVICE_URL", &users.url("")),
                ("MOVIE_SERVICE_URL", &movies.url("")),
            ],
        );
        let gateway = Process::service(
            "api-gateway",
            &[
                ("USER_SERVICE_URL", &users.url("")),
                ("MOVIE_SERVICE_URL", &movies.url("")),
                ("BOOKING_SERVICE_URL", &bookings.url("")),
            ],
        );
        Self {
            redis,
            users,
            movies,
            bookings,
            gateway,
        }
    }
}
