//! Carries out what the pods' state machines decide.

mod attach;
pub(crate) mod claims;
mod container;
mod context;
mod hooks;
mod manager;
mod probing;
mod volumes;
mod worker;

pub use attach::AttachHub;
pub use context::{Engine, EngineConfig, Live, PodHandle, Stores};
pub use manager::manage;
