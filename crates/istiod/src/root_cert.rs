//! The ConfigMap `istio-ca-root-cert` in every namespace: how a pod knows whom to trust before it has a
//! certificate of its own.

use std::sync::Arc;

use kube_client::{CONFIG_MAPS, Client, PatchType};
use runtime::CancellationToken;
use serde_json::{Value, json};

use crate::clusters::Clusters;

const NAME: &str = "istio-ca-root-cert";

/// Namespaces that never hold workloads of the mesh.
const SKIPPED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Keeps the ConfigMap in every namespace until `token` is cancelled.
pub async fn follow(
    client: Client,
    clusters: Arc<Clusters>,
    root_pem: String,
    token: CancellationToken,
) {
    let mut changes = clusters.changes();
    let mut done: Vec<String> = Vec::new();
    loop {
        changes.mark_unchanged();
        let names: Vec<String> = clusters
            .namespaces()
            .iter()
            .filter(|namespace| namespace["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|namespace| namespace["metadata"]["name"].as_str())
            .filter(|name| !SKIPPED.contains(name))
            .map(ToOwned::to_owned)
            .collect();
        // A namespace that was deleted and made again needs the ConfigMap again.
        done.retain(|name| names.contains(name));
        let missing: Vec<&String> = names.iter().filter(|name| !done.contains(name)).collect();
        let written = futures::future::join_all(missing.into_iter().map(async |name| {
            match write(&client, name, &root_pem).await {
                Ok(()) => Some(name.clone()),
                Err(error) => {
                    tracing::warn!(namespace = name, %error, "cannot write {NAME}");
                    None
                }
            }
        }))
        .await;
        done.extend(written.into_iter().flatten());
        tokio::select! {
            () = token.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn write(client: &Client, namespace: &str, root_pem: &str) -> kube_client::Result<()> {
    let object = object(namespace, root_pem);
    match client.create(&CONFIG_MAPS, Some(namespace), &object).await {
        Err(error) if error.is_already_exists() => client
            .patch(
                &CONFIG_MAPS,
                Some(namespace),
                NAME,
                &PatchType::Merge,
                &json!({"data": object["data"]}),
                None,
            )
            .await
            .map(|_| ()),
        other => other.map(|_| ()),
    }
}

fn object(namespace: &str, root_pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"istio.io/config": "true"},
        },
        "data": {"root-cert.pem": root_pem},
    })
}
