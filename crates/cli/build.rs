//! Links the program for a fixed address.
//!
//! A running theater is about thirty processes of this one file. Made for any address, each of them would write 2 MiB of
//! tables with its own addresses at its start; made for a fixed one, they share the file's pages. What is loaded at
//! random addresses still is: stacks, heaps and libraries.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
