//! Writes a pod's status to the API: only what changed, and as few times as possible.

use std::time::Duration;

use kube_client::{Client, PODS, PatchType};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Changes that follow each other this closely are written together, unless somebody waits for one of them: readiness, or the end.
/// Everyone who follows pods reads each state of every pod, and a starting pod goes through half a dozen; Kubernetes' own node agent
/// looks at its containers once a second.
const COALESCE: Duration = Duration::from_millis(250);

/// Writes every status that is sent, newest first, in a task of its own.
pub struct StatusWriter {
    sender: watch::Sender<Option<Value>>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// A writer for one pod.
    pub fn start(client: Client, namespace: String, name: String, uid: String) -> Self {
        let (sender, receiver) = watch::channel(None);
        let task = tokio::spawn(run(client, namespace, name, uid, receiver));
        Self { sender, task }
    }

    /// The status as of now; nothing happens when it is the same as before.
    pub fn set(&self, status: Value) {
        self.sender.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&status);
            if changed {
                *known = Some(status);
            }
            changed
        });
    }

    /// Writes what is left and ends.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.task.await;
    }
}

async fn run(
    client: Client,
    namespace: String,
    name: String,
    uid: String,
    mut receiver: watch::Receiver<Option<Value>>,
) {
    let mut written: Option<Value> = None;
    let mut open = true;
    while open {
        open = receiver.changed().await.is_ok();
        let mut status = receiver.borrow_and_update().clone();
        if open && !urgent(written.as_ref(), status.as_ref()) {
            // Not urgent: see whether more follows.
            let deadline = tokio::time::Instant::now() + COALESCE;
            while let Ok(changed) = tokio::time::timeout_at(deadline, receiver.changed()).await {
                open = changed.is_ok();
                status = receiver.borrow_and_update().clone();
                if !open || urgent(written.as_ref(), status.as_ref()) {
                    break;
                }
            }
        }
        let mut wait = Duration::from_millis(50);
        while let Some(wanted) = status.clone() {
            let Some(patch) = difference(written.as_ref(), &wanted) else {
                break;
            };
            let patch = json!({"metadata": {"uid": uid}, "status": patch});
            let answer = client
                .patch_only(
                    &PODS,
                    Some(&namespace),
                    &name,
                    &PatchType::Merge,
                    &patch,
                    Some("status"),
                )
                .await;
            match answer {
                Ok(()) => {
                    written = Some(wanted);
                    break;
                }
                // Gone, or another pod of the same name: there is nobody left to write for.
                Err(problem) if problem.is_not_found() || problem.is_conflict() => return,
                Err(problem) if problem.is_invalid() => {
                    tracing::error!(%problem, pod = name, "pod status refused");
                    break;
                }
                Err(problem) => {
                    tracing::warn!(%problem, pod = name, "pod status not written, trying again");
                    if !open && wait > Duration::from_secs(2) {
                        return;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                    status = receiver.borrow_and_update().clone();
                }
            }
        }
    }
}

/// Whether others wait for what has changed since the last write.
fn urgent(written: Option<&Value>, status: Option<&Value>) -> bool {
    let over = |status: Option<&Value>| {
        let phase = status.and_then(|status| status["phase"].as_str());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    ready(written) != ready(status) || over(written) != over(status)
}

fn ready(status: Option<&Value>) -> bool {
    let conditions = status.and_then(|status| status["conditions"].as_array());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The merge patch from `old` to `new`, field by field of the status; `None` when nothing differs.
/// The first write sets every field and clears those an earlier run of the node may have left.
fn difference(old: Option<&Value>, new: &Value) -> Option<Value> {
    const OWNED: [&str; 5] = [
        "reason",
        "message",
        "podIP",
        "podIPs",
        "initContainerStatuses",
    ];
    let new = new.as_object()?;
    let mut patch = Map::new();
    for (field, value) in new {
        if old.is_none_or(|old| old.get(field) != Some(value)) {
            patch.insert(field.clone(), value.clone());
        }
    }
    for field in OWNED {
        let was = old.is_none_or(|old| old.get(field).is_some());
        if was && !new.contains_key(field) {
            patch.insert(field.into(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_and_the_end_do_not_wait_for_further_changes() {
        let status = |phase: &str, ready: &str| json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
        let (pending, running) = (status("Pending", "False"), status("Running", "False"));
        assert!(!urgent(None, Some(&pending)));
        assert!(!urgent(Some(&pending), Some(&running)));
        assert!(urgent(Some(&running), Some(&status("Running", "True"))));
        assert!(urgent(Some(&running), Some(&status("Failed", "False"))));
    }

    #[test]
    fn only_what_changed_is_written() {
        let first = json!({"phase": "Pending", "podIP": "1", "reason": "X"});
        assert_eq!(
            difference(None, &first),
            Some(
                json!({"phase": "Pending", "podIP": "1", "reason": "X", "message": null, "podIPs": null, "initContainerStatuses": null})
            )
        );
        assert_eq!(difference(Some(&first), &first), None);
        let second = json!({"phase": "Running", "podIP": "1"});
        assert_eq!(
            difference(Some(&first), &second),
            Some(json!({"phase": "Running", "reason": null}))
        );
    }
}
