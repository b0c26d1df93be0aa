//! The manifests: what a cluster with Istio has before the theater arrives, and the theater itself.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::topology::ClusterFacts;

/// Manifests of the mesh; `${NAME}` is filled in for each cluster.
const NAMESPACES: &str = include_str!("../../manifests/namespaces.yaml");
const ISTIOD: &str = include_str!("../../manifests/istiod.yaml");
const GATEWAY: &str = include_str!("../../manifests/gateway.yaml");
const GATEWAY_SERVICES: &str = include_str!("../../manifests/gateway-services.yaml");
const GATEWAYS: &str = include_str!("../../manifests/gateways.yaml");

/// The gateways of a cluster: Deployment name and value of its label `istio`.
const GATEWAY_ROLES: [(&str, &str); 3] = [
    ("istio-ingressgateway", "ingressgateway"),
    ("istio-eastwestgateway", "eastwestgateway"),
    ("istio-egressgateway", "egressgateway"),
];

/// The files of `k8s/`, by the name `kustomization.yaml` calls them.
const FILES: [(&str, &str); 10] = [
    (
        "namespace.yaml",
        include_str!("../../../../k8s/namespace.yaml"),
    ),
    ("rbac.yaml", include_str!("../../../../k8s/rbac.yaml")),
    ("redis.yaml", include_str!("../../../../k8s/redis.yaml")),
    (
        "user-service-multicloud.yaml",
        include_str!("../../../../k8s/user-service-multicloud.yaml"),
    ),
    (
        "movie-service-multicloud.yaml",
        include_str!("../../../../k8s/movie-service-multicloud.yaml"),
    ),
    (
        "booking-service-multicloud.yaml",
        include_str!("../../../../k8s/booking-service-multicloud.yaml"),
    ),
    (
        "api-gateway.yaml",
        include_str!("../../../../k8s/api-gateway.yaml"),
    ),
    (
        "istio-destinationrules.yaml",
        include_str!("../../../../k8s/istio-destinationrules.yaml"),
    ),
    (
        "istio-virtualservices.yaml",
        include_str!("../../../../k8s/istio-virtualservices.yaml"),
    ),
    (
        "istio-virtualservice.yaml",
        include_str!("../../../../k8s/istio-virtualservice.yaml"),
    ),
];

const BASE: &str = include_str!("../../../../k8s/kustomization.yaml");
const OVERLAYS: [(&str, &str); 2] = [
    (
        "ctx1",
        include_str!("../../../../deploy/ctx1/kustomization.yaml"),
    ),
    (
        "ctx2",
        include_str!("../../../../deploy/ctx2/kustomization.yaml"),
    ),
];

/// An object of the scene.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneObject {
    /// The object as it is applied.
    pub object: Value,
    /// The object as its file says it, before the overlay: what `kubectl apply -f` of that file
    /// compares with, so that it finds nothing to change.
    pub applied: Value,
}

/// The documents of a YAML text.
///
/// # Errors
/// When a document cannot be read.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    use serde::Deserialize;
    yaml_serde::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).context("not YAML"))
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}

fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    })
}

/// Everything of the mesh that a cluster has before the theater arrives, in the order in which it
/// must exist. `mesh_ca` is the mesh's root certificate in base64.
///
/// # Errors
/// When a manifest is damaged.
pub fn mesh(cluster: &ClusterFacts, mesh_ca: &str) -> Result<Vec<Value>> {
    let dns = cluster.dns_ip().to_string();
    let values = [
        ("CLUSTER", cluster.name),
        ("NETWORK", cluster.network),
        ("DNS_IP", dns.as_str()),
        ("MESH_CA", mesh_ca),
    ];
    let mut objects = documents(&fill(NAMESPACES, &values))?;
    objects.extend(documents(&fill(ISTIOD, &values))?);
    objects.extend(documents(&fill(GATEWAY_SERVICES, &values))?);
    for (gateway, role) in GATEWAY_ROLES {
        let mut values = values.to_vec();
        values.extend([("GATEWAY", gateway), ("ROLE", role)]);
        objects.extend(documents(&fill(GATEWAY, &values))?);
    }
    objects.extend(documents(&fill(GATEWAYS, &values))?);
    Ok(objects)
}

