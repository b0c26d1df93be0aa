//! What the theater's services share: who they are, how they answer, where they keep things.
//!
//! A service is a [`axum::Router`] given to [`serve`], which adds health endpoints, the routing
//! headers every answer carries, logs, limits and a graceful end.

mod error;
mod fault;
mod identity;
mod json;
mod mesh_client;
mod openapi;
mod outage;
mod path;
mod server;
mod store;
mod trace;

pub use error::{Error, Result};
pub use identity::Identity;
pub use json::{Json, text_field};
pub use mesh_client::MeshClient;
pub use openapi::{Operation, document};
pub use outage::Read;
pub use path::Id;
pub use server::{Forwarded, Service, created, port, run, serve};
pub use store::{Store, write};
pub use trace::TraceContext;
