//! Retries: which outcomes are tried again, after which pause, and on which hosts.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use xds::envoy::config::route::v3::RetryPolicy as Config;
use xds::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff as RateLimitedConfig, retry_host_predicate, retry_priority,
};
use xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::cluster::duration;
use crate::error::ConfigError;
use crate::local_reply::ResetReason;
use crate::matching::HeaderMatch;
use crate::request::{RequestHead, is_steered};

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What is retried: a set of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Conditions(u32);

impl Conditions {
    const FIVE_XX: u32 = 1;
    const GATEWAY_ERROR: u32 = 1 << 1;
    const RESET: u32 = 1 << 2;
    const RESET_BEFORE_REQUEST: u32 = 1 << 3;
    const CONNECT_FAILURE: u32 = 1 << 4;
    const REFUSED_STREAM: u32 = 1 << 5;
    const RETRIABLE_4XX: u32 = 1 << 6;
    const STATUS_CODES: u32 = 1 << 7;
    const HEADERS: u32 = 1 << 8;
    const RATE_LIMITED: u32 = 1 << 9;
    const CANCELLED: u32 = 1 << 10;
    const DEADLINE_EXCEEDED: u32 = 1 << 11;
    const INTERNAL: u32 = 1 << 12;
    const RESOURCE_EXHAUSTED: u32 = 1 << 13;
    const UNAVAILABLE: u32 = 1 << 14;

    /// Words separated by commas, blanks around them do not count; unknown words are ignored.
    fn parse(text: &str) -> Self {
        Self(text.split(',').fold(0, |all, word| {
            all | match word.trim() {
                "5xx" => Self::FIVE_XX,
                "gateway-error" => Self::GATEWAY_ERROR,
                "reset" => Self::RESET,
                "reset-before-request" => Self::RESET_BEFORE_REQUEST,
                "connect-failure" => Self::CONNECT_FAILURE,
                "refused-stream" => Self::REFUSED_STREAM,
                "retriable-4xx" => Self::RETRIABLE_4XX,
                "retriable-status-codes" => Self::STATUS_CODES,
                "retriable-headers" => Self::HEADERS,
                "envoy-ratelimited" => Self::RATE_LIMITED,
                "cancelled" => Self::CANCELLED,
                "deadline-exceeded" => Self::DEADLINE_EXCEEDED,
                "internal" => Self::INTERNAL,
                "resource-exhausted" => Self::RESOURCE_EXHAUSTED,
                "unavailable" => Self::UNAVAILABLE,
                _ => 0,
            }
        }))
    }

    fn has(self, condition: u32) -> bool {
        self.0 & condition != 0
    }
}

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
    /// `rate_limited_retry_back_off`.
    rate_limited: Option<Arc<RateLimitedBackOff>>,
    conditions: Conditions,
    status_codes: Vec<u32>,
    response_headers: Vec<HeaderMatch>,
    request_headers: Vec<HeaderMatch>,
}

/// Headers of answers that say when to come back.
#[derive(Debug, Clone)]
struct RateLimitedBackOff {
    /// Their names, and whether they are points in time instead of spans.
    headers: Vec<(HeaderName, bool)>,
    /// Whoever asks for more is not obeyed.
    max: Duration,
}

impl RateLimitedBackOff {
    fn compile(config: &RateLimitedConfig) -> Result<Self, ConfigError> {
        let headers = config.reset_headers.iter().map(|header| {
            match HeaderName::try_from(header.name.as_str()) {
                Ok(name) => Ok((name, header.format == 1)),
                Err(_) => Err(ConfigError::new(
                    "reset_headers",
                    format!("{:?} is not a header name", header.name),
                )),
            }
        });
        Ok(Self {
            headers: headers.collect::<Result<_, _>>()?,
            max: duration(config.max_interval.as_ref()).unwrap_or(Duration::from_secs(300)),
        })
    }

    /// How long to wait at least; `now` since the Unix epoch.
    fn interval(&self, headers: &HeaderMap, now: Duration) -> Option<Duration> {
        self.headers.iter().find_map(|(name, point)| {
            let seconds: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let interval = if *point {
                Duration::from_secs(seconds).checked_sub(now)?
            } else {
                Duration::from_secs(seconds)
            };
            Some(interval).filter(|interval| *interval <= self.max)
        })
    }
}

