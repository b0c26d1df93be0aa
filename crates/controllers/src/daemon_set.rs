//! DaemonSets: one pod on every node that fits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{DAEMON_SETS, PODS};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::claim::claim;
use crate::object::{int, is_terminating, items, omit_empty, status_patch, text};
use crate::pods::{self, Availability};
use crate::replicaset::pod_from_template;
use crate::revision::{self, HASH_LABEL, REVISIONS};

/// Taints that daemon pods live with.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What a DaemonSet is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The DaemonSet.
    pub set: Arc<Value>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// All nodes.
    pub nodes: Vec<Arc<Value>>,
    /// All ControllerRevisions of its namespace.
    pub revisions: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// The node a daemon pod is for: where it is, or where it must go.
fn node_of(pod: &Value) -> &str {
    let bound = text(&pod["spec"]["nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    text(&terms[0]["matchFields"][0]["values"][0])
}

/// A pod for one node; the scheduler can put it nowhere else.
fn pod_for(set: &Value, node: &str, hash: &str) -> Value {
    let mut pod = pod_from_template(set);
    let generation = api::meta::annotation(set, api::meta::TEMPLATE_GENERATION).map(str::to_owned);
    let labels = api::meta::map_mut(&mut pod["metadata"], "labels");
    labels.insert(HASH_LABEL.into(), hash.into());
    if let Some(generation) = generation {
        labels.insert("pod-template-generation".into(), generation.into());
    }
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                term["matchFields"] = field.clone();
            }
        }
        _ => *required = json!({"nodeSelectorTerms": [{"matchFields": field}]}),
    }
    let mut tolerations = items(&pod["spec"]["tolerations"]).to_vec();
    for (key, effect) in TOLERATED {
        let t = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&t) {
            tolerations.push(t);
        }
    }
    pod["spec"]["tolerations"] = tolerations.into();
    pod
}

/// Should a node have a pod, and may a pod stay that is there?
fn fits(set: &Value, node: &Value) -> (bool, bool) {
    let pod = pod_for(set, api::meta::name(node), "");
    if !crate::scheduler::node_fits(&pod, node) {
        return (false, false);
    }
    let untolerated = |effects: &[&str]| crate::scheduler::untolerated(node, &pod, effects);
    (
        !untolerated(&["NoSchedule", "NoExecute"]),
        !untolerated(&["NoExecute"]),
    )
}

