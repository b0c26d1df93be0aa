//! What pilot-agent does: it makes the bootstrap from the pod's environment, gets the workload's certificate, connects
//! the proxy to istiod and answers health checks. Proxy and agent are one process here, unless the image has an Envoy.

mod bootstrap;
mod ca;
mod command;
mod environment;
mod envoy;
mod fetch;
mod probes;
mod sds;
mod status;

pub use bootstrap::bootstrap;
pub use command::main;
pub use environment::Environment;
pub use envoy::VARIABLE as ENVOY_VARIABLE;

/// The version this agent says it is: that of the control plane whose protocol it speaks.
pub const ISTIO_VERSION: &str = "1.31.0";
