//! What controllers need to know about pods.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::time::Time;
use kube_client::PODS;
use serde_json::Value;

use crate::action::{Action, Event};
use crate::object::{condition, created, int, is_terminating, items, text, time_at};

/// Annotation that makes a pod a cheaper or dearer victim of scaling down.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Creates a pod of an owner, whose events tell how it went.
pub(crate) fn create(owner: &Arc<Value>, pod: Value) -> Action {
    Action {
        on_success: Some(Event::normal(
            owner,
            "SuccessfulCreate",
            "Created pod: {name}",
        )),
        on_failure: Some(Event::warning(
            owner,
            "FailedCreate",
            "Error creating: {error}",
        )),
        ..Action::create(PODS, pod)
    }
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Phase Succeeded or Failed.
pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Condition Ready is True.
pub(crate) fn is_ready(pod: &Value) -> bool {
    ready_condition(pod).is_some_and(|ready| ready["status"] == "True")
}

fn ready_condition(pod: &Value) -> Option<&Value> {
    condition(&pod["status"]["conditions"], "Ready")
}

/// Since when the pod is ready.
fn ready_since(pod: &Value) -> Option<Time> {
    let ready = ready_condition(pod)?;
    if ready["status"] != "True" {
        return None;
    }
    time_at(&ready["lastTransitionTime"])
}

/// Ready for at least `min_ready_seconds`; otherwise, if it is ready, in how many seconds
/// it will be available.
pub(crate) fn availability(pod: &Value, min_ready_seconds: i64, now: Time) -> Availability {
    if !is_ready(pod) {
        return Availability::No;
    }
    if min_ready_seconds == 0 {
        return Availability::Yes;
    }
    let Some(since) = ready_since(pod) else {
        return Availability::No;
    };
    let left = since.saturating_add(time::Duration::seconds(min_ready_seconds)) - now;
    if left <= time::Duration::ZERO {
        Availability::Yes
    } else {
        Availability::In(left.unsigned_abs())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    Yes,
    In(std::time::Duration),
    No,
}

/// Sorts pods so that those to be deleted first come first. `crowd` counts, per node, the pods
/// that belong to the same owner.
pub(crate) fn sort_for_deletion(
    pods: &mut [Arc<Value>],
    crowd: &HashMap<String, usize>,
    now: Time,
) {
    pods.sort_by(|one, other| compare(one, other, crowd, now));
}

/// The rules in the order Kubernetes documents for ReplicaSets: unscheduled, pending, not
/// ready, cheaper, on a more crowded node, ready for a shorter time, more restarts, younger.
/// Times are compared by magnitude only, and equals by uid, so that pods of one age are not
/// all taken from the same zone.
fn compare(one: &Value, other: &Value, crowd: &HashMap<String, usize>, now: Time) -> Ordering {
    let assigned = |pod: &Value| !text(&pod["spec"]["nodeName"]).is_empty();
    let phase = |pod: &Value| match pod["status"]["phase"].as_str() {
        None | Some("Pending") => 0,
        Some("Unknown") => 1,
        _ => 2,
    };
    let crowding = |pod: &Value| {
        crowd
            .get(text(&pod["spec"]["nodeName"]))
            .copied()
            .unwrap_or(0)
    };
    assigned(one)
        .cmp(&assigned(other))
        .then_with(|| phase(one).cmp(&phase(other)))
        .then_with(|| is_ready(one).cmp(&is_ready(other)))
        .then_with(|| cost(one).cmp(&cost(other)))
        .then_with(|| crowding(other).cmp(&crowding(one)))
        .then_with(|| {
            if is_ready(one) && is_ready(other) {
                by_age(ready_since(one), ready_since(other), now)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(other).cmp(&restarts(one)))
        .then_with(|| by_age(Some(created(one)), Some(created(other)), now))
        .then_with(|| api::meta::uid(one).cmp(api::meta::uid(other)))
}

fn cost(pod: &Value) -> i64 {
    api::meta::annotation(pod, DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

fn restarts(pod: &Value) -> i64 {
    let statuses = items(&pod["status"]["containerStatuses"]);
    statuses
        .iter()
        .map(|status| int(&status["restartCount"]))
        .max()
        .unwrap_or(0)
}

/// The younger first, where ages of the same power of two count as equal.
fn by_age(one: Option<Time>, other: Option<Time>, now: Time) -> Ordering {
    let magnitude = |since: Option<Time>| {
        let age = since.map_or(0, |since| (now - since).whole_nanoseconds().max(0));
        128 - age.leading_zeros()
    };
    magnitude(one).cmp(&magnitude(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> String {
        api::time::rfc3339(Time::UNIX_EPOCH + time::Duration::seconds(seconds))
    }

    fn pod(uid: &str, node: &str, phase: &str, ready: Option<i64>, made: i64) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"uid": uid, "creationTimestamp": at(made)},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": [{
                "type": "Ready", "status": if ready.is_some() { "True" } else { "False" },
                "lastTransitionTime": at(ready.unwrap_or(0)),
            }]},
        }))
    }

    fn order(mut pods: Vec<Arc<Value>>, crowd: &[(&str, usize)]) -> Vec<String> {
        let crowd = crowd
            .iter()
            .map(|&(node, count)| (node.to_owned(), count))
            .collect();
        sort_for_deletion(
            &mut pods,
            &crowd,
            Time::UNIX_EPOCH + time::Duration::seconds(10_000),
        );
        pods.iter()
            .map(|pod| api::meta::uid(pod).to_owned())
            .collect()
    }

    #[test]
    fn who_goes_first() {
        let pods = vec![
            pod("old", "n", "Running", Some(100), 90),
            pod("young", "n", "Running", Some(9_990), 9_980),
            pod("not-ready", "n", "Running", None, 90),
            pod("pending", "n", "Pending", None, 90),
            pod("unscheduled", "", "Pending", None, 90),
        ];
        assert_eq!(
            order(pods, &[]),
            ["unscheduled", "pending", "not-ready", "young", "old"]
        );
    }

    #[test]
    fn crowded_nodes_and_deletion_costs() {
        let mut dear = pod("dear", "busy", "Running", Some(1), 1).as_ref().clone();
        dear["metadata"]["annotations"] = json!({DELETION_COST: "100"});
        let pods = vec![
            Arc::new(dear),
            pod("calm", "calm", "Running", Some(1), 1),
            pod("busy", "busy", "Running", Some(1), 1),
        ];
        assert_eq!(
            order(pods, &[("busy", 2), ("calm", 1)]),
            ["busy", "calm", "dear"]
        );
    }

    #[test]
    fn availability_counts_from_readiness() {
        let now = Time::UNIX_EPOCH + time::Duration::seconds(100);
        let ready = pod("a", "n", "Running", Some(95), 1);
        assert_eq!(availability(&ready, 0, now), Availability::Yes);
        assert_eq!(availability(&ready, 5, now), Availability::Yes);
        assert_eq!(
            availability(&ready, 8, now),
            Availability::In(std::time::Duration::from_secs(3))
        );
        assert_eq!(
            availability(&pod("a", "n", "Running", None, 1), 0, now),
            Availability::No
        );
    }
}
