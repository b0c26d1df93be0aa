//! When the change came about that Endpoints and EndpointSlices show: the annotation by which one measures how long a change takes to reach
//! the traffic.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::time::Time;
use kube_client::{ENDPOINT_SLICES, ENDPOINTS};
use serde_json::{Value, json};

use crate::action::{Action, Verb};
use crate::object::{condition, created, time_at};
use crate::selector::map_matches;

const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was seen of a Service and its pods: when each changed last.
#[derive(Debug, Default)]
pub struct Seen {
    service: Option<Time>,
    pods: BTreeMap<String, Time>,
}

impl Seen {
    /// The earliest change since the last look; `None` where nothing changed that has a time.
    pub fn look(&mut self, service: &Value, pods: &[Arc<Value>]) -> Option<Time> {
        let changed: BTreeMap<String, Time> = pods
            .iter()
            .filter(|pod| map_matches(&service["spec"]["selector"], &pod["metadata"]["labels"]))
            .filter_map(|pod| {
                let ready = condition(&pod["status"]["conditions"], "Ready")?;
                let at = time_at(&ready["lastTransitionTime"])?;
                Some((api::meta::name(pod).to_owned(), at))
            })
            .collect();
        let later = changed
            .iter()
            .filter(|(name, at)| self.pods.get(*name).is_none_or(|seen| *at > seen))
            .map(|(_, at)| *at);
        let made = created(service);
        let made_later = self.service.is_none_or(|seen| made > seen);
        let first = later.chain(made_later.then_some(made)).min();
        *self = Self {
            service: Some(made),
            pods: changed,
        };
        first
    }
}

/// Writes the time into what is written anyway; where there is none, the one before goes.
pub fn note(actions: &mut [Action], at: Option<Time>) {
    let at = at.map(api::time::rfc3339);
    for action in actions {
        if ![ENDPOINTS, ENDPOINT_SLICES].contains(&action.target.resource) {
            continue;
        }
        match (&mut action.verb, &at) {
            (Verb::Create(object), Some(at)) => {
                object["metadata"]["annotations"][TRIGGER_TIME] = at.as_str().into();
            }
            (Verb::Patch(patch, _), at) => {
                patch["metadata"]["annotations"][TRIGGER_TIME] = json!(at);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, at: &str) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": name, "labels": {"app": "web"}}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": at}]}}),
        )
    }

    #[test]
    fn the_first_of_the_changes_since_the_last_look_counts() {
        let service = json!({"metadata": {"creationTimestamp": "2025-01-01T00:00:10Z"}, "spec": {"selector": {"app": "web"}}});
        let mut seen = Seen::default();
        let mut look = |pods: &[Arc<Value>]| seen.look(&service, pods).map(api::time::rfc3339);
        let (a, b) = (
            pod("a", "2025-01-01T00:00:05Z"),
            pod("b", "2025-01-01T00:00:20Z"),
        );
        assert_eq!(
            look(std::slice::from_ref(&a)).as_deref(),
            Some("2025-01-01T00:00:05Z")
        );
        assert_eq!(look(std::slice::from_ref(&a)), None);
        assert_eq!(look(&[a, b]).as_deref(), Some("2025-01-01T00:00:20Z"));
        let again = pod("a", "2025-01-01T00:00:30Z");
        assert_eq!(look(&[again]).as_deref(), Some("2025-01-01T00:00:30Z"));
    }
}
