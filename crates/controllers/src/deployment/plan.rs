//! A Deployment with its ReplicaSets as they shall become, and the actions that lead there.

use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{DEPLOYMENTS, REPLICA_SETS};
use serde_json::{Map, Value, json};

use super::strategy::{max_surge, max_unavailable, replicas};
use super::{
    DESIRED, Decision, MAX, REVISION, REVISION_HISTORY, TEMPLATE_HASH, conditions, template,
};
use crate::action::{Action, Event};
use crate::object::{created, int, is_terminating, items, omit_empty, status_patch, time_at};

/// Annotations of a Deployment that its ReplicaSets do not take over.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
];

/// What a condition about progress is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// This is a rollout: estimate how far it is.
    Estimate,
    /// Leave it as it is.
    Keep,
}

/// A ReplicaSet as it is and as it shall become.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) object: Arc<Value>,
    /// Wanted pods.
    pub(super) replicas: i64,
    annotations: Map<String, Value>,
    min_ready_seconds: i64,
    /// It does not exist yet.
    is_new: bool,
    /// An event is due when it is scaled.
    announce: bool,
}

impl Set {
    fn existing(object: &Arc<Value>) -> Self {
        Self {
            object: object.clone(),
            replicas: int(&object["spec"]["replicas"]),
            annotations: object["metadata"]["annotations"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
            min_ready_seconds: int(&object["spec"]["minReadySeconds"]),
            is_new: false,
            announce: true,
        }
    }

    pub(super) fn name(&self) -> &str {
        api::meta::name(&self.object)
    }

    /// A count of its status.
    pub(super) fn status(&self, field: &str) -> i64 {
        int(&self.object["status"][field])
    }

    fn number(&self, annotation: &str) -> Option<i64> {
        self.annotations.get(annotation)?.as_str()?.parse().ok()
    }

    pub(super) fn desired(&self) -> Option<i64> {
        self.number(DESIRED)
    }

    pub(super) fn max(&self) -> Option<i64> {
        self.number(MAX)
    }

    fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }
}

pub(super) struct Plan {
    pub(super) deployment: Arc<Value>,
    pub(super) now: Time,
    /// Sets of other templates, oldest first.
    pub(super) old: Vec<Set>,
    /// The set of the present template.
    pub(super) new: Option<Set>,
    pub(super) conditions: Vec<Value>,
    deletions: Vec<Arc<Value>>,
    revision: Option<i64>,
}

impl Plan {
    pub(super) fn new(deployment: &Arc<Value>, sets: &[Arc<Value>], now: Time) -> Self {
        let mut sets: Vec<Set> = sets.iter().map(Set::existing).collect();
        sets.sort_by_key(|set| (created(&set.object), set.name().to_owned()));
        let wanted = &deployment["spec"]["template"];
        let new = sets
            .iter()
            .position(|set| template::same_template(&set.object["spec"]["template"], wanted))
            .map(|at| sets.remove(at));
        Self {
            deployment: deployment.clone(),
            now,
            old: sets,
            new,
            conditions: items(&deployment["status"]["conditions"]).to_vec(),
            deletions: Vec::new(),
            revision: None,
        }
    }

    pub(super) fn replicas(&self) -> i64 {
        replicas(&self.deployment)
    }

    pub(super) fn max_replicas(&self) -> i64 {
        self.replicas() + max_surge(&self.deployment)
    }

