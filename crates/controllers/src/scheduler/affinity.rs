//! Node selectors, node affinity, and affinity between pods.

use serde_json::Value;

use super::{NodeInfo, Snapshot};
use crate::object::{items, text};
use crate::selector;

/// Whether a node has the labels of `nodeSelector` and fits the required node affinity.
pub(super) fn fits_node(pod: &Value, node: &Value) -> bool {
    if !selector::map_matches(&pod["spec"]["nodeSelector"], &node["metadata"]["labels"]) {
        return false;
    }
    let required = required_terms(pod);
    required.is_none_or(|terms| terms.iter().any(|term| term_fits(term, node)))
}

fn required_terms(pod: &Value) -> Option<&[Value]> {
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"]
        .as_array()
        .map(Vec::as_slice)
}

/// Whether a term of a node selector fits. A term without requirements fits nothing.
pub(super) fn term_fits(term: &Value, node: &Value) -> bool {
    let expressions = items(&term["matchExpressions"]);
    let fields = items(&term["matchFields"]);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = &node["metadata"]["labels"];
    expressions.iter().all(|requirement| {
        requirement_fits(requirement, labels[text(&requirement["key"])].as_str())
    }) && fields.iter().all(|requirement| {
        let name = Some(api::meta::name(node)).filter(|_| requirement["key"] == "metadata.name");
        requirement_fits(requirement, name)
    })
}

fn requirement_fits(requirement: &Value, value: Option<&str>) -> bool {
    let values = items(&requirement["values"]);
    let listed = || value.is_some_and(|value| values.iter().any(|known| known == value));
    let compare = |greater: bool| {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
        match (
            number(value),
            number(values.first().and_then(Value::as_str)),
        ) {
            (Some(value), Some(bound)) => {
                if greater {
                    value > bound
                } else {
                    value < bound
                }
            }
            _ => false,
        }
    };
    match text(&requirement["operator"]) {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

/// The nodes a pod names by `matchFields`, when every term names some: no other node needs to
/// be looked at.
pub(super) fn named_nodes(pod: &Value) -> Option<Vec<&str>> {
    let terms = required_terms(pod)?;
    let mut names = Vec::new();
    for term in terms {
        let field = items(&term["matchFields"])
            .iter()
            .find(|field| field["key"] == "metadata.name" && field["operator"] == "In")?;
        names.extend(items(&field["values"]).iter().filter_map(Value::as_str));
    }
    Some(names)
}

/// Sum of the weights of the preferred node affinity terms that fit.
pub(super) fn preference(pod: &Value, node: &Value) -> i64 {
    let preferred =
        &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    items(preferred)
        .iter()
        .filter(|entry| {
            let term = &entry["preference"];
            let empty = items(&term["matchExpressions"]).is_empty()
                && items(&term["matchFields"]).is_empty();
            empty || term_fits(term, node)
        })
        .map(|entry| entry["weight"].as_i64().unwrap_or(0))
        .sum()
}

/// Which rule between pods forbids a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodRule {
    /// The pod wants to be near others that are not there.
    Affinity,
    /// The pod does not want to be near one that is there.
    AntiAffinity,
    /// One that is there does not want the pod near.
    ExistingAntiAffinity,
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The first rule between pods that forbids this node.
pub(super) fn forbidden_by(pod: &Value, info: &NodeInfo, snapshot: &Snapshot) -> Option<PodRule> {
    let affinity = &pod["spec"]["affinity"];
    let near = items(&affinity["podAffinity"][REQUIRED]);
    if !near.is_empty() && !affinity_fits(pod, near, info, snapshot) {
        return Some(PodRule::Affinity);
    }
    let apart = items(&affinity["podAntiAffinity"][REQUIRED]);
    if apart.iter().any(|term| is_near(pod, term, info, snapshot)) {
        return Some(PodRule::AntiAffinity);
    }
    let unwelcome = snapshot.nodes.iter().any(|other| {
        other.pods.iter().any(|existing| {
            items(&existing["spec"]["affinity"]["podAntiAffinity"][REQUIRED])
                .iter()
                .any(|term| {
                    same_place(term, &other.node, &info.node)
                        && term_selects(existing, term, pod, snapshot)
                })
        })
    });
    unwelcome.then_some(PodRule::ExistingAntiAffinity)
}

fn affinity_fits(pod: &Value, terms: &[Value], info: &NodeInfo, snapshot: &Snapshot) -> bool {
    if terms.iter().all(|term| is_near(pod, term, info, snapshot)) {
        return true;
    }
    // The first of a group that wants to be together has nobody to be near to.
    let nobody = !snapshot
        .nodes
        .iter()
        .flat_map(|node| &node.pods)
        .any(|existing| {
            terms
                .iter()
                .any(|term| term_selects(pod, term, existing, snapshot))
        });
    let has_places = terms
        .iter()
        .all(|term| !info.node["metadata"]["labels"][text(&term["topologyKey"])].is_null());
    nobody
        && has_places
        && terms
            .iter()
            .all(|term| term_selects(pod, term, pod, snapshot))
}

/// Whether a pod the term selects is in the same place as the node.
fn is_near(pod: &Value, term: &Value, info: &NodeInfo, snapshot: &Snapshot) -> bool {
    snapshot.nodes.iter().any(|other| {
        same_place(term, &other.node, &info.node)
            && other
                .pods
                .iter()
                .any(|existing| term_selects(pod, term, existing, snapshot))
    })
}

fn same_place(term: &Value, one: &Value, other: &Value) -> bool {
    let key = text(&term["topologyKey"]);
    let place = &one["metadata"]["labels"][key];
    !place.is_null() && *place == other["metadata"]["labels"][key]
}

/// Whether a term of `owner` selects `candidate`.
fn term_selects(owner: &Value, term: &Value, candidate: &Value, snapshot: &Snapshot) -> bool {
    let ns = api::meta::namespace(candidate);
    let named = items(&term["namespaces"]);
    let by_selector = &term["namespaceSelector"];
    let in_namespace = if named.is_empty() && by_selector.is_null() {
        ns == api::meta::namespace(owner)
    } else {
        named.iter().any(|name| name == ns)
            || snapshot
                .namespaces
                .get(ns)
                .is_some_and(|labels| selector::matches(by_selector, labels))
    };
    in_namespace && selector::matches(&term["labelSelector"], &candidate["metadata"]["labels"])
}
