//! Nouns and pure Kubernetes API machinery.
//!
//! Objects are [`serde_json::Value`] so that unknown fields survive; typed structs are re-exported from `k8s-openapi`
//! as [`k8s`] for places where typed access reads better. Nothing in here does I/O, reads a clock or draws a random number:
//! time, uids and revisions are arguments.

pub use k8s_openapi as k8s;

pub mod istio;
