//! ResourceQuotas: counting what is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use kube_client::Resource;
use serde_json::{Value, json};

use crate::action::Action;
use crate::object::status_patch;

const QUOTAS: Resource = Resource::fixed("", "v1", "resourcequotas", "ResourceQuota");

/// Objects of a namespace by group and plural.
pub type Objects = BTreeMap<(String, String), Vec<Arc<Value>>>;

/// What must be counted for a quota: groups and plurals.
pub fn counted(quota: &Value) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = quota["spec"]["hard"]
        .as_object()
        .into_iter()
        .flat_map(|hard| hard.keys())
        .filter_map(|resource| api::quota::counted(resource))
        .collect();
    out.sort();
    out.dedup();
    out
}

/// The status update that is due; `objects` has at least what [`counted`] names.
pub fn reconcile(quota: &Arc<Value>, objects: &Objects) -> Option<Action> {
    let hard = &quota["spec"]["hard"];
    let mut used: BTreeMap<String, Quantity> = hard
        .as_object()
        .into_iter()
        .flat_map(|hard| hard.keys())
        .map(|resource| (resource.clone(), Quantity::from_units(0)))
        .collect();
    for ((group, plural), all) in objects {
        for object in all {
            if !api::quota::is_about(quota, group, plural, object) {
                continue;
            }
            for (resource, n) in api::quota::usage(group, plural, object) {
                if let Some(sum) = used.get_mut(&resource) {
                    // The first amount brings its way of being written.
                    *sum = if sum.is_zero() { n } else { sum.plus(n) };
                }
            }
        }
    }
    let used: serde_json::Map<String, Value> = used
        .into_iter()
        .map(|(resource, n)| (resource, n.to_string().into()))
        .collect();
    let status = if hard.is_object() {
        json!({"hard": hard, "used": used})
    } else {
        json!({})
    };
    status_patch(quota, &status).map(|patch| {
        // A charge that came in between must not be undone by an old count.
        let mut patch = patch;
        patch["metadata"] = json!({"resourceVersion": api::meta::resource_version(quota)});
        Action::status(QUOTAS, quota, patch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    #[test]
    fn used_is_what_is_there() {
        let quota = Arc::new(json!({"metadata": {"name": "q", "resourceVersion": "7"},
            "spec": {"hard": {"secrets": "5", "pods": "1", "requests.memory": "1Gi"}}}));
        assert_eq!(
            counted(&quota),
            [
                (String::new(), "pods".to_owned()),
                (String::new(), "secrets".into())
            ]
        );
        let pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"memory": "64Mi"}}}]}});
        let objects: Objects = [
            (
                (String::new(), "secrets".to_owned()),
                vec![Arc::new(json!({})), Arc::new(json!({}))],
            ),
            ((String::new(), "pods".to_owned()), vec![Arc::new(pod)]),
        ]
        .into();
        let Verb::Patch(patch, _) = reconcile(&quota, &objects).unwrap().verb else {
            panic!("no patch")
        };
        assert_eq!(
            patch["status"]["used"],
            json!({"pods": "1", "requests.memory": "64Mi", "secrets": "2"})
        );
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
