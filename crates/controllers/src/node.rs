//! Nodes that stop reporting, and what becomes of their pods.

use std::sync::Arc;
use std::time::Duration;

use api::time::{Time, rfc3339};
use kube_client::{NODES, PODS};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::object::{condition, is_terminating, items, text, time_at};
use crate::scheduler::tolerates_taint;

/// A node that has not renewed its lease for so long is not there.
pub const GRACE: Duration = Duration::from_secs(40);
/// How long pods that say nothing about it stay on a node that is not there.
const DEFAULT_TOLERATION: i64 = 300;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a node is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The node.
    pub node: Arc<Value>,
    /// How long ago a sign of life was last seen, by the observer's own clock.
    pub silent_for: Duration,
    /// The pods on it.
    pub pods: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// What is to be done, and when to look again.
pub fn reconcile(observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let node = &observed.node;
    let mut actions = Vec::new();
    let silent = observed.silent_for >= GRACE;
    let ready = condition(&node["status"]["conditions"], "Ready");
    let mut status = ready.map_or("Unknown", |ready| text(&ready["status"]));
    if silent && status != "Unknown" {
        actions.push(lost(observed));
        status = "Unknown";
    }
    if silent || status == "False" {
        actions.extend(
            observed
                .pods
                .iter()
                .filter_map(|pod| pod_not_ready(pod, observed.now)),
        );
    }
    let taints = wanted_taints(node, status, observed.now);
    if taints != items(&node["spec"]["taints"]) {
        let patch = json!({
            "metadata": {"resourceVersion": api::meta::resource_version(node)},
            "spec": {"taints": taints},
        });
        actions.push(Action::patch(NODES, node, patch));
    }
    let (evictions, mut again) = evict(&taints, observed);
    actions.extend(evictions);
    if !silent {
        let next = GRACE - observed.silent_for;
        again = Some(again.map_or(next, |known| known.min(next)));
    }
    (actions, again)
}

fn lost(observed: &Observed) -> Action {
    let node = &observed.node;
    let at = rfc3339(observed.now);
    let conditions: Vec<Value> = items(&node["status"]["conditions"])
        .iter()
        .map(|known| {
            let mut unknown = known.clone();
            unknown["status"] = "Unknown".into();
            unknown["reason"] = "NodeStatusUnknown".into();
            unknown["message"] = "Kubelet stopped posting node status.".into();
            unknown["lastTransitionTime"] = at.as_str().into();
            unknown
        })
        .collect();
    let text = format!("Node {} status is now: NodeNotReady", api::meta::name(node));
    Action {
        on_success: Some(Event::normal(node, "NodeNotReady", text)),
        ..Action::status(NODES, node, json!({"status": {"conditions": conditions}}))
    }
}

fn pod_not_ready(pod: &Value, now: Time) -> Option<Action> {
    let ready = condition(&pod["status"]["conditions"], "Ready")?;
    if ready["status"] != "True" {
        return None;
    }
    let mut conditions = items(&pod["status"]["conditions"]).to_vec();
    for known in conditions
        .iter_mut()
        .filter(|known| known["type"] == "Ready")
    {
        known["status"] = "False".into();
        known["lastTransitionTime"] = rfc3339(now).into();
    }
    let patch = json!({
        "metadata": {"resourceVersion": api::meta::resource_version(pod)},
        "status": {"conditions": conditions},
    });
    Some(Action::status(PODS, pod, patch))
}

