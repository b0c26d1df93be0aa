//! `metrics.k8s.io`: how much CPU and memory nodes and pods use, as their node agents say.

use serde_json::{Value, json};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

/// `GET /apis/metrics.k8s.io`.
pub(crate) fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `GET /apis/metrics.k8s.io/v1beta1`.
pub(crate) fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [
        {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
        {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]},
    ]})
}

/// Adds the group to `/apis`.
pub(crate) fn extend_groups(mut list: Value) -> Value {
    let mut group = group();
    if let Some(map) = group.as_object_mut() {
        map.shift_remove("kind");
        map.shift_remove("apiVersion");
    }
    if let Some(groups) = list["groups"].as_array_mut() {
        groups.push(group);
    }
    list
}

/// Adds the group to aggregated discovery.
pub(crate) fn extend_aggregated(mut list: Value, core: bool) -> Value {
    if core {
        return list;
    }
    let resource = |name: &str, kind: &str, scope: &str| {
        json!({"resource": name, "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
            "scope": scope, "singularResource": "", "verbs": ["get", "list"]})
    };
    if let Some(items) = list["items"].as_array_mut() {
        items.push(json!({
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{"version": VERSION, "freshness": "Current", "resources": [
                resource("nodes", "NodeMetrics", "Cluster"), resource("pods", "PodMetrics", "Namespaced"),
            ]}],
        }));
    }
    list
}