/// What is to be done, and when to look again.
pub fn reconcile(observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let set = &observed.set;
    let claimed = claim(set, &PODS, &observed.pods);
    if !claimed.actions.is_empty() {
        return (claimed.actions, None);
    }
    if is_terminating(set) {
        return (Vec::new(), None);
    }
    let history = revision::history(set, &observed.revisions);
    let update = match revision::settled(set, &history) {
        Ok(revision) => revision,
        Err(first) => return (first, None),
    };
    let hash = text(&update["metadata"]["labels"][HASH_LABEL]).to_owned();
    let mut by_node: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
    for pod in &claimed.mine {
        by_node.entry(node_of(pod)).or_default().push(pod);
    }
    let mut actions = Vec::new();
    let mut counts = Counts::default();
    let mut replaceable: Vec<&Arc<Value>> = Vec::new();
    let mut again: Option<Duration> = None;
    let min_ready = int(&set["spec"]["minReadySeconds"]);
    for node in &observed.nodes {
        let (should, may) = fits(set, node);
        let mut own = by_node.remove(api::meta::name(node)).unwrap_or_default();
        // The oldest stays when there are several.
        own.sort_by_key(|pod| (is_terminating(pod), crate::object::created(pod)));
        if !should && (!may || own.is_empty()) {
            counts.misplaced += usize::from(!own.is_empty());
            for pod in own.iter().filter(|pod| !is_terminating(pod)) {
                actions.push(delete(set, pod));
            }
            continue;
        }
        if !should {
            counts.misplaced += 1;
            continue;
        }
        counts.desired += 1;
        let failed = own
            .iter()
            .find(|pod| pods::is_finished(pod) && !is_terminating(pod));
        if let Some(failed) = failed {
            actions.push(Action {
                on_success: Some(Event::warning(
                    set,
                    "FailedDaemonPod",
                    format!(
                        "Found failed daemon pod {}/{} on node {}, will try to kill it",
                        api::meta::namespace(failed),
                        api::meta::name(failed),
                        api::meta::name(node)
                    ),
                )),
                ..Action::delete(PODS, failed)
            });
        }
        let Some(pod) = own.iter().find(|pod| pods::is_active(pod)) else {
            if own.is_empty() {
                actions.push(pods::create(
                    set,
                    pod_for(set, api::meta::name(node), &hash),
                ));
            }
            counts.current += usize::from(!own.is_empty());
            continue;
        };
        for extra in own.iter().filter(|p| pods::is_active(p)).skip(1) {
            actions.push(delete(set, extra));
        }
        counts.current += 1;
        let new = text(&pod["metadata"]["labels"][HASH_LABEL]) == hash;
        counts.updated += usize::from(new);
        counts.ready += usize::from(pods::is_ready(pod));
        let available = match pods::availability(pod, min_ready, observed.now) {
            Availability::Yes => true,
            Availability::In(wait) => {
                again = Some(again.map_or(wait, |known: Duration| known.min(wait)));
                false
            }
            Availability::No => false,
        };
        counts.available += usize::from(available);
        if !new {
            replaceable.push(pod);
        }
    }
    // Nodes that are gone take their pods with them.
    for pod in by_node.into_values().flatten() {
        if !is_terminating(pod) {
            actions.push(delete(set, pod));
        }
    }
    if set["spec"]["updateStrategy"]["type"] == "RollingUpdate" {
        let most = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
        let most = percent_or_count(most, counts.desired).max(1);
        let mut missing = counts.desired.saturating_sub(counts.available);
        // Old pods that do not work anyway cost nothing.
        replaceable.sort_by_key(|pod| pods::is_ready(pod));
        for pod in replaceable {
            let works = pods::availability(pod, min_ready, observed.now) == Availability::Yes;
            if works && missing >= most {
                break;
            }
            missing += usize::from(works);
            actions.push(delete(set, pod));
        }
    }
    let status = counts.status(set);
    if let Some(patch) = status_patch(set, &status) {
        actions.insert(0, Action::status(DAEMON_SETS, set, patch));
    } else if actions.is_empty() {
        let limit = set["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
        let live = |r: &Value| {
            let own = text(&r["metadata"]["labels"][HASH_LABEL]);
            own == hash
                || claimed
                    .mine
                    .iter()
                    .any(|pod| text(&pod["metadata"]["labels"][HASH_LABEL]) == own)
        };
        actions.extend(
            revision::surplus(&history, limit, &live)
                .iter()
                .map(|r| Action::delete(REVISIONS, r)),
        );
    }
    (actions, again)
}

/// `25%` of a number, rounded up, or the count itself.
pub(crate) fn percent_or_count(v: &Value, of: usize) -> usize {
    match v {
        Value::String(s) => {
            let percent: usize = s.trim_end_matches('%').parse().unwrap_or(0);
            (percent * of).div_ceil(100)
        }
        other => usize::try_from(other.as_i64().unwrap_or(0)).unwrap_or(0),
    }
}

fn delete(set: &Arc<Value>, pod: &Value) -> Action {
    Action {
        on_success: Some(Event::normal(
            set,
            "SuccessfulDelete",
            format!("Deleted pod: {}", api::meta::name(pod)),
        )),
        on_failure: Some(Event::warning(
            set,
            "FailedDelete",
            "Error deleting: {error}",
        )),
        ..Action::delete(PODS, pod)
    }
}

#[derive(Default)]
struct Counts {
    desired: usize,
    current: usize,
    misplaced: usize,
    ready: usize,
    updated: usize,
    available: usize,
}

impl Counts {
    fn status(&self, set: &Value) -> Value {
        let mut status = omit_empty(json!({
            "observedGeneration": api::meta::generation(set),
            "updatedNumberScheduled": self.updated,
            "numberAvailable": self.available,
            "numberUnavailable": self.desired.saturating_sub(self.available),
            "collisionCount": set["status"]["collisionCount"],
            "conditions": set["status"]["conditions"],
        }));
        status["currentNumberScheduled"] = self.current.into();
        status["numberMisscheduled"] = self.misplaced.into();
        status["desiredNumberScheduled"] = self.desired.into();
        status["numberReady"] = self.ready.into();
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn set() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"selector": {"matchLabels": {"a": "b"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "nodeSelector": {"color": "red"}}}}})
    }

    fn run(set: &Value, pods: Vec<Arc<Value>>, nodes: &[Value]) -> Vec<String> {
        let revision = match revision::current(set, &[], 0) {
            revision::Current::Missing(r) => Arc::new(r),
            _ => panic!("not missing"),
        };
        let observed = Observed {
            set: Arc::new(set.clone()),
            pods,
            nodes: nodes.iter().cloned().map(Arc::new).collect(),
            revisions: vec![revision],
            now: Time::UNIX_EPOCH + time::Duration::days(30_000),
        };
        reconcile(&observed)
            .0
            .iter()
            .filter(|a| a.target.resource == PODS)
            .map(|a| match &a.verb {
                Verb::Create(o) => format!("create on {}", node_of(o)),
                Verb::Delete(_) => format!("delete {}", a.target.name),
                Verb::Patch(..) => "patch".into(),
            })
            .collect()
    }

    fn node(name: &str, color: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"color": color}}})
    }

    fn pod(name: &str, node: &str, hash: &str, phase: &str) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"a": "b", HASH_LABEL: hash},
            "ownerReferences": [{"uid": "u", "controller": true}]}, "spec": {"nodeName": node}, "status": {"phase": phase}}),
        )
    }

    #[test]
    fn every_fitting_node_gets_one() {
        let nodes = [node("x", "red"), node("y", "blue")];
        assert_eq!(run(&set(), vec![], &nodes), ["create on x"]);
        let lost = pod("p", "y", "h", "Running");
        assert_eq!(run(&set(), vec![lost], &nodes), ["create on x", "delete p"]);
    }

    #[test]
    fn a_failed_pod_is_replaced_and_an_old_one_too() {
        let nodes = [node("x", "red")];
        assert_eq!(
            run(&set(), vec![pod("p", "x", "h", "Failed")], &nodes),
            ["delete p"]
        );
        assert_eq!(
            run(&set(), vec![pod("p", "x", "old", "Running")], &nodes),
            ["delete p"]
        );
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!(percent_or_count(&json!("25%"), 5), 2);
        assert_eq!(percent_or_count(&json!(3), 5), 3);
    }
}
