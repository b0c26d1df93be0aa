//! istiod: the mesh's control plane. It watches the clusters, translates what they hold into
//! configuration for each proxy (crate `translate`), sends it over xDS, signs workload certificates
//! and adds sidecars to pods. It speaks to clusters and proxies in the field's protocols only.

pub mod ads;
pub mod authenticate;
pub mod ca;
pub mod ca_service;
pub mod clusters;
pub mod credential;
mod debug;
pub mod generate;
pub mod identity;
mod ingress_status;
mod jwks;
mod program;
mod root_cert;
mod server;
pub mod status;
mod tls_stream;
pub mod webhook;
mod world;

/// The release of Istio whose control plane this is.
pub const ISTIO_VERSION: &str = "1.31.0";

/// A proxy's configuration as the sections of Envoy's `/config_dump?include_eds`.
#[must_use]
pub fn config_dump(output: &translate::Output) -> Vec<serde_json::Value> {
    status::sections(&generate::by_type(output), "")
}

pub use program::main;
pub use server::{Config, Ports, run};
