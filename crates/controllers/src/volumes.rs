//! Persistent volumes and their claims: who gets which volume, what is made, and what becomes of a volume given up.
//!
//! A claim is judged by [`claim`], a volume by [`volume`]; both are pure. A claim of a class that waits for its first pod is
//! left alone until the scheduler has written the pod's node on it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::storage::{
    DIRECTORY, DIRECTORY_FINALIZER, NO_PROVISIONER, PROVISIONED_BY, PROVISIONER, SELECTED_NODE,
    class, is_bound, is_for, waits_for_consumer,
};
use api::time::{Time, rfc3339};
use kube_client::{PERSISTENT_VOLUME_CLAIMS, Resource};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::object::{is_terminating, items, text};
use crate::pods;

/// `persistentvolumes` of the core group.
pub const PERSISTENT_VOLUMES: Resource =
    Resource::fixed("", "v1", "persistentvolumes", "PersistentVolume");
/// `storageclasses` of group `storage.k8s.io`.
pub const STORAGE_CLASSES: Resource =
    Resource::fixed("storage.k8s.io", "v1", "storageclasses", "StorageClass");

const CLAIM_IN_USE: &str = "kubernetes.io/pvc-protection";
const VOLUME_IN_USE: &str = "kubernetes.io/pv-protection";
/// Set by this controller on what it bound itself.
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// What a claim or a volume is judged by.
#[derive(Debug, Default)]
pub struct Observed {
    /// All volumes.
    pub volumes: Vec<Arc<Value>>,
    /// All claims.
    pub claims: Vec<Arc<Value>>,
    /// All classes.
    pub classes: Vec<Arc<Value>>,
    /// Names of the nodes.
    pub nodes: Vec<Arc<Value>>,
    /// Pods of the claim's namespace; not needed for volumes.
    pub pods: Vec<Arc<Value>>,
}

impl Observed {
    fn class(&self, name: &str) -> Option<&Arc<Value>> {
        self.classes.iter().find(|c| api::meta::name(c) == name)
    }

    fn volume(&self, name: &str) -> Option<&Arc<Value>> {
        self.volumes.iter().find(|v| api::meta::name(v) == name)
    }
}

/// A step and the events that go with it.
#[derive(Debug, Default)]
pub struct Step {
    /// What is done.
    pub actions: Vec<Action>,
    /// What is told.
    pub events: Vec<Event>,
}

impl Step {
    fn tell(event: Event) -> Self {
        Self {
            events: vec![event],
            ..Self::default()
        }
    }

    fn act(action: Action) -> Self {
        Self {
            actions: vec![action],
            ..Self::default()
        }
    }
}

/// The patch of an object's finalizers without one of them.
fn without_finalizer(resource: Resource, object: &Value, finalizer: &str) -> Action {
    let rest: Vec<&str> = api::meta::finalizers(object)
        .filter(|f| *f != finalizer)
        .collect();
    let rest = if rest.is_empty() {
        Value::Null
    } else {
        json!(rest)
    };
    let version = api::meta::resource_version(object);
    Action::patch(
        resource,
        object,
        json!({"metadata": {"finalizers": rest, "resourceVersion": version}}),
    )
}

/// Whether a pod that has not ended mounts the claim.
fn is_used(claim: &Value, pods: &[Arc<Value>]) -> bool {
    let name = api::meta::name(claim);
    pods.iter()
        .filter(|pod| !pods::is_finished(pod))
        .any(|pod| {
            items(&pod["spec"]["volumes"])
                .iter()
                .any(|v| v["persistentVolumeClaim"]["claimName"] == name)
        })
}

