//! `ratelimit`: a rate limit service counts, for all proxies together.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ResponseFlags;
use dataplane::descriptors::{Facts, RateLimit as Limits};
use dataplane::lists::Direction;
use dataplane::local_reply::LocalReply;
use dataplane::matching::{Fraction, struct_to_json};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use xds::envoy::config::core::v3::HeaderValue as HeaderConfig;
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor};
use xds::envoy::extensions::filters::http::ratelimit::v3 as config;
use xds::envoy::service::ratelimit::v3::rate_limit_response::{Code, rate_limit::Unit};
use xds::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use super::super::callout::GrpcTarget;
use super::super::connection::{Answer, Connection, Flow};
use super::super::record::Record;
use super::FilterContext;
use super::ext_authz::{mutate, options};
use crate::stats::groups::RateLimitStats;

const SHOULD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The filter, compiled.
pub struct RateLimit {
    service: GrpcTarget,
    domain: String,
    stage: u32,
    /// `internal` or `external`; empty for both.
    request_type: String,
    deny_on_error: bool,
    status_on_error: u16,
    exhausted: bool,
    x_ratelimit: bool,
    no_ratelimited: bool,
    status: u16,
    response: Vec<(HeaderName, HeaderValue, HeaderAppendAction)>,
    enabled: Fraction,
    enforced: Fraction,
    limits: Vec<Limits>,
}

/// What a route says.
pub struct PerRoute {
    domain: String,
    limits: Vec<Limits>,
}

