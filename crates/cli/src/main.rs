//! theater
fn main() {}
