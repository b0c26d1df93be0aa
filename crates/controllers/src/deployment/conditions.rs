//! Conditions of a Deployment.

use api::time::{Time, rfc3339};
use serde_json::{Value, json};

use super::plan::Plan;

/// A condition as of now.
pub(super) fn new(kind: &str, status: &str, reason: &str, message: &str, now: Time) -> Value {
    json!({
        "type": kind,
        "status": status,
        "lastUpdateTime": rfc3339(now),
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    })
}

pub(super) fn get<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

pub(super) fn remove(conditions: &mut Vec<Value>, kind: &str) {
    conditions.retain(|condition| condition["type"] != kind);
}

/// Sets a condition, unless one with the same status and reason is there. The time of
/// transition moves only with the status.
pub(super) fn set(conditions: &mut Vec<Value>, mut condition: Value) {
    let kind = condition["type"].as_str().unwrap_or_default().to_owned();
    if let Some(known) = get(conditions, &kind) {
        if known["status"] == condition["status"] && known["reason"] == condition["reason"] {
            return;
        }
        if known["status"] == condition["status"] {
            condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
        }
    }
    remove(conditions, &kind);
    conditions.push(condition);
}

/// Notes that a rollout was paused or resumed: no deadline runs while it is paused.
pub(super) fn sync_paused(plan: &mut Plan) {
    if !plan.has_deadline() {
        return;
    }
    let reason = get(&plan.conditions, "Progressing").and_then(|known| known["reason"].as_str());
    if reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    let was_paused = reason == Some("DeploymentPaused");
    let paused = plan.deployment["spec"]["paused"] == true;
    let (reason, message) = match (was_paused, paused) {
        (false, true) => ("DeploymentPaused", "Deployment is paused"),
        (true, false) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    set(
        &mut plan.conditions,
        new("Progressing", "Unknown", reason, message, plan.now),
    );
}