impl RateLimit {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::RateLimit, _: &FilterContext<'_>) -> Result<Self, String> {
        for (field, set) in [
            (
                "failure_mode_deny_percent",
                config.failure_mode_deny_percent.is_some(),
            ),
            (
                "enable_retry_after_header",
                config.enable_retry_after_header,
            ),
        ] {
            if set {
                return Err(format!("{field}: is not supported"));
            }
        }
        if config.domain.is_empty() {
            return Err("domain: is missing".into());
        }
        let service = config
            .rate_limit_service
            .as_ref()
            .ok_or("rate_limit_service: is missing")?;
        let timeout = crate::config::listener::duration(config.timeout.as_ref())
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(Duration::from_millis(20));
        let status = |status: &Option<xds::envoy::r#type::v3::HttpStatus>, default: u16| {
            status
                .as_ref()
                .and_then(|status| u16::try_from(status.code).ok())
                .filter(|status| *status >= 400)
                .unwrap_or(default)
        };
        let all = Fraction::compile(Some(&xds::envoy::r#type::v3::FractionalPercent {
            numerator: 100,
            denominator: 0,
        }));
        Ok(Self {
            service: GrpcTarget::compile(service.grpc_service.as_ref(), timeout)
                .map_err(|error| format!("rate_limit_service.{error}"))?,
            domain: config.domain.clone(),
            stage: config.stage,
            request_type: match config.request_type.as_str() {
                "both" | "" => String::new(),
                "internal" | "external" => config.request_type.clone(),
                other => return Err(format!("request_type: {other:?} is not one")),
            },
            deny_on_error: config.failure_mode_deny,
            status_on_error: status(&config.status_on_error, 500),
            exhausted: config.rate_limited_as_resource_exhausted,
            x_ratelimit: config.enable_x_ratelimit_headers == 1,
            no_ratelimited: config.disable_x_envoy_ratelimited_header,
            status: status(&config.rate_limited_status, 429),
            response: options(&config.response_headers_to_add),
            enabled: Fraction::of_runtime(config.filter_enabled.as_ref(), all),
            enforced: Fraction::of_runtime(config.filter_enforced.as_ref(), all),
            limits: Limits::compile_all(&config.rate_limits).map_err(|error| error.to_string())?,
        })
    }

    /// Asks the service about a request.
    pub async fn run(
        &self,
        conn: &Rc<Connection>,
        record: &mut Record,
        flow: &mut Flow,
        per_route: Option<&PerRoute>,
    ) -> Option<Answer> {
        if !self.enabled.draw(&mut || conn.worker.random()) {
            return None;
        }
        let internal = record
            .head
            .headers
            .get("x-envoy-internal")
            .is_some_and(|value| value == "true");
        match self.request_type.as_str() {
            "internal" if !internal => return None,
            "external" if internal => return None,
            _ => {}
        }
        let descriptors = self.descriptors(conn, record, per_route);
        if descriptors.is_empty() {
            return None;
        }
        let request = RateLimitRequest {
            domain: per_route
                .map(|route| &route.domain)
                .filter(|domain| !domain.is_empty())
                .unwrap_or(&self.domain)
                .clone(),
            descriptors,
            hits_addend: 0,
        };
        let stats = record
            .cluster
            .as_ref()
            .map(|cluster| -> Arc<RateLimitStats> {
                conn.shared
                    .stats
                    .group(&format!("cluster.{}.ratelimit", cluster.config.stat_name))
            });
        let answer = self
            .service
            .unary::<RateLimitResponse>(&conn.worker, &conn.shared, SHOULD, &request)
            .await;
        let count = |of: fn(&RateLimitStats) -> &crate::stats::Counter| {
            if let Some(stats) = &stats {
                of(stats).inc();
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!("ratelimit: {}: {error}", self.service.cluster);
                count(|stats| &stats.error);
                if !self.deny_on_error {
                    count(|stats| &stats.failure_mode_allowed);
                    return None;
                }
                return Some(Answer::Local(LocalReply {
                    status: self.status_on_error,
                    body: "".into(),
                    flags: ResponseFlags::RATELIMIT_SERVICE_ERROR,
                    details: "rate_limiter_error".into(),
                    headers: &[],
                    grpc_status: None,
                }));
            }
        };
        if let Some(metadata) = &answer.dynamic_metadata {
            record.metadata.insert(
                "envoy.filters.http.ratelimit".to_owned(),
                struct_to_json(metadata).into(),
            );
        }
        let mut headers = plain(&answer.response_headers_to_add);
        if self.x_ratelimit {
            headers.extend(limit_headers(&answer));
        }
        if answer.overall_code != Code::OverLimit as i32 {
            count(|stats| &stats.ok);
            for (name, value, action) in plain(&answer.request_headers_to_add) {
                mutate(
                    &mut record.head.headers,
                    name,
                    value,
                    action,
                    Direction::Request,
                );
            }
            if !headers.is_empty() {
                flow.response.push(super::ResponseStep::Headers(headers));
            }
            return None;
        }
        count(|stats| &stats.over_limit);
        if !self.enforced.draw(&mut || conn.worker.random()) {
            return None;
        }
        let mut out = HeaderMap::new();
        if !self.no_ratelimited {
            out.insert("x-envoy-ratelimited", HeaderValue::from_static("true"));
        }
        for (name, value, action) in headers.into_iter().chain(self.response.iter().cloned()) {
            mutate(&mut out, name, value, action, Direction::Response);
        }
        let reply = LocalReply {
            status: self.status,
            body: String::from_utf8_lossy(&answer.raw_body)
                .into_owned()
                .into(),
            flags: ResponseFlags::RATE_LIMITED,
            details: "request_rate_limited".into(),
            headers: &[],
            grpc_status: self.exhausted.then_some(8),
        };
        Some(Answer::Refused(reply, out))
    }

    fn descriptors(
        &self,
        conn: &Connection,
        record: &Record,
        per_route: Option<&PerRoute>,
    ) -> Vec<RateLimitDescriptor> {
        let none = dataplane::stream::Metadata::new();
        let route = record.route.as_deref();
        let facts = Facts {
            remote: record.remote.unwrap_or(conn.info.remote).ip(),
            cluster: record.cluster_name.as_deref().unwrap_or_default(),
            source_cluster: &conn.shared.node.cluster,
            metadata: &record.metadata,
            route_metadata: route.map_or(&none, |route| &*route.metadata),
        };
        let limits = match per_route {
            Some(per_route) if !per_route.limits.is_empty() => &per_route.limits[..],
            _ if !self.limits.is_empty() => &self.limits[..],
            _ => route.map_or(&[][..], |route| &route.rate_limits[..]),
        };
        limits
            .iter()
            .filter(|limit| limit.stage == self.stage)
            .filter_map(|limit| limit.descriptor(&record.head.view(), &facts))
            .filter(|entries| !entries.is_empty())
            .map(|entries| RateLimitDescriptor {
                entries: entries
                    .into_iter()
                    .map(|(key, value)| rate_limit_descriptor::Entry { key, value })
                    .collect(),
                ..RateLimitDescriptor::default()
            })
            .collect()
    }
}

