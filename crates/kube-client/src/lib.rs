//! A thin client of the Kubernetes API: requests, watches and an informer over JSON values.
//!
//! Objects are [`serde_json::Value`], so that nothing an API server says is lost on the way.

mod auth;
pub mod backoff;
mod client;
mod config;
pub mod discovery;
mod error;
pub mod events;
mod exchange;
mod kubeconfig;
mod lean;
mod params;
mod port_forward;
mod resource;
mod store;
mod transport;
pub mod watch;

pub use backoff::Backoff;
pub use client::{Client, List};
pub use config::{Auth, Config, Impersonate};
pub use error::{Error, Result};
pub use exchange::exchange;
pub use kubeconfig::Kubeconfig;
pub use params::{DeleteOptions, ListParams, PatchType, Preconditions, Propagation, WatchParams};
pub use port_forward::PortForward;
pub use resource::*;
pub use store::{Store, StoreEvent, Subscription};
pub use watch::{Event, WatchConnection};

pub use http::{Method, StatusCode};
