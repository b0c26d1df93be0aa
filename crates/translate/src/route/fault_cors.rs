//! Fault injection and CORS of a route.

use crate::proto::{duration, millionths};
use crate::route::matches::string_matcher;
use api::istio::{
    CorsPolicy, FaultAbort, FaultDelay, GRPC_STATUSES, HttpFaultInjection, StringMatch,
    UnmatchedPreflights,
};
use xds::envoy::config::core::v3::RuntimeFractionalPercent;
use xds::envoy::extensions::filters::common::fault::v3 as common;
use xds::envoy::extensions::filters::http::cors::v3 as cors;
use xds::envoy::extensions::filters::http::fault::v3 as fault;
use xds::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use xds::prost_types::Any;

/// Faults as a configuration of the fault filter for one route.
pub(crate) fn faults(injection: &HttpFaultInjection) -> Any {
    xds::any::pack(&fault::HttpFault {
        delay: injection.delay.as_ref().map(delay),
        abort: injection.abort.as_ref().map(abort),
        ..Default::default()
    })
}

fn delay(delay: &FaultDelay) -> common::FaultDelay {
    let percentage = match &delay.percentage {
        Some(percentage) => millionths(percentage.value),
        None => FractionalPercent {
            numerator: delay.percent.max(0) as u32,
            denominator: DenominatorType::Hundred as i32,
        },
    };
    common::FaultDelay {
        percentage: Some(percentage),
        fault_delay_secifier: delay
            .fixed_delay
            .map(|fixed| common::fault_delay::FaultDelaySecifier::FixedDelay(duration(fixed))),
    }
}

fn abort(abort: &FaultAbort) -> fault::FaultAbort {
    let error_type = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => Some(fault::fault_abort::ErrorType::HttpStatus(
            status.max(0) as u32
        )),
        (None, Some(name)) => grpc_code(name).map(fault::fault_abort::ErrorType::GrpcStatus),
        (None, None) => None,
    };
    fault::FaultAbort {
        percentage: abort
            .percentage
            .as_ref()
            .map(|percentage| millionths(percentage.value)),
        error_type,
        ..Default::default()
    }
}

/// The number of a gRPC status.
pub(crate) fn grpc_code(name: &str) -> Option<u32> {
    GRPC_STATUSES
        .iter()
        .position(|known| *known == name)
        .map(|code| code as u32)
}

/// CORS as a configuration of the CORS filter for one route.
pub(crate) fn cors(policy: &CorsPolicy) -> Any {
    let origins = if policy.allow_origins.is_empty() {
        policy
            .allow_origin
            .iter()
            .map(|origin| StringMatch {
                exact: Some(origin.clone()),
                ..StringMatch::default()
            })
            .collect()
    } else {
        policy.allow_origins.clone()
    };
    let everybody = FractionalPercent {
        numerator: 100,
        denominator: DenominatorType::Hundred as i32,
    };
    xds::any::pack(&cors::CorsPolicy {
        allow_origin_string_match: origins.iter().filter_map(string_matcher).collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy
            .max_age
            .map(|age| age.seconds().to_string())
            .unwrap_or_default(),
        allow_credentials: policy.allow_credentials,
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(everybody),
            ..Default::default()
        }),
        forward_not_matching_preflights: Some(
            policy.unmatched_preflights != UnmatchedPreflights::Ignore,
        ),
        ..Default::default()
    })
}
