//! The xDS client: aggregated discovery, incremental or state of the world, with acknowledgements and reconnection.

pub mod ads;
pub mod channel;

pub use ads::{Mode, TargetSource, run};
pub use channel::Target;
