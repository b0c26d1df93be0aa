//! Applying manifests through an API server, as a person would with kubectl.

use anyhow::{Context, Result, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube_client::{Client, PatchType, Resource};
use serde_json::{Value, json};

/// Where `kubectl apply` keeps what was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Requests under way at the same time.
const CONCURRENCY: usize = 24;

/// What to do with an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Leave it as the user made it.
    Keep,
    /// Make it what the manifest says.
    Replace,
}

/// The resource an object belongs to.
///
/// # Errors
/// When its kind is none of those that clusters of this program serve from the start.
pub fn resource_of(object: &Value) -> Result<Resource> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(info) = api::scheme::find_kind(group, version, kind) {
        return Ok(Resource::new(group, version, &info.plural, kind));
    }
    if let Some(info) = api::istio::KINDS
        .iter()
        .find(|info| info.group == group && info.kind == kind)
    {
        return Ok(Resource::new(group, version, info.plural, kind));
    }
    bail!("{api_version} {kind} is not served by these clusters")
}

/// Whether pods come from it: such objects must wait until their sidecars can be injected.
#[must_use]
pub fn makes_pods(object: &Value) -> bool {
    matches!(object["kind"].as_str(), Some("Deployment" | "Pod" | "Job"))
}

/// The object with the annotation that `kubectl apply` leaves, so that a later `kubectl apply` of
/// the file (`applied`) finds what it expects.
#[must_use]
pub fn as_applied(object: &Value, applied: &Value) -> Value {
    let mut applied = applied.clone();
    applied["metadata"]["annotations"] = applied["metadata"]
        .get("annotations")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut object = object.clone();
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][LAST_APPLIED] = format!("{applied}\n").into();
    object
}

/// Applies one object.
///
/// # Errors
/// When the API server refuses it; the error names the object.
pub async fn one(client: &Client, object: &Value, if_exists: IfExists) -> Result<()> {
    let resource = resource_of(object)?;
    let namespace = object["metadata"]["namespace"].as_str();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let result = match client.create_only(&resource, namespace, object).await {
        Err(error) if error.is_already_exists() => match if_exists {
            IfExists::Keep => Ok(()),
            IfExists::Replace => {
                client
                    .patch_only(&resource, namespace, name, &PatchType::Merge, object, None)
                    .await
            }
        },
        other => other,
    };
    result.with_context(|| {
        format!(
            "{} {}{name}",
            resource.kind,
            namespace.map(|ns| format!("{ns}/")).unwrap_or_default()
        )
    })
}

/// Applies objects: namespaces first, everything else side by side.
///
/// # Errors
/// With the first object that is refused.
pub async fn all(client: &Client, objects: &[Value], if_exists: IfExists) -> Result<()> {
    let (namespaces, others): (Vec<&Value>, Vec<&Value>) = objects
        .iter()
        .partition(|object| object["kind"] == "Namespace");
    for batch in [namespaces, others] {
        let requests: Vec<_> = batch
            .into_iter()
            .map(|object| one(client, object, if_exists))
            .collect();
        stream::iter(requests)
            .buffer_unordered(CONCURRENCY)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}
