//! The addresses in the status of Ingresses of this control plane's class. Every replica writes the same, and only where it is not there yet.

use std::sync::Arc;
use std::time::Duration;

use kube_client::{Client, INGRESSES, PatchType};
use serde_json::json;

use crate::clusters::Clusters;

/// Pause after a write that failed, so that a server that refuses is not asked all the time.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the status of Ingresses true.
pub async fn follow(client: Client, clusters: Arc<Clusters>) {
    let mut changes = clusters.changes();
    clusters.wait_synced().await;
    loop {
        changes.mark_unchanged();
        let mut failed = false;
        for (namespace, name, status) in clusters.ingress_statuses() {
            let patch = json!({"status": status});
            let written = client
                .patch(
                    &INGRESSES,
                    Some(&namespace),
                    &name,
                    &PatchType::Merge,
                    &patch,
                    Some("status"),
                )
                .await;
            if let Err(error) = written {
                failed = true;
                tracing::warn!(namespace, name, %error, "cannot write the status of an Ingress");
            }
        }
        let next = changes.changed();
        if failed {
            let _ = tokio::time::timeout(RETRY, next).await;
        } else if next.await.is_err() {
            return;
        }
    }
}
