//! The node agent: runs the pods of one node and speaks for them.
//!
//! - [`pod_sync`] decides, as a pure state machine, what to do next for a pod; [`engine`] does it.
//! - [`cri`] is the seam to what really runs containers: [`sandbox_runtime`], or [`fake`] in tests.
//! - [`env`], [`volumes`], [`probes`], [`logs`], [`ipam`], [`catalog`]: what a pod consists of.
//! - [`server`]: HTTPS for the API server (logs, exec, attach, port-forward, figures).
//! - [`dns`] and [`service_proxy`]: the cluster's names and virtual addresses.
//! - [`node`]: the Node object.

pub mod admission;
pub mod catalog;
pub mod clock;
pub mod cri;
pub mod dns;
pub mod engine;
pub mod env;
pub mod fake;
pub mod ipam;
pub mod logs;
pub mod node;
pub mod pod_sync;
pub mod probes;
pub mod quantity;
mod run;
pub mod sandbox_runtime;
pub mod server;
pub mod service_proxy;
pub mod status_writer;
pub mod sysctl;
pub mod volumes;

pub use catalog::{Image, ImageCatalog, ImageMount};
pub use run::{Config, Error, run, run_with};
pub use server::ServerTls;