impl RetryPolicy {
    /// Compiles a policy. Unknown words in `retry_on` are ignored, as Envoy ignores them.
    pub fn compile(config: &Config) -> Result<Self, ConfigError> {
        let mut avoid_previous_hosts = false;
        for predicate in &config.retry_host_predicate {
            let previous = match &predicate.config_type {
                Some(retry_host_predicate::ConfigType::TypedConfig(any)) => {
                    xds::any::is::<PreviousHostsPredicate>(any)
                }
                None => predicate.name == "envoy.retry_host_predicates.previous_hosts",
            };
            if !previous {
                let problem = format!(
                    "{:?} is not supported; only previous_hosts is",
                    predicate.name
                );
                return Err(ConfigError::new("retry_host_predicate", problem));
            }
            avoid_previous_hosts = true;
        }
        let previous_priorities = match config
            .retry_priority
            .as_ref()
            .map(|priority| (&priority.name, &priority.config_type))
        {
            None => None,
            Some((_, Some(retry_priority::ConfigType::TypedConfig(any))))
                if xds::any::is::<PreviousPrioritiesConfig>(any) =>
            {
                let config = xds::any::unpack::<PreviousPrioritiesConfig>(any)
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                Some(u32::try_from(config.update_frequency).unwrap_or(1).max(1))
            }
            Some((name, _)) => {
                return Err(ConfigError::new(
                    "retry_priority",
                    format!("{name:?} is not supported; only previous_priorities is"),
                ));
            }
        };
        let back_off = config.retry_back_off.as_ref();
        let base = back_off.and_then(|back_off| duration(back_off.base_interval.as_ref()));
        // Less than a millisecond would never wait at all.
        let base_interval = base.map_or(Duration::from_millis(25), |base| {
            base.max(Duration::from_millis(1))
        });
        let max = back_off.and_then(|back_off| duration(back_off.max_interval.as_ref()));
        let max_interval = max.unwrap_or(base_interval * 10);
        if max_interval < base_interval {
            return Err(ConfigError::new(
                "retry_back_off.max_interval",
                "is shorter than base_interval",
            ));
        }
        let headers = |headers: &[xds::envoy::config::route::v3::HeaderMatcher], field: &str| {
            headers
                .iter()
                .map(HeaderMatch::compile)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| e.within(field))
        };
        Ok(Self {
            num_retries: config.num_retries.unwrap_or(1),
            per_try_timeout: duration(config.per_try_timeout.as_ref())
                .filter(|limit| !limit.is_zero()),
            per_try_idle_timeout: duration(config.per_try_idle_timeout.as_ref())
                .filter(|limit| !limit.is_zero()),
            avoid_previous_hosts,
            host_selection_attempts: match config.host_selection_retry_max_attempts {
                0 => 1,
                attempts => u32::try_from(attempts).unwrap_or(1),
            },
            previous_priorities,
            base_interval,
            max_interval,
            rate_limited: config
                .rate_limited_retry_back_off
                .as_ref()
                .map(RateLimitedBackOff::compile)
                .transpose()
                .map_err(|e| e.within("rate_limited_retry_back_off"))?
                .map(Arc::new),
            conditions: Conditions::parse(&config.retry_on),
            status_codes: config.retriable_status_codes.clone(),
            response_headers: headers(&config.retriable_headers, "retriable_headers")?,
            request_headers: headers(
                &config.retriable_request_headers,
                "retriable_request_headers",
            )?,
        })
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
pub struct RetryState {
    conditions: Conditions,
    left: u32,
    started: u32,
    interval: Duration,
    max_interval: Duration,
    rate_limited: Option<Arc<RateLimitedBackOff>>,
    status_codes: Vec<u32>,
    response_headers: Vec<HeaderMatch>,
    header_names: Vec<HeaderName>,
}

impl RetryState {
    /// The state for a request; `None` when nothing can ever be retried. The x-envoy-retry-on,
    /// x-envoy-retry-grpc-on, x-envoy-max-retries and x-envoy-retriable-* headers of the request count.
    /// (They are for trusted callers; the connection manager strips them from external requests.)
    pub fn new(policy: Option<&RetryPolicy>, head: &RequestHead<'_>) -> Option<Self> {
        let steered = is_steered(head.headers);
        let text = |name: &str| {
            let value = steered.then(|| head.headers.get(name))??;
            value.to_str().ok()
        };
        let mut conditions = policy.map_or(0, |policy| policy.conditions.0);
        // A policy for some requests only does not apply to the others.
        if let Some(policy) = policy
            && !policy.request_headers.is_empty()
            && !policy
                .request_headers
                .iter()
                .any(|header| header.matches(head))
        {
            conditions = 0;
        }
        for name in ["x-envoy-retry-on", "x-envoy-retry-grpc-on"] {
            conditions |= text(name).map_or(0, |value| Conditions::parse(value).0);
        }
        if conditions == 0 {
            return None;
        }
        let mut status_codes = policy.map_or(Vec::new(), |policy| policy.status_codes.clone());
        let codes = text("x-envoy-retriable-status-codes").unwrap_or_default();
        status_codes.extend(
            codes
                .split(',')
                .filter_map(|code| code.trim().parse::<u32>().ok()),
        );
        let names = text("x-envoy-retriable-header-names").unwrap_or_default();
        Some(Self {
            conditions: Conditions(conditions),
            left: text("x-envoy-max-retries")
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| policy.map_or(1, |policy| policy.num_retries)),
            started: 0,
            interval: policy.map_or(Duration::from_millis(25), |policy| policy.base_interval),
            max_interval: policy.map_or(Duration::from_millis(250), |policy| policy.max_interval),
            rate_limited: policy.and_then(|policy| policy.rate_limited.clone()),
            status_codes,
            response_headers: policy.map_or(Vec::new(), |policy| policy.response_headers.clone()),
            header_names: names
                .split(',')
                .filter_map(|name| HeaderName::try_from(name.trim()).ok())
                .collect(),
        })
    }

