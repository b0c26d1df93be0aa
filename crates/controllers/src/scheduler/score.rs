//! Which of the nodes that fit is best.

use serde_json::Value;

use super::{NodeInfo, affinity, resources, taints};
use crate::object::{controller_uid, items, text};

/// The higher the better: room left (0 to 100), the pod's own preferences, few siblings, and no
/// taints that ask to stay away.
pub(super) fn score(pod: &Value, info: &NodeInfo) -> f64 {
    let owner = controller_uid(pod);
    let siblings = info
        .pods
        .iter()
        .filter(|other| !owner.is_empty() && controller_uid(other) == owner)
        .count();
    let soft_taints = items(&info.node["spec"]["taints"])
        .iter()
        .filter(|taint| {
            text(&taint["effect"]) == "PreferNoSchedule" && !taints::tolerates(pod, taint)
        })
        .count();
    room(pod, info) + 2.0 * affinity::preference(pod, &info.node) as f64
        - 100.0 * siblings as f64
        - 300.0 * soft_taints as f64
}

/// Mean share of CPU and memory that stays free, in percent.
fn room(pod: &Value, info: &NodeInfo) -> f64 {
    let allocatable = resources::amounts(&info.node["status"]["allocatable"]);
    let share = |name: &str| {
        let Some(&total) = allocatable.get(name).filter(|&&total| total > 0) else {
            return 0.0;
        };
        let used: i64 = info
            .pods
            .iter()
            .map(AsRef::as_ref)
            .chain([pod])
            .map(|other| {
                resources::assumed_requests(other)
                    .get(name)
                    .copied()
                    .unwrap_or(0)
            })
            .sum();
        ((total - used) as f64 / total as f64).max(0.0) * 100.0
    };
    (share("cpu") + share("memory")) / 2.0
}
