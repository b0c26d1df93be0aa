//! `health_check`: requests that ask whether this proxy is well.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use dataplane::ResponseFlags;
use dataplane::local_reply::{self, LocalReply};
use dataplane::matching::HeaderMatch;
use dataplane::request::RequestHead;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use xds::envoy::extensions::filters::http::health_check::v3 as config;

use crate::config::Shared;

const FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// The filter, compiled.
pub struct HealthCheck {
    /// Somebody else answers.
    pass: bool,
    headers: Vec<HeaderMatch>,
}

/// What becomes of a request.
pub enum Outcome {
    /// It is no health check; headers for its answer.
    Traffic(HeaderMap),
    /// It is one that goes on; headers for its answer.
    Pass(HeaderMap),
    /// It is answered here.
    Answer(LocalReply, HeaderMap),
}

impl HealthCheck {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::HealthCheck) -> Result<Self, String> {
        let pass = config.pass_through_mode;
        let pass = pass.ok_or("pass_through_mode: is missing")?;
        if config.cache_time.is_some() {
            return Err("cache_time: is not supported".into());
        }
        if !config.cluster_min_healthy_percentages.is_empty() {
            return Err("cluster_min_healthy_percentages: is not supported".into());
        }
        let header = |(index, header)| {
            HeaderMatch::compile(header).map_err(|error| format!("headers[{index}]: {error}"))
        };
        let headers = config.headers.iter().enumerate().map(header);
        Ok(Self {
            pass,
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    /// Looks at a request.
    pub fn check(&self, head: &RequestHead<'_>, shared: &Shared) -> Outcome {
        let failed = shared.health_failed.load(Ordering::Relaxed);
        let mut headers = HeaderMap::new();
        if failed {
            headers.insert(FAIL, HeaderValue::from_static("true"));
        }
        if !self.headers.iter().all(|header| header.matches(head)) {
            return Outcome::Traffic(headers);
        }
        if let Ok(name) = HeaderValue::try_from(&shared.node.cluster) {
            headers.insert(CLUSTER, name);
        }
        if self.pass {
            return Outcome::Pass(headers);
        }
        let reply = LocalReply {
            status: if failed { 503 } else { 200 },
            body: "".into(),
            flags: match failed {
                true => ResponseFlags::FAILED_LOCAL_HEALTH_CHECK,
                false => ResponseFlags::NONE,
            },
            details: Cow::Borrowed(match failed {
                true => "health_check_failed",
                false => "health_check_ok",
            }),
            ..local_reply::ROUTE_NOT_FOUND
        };
        Outcome::Answer(reply, headers)
    }
}
