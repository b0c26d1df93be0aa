//! Fault injection: delays and aborts drawn per request.

use std::time::Duration;

use xds::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use xds::envoy::extensions::filters::common::fault::v3::fault_rate_limit::LimitType;
use xds::envoy::extensions::filters::http::fault::v3::{HttpFault, fault_abort::ErrorType};

use crate::cluster::duration;
use crate::error::ConfigError;
use crate::flags::ResponseFlags;
use crate::local_reply::LocalReply;
use crate::matching::{Fraction, HeaderMatch};
use crate::request::RequestHead;

/// A fault configuration (of the filter or of a route), compiled.
#[derive(Debug, Clone)]
pub struct Fault {
    delay: Option<(DelayBy, Fraction)>,
    abort: Option<(AbortBy, Fraction)>,
    abort_body: String,
    rate: Option<(RateBy, Fraction)>,
    upstream_cluster: String,
    headers: Vec<HeaderMatch>,
    nodes: Vec<String>,
    max_active: u64,
}

#[derive(Debug, Clone, Copy)]
enum DelayBy {
    Fixed(Duration),
    Header,
}

#[derive(Debug, Clone, Copy)]
enum AbortBy {
    Http(u16),
    Grpc(u32),
    Header,
}

#[derive(Debug, Clone, Copy)]
enum RateBy {
    /// KiB a second.
    Fixed(u64),
    Header,
}

/// What is injected into one request: first the delay, then the abort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    /// Wait so long first (`DI`).
    pub delay: Option<Duration>,
    /// Then answer this (`FI`).
    pub abort: Option<LocalReply>,
    /// The body of the answer passes no faster than so many bytes a second.
    pub response_rate: Option<u64>,
}

impl Fault {
    /// Compiles a configuration.
    pub fn compile(config: &HttpFault) -> Result<Self, ConfigError> {
        let delay = match &config.delay {
            None => None,
            Some(delay) => {
                let by = match &delay.fault_delay_secifier {
                    Some(FaultDelaySecifier::FixedDelay(fixed)) => {
                        DelayBy::Fixed(duration(Some(fixed)).unwrap_or_default())
                    }
                    Some(FaultDelaySecifier::HeaderDelay(_)) => DelayBy::Header,
                    None => {
                        return Err(ConfigError::new(
                            "delay",
                            "needs fixed_delay or header_delay",
                        ));
                    }
                };
                Some((by, Fraction::compile(delay.percentage.as_ref())))
            }
        };
        let abort = match &config.abort {
            None => None,
            Some(abort) => {
                let by = match &abort.error_type {
                    Some(ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
                        Ok(status @ 200..=599) => AbortBy::Http(status),
                        _ => {
                            return Err(ConfigError::new(
                                "abort.http_status",
                                format!("{status} is not in 200-599"),
                            ));
                        }
                    },
                    Some(ErrorType::GrpcStatus(status)) => AbortBy::Grpc(*status),
                    Some(ErrorType::HeaderAbort(_)) => AbortBy::Header,
                    None => {
                        return Err(ConfigError::new(
                            "abort",
                            "needs http_status, grpc_status or header_abort",
                        ));
                    }
                };
                Some((by, Fraction::compile(abort.percentage.as_ref())))
            }
        };
        let rate = match &config.response_rate_limit {
            None => None,
            Some(rate) => {
                let by = match &rate.limit_type {
                    Some(LimitType::FixedLimit(fixed)) if fixed.limit_kbps > 0 => {
                        RateBy::Fixed(fixed.limit_kbps)
                    }
                    Some(LimitType::HeaderLimit(_)) => RateBy::Header,
                    _ => {
                        return Err(ConfigError::new(
                            "response_rate_limit",
                            "needs fixed_limit.limit_kbps or header_limit",
                        ));
                    }
                };
                Some((by, Fraction::compile(rate.percentage.as_ref())))
            }
        };
        let headers = config
            .headers
            .iter()
            .map(HeaderMatch::compile)
            .collect::<Result<_, _>>();
        Ok(Self {
            delay,
            abort,
            abort_body: match config
                .abort
                .as_ref()
                .map(|abort| abort.response_body.as_str())
            {
                None | Some("") => "fault filter abort".to_owned(),
                Some(body) => body.to_owned(),
            },
            rate,
            upstream_cluster: config.upstream_cluster.clone(),
            headers: headers.map_err(|e| e.within("headers"))?,
            nodes: config.downstream_nodes.clone(),
            max_active: config.max_active_faults.map_or(u64::MAX, u64::from),
        })
    }

