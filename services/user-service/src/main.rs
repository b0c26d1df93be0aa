//! user-service
fn main() {}