    /// Decides about an attempt that has ended. `acquire` takes a retry from the circuit breaker and is
    /// only asked if the outcome is retriable; `random` is drawn for the jitter.
    pub fn should_retry(
        &mut self,
        attempt: &Attempt<'_>,
        acquire: impl FnOnce() -> bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Decision {
        if !self.retriable(attempt) {
            return Decision::No;
        }
        if self.left == 0 {
            return Decision::LimitExceeded;
        }
        self.left -= 1;
        if !acquire() {
            return Decision::Overflow;
        }
        self.started += 1;
        let limit = u64::try_from(self.interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.interval = (self.interval * 2).min(self.max_interval);
        Decision::Retry {
            after: Duration::from_millis(random() % limit),
        }
    }

    /// Whether an outcome is one of those to be retried, whatever is left.
    pub fn retriable(&self, attempt: &Attempt<'_>) -> bool {
        let on = self.conditions;
        match *attempt {
            Attempt::Response { status, headers } => self.retriable_response(status, headers),
            // Trying again would only add to the overflow.
            Attempt::Reset {
                reason: ResetReason::Overflow,
                ..
            } => false,
            Attempt::Reset {
                reason,
                request_sent,
            } => {
                on.has(Conditions::RESET | Conditions::FIVE_XX | Conditions::GATEWAY_ERROR)
                    || (on.has(Conditions::RESET_BEFORE_REQUEST) && !request_sent)
                    || (on.has(Conditions::REFUSED_STREAM)
                        && reason == ResetReason::RemoteRefusedStreamReset)
                    || (on.has(Conditions::CONNECT_FAILURE)
                        && matches!(
                            reason,
                            ResetReason::RemoteConnectionFailure
                                | ResetReason::LocalConnectionFailure
                                | ResetReason::ConnectionTimeout
                        ))
            }
            Attempt::PerTryTimeout => {
                on.has(Conditions::RESET | Conditions::FIVE_XX | Conditions::GATEWAY_ERROR)
            }
        }
    }

    fn retriable_response(&self, status: u16, headers: &HeaderMap) -> bool {
        let on = self.conditions;
        if headers.contains_key(&RATE_LIMITED) {
            return on.has(Conditions::RATE_LIMITED);
        }
        let grpc = || match headers.get(&GRPC_STATUS)?.to_str().ok()? {
            "1" => Some(Conditions::CANCELLED),
            "4" => Some(Conditions::DEADLINE_EXCEEDED),
            "8" => Some(Conditions::RESOURCE_EXHAUSTED),
            "13" => Some(Conditions::INTERNAL),
            "14" => Some(Conditions::UNAVAILABLE),
            _ => None,
        };
        (on.has(Conditions::FIVE_XX) && (500..600).contains(&status))
            || (on.has(Conditions::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on.has(Conditions::RETRIABLE_4XX) && status == 409)
            || (on.has(Conditions::STATUS_CODES) && self.status_codes.contains(&u32::from(status)))
            || (on.has(Conditions::HEADERS)
                && (self
                    .response_headers
                    .iter()
                    .any(|header| header.matches_headers(headers))
                    || self
                        .header_names
                        .iter()
                        .any(|name| headers.contains_key(name))))
            || grpc().is_some_and(|condition| on.has(condition))
    }

    /// The pause that an answer asks for (`rate_limited_retry_back_off`), with up to half of it on top; it takes the
    /// place of the usual one. `now` since the Unix epoch.
    pub fn asked_pause(
        &self,
        headers: &HeaderMap,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Duration> {
        let interval = self.rate_limited.as_ref()?.interval(headers, now)?;
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        (millis > 1).then(|| interval + Duration::from_millis(random() % (millis / 2)))
    }

    /// How many retries were started.
    pub fn retries(&self) -> u32 {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method};

    fn policy(json: serde_json::Value) -> RetryPolicy {
        RetryPolicy::compile(&xds::json::from_value(json, true).expect("a valid message"))
            .expect("compiles")
    }

    fn state(policy: &RetryPolicy, headers: &HeaderMap) -> Option<RetryState> {
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers,
        };
        RetryState::new(Some(policy), &head)
    }

    const REFUSED: Attempt<'static> = Attempt::Reset {
        reason: ResetReason::RemoteConnectionFailure,
        request_sent: false,
    };

    /// The mesh-wide default of current Istio.
    #[test]
    fn istios_default_does_not_retry_a_plain_503() {
        let istio = policy(
            serde_json::json!({"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            "num_retries": 2, "host_selection_retry_max_attempts": "5",
            "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}),
        );
        assert!(istio.avoid_previous_hosts && istio.host_selection_attempts == 5);
        let mut headers = HeaderMap::new();
        let mut state = state(&istio, &headers).expect("retries");
        assert!(!state.retriable(&Attempt::Response {
            status: 503,
            headers: &headers
        }));
        assert!(!state.retriable(&Attempt::PerTryTimeout));
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        assert!(state.retriable(&Attempt::Response {
            status: 200,
            headers: &headers
        }));
        let mut draws = [24, 49, 0].into_iter();
        let mut next = |state: &mut RetryState| {
            state.should_retry(&REFUSED, || true, &mut || draws.next().expect("a draw"))
        };
        assert_eq!(
            next(&mut state),
            Decision::Retry {
                after: Duration::from_millis(24)
            }
        );
        assert_eq!(
            next(&mut state),
            Decision::Retry {
                after: Duration::from_millis(49)
            },
            "twice the interval"
        );
        assert_eq!(next(&mut state), Decision::LimitExceeded);
        assert_eq!(state.retries(), 2);
    }

    #[test]
    fn istios_inbound_default_retries_only_what_was_never_sent() {
        let inbound =
            policy(serde_json::json!({"retry_on": "reset-before-request", "num_retries": 2}));
        let state = state(&inbound, &HeaderMap::new()).expect("retries");
        let reset = |request_sent| Attempt::Reset {
            reason: ResetReason::ConnectionTermination,
            request_sent,
        };
        assert!(state.retriable(&reset(false)) && !state.retriable(&reset(true)));
    }

    #[test]
    fn status_codes_overflow_and_the_breaker() {
        let codes = policy(
            serde_json::json!({"retry_on": ", retriable-status-codes", "retriable_status_codes": [503], "num_retries": 9}),
        );
        let headers = HeaderMap::new();
        let mut state = state(&codes, &headers).expect("retries");
        let response = Attempt::Response {
            status: 503,
            headers: &headers,
        };
        assert!(!state.retriable(&Attempt::Response {
            status: 500,
            headers: &headers
        }));
        assert_eq!(
            state.should_retry(&response, || false, &mut || 0),
            Decision::Overflow
        );
        let five = policy(serde_json::json!({"retry_on": "5xx"}));
        let state = super::tests::state(&five, &headers).expect("retries");
        assert!(!state.retriable(&Attempt::Reset {
            reason: ResetReason::Overflow,
            request_sent: false
        }));
        assert!(state.retriable(&Attempt::PerTryTimeout) && state.retriable(&REFUSED));
        assert_eq!(state.left, 1, "one retry unless told otherwise");
    }

    #[test]
    fn the_caller_may_ask_for_retries() {
        let none = policy(serde_json::json!({}));
        let mut headers = HeaderMap::new();
        assert!(state(&none, &headers).is_none());
        headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx"));
        headers.insert("x-envoy-max-retries", HeaderValue::from_static("3"));
        let state = state(&none, &headers).expect("retries");
        assert_eq!(state.left, 3);
        assert!(state.retriable(&Attempt::Response {
            status: 500,
            headers: &HeaderMap::new()
        }));
    }
}
