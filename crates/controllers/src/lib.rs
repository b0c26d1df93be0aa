//! Controllers and scheduler: what makes a cluster do what its objects say.
//!
//! Every decision is a pure function over observed objects; thin loops around them follow the
//! API server and carry the decisions out.

pub mod action;
pub mod certificates;
mod claim;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod graph;
pub mod hpa;
pub mod job;
pub mod node;
mod object;
mod pods;
pub mod queue;
pub mod quota;
pub mod replicaset;
mod revision;
mod run;
pub mod scheduler;
pub mod selector;
pub mod stateful_set;
pub mod volumes;
mod work;

pub use run::{Config, run};
