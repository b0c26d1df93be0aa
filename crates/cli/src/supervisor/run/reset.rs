//! `theater reset`: the initial scene again, in a theater that goes on running.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kube_client::{Client, DEPLOYMENTS, ListParams, NAMESPACES, Resource, SERVICES};
use serde_json::Value;

use super::{POLL, READY_LIMIT, Running, Supervisor};
use crate::language;
use crate::supervisor::apply::{self, IfExists};
use crate::supervisor::scene;

/// What people start or expose beside the theater's own, besides Istio's kinds. What a controller made of it goes with it.
static WORKLOADS: [Resource; 10] = [
    kube_client::CRON_JOBS,
    kube_client::JOBS,
    kube_client::STATEFUL_SETS,
    kube_client::DAEMON_SETS,
    DEPLOYMENTS,
    kube_client::REPLICA_SETS,
    kube_client::PODS,
    SERVICES,
    kube_client::HORIZONTAL_POD_AUTOSCALERS,
    kube_client::POD_DISRUPTION_BUDGETS,
];

impl Supervisor {
    /// Puts the initial scene back: what the theater applied is as it was applied, what was added to
    /// its namespaces is gone, and the store begins anew.
    pub(super) async fn reset(&self) -> Result<()> {
        let mut complete = true;
        for cluster in &self.clusters {
            complete &= is_meshed(&cluster.client).await?;
        }
        if !complete {
            for cluster in &self.clusters {
                remove_webhooks(cluster).await?;
            }
            // In both: each mesh reads the other cluster with an account of it.
            let crds = api::istio::crds();
            let each = self.clusters.iter();
            futures::future::try_join_all(each.map(|cluster| self.apply_scene(cluster, &crds)))
                .await?;
        }
        futures::future::try_join_all(
            self.clusters
                .iter()
                .map(|cluster| self.reset_scene(cluster)),
        )
        .await
        .map(|_| ())
    }

    async fn reset_scene(&self, cluster: &Running) -> Result<()> {
        let client = &cluster.client;
        let theater = scene::theater(cluster.facts)?;
        let theater = theater
            .iter()
            .map(|object| apply::as_applied(&object.object, &object.applied));
        let istio = istio_kinds();
        // Of the mesh, what people configure: its other objects run it.
        let configures = |object: &Value| {
            object["kind"] == "ConfigMap" || istio.iter().any(|kind| *kind.kind == object["kind"])
        };
        let mesh = scene::mesh(cluster.facts, &self.mesh_ca())?;
        let wanted: Vec<Value> = theater.chain(mesh.into_iter().filter(configures)).collect();
        let keep: BTreeSet<[&str; 3]> = wanted.iter().map(identity).collect();
        let added = futures::future::try_join_all(
            istio
                .iter()
                .map(|kind| (kind, "istio-system"))
                .chain(istio.iter().map(|kind| (kind, "theater-msa")))
                .chain(WORKLOADS.iter().map(|kind| (kind, "theater-msa")))
                .map(|(kind, namespace)| remove_added(client, kind, namespace, &keep)),
        );
        added.await?;
        futures::future::try_join_all(wanted.iter().map(|object| replace(client, object))).await?;
        self.empty_store(cluster).await
    }

    /// Ends the store's pods, whose data goes with them, and waits for the new ones.
    async fn empty_store(&self, cluster: &Running) -> Result<()> {
        let client = &cluster.client;
        let selector = ListParams::labels("app=redis");
        let before = client
            .list(&kube_client::PODS, Some("theater-msa"), &selector)
            .await?;
        if before.items.is_empty() {
            return Ok(());
        }
        let name = |pod: &Value| {
            pod["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let old: Vec<String> = before.items.iter().map(name).collect();
        let at_once = kube_client::DeleteOptions {
            grace_period_seconds: Some(0),
            ..Default::default()
        };
        for pod in &old {
            client
                .delete(&kube_client::PODS, Some("theater-msa"), pod, &at_once)
                .await?;
        }
        let deadline = Instant::now() + READY_LIMIT;
        while Instant::now() < deadline {
            let now = client
                .list(&kube_client::PODS, Some("theater-msa"), &selector)
                .await?;
            let ready = |pod: &Value| {
                let conditions = pod["status"]["conditions"].as_array();
                conditions
                    .into_iter()
                    .flatten()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            };
            let renewed = now
                .items
                .iter()
                .all(|pod| !old.contains(&name(pod)) && ready(pod));
            if renewed && !now.items.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!(language::not_ready_in_time(
            "redis",
            READY_LIMIT.as_secs(),
            "kubectl get pods -n theater-msa --context ctx2"
        ))
    }
}

/// Removes the webhooks of a mesh that is about to be made again: with its istiod gone, they would refuse what it is made of.
async fn remove_webhooks(cluster: &Running) -> Result<()> {
    for object in scene::mesh(cluster.facts, "")? {
        if !matches!(
            object["kind"].as_str(),
            Some("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration")
        ) {
            continue;
        }
        let resource = apply::resource_of(&object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match cluster
            .client
            .delete(&resource, None, name, &Default::default())
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The kinds of Istio's configuration.
fn istio_kinds() -> Vec<Resource> {
    let kinds = api::istio::KINDS.iter();
    kinds
        .map(|info| Resource::new(info.group, info.versions[0], info.plural, info.kind))
        .collect()
}

/// Kind, namespace and name of an object.
fn identity(object: &Value) -> [&str; 3] {
    let metadata = &object["metadata"];
    [&object["kind"], &metadata["namespace"], &metadata["name"]]
        .map(|value| value.as_str().unwrap_or_default())
}

/// Deletes the objects of a namespace that are not to be kept, and that nothing else makes.
async fn remove_added(
    client: &Client,
    kind: &Resource,
    namespace: &str,
    keep: &BTreeSet<[&str; 3]>,
) -> Result<()> {
    let list = client
        .list(kind, Some(namespace), &ListParams::default())
        .await?;
    for object in list.items {
        let [_, _, name] = identity(&object);
        let made = object["metadata"]["ownerReferences"]
            .as_array()
            .is_some_and(|owners| !owners.is_empty());
        if made || keep.contains(&[&*kind.kind, namespace, name]) {
            continue;
        }
        match client
            .delete(kind, Some(namespace), name, &Default::default())
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the cluster still has its mesh and the theater's namespace; somebody may have deleted them.
async fn is_meshed(client: &Client) -> Result<bool> {
    for (kind, namespace, name) in [
        (&NAMESPACES, None, "theater-msa"),
        (&DEPLOYMENTS, Some("istio-system"), "istiod"),
        (&SERVICES, Some("istio-system"), "istio-ingressgateway"),
    ] {
        match client.get(kind, namespace, name).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Makes an object exactly what `wanted` says, keeping what the server adds by itself.
async fn replace(client: &Client, wanted: &Value) -> Result<()> {
    let resource = apply::resource_of(wanted)?;
    let namespace = wanted["metadata"]["namespace"].as_str();
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let current = match client.get(&resource, namespace, name).await {
        Ok(current) => current,
        Err(error) if error.is_not_found() => {
            return apply::one(client, wanted, IfExists::Keep).await;
        }
        Err(error) => return Err(error.into()),
    };
    let mut object = wanted.clone();
    object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    if wanted["kind"] == "Service" {
        for field in ["clusterIP", "clusterIPs"] {
            object["spec"][field] = current["spec"][field].clone();
        }
    }
    client
        .update(&resource, namespace, &object)
        .await
        .with_context(|| format!("{} {name}", resource.kind))?;
    Ok(())
}
