//! PodDisruptionBudgets: how many pods may go at this moment.

use std::sync::Arc;

use api::time::Time;
use kube_client::POD_DISRUPTION_BUDGETS;
use serde_json::{Value, json};

use crate::action::Action;
use crate::daemon_set::percent_or_count;
use crate::object::{condition, int, is_terminating, items, omit_empty, status_patch, time_at};
use crate::pods;

/// A pod whose eviction was granted counts as gone for so long, should it still be there.
const DISRUPTION_TIMEOUT: time::Duration = time::Duration::minutes(2);

/// What a budget is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The budget.
    pub budget: Arc<Value>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// Owners of pods in its namespace, with a number of replicas: Deployments, ReplicaSets and so on.
    pub owners: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// How many pods the owners of these pods want together; `None` when a pod has no owner that says so.
fn wanted(pods: &[&Arc<Value>], owners: &[Arc<Value>]) -> Option<i64> {
    let mut seen: Vec<&str> = Vec::new();
    let mut total = 0;
    for pod in pods {
        let mut uid = api::meta::controller_of(pod)?["uid"].as_str()?;
        // A Deployment speaks for its ReplicaSets.
        let owner = loop {
            let owner = owners.iter().find(|o| api::meta::uid(o) == uid)?;
            match api::meta::controller_of(owner).and_then(|o| o["uid"].as_str()) {
                Some(above) if owners.iter().any(|o| api::meta::uid(o) == above) => uid = above,
                _ => break owner,
            }
        };
        if !seen.contains(&api::meta::uid(owner)) {
            seen.push(api::meta::uid(owner));
            total += int(&owner["spec"]["replicas"]);
        }
    }
    Some(total)
}

/// The status update that is due.
pub fn reconcile(observed: &Observed) -> Option<Action> {
    let budget = &observed.budget;
    let spec = &budget["spec"];
    let selector = &spec["selector"];
    let all: Vec<&Arc<Value>> = observed
        .pods
        .iter()
        .filter(|pod| {
            selector.is_object()
                && crate::selector::matches(selector, &pod["metadata"]["labels"])
                && !pods::is_finished(pod)
        })
        .collect();
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let mut problem = None;
    let (expected, desired) = if !spec["maxUnavailable"].is_null() {
        match wanted(&all, &observed.owners) {
            Some(expected) => {
                let most = percent_or_count(
                    &spec["maxUnavailable"],
                    usize::try_from(expected).unwrap_or(0),
                );
                let most = i64::try_from(most).unwrap_or(i64::MAX);
                (expected, (expected - most).max(0))
            }
            None => {
                problem = Some("found no controllers for pods");
                (count, count)
            }
        }
    } else if spec["minAvailable"].is_string() {
        let expected = wanted(&all, &observed.owners).unwrap_or_else(|| {
            problem = Some("found no controllers for pods");
            count
        });
        let least = percent_or_count(
            &spec["minAvailable"],
            usize::try_from(expected).unwrap_or(0),
        );
        (expected, i64::try_from(least).unwrap_or(i64::MAX))
    } else {
        (count, int(&spec["minAvailable"]))
    };
    let mut disrupted = serde_json::Map::new();
    for (name, at) in budget["status"]["disruptedPods"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let here = all
            .iter()
            .any(|pod| api::meta::name(pod) == name && !is_terminating(pod));
        let fresh = time_at(at).is_some_and(|at| at + DISRUPTION_TIMEOUT > observed.now);
        if here && fresh {
            disrupted.insert(name.clone(), at.clone());
        }
    }
    let healthy = all
        .iter()
        .filter(|pod| {
            pods::is_ready(pod)
                && !is_terminating(pod)
                && !disrupted.contains_key(api::meta::name(pod))
        })
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if expected > 0 && problem.is_none() {
        (healthy - desired).max(0)
    } else {
        0
    };
    let mut status = omit_empty(json!({
        "observedGeneration": api::meta::generation(budget),
        "disruptedPods": disrupted,
        "conditions": conditions(budget, allowed, problem, observed.now),
    }));
    status["disruptionsAllowed"] = allowed.into();
    status["currentHealthy"] = healthy.into();
    status["desiredHealthy"] = desired.into();
    status["expectedPods"] = expected.into();
    status_patch(budget, &status).map(|patch| Action::status(POD_DISRUPTION_BUDGETS, budget, patch))
}

fn conditions(budget: &Value, allowed: i64, problem: Option<&str>, now: Time) -> Vec<Value> {
    const KIND: &str = "DisruptionAllowed";
    let known = &budget["status"]["conditions"];
    let (status, reason) = match (problem, allowed) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, 0) => ("False", "InsufficientPods"),
        (None, _) => ("True", "SufficientPods"),
    };
    let old = condition(known, KIND);
    let since = old.filter(|old| old["status"] == status).map_or_else(
        || api::time::rfc3339(now).into(),
        |old| old["lastTransitionTime"].clone(),
    );
    let mut out: Vec<Value> = items(known)
        .iter()
        .filter(|c| c["type"] != KIND)
        .cloned()
        .collect();
    out.push(json!({
        "type": KIND, "status": status, "reason": reason, "message": problem.unwrap_or(""),
        "observedGeneration": api::meta::generation(budget), "lastTransitionTime": since,
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn allowed(spec: Value, ready: usize, owned: bool) -> (i64, i64) {
        let pods = (0..ready)
            .map(|n| {
                let owner = if owned { json!([{"uid": "rs", "controller": true}]) } else { json!([]) };
                Arc::new(json!({"metadata": {"name": n.to_string(), "labels": {"a": "b"}, "ownerReferences": owner},
                    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}))
            })
            .collect();
        let mut budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": spec});
        budget["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        let observed = Observed {
            budget: Arc::new(budget),
            pods,
            owners: vec![Arc::new(
                json!({"metadata": {"uid": "rs"}, "spec": {"replicas": 4}}),
            )],
            now: Time::UNIX_EPOCH,
        };
        let action = reconcile(&observed).unwrap();
        let Verb::Patch(patch, _) = action.verb else {
            panic!("no patch")
        };
        (
            int(&patch["status"]["disruptionsAllowed"]),
            int(&patch["status"]["desiredHealthy"]),
        )
    }

    #[test]
    fn what_is_above_the_bound_may_go() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, false), (1, 2));
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, true), (1, 2));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 4, true), (1, 3));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 4, false), (0, 4));
    }
}
