//! `v1/PodStatus` from the machine's state.

use serde_json::{Value, json};

use super::*;
use crate::clock::rfc3339;

/// The condition types a node agent owns, in the order it writes them.
pub(super) const CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Whether a condition of a pod is the node agent's to write; the others belong to whoever looks after the pod's readiness gates.
pub fn is_own(condition: &str) -> bool {
    CONDITIONS.contains(&condition)
}

struct Condition {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl PodMachine {
    /// Remembers when each condition last changed.
    pub(super) fn note_transitions(&mut self, now: Millis) {
        for condition in self.conditions() {
            let entry = self
                .transitions
                .entry(condition.kind)
                .or_insert((condition.status, now));
            if entry.0 != condition.status {
                *entry = (condition.status, now);
            }
        }
    }

    /// The pod's status as this node sees it. Conditions of other types are taken over from the
    /// stored object.
    pub fn status(&self) -> Value {
        let mut conditions: Vec<Value> = self
            .conditions()
            .into_iter()
            .map(|condition| self.render(condition))
            .collect();
        let foreign = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        for condition in foreign.into_iter().flatten() {
            if !is_own(&condition.type_) {
                conditions.push(serde_json::to_value(condition).unwrap_or_default());
            }
        }
        let mut status = json!({
            "phase": self.phase(),
            "conditions": conditions,
            "hostIP": self.host_ip,
            "hostIPs": [{"ip": self.host_ip}],
            "startTime": rfc3339(self.start_time),
            "qosClass": qos_class(&self.pod),
        });
        if let Some(ip) = self.pod_ip {
            status["podIP"] = json!(ip);
            status["podIPs"] = json!([{"ip": ip}]);
        }
        if let Some((reason, message)) = &self.verdict {
            status["reason"] = json!(reason);
            status["message"] = json!(message);
        }
        let (mut init, mut main, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
        for (role, container) in roles(&self.pod) {
            if let Some(tracked) = self.containers.get(&container.name) {
                let list = match role {
                    Role::Main => &mut main,
                    Role::Ephemeral => &mut ephemeral,
                    Role::Init | Role::Sidecar => &mut init,
                };
                list.push(self.container_status(container, tracked));
            }
        }
        if !init.is_empty() {
            status["initContainerStatuses"] = json!(init);
        }
        status["containerStatuses"] = json!(main);
        if !ephemeral.is_empty() {
            status["ephemeralContainerStatuses"] = json!(ephemeral);
        }
        status
    }

    fn render(&self, condition: Condition) -> Value {
        let since = self
            .transitions
            .get(condition.kind)
            .map_or(self.start_time, |(_, since)| *since);
        let mut value = json!({
            "type": condition.kind,
            "status": if condition.status { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": rfc3339(since),
        });
        if let Some(reason) = condition.reason {
            value["reason"] = json!(reason);
        }
        if let Some(message) = condition.message {
            value["message"] = json!(message);
        }
        value
    }

    /// `status.phase`.
    pub fn phase(&self) -> &'static str {
        if self.verdict.is_some() {
            return "Failed";
        }
        let policy = self.restart_policy();
        let init = || {
            self.containers
                .values()
                .filter(|tracked| tracked.role == Role::Init)
        };
        let init_failed =
            init().any(|tracked| tracked.exited().is_some_and(|ended| ended.exit_code != 0));
        if init_failed && policy == "Never" {
            return "Failed";
        }
        if !self.initialized {
            return "Pending";
        }
        let (mut running, mut stopped, mut succeeded, mut waiting) = (0, 0, 0, 0);
        let mut main = 0;
        for tracked in self
            .containers
            .values()
            .filter(|tracked| tracked.role == Role::Main)
        {
            main += 1;
            match &tracked.phase {
                Phase::Running { .. } => running += 1,
                Phase::Exited(ended) => {
                    stopped += 1;
                    succeeded += usize::from(ended.exit_code == 0);
                }
                // It ran before: a restart is pending or on its way.
                _ if tracked.last.is_some() => stopped += 1,
                _ => waiting += 1,
            }
        }
        let sidecars_left = self
            .containers
            .values()
            .any(|tracked| tracked.role == Role::Sidecar && tracked.active());
        match () {
            () if waiting > 0 => "Pending",
            () if running > 0 => "Running",
            () if stopped == main && self.ending.is_some() && !sidecars_left => {
                let done_for_good = policy != "Always" || self.ending == Some(Ending::Deleted);
                match (done_for_good, succeeded == main) {
                    (true, true) => "Succeeded",
                    (true, false) => "Failed",
                    (false, _) => "Running",
                }
            }
            () => "Running",
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let phase = self.phase();
        let ended = match phase {
            "Succeeded" => Some("PodCompleted"),
            "Failed" => Some("PodFailed"),
            _ => None,
        };
        let incomplete: Vec<&str> = roles(&self.pod)
            .filter(|(role, container)| {
                let tracked = &self.containers[&container.name];
                match role {
                    Role::Init => {
                        !self.initialized
                            && tracked.exited().is_none_or(|ended| ended.exit_code != 0)
                    }
                    Role::Sidecar => !(self.initialized || tracked.running() && tracked.started),
                    Role::Main | Role::Ephemeral => false,
                }
            })
            .map(|(_, container)| container.name.as_str())
            .collect();
        let unready: Vec<&str> = roles(&self.pod)
            .filter(|(role, container)| {
                !matches!(role, Role::Init | Role::Ephemeral)
                    && !self.container_ready(&self.containers[&container.name])
            })
            .map(|(_, container)| container.name.as_str())
            .collect();
        let simple = |kind, status| Condition {
            kind,
            status,
            reason: None,
            message: None,
        };
        let initialized = match (incomplete.is_empty(), ended) {
            (true, Some("PodCompleted")) => Condition {
                reason: ended,
                ..simple("Initialized", true)
            },
            (true, _) => simple("Initialized", true),
            (false, _) => Condition {
                reason: Some("ContainersNotInitialized"),
                message: Some(format!(
                    "containers with incomplete status: [{}]",
                    incomplete.join(" ")
                )),
                ..simple("Initialized", false)
            },
        };
        let containers_ready = |kind| match (ended, unready.is_empty()) {
            (Some(reason), _) => Condition {
                reason: Some(reason),
                ..simple(kind, false)
            },
            (None, true) => simple(kind, true),
            (None, false) => Condition {
                reason: Some("ContainersNotReady"),
                message: Some(format!(
                    "containers with unready status: [{}]",
                    unready.join(" ")
                )),
                ..simple(kind, false)
            },
        };
        let mut ready = containers_ready("Ready");
        if ready.status
            && let Some(message) = self.unmet_gates()
        {
            ready = Condition {
                reason: Some("ReadinessGatesNotReady"),
                message: Some(message),
                ..simple("Ready", false)
            };
        }
        vec![
            simple(
                "PodReadyToStartContainers",
                matches!(self.sandbox, Sandbox::Ready(_)),
            ),
            initialized,
            ready,
            containers_ready("ContainersReady"),
            simple("PodScheduled", true),
        ]
    }

    /// What is missing of `spec.readinessGates`.
    fn unmet_gates(&self) -> Option<String> {
        let gates = self.pod.spec.as_ref()?.readiness_gates.as_ref()?;
        let conditions = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let missing: Vec<String> = gates
            .iter()
            .filter_map(|gate| {
                let found = conditions
                    .into_iter()
                    .flatten()
                    .find(|condition| condition.type_ == gate.condition_type);
                match found {
                    None => Some(format!(
                        "corresponding condition of pod readiness gate {:?} does not exist.",
                        gate.condition_type
                    )),
                    Some(condition) if condition.status != "True" => Some(format!(
                        "the status of pod readiness gate {:?} is not \"True\", but {}",
                        gate.condition_type, condition.status
                    )),
                    Some(_) => None,
                }
            })
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    fn container_ready(&self, tracked: &Tracked) -> bool {
        match (&tracked.phase, tracked.role) {
            (Phase::Running { .. }, Role::Main | Role::Sidecar) => tracked.started && tracked.ready,
            (Phase::Exited(ended), Role::Init) => ended.exit_code == 0,
            _ => false,
        }
    }

    fn container_status(&self, container: &Container, tracked: &Tracked) -> Value {
        let image = container.image.clone().unwrap_or_default();
        let image_id = self
            .catalog
            .resolve(&image)
            .map(crate::catalog::Image::id)
            .unwrap_or_default();
        let mut container_id = None;
        let state = match &tracked.phase {
            Phase::Running { id, since, .. } => {
                container_id = Some(id.clone());
                json!({"running": {"startedAt": rfc3339(*since)}})
            }
            Phase::Exited(ended) => {
                container_id = (!ended.id.is_empty()).then(|| ended.id.clone());
                json!({"terminated": terminated(ended)})
            }
            Phase::Waiting(Some((reason, message))) => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            Phase::Waiting(None) | Phase::Starting => {
                // Said of all its containers as soon as a pod has init containers.
                let reason = if self.has_init() {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                };
                json!({"waiting": {"reason": reason}})
            }
        };
        if container_id.is_none() {
            container_id = tracked
                .last
                .as_ref()
                .map(|last| last.id.clone())
                .filter(|id| !id.is_empty());
        }
        let last_state = tracked
            .last
            .as_ref()
            .map_or_else(|| json!({}), |last| json!({"terminated": terminated(last)}));
        let mut status = json!({
            "name": container.name,
            "image": image,
            "imageID": if container_id.is_some() { image_id } else { String::new() },
            // A restart counts once the program runs again.
            "restartCount": match tracked.phase {
                Phase::Starting => tracked.restart_count.saturating_sub(1),
                _ => tracked.restart_count,
            },
            "ready": self.container_ready(tracked),
            "started": tracked.running() && tracked.started
                && matches!(tracked.role, Role::Main | Role::Sidecar),
            "state": state,
            "lastState": last_state,
        });
        if let Some(id) = container_id {
            status["containerID"] = json!(format!("theater://{id}"));
        }
        let mounts: Vec<Value> = container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| {
                let mut value = json!({"name": mount.name, "mountPath": mount.mount_path});
                if mount.read_only == Some(true) {
                    value["readOnly"] = json!(true);
                    value["recursiveReadOnly"] = json!("Disabled");
                }
                value
            })
            .collect();
        if !mounts.is_empty() {
            status["volumeMounts"] = json!(mounts);
        }
        status
    }

    fn has_init(&self) -> bool {
        self.containers
            .values()
            .any(|tracked| matches!(tracked.role, Role::Init | Role::Sidecar))
    }
}

fn terminated(ended: &Terminated) -> Value {
    let mut value = json!({
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": rfc3339(ended.started_at),
        "finishedAt": rfc3339(ended.finished_at),
    });
    if let Some(signal) = ended.signal {
        value["signal"] = json!(signal);
    }
    if !ended.message.is_empty() {
        value["message"] = json!(ended.message);
    }
    if !ended.id.is_empty() {
        value["containerID"] = json!(format!("theater://{}", ended.id));
    }
    value
}

/// `status.qosClass`: Guaranteed when every container limits cpu and memory and requests the same,
/// BestEffort when none says anything, else Burstable.
pub fn qos_class(pod: &Pod) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for (role, container) in roles(pod) {
        if role == Role::Ephemeral {
            continue;
        }
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for name in ["cpu", "memory"] {
            let limit = limits
                .and_then(|list| list.get(name))
                .and_then(|quantity| crate::quantity::milli(&quantity.0));
            let request = requests
                .and_then(|list| list.get(name))
                .and_then(|quantity| crate::quantity::milli(&quantity.0));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
