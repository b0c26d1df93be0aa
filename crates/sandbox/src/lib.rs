//! Linux sandboxes: the world of clusters, node networks, pods and container processes.
//!
//! Everything is done with system calls and netlink messages; no program of the machine is
//! run. Nothing in here knows an API object.
//!
//! The crate re-executes the running program for work that needs a single-threaded process
//! (mount and PID namespaces). Every program that uses it must therefore start with
//!
//! ```no_run
//! use theater_sandbox as sandbox;
//! let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
//! if args.get(1).is_some_and(|a| a == sandbox::INIT_COMMAND) {
//!     sandbox::init_main(&args[2..]);
//! }
//! ```
//!
//! before it starts any thread.
//!
//! From the outside in:
//!
//! - [`world`]: the supervisor leaves the host's network, starts clusters, links them.
//! - [`node`]: a cluster's node network (bridge, forwarding, masquerade, filters).
//! - [`service_nat`]: virtual addresses of services to endpoints.
//! - [`pod`]: the namespaces that a pod's containers share.
//! - [`redirect`]: capture of a pod's traffic by its sidecar.
//! - [`container`]: container processes and their file systems.

#[cfg(not(target_os = "linux"))]
compile_error!("theater-sandbox needs Linux");

mod channel;
pub mod cidr;
pub mod container;
mod error;
mod helper;
mod identity;
mod links;
mod netlink;
mod nft;
pub mod node;
pub mod pod;
mod probe;
pub mod process;
mod reaper;
pub mod redirect;
mod rootfs;
pub mod service_nat;
mod sys;
pub mod world;

pub use cidr::Cidr;
pub use error::{Error, Result, Unsupported};
pub use helper::{INIT_COMMAND, init_main};
