//! Chores of the repository that are not part of the product: `cargo run -p xtask -- <chore>`.
//!
//! Everything a chore writes is committed, so nobody needs it to build Theater.

mod xds;

use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("xds") => xds::run(args),
        other => {
            if let Some(name) = other {
                eprintln!("xtask: no chore is called `{name}`\n");
            }
            eprintln!("usage: cargo run -p xtask -- <chore>\n");
            eprintln!(
                "  xds [--protos DIR]   generate crates/xds/src/gen from the Envoy API protos"
            );
            std::process::exit(2);
        }
    }
}

/// The root of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a direct child of the workspace")
        .to_owned()
}
