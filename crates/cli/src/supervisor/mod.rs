//! `theater up`: owns the lifecycle of the clusters, the host-facing sockets and the initial scene.

pub mod apply;
pub mod authorities;
pub mod control;
pub mod kubeconfig;
pub mod ports;
pub mod relay;
pub mod scene;

mod progress;
mod run;

pub use run::{Options, RunFile, open_and_enter, program, run};