/// The theater's objects for a cluster: `k8s/` with the overlay `deploy/<cluster>`, as
/// `kubectl apply -k deploy/<cluster>` would apply them.
///
/// # Errors
/// When a manifest is damaged.
pub fn theater(cluster: &ClusterFacts) -> Result<Vec<SceneObject>> {
    let mut objects = Vec::new();
    let base: Value = yaml_serde::from_str(BASE)?;
    for file in strings(&base["resources"]) {
        let (_, text) = FILES
            .iter()
            .find(|(name, _)| *name == file)
            .with_context(|| {
                format!("k8s/kustomization.yaml names {file}, which is not built in")
            })?;
        for object in documents(text).with_context(|| format!("k8s/{file}"))? {
            objects.push(SceneObject {
                applied: object.clone(),
                object,
            });
        }
    }
    let (_, overlay) = OVERLAYS
        .iter()
        .find(|(name, _)| *name == cluster.name)
        .with_context(|| format!("there is no overlay for {}", cluster.name))?;
    let overlay: Value = yaml_serde::from_str(overlay)?;
    for patch in overlay["patches"].as_array().into_iter().flatten() {
        let text = patch["patch"].as_str().context("a patch without text")?;
        let patch: Value = yaml_serde::from_str(text)?;
        let position = objects
            .iter()
            .position(|candidate| identity(&candidate.object) == identity(&patch))
            .with_context(|| format!("a patch for {:?}, which does not exist", identity(&patch)))?;
        if patch["$patch"] == "delete" {
            objects.remove(position);
        } else {
            let target = &mut objects[position].object;
            *target = merge(target, &patch)?;
        }
    }
    Ok(objects)
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Kind, namespace and name.
fn identity(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&object["kind"]),
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"]),
    )
}

/// The strategic merge that kustomize does with an overlay's patch.
fn merge(object: &Value, patch: &Value) -> Result<Value> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let schema = api::schema::ObjectSchema::builtin(group, version, kind)
        .with_context(|| format!("no schema for {api_version} {kind}"))?;
    api::patch::strategic(&schema, object, patch)
        .map_err(|error| anyhow::anyhow!("the overlay's patch does not fit: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::CLUSTERS;

    fn deployment(cluster: usize, name: &str) -> Option<Value> {
        theater(&CLUSTERS[cluster])
            .unwrap()
            .into_iter()
            .map(|object| object.object)
            .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name)
    }

    #[test]
    fn every_cluster_gets_its_own_label_and_only_what_runs_there() {
        for (index, cluster) in CLUSTERS.iter().enumerate() {
            let user = deployment(index, "user-service").unwrap();
            let template = &user["spec"]["template"];
            assert_eq!(template["metadata"]["labels"]["cluster"], cluster.name);
            assert_eq!(template["metadata"]["labels"]["app"], "user-service");
            let container = &template["spec"]["containers"][0];
            assert_eq!(container["env"][0]["value"], cluster.name);
            assert!(container["image"].is_string(), "seen {container}");
        }
        assert!(deployment(0, "redis").is_none());
        assert!(deployment(1, "redis").is_some());
        assert!(deployment(0, "api-gateway").is_some());
        assert!(deployment(1, "api-gateway").is_none());
    }

    #[test]
    fn the_mesh_is_filled_in_for_each_cluster() {
        for cluster in &CLUSTERS {
            let objects = mesh(cluster, "Q0E=").unwrap();
            let text = serde_json::to_string(&objects).unwrap();
            assert!(!text.contains("${"), "something is left to fill in");
            assert!(text.contains(cluster.network));
        }
    }
}
