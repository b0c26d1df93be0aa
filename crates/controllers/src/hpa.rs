//! HorizontalPodAutoscalers: as many replicas as keep a metric at what it should be.
//!
//! [`decide`] says what one look at an autoscaler, its target, pods and metrics asks for; [`finish`] adds how the change of
//! the scale went. What earlier looks recommended is a [`History`] that the caller keeps between them.

mod behavior;
mod metrics;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::time::{Time, rfc3339};
use kube_client::{HORIZONTAL_POD_AUTOSCALERS, Resource};
use serde_json::{Value, json};

pub use behavior::History;

use crate::action::{Action, Event};
use crate::object::{int, items, status_patch, text};

/// What an autoscaler is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The autoscaler, `autoscaling/v2`.
    pub autoscaler: Arc<Value>,
    /// The `Scale` of its target, or why it cannot be read.
    pub scale: Result<Value, String>,
    /// All pods of the namespace.
    pub pods: Vec<Arc<Value>>,
    /// `PodMetrics` of the pods the target selects, or why they cannot be read.
    pub metrics: Result<Vec<Value>, String>,
    /// Names of other autoscalers of the namespace that scale some of these pods.
    pub rivals: Vec<String>,
    /// The present moment.
    pub now: Time,
}

/// What a look at an autoscaler asks for.
#[derive(Debug, Default)]
pub struct Decision {
    /// The status it gets, except for what the change of the scale adds.
    pub status: Value,
    /// A new number of replicas, and why.
    pub rescale: Option<(i64, String)>,
    /// Events that tell of trouble.
    pub events: Vec<Event>,
}

/// The built-in kind with a scale that a target names; its version is the one that is served, whatever the target says.
pub fn target_resource(api_version: &str, kind: &str) -> Option<Resource> {
    let (group, _) = api::meta::group_version(api_version);
    api::scheme::builtin()
        .iter()
        .find(|r| r.group == group && r.kind == kind && r.subresource("scale").is_some())
        .map(|r| Resource::new(&r.group, &r.version, &r.plural, &r.kind))
}

/// Sets a condition; its time changes with its status only.
fn set_condition(
    status: &mut Value,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Time,
) {
    let value = if holds { "True" } else { "False" };
    let mut all = items(&status["conditions"]).to_vec();
    let condition = match all.iter_mut().find(|c| c["type"] == kind) {
        Some(known) => known,
        None => {
            all.push(json!({"type": kind}));
            all.last_mut().expect("just pushed")
        }
    };
    if condition["status"] != value {
        condition["lastTransitionTime"] = rfc3339(now).into();
    }
    condition["status"] = value.into();
    condition["reason"] = reason.into();
    condition["message"] = message.into();
    status["conditions"] = all.into();
}

/// Judges an autoscaler. `history` is what earlier looks found and is brought up to date.
pub fn decide(observed: &Observed, history: &mut History) -> Decision {
    let (autoscaler, now) = (&observed.autoscaler, observed.now);
    let mut out = Decision {
        status: json!({
            "currentReplicas": int(&autoscaler["status"]["currentReplicas"]),
            "desiredReplicas": int(&autoscaler["status"]["desiredReplicas"]),
            "conditions": items(&autoscaler["status"]["conditions"]),
            "currentMetrics": autoscaler["status"]["currentMetrics"],
        }),
        ..Decision::default()
    };
    if let Some(last) = autoscaler["status"]["lastScaleTime"].as_str() {
        out.status["lastScaleTime"] = last.into();
    }
    let scale = match &observed.scale {
        Ok(scale) => scale,
        Err(why) => {
            let message =
                format!("the HPA controller was unable to get the target's current scale: {why}");
            set_condition(
                &mut out.status,
                "AbleToScale",
                false,
                "FailedGetScale",
                &message,
                now,
            );
            out.events
                .push(Event::warning(autoscaler, "FailedGetScale", why.clone()));
            return out;
        }
    };
    set_condition(
        &mut out.status,
        "AbleToScale",
        true,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
        now,
    );
    let current = int(&scale["spec"]["replicas"]);
    history.begin(current, now);
    let spec = &autoscaler["spec"];
    let least = spec["minReplicas"].as_i64().unwrap_or(1);
    let most = int(&spec["maxReplicas"]);
    out.status["currentReplicas"] = current.into();
    out.status["currentMetrics"] = Value::Null;
    if current == 0 && least != 0 {
        set_condition(
            &mut out.status,
            "ScalingActive",
            false,
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
            now,
        );
        out.status["desiredReplicas"] = 0.into();
    } else if current > most {
        let why = "Current number of replicas above Spec.MaxReplicas";
        out.rescale = Some((most, why.to_owned()));
    } else if current < least {
        let why = "Current number of replicas below Spec.MinReplicas";
        out.rescale = Some((least, why.to_owned()));
    } else {
        by_metrics(observed, scale, current, history, &mut out);
    }
    out
}

