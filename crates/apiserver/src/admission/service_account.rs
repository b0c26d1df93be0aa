//! Every pod runs as a service account and finds its token mounted.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Attributes;
use crate::error::{ApiError, ApiResult};
use crate::storage::{Key, Storage, Stored};

/// Where containers find token, namespace and certificate authority.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds a mounted token lives; the kubelet renews it.
const TOKEN_SECONDS: i64 = 3607;

/// How long a pod waits for its account: in a new namespace the controller may be a moment behind.
const WAIT: Duration = Duration::from_secs(1);

/// Sets the account and mounts its token, as the ServiceAccount admission plugin does.
pub(crate) async fn admit(storage: &Storage, a: &Attributes<'_>, pod: &mut Value) -> ApiResult<()> {
    let annotations = &pod["metadata"]["annotations"];
    if annotations.get("kubernetes.io/config.mirror").is_some() {
        return Ok(());
    }
    let wanted = pod["spec"]["serviceAccountName"]
        .as_str()
        .filter(|n| !n.is_empty())
        .unwrap_or("default")
        .to_owned();
    let key = Key::new(&TABLE.into(), a.namespace, &wanted);
    let Some(account) = find(storage, &key).await else {
        let why = format!(
            "error looking up service account {}/{wanted}: serviceaccount {wanted:?} not found",
            a.namespace
        );
        return Err(ApiError::forbidden("", "pods", a.name, &why));
    };
    let suffix = api::meta::generated_name("", rand::random());
    mount(pod, &wanted, account.value(), &suffix);
    Ok(())
}

const TABLE: &str = "core/serviceaccounts";

async fn find(storage: &Storage, key: &Key) -> Option<Arc<Stored>> {
    let mut changed = storage.cache().subscribe(TABLE);
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        changed.borrow_and_update();
        if let Some(found) = storage.cache().get(key) {
            return Some(found);
        }
        tokio::time::timeout_at(deadline, changed.changed())
            .await
            .ok()?
            .ok()?;
    }
}

/// Writes account, volume and mounts into the pod.
pub(crate) fn mount(pod: &mut Value, name: &str, account: &Value, suffix: &str) {
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    spec.insert("serviceAccountName".into(), name.into());
    spec.insert("serviceAccount".into(), name.into());
    if let Some(secrets) = account["imagePullSecrets"].as_array()
        && !secrets.is_empty()
        && spec
            .get("imagePullSecrets")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    {
        spec.insert("imagePullSecrets".into(), secrets.clone().into());
    }
    if !automount {
        return;
    }
    let existing = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v["name"].as_str())
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let volume = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if mounts.iter().any(|m| m["mountPath"] == MOUNT) {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
            used = true;
        }
    }
    if !used || existing.is_some() {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({
            "name": volume,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {
                        "apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
                ],
                "defaultMode": 420,
            },
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_into_every_container_once() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b",
            "volumeMounts": [{"name": "x", "mountPath": MOUNT}]}]}});
        mount(&mut pod, "default", &json!({}), "abcde");
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
            MOUNT
        );
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        let before = pod.clone();
        mount(&mut pod, "default", &json!({}), "fghij");
        assert_eq!(pod, before, "a second pass changes nothing");
    }

    #[test]
    fn account_and_pod_can_refuse_the_token_and_the_pod_wins() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount(
            &mut pod,
            "x",
            &json!({"automountServiceAccountToken": false}),
            "s",
        );
        assert!(pod["spec"].get("volumes").is_none());
        pod["spec"]["automountServiceAccountToken"] = true.into();
        mount(
            &mut pod,
            "x",
            &json!({"automountServiceAccountToken": false}),
            "s",
        );
        assert!(pod["spec"].get("volumes").is_some());
    }
}
