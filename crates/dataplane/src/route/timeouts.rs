//! How long a request may take.

use std::time::Duration;

use http::HeaderMap;
use xds::envoy::config::route::v3::{RouteAction, route_action::MaxStreamDuration};

use super::Route;
use crate::cluster::duration;
use crate::request::{RequestHead, is_steered};

/// The timeouts of one request; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// For the whole request with all retries: 504 `UT`.
    pub global: Option<Duration>,
    /// For each try.
    pub per_try: Option<Duration>,
    /// For the stream, whether or not its response has begun: 504 `UMSDR`.
    pub max_stream: Option<Duration>,
}

impl Timeouts {
    /// The value of x-envoy-expected-rq-timeout-ms for a try that begins `elapsed` after the request.
    pub fn expected(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.global.map(|global| global.saturating_sub(elapsed));
        match (self.per_try, left) {
            (Some(per_try), Some(left)) => Some(per_try.min(left)),
            (per_try, left) => per_try.or(left),
        }
    }
}

/// `max_stream_duration` of a route.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StreamLimits {
    /// It replaces the route's timeout altogether.
    set: bool,
    limit: Option<Duration>,
    grpc_max: Option<Duration>,
    grpc_offset: Option<Duration>,
    /// Of the older fields beside the timeout.
    max_grpc_timeout: Option<Duration>,
    grpc_timeout_offset: Option<Duration>,
}

impl StreamLimits {
    /// None where nothing is limited.
    // The older fields are what most configurations have.
    #[allow(deprecated)]
    pub(super) fn compile(action: &RouteAction) -> Option<Box<Self>> {
        let config = action.max_stream_duration.as_ref();
        let of = |field: fn(&MaxStreamDuration) -> Option<&xds::prost_types::Duration>| {
            duration(config.and_then(field))
        };
        let limits = Self {
            set: config.is_some_and(|config| config.max_stream_duration.is_some()),
            limit: of(|config| config.max_stream_duration.as_ref()),
            grpc_max: of(|config| config.grpc_timeout_header_max.as_ref()),
            grpc_offset: of(|config| config.grpc_timeout_header_offset.as_ref()),
            max_grpc_timeout: duration(action.max_grpc_timeout.as_ref()),
            grpc_timeout_offset: duration(action.grpc_timeout_offset.as_ref()),
        };
        // Without these two the others are not looked at.
        (limits.set || limits.max_grpc_timeout.is_some()).then(|| Box::new(limits))
    }
}

impl Route {
    /// The timeouts of a request: the route's, changed by grpc-timeout, x-envoy-upstream-rq-timeout-ms and
    /// x-envoy-upstream-rq-per-try-timeout-ms.
    pub fn timeouts(&self, head: &RequestHead<'_>) -> Timeouts {
        let some = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
        let none = StreamLimits::default();
        let limits = self.max_stream.as_deref().unwrap_or(&none);
        let grpc = head.is_grpc();
        let mut timeouts = Timeouts {
            per_try: self.retry.as_ref().and_then(|retry| retry.per_try_timeout),
            ..Default::default()
        };
        if limits.set {
            timeouts.max_stream = match limits.grpc_max.filter(|_| grpc) {
                Some(max) => grpc_timeout(head.headers)
                    .map(|asked| asked.saturating_sub(limits.grpc_offset.unwrap_or_default()))
                    .map_or(some(max), |asked| {
                        Some(some(max).map_or(asked, |max| asked.min(max)))
                    }),
                None => limits.limit.and_then(some),
            };
        } else if let (true, Some(max)) = (grpc, limits.max_grpc_timeout) {
            let asked = grpc_timeout(head.headers).map(|asked| match limits.grpc_timeout_offset {
                Some(offset) if asked > offset => asked - offset,
                _ => asked,
            });
            timeouts.global = match (asked.and_then(some), some(max)) {
                (Some(asked), Some(max)) => Some(asked.min(max)),
                (asked, max) => asked.or(max),
            };
        } else {
            timeouts.global = self.timeout;
        }
        if is_steered(head.headers) {
            if let Some(asked) = millis(head.headers, "x-envoy-upstream-rq-timeout-ms") {
                timeouts.global = some(asked);
            }
            if let Some(asked) = millis(head.headers, "x-envoy-upstream-rq-per-try-timeout-ms") {
                timeouts.per_try = some(asked);
            }
        }
        if let (Some(per_try), Some(global)) = (timeouts.per_try, timeouts.global)
            && per_try >= global
        {
            timeouts.per_try = None;
        }
        timeouts
    }
}

fn millis(headers: &HeaderMap, name: &str) -> Option<Duration> {
    headers
        .get(name)?
        .to_str()
        .ok()?
        .parse()
        .ok()
        .map(Duration::from_millis)
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
