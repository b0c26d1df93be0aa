//! Retry policies.

use crate::proto::duration;
use api::istio::{HttpRetry, MeshConfig};
use xds::envoy::config::route::v3::{RetryPolicy, retry_policy};
use xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The policy of a rule, else of the mesh, else Istio's. `sticky` routes may try the same endpoint again.
pub(crate) fn policy(
    own: Option<&HttpRetry>,
    mesh: &MeshConfig,
    sticky: bool,
) -> Option<RetryPolicy> {
    let Some(settings) = own.or(mesh.default_http_retry_policy.as_ref()) else {
        return Some(default_policy(sticky));
    };
    if settings.attempts <= 0 {
        return None;
    }
    let mut out = default_policy(sticky);
    out.num_retries = Some(settings.attempts as u32);
    if !settings.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&settings.retry_on);
    }
    out.per_try_timeout = settings.per_try_timeout.map(duration);
    if let Some(backoff) = settings.backoff {
        out.retry_back_off = Some(retry_policy::RetryBackOff {
            base_interval: Some(duration(backoff)),
            max_interval: None,
        });
    }
    if settings.retry_ignore_previous_hosts == Some(false) {
        out.retry_host_predicate.clear();
    }
    if settings.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig {
            update_frequency: 2,
        };
        out.retry_priority = Some(retry_policy::RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(
                xds::any::pack(&config),
            )),
        });
    }
    Some(out)
}

fn default_policy(sticky: bool) -> RetryPolicy {
    let previous_hosts = retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(
            xds::any::pack(&PreviousHostsPredicate {}),
        )),
    };
    RetryPolicy {
        retry_on: DEFAULT_CONDITIONS.to_owned(),
        num_retries: Some(2),
        host_selection_retry_max_attempts: 5,
        retry_host_predicate: if sticky {
            Vec::new()
        } else {
            vec![previous_hosts]
        },
        ..Default::default()
    }
}

/// Separates status codes from conditions; with codes, the condition for them is added.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let mut codes = Vec::new();
    let mut names = Vec::new();
    for token in text.split(',') {
        match token.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(token),
        }
    }
    let mut joined = names.join(",");
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        joined.push_str(",retriable-status-codes");
    }
    (joined, codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_among_conditions() {
        assert_eq!(
            conditions("5xx,503,429"),
            ("5xx,retriable-status-codes".to_owned(), vec![503, 429])
        );
        assert_eq!(
            conditions("503"),
            (",retriable-status-codes".to_owned(), vec![503])
        );
        assert_eq!(
            conditions("gateway-error"),
            ("gateway-error".to_owned(), vec![])
        );
    }
}
