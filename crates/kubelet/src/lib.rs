//! The node agent: runs the pods of one node and speaks for them.
pub mod catalog;
pub mod clock;
pub mod cri;
pub mod dns;
pub mod env;
pub mod ipam;
pub mod logs;
pub mod pod_sync;
pub mod probes;
pub mod quantity;
