//! The steps of a rollout: which set grows, which one shrinks, and how far it got.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::conditions;
use super::plan::{Plan, Set};
use super::strategy;
use crate::object::{condition, controller_uid, created, int};
use crate::pods;

/// One step of a rolling update: the new set grows as far as the surge allows; if it cannot,
/// old sets shrink as far as availability allows.
pub(super) fn rolling(plan: &mut Plan) {
    plan.ensure_new(|plan| new_size(plan, 0));
    let Some(new) = plan.new.clone() else { return };
    let wanted = plan.replicas();
    let size = if new.replicas > wanted {
        wanted
    } else {
        new_size(plan, new.replicas)
    };
    if size != new.replicas {
        plan.scale(new.name(), size, true);
        return;
    }
    if shrink_old(plan, &new) {
        return;
    }
    if plan.is_complete(&plan.deployment["status"]) {
        plan.clean_up();
    }
}

/// How large the new set may be now, given its present size.
fn new_size(plan: &Plan, size: i64) -> i64 {
    if strategy::is_recreate(&plan.deployment) {
        return plan.replicas();
    }
    let room = plan.max_replicas() - plan.total();
    if room <= 0 {
        return size;
    }
    size + room.min(plan.replicas() - size).max(0)
}

/// Shrinks old sets, pods that are not available first. Returns whether anything changed.
fn shrink_old(plan: &mut Plan, new: &Set) -> bool {
    let minimum = plan.min_available();
    let new_unavailable = new.replicas - new.status("availableReplicas");
    let mut budget = plan.total() - minimum - new_unavailable;
    if budget <= 0 || plan.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    let mut changed = false;
    for set in plan.old.clone() {
        let broken = set.replicas - set.status("availableReplicas");
        let fewer = broken.min(budget).min(set.replicas);
        if fewer > 0 {
            plan.scale(set.name(), set.replicas - fewer, true);
            budget -= fewer;
            changed = true;
        }
    }
    let mut surplus = plan.sum("availableReplicas") - minimum;
    for set in plan.old.clone() {
        let fewer = surplus.min(set.replicas);
        if fewer > 0 {
            plan.scale(set.name(), set.replicas - fewer, true);
            surplus -= fewer;
            changed = true;
        }
    }
    changed
}

/// One step of the strategy Recreate: all old pods go, and only then the new ones come.
pub(super) fn recreate(plan: &mut Plan, pods: &[Arc<Value>]) {
    let mut scaled = false;
    for set in plan.old.clone() {
        if set.replicas > 0 {
            plan.scale(set.name(), 0, true);
            scaled = true;
        }
    }
    let old_uids: Vec<&str> = plan
        .old
        .iter()
        .map(|set| api::meta::uid(&set.object))
        .collect();
    let running =
        |pod: &Arc<Value>| !pods::is_finished(pod) && old_uids.contains(&controller_uid(pod));
    if scaled || pods.iter().any(running) {
        return;
    }
    plan.ensure_new(Plan::replicas);
    let wanted = plan.replicas();
    if let Some(new) = plan.new.clone()
        && new.replicas != wanted
    {
        plan.scale(new.name(), wanted, true);
    }
    if plan.is_complete(&plan.deployment["status"]) {
        plan.clean_up();
    }
}

/// Scales a Deployment that is not being rolled out, or is in the middle of it: then all sets
/// share the change in proportion to their sizes.
pub(super) fn scale(plan: &mut Plan) {
    let wanted = plan.replicas();
    if let Some(only) = active_or_latest(plan) {
        plan.scale(&only, wanted, true);
        return;
    }
    if is_saturated(plan) {
        for set in plan.old.clone().iter().filter(|set| set.replicas > 0) {
            plan.scale(set.name(), 0, true);
        }
        return;
    }
    if !strategy::is_recreate(&plan.deployment) {
        scale_in_proportion(plan);
    }
}

/// The only set with pods; without any, the newest set. `None` when several have pods.
fn active_or_latest(plan: &Plan) -> Option<String> {
    let mut active = plan.all().filter(|set| set.replicas > 0);
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => None,
        (None, _) => plan.new.as_ref().or_else(|| plan.old.last()),
    }
    .map(|set| set.name().to_owned())
}

fn is_saturated(plan: &Plan) -> bool {
    let wanted = plan.replicas();
    plan.new.as_ref().is_some_and(|set| {
        set.desired() == Some(wanted)
            && set.replicas == wanted
            && set.status("availableReplicas") == wanted
    })
}

