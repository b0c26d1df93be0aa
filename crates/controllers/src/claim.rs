//! Adoption and release: which objects a controller owner manages.

use std::sync::Arc;

use kube_client::Resource;
use serde_json::{Value, json};

use crate::action::Action;
use crate::object::{controller_uid, is_terminating};
use crate::selector;

/// What an owner manages, and what must be done first.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Objects that are managed now.
    pub(crate) mine: Vec<Arc<Value>>,
    /// Adoptions and releases.
    pub(crate) actions: Vec<Action>,
}

/// Sorts `candidates` (objects of the owner's namespace): managed ones that still fit the
/// selector stay, others are released, and fitting orphans are adopted. An owner that is being
/// deleted neither adopts nor releases.
pub(crate) fn claim(owner: &Value, resource: &Resource, candidates: &[Arc<Value>]) -> Claim {
    let mut claim = Claim::default();
    let uid = api::meta::uid(owner);
    for object in candidates {
        let fits = selector::matches(&owner["spec"]["selector"], &object["metadata"]["labels"]);
        let controller = controller_uid(object);
        if controller == uid {
            if fits {
                claim.mine.push(object.clone());
            } else if !is_terminating(owner) {
                claim.actions.push(release(resource, object, uid));
            }
        } else if controller.is_empty() && fits && !is_terminating(owner) && !is_terminating(object)
        {
            claim.actions.push(adopt(resource, object, owner));
        }
    }
    claim
}

fn adopt(resource: &Resource, object: &Value, owner: &Value) -> Action {
    let mut references = api::meta::owner_references(object).to_vec();
    references.push(api::meta::controller_ref(owner));
    change(resource, object, references)
}

fn release(resource: &Resource, object: &Value, uid: &str) -> Action {
    let mut references = api::meta::owner_references(object).to_vec();
    references.retain(|reference| reference["uid"] != uid);
    change(resource, object, references)
}

/// A merge patch replaces lists as a whole, so it must not meet a newer version.
pub(crate) fn change(resource: &Resource, object: &Value, references: Vec<Value>) -> Action {
    let patch = json!({"metadata": {
        "resourceVersion": api::meta::resource_version(object),
        "ownerReferences": references,
    }});
    Action::patch(resource.clone(), object, patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;
    use kube_client::PODS;

    fn pod(name: &str, app: &str, owner: Option<&str>) -> Arc<Value> {
        let references = owner.map(|uid| json!([{"uid": uid, "controller": true}]));
        Arc::new(json!({"metadata": {
            "name": name, "namespace": "a", "resourceVersion": "5", "labels": {"app": app}, "ownerReferences": references,
        }}))
    }

    #[test]
    fn orphans_are_adopted_and_strays_released() {
        let mut owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "rs", "uid": "u"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        });
        let pods = [
            pod("mine", "web", Some("u")),
            pod("stray", "db", Some("u")),
            pod("orphan", "web", None),
            pod("foreign", "web", Some("x")),
            pod("other", "db", None),
        ];
        let result = claim(&owner, &PODS, &pods);
        assert_eq!(result.mine.len(), 1);
        let patches: Vec<_> = result
            .actions
            .iter()
            .map(|action| match &action.verb {
                Verb::Patch(patch, None) => {
                    assert_eq!(patch["metadata"]["resourceVersion"], "5");
                    let references = patch["metadata"]["ownerReferences"]
                        .as_array()
                        .unwrap()
                        .len();
                    (action.target.name.as_str(), references)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(patches, [("stray", 0), ("orphan", 1)]);
        owner["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
        assert!(claim(&owner, &PODS, &pods).actions.is_empty());
    }
}
