//! Taints and tolerations.

use serde_json::Value;

use crate::object::{items, text};

/// The first taint with one of these effects that the pod does not tolerate.
pub(super) fn untolerated<'a>(node: &'a Value, pod: &Value, effects: &[&str]) -> Option<&'a Value> {
    items(&node["spec"]["taints"])
        .iter()
        .filter(|taint| effects.contains(&text(&taint["effect"])))
        .find(|taint| !tolerates(pod, taint))
}

/// Whether a pod tolerates a taint.
pub(super) fn tolerates(pod: &Value, taint: &Value) -> bool {
    items(&pod["spec"]["tolerations"])
        .iter()
        .any(|toleration| tolerates_one(toleration, taint))
}

/// Whether one toleration tolerates a taint.
pub(crate) fn tolerates_one(toleration: &Value, taint: &Value) -> bool {
    let (effect, key) = (text(&toleration["effect"]), text(&toleration["key"]));
    if !effect.is_empty() && effect != text(&taint["effect"]) {
        return false;
    }
    if !key.is_empty() && key != text(&taint["key"]) {
        return false;
    }
    match text(&toleration["operator"]) {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration["value"]) == text(&taint["value"]),
        _ => false,
    }
}
