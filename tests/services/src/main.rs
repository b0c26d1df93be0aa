//! The program that the tests start: each of the four services under its own name.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("user-service") => user_service::main(),
        Some("movie-service") => movie_service::main(),
        Some("booking-service") => booking_service::main(),
        Some("api-gateway") => api_gateway::main(),
        other => {
            eprintln!("usage: theater-service-tests SERVICE; seen {other:?}");
            ExitCode::FAILURE
        }
    }
}