fn scale_in_proportion(plan: &mut Plan) {
    let allowed = if plan.replicas() > 0 {
        plan.max_replicas()
    } else {
        0
    };
    let mut active: Vec<Set> = plan.all().filter(|set| set.replicas > 0).cloned().collect();
    let change = allowed - active.iter().map(|set| set.replicas).sum::<i64>();
    // The largest first; among equals the newer grow first and the older shrink first.
    if change > 0 {
        active.sort_by_key(|set| (Reverse(set.replicas), Reverse(created(&set.object))));
    } else {
        active.sort_by_key(|set| (Reverse(set.replicas), created(&set.object)));
    }
    let mut given = 0;
    let mut sizes: Vec<i64> = active
        .iter()
        .map(|set| {
            let share = share(plan, set, change, given);
            given += share;
            set.replicas + share
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    for (set, size) in active.iter().zip(sizes) {
        plan.scale(set.name(), size, false);
    }
}

/// A set's part of a change, of which `given` is spent.
fn share(plan: &Plan, set: &Set, change: i64, given: i64) -> i64 {
    let left = change - given;
    if change == 0 || left == 0 {
        return 0;
    }
    let fraction = if plan.replicas() == 0 {
        -set.replicas
    } else {
        let before = set
            .max()
            .unwrap_or_else(|| int(&plan.deployment["status"]["replicas"]))
            .max(1);
        let size = (set.replicas * plan.max_replicas()) as f64 / before as f64;
        size.round() as i64 - set.replicas
    };
    if change > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// Judges the progress of a rollout from the status that is about to be written. Returns when
/// to look again for a deadline that passed.
pub(super) fn estimate(plan: &mut Plan, status: &Value) -> Option<Duration> {
    if !plan.has_deadline() {
        conditions::remove(&mut plan.conditions, "Progressing");
        failures(plan);
        return None;
    }
    let before = plan.deployment["status"].clone();
    let known = conditions::get(&plan.conditions, "Progressing");
    let done = known.is_some_and(|known| known["reason"] == "NewReplicaSetAvailable")
        && int(&status["replicas"]) == int(&status["updatedReplicas"]);
    if !done {
        let subject = match &plan.new {
            Some(set) => format!("ReplicaSet {:?}", set.name()),
            None => format!("Deployment {:?}", api::meta::name(&plan.deployment)),
        };
        let now = plan.now;
        if plan.is_complete(status) {
            let message = format!("{subject} has successfully progressed.");
            let reason = "NewReplicaSetAvailable";
            conditions::set(
                &mut plan.conditions,
                conditions::new("Progressing", "True", reason, &message, now),
            );
        } else if progressed(&before, status) {
            let message = format!("{subject} is progressing.");
            let mut condition =
                conditions::new("Progressing", "True", "ReplicaSetUpdated", &message, now);
            // Written even if nothing but the time of the update changes: the deadline counts
            // from there.
            if let Some(known) = conditions::get(&plan.conditions, "Progressing")
                && known["status"] == "True"
            {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            conditions::remove(&mut plan.conditions, "Progressing");
            plan.conditions.push(condition);
        } else if timed_out(plan) {
            let message = format!("{subject} has timed out progressing.");
            let reason = "ProgressDeadlineExceeded";
            conditions::set(
                &mut plan.conditions,
                conditions::new("Progressing", "False", reason, &message, now),
            );
        }
    }
    failures(plan);
    again(plan, status)
}

fn progressed(before: &Value, now: &Value) -> bool {
    let old_pods = |status: &Value| int(&status["replicas"]) - int(&status["updatedReplicas"]);
    let grew = |field: &str| int(&now[field]) > int(&before[field]);
    grew("updatedReplicas")
        || old_pods(now) < old_pods(before)
        || grew("readyReplicas")
        || grew("availableReplicas")
}

fn timed_out(plan: &Plan) -> bool {
    let Some(known) = conditions::get(&plan.conditions, "Progressing") else {
        return false;
    };
    match known["reason"].as_str() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => plan.deadline(known) == Some(Duration::ZERO),
    }
}

/// Failures of the sets become a condition of the Deployment, the new set's first.
fn failures(plan: &mut Plan) {
    let failure = plan
        .new
        .iter()
        .chain(&plan.old)
        .find_map(|set| condition(&set.object["status"]["conditions"], "ReplicaFailure"))
        .cloned();
    match failure {
        Some(failure) => {
            let text = |field: &str| failure[field].as_str().unwrap_or_default();
            let condition = conditions::new(
                "ReplicaFailure",
                text("status"),
                text("reason"),
                text("message"),
                plan.now,
            );
            conditions::set(&mut plan.conditions, condition);
        }
        None => conditions::remove(&mut plan.conditions, "ReplicaFailure"),
    }
}

fn again(plan: &Plan, status: &Value) -> Option<Duration> {
    let known = conditions::get(&plan.conditions, "Progressing")?;
    let over = matches!(
        known["reason"].as_str(),
        Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")
    );
    if over || plan.is_complete(status) {
        return None;
    }
    // A second later, because times are written in whole seconds.
    plan.deadline(known)
        .map(|left| left + Duration::from_secs(1))
}