/// The taints people set, and those that follow from the node's state.
fn wanted_taints(node: &Value, ready: &str, now: Time) -> Vec<Value> {
    let ours = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
    let present = items(&node["spec"]["taints"]);
    let mut taints: Vec<Value> = present
        .iter()
        .filter(|taint| !ours.contains(&text(&taint["key"])))
        .cloned()
        .collect();
    let mut wanted = Vec::new();
    match ready {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        _ => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    for (key, effect) in wanted {
        let known = present
            .iter()
            .find(|taint| taint["key"] == key && taint["effect"] == effect);
        taints.push(
            known.cloned().unwrap_or_else(
                || json!({"key": key, "effect": effect, "timeAdded": rfc3339(now)}),
            ),
        );
    }
    taints
}

/// Deletes pods that do not tolerate a taint that drives them away, when their time is up.
fn evict(taints: &[Value], observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let mut actions = Vec::new();
    let mut again: Option<Duration> = None;
    let driving = taints.iter().filter(|taint| taint["effect"] == "NoExecute");
    for taint in driving {
        for pod in observed.pods.iter().filter(|pod| !is_terminating(pod)) {
            let Some(stay) = stay(pod, taint) else {
                continue;
            };
            let since = time_at(&taint["timeAdded"]).unwrap_or(observed.now);
            let left = since.saturating_add(time::Duration::seconds(stay)) - observed.now;
            if left > time::Duration::ZERO {
                let left = left.unsigned_abs();
                again = Some(again.map_or(left, |known| known.min(left)));
            } else {
                let text = format!(
                    "Marking for deletion Pod {}/{}",
                    api::meta::namespace(pod),
                    api::meta::name(pod)
                );
                actions.push(Action {
                    on_success: Some(Event::normal(pod, "TaintManagerEviction", text)),
                    ..Action::delete(PODS, pod)
                });
            }
        }
    }
    (actions, again)
}

/// For how many seconds a pod may stay beside a taint; `None` for ever.
fn stay(pod: &Value, taint: &Value) -> Option<i64> {
    let tolerations = items(&pod["spec"]["tolerations"]);
    let fitting: Vec<&Value> = tolerations
        .iter()
        .filter(|toleration| tolerates_taint(toleration, taint))
        .collect();
    if fitting.is_empty() {
        let by_state = [NOT_READY, UNREACHABLE].contains(&text(&taint["key"]));
        return Some(if by_state { DEFAULT_TOLERATION } else { 0 });
    }
    fitting
        .iter()
        .filter_map(|toleration| toleration["tolerationSeconds"].as_i64())
        .min()
        .map(|stay| stay.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn observed(ready: &str, silent: u64, taints: Value) -> Observed {
        Observed {
            node: Arc::new(json!({
                "metadata": {"name": "n", "resourceVersion": "1"},
                "spec": {"taints": taints},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })),
            silent_for: Duration::from_secs(silent),
            pods: vec![Arc::new(json!({
                "metadata": {"name": "p", "namespace": "a", "uid": "u", "resourceVersion": "1"},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }))],
            now: Time::UNIX_EPOCH + time::Duration::seconds(1_000),
        }
    }

    #[test]
    fn a_healthy_node_is_left_alone_until_its_grace_is_over() {
        let (actions, again) = reconcile(&observed("True", 10, json!(null)));
        assert_eq!((actions.len(), again), (0, Some(Duration::from_secs(30))));
    }

    #[test]
    fn a_silent_node_is_unknown_and_tainted_and_its_pods_not_ready() {
        let (actions, again) = reconcile(&observed(
            "True",
            41,
            json!([{"key": "mine", "effect": "NoSchedule"}]),
        ));
        let patches: Vec<String> = actions
            .iter()
            .map(|action| match &action.verb {
                Verb::Patch(patch, sub) => format!("{} {sub:?} {patch}", action.target.name),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(patches.len(), 3, "{patches:?}");
        assert!(patches[0].contains("NodeStatusUnknown"));
        assert!(patches[1].starts_with("p Some(\"status\")") && patches[1].contains("\"False\""));
        assert!(
            patches[2].contains("mine") && patches[2].matches(UNREACHABLE).count() == 2,
            "{}",
            patches[2]
        );
        assert_eq!(again, Some(Duration::from_secs(300)));
    }

    #[test]
    fn pods_leave_when_their_time_is_up() {
        let since = rfc3339(Time::UNIX_EPOCH + time::Duration::seconds(600));
        let taints = json!([
            {"key": UNREACHABLE, "effect": "NoSchedule", "timeAdded": since},
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": since},
        ]);
        let (actions, _) = reconcile(&observed("Unknown", 100, taints));
        assert!(
            actions
                .iter()
                .any(|action| matches!(action.verb, Verb::Delete(_)))
        );
    }

    #[test]
    fn a_node_that_is_back_loses_its_taints_and_a_cordoned_one_gets_one() {
        let taints = json!([{"key": NOT_READY, "effect": "NoSchedule"}]);
        let (actions, _) = reconcile(&observed("True", 0, taints));
        let Verb::Patch(patch, None) = &actions[0].verb else {
            panic!()
        };
        assert_eq!(patch["spec"]["taints"], json!([]));
        let mut cordoned = observed("True", 0, json!(null));
        let mut node = cordoned.node.as_ref().clone();
        node["spec"]["unschedulable"] = json!(true);
        cordoned.node = Arc::new(node);
        let (actions, _) = reconcile(&cordoned);
        let Verb::Patch(patch, None) = &actions[0].verb else {
            panic!()
        };
        assert_eq!(patch["spec"]["taints"][0]["key"], UNSCHEDULABLE);
    }
}
