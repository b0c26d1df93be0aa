//! Outlier detection.

use crate::proto::duration;
use api::istio::OutlierDetection;
use xds::envoy::config::cluster::v3 as envoy;

/// Envoy's settings; what is not set is left to Envoy, except that the success rate is never looked at.
pub(crate) fn settings(outlier: &OutlierDetection) -> envoy::OutlierDetection {
    let mut out = envoy::OutlierDetection {
        enforcing_success_rate: Some(0),
        ..Default::default()
    };
    if let Some(errors) = outlier.consecutive_5xx_errors {
        out.consecutive_5xx = Some(errors);
        out.enforcing_consecutive_5xx = Some(if errors > 0 { 100 } else { 0 });
    }
    if let Some(errors) = outlier.consecutive_gateway_errors {
        out.consecutive_gateway_failure = Some(errors);
        out.enforcing_consecutive_gateway_failure = Some(if errors > 0 { 100 } else { 0 });
    }
    out.interval = outlier.interval.map(duration);
    out.base_ejection_time = outlier.base_ejection_time.map(duration);
    if outlier.max_ejection_percent > 0 {
        out.max_ejection_percent = Some(outlier.max_ejection_percent as u32);
    }
    if outlier.split_external_local_origin_errors {
        out.split_external_local_origin_errors = true;
        if let Some(failures) = outlier
            .consecutive_local_origin_failures
            .filter(|failures| *failures > 0)
        {
            out.consecutive_local_origin_failure = Some(failures);
            out.enforcing_consecutive_local_origin_failure = Some(100);
        }
        out.enforcing_local_origin_success_rate = Some(0);
    }
    out
}