    /// Whether so many faults are in progress that none is injected any more (`max_active_faults`).
    pub fn overflows(&self, active: u64) -> bool {
        active >= self.max_active
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
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let node = || text("x-envoy-downstream-service-node").unwrap_or_default();
        if self.overflows(active)
            || (!self.upstream_cluster.is_empty() && self.upstream_cluster != upstream_cluster)
            || !self.headers.iter().all(|header| header.matches(head))
            || (!self.nodes.is_empty() && !self.nodes.iter().any(|allowed| allowed == node()))
        {
            return Injection::default();
        }
        // Requests may ask for less than what is configured, never for more.
        let share = |fraction: Fraction, header: &str| match text(header)
            .and_then(|value| value.parse::<u32>().ok())
        {
            Some(asked) => Fraction {
                numerator: fraction.numerator.min(asked),
                ..fraction
            },
            None => fraction,
        };
        let delay = self.delay.and_then(|(by, fraction)| {
            let (delay, fraction) = match by {
                DelayBy::Fixed(delay) => (delay, fraction),
                DelayBy::Header => (
                    Duration::from_millis(text("x-envoy-fault-delay-request")?.parse().ok()?),
                    share(fraction, "x-envoy-fault-delay-request-percentage"),
                ),
            };
            (fraction.draw(random) && !delay.is_zero()).then_some(delay)
        });
        let abort = self.abort.and_then(|(by, fraction)| {
            let (by, fraction) = match by {
                AbortBy::Header => {
                    let http =
                        text("x-envoy-fault-abort-request").and_then(|value| value.parse().ok());
                    let http = http
                        .filter(|status| (200..600).contains(status))
                        .map(AbortBy::Http);
                    let grpc = || {
                        text("x-envoy-fault-abort-grpc-request")?
                            .parse()
                            .ok()
                            .map(AbortBy::Grpc)
                    };
                    (
                        http.or_else(grpc)?,
                        share(fraction, "x-envoy-fault-abort-request-percentage"),
                    )
                }
                fixed => (fixed, fraction),
            };
            let (status, grpc_status) = match by {
                AbortBy::Http(status) => (status, None),
                AbortBy::Grpc(status) => (200, Some(status)),
                AbortBy::Header => return None,
            };
            fraction.draw(random).then(|| LocalReply {
                status,
                body: self.abort_body.clone().into(),
                flags: ResponseFlags::FAULT_INJECTED,
                details: "fault_filter_abort".into(),
                headers: &[],
                grpc_status,
            })
        });
        let response_rate = self.rate.and_then(|(by, fraction)| {
            let (kib, fraction) = match by {
                RateBy::Fixed(kib) => (kib, fraction),
                RateBy::Header => (
                    text("x-envoy-fault-throughput-response")?.parse().ok()?,
                    share(fraction, "x-envoy-fault-throughput-response-percentage"),
                ),
            };
            (fraction.draw(random) && kib > 0).then_some(kib.saturating_mul(1024))
        });
        Injection {
            delay,
            abort,
            response_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method};
    use serde_json::json;

    fn draw(config: serde_json::Value, headers: &HeaderMap, draws: &[u64]) -> Injection {
        let fault = Fault::compile(&xds::json::from_value(config, true).expect("a valid message"))
            .expect("compiles");
        let mut draws = draws.iter().copied();
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers,
        };
        let injection = fault.draw(&head, "c", 0, &mut || {
            draws.next().expect("no more draws than needed")
        });
        assert_eq!(draws.next(), None, "every draw is used");
        injection
    }

    fn half_and_all() -> serde_json::Value {
        json!({"delay": {"fixed_delay": "2s", "percentage": {"numerator": 500_000, "denominator": "MILLION"}},
            "abort": {"http_status": 503, "percentage": {"numerator": 100}}})
    }

    #[test]
    fn delay_and_abort_are_drawn_independently() {
        let headers = HeaderMap::new();
        let both = draw(half_and_all(), &headers, &[499_999]);
        assert_eq!(both.delay, Some(Duration::from_secs(2)));
        let abort = both.abort.expect("always");
        assert_eq!(
            (abort.status, &*abort.body, &*abort.details),
            (503, "fault filter abort", "fault_filter_abort")
        );
        let one = draw(half_and_all(), &headers, &[500_000]);
        assert!(one.delay.is_none() && one.abort.is_some());
    }

    #[test]
    fn an_unset_percentage_is_zero() {
        let never = draw(
            json!({"abort": {"http_status": 500}, "delay": {"fixed_delay": "1s"}}),
            &HeaderMap::new(),
            &[],
        );
        assert_eq!(never, Injection::default());
    }

    #[test]
    fn faults_can_be_for_some_requests_only() {
        let mut config = half_and_all();
        config["headers"] = json!([{"name": "end-user", "exact_match": "jason"}]);
        assert_eq!(
            draw(config.clone(), &HeaderMap::new(), &[]),
            Injection::default()
        );
        let mut headers = HeaderMap::new();
        headers.insert("end-user", HeaderValue::from_static("jason"));
        assert!(draw(config, &headers, &[0]).delay.is_some());
        let mut other = half_and_all();
        other["upstream_cluster"] = json!("other");
        assert_eq!(draw(other, &headers, &[]), Injection::default());
    }

    #[test]
    fn a_grpc_abort_answers_200_with_its_status() {
        let config = json!({"abort": {"grpc_status": 14, "percentage": {"numerator": 100}}});
        let abort = draw(config, &HeaderMap::new(), &[]).abort.expect("always");
        assert_eq!((abort.status, abort.grpc_status()), (200, 14));
    }
}
