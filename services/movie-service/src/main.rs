//! The movie-service of the theater as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    movie_service::main()
}
