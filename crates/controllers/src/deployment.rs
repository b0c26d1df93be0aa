//! Deployment: rolls its pods from one template to the next through ReplicaSets.

mod conditions;
mod plan;
mod rollout;
mod strategy;
pub(crate) mod template;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{DEPLOYMENTS, REPLICA_SETS};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::claim::claim;
use crate::object::{int, is_terminating};
use crate::selector;
use plan::Plan;

pub(crate) use template::same_template;

/// Annotation with the revision of a Deployment or ReplicaSet.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the earlier revisions of a ReplicaSet that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation of a ReplicaSet: replicas its Deployment wanted when it was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet: replicas its Deployment may have at most, surge included.
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Label that keeps the pods of different templates apart.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What a Deployment is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The Deployment.
    pub deployment: Arc<Value>,
    /// All ReplicaSets of its namespace.
    pub replica_sets: Vec<Arc<Value>>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// Look again then, even if nothing changes: a progress deadline runs.
    pub again: Option<Duration>,
    /// To be recorded in any case.
    pub events: Vec<Event>,
}

/// Decides the next step of a Deployment.
pub fn reconcile(observed: &Observed) -> Decision {
    let deployment = &observed.deployment;
    let selector = &deployment["spec"]["selector"];
    if selector::is_empty(selector) {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        return Decision {
            events: vec![Event::warning(deployment, "SelectingAll", text)],
            ..Decision::default()
        };
    }
    let claim = claim(deployment, &REPLICA_SETS, &observed.replica_sets);
    if !claim.actions.is_empty() {
        return Decision {
            actions: claim.actions,
            ..Decision::default()
        };
    }
    let mut plan = Plan::new(deployment, &claim.mine, observed.now);
    if is_terminating(deployment) {
        return plan.finish(plan::Progress::Keep);
    }
    conditions::sync_paused(&mut plan);
    let paused = deployment["spec"]["paused"] == true;
    plan.sync_revision();
    if paused || plan.is_scaling_event() {
        rollout::scale(&mut plan);
        if paused {
            plan.clean_up();
        }
        return plan.finish(plan::Progress::Keep);
    }
    if strategy::is_recreate(deployment) {
        rollout::recreate(&mut plan, &observed.pods);
    } else {
        rollout::rolling(&mut plan);
    }
    plan.finish(plan::Progress::Estimate)
}

/// The status update for a Deployment whose new ReplicaSet has the name of another one with a
/// different template: the next attempt uses another hash.
pub(crate) fn collision(deployment: &Value) -> Action {
    let count = int(&deployment["status"]["collisionCount"]) + 1;
    Action::status(
        DEPLOYMENTS,
        deployment,
        json!({"status": {"collisionCount": count}}),
    )
}

/// The status update for a Deployment whose new ReplicaSet cannot be created.
pub(crate) fn creation_failed(observed: &Observed, name: &str, error: &str) -> Option<Action> {
    let mut plan = Plan::new(&observed.deployment, &[], observed.now);
    if !plan.has_deadline() {
        return None;
    }
    let message = format!("Failed to create new replica set {name:?}: {error}");
    conditions::set(
        &mut plan.conditions,
        conditions::new(
            "Progressing",
            "False",
            "ReplicaSetCreateError",
            &message,
            observed.now,
        ),
    );
    let patch = json!({"status": {"conditions": plan.conditions}});
    Some(Action::status(DEPLOYMENTS, &observed.deployment, patch))
}
