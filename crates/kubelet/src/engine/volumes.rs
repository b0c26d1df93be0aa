//! Puts a pod's volumes in place and keeps them up to date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube_client::SERVICE_ACCOUNTS;
use serde_json::json;

use super::{Engine, PodHandle};
use crate::clock::{self, Millis};
use crate::quantity;
use crate::volumes::{
    TokenKey, VolumeContext, VolumeError, make_empty_dir, payload, publish, references,
    token_requests,
};

/// Changes of configmaps and secrets within this time reach a volume together.
const SETTLE: Duration = Duration::from_millis(50);

/// Tokens with the time to renew them.
#[derive(Default)]
pub(super) struct Tokens(BTreeMap<TokenKey, (String, Millis)>);

impl Tokens {
    fn next_renewal(&self) -> Option<Millis> {
        self.0.values().map(|(_, at)| *at).min()
    }
}

/// Puts all volumes in place; also brings them up to date.
pub(super) async fn mount(
    engine: &Engine,
    handle: &PodHandle,
    tokens: &mut Tokens,
) -> Result<(), VolumeError> {
    let pod = handle.pod.read().clone();
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.clone())
        .unwrap_or_default();
    let objects = engine.objects(&handle.namespace, &references(&pod)).await;
    let requests = token_requests(&pod);
    let first_projected = || {
        volumes
            .iter()
            .find(|volume| volume.projected.is_some())
            .map_or_else(String::new, |volume| volume.name.clone())
    };
    for key in &requests {
        renew(engine, handle, &pod, key, tokens)
            .await
            .map_err(|problem| (first_projected(), problem))?;
    }
    let texts: BTreeMap<TokenKey, String> = tokens
        .0
        .iter()
        .map(|(key, (token, _))| (key.clone(), token.clone()))
        .collect();
    let fields = engine.fields(*handle.ip.read());
    let context = VolumeContext {
        pod: &pod,
        fields: &fields,
        objects: &objects,
        tokens: &texts,
    };
    let group = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref()?.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    for volume in &volumes {
        let failed = |problem: String| (volume.name.clone(), problem);
        let dir = engine.dirs.volume(&pod, volume);
        if let Some(claim) = &volume.persistent_volume_claim {
            super::claims::mount(engine, handle, &claim.claim_name, &dir, group)
                .await
                .map_err(failed)?;
            continue;
        }
        match payload(volume, &context).map_err(failed)? {
            Some(files) => {
                publish(&dir, &files, rand::random(), group)
                    .map_err(|problem| failed(problem.to_string()))?;
            }
            None => {
                let empty = volume.empty_dir.as_ref();
                let memory = empty.and_then(|dir| dir.medium.as_deref()) == Some("Memory");
                let size = empty
                    .and_then(|dir| dir.size_limit.as_ref())
                    .and_then(quantity::units);
                make_empty_dir(&dir, memory, size, group)
                    .map_err(|problem| failed(problem.to_string()))?;
            }
        }
    }
    Ok(())
}

async fn renew(
    engine: &Engine,
    handle: &PodHandle,
    pod: &Pod,
    key: &TokenKey,
    tokens: &mut Tokens,
) -> Result<(), String> {
    if tokens
        .0
        .get(key)
        .is_some_and(|(_, renew_at)| *renew_at > clock::now())
    {
        return Ok(());
    }
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned());
    let audiences = if key.audience.is_empty() {
        json!([])
    } else {
        json!([key.audience])
    };
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": key.expiration_seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": handle.name, "uid": handle.uid},
        }
    });
    let answer = engine
        .client
        .create_sub(
            &SERVICE_ACCOUNTS,
            Some(&handle.namespace),
            &account,
            "token",
            &request,
        )
        .await
        .map_err(|problem| format!("failed to fetch token: {problem}"))?;
    let token = answer["status"]["token"]
        .as_str()
        .ok_or("failed to fetch token: the answer has none")?
        .to_owned();
    let lifetime = Millis::try_from(key.expiration_seconds).unwrap_or(3600) * 1000;
    // As the kubelet: renewed at 80 % of its life, and at least once a day.
    let renew_at = clock::now() + (lifetime / 10 * 8).min(86_400_000);
    tokens.0.insert(key.clone(), (token, renew_at));
    Ok(())
}

