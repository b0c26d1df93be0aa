//! What every pod gets: how long it tolerates a lost node, and its priority.

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};

/// Seconds a pod stays on a node that is not ready or not reachable.
const TOLERATED: i64 = 300;

/// Priorities the system knows without a PriorityClass object.
fn priority_of(class: &str) -> Option<i64> {
    match class {
        "" => Some(0),
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    }
}

/// Fills in tolerations and priority.
pub(crate) fn admit(pod: &mut Value) -> ApiResult<()> {
    let class = pod["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    let Some(priority) = priority_of(&class) else {
        return Err(ApiError::forbidden(
            "",
            "pods",
            api::meta::name(pod),
            &format!("no PriorityClass with name {class} was found"),
        ));
    };
    let Some(spec) = pod["spec"].as_object_mut() else {
        return Ok(());
    };
    spec.insert("priority".into(), priority.into());
    if !spec.contains_key("preemptionPolicy") {
        spec.insert("preemptionPolicy".into(), "PreemptLowerPriority".into());
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(list) = tolerations.as_array_mut() else {
        return Ok(());
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list.iter().any(|t| {
            let key_ok = t["key"].as_str().unwrap_or("").is_empty() || t["key"] == key;
            let effect = t["effect"].as_str().unwrap_or("");
            key_ok && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATED,
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_tolerate_a_lost_node_for_five_minutes() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}});
        admit(&mut pod).unwrap();
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 300);
        assert_eq!(pod["spec"]["priority"], 0);
        let mut all = json!({"metadata": {}, "spec": {"tolerations": [{"operator": "Exists"}]}});
        admit(&mut all).unwrap();
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_priority_class_is_refused() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"priorityClassName": "gold"}});
        assert!(
            admit(&mut pod)
                .unwrap_err()
                .message
                .contains("no PriorityClass with name gold was found")
        );
    }
}