/// The part of [`decide`] in which the metrics have the say.
fn by_metrics(
    observed: &Observed,
    scale: &Value,
    current: i64,
    history: &mut History,
    out: &mut Decision,
) {
    let (autoscaler, now) = (&observed.autoscaler, observed.now);
    let spec = &autoscaler["spec"];
    let (least, most) = (
        spec["minReplicas"].as_i64().unwrap_or(1),
        int(&spec["maxReplicas"]),
    );
    let proposal = metrics::propose(observed, scale, current, out);
    out.status["currentMetrics"] = proposal.seen.into();
    if let Some(error) = proposal.error {
        out.events.push(Event::warning(
            autoscaler,
            "FailedComputeMetricsReplicas",
            error,
        ));
    }
    let Some((wanted, metric)) = proposal.wanted else {
        return;
    };
    let why = match wanted.cmp(&current) {
        std::cmp::Ordering::Greater => format!("{metric} above target"),
        _ => "All metrics below target".to_owned(),
    };
    let judged = behavior::normalize(
        &spec["behavior"],
        history,
        current,
        wanted,
        least,
        most,
        now,
    );
    let (reason, message) = judged.able;
    set_condition(&mut out.status, "AbleToScale", true, reason, message, now);
    let (reason, message) = judged.limit;
    set_condition(
        &mut out.status,
        "ScalingLimited",
        judged.limited,
        reason,
        message,
        now,
    );
    out.status["desiredReplicas"] = judged.replicas.into();
    if judged.replicas != current {
        out.rescale = Some((judged.replicas, why));
    }
}

/// Adds to a decision how the change of the scale went, and returns the patch of the status (when it changes) with the events.
pub fn finish(
    observed: &Observed,
    mut decision: Decision,
    result: Result<(), String>,
    history: &mut History,
) -> (Option<Action>, Vec<Event>) {
    let (autoscaler, now) = (&observed.autoscaler, observed.now);
    let status = &mut decision.status;
    if let Some((replicas, why)) = &decision.rescale {
        match result {
            Ok(()) => {
                let message =
                    format!("the HPA controller was able to update the target scale to {replicas}");
                set_condition(
                    status,
                    "AbleToScale",
                    true,
                    "SucceededRescale",
                    &message,
                    now,
                );
                decision.events.push(Event::normal(
                    autoscaler,
                    "SuccessfulRescale",
                    format!("New size: {replicas}; reason: {why}"),
                ));
                let current = int(&status["currentReplicas"]);
                history.scaled(&autoscaler["spec"]["behavior"], *replicas - current, now);
                status["desiredReplicas"] = (*replicas).into();
                status["lastScaleTime"] = rfc3339(now).into();
            }
            Err(error) => {
                let message =
                    format!("the HPA controller was unable to update the target scale: {error}");
                set_condition(
                    status,
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    &message,
                    now,
                );
                decision.events.push(Event::warning(
                    autoscaler,
                    "FailedRescale",
                    format!("New size: {replicas}; reason: {why}; error: {error}"),
                ));
                status["desiredReplicas"] = int(&autoscaler["status"]["desiredReplicas"]).into();
            }
        }
    }
    let patch = status_patch(autoscaler, status)
        .map(|patch| Action::status(HORIZONTAL_POD_AUTOSCALERS, autoscaler, patch));
    (patch, decision.events)
}

/// `apiVersion`, kind and name of the target.
pub fn target(autoscaler: &Value) -> (&str, &str, &str) {
    let target = &autoscaler["spec"]["scaleTargetRef"];
    (
        text(&target["apiVersion"]),
        text(&target["kind"]),
        text(&target["name"]),
    )
}
