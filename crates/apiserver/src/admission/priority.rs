//! The priority of a pod, by its PriorityClass.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::storage::Storage;

/// Fills in priority and preemption policy.
pub(crate) fn admit(storage: &Storage, pod: &mut Value) -> ApiResult<()> {
    let (classes, _) = storage
        .cache()
        .list("scheduling.k8s.io/priorityclasses", "");
    let classes: Vec<Arc<Value>> = classes.into_iter().map(|(_, c)| c.shared()).collect();
    resolve(&classes, pod)
}

fn resolve(classes: &[Arc<Value>], pod: &mut Value) -> ApiResult<()> {
    let asked = pod["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let class = if asked.is_empty() {
        // The lowest of the defaults, should there be several.
        classes
            .iter()
            .filter(|c| c["globalDefault"] == true)
            .min_by_key(|c| c["value"].as_i64())
    } else {
        let found = classes.iter().find(|c| api::meta::name(c) == asked);
        if found.is_none() {
            return Err(ApiError::forbidden(
                "",
                "pods",
                api::meta::name(pod),
                &format!("no PriorityClass with name {asked} was found"),
            ));
        }
        found
    };
    let priority = class.map_or(0, |c| c["value"].as_i64().unwrap_or(0));
    let given = pod["spec"]["priority"].as_i64();
    if given.is_some_and(|given| given != priority) {
        return Err(ApiError::forbidden(
            "",
            "pods",
            api::meta::name(pod),
            &format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name",
                given.unwrap_or(0)
            ),
        ));
    }
    let policy = class
        .and_then(|c| c["preemptionPolicy"].as_str())
        .unwrap_or("PreemptLowerPriority")
        .to_owned();
    if let Some(spec) = pod["spec"].as_object_mut() {
        if let Some(class) = class.filter(|_| asked.is_empty()) {
            spec.insert("priorityClassName".into(), api::meta::name(class).into());
        }
        spec.insert("priority".into(), priority.into());
        spec.entry("preemptionPolicy")
            .or_insert_with(|| policy.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_gives_the_priority() {
        let classes = [
            Arc::new(
                json!({"metadata": {"name": "gold"}, "value": 100, "preemptionPolicy": "Never"}),
            ),
            Arc::new(json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true})),
        ];
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"priorityClassName": "gold"}});
        resolve(&classes, &mut pod).unwrap();
        assert_eq!(pod["spec"]["priority"], 100);
        assert_eq!(pod["spec"]["preemptionPolicy"], "Never");
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}});
        resolve(&classes, &mut pod).unwrap();
        assert_eq!(pod["spec"]["priority"], 5);
        assert_eq!(pod["spec"]["priorityClassName"], "usual");
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"priorityClassName": "lead"}});
        assert!(
            resolve(&classes, &mut pod)
                .unwrap_err()
                .message
                .contains("no PriorityClass with name lead was found")
        );
    }
}
