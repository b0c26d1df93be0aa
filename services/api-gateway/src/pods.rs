//! Pods as `/deployment-status` shows them.

use serde_json::{Value, json};

/// What the page shows of a pod.
pub fn pod(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let statuses = object["status"]["containerStatuses"].as_array();
    let ready = |statuses: &Vec<Value>| statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts = |statuses: &Vec<Value>| {
        statuses
            .iter()
            .filter_map(|status| status["restartCount"].as_u64())
            .sum::<u64>()
    };
    json!({
        "service": metadata["labels"]["app"],
        "podName": metadata["name"],
        "nodeName": object["spec"]["nodeName"],
        "status": status(object),
        "ready": statuses.map_or(0, ready),
        "containers": object["spec"]["containers"].as_array().map_or(0, Vec::len),
        "restarts": statuses.map_or(0, restarts),
        "port": object["spec"]["containers"][0]["ports"][0]["containerPort"],
    })
}

/// What kubectl would show as a pod's status, in short.
fn status(object: &Value) -> String {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".into();
    }
    let waiting = object["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|status| status["state"]["waiting"]["reason"].as_str());
    waiting
        .or(object["status"]["phase"].as_str())
        .unwrap_or("Unknown")
        .to_owned()
}
