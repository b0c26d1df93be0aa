//! `istioctl`: Istio's command line, as far as it looks at a mesh.
//!
//! It is a client like any other: it speaks the Kubernetes API, and through the API server's port
//! forwarding the admin interface of proxies and the debug endpoints of istiod. Everything that
//! turns answers into what is printed is pure; [`Shell`] is all a command knows of its surroundings.

pub mod analyze;
mod authz;
mod builtin;
mod check_inject;
mod command;
mod compare;
mod completion;
mod create_remote_secret;
mod dashboard;
mod describe;
pub mod dump;
mod envoy_stats;
mod files;
pub mod go_sort;
mod injector;
mod internal_debug;
mod kube_inject;
mod kubeconfig;
mod mesh;
mod metrics;
mod precheck;
mod proto_json;
mod proxy_config;
mod proxy_status;
mod reader_account;
mod remote_clusters;
mod settings;
mod shell;
mod table;
mod tag;
mod validate;
mod version;
mod workload;
pub mod writer;
mod xds_debug;
pub mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

pub use command::Global;
pub use mesh::Mesh;
pub use shell::Shell;

/// Exit code for a command line that is not understood, as of the real program.
pub const USAGE: u8 = 64;

/// Runs the program; `args` are without its name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let (mut stdin, mut stdout, mut stderr) =
        (std::io::stdin(), std::io::stdout(), std::io::stderr());
    ExitCode::from(run(
        args,
        &mut Shell::of_process(&mut stdin, &mut stdout, &mut stderr),
    ))
}

/// Runs the program in given surroundings and answers its exit code; `args` are without its name.
pub fn run(args: Vec<OsString>, shell: &mut Shell<'_>) -> u8 {
    command::run(args, shell)
}

/// What asks clusters and proxies.
fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}
