//! Which pods run: one worker for each pod that is bound to this node.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube_client::events::{EventType, Note};
use kube_client::{Store, StoreEvent};
use parking_lot::RwLock;
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Engine, PodHandle, worker};
use crate::admission::{Refusal, admit};
use crate::pod_sync::{Input, is_own};
use crate::status_writer::StatusWriter;

/// Follows the pods of this node until `token` is cancelled.
pub async fn manage(engine: Arc<Engine>, pods: Store, token: CancellationToken) {
    tokio::select! {
        () = token.cancelled() => return,
        // Containers are born with the variables of all services: these must be known.
        () = async { pods.wait_synced().await; engine.stores.services.wait_synced().await } => {}
    }
    clear_leftovers(&engine, &pods).await;
    let mut changes = pods.subscribe();
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            event = changes.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            StoreEvent::Added(object) => update(&engine, &pods, &object),
            StoreEvent::Modified { old, new } => {
                // Deleted and created again under the same name between two looks.
                if old["metadata"]["uid"] != new["metadata"]["uid"] {
                    remove(&engine, &old);
                } else if asks_the_same(&old, &new) && engine.pods.read().contains_key(&uid(&new)) {
                    continue;
                }
                update(&engine, &pods, &new);
            }
            StoreEvent::Deleted(object) => remove(&engine, &object),
        }
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Whether a pod's worker has nothing to learn from the new state: what differs is what it wrote itself.
fn asks_the_same(old: &Value, new: &Value) -> bool {
    let metadata = |one: &Value, other: &Value| {
        let fields = one["metadata"].as_object().into_iter().flatten();
        fields
            .filter(|(field, _)| *field != "resourceVersion")
            .all(|(field, value)| other["metadata"].get(field) == Some(value))
    };
    fn foreign(object: &Value) -> impl Iterator<Item = &Value> {
        let conditions = object["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .filter(|condition| !is_own(condition["type"].as_str().unwrap_or_default()))
    }
    old["spec"] == new["spec"]
        && metadata(old, new)
        && metadata(new, old)
        && foreign(old).eq(foreign(new))
}

fn remove(engine: &Engine, object: &Value) {
    engine.refused.lock().remove(&uid(object));
    if let Some(handle) = engine.pods.read().get(&uid(object)) {
        handle.tell(Input::Removed);
    } else {
        engine.logs.remove_pod(&uid(object));
    }
}

fn update(engine: &Arc<Engine>, pods: &Store, object: &Arc<Value>) {
    let pod: Arc<Pod> = match serde_json::from_value(with_ephemeral(object)) {
        Ok(pod) => Arc::new(pod),
        Err(problem) => {
            tracing::error!(%problem, pod = %object["metadata"]["name"], "pod object cannot be read");
            return;
        }
    };
    let uid = uid(object);
    if let Some(handle) = engine.pods.read().get(&uid) {
        handle.tell(Input::Desired(pod));
        return;
    }
    let ended = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    // One that was not taken is only looked at again to be deleted.
    if !deleting && (ended || engine.refused.lock().contains(&uid)) {
        return;
    }
    if !ended && !deleting {
        let (taken, all) = (engine.pods.read(), pods.list());
        let others: Vec<&Value> = all
            .iter()
            .filter(|other| {
                taken
                    .get(other["metadata"]["uid"].as_str().unwrap_or_default())
                    .is_some_and(|h| counts(h))
            })
            .map(AsRef::as_ref)
            .collect();
        if let Err(refusal) = admit(object, &others, &engine.config.allocatable) {
            engine.refused.lock().insert(uid);
            tokio::spawn(refuse(engine.clone(), object.clone(), refusal));
            return;
        }
    }
    let (inbox, receiver) = mpsc::unbounded_channel();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let handle = Arc::new(PodHandle {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: uid.clone(),
        seen_at: std::time::Instant::now(),
        status: RwLock::new(object["status"].clone()),
        pod: RwLock::new(pod),
        sandbox: RwLock::new(None),
        ip: RwLock::new(None),
        containers: RwLock::default(),
        inbox,
        token: CancellationToken::new(),
    });
    engine.pods.write().insert(uid, handle.clone());
    tokio::spawn(worker::run(engine.clone(), handle, receiver));
}

/// Whether a pod that was taken still needs what it asked for.
fn counts(handle: &PodHandle) -> bool {
    let over = matches!(
        handle.status.read()["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    !over && !handle.token.is_cancelled()
}

/// Ends a pod that is not taken.
async fn refuse(engine: Arc<Engine>, object: Arc<Value>, refusal: Refusal) {
    let text = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    engine.recorder.note(Note {
        regarding: object.clone(),
        field_path: None,
        kind: EventType::Warning,
        reason: refusal.reason.clone().into(),
        message: refusal.message.clone(),
        action: None,
    });
    let status = json!({
        "phase": "Failed",
        "reason": refusal.reason,
        "message": format!("Pod was rejected: {}", refusal.message),
        "startTime": crate::clock::rfc3339(crate::clock::now()),
    });
    let writer = StatusWriter::start(
        engine.client.clone(),
        text("namespace"),
        text("name"),
        text("uid"),
    );
    writer.set(status);
    writer.finish().await;
}

/// The pod with its ephemeral containers beside its others: they are run the same way, and known by still being named among
/// the ephemeral ones. (They see no processes but their own, also where they name a container as their target.)
fn with_ephemeral(object: &Value) -> Value {
    let mut pod = object.clone();
    let added: Vec<Value> = object["spec"]["ephemeralContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.extend(added);
    }
    pod
}

/// Removes what pods that no longer exist left on disk, and makes sure that addresses of pods from
/// before a restart are not the first to be given again.
async fn clear_leftovers(engine: &Arc<Engine>, pods: &Store) {
    let objects = pods.list();
    let known: HashSet<String> = objects.iter().map(|object| uid(object)).collect();
    {
        let mut ipam = engine.ipam.lock();
        let highest = objects
            .iter()
            .filter_map(|object| {
                object["status"]["podIP"]
                    .as_str()?
                    .parse::<std::net::Ipv4Addr>()
                    .ok()
            })
            .max();
        if let Some(highest) = highest {
            ipam.continue_after(highest);
        }
    }
    engine.logs.retain(|uid| known.contains(uid));
    for base in [&engine.dirs.ephemeral, &engine.dirs.persistent] {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // What is in memory belongs to processes that are gone; emptyDir directories of pods
            // that go on survive, as they survive a reboot of a real node.
            let stale = base == &engine.dirs.ephemeral
                || name.to_str().is_none_or(|uid| !known.contains(uid));
            if stale {
                let path = entry.path();
                let _ = tokio::task::spawn_blocking(move || crate::volumes::remove(&path)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_wrote_is_news_for_a_pods_worker() {
        let pod = |version: u32, phase: &str, conditions: Value| {
            json!({
                "metadata": {"name": "p", "uid": "u", "resourceVersion": version.to_string()},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": phase, "conditions": conditions},
            })
        };
        let ready = json!({"type": "Ready", "status": "True"});
        let gate = json!({"type": "example.com/gate", "status": "True"});
        let old = pod(1, "Pending", json!([]));
        assert!(asks_the_same(&old, &pod(2, "Running", json!([ready]))));
        assert!(!asks_the_same(
            &old,
            &pod(2, "Running", json!([ready, gate]))
        ));
        let mut labelled = pod(2, "Pending", json!([]));
        labelled["metadata"]["labels"]["app"] = json!("x");
        assert!(!asks_the_same(&old, &labelled));
        let mut image = pod(2, "Pending", json!([]));
        image["spec"]["containers"][0]["image"] = json!("j");
        assert!(!asks_the_same(&old, &image));
    }
}
