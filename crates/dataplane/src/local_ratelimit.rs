//! Local rate limits: token buckets in this process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as Config;
use xds::envoy::r#type::v3::TokenBucket as BucketConfig;

use crate::cluster::duration;
use crate::descriptors::{Facts, RateLimit};
use crate::error::ConfigError;
use crate::headers::HeaderMutations;
use crate::local_reply::{LOCAL_RATE_LIMITED, LocalReply};
use crate::matching::Fraction;
use crate::request::RequestHead;

/// A bucket that fills evenly, without a lock. Times are durations since an instant of the caller's choice.
#[derive(Debug)]
pub struct TokenBucket {
    max: f64,
    /// Tokens per second.
    rate: f64,
    /// The moment at which the bucket was empty, in seconds (the bits of an `f64`): the number of tokens
    /// follows from it and the present.
    empty_at: AtomicU64,
}

impl Clone for TokenBucket {
    /// A bucket of the same kind, full.
    fn clone(&self) -> Self {
        Self {
            max: self.max,
            rate: self.rate,
            empty_at: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
        }
    }
}

impl TokenBucket {
    /// Compiles a bucket; it starts full.
    pub fn compile(config: &BucketConfig) -> Result<Self, ConfigError> {
        let interval = duration(config.fill_interval.as_ref()).unwrap_or_default();
        if interval < Duration::from_millis(50) {
            return Err(ConfigError::new("fill_interval", "must be at least 50ms"));
        }
        if config.max_tokens == 0 {
            return Err(ConfigError::new("max_tokens", "must be more than 0"));
        }
        let rate = f64::from(config.tokens_per_fill.unwrap_or(1)) / interval.as_secs_f64();
        Ok(Self {
            max: f64::from(config.max_tokens),
            rate,
            empty_at: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
        })
    }

    fn tokens(&self, empty_at: f64, now: f64) -> f64 {
        ((now - empty_at) * self.rate).min(self.max)
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Duration) -> bool {
        let now = now.as_secs_f64();
        let less = |bits: u64| {
            let tokens = self.tokens(f64::from_bits(bits), now);
            (tokens >= 1.0).then(|| (now - (tokens - 1.0) / self.rate).to_bits())
        };
        self.empty_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Whole tokens left.
    pub fn remaining(&self, now: Duration) -> u64 {
        self.tokens(
            f64::from_bits(self.empty_at.load(Ordering::Relaxed)),
            now.as_secs_f64(),
        )
        .max(0.0) as u64
    }

    /// Until the next token; zero when there is one.
    pub fn wait(&self, now: Duration) -> Duration {
        let tokens = self.tokens(
            f64::from_bits(self.empty_at.load(Ordering::Relaxed)),
            now.as_secs_f64(),
        );
        if tokens >= 1.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((1.0 - tokens.max(0.0)) / self.rate)
        }
    }

    /// The size of the bucket.
    pub fn limit(&self) -> u64 {
        self.max as u64
    }
}

/// A local rate limit (of the filter or of a route), compiled, with its buckets.
#[derive(Debug, Clone)]
pub struct LocalRateLimit {
    /// The statistics' prefix: `<stat_prefix>.http_local_rate_limit.*`.
    pub stat_prefix: String,
    /// Whether every downstream connection has buckets of its own.
    pub per_connection: bool,
    status: u16,
    enabled: Fraction,
    enforced: Fraction,
    bucket: Option<Arc<TokenBucket>>,
    descriptors: Vec<Descriptor>,
    always_default: bool,
    rate_limits: Vec<RateLimit>,
    stage: u32,
    exhausted: bool,
    ratelimit_headers: bool,
    retry_after: bool,
    /// `response_headers_to_add`: for the 429.
    pub response_headers: HeaderMutations,
    /// `request_headers_to_add_when_not_enforced`.
    pub unenforced_headers: HeaderMutations,
}

/// A bucket for requests with certain properties.
#[derive(Debug)]
struct Descriptor {
    /// An entry without a value stands for any value.
    entries: Vec<(String, String)>,
    bucket: Arc<TokenBucket>,
    /// Where values are not given: the buckets of those that came, the one used last at the end.
    own: Option<Mutex<Vec<OwnBucket>>>,
    /// How many of these are kept.
    most: usize,
    /// It only watches.
    shadow: bool,
}