    pub(super) fn min_available(&self) -> i64 {
        self.replicas() - max_unavailable(&self.deployment)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// Pods asked for, over all sets.
    pub(super) fn total(&self) -> i64 {
        self.all().map(|set| set.replicas).sum()
    }

    pub(super) fn sum(&self, field: &str) -> i64 {
        self.all().map(|set| set.status(field)).sum()
    }

    pub(super) fn has_deadline(&self) -> bool {
        self.deployment["spec"]["progressDeadlineSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds != i64::from(i32::MAX))
    }

    /// Brings annotations and settings of the new set, if it exists, up to date.
    pub(super) fn sync_revision(&mut self) {
        let next = self.next_revision();
        let source = self.deployment.clone();
        let Some(set) = &mut self.new else { return };
        if set.is_new {
            return;
        }
        copy_annotations(&source, &mut set.annotations);
        let known = set.revision();
        if known < next {
            if known > 0 {
                let history = set
                    .annotations
                    .get(REVISION_HISTORY)
                    .and_then(Value::as_str);
                let history = history.map_or(known.to_string(), |text| format!("{text},{known}"));
                set.annotations
                    .insert(REVISION_HISTORY.to_owned(), history.into());
            }
            set.annotations
                .insert(REVISION.to_owned(), next.to_string().into());
        }
        set.min_ready_seconds = int(&source["spec"]["minReadySeconds"]);
        self.revision = Some(set.revision());
        let name = set.name().to_owned();
        if self.has_deadline() && conditions::get(&self.conditions, "Progressing").is_none() {
            let message = format!("Found new replica set {name:?}");
            self.progress("True", "FoundNewReplicaSet", &message);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0) + 1
    }

    fn progress(&mut self, status: &str, reason: &str, message: &str) {
        let condition = conditions::new("Progressing", status, reason, message, self.now);
        conditions::set(&mut self.conditions, condition);
    }

    /// Makes a set for the present template with so many pods, if there is none.
    pub(super) fn ensure_new(&mut self, replicas: impl FnOnce(&Self) -> i64) {
        if self.new.is_some() {
            return;
        }
        let count = replicas(self);
        let revision = self.next_revision();
        let mut annotations = Map::new();
        copy_annotations(&self.deployment, &mut annotations);
        annotations.insert(REVISION.to_owned(), revision.to_string().into());
        annotations.insert(DESIRED.to_owned(), self.replicas().to_string().into());
        annotations.insert(MAX.to_owned(), self.max_replicas().to_string().into());
        let object = Arc::new(new_set(&self.deployment));
        let name = api::meta::name(&object).to_owned();
        self.new = Some(Set {
            object,
            replicas: count,
            annotations,
            min_ready_seconds: int(&self.deployment["spec"]["minReadySeconds"]),
            is_new: true,
            announce: true,
        });
        self.revision = Some(revision);
        if self.has_deadline() {
            let message = format!("Created new replica set {name:?}");
            self.progress("True", "NewReplicaSetCreated", &message);
        }
    }

    /// Whether the Deployment was scaled since its sets last heard of it.
    pub(super) fn is_scaling_event(&self) -> bool {
        self.all().filter(|set| set.replicas > 0).any(|set| {
            set.desired()
                .is_some_and(|desired| desired != self.replicas())
        })
    }

    /// Scales one set and notes for which size of the Deployment that was done.
    pub(super) fn scale(&mut self, name: &str, replicas: i64, announce: bool) {
        let (desired, max) = (self.replicas(), self.max_replicas());
        let set = self
            .old
            .iter_mut()
            .chain(&mut self.new)
            .find(|set| set.name() == name);
        if let Some(set) = set {
            set.replicas = replicas.max(0);
            set.announce = announce;
            set.annotations
                .insert(DESIRED.to_owned(), desired.to_string().into());
            set.annotations
                .insert(MAX.to_owned(), max.to_string().into());
        }
    }

    /// Deletes the oldest of the old sets that keep no pods, beyond the history limit.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.deployment["spec"]["revisionHistoryLimit"].as_i64() else {
            return;
        };
        let mut alive: Vec<&Set> = self
            .old
            .iter()
            .filter(|set| !is_terminating(&set.object))
            .collect();
        let surplus = usize::try_from(i64::try_from(alive.len()).unwrap_or(0) - limit).unwrap_or(0);
        alive.sort_by_key(|set| set.revision());
        let idle = |set: &&&Set| {
            set.replicas == 0
                && set.status("replicas") == 0
                && api::meta::generation(&set.object) <= set.status("observedGeneration")
        };
        self.deletions = alive
            .iter()
            .take(surplus)
            .filter(idle)
            .map(|set| set.object.clone())
            .collect();
    }

    /// Whether all pods are of the present template, there are as many as wanted, and all are
    /// available, as far as `status` tells.
    pub(super) fn is_complete(&self, status: &Value) -> bool {
        let wanted = self.replicas();
        ["updatedReplicas", "replicas", "availableReplicas"]
            .iter()
            .all(|field| int(&status[*field]) == wanted)
            && int(&status["observedGeneration"]) >= api::meta::generation(&self.deployment)
    }

    /// Ends the planning.
    pub(super) fn finish(mut self, progress: Progress) -> Decision {
        let mut decision = Decision::default();
        for set in self.old.iter().chain(&self.new) {
            decision.actions.extend(self.set_action(set));
        }
        decision.actions.extend(
            self.deletions
                .iter()
                .map(|set| Action::delete(REPLICA_SETS, set)),
        );
        let mut status = self.status();
        if progress == Progress::Estimate {
            decision.again = super::rollout::estimate(&mut self, &status);
        }
        status["conditions"] = Value::Array(std::mem::take(&mut self.conditions));
        let status = omit_empty(status);
        let mut patch = status_patch(&self.deployment, &status).unwrap_or_else(|| json!({}));
        // The annotation is written together with the status: written to the object itself it
        // would count as a new generation.
        if let Some(revision) = self.revision.map(|revision| revision.to_string())
            && api::meta::annotation(&self.deployment, REVISION) != Some(&revision)
        {
            patch["metadata"] = json!({"annotations": {REVISION: revision}});
        }
        if patch != json!({}) {
            decision
                .actions
                .push(Action::status(DEPLOYMENTS, &self.deployment, patch));
        }
        decision
    }