/// Judges a claim.
pub fn claim(claim: &Arc<Value>, observed: &Observed) -> Step {
    if is_terminating(claim) {
        let held = api::meta::finalizers(claim).any(|f| f == CLAIM_IN_USE);
        if held && !is_used(claim, &observed.pods) {
            return Step::act(without_finalizer(
                PERSISTENT_VOLUME_CLAIMS,
                claim,
                CLAIM_IN_USE,
            ));
        }
        return Step::default();
    }
    let named = text(&claim["spec"]["volumeName"]);
    if !named.is_empty() {
        return match observed.volume(named) {
            Some(volume) if is_for(volume, claim) => settle(claim, volume),
            Some(volume) if volume["spec"]["claimRef"].is_null() && !is_bound(claim) => {
                take(claim, volume)
            }
            Some(_) if !is_bound(claim) => Step::tell(Event::warning(
                claim,
                "FailedBinding",
                format!("volume {named:?} already bound to a different claim."),
            )),
            found => lose(claim, found.is_some()),
        };
    }
    // A volume that names this claim is its volume, whatever its class says.
    if let Some(volume) = observed
        .volumes
        .iter()
        .find(|v| is_for(v, claim) && !is_terminating(v))
    {
        return take(claim, volume);
    }
    let class_name = class(claim);
    let found = observed.class(class_name);
    let node = api::meta::annotation(claim, SELECTED_NODE);
    let waits = found.is_some_and(|c| waits_for_consumer(c)) && node.is_none();
    if waits {
        return Step::tell(Event::normal(
            claim,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ));
    }
    if let Some(volume) = best(claim, &observed.volumes) {
        return take(claim, volume);
    }
    let Some(found) = found else {
        return Step::tell(if class_name.is_empty() {
            Event::normal(
                claim,
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            )
        } else {
            Event::warning(
                claim,
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io {class_name:?} not found"),
            )
        });
    };
    match text(&found["provisioner"]) {
        PROVISIONER => provision(claim, found, node, observed),
        NO_PROVISIONER => Step::tell(Event::normal(
            claim,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        )),
        other => Step::tell(Event::normal(
            claim,
            "ExternalProvisioning",
            format!(
                "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            ),
        )),
    }
}

/// The smallest free volume that has what the claim asks for.
pub fn best<'a>(claim: &Value, volumes: &'a [Arc<Value>]) -> Option<&'a Arc<Value>> {
    let (spec, wanted) = (
        &claim["spec"],
        size(&claim["spec"]["resources"]["requests"]["storage"]),
    );
    let selector = LabelSelector::from_value(&spec["selector"]);
    volumes
        .iter()
        .filter(|v| {
            !is_terminating(v)
                && v["spec"]["claimRef"].is_null()
                && v["status"]["phase"] == "Available"
        })
        .filter(|v| class(v) == class(claim))
        .filter(|v| v["spec"]["volumeMode"] == spec["volumeMode"])
        .filter(|v| spec["selector"].is_null() || selector.matches(v))
        .filter(|v| {
            items(&spec["accessModes"])
                .iter()
                .all(|mode| items(&v["spec"]["accessModes"]).contains(mode))
        })
        .filter(|v| size(&v["spec"]["capacity"]["storage"]) >= wanted)
        .min_by_key(|v| {
            (
                size(&v["spec"]["capacity"]["storage"]),
                api::meta::name(v).to_owned(),
            )
        })
}

fn size(amount: &Value) -> Quantity {
    let text = match amount {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Quantity::parse(&text).unwrap_or(Quantity::from_units(0))
}

/// Gives a volume to a claim: first the volume says so, then the claim.
fn take(claim: &Arc<Value>, volume: &Arc<Value>) -> Step {
    let mut actions = Vec::new();
    if text(&volume["spec"]["claimRef"]["uid"]).is_empty() {
        let mut patch = json!({
            "metadata": {"resourceVersion": api::meta::resource_version(volume)},
            "spec": {"claimRef": reference(claim)},
        });
        if volume["spec"]["claimRef"].is_null() {
            patch["metadata"]["annotations"] = json!({BY_CONTROLLER: "yes"});
        }
        actions.push(Action::patch(PERSISTENT_VOLUMES, volume, patch));
    }
    actions.extend(settle(claim, volume).actions);
    Step {
        actions,
        events: Vec::new(),
    }
}

fn reference(claim: &Value) -> Value {
    json!({
        "kind": "PersistentVolumeClaim", "apiVersion": "v1",
        "namespace": api::meta::namespace(claim), "name": api::meta::name(claim),
        "uid": api::meta::uid(claim), "resourceVersion": api::meta::resource_version(claim),
    })
}

/// Lets a claim say which volume it has, and the volume that it is in use.
fn settle(claim: &Arc<Value>, volume: &Arc<Value>) -> Step {
    let mut actions = Vec::new();
    let named = text(&claim["spec"]["volumeName"]);
    if named.is_empty() || api::meta::annotation(claim, COMPLETED).is_none() {
        let mut patch = json!({"metadata": {"annotations": {COMPLETED: "yes"}}});
        if named.is_empty() {
            patch["spec"] = json!({"volumeName": api::meta::name(volume)});
            patch["metadata"]["annotations"][BY_CONTROLLER] = "yes".into();
        }
        actions.push(Action::patch(PERSISTENT_VOLUME_CLAIMS, claim, patch));
    }
    if let Some(size) = grown(claim, volume) {
        // The claim says so when it is seen with the volume as it is then.
        let patch = json!({"spec": {"capacity": {"storage": size}}});
        actions.push(Action::patch(PERSISTENT_VOLUMES, volume, patch));
        return Step {
            actions,
            events: vec![Event::normal(
                claim,
                "VolumeResizeSuccessful",
                "Resize volume succeeded",
            )],
        };
    }
    let status = json!({
        "phase": "Bound",
        "accessModes": volume["spec"]["accessModes"],
        "capacity": volume["spec"]["capacity"],
    });
    if claim["status"]["phase"] != "Bound" || claim["status"]["capacity"] != status["capacity"] {
        actions.push(Action::status(
            PERSISTENT_VOLUME_CLAIMS,
            claim,
            json!({"status": status}),
        ));
    }
    Step {
        actions,
        events: Vec::new(),
    }
}

/// The size that a claim asks for, when its volume is smaller and can grow: a directory made for a claim can.
fn grown<'a>(claim: &'a Value, volume: &Value) -> Option<&'a str> {
    let wanted = claim["spec"]["resources"]["requests"]["storage"].as_str()?;
    let has = volume["spec"]["capacity"]["storage"].as_str()?;
    let ours = api::meta::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER);
    (ours && Quantity::parse(wanted).ok()? > Quantity::parse(has).ok()?).then_some(wanted)
}

