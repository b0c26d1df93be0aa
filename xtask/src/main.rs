//! Chores of the repository that are not part of the product: `cargo xtask <chore>`.
//!
//! Everything a chore writes is committed, so nobody needs it to build Theater.

mod crds;
mod xds;

use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("xds") => xds::run(args),
        Some("crds") => crds::run(),
        Some("golden") => golden(args),
        other => {
            if let Some(name) = other {
                eprintln!("xtask: no chore is called `{name}`\n");
            }
            eprintln!("usage: cargo xtask <chore>\n");
            eprintln!(
                "  xds [--protos DIR]   generate crates/xds/src/gen from the Envoy API protos"
            );
            eprintln!(
                "  crds                 generate crates/api/src/istio/crd_schemas.json from the structs"
            );
            eprintln!(
                "  golden DIR...        compare recorded answers of the real Istio with Theater's"
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

/// Hands over to the package `theater-golden`, which needs the whole of Theater; the other chores are wanted when that does not compile.
fn golden(args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let status = std::process::Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "theater-golden",
            "--manifest-path",
        ])
        .arg(workspace().join("Cargo.toml"))
        .arg("--")
        .args(args)
        .status()?;
    std::process::exit(status.code().unwrap_or(2))
}
