//! What every pod gets: how long it tolerates a lost node.

use serde_json::{Value, json};

/// Seconds a pod stays on a node that is not ready or not reachable.
const TOLERATED: i64 = 300;

/// Fills in tolerations.
pub(crate) fn admit(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(list) = tolerations.as_array_mut() else {
        return;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_tolerate_a_lost_node_for_five_minutes() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {}});
        admit(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 300);
        let mut all = json!({"metadata": {}, "spec": {"tolerations": [{"operator": "Exists"}]}});
        admit(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
