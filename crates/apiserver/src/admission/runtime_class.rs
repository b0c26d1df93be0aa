//! What a RuntimeClass adds to the pods that name it: overhead, and where they run.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::storage::{Key, Storage};

/// Fills in what the class says; refuses a class that is not there.
pub(crate) fn admit(storage: &Storage, pod: &mut Value) -> ApiResult<()> {
    let name = pod["spec"]["runtimeClassName"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let class = if name.is_empty() {
        None
    } else {
        let key = Key::new(&"node.k8s.io/runtimeclasses".into(), "", &name);
        Some(storage.cache().get(&key).map(|class| class.shared()))
    };
    let why = match &class {
        Some(None) => Some(format!("pod rejected: RuntimeClass {name:?} not found")),
        Some(Some(class)) => merge(class, &mut pod["spec"]).err(),
        None if pod["spec"]["overhead"].as_object().is_some_and(|o| !o.is_empty()) => Some(
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into(),
        ),
        None => None,
    };
    match why {
        Some(why) => Err(ApiError::forbidden("", "pods", api::meta::name(pod), &why)),
        None => Ok(()),
    }
}

fn merge(class: &Value, spec: &mut Value) -> Result<(), String> {
    let fixed = &class["overhead"]["podFixed"];
    let own = &spec["overhead"];
    if own.is_object() && own != fixed {
        return Err(
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into(),
        );
    }
    if fixed.is_object() {
        spec["overhead"] = fixed.clone();
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let Some(spec) = spec.as_object_mut() else {
            break;
        };
        let selector = spec
            .entry("nodeSelector")
            .or_insert_with(|| Value::Object(Map::new()));
        match selector.get(key) {
            Some(other) if other != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or(""),
                    other.as_str().unwrap_or("")
                ));
            }
            _ => {}
        }
        if let Some(map) = selector.as_object_mut() {
            map.insert(key.clone(), value.clone());
        }
    }
    let tolerations = scheduling["tolerations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !tolerations.is_empty() {
        let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
        for t in tolerations {
            if !all.contains(&t) {
                all.push(t);
            }
        }
        spec["tolerations"] = all.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_adds_overhead_and_place() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}});
        let mut spec = json!({"nodeSelector": {"c": "d"}});
        merge(&class, &mut spec).unwrap();
        assert_eq!(
            spec,
            json!({"nodeSelector": {"c": "d", "a": "b"}, "overhead": {"cpu": "10m"}})
        );
        let mut other = json!({"nodeSelector": {"a": "x"}});
        assert!(
            merge(&class, &mut other)
                .unwrap_err()
                .starts_with("conflict: ")
        );
    }
}
