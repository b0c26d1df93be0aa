//! Istio's configuration, one file a kind.
//!
//! The structs are for reading: unknown fields are skipped (the stored [`serde_json::Value`] keeps them), missing ones are
//! `None`, empty or the zero value of the protobuf message. A value of a wrong type or an unknown enum name is an error of the
//! object. The same structs are the source of the CRD schemas, see [`crds()`].

#[macro_use]
mod message;

mod authorization_policy;
mod common;
mod crd;
#[cfg(feature = "schemas")]
mod crd_constraints;
mod crd_kinds;
#[cfg(feature = "schemas")]
mod crd_schema;
mod destination_rule;
mod duration;
mod envoy_filter;
mod extension_provider;
mod gateway;
mod mesh_config;
mod mesh_networks;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod wasm_plugin;
mod workload_entry;

pub use authorization_policy::*;
pub use common::*;
pub use crd::crds;
pub use crd_kinds::{CrdInfo, KINDS};
#[cfg(feature = "schemas")]
pub use crd_schema::derived;
pub use destination_rule::*;
pub use duration::Duration;
pub use envoy_filter::*;
pub use extension_provider::*;
pub use gateway::*;
pub use mesh_config::*;
pub use mesh_networks::*;
pub use peer_authentication::*;
pub use proxy_config::*;
pub use request_authentication::*;
pub use service_entry::*;
pub use sidecar::*;
pub use telemetry::*;
pub use virtual_service::*;
pub use wasm_plugin::*;
pub use workload_entry::*;
