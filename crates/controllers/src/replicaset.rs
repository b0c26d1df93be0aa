//! ReplicaSet: as many pods as asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{PODS, REPLICA_SETS, Resource};
use serde_json::{Value, json};

use crate::action::{Action, Event, Verb};
use crate::claim::claim;
use crate::object::{
    condition, controller_uid, int, is_terminating, items, omit_empty, status_patch, text,
};
use crate::pods::{self, Availability};

/// At most so many pods are created or deleted in one round.
const BURST: usize = 500;

const REPLICATION_CONTROLLERS: Resource =
    Resource::fixed("", "v1", "replicationcontrollers", "ReplicationController");

/// A ReplicationController in the form of its successor: its selector is a plain map.
pub fn from_replication_controller(controller: &Value) -> Value {
    let mut set = controller.clone();
    set["spec"]["selector"] = json!({"matchLabels": controller["spec"]["selector"]});
    set
}

/// What a ReplicaSet, or a ReplicationController in its form, is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The ReplicaSet.
    pub replica_set: Arc<Value>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// All ReplicaSets of its namespace: pods of siblings count when a node is called crowded.
    pub replica_sets: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// What is to be done about the pods; empty when all is well.
pub fn reconcile(observed: &Observed) -> Vec<Action> {
    let set = &observed.replica_set;
    let claim = claim(set, &PODS, &observed.pods);
    if !claim.actions.is_empty() {
        return claim.actions;
    }
    if is_terminating(set) {
        return Vec::new();
    }
    let active: Vec<Arc<Value>> = claim
        .mine
        .into_iter()
        .filter(|pod| pods::is_active(pod))
        .collect();
    let wanted = usize::try_from(int(&set["spec"]["replicas"])).unwrap_or(0);
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        return (0..missing)
            .map(|_| pods::create(set, pod_from_template(set)))
            .collect();
    }
    let surplus = (active.len() - wanted).min(BURST);
    victims(observed, active, surplus)
        .iter()
        .map(|pod| delete_pod(set, pod))
        .collect()
}

/// A pod as the template of a controller object asks for, owned by that object.
pub(crate) fn pod_from_template(owner: &Value) -> Value {
    let template = &owner["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", api::meta::name(owner)),
        "namespace": api::meta::namespace(owner),
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    metadata["ownerReferences"] = json!([api::meta::controller_ref(owner)]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template["spec"],
    })
}

fn delete_pod(set: &Arc<Value>, pod: &Value) -> Action {
    let name = api::meta::name(pod);
    Action {
        on_success: Some(Event::normal(
            set,
            "SuccessfulDelete",
            format!("Deleted pod: {name}"),
        )),
        on_failure: Some(Event::warning(
            set,
            "FailedDelete",
            "Error deleting: {error}",
        )),
        ..Action::delete(PODS, pod)
    }
}

fn victims(observed: &Observed, mut active: Vec<Arc<Value>>, surplus: usize) -> Vec<Arc<Value>> {
    if surplus < active.len() && surplus > 0 {
        pods::sort_for_deletion(&mut active, &crowd(observed), observed.now);
    }
    active.truncate(surplus);
    active
}

/// Per node, the active pods of this set and of its siblings under the same owner.
fn crowd(observed: &Observed) -> HashMap<String, usize> {
    let set = &observed.replica_set;
    let owner = controller_uid(set);
    let family: Vec<&str> = observed
        .replica_sets
        .iter()
        .filter(|sibling| !owner.is_empty() && controller_uid(sibling) == owner)
        .map(|sibling| api::meta::uid(sibling))
        .chain([api::meta::uid(set)])
        .collect();
    let mut count = HashMap::new();
    for pod in &observed.pods {
        let node = text(&pod["spec"]["nodeName"]);
        if !node.is_empty() && pods::is_active(pod) && family.contains(&controller_uid(pod)) {
            *count.entry(node.to_owned()).or_default() += 1;
        }
    }
    count
}

/// Why pods could not be created or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API server said.
    pub message: String,
}

/// The failure to be told about when this action did not succeed.
pub(crate) fn failure_of(action: &Action, message: String) -> Failure {
    let reason = match action.verb {
        Verb::Delete(_) => "FailedDelete",
        _ => "FailedCreate",
    };
    Failure { reason, message }
}

/// The status update that is due, and when to look again because a pod becomes available then.
pub fn status(
    observed: &Observed,
    failure: Option<&Failure>,
) -> (Option<Action>, Option<Duration>) {
    let set = &observed.replica_set;
    let active: Vec<Arc<Value>> = claim(set, &PODS, &observed.pods)
        .mine
        .into_iter()
        .filter(|pod| pods::is_active(pod))
        .collect();
    let min_ready = int(&set["spec"]["minReadySeconds"]);
    let template_labels = &set["spec"]["template"]["metadata"]["labels"];
    let labeled = active
        .iter()
        .filter(|pod| crate::selector::map_matches(template_labels, &pod["metadata"]["labels"]))
        .count();
    let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
    let mut available = 0;
    let mut again: Option<Duration> = None;
    for pod in &active {
        match pods::availability(pod, min_ready, observed.now) {
            Availability::Yes => available += 1,
            Availability::In(wait) => again = Some(again.map_or(wait, |known| known.min(wait))),
            Availability::No => {}
        }
    }
    let mut status = omit_empty(json!({
        "availableReplicas": available,
        "conditions": conditions(set, active.len(), failure, observed.now),
        "fullyLabeledReplicas": labeled,
        "observedGeneration": api::meta::generation(set),
        "readyReplicas": ready,
    }));
    // The one member that is always there.
    status["replicas"] = active.len().into();
    let resource = if set["kind"] == "ReplicationController" {
        REPLICATION_CONTROLLERS
    } else {
        REPLICA_SETS
    };
    let action = status_patch(set, &status).map(|patch| Action::status(resource, set, patch));
    (action, again)
}

