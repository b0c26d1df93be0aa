//! The ConfigMap `istio-ca-root-cert` in every namespace: how a pod knows whom to trust before it has a
//! certificate of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube_client::{CONFIG_MAPS, Client, ListParams, PatchType, Store};
use runtime::CancellationToken;
use serde_json::{Value, json};

use crate::clusters::Clusters;

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";

/// Longest wait until one's own writes are seen in the local copy.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// Namespaces that never hold workloads of the mesh.
const SKIPPED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Keeps the ConfigMap in every namespace until `token` is cancelled; also where somebody changes or deletes it.
pub async fn follow(
    client: Client,
    clusters: Arc<Clusters>,
    root_pem: String,
    token: CancellationToken,
) {
    let named = ListParams::fields(format!("metadata.name={NAME}"));
    let maps = Store::start(client.clone(), CONFIG_MAPS, None, named, &token);
    let mut namespaces = clusters.changes();
    let mut changed = maps.changed();
    maps.wait_synced().await;
    loop {
        namespaces.mark_unchanged();
        changed.mark_unchanged();
        let wanting = wanting(&clusters.namespaces(), &maps.list(), &root_pem);
        let writes = wanting.iter().map(async |(namespace, there)| {
            match write(&client, namespace, &root_pem, *there).await {
                // Otherwise the next look would decide the same once more.
                Ok(written) => {
                    let version = written["metadata"]["resourceVersion"].as_str();
                    let version = version.unwrap_or_default();
                    maps.wait_for_version(version, VISIBLE_WITHIN).await;
                }
                // Another one was faster, and what it says is seen next.
                Err(error) if error.is_already_exists() => {}
                Err(error) => tracing::warn!(namespace, %error, "cannot write {NAME}"),
            }
        });
        futures::future::join_all(writes).await;
        tokio::select! {
            () = token.cancelled() => return,
            changed = namespaces.changed() => if changed.is_err() { return },
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

/// The namespaces whose ConfigMap is missing or says something else, and whether it is there.
fn wanting(namespaces: &[Arc<Value>], maps: &[Arc<Value>], root_pem: &str) -> Vec<(String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let known: BTreeMap<String, &Value> = maps
        .iter()
        .map(|map| (text(&map["metadata"]["namespace"]), &map["data"][KEY]))
        .collect();
    namespaces
        .iter()
        .filter(|namespace| namespace["metadata"]["deletionTimestamp"].is_null())
        .map(|namespace| text(&namespace["metadata"]["name"]))
        .filter(|name| !SKIPPED.contains(&name.as_str()))
        .filter_map(|name| match known.get(&name) {
            Some(pem) if **pem == root_pem => None,
            there => {
                let there = there.is_some();
                Some((name, there))
            }
        })
        .collect()
}

async fn write(
    client: &Client,
    namespace: &str,
    root_pem: &str,
    there: bool,
) -> kube_client::Result<Value> {
    let object = object(namespace, root_pem);
    if !there {
        return client.create(&CONFIG_MAPS, Some(namespace), &object).await;
    }
    let (patch, merge) = (json!({"data": object["data"]}), PatchType::Merge);
    client
        .patch(&CONFIG_MAPS, Some(namespace), NAME, &merge, &patch, None)
        .await
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
        "data": {KEY: root_pem},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_of_workloads_wants_this_root() {
        let namespace = |name: &str| Arc::new(json!({"metadata": {"name": name}}));
        let ending =
            json!({"metadata": {"name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let map = |namespace: &str, pem: &str| Arc::new(object(namespace, pem));
        let namespaces = [
            namespace("default"),
            namespace("kube-system"),
            namespace("new"),
            namespace("old"),
            Arc::new(ending),
        ];
        let maps = [map("default", "root"), map("old", "another")];
        assert_eq!(
            wanting(&namespaces, &maps, "root"),
            [("new".to_owned(), false), ("old".to_owned(), true)]
        );
    }
}