/// A claim whose volume is gone, or has become another one's.
fn lose(claim: &Arc<Value>, misbound: bool) -> Step {
    if !is_bound(claim) {
        // It names a volume that may still be made.
        return Step::default();
    }
    let event = if misbound {
        Event::warning(
            claim,
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        )
    } else {
        Event::warning(
            claim,
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        )
    };
    Step {
        actions: vec![Action::status(
            PERSISTENT_VOLUME_CLAIMS,
            claim,
            json!({"status": {"phase": "Lost", "accessModes": null, "capacity": null}}),
        )],
        events: vec![event],
    }
}

/// Makes a volume for a claim: a directory of the node that its pod is for, or of the first one.
fn provision(claim: &Arc<Value>, class: &Value, node: Option<&str>, observed: &Observed) -> Step {
    let failed = |why: String| {
        Step::tell(Event::warning(
            claim,
            "ProvisioningFailed",
            format!(
                "failed to provision volume with StorageClass {:?}: {why}",
                api::meta::name(class)
            ),
        ))
    };
    let spec = &claim["spec"];
    if spec["volumeMode"] == "Block" {
        return failed("block volumes are not made here".to_owned());
    }
    if !spec["dataSource"].is_null() || !spec["dataSourceRef"].is_null() {
        return failed("volumes with a data source are not made here".to_owned());
    }
    if !spec["selector"].is_null() {
        return failed("claim Selector is not supported".to_owned());
    }
    let node = observed
        .nodes
        .iter()
        .find(|n| node.is_none_or(|name| api::meta::name(n) == name));
    let Some(node) = node else {
        return failed("there is no node to make it on".to_owned());
    };
    let host = &node["metadata"]["labels"]["kubernetes.io/hostname"];
    let name = format!("pvc-{}", api::meta::uid(claim));
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {PROVISIONED_BY: PROVISIONER},
            "finalizers": [VOLUME_IN_USE],
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": reference(claim),
            "local": {"path": format!("{DIRECTORY}/{name}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}},
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": api::meta::name(class),
            "volumeMode": "Filesystem",
        },
    });
    if class["reclaimPolicy"] == "Delete" {
        volume["metadata"]["finalizers"] = json!([VOLUME_IN_USE, DIRECTORY_FINALIZER]);
    }
    Step::act(Action {
        on_success: Some(Event::normal(
            claim,
            "ProvisioningSucceeded",
            format!("Successfully provisioned volume {name}"),
        )),
        ..Action::create(PERSISTENT_VOLUMES, volume)
    })
}

/// Judges a volume.
pub fn volume(volume: &Arc<Value>, observed: &Observed, now: Time) -> Step {
    let reference = &volume["spec"]["claimRef"];
    let uid = text(&reference["uid"]);
    let claim = observed.claims.iter().find(|c| is_for(volume, c));
    let phase = text(&volume["status"]["phase"]);
    let in_use = claim.is_some_and(|c| text(&c["spec"]["volumeName"]) == api::meta::name(volume));
    if is_terminating(volume) {
        let held = api::meta::finalizers(volume).any(|f| f == VOLUME_IN_USE);
        if held && !in_use {
            return Step::act(without_finalizer(PERSISTENT_VOLUMES, volume, VOLUME_IN_USE));
        }
        return Step::default();
    }
    let become_ = |wanted: &str, message: &str| {
        if phase == wanted {
            return Step::default();
        }
        Step::act(Action::status(
            PERSISTENT_VOLUMES,
            volume,
            json!({"status": {"phase": wanted, "lastPhaseTransitionTime": rfc3339(now),
                "message": if message.is_empty() { Value::Null } else { message.into() }}}),
        ))
    };
    if reference.is_null() || (uid.is_empty() && !in_use) {
        return become_("Available", "");
    }
    if let Some(claim) = claim {
        let bound = in_use && claim["status"]["phase"] == "Bound";
        return if bound {
            become_("Bound", "")
        } else {
            Step::default()
        };
    }
    // The claim it was given to is gone.
    if !matches!(phase, "Released" | "Failed") {
        return become_("Released", "");
    }
    if volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain" || phase == "Failed" {
        return Step::default();
    }
    if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        && api::meta::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER)
    {
        return Step::act(Action::delete(PERSISTENT_VOLUMES, volume));
    }
    let what = text(&volume["spec"]["persistentVolumeReclaimPolicy"]);
    let message = format!(
        "reclaim policy {what}: nothing in this cluster empties or removes volumes that were made by hand"
    );
    let mut step = become_("Failed", &message);
    step.events
        .push(Event::warning(volume, "VolumeFailedDelete", message));
    step
}
