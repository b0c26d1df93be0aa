//! Workloads as Go's types write them: structs that are there without content, statuses with zeros, nothing that is empty.

use api::quantity::Quantity;
use serde_json::{Map, Value, json};

/// Fields that are left out when they are false, or zero. What is not here is a pointer in Go, and kept.
const ZERO: [&str; 15] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "stdinOnce",
    "tty",
    "readOnly",
    "paused",
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "minReadySeconds",
    "hostPort",
];
/// Maps whose values are anybody's: nothing in them is left out, but they are when they are empty.
const MAPS: [&str; 6] = [
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "limits",
    "requests",
];

/// The object with its empty metadata, as of a list.
pub(super) fn metadata(object: &mut Value) {
    fill(object, "metadata", json!({}));
}

/// A workload.
pub(super) fn as_typed(object: &mut Value) {
    clean(object);
    metadata(object);
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    fill(object, "spec", json!({}));
    let spec = &mut object["spec"];
    match kind.as_str() {
        "Pod" => pod(spec),
        "CronJob" => {
            fill(spec, "jobTemplate", json!({}));
            metadata(&mut spec["jobTemplate"]);
            fill(&mut spec["jobTemplate"], "spec", json!({}));
            template(&mut spec["jobTemplate"]["spec"]);
        }
        _ => template(spec),
    }
    match kind.as_str() {
        "Deployment" => fill(spec, "strategy", json!({})),
        "DaemonSet" | "StatefulSet" => fill(spec, "updateStrategy", json!({})),
        _ => {}
    }
    for claim in items(spec, "volumeClaimTemplates") {
        metadata(claim);
        fill(claim, "spec", json!({}));
        fill(&mut claim["spec"], "resources", json!({}));
        fill(claim, "status", json!({}));
    }
    let status = match kind.as_str() {
        "DaemonSet" => {
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})
        }
        "StatefulSet" => json!({"availableReplicas": 0, "replicas": 0}),
        "ReplicaSet" | "ReplicationController" => json!({"replicas": 0}),
        _ => json!({}),
    };
    fill(object, "status", status);
}

/// The entries of a list, if there is one.
pub(super) fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn fill(object: &mut Value, field: &str, value: Value) {
    if object.is_object() && object[field].is_null() {
        object[field] = value;
    }
}

fn template(spec: &mut Value) {
    fill(spec, "template", json!({}));
    let template = &mut spec["template"];
    metadata(template);
    fill(template, "spec", json!({}));
    pod(&mut template["spec"]);
}

fn pod(spec: &mut Value) {
    // Go writes a list that is not there as null where the field is required.
    fill(spec, "containers", Value::Null);
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, field) {
            fill(container, "resources", json!({}));
            for kind in ["limits", "requests"] {
                let amounts = container["resources"].get_mut(kind);
                for (_, amount) in amounts.and_then(Value::as_object_mut).into_iter().flatten() {
                    canonical(amount);
                }
            }
            for variable in items(container, "env") {
                if let Some(field) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
                    fill(field, "divisor", "0".into());
                    canonical(&mut field["divisor"]);
                }
            }
        }
    }
}

/// A quantity in the form that Kubernetes gives it.
fn canonical(amount: &mut Value) {
    let text = match &*amount {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return,
    };
    if let Ok(quantity) = Quantity::parse(&text) {
        *amount = quantity.to_string().into();
    }
}

/// Takes away what Go leaves out.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => clean_map(map),
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn clean_map(map: &mut Map<String, Value>) {
    map.retain(|name, value| {
        let anybodys = MAPS.contains(&name.as_str());
        if !anybodys {
            clean(value);
        }
        match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(inner) => !(anybodys && inner.is_empty()),
            Value::Bool(set) => *set || !ZERO.contains(&name.as_str()),
            Value::Number(number) => number.as_i64() != Some(0) || !ZERO.contains(&name.as_str()),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_go_and_structs_stay() {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {}},
            "spec": {"replicas": 0, "paused": false, "template": {"spec": {"hostNetwork": false, "volumes": [{"emptyDir": {}, "name": "v"}],
                "containers": [{"name": "c", "args": ["", "x"], "env": [{"name": "E", "value": ""}],
                    "securityContext": {"privileged": false}, "resources": {"limits": {"cpu": "1000m", "memory": 1024}}}]}}}});
        as_typed(&mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "status": {},
                "spec": {"replicas": 0, "strategy": {}, "template": {"metadata": {}, "spec": {"volumes": [{"emptyDir": {}, "name": "v"}],
                    "containers": [{"name": "c", "args": ["", "x"], "env": [{"name": "E"}],
                        "securityContext": {"privileged": false}, "resources": {"limits": {"cpu": "1", "memory": "1024"}}}]}}}})
        );
    }
}
