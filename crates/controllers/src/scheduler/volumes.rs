//! Pods with claims: whether these are there, and on which nodes their volumes can be used. In the words of kube-scheduler.

use std::sync::Arc;

use api::storage::{NO_PROVISIONER, class, is_bound, waits_for_consumer};
use serde_json::{Value, json};

use super::{Storage, affinity};
use crate::object::{is_terminating, items, text};

/// Names of the claims a pod mounts.
pub(super) fn claim_names(pod: &Value) -> impl Iterator<Item = &str> {
    items(&pod["spec"]["volumes"])
        .iter()
        .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

fn claim<'a>(storage: &'a Storage, name: &str) -> Option<&'a Arc<Value>> {
    storage.claims.iter().find(|c| api::meta::name(c) == name)
}

/// Whether an unbound claim is to be bound once the node of its pod is known.
fn waits(claim: &Value, storage: &Storage) -> bool {
    let name = class(claim);
    !is_bound(claim)
        && text(&claim["spec"]["volumeName"]).is_empty()
        && storage
            .classes
            .iter()
            .any(|c| api::meta::name(c) == name && waits_for_consumer(c))
}

/// Whether all claims of a pod are there, and those that do not wait for it bound.
pub(super) fn ready(pod: &Value, storage: &Storage) -> Result<(), String> {
    for name in claim_names(pod) {
        let Some(claim) = claim(storage, name) else {
            return Err(format!("persistentvolumeclaim {name:?} not found"));
        };
        if is_terminating(claim) {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claim["status"]["phase"] == "Lost" {
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                text(&claim["spec"]["volumeName"])
            ));
        }
        if !is_bound(claim) && !waits(claim, storage) {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    Ok(())
}

/// Claims of a pod that have to be bound before it is.
pub(super) fn waiting<'a>(pod: &'a Value, storage: &'a Storage) -> Vec<&'a Arc<Value>> {
    claim_names(pod)
        .filter_map(|name| claim(storage, name))
        .filter(|claim| !is_bound(claim))
        .collect()
}

/// Why a node cannot give a pod its volumes.
pub(super) fn conflict(pod: &Value, node: &Value, storage: &Storage) -> Option<&'static str> {
    for claim in claim_names(pod).filter_map(|name| claim(storage, name)) {
        if is_bound(claim) {
            let name = text(&claim["spec"]["volumeName"]);
            let volume = storage.volumes.iter().find(|v| api::meta::name(v) == name);
            if volume.is_some_and(|v| !usable_on(v, node)) {
                return Some("node(s) had volume node affinity conflict");
            }
            continue;
        }
        let by_hand = storage
            .classes
            .iter()
            .any(|c| api::meta::name(c) == class(claim) && c["provisioner"] == NO_PROVISIONER);
        if by_hand
            && crate::volumes::best(claim, &storage.volumes).is_none_or(|v| !usable_on(v, node))
        {
            return Some("node(s) didn't find available persistent volumes to bind");
        }
    }
    None
}

/// Whether a volume's own node affinity lets this node use it.
fn usable_on(volume: &Value, node: &Value) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"];
    if required.is_null() {
        return true;
    }
    // The same terms as of a pod's required node affinity.
    let pod = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}});
    affinity::fits_node(&pod, node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(claims: Vec<Value>) -> Storage {
        Storage {
            claims: claims.into_iter().map(Arc::new).collect(),
            volumes: vec![Arc::new(
                json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}}),
            )],
            classes: vec![Arc::new(
                json!({"metadata": {"name": "standard"}, "volumeBindingMode": "WaitForFirstConsumer"}),
            )],
        }
    }

    fn claim_of(class: &str, volume: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"storageClassName": class, "volumeName": volume}, "status": {"phase": phase}})
    }

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
    }

    #[test]
    fn a_pod_waits_for_its_claims() {
        let pod = json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}});
        assert_eq!(
            ready(&pod, &storage(vec![])).unwrap_err(),
            "persistentvolumeclaim \"c\" not found"
        );
        let immediate = storage(vec![claim_of("fast", "", "Pending")]);
        assert_eq!(
            ready(&pod, &immediate).unwrap_err(),
            "pod has unbound immediate PersistentVolumeClaims"
        );
        let first = storage(vec![claim_of("standard", "", "Pending")]);
        assert!(ready(&pod, &first).is_ok());
        assert_eq!(waiting(&pod, &first).len(), 1);
        let bound = storage(vec![claim_of("standard", "v", "Bound")]);
        assert!(ready(&pod, &bound).is_ok() && waiting(&pod, &bound).is_empty());
        assert_eq!(conflict(&pod, &node("n1"), &bound), None);
        assert_eq!(
            conflict(&pod, &node("n2"), &bound),
            Some("node(s) had volume node affinity conflict")
        );
    }
}
