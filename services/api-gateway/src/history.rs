//! The last requests and where the mesh routed them, as their answers said.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

/// Requests remembered for each service.
pub const REMEMBERED: usize = 100;

#[derive(Debug, Clone)]
struct Entry {
    at_ms: u128,
    status: u16,
    latency_ms: f64,
    cluster: Option<String>,
    pod: Option<String>,
}

/// The last requests by service.
#[derive(Debug, Default)]
pub struct History(Mutex<BTreeMap<&'static str, VecDeque<Entry>>>);

impl History {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers an answer.
    pub fn record(&self, service: &'static str, response: &Response<Body>, latency: Duration) {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(ToOwned::to_owned)
        };
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let entry = Entry {
            at_ms,
            status: response.status().as_u16(),
            latency_ms: latency.as_secs_f64() * 1000.0,
            cluster: header("x-service-cluster"),
            pod: header("x-pod-name"),
        };
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = services.entry(service).or_default();
        if entries.len() == REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// The last requests of each service, at most `last` of them and oldest first, with how many of all
    /// that are remembered went to which cluster.
    pub fn report(&self, last: usize) -> Value {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = json!({});
        for (service, entries) in &*services {
            let mut clusters: BTreeMap<&str, usize> = BTreeMap::new();
            for cluster in entries.iter().filter_map(|entry| entry.cluster.as_deref()) {
                *clusters.entry(cluster).or_default() += 1;
            }
            report[*service] = json!({
                "clusters": clusters,
                "requests": entries.iter().skip(entries.len().saturating_sub(last)).map(|entry| json!({
                    "timestamp": entry.at_ms as u64,
                    "status": entry.status,
                    "latencyMs": (entry.latency_ms * 10.0).round() / 10.0,
                    "cluster": entry.cluster,
                    "pod": entry.pod,
                })).collect::<Vec<_>>(),
            });
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_hundred_are_remembered_and_counted_by_cluster() {
        let history = History::new();
        for number in 0..150 {
            let cluster = if number % 2 == 0 { "ctx1" } else { "ctx2" };
            let response = Response::builder()
                .header("x-service-cluster", cluster)
                .body(Body::empty())
                .unwrap();
            history.record("users", &response, Duration::from_millis(3));
        }
        let report = history.report(REMEMBERED);
        assert_eq!(report["users"]["requests"].as_array().unwrap().len(), 100);
        assert_eq!(report["users"]["clusters"], json!({"ctx1": 50, "ctx2": 50}));
        let report = history.report(10);
        assert_eq!(report["users"]["requests"].as_array().unwrap().len(), 10);
    }
}
