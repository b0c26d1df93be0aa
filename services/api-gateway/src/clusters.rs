//! The clusters and what is asked of their Kubernetes APIs. Everything is read when it is asked for; what cannot be
//! read is said, never guessed.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::kube::Source;
use crate::{pods, topology, weights};

/// Where the theater lives.
pub const NAMESPACE: &str = "theater-msa";
const MESH_NAMESPACE: &str = "istio-system";

/// The clusters the page shows, the own one first.
pub struct Clusters {
    sources: Vec<(String, Source)>,
}

impl Clusters {
    /// The own cluster, read by the pod's service account or by a kubeconfig, and the other one if
    /// there is a kubeconfig for it.
    pub fn new(own: &str, kubeconfig: Option<PathBuf>, remote: Option<PathBuf>) -> Self {
        let source = kubeconfig.map_or(Source::ServiceAccount, Source::Kubeconfig);
        let mut sources = vec![(own.to_owned(), source)];
        if let Some(path) = remote {
            let other = if own == "ctx2" { "ctx1" } else { "ctx2" };
            sources.push((other.to_owned(), Source::Kubeconfig(path)));
        }
        Self { sources }
    }

    async fn virtual_services(&self) -> Result<Value, String> {
        let path = format!("/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtualservices");
        self.sources[0].1.get(&path).await
    }

    /// Configured weights, and where they are from: the VirtualServices, or, when those cannot be
    /// read, the theater's initial ones with the reason.
    pub async fn weights(&self) -> Value {
        let (mut weights, source, error) = match self.virtual_services().await {
            Ok(list) => (weights::configured(&list), "virtualservices", None),
            Err(error) => (weights::initial(), "initial", Some(error)),
        };
        weights["source"] = source.into();
        if let Some(error) = error {
            weights["error"] = error.into();
        }
        weights
    }

    /// Pods of all clusters.
    pub async fn deployments(&self, now: SystemTime) -> Value {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let checked = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let clusters =
            futures::future::join_all(self.sources.iter().map(async |(name, source)| {
                let mut cluster = json!({"name": name, "lastChecked": checked});
                match source.get(&path).await {
                    Ok(list) => cluster["pods"] = items(&list).map(pods::pod).collect(),
                    Err(error) => cluster["error"] = error.into(),
                }
                cluster
            }))
            .await;
        json!({"clusters": clusters})
    }

    /// Nodes, services and gateways of all clusters, and the ways between them.
    pub async fn topology(&self) -> Value {
        let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
        let mesh_services = format!("/api/v1/namespaces/{MESH_NAMESPACE}/services");
        let clusters =
            futures::future::join_all(self.sources.iter().map(async |(name, source)| {
                let (nodes, services, mesh_services) = futures::join!(
                    source.get("/api/v1/nodes"),
                    source.get(&services),
                    source.get(&mesh_services),
                );
                topology::cluster(name, nodes, services, mesh_services)
            }));
        let (clusters, virtual_services) = futures::join!(clusters, self.virtual_services());
        match virtual_services {
            Ok(list) => {
                let weights = weights::configured(&list);
                let flows = topology::flows(&self.sources[0].0, &clusters, &weights);
                json!({"clusters": clusters, "flows": flows})
            }
            Err(error) => json!({"clusters": clusters, "flows": [], "error": error}),
        }
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}