fn conditions(set: &Value, active: usize, failure: Option<&Failure>, now: Time) -> Vec<Value> {
    let known = &set["status"]["conditions"];
    let mut rest: Vec<Value> = items(known)
        .iter()
        .filter(|entry| entry["type"] != "ReplicaFailure")
        .cloned()
        .collect();
    let current = condition(known, "ReplicaFailure");
    let wanted = usize::try_from(int(&set["spec"]["replicas"])).unwrap_or(0);
    match failure {
        Some(failure) => rest.push(match current {
            Some(current) if current["reason"] == failure.reason => current.clone(),
            _ => json!({
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": api::time::rfc3339(now),
                "reason": failure.reason,
                "message": failure.message,
            }),
        }),
        // It stays until the numbers are right again.
        None => rest.extend(current.filter(|_| active != wanted).cloned()),
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Time {
        Time::UNIX_EPOCH + time::Duration::seconds(1_000)
    }

    fn set(replicas: i64) -> Arc<Value> {
        Arc::new(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web-1", "namespace": "a", "uid": "rs", "generation": 3},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"x": "y"}}, "spec": {"containers": []}},
            },
        }))
    }

    fn pod(name: &str, ready: bool, since: i64) -> Arc<Value> {
        let at = api::time::rfc3339(Time::UNIX_EPOCH + time::Duration::seconds(since));
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}, "creationTimestamp": at,
                "ownerReferences": [{"uid": "rs", "controller": true}]},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": at}]},
        }))
    }

    fn observed(replicas: i64, pods: Vec<Arc<Value>>) -> Observed {
        Observed {
            replica_set: set(replicas),
            pods,
            replica_sets: vec![set(replicas)],
            now: now(),
        }
    }

    #[test]
    fn missing_pods_are_created_from_the_template() {
        let actions = reconcile(&observed(3, vec![pod("a", true, 1)]));
        assert_eq!(actions.len(), 2);
        let Verb::Create(pod) = &actions[0].verb else {
            panic!("{actions:?}")
        };
        assert_eq!(pod["metadata"]["generateName"], "web-1-");
        assert_eq!(pod["metadata"]["annotations"], json!({"x": "y"}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(pod["spec"], json!({"containers": []}));
    }

    #[test]
    fn surplus_pods_go_the_unready_first() {
        let actions = reconcile(&observed(
            1,
            vec![pod("a", true, 1), pod("b", false, 1), pod("c", true, 999)],
        ));
        let names: Vec<&str> = actions
            .iter()
            .map(|action| action.target.name.as_str())
            .collect();
        assert_eq!(names, ["b", "c"]);
        assert!(matches!(actions[0].verb, Verb::Delete(_)));
    }

    #[test]
    fn finished_and_leaving_pods_do_not_count() {
        let mut leaving = pod("a", true, 1).as_ref().clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
        let mut failed = pod("b", true, 1).as_ref().clone();
        failed["status"]["phase"] = json!("Failed");
        let observed = observed(1, vec![Arc::new(leaving), Arc::new(failed)]);
        assert_eq!(reconcile(&observed).len(), 1);
        let (action, _) = status(&observed, None);
        let Verb::Patch(patch, Some("status")) = action.unwrap().verb else {
            panic!()
        };
        assert_eq!(
            patch,
            json!({"status": {"observedGeneration": 3, "replicas": 0}})
        );
    }

    #[test]
    fn status_counts_and_waits_for_availability() {
        let mut slow = set(2).as_ref().clone();
        slow["spec"]["minReadySeconds"] = json!(10);
        let mut observed = observed(2, vec![pod("a", true, 1), pod("b", true, 995)]);
        observed.replica_set = Arc::new(slow);
        let (action, again) = status(&observed, None);
        let Verb::Patch(patch, Some("status")) = action.unwrap().verb else {
            panic!()
        };
        assert_eq!(
            patch["status"],
            json!({"availableReplicas": 1, "fullyLabeledReplicas": 2, "observedGeneration": 3, "readyReplicas": 2, "replicas": 2})
        );
        assert_eq!(again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_failure_is_told_until_the_numbers_are_right() {
        let failure = Failure {
            reason: "FailedCreate",
            message: "quota".into(),
        };
        let (action, _) = status(&observed(1, vec![]), Some(&failure));
        let Verb::Patch(patch, _) = action.unwrap().verb else {
            panic!()
        };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "FailedCreate");
        let mut failing = set(1).as_ref().clone();
        failing["status"] = json!({"replicas": 0, "observedGeneration": 3, "conditions": patch["status"]["conditions"]});
        let mut next = observed(1, vec![]);
        next.replica_set = Arc::new(failing.clone());
        assert_eq!(status(&next, None).0, None);
        next.pods = vec![pod("a", true, 1)];
        let Verb::Patch(patch, _) = status(&next, None).0.unwrap().verb else {
            panic!()
        };
        assert_eq!(patch["status"]["conditions"], Value::Null);
    }
}
