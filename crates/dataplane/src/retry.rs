//! Retries: which outcomes are tried again, after which pause, and on which hosts.

use std::time::Duration;

use http::HeaderMap;
use xds::envoy::config::route::v3::RetryPolicy as Config;

use crate::error::ConfigError;
use crate::local_reply::ResetReason;
use crate::request::RequestHead;

/// A retry policy, compiled.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// `num_retries`, 1 by default.
    pub num_retries: u32,
    /// `per_try_timeout`; `None` is no limit.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`.
    pub per_try_idle_timeout: Option<Duration>,
    /// Whether hosts that were tried are avoided (`previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// How often a host is drawn anew to avoid a previous one.
    pub host_selection_attempts: u32,
    /// `previous_priorities` with this update frequency.
    pub previous_priorities: Option<u32>,
    /// The base interval of the back-off, 25 ms by default.
    pub base_interval: Duration,
    /// The longest pause, ten times the base by default.
    pub max_interval: Duration,
}

impl RetryPolicy {
    /// Compiles a policy. Unknown words in `retry_on` are ignored, as Envoy ignores them.
    pub fn compile(config: &Config) -> Result<Self, ConfigError> {
        unimplemented!("{config:?}")
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// Response headers came.
    Response {
        /// The HTTP status.
        status: u16,
        /// The headers (grpc-status, x-envoy-ratelimited, retriable headers).
        headers: &'a HeaderMap,
    },
    /// It was reset.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Whether some of the request had reached the upstream (`reset-before-request`).
        request_sent: bool,
    },
    /// The per-try timeout expired.
    PerTryTimeout,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this pause.
    Retry {
        /// The back-off.
        after: Duration,
    },
    /// This outcome is not retried: pass it on.
    No,
    /// It would be, but all retries are used up (`URX`, `upstream_rq_retry_limit_exceeded`).
    LimitExceeded,
    /// It would be, but the circuit breaker has no retry left (`UO` is not set; `upstream_rq_retry_overflow`).
    Overflow,
}

/// The retries of one request.
#[derive(Debug)]
pub struct RetryState {}

impl RetryState {
    /// The state for a request; `None` when nothing can ever be retried. The x-envoy-retry-on,
    /// x-envoy-retry-grpc-on, x-envoy-max-retries and x-envoy-retriable-* headers of the request count.
    /// (They are for trusted callers; the connection manager strips them from external requests.)
    pub fn new(policy: Option<&RetryPolicy>, head: &RequestHead<'_>) -> Option<Self> {
        unimplemented!("{policy:?} {head:?}")
    }

    /// Decides about an attempt that has ended. `acquire` takes a retry from the circuit breaker and is
    /// only asked if the outcome is retriable; `random` is drawn for the jitter.
    pub fn should_retry(
        &mut self,
        attempt: &Attempt<'_>,
        acquire: impl FnOnce() -> bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Decision {
        let _ = (attempt, acquire(), random());
        unimplemented!()
    }

    /// How many retries were started.
    pub fn retries(&self) -> u32 {
        unimplemented!()
    }
}
