//! movie-service
fn main() {}