/// The values of a request, and the bucket for requests with just these.
type OwnBucket = (Vec<(String, String)>, Arc<TokenBucket>);

impl Clone for Descriptor {
    /// With buckets of its own, all full.
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            bucket: Arc::new((*self.bucket).clone()),
            own: self.own.as_ref().map(|_| Mutex::default()),
            most: self.most,
            shadow: self.shadow,
        }
    }
}

impl Descriptor {
    fn fits(&self, made: &[(String, String)]) -> bool {
        self.entries.len() == made.len()
            && self.entries.iter().zip(made).all(|(wanted, have)| {
                wanted.0 == have.0 && (wanted.1.is_empty() || wanted.1 == have.1)
            })
    }

    /// The bucket for these values.
    fn bucket(&self, made: Vec<(String, String)>) -> Arc<TokenBucket> {
        let Some(own) = &self.own else {
            return self.bucket.clone();
        };
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match own.iter().position(|(values, _)| *values == made) {
            Some(at) => own.remove(at),
            None => {
                if own.len() >= self.most {
                    own.remove(0);
                }
                (made, Arc::new((*self.bucket).clone()))
            }
        };
        let bucket = entry.1.clone();
        own.push(entry);
        bucket
    }
}

/// What came of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The limit is not enabled for it.
    Disabled,
    /// Allowed (`ok`).
    Ok {
        /// x-ratelimit-* headers for the response.
        headers: HeaderMap,
    },
    /// Over the limit (`rate_limited`), but not enforced.
    NotEnforced,
    /// Over the limit and refused (`rate_limited`, `enforced`).
    Limited {
        /// The answer.
        reply: LocalReply,
        /// x-ratelimit-* headers for it.
        headers: HeaderMap,
    },
}

