//! Which pods make room for one that is more important.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::Value;

use super::{NodeInfo, Snapshot, filter};
use crate::object::{is_terminating, text};

/// How important a pod is.
pub(super) fn priority(pod: &Value) -> i64 {
    pod["spec"]["priority"].as_i64().unwrap_or(0)
}

/// Pods to end so that `pod` fits, and the node it then fits on: as few and as unimportant ones as possible.
/// Nothing when no node can be made to take it, or when the pod is not to displace others.
pub(super) fn victims<'a>(
    pod: &Value,
    snapshot: &'a Snapshot,
) -> Option<(&'a str, Vec<Arc<Value>>)> {
    if text(&pod["spec"]["preemptionPolicy"]) == "Never" {
        return None;
    }
    let mut best: Option<(Cost, &str, Vec<Arc<Value>>)> = None;
    for (at, info) in snapshot.nodes.iter().enumerate() {
        let helps = matches!(filter(pod, info, snapshot), Err(why) if why.resolvable);
        let Some(found) = helps.then(|| on_node(pod, at, snapshot)).flatten() else {
            continue;
        };
        let cost = cost(&found);
        if best.as_ref().is_none_or(|(known, ..)| cost < *known) {
            best = Some((cost, api::meta::name(&info.node), found));
        }
    }
    best.map(|(_, node, found)| (node, found))
}

/// The highest priority among the victims, the sum of all, their number.
type Cost = (i64, i64, usize);

fn cost(victims: &[Arc<Value>]) -> Cost {
    let priorities = || victims.iter().map(|victim| priority(victim));
    let offset = |p: i64| p.saturating_sub(i64::from(i32::MIN));
    (
        priorities().max().unwrap_or(i64::MIN),
        priorities().map(offset).fold(0, i64::saturating_add),
        victims.len(),
    )
}

fn on_node(pod: &Value, at: usize, snapshot: &Snapshot) -> Option<Vec<Arc<Value>>> {
    let info = snapshot.nodes.get(at)?;
    let own = priority(pod);
    let (mut lower, kept): (Vec<_>, Vec<_>) = info
        .pods
        .iter()
        .cloned()
        .partition(|other| priority(other) < own);
    if lower.is_empty() {
        return None;
    }
    let mut without = snapshot.clone();
    without.nodes[at] = NodeInfo {
        node: info.node.clone(),
        pods: kept,
    };
    filter(pod, &without.nodes[at], &without).ok()?;
    // The most important ones are spared first, among equals those that run longest.
    lower.sort_by_key(|other| {
        (
            Reverse(priority(other)),
            text(&other["status"]["startTime"]).to_owned(),
        )
    });
    let mut victims = Vec::new();
    for other in lower {
        without.nodes[at].pods.push(other.clone());
        if filter(pod, &without.nodes[at], &without).is_err() {
            without.nodes[at].pods.pop();
            victims.push(other);
        }
    }
    Some(victims)
}

/// Whether room is being made for a pod already: somebody less important is ending on the node it waits for.
pub(super) fn is_under_way(pod: &Value, snapshot: &Snapshot) -> bool {
    let node = text(&pod["status"]["nominatedNodeName"]);
    snapshot
        .nodes
        .iter()
        .filter(|info| api::meta::name(&info.node) == node)
        .flat_map(|info| &info.pods)
        .any(|other| is_terminating(other) && priority(other) < priority(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i64, cpu: &str) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"priority": priority,
            "containers": [{"resources": {"requests": {"cpu": cpu}}}]}}),
        )
    }

    fn node(name: &str, pods: Vec<Arc<Value>>) -> NodeInfo {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}});
        NodeInfo {
            node: Arc::new(node),
            pods,
        }
    }

    fn found(pod: &Value, nodes: Vec<NodeInfo>) -> Option<(String, Vec<String>)> {
        let snapshot = Snapshot {
            nodes,
            ..Snapshot::default()
        };
        victims(pod, &snapshot).map(|(node, found)| {
            let names = found.iter().map(|v| api::meta::name(v).to_owned());
            (node.to_owned(), names.collect())
        })
    }

    #[test]
    fn the_least_important_pods_go_and_no_more_than_needed() {
        let running = || {
            vec![
                pod("low", 1, "2"),
                pod("lower", 0, "1"),
                pod("high", 9, "1"),
            ]
        };
        let new = |cpu: &str| pod("new", 5, cpu);
        assert_eq!(
            found(&new("1"), vec![node("a", running())]),
            Some(("a".into(), vec!["lower".into()]))
        );
        assert_eq!(
            found(&new("3"), vec![node("a", running())]),
            Some(("a".into(), vec!["low".into(), "lower".into()]))
        );
        assert_eq!(found(&new("4"), vec![node("a", running())]), None);
    }

    #[test]
    fn the_node_with_the_cheapest_victims_is_chosen() {
        let nodes = vec![
            node("a", vec![pod("x", 3, "4")]),
            node("b", vec![pod("y", 2, "4")]),
        ];
        assert_eq!(
            found(&pod("new", 5, "1"), nodes),
            Some(("b".into(), vec!["y".into()]))
        );
    }

    #[test]
    fn polite_pods_displace_nobody() {
        let mut new = (*pod("new", 5, "1")).clone();
        new["spec"]["preemptionPolicy"] = "Never".into();
        assert_eq!(found(&new, vec![node("a", vec![pod("x", 0, "4")])]), None);
    }
}
