//! The account with which control planes of other clusters read this one, and what it may read.

use anyhow::Result;
use kube_client::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, Client, NAMESPACES, PatchType, Resource, SERVICE_ACCOUNTS,
};
use serde_json::{Value, json};

/// Its name.
pub(crate) const NAME: &str = "istio-reader-service-account";

/// Makes the account with its rights, and the namespace where it is missing.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn create(client: &Client, namespace: &str) -> Result<()> {
    if client.get(&NAMESPACES, None, namespace).await.is_err() {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        client
            .create(&NAMESPACES, None, &object)
            .await
            .map_err(|error| anyhow::anyhow!("failed creating namespace {namespace}: {error}"))?;
    }
    let apply = PatchType::Apply {
        manager: "istioctl".to_owned(),
        force: true,
    };
    for (resource, ns, object) in objects(namespace) {
        let name = api::meta::name(&object).to_owned();
        client
            .patch(&resource, ns, &name, &apply, &object, None)
            .await?;
    }
    Ok(())
}

/// What is applied.
fn objects(namespace: &str) -> [(Resource, Option<&str>, Value); 3] {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let role = format!("istio-reader-clusterrole-{namespace}");
    let labels = json!({"app": "istio-reader", "release": "istio"});
    let read = ["get", "list", "watch"];
    let rules = json!([
        {"apiGroups": ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"],
            "resources": ["*"], "verbs": read},
        {"apiGroups": [""], "resources": ["endpoints", "pods", "services", "nodes", "replicationcontrollers",
            "namespaces", "secrets", "configmaps"], "verbs": read},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": read},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]);
    [
        (
            SERVICE_ACCOUNTS,
            Some(namespace),
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": NAME, "namespace": namespace, "labels": labels}}),
        ),
        (
            CLUSTER_ROLES,
            None,
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole",
                "metadata": {"name": role, "labels": labels}, "rules": rules}),
        ),
        (
            CLUSTER_ROLE_BINDINGS,
            None,
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
                "metadata": {"name": role, "labels": labels},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]}),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_may_read_what_a_control_plane_watches() {
        let [(_, _, account), (_, _, role), (_, _, binding)] = objects("mesh");
        assert_eq!(account["metadata"]["namespace"], "mesh");
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        assert_eq!(binding["subjects"][0]["namespace"], "mesh");
        for (group, resource) in [
            ("", "services"),
            ("discovery.k8s.io", "endpointslices"),
            ("networking.istio.io", "*"),
        ] {
            let granted = role["rules"].as_array().into_iter().flatten().any(|rule| {
                let has = |field: &str, what: &str| {
                    rule[field]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one == what))
                };
                has("apiGroups", group) && has("resources", resource) && has("verbs", "watch")
            });
            assert!(granted, "{group}/{resource}: {}", role["rules"]);
        }
    }
}
