//! booking-service
fn main() {}