    fn set_action(&self, set: &Set) -> Option<Action> {
        let scaled = |direction: &str, from: i64| {
            let text = format!(
                "Scaled {direction} replica set {} from {from} to {}",
                set.name(),
                set.replicas
            );
            Event::normal(&self.deployment, "ScalingReplicaSet", text)
        };
        if set.is_new {
            let mut object = set.object.as_ref().clone();
            object["metadata"]["annotations"] = Value::Object(set.annotations.clone());
            object["spec"]["replicas"] = set.replicas.into();
            let failure = format!(
                "Failed to create new replica set {:?}: {{error}}",
                set.name()
            );
            return Some(Action {
                on_success: (set.replicas > 0).then(|| scaled("up", 0)),
                on_failure: Some(Event::warning(
                    &self.deployment,
                    "ReplicaSetCreateError",
                    failure,
                )),
                ..Action::create(REPLICA_SETS, object)
            });
        }
        let before = int(&set.object["spec"]["replicas"]);
        let mut spec = Map::new();
        if before != set.replicas {
            spec.insert("replicas".to_owned(), set.replicas.into());
        }
        if int(&set.object["spec"]["minReadySeconds"]) != set.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), set.min_ready_seconds.into());
        }
        let known = set.object["metadata"]["annotations"].as_object();
        let changed: Map<String, Value> = set
            .annotations
            .iter()
            .filter(|(key, value)| known.and_then(|known| known.get(*key)) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if spec.is_empty() && changed.is_empty() {
            return None;
        }
        let mut patch =
            json!({"metadata": {"resourceVersion": api::meta::resource_version(&set.object)}});
        if !changed.is_empty() {
            patch["metadata"]["annotations"] = changed.into();
        }
        if !spec.is_empty() {
            patch["spec"] = spec.into();
        }
        let direction = if before < set.replicas { "up" } else { "down" };
        Some(Action {
            on_success: (set.announce && before != set.replicas).then(|| scaled(direction, before)),
            ..Action::patch(REPLICA_SETS, &set.object, patch)
        })
    }

    /// The status as the sets' statuses tell it, without conditions about progress.
    fn status(&mut self) -> Value {
        let available = self.sum("availableReplicas");
        let unavailable = (self.total() - available).max(0);
        let updated = self.new.as_ref().map_or(0, |set| set.status("replicas"));
        let (status, reason, message) = if available >= self.min_available() {
            (
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        let condition = conditions::new("Available", status, reason, message, self.now);
        conditions::set(&mut self.conditions, condition);
        json!({
            "observedGeneration": api::meta::generation(&self.deployment),
            "replicas": self.sum("replicas"),
            "updatedReplicas": updated,
            "readyReplicas": self.sum("readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": unavailable,
            "collisionCount": self.deployment["status"]["collisionCount"],
        })
    }

    /// When the deadline for progress passes, counted from the last update of `condition`.
    pub(super) fn deadline(&self, condition: &Value) -> Option<Duration> {
        let seconds = self.deployment["spec"]["progressDeadlineSeconds"].as_i64()?;
        let since = time_at(&condition["lastUpdateTime"])?;
        let left = since.saturating_add(time::Duration::seconds(seconds)) - self.now;
        Some(if left.is_negative() {
            Duration::ZERO
        } else {
            left.unsigned_abs()
        })
    }
}

fn copy_annotations(deployment: &Value, annotations: &mut Map<String, Value>) {
    for (key, value) in api::meta::annotations(deployment) {
        if !NOT_COPIED.contains(&key) {
            annotations.insert(key.to_owned(), value.into());
        }
    }
}

fn new_set(deployment: &Value) -> Value {
    let mut pod_template = deployment["spec"]["template"].clone();
    let hash = template::hash(&pod_template, int(&deployment["status"]["collisionCount"]));
    api::meta::map_mut(api_map(&mut pod_template, "metadata"), "labels")
        .insert(TEMPLATE_HASH.to_owned(), hash.as_str().into());
    let mut selector = deployment["spec"]["selector"].clone();
    api::meta::map_mut(&mut selector, "matchLabels")
        .insert(TEMPLATE_HASH.to_owned(), hash.as_str().into());
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", api::meta::name(deployment)),
            "namespace": api::meta::namespace(deployment),
            "labels": pod_template["metadata"]["labels"],
            "ownerReferences": [api::meta::controller_ref(deployment)],
        },
        "spec": omit_empty(json!({
            "minReadySeconds": deployment["spec"]["minReadySeconds"],
            "selector": selector,
            "template": pod_template,
        })),
    })
}

/// The member of an object, made an object when it is none.
fn api_map<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    api::meta::map_mut(object, key);
    &mut object[key]
}
