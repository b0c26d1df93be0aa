//! Clusters, their hosts and the connections to them.

pub mod cluster;
pub mod connect;
pub mod host;
pub mod pool;

pub use cluster::Cluster;
pub use host::Host;
