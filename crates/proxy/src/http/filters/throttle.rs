//! Bodies that pass no faster than they may: `bandwidth_limit`, and the rate of the fault filter.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Sleep;
use xds::envoy::extensions::filters::http::bandwidth_limit::v3 as config;
use xds::envoy::extensions::filters::http::bandwidth_limit::v3::bandwidth_limit::EnableMode;

use crate::body::{Body, BodyError, Frame, Source};
use crate::config::Shared;
use crate::stats::groups::BandwidthStats;

/// How many bytes may pass: so many a second, in portions.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    /// A portion comes so often, and is all there is at the beginning.
    every: Duration,
    state: Mutex<(f64, Option<Instant>)>,
}

impl Bucket {
    /// A bucket for `per_second` bytes.
    pub fn new(per_second: u64, every: Duration) -> Self {
        Self {
            per_second: per_second as f64,
            every,
            state: Mutex::new((0.0, None)),
        }
    }

    /// Takes at most `wanted` bytes; how many, and if none, how long until there are some.
    fn take(&self, wanted: usize, now: Instant) -> (usize, Duration) {
        let portion = (self.per_second * self.every.as_secs_f64()).max(1.0);
        let mut state = self.state.lock();
        let (tokens, filled) = &mut *state;
        match filled {
            None => (*tokens, *filled) = (portion, Some(now)),
            Some(last) => {
                let portions =
                    now.saturating_duration_since(*last).as_secs_f64() / self.every.as_secs_f64();
                if portions >= 1.0 {
                    // A second of silence gives a second's worth and no more.
                    let whole = portions.floor();
                    *tokens = (*tokens + whole * portion).min(self.per_second.max(1.0));
                    *last += self.every.mul_f64(whole);
                }
            }
        }
        let taken = (*tokens as usize).min(wanted);
        *tokens -= taken as f64;
        let next = filled.map_or(Duration::ZERO, |last| {
            (last + self.every).saturating_duration_since(now)
        });
        (taken, next.max(Duration::from_millis(1)))
    }
}

/// Lets a body pass through a bucket.
pub fn throttled(body: Body, bucket: Arc<Bucket>) -> Body {
    if matches!(body, Body::Empty | Body::Tunnel(_)) {
        return body;
    }
    Body::Boxed(Box::new(Throttled {
        body,
        bucket,
        waiting: None,
        sleep: None,
    }))
}

struct Throttled {
    body: Body,
    bucket: Arc<Bucket>,
    waiting: Option<Bytes>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Source for Throttled {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.sleep = None;
            }
            if let Some(data) = &mut self.waiting {
                let (taken, next) = self.bucket.take(data.len(), Instant::now());
                if taken == 0 {
                    self.sleep = Some(Box::pin(tokio::time::sleep(next)));
                    continue;
                }
                let out = data.split_to(taken);
                if data.is_empty() {
                    self.waiting = None;
                }
                return Poll::Ready(Some(Ok(Frame::Data(out))));
            }
            match self.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) if !data.is_empty() => {
                    self.waiting = Some(data);
                }
                other => return other,
            }
        }
    }
}

/// `bandwidth_limit`, compiled.
pub struct BandwidthLimit {
    mode: EnableMode,
    request: Arc<Bucket>,
    response: Arc<Bucket>,
    enabled: bool,
    stat_prefix: String,
    stats: OnceLock<Arc<BandwidthStats>>,
}

impl BandwidthLimit {
    /// Compiles the filter, or its settings for a route.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::BandwidthLimit) -> Result<Self, String> {
        if config.stat_prefix.is_empty() {
            return Err("stat_prefix: is missing".into());
        }
        if config.enable_response_trailers {
            return Err("enable_response_trailers: is not supported".into());
        }
        let mode = EnableMode::try_from(config.enable_mode)
            .map_err(|_| format!("enable_mode: {}", config.enable_mode))?;
        let limit = match (config.limit_kbps, mode) {
            (Some(limit), _) if limit > 0 => limit.saturating_mul(1024),
            (_, EnableMode::Disabled) => 1024,
            _ => return Err("limit_kbps: is missing".into()),
        };
        let every = crate::config::listener::duration(config.fill_interval.as_ref())
            .filter(|every| !every.is_zero())
            .unwrap_or(Duration::from_millis(50));
        let flag = config.runtime_enabled.as_ref();
        Ok(Self {
            mode,
            request: Arc::new(Bucket::new(limit, every)),
            response: Arc::new(Bucket::new(limit, every)),
            enabled: flag.and_then(|flag| flag.default_value).unwrap_or(true),
            stat_prefix: config.stat_prefix.clone(),
            stats: OnceLock::new(),
        })
    }

    fn stats(&self, shared: &Shared) -> &BandwidthStats {
        self.stats.get_or_init(|| {
            let prefix = format!("{}.http_bandwidth_limit", self.stat_prefix);
            shared.stats.group(&prefix)
        })
    }

    /// The bucket for the bodies of requests.
    pub fn request(&self, shared: &Shared) -> Option<Arc<Bucket>> {
        let limited = matches!(
            self.mode,
            EnableMode::Request | EnableMode::RequestAndResponse
        );
        (self.enabled && limited).then(|| {
            self.stats(shared).request_enabled.inc();
            self.request.clone()
        })
    }

    /// The bucket for the bodies of answers.
    pub fn response(&self, shared: &Shared) -> Option<Arc<Bucket>> {
        let limited = matches!(
            self.mode,
            EnableMode::Response | EnableMode::RequestAndResponse
        );
        (self.enabled && limited).then(|| {
            self.stats(shared).response_enabled.inc();
            self.response.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_portions() {
        let every = Duration::from_millis(50);
        let bucket = Bucket::new(1000, every);
        let start = Instant::now();
        assert_eq!(bucket.take(500, start).0, 50, "one portion at first");
        assert_eq!(bucket.take(500, start), (0, every));
        let later = start + Duration::from_millis(75);
        assert_eq!(bucket.take(500, later).0, 50);
        assert_eq!(bucket.take(500, later), (0, Duration::from_millis(25)));
        let silent = start + Duration::from_secs(60);
        assert_eq!(
            bucket.take(5000, silent).0,
            1000,
            "no more than a second's worth"
        );
    }
}