impl LocalRateLimit {
    /// Compiles a configuration. `None`: it has neither bucket nor descriptors and never limits anything.
    pub fn compile(config: &Config) -> Result<Option<Self>, ConfigError> {
        if config.token_bucket.is_none() && config.descriptors.is_empty() {
            return Ok(None);
        }
        if config.local_cluster_rate_limit.is_some() {
            return Err(ConfigError::new(
                "local_cluster_rate_limit",
                "is not supported",
            ));
        }
        let bucket = config
            .token_bucket
            .as_ref()
            .map(TokenBucket::compile)
            .transpose()
            .map_err(|e| e.within("token_bucket"))?
            .map(Arc::new);
        let mut descriptors = Vec::new();
        for (index, descriptor) in config.descriptors.iter().enumerate() {
            let at =
                |error: ConfigError| error.within(&format!("descriptors[{index}].token_bucket"));
            let bucket = descriptor
                .token_bucket
                .as_ref()
                .ok_or_else(|| at(ConfigError::new("", "is missing")))?;
            let entries: Vec<_> = descriptor
                .entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.clone()))
                .collect();
            let any = entries.iter().any(|(_, value)| value.is_empty());
            descriptors.push(Descriptor {
                entries,
                bucket: Arc::new(TokenBucket::compile(bucket).map_err(at)?),
                own: any.then(Mutex::default),
                most: config.max_dynamic_descriptors.unwrap_or(20).max(1) as usize,
                shadow: descriptor.shadow_mode,
            });
        }
        let status = config
            .status
            .as_ref()
            .and_then(|status| u16::try_from(status.code).ok());
        Ok(Some(Self {
            stat_prefix: config.stat_prefix.clone(),
            per_connection: config.local_rate_limit_per_downstream_connection,
            // Less than 400 would not look like a refusal.
            status: status.filter(|status| *status >= 400).unwrap_or(429),
            enabled: Fraction::of_runtime(config.filter_enabled.as_ref(), Fraction::NONE),
            enforced: Fraction::of_runtime(config.filter_enforced.as_ref(), Fraction::NONE),
            bucket,
            descriptors,
            always_default: config.always_consume_default_token_bucket.unwrap_or(true),
            rate_limits: RateLimit::compile_all(&config.rate_limits)?,
            stage: config.stage,
            exhausted: config.rate_limited_as_resource_exhausted,
            ratelimit_headers: config.enable_x_ratelimit_headers == 1,
            retry_after: config.enable_retry_after_header,
            response_headers: HeaderMutations::compile(&config.response_headers_to_add, &[])
                .map_err(|e| e.within("response_headers_to_add"))?,
            unenforced_headers: HeaderMutations::compile(
                &config.request_headers_to_add_when_not_enforced,
                &[],
            )
            .map_err(|e| e.within("request_headers_to_add_when_not_enforced"))?,
        }))
    }

    /// The same limit with full buckets of its own.
    pub fn fresh(&self) -> Self {
        Self {
            bucket: self
                .bucket
                .as_ref()
                .map(|bucket| Arc::new((**bucket).clone())),
            ..self.clone()
        }
    }

    /// Counts a request. `route` are the rate limits of its route, used unless the filter has its own.
    pub fn check(
        &self,
        head: &RequestHead<'_>,
        facts: &Facts<'_>,
        route: &[RateLimit],
        now: Duration,
        random: &mut dyn FnMut() -> u64,
    ) -> Verdict {
        if !self.enabled.draw(random) {
            return Verdict::Disabled;
        }
        let (allowed, bucket) = self.consume(head, facts, route, now);
        let mut headers = HeaderMap::new();
        if let (true, Some(bucket)) = (self.ratelimit_headers, &bucket) {
            let mut set = |name: &'static str, value: u64| {
                headers.insert(HeaderName::from_static(name), HeaderValue::from(value))
            };
            set("x-ratelimit-limit", bucket.limit());
            set("x-ratelimit-remaining", bucket.remaining(now));
            set(
                "x-ratelimit-reset",
                bucket.wait(now).as_secs_f64().ceil() as u64,
            );
        }
        if allowed {
            return Verdict::Ok { headers };
        }
        if !self.enforced.draw(random) {
            return Verdict::NotEnforced;
        }
        if let (true, Some(bucket)) = (self.retry_after, &bucket) {
            let wait = bucket.wait(now).as_secs_f64().ceil() as u64;
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(wait));
        }
        Verdict::Limited {
            reply: LocalReply {
                status: self.status,
                grpc_status: self.exhausted.then_some(8),
                ..LOCAL_RATE_LIMITED
            },
            headers,
        }
    }

    /// Whether the request is allowed, and the bucket that says so.
    fn consume(
        &self,
        head: &RequestHead<'_>,
        facts: &Facts<'_>,
        route: &[RateLimit],
        now: Duration,
    ) -> (bool, Option<Arc<TokenBucket>>) {
        let mut matched = None;
        if !self.descriptors.is_empty() {
            let limits = if self.rate_limits.is_empty() {
                route
            } else {
                &self.rate_limits
            };
            let mut hits: Vec<(Arc<TokenBucket>, bool)> = Vec::new();
            for made in limits
                .iter()
                .filter(|limit| limit.stage == self.stage)
                .filter_map(|limit| limit.descriptor(head, facts))
            {
                let fitting = self.descriptors.iter().find(|one| one.fits(&made));
                hits.extend(fitting.map(|one| (one.bucket(made), one.shadow)));
            }
            // The strictest is asked first.
            hits.sort_by(|a, b| a.0.rate.total_cmp(&b.0.rate));
            for (bucket, shadow) in &hits {
                if !bucket.take(now) && !shadow {
                    return (false, Some(bucket.clone()));
                }
            }
            matched = hits.into_iter().next().map(|(bucket, _)| bucket);
        }
        match &self.bucket {
            Some(bucket) if matched.is_none() || self.always_default => {
                if bucket.take(now) {
                    (true, Some(matched.unwrap_or_else(|| bucket.clone())))
                } else {
                    (false, Some(bucket.clone()))
                }
            }
            _ => (true, matched),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::{Value, json};

    fn limit(json: Value) -> LocalRateLimit {
        LocalRateLimit::compile(&xds::json::from_value(json, true).expect("a valid message"))
            .expect("compiles")
            .expect("limits")
    }

    fn all() -> Value {
        json!({"default_value": {"numerator": 100}})
    }

    fn check(limit: &LocalRateLimit, headers: &HeaderMap, seconds: u64) -> Verdict {
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers,
        };
        let none = crate::stream::Metadata::new();
        let facts = Facts {
            remote: "192.0.2.1".parse().unwrap(),
            cluster: "c",
            source_cluster: "",
            metadata: &none,
            route_metadata: &none,
        };
        limit.check(
            &head,
            &facts,
            &[],
            Duration::from_secs(seconds),
            &mut || panic!("no draw is needed"),
        )
    }

    /// Measured on Envoy: 2 tokens in 60 seconds.
    #[test]
    fn two_requests_a_minute() {
        let limit = limit(
            json!({"stat_prefix": "s", "token_bucket": {"max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "60s"},
            "filter_enabled": all(), "filter_enforced": all(), "enable_x_ratelimit_headers": "DRAFT_VERSION_03"}),
        );
        let none = HeaderMap::new();
        let number = |headers: &HeaderMap, name: &str| {
            headers[name].to_str().unwrap().parse::<u64>().unwrap()
        };
        let Verdict::Ok { headers } = check(&limit, &none, 0) else {
            panic!("allowed")
        };
        assert_eq!(
            (
                number(&headers, "x-ratelimit-limit"),
                number(&headers, "x-ratelimit-remaining"),
                number(&headers, "x-ratelimit-reset")
            ),
            (2, 1, 0)
        );
        let Verdict::Ok { headers } = check(&limit, &none, 0) else {
            panic!("allowed")
        };
        assert_eq!(
            (
                number(&headers, "x-ratelimit-remaining"),
                number(&headers, "x-ratelimit-reset")
            ),
            (0, 30)
        );
        let Verdict::Limited { reply, .. } = check(&limit, &none, 0) else {
            panic!("limited")
        };
        assert_eq!(
            (reply.status, &*reply.body, reply.flags.short().as_str()),
            (429, "local_rate_limited", "RL")
        );
        assert!(matches!(check(&limit, &none, 29), Verdict::Limited { .. }));
        assert!(matches!(check(&limit, &none, 31), Verdict::Ok { .. }));
        assert!(matches!(check(&limit, &none, 32), Verdict::Limited { .. }));
    }

    #[test]
    fn it_does_nothing_unless_enabled_and_enforced() {
        let bucket = json!({"max_tokens": 1, "fill_interval": "60s"});
        let off = limit(json!({"stat_prefix": "s", "token_bucket": bucket}));
        assert!((0..3).all(|_| matches!(check(&off, &HeaderMap::new(), 0), Verdict::Disabled)));
        let lenient =
            limit(json!({"stat_prefix": "s", "token_bucket": bucket, "filter_enabled": all()}));
        assert!(matches!(
            check(&lenient, &HeaderMap::new(), 0),
            Verdict::Ok { .. }
        ));
        assert!(matches!(
            check(&lenient, &HeaderMap::new(), 0),
            Verdict::NotEnforced
        ));
    }

    #[test]
    fn descriptors_have_buckets_of_their_own() {
        let limit = limit(
            json!({"stat_prefix": "s", "filter_enabled": all(), "filter_enforced": all(),
            "token_bucket": {"max_tokens": 100, "fill_interval": "60s"},
            "descriptors": [{"entries": [{"key": "user", "value": "bob"}], "token_bucket": {"max_tokens": 1, "fill_interval": "60s"}}],
            "rate_limits": [{"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}]}),
        );
        let user = |name: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static("x-user"),
                HeaderValue::from_static(name),
            )])
        };
        assert!(matches!(check(&limit, &user("bob"), 0), Verdict::Ok { .. }));
        assert!(matches!(
            check(&limit, &user("bob"), 0),
            Verdict::Limited { .. }
        ));
        assert!(matches!(check(&limit, &user("eve"), 0), Verdict::Ok { .. }));
        assert!(matches!(
            check(&limit, &HeaderMap::new(), 0),
            Verdict::Ok { .. }
        ));
    }

    #[test]
    fn a_filter_without_buckets_never_limits() {
        let config = Config {
            stat_prefix: "s".into(),
            ..Default::default()
        };
        assert!(
            LocalRateLimit::compile(&config)
                .expect("compiles")
                .is_none()
        );
    }
}
