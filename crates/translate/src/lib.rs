//! Istio configuration, services and endpoints of all clusters at one moment, and one proxy's description, become the xDS
//! resources of that proxy.
//!
//! ```text
//! SnapshotInput (plain objects) --Snapshot::from_objects--> Snapshot --build(&Snapshot, &ProxyInfo)--> Output
//! ```
//!
//! Everything here is a pure function of its arguments. Names, shapes and order are those of istiod 1.31, so that tools that
//! read config dumps work; the golden tests compare with its answers. One bad object never harms its neighbours: it is left out
//! and becomes a [`Problem`].

mod access_log;
mod cluster;
mod context;
mod destination_rule;
mod discovery;
mod dynamic_dns;
mod endpoints;
mod envoy_filter;
mod gateway_servers;
mod hcm;
mod host;
mod http_filters;
mod inbound_targets;
mod incremental;
pub mod ingress;
mod listener;
mod locality;
mod locality_lb;
mod names;
mod network_filters;
mod objects;
mod output;
mod peer_authentication;
mod problem;
mod proto;
mod protocol;
mod proxy_info;
mod registry;
mod route;
mod security;
mod sidecar_scope;
mod snapshot;
mod telemetry;
mod tracing;
mod traffic_policy;
mod virtual_service;
mod visibility;

pub use incremental::{Built, Change};
pub use locality::Locality;
pub use output::{Output, build};
pub use problem::Problem;
pub use proxy_info::{Interception, NodeError, ProxyInfo, ProxyType};
pub use snapshot::{ClusterObjects, Snapshot, SnapshotInput};
