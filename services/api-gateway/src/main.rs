//! api-gateway
fn main() {}