/// What the volumes of a pod were made from.
pub(super) struct Sources {
    pod: Arc<Pod>,
    versions: Vec<String>,
}

impl Sources {
    /// As they are now. Looked at before the volumes are made, so that a change in between is noticed afterwards.
    pub(super) fn now(engine: &Engine, handle: &PodHandle) -> Self {
        let pod = handle.pod.read().clone();
        let versions = versions(engine, &handle.namespace, &pod);
        Self { pod, versions }
    }
}

/// Follows configmaps, secrets, the pod's own labels and the age of tokens until the pod is over.
pub(super) async fn keep_current(
    engine: Arc<Engine>,
    handle: Arc<PodHandle>,
    mut tokens: Tokens,
    mut made_from: Sources,
) {
    let refers = !references(&made_from.pod).is_empty();
    let downward = has_downward(&made_from.pod);
    if !refers && !downward && tokens.0.is_empty() {
        return;
    }
    let mut maps = engine.stores.config_maps.changed();
    let mut secrets = engine.stores.secrets.changed();
    let mut labels = tokio::time::interval(Duration::from_secs(1));
    loop {
        let now = Sources::now(&engine, &handle);
        let due = tokens.next_renewal().is_some_and(|at| at <= clock::now());
        let changed = now.versions != made_from.versions;
        made_from = now;
        // A configmap that was deleted leaves the files as they are, as in Kubernetes.
        if (changed || due)
            && let Err((volume, problem)) = mount(&engine, &handle, &mut tokens).await
        {
            tracing::warn!(
                pod = handle.name,
                volume,
                problem,
                "volume not brought up to date"
            );
            if due {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let renewal = tokens
            .next_renewal()
            .map_or(Duration::from_secs(86_400), |at| {
                Duration::from_millis(at.saturating_sub(clock::now()))
            });
        let renewal = tokio::time::sleep(renewal);
        tokio::pin!(renewal);
        loop {
            tokio::select! {
                () = handle.token.cancelled() => return,
                changed = maps.changed(), if refers => if changed.is_err() { return },
                changed = secrets.changed(), if refers => if changed.is_err() { return },
                () = &mut renewal => {}
                _ = labels.tick(), if downward => {
                    // The same object as before: so are its labels.
                    if Arc::ptr_eq(&handle.pod.read(), &made_from.pod) {
                        continue;
                    }
                }
            }
            break;
        }
        tokio::time::sleep(SETTLE).await;
        maps.mark_unchanged();
        secrets.mark_unchanged();
    }
}

fn has_downward(pod: &Pod) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| {
        let sources = volume
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_ref());
        volume.downward_api.is_some()
            || sources
                .into_iter()
                .flatten()
                .any(|source| source.downward_api.is_some())
    })
}

/// The versions of everything the volumes are made from.
fn versions(engine: &Engine, namespace: &str, pod: &Pod) -> Vec<String> {
    let mut versions: Vec<String> = references(pod)
        .iter()
        .map(|(kind, name)| {
            let store = match kind {
                crate::env::RefKind::ConfigMap => &engine.stores.config_maps,
                crate::env::RefKind::Secret => &engine.stores.secrets,
            };
            let version = store.get(namespace, name).and_then(|object| {
                object["metadata"]["resourceVersion"]
                    .as_str()
                    .map(str::to_owned)
            });
            version.unwrap_or_default()
        })
        .collect();
    versions.push(format!(
        "{:?} {:?}",
        pod.metadata.labels, pod.metadata.annotations
    ));
    versions
}
