//! The node agent: runs the pods of one node and speaks for them.
pub mod catalog;
pub mod clock;
pub mod env;
pub mod ipam;
pub mod pod_sync;
pub mod quantity;
