//! The row of a pod: what `kubectl get pods` calls READY, STATUS and RESTARTS.

use super::{age, list, text_or};
use crate::meta;
use crate::time::{self, Time};
use serde_json::{Value, json};

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&pod["status"]["conditions"])
        .iter()
        .find(|c| c["type"] == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| c["status"] == "True")
}

/// Restart counter with the end of the latest restarted container.
#[derive(Default, Clone)]
struct Restarts {
    count: i64,
    last: Option<String>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or(0);
        let ended = status["lastState"]["terminated"]["finishedAt"]
            .as_str()
            .map(String::from);
        if ended > self.last {
            self.last = ended;
        }
    }
}

fn exit_reason(terminated: &Value) -> String {
    match (
        terminated["reason"].as_str().filter(|r| !r.is_empty()),
        terminated["signal"].as_i64().unwrap_or(0),
    ) {
        (Some(r), _) => r.to_string(),
        (None, 0) => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        (None, s) => format!("Signal:{s}"),
    }
}

/// Ready containers, all containers, status, restarts.
fn summary(pod: &Value, now: Time) -> (usize, usize, String, String) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = status["phase"].as_str().unwrap_or("");
    let mut reason = text_or(&status["reason"], phase).to_string();
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let is_sidecar = |name: &Value| {
        list(&spec["initContainers"])
            .iter()
            .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
    };
    let init_containers = list(&spec["initContainers"]);
    let total = list(&spec["containers"]).len()
        + init_containers
            .iter()
            .filter(|c| c["restartPolicy"] == "Always")
            .count();
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (i, c) in list(&status["initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(&c["name"]);
        restarts.add(c);
        if sidecar {
            sidecar_restarts.add(c);
        }
        let (terminated, waiting) = (&c["state"]["terminated"], &c["state"]["waiting"]);
        if terminated.is_object() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && c["started"] == true {
            ready += usize::from(c["ready"] == true);
            continue;
        }
        reason = if terminated.is_object() {
            format!("Init:{}", exit_reason(terminated))
        } else {
            match waiting["reason"].as_str() {
                Some(r) if !r.is_empty() && r != "PodInitializing" => format!("Init:{r}"),
                _ => format!("Init:{i}/{}", init_containers.len()),
            }
        };
        initializing = true;
        break;
    }
    if !initializing || is_true(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for c in list(&status["containerStatuses"]).iter().rev() {
            restarts.add(c);
            let (terminated, waiting) = (&c["state"]["terminated"], &c["state"]["waiting"]);
            if let Some(r) = waiting["reason"].as_str().filter(|r| !r.is_empty()) {
                reason = r.to_string();
            } else if terminated.is_object() {
                reason = exit_reason(terminated);
            } else if c["ready"] == true && c["state"]["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if is_true(pod, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .into();
        }
    }
    if meta::deletion_timestamp(pod).is_some() {
        if status["reason"] == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let shown = match &restarts.last {
        Some(t) if restarts.count != 0 => {
            format!("{} ({} ago)", restarts.count, time::age(Some(t), now))
        }
        _ => restarts.count.to_string(),
    };
    (ready, total, reason, shown)
}

/// The cells.
pub fn cells(pod: &Value, now: Time) -> Vec<Value> {
    let (ready, total, reason, restarts) = summary(pod, now);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let gates = list(&spec["readinessGates"]);
    let open = gates
        .iter()
        .filter(|g| g["conditionType"].as_str().is_some_and(|t| is_true(pod, t)))
        .count();
    vec![
        meta::name(pod).into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age(pod, now),
        text_or(
            &status["podIPs"][0]["ip"],
            text_or(&status["podIP"], "<none>"),
        )
        .into(),
        text_or(&spec["nodeName"], "<none>").into(),
        text_or(&status["nominatedNodeName"], "<none>").into(),
        if gates.is_empty() {
            "<none>".into()
        } else {
            format!("{open}/{}", gates.len()).into()
        },
    ]
}

/// Row conditions: finished pods are marked, so that clients may leave them out.
pub fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}
