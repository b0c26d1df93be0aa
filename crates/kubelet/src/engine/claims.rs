//! Claims of pods, and the end of volumes that the node keeps.

use std::path::Path;
use std::sync::Arc;

use kube_client::{PERSISTENT_VOLUME_CLAIMS, PatchType, Resource, Store};
use runtime::CancellationToken;
use serde_json::{Value, json};

use super::{Engine, PodHandle};
use crate::volumes::{attach, discard, path_of};

/// Holds a volume that the cluster's own provisioner made until its directory is removed here.
const DIRECTORY_FINALIZER: &str = "theater.io/node-directory";

/// `persistentvolumes` of the core group.
pub(crate) const PERSISTENT_VOLUMES: Resource =
    Resource::fixed("", "v1", "persistentvolumes", "PersistentVolume");

/// Puts a claim's volume where the pod's volume of this name is looked for.
///
/// # Errors
/// A sentence for an event FailedMount.
pub(super) async fn mount(
    engine: &Engine,
    handle: &PodHandle,
    claim: &str,
    link: &Path,
    group: Option<u32>,
) -> Result<(), String> {
    let ns = Some(handle.namespace.as_str());
    let claim = engine
        .client
        .get(&PERSISTENT_VOLUME_CLAIMS, ns, claim)
        .await
        .map_err(|problem| problem.to_string())?;
    let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(format!(
            "claim {} is not bound",
            claim["metadata"]["name"].as_str().unwrap_or_default()
        ));
    }
    let volume = engine
        .client
        .get(&PERSISTENT_VOLUMES, None, name)
        .await
        .map_err(|problem| problem.to_string())?;
    let path = path_of(&claim, &volume)?;
    attach(&engine.dirs.disk, path, link, group).map_err(|problem| problem.to_string())
}

/// Removes the directories of volumes that are given up, until `token` is cancelled.
pub async fn reclaim(engine: Arc<Engine>, volumes: Store, token: CancellationToken) {
    let mut changes = volumes.subscribe();
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            event = changes.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let volume = event.object().clone();
        let held = volume["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|all| {
                // Last: whoever else holds it still needs what is in it.
                all.len() == 1 && all[0] == DIRECTORY_FINALIZER
            });
        if !held || !volume["metadata"]["deletionTimestamp"].is_string() {
            continue;
        }
        let (disk, path) = (
            engine.dirs.disk.clone(),
            volume["spec"]["local"]["path"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        let gone = tokio::task::spawn_blocking(move || discard(&disk, &path)).await;
        if let Ok(Err(problem)) = gone {
            tracing::warn!(%problem, volume = %volume["metadata"]["name"], "directory of a volume not removed");
            continue;
        }
        release(&engine, &volume).await;
    }
}

async fn release(engine: &Engine, volume: &Value) {
    let patch = json!({"metadata": {"finalizers": null, "resourceVersion": volume["metadata"]["resourceVersion"]}});
    let name = volume["metadata"]["name"].as_str().unwrap_or_default();
    let merge = PatchType::Merge;
    if let Err(problem) = engine
        .client
        .patch(&PERSISTENT_VOLUMES, None, name, &merge, &patch, None)
        .await
        && !problem.is_not_found()
        && !problem.is_conflict()
    {
        tracing::warn!(%problem, name, "a volume whose directory is gone is still held");
    }
}
