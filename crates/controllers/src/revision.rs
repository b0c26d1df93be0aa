//! ControllerRevisions: what the template of a StatefulSet or DaemonSet was, so that it can be returned to.

use std::sync::Arc;

use kube_client::Resource;
use serde_json::{Value, json};

use crate::action::Action;
use crate::deployment::template::{hash, without_nulls};
use crate::object::{controller_uid, int};

/// Revisions of DaemonSets and StatefulSets.
pub(crate) const REVISIONS: Resource =
    Resource::fixed("apps", "v1", "controllerrevisions", "ControllerRevision");

/// Label of revisions (their hash) and of the pods made from them (the revision's name or hash).
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// The revisions an owner has, oldest first.
pub(crate) fn history(owner: &Value, revisions: &[Arc<Value>]) -> Vec<Arc<Value>> {
    let mut mine: Vec<Arc<Value>> = revisions
        .iter()
        .filter(|revision| controller_uid(revision) == api::meta::uid(owner))
        .cloned()
        .collect();
    mine.sort_by_key(|revision| {
        (
            int(&revision["revision"]),
            api::meta::name(revision).to_owned(),
        )
    });
    mine
}

/// What a revision keeps: the patch that returns to it. Clients compare it byte by byte with what they would write themselves, so
/// that it has the members that are null, and all of them in the order of their names.
fn data(owner: &Value) -> Value {
    let mut template = owner["spec"]["template"].clone();
    template["$patch"] = "replace".into();
    let mut data = json!({"spec": {"template": template}});
    data.sort_all_objects();
    data
}

/// The revision that describes the owner as it is now.
pub(crate) enum Current {
    /// It is there and the newest.
    Is(Arc<Value>),
    /// It is there, but newer ones are; its number must become this.
    Old(Arc<Value>, i64),
    /// It must be created.
    Missing(Value),
}

/// The revision of the owner's present template, once it is there and the newest; else what has to happen first.
pub(crate) fn settled(owner: &Value, history: &[Arc<Value>]) -> Result<Arc<Value>, Vec<Action>> {
    match current(owner, history, int(&owner["status"]["collisionCount"])) {
        Current::Is(revision) => Ok(revision),
        Current::Old(revision, number) => {
            let patch = json!({"revision": number});
            Err(vec![Action::patch(REVISIONS, &revision, patch)])
        }
        Current::Missing(revision) => Err(vec![Action::create(REVISIONS, revision)]),
    }
}

/// Finds the owner's present template among its revisions.
pub(crate) fn current(owner: &Value, history: &[Arc<Value>], collisions: i64) -> Current {
    let wanted = data(owner);
    let plain = without_nulls(&wanted);
    let last = history.last().map_or(0, |r| int(&r["revision"]));
    let equal = history
        .iter()
        .rev()
        .find(|revision| without_nulls(&revision["data"]) == plain);
    match equal {
        Some(found) if int(&found["revision"]) == last => Current::Is(found.clone()),
        Some(found) => Current::Old(found.clone(), last + 1),
        None => {
            let hash = hash(&owner["spec"]["template"], collisions);
            let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
            if !labels.is_object() {
                labels = json!({});
            }
            labels["controller.kubernetes.io/hash"] = hash.clone().into();
            labels[HASH_LABEL] = hash.clone().into();
            if owner["kind"] == "StatefulSet"
                && let Some(labels) = labels.as_object_mut()
            {
                labels.shift_remove(HASH_LABEL);
            }
            Current::Missing(json!({
                "apiVersion": "apps/v1", "kind": "ControllerRevision",
                "metadata": {
                    "name": format!("{}-{hash}", api::meta::name(owner)),
                    "namespace": api::meta::namespace(owner),
                    "labels": labels,
                    "annotations": owner["metadata"]["annotations"],
                    "ownerReferences": [api::meta::controller_ref(owner)],
                },
                "data": wanted,
                "revision": last + 1,
            }))
        }
    }
}

/// The template that a revision holds.
pub(crate) fn template(revision: &Value) -> Value {
    let mut template = without_nulls(&revision["data"]["spec"]["template"]);
    if let Some(map) = template.as_object_mut() {
        map.shift_remove("$patch");
    }
    template
}

/// Revisions beyond the history limit that nothing lives of, oldest first.
pub(crate) fn surplus(
    history: &[Arc<Value>],
    limit: i64,
    live: &dyn Fn(&Value) -> bool,
) -> Vec<Arc<Value>> {
    let dead: Vec<_> = history.iter().filter(|r| !live(r)).cloned().collect();
    let keep = usize::try_from(limit).unwrap_or(0);
    let over = dead.len().saturating_sub(keep);
    dead.into_iter().take(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_comes_back_is_the_old_revision_with_a_new_number() {
        let mut owner = json!({"kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": {"name": "s", "namespace": "n", "uid": "u"},
            "spec": {"template": {"metadata": {"creationTimestamp": null}, "spec": {"x": 1}}}});
        let make = |owner: &Value, history: &[Arc<Value>]| match current(owner, history, 0) {
            Current::Missing(v) => Arc::new(v),
            _ => panic!("not missing"),
        };
        let first = make(&owner, &[]);
        owner["spec"]["template"]["spec"]["x"] = 2.into();
        assert_eq!(
            first["data"].to_string(),
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null},"spec":{"x":1}}}}"#
        );
        let second = make(&owner, std::slice::from_ref(&first));
        assert_eq!(
            (&first["revision"], &second["revision"]),
            (&json!(1), &json!(2))
        );
        let all = [first.clone(), second];
        assert!(matches!(current(&owner, &all, 0), Current::Is(_)));
        owner["spec"]["template"]["spec"]["x"] = 1.into();
        let Current::Old(found, number) = current(&owner, &all, 0) else {
            panic!("not found")
        };
        assert_eq!(
            (api::meta::name(&found), number),
            (api::meta::name(&first), 3)
        );
        assert_eq!(template(&first), json!({"metadata": {}, "spec": {"x": 1}}));
        assert_eq!(surplus(&all, 1, &|_| false).len(), 1);
    }
}
