//! One decision: a node, or the reasons why none will do.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Snapshot, filter, score, volumes};
use crate::object::text;

/// No node can take the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The text of the condition PodScheduled and of the event, as kube-scheduler 1.32 words it.
    pub message: String,
}

/// Chooses a node for a pod.
///
/// # Errors
/// When no node can take it.
pub fn decide<'a>(pod: &Value, snapshot: &'a Snapshot) -> Result<&'a str, Unfit> {
    if snapshot.nodes.is_empty() {
        return Err(Unfit {
            message: "no nodes available to schedule pods".to_owned(),
        });
    }
    if let Err(reason) = volumes::ready(pod, &snapshot.storage) {
        let nodes = snapshot.nodes.len();
        return Err(Unfit {
            message: format!(
                "0/{nodes} nodes are available: {reason}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
            ),
        });
    }
    let mut best: Option<(f64, &str)> = None;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut resolvable = 0;
    for info in &snapshot.nodes {
        match filter(pod, info, snapshot) {
            Ok(()) => {
                let score = score::score(pod, info);
                if best.is_none_or(|(known, _)| score > known) {
                    best = Some((score, api::meta::name(&info.node)));
                }
            }
            Err(rejection) => {
                resolvable += usize::from(rejection.resolvable);
                for reason in rejection.reasons {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }
    match best {
        Some((_, node)) => Ok(node),
        None => Err(Unfit {
            message: message(pod, snapshot.nodes.len(), &reasons, resolvable),
        }),
    }
}

fn message(
    pod: &Value,
    nodes: usize,
    reasons: &BTreeMap<String, usize>,
    resolvable: usize,
) -> String {
    let preemption = if text(&pod["spec"]["preemptionPolicy"]) == "Never" {
        "not eligible due to preemptionPolicy=Never.".to_owned()
    } else {
        let outcomes = BTreeMap::from([
            (
                "No preemption victims found for incoming pod".to_owned(),
                resolvable,
            ),
            (
                "Preemption is not helpful for scheduling".to_owned(),
                nodes - resolvable,
            ),
        ]);
        format!("0/{nodes} nodes are available: {}.", histogram(&outcomes))
    };
    format!(
        "0/{nodes} nodes are available: {}. preemption: {preemption}",
        histogram(reasons)
    )
}

/// `1 this, 2 that`, sorted as text.
fn histogram(counts: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    parts.join(", ")
}