impl PerRoute {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::RateLimitPerRoute) -> Result<Self, String> {
        if config.vh_rate_limits != 0 || config.override_option != 0 {
            return Err("vh_rate_limits and override_option: are not supported".into());
        }
        Ok(Self {
            domain: config.domain.clone(),
            limits: Limits::compile_all(&config.rate_limits).map_err(|error| error.to_string())?,
        })
    }
}

fn plain(headers: &[HeaderConfig]) -> Vec<(HeaderName, HeaderValue, HeaderAppendAction)> {
    headers
        .iter()
        .filter_map(|header| {
            Some((
                HeaderName::try_from(header.key.as_str()).ok()?,
                HeaderValue::try_from(header.value.as_str()).ok()?,
                HeaderAppendAction::AppendIfExistsOrAdd,
            ))
        })
        .collect()
}

/// `x-ratelimit-limit`, `-remaining` and `-reset` of the limit that is nearest, and all limits as quota policies.
fn limit_headers(answer: &RateLimitResponse) -> Vec<(HeaderName, HeaderValue, HeaderAppendAction)> {
    let seconds = |unit: i32| match Unit::try_from(unit) {
        Ok(Unit::Second) => 1,
        Ok(Unit::Minute) => 60,
        Ok(Unit::Hour) => 3600,
        Ok(Unit::Day) => 86_400,
        Ok(Unit::Week) => 604_800,
        Ok(Unit::Month) => 2_592_000,
        Ok(Unit::Year) => 31_536_000,
        _ => 0,
    };
    let Some(nearest) = answer
        .statuses
        .iter()
        .filter(|status| status.current_limit.is_some())
        .min_by_key(|status| status.limit_remaining)
    else {
        return Vec::new();
    };
    let mut policies = String::new();
    for limit in answer
        .statuses
        .iter()
        .filter_map(|s| s.current_limit.as_ref())
    {
        let window = seconds(limit.unit);
        if window > 0 {
            policies.push_str(&format!(", {};w={window}", limit.requests_per_unit));
            if !limit.name.is_empty() {
                policies.push_str(&format!(";name=\"{}\"", limit.name));
            }
        }
    }
    let limit = nearest
        .current_limit
        .as_ref()
        .map_or(0, |limit| limit.requests_per_unit);
    let reset = nearest
        .duration_until_reset
        .as_ref()
        .map_or(0, |duration| duration.seconds);
    [
        ("x-ratelimit-limit", format!("{limit}{policies}")),
        ("x-ratelimit-remaining", nearest.limit_remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::try_from(value).ok()?,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds::envoy::service::ratelimit::v3::rate_limit_response::{
        DescriptorStatus, RateLimit as Limit,
    };

    #[test]
    fn the_nearest_limit_is_in_the_headers() {
        let status = |requests: u32, unit: Unit, remaining: u32| DescriptorStatus {
            current_limit: Some(Limit {
                requests_per_unit: requests,
                unit: unit as i32,
                ..Default::default()
            }),
            limit_remaining: remaining,
            duration_until_reset: Some(xds::prost_types::Duration {
                seconds: 7,
                nanos: 0,
            }),
            ..Default::default()
        };
        let answer = RateLimitResponse {
            statuses: vec![status(100, Unit::Hour, 50), status(10, Unit::Minute, 3)],
            ..Default::default()
        };
        let headers: Vec<(String, String)> = limit_headers(&answer)
            .into_iter()
            .map(|(name, value, _)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        assert_eq!(
            headers,
            [
                ("x-ratelimit-limit".into(), "10, 100;w=3600, 10;w=60".into()),
                ("x-ratelimit-remaining".into(), "3".into()),
                ("x-ratelimit-reset".into(), "7".to_owned())
            ]
        );
    }
}
