//! Nouns and pure Kubernetes API machinery.
//!
//! Objects are [`serde_json::Value`] so that unknown fields survive; typed structs are re-exported from `k8s-openapi`
//! as [`k8s`] for places where typed access reads better. Nothing in here does I/O, reads a clock or draws a random number:
//! time, uids and revisions are arguments.
//!
//! The way of a write through the modules, in order:
//! [`prune::decode`] (unknown fields, types) → [`patch`] when it is one → [`defaults`] → admission (not here) →
//! [`validate`] → storage (not here) → [`table`] when the client asked for one.

pub use k8s_openapi as k8s;

pub mod autoscaling;
pub mod cel;
pub mod cron;
pub mod defaults;
pub mod discovery;
pub mod field;
pub mod flowcontrol;
pub mod go;
pub mod istio;
pub mod jsonpath;
pub mod limits;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod prune;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod schema;
pub mod scheme;
pub mod selector;
pub mod status;
pub mod storage;
pub mod table;
pub mod time;
pub mod validate;
