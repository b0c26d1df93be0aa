//! Fault injection: delays and aborts drawn per request.

use std::time::Duration;

use xds::envoy::extensions::filters::http::fault::v3::HttpFault;

use crate::error::ConfigError;
use crate::local_reply::LocalReply;
use crate::request::RequestHead;

/// A fault configuration (of the filter or of a route), compiled.
#[derive(Debug, Clone)]
pub struct Fault {}

/// What is injected into one request: first the delay, then the abort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    /// Wait so long first (`DI`).
    pub delay: Option<Duration>,
    /// Then answer this (`FI`).
    pub abort: Option<LocalReply>,
}

impl Fault {
    /// Compiles a configuration.
    pub fn compile(config: &HttpFault) -> Result<Self, ConfigError> {
        unimplemented!("{config:?}")
    }

    /// Draws delay and abort for a request, independently of each other. `upstream_cluster` is the
    /// cluster the route chose, `active` the number of faults in progress (`max_active_faults`).
    pub fn draw(
        &self,
        head: &RequestHead<'_>,
        upstream_cluster: &str,
        active: u64,
        random: &mut dyn FnMut() -> u64,
    ) -> Injection {
        unimplemented!("{head:?} {upstream_cluster} {active} {}", random())
    }
}
