//! The roles a fresh cluster has, under the names people and manifests bind to: those of a real one (`data/rbac.json`, made by
//! `data/rbac.py`), and what the parts of this one need besides.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const READ: &[&str] = &["get", "list", "watch"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

/// A role of a user or group, and the binding to it.
fn bound(name: &str, role: &str, subject: (&str, &str)) -> Value {
    json!({
        "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": subject.0, "name": subject.1}],
    })
}

/// What the parts of this cluster need that are other parts, or serve under other names, than the real ones.
fn own() -> Vec<Value> {
    let nodes = ("Group", "system:nodes");
    let besides = [
        rule(&[""], &["endpoints", "namespaces", "serviceaccounts"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["coordination.k8s.io"], &["leases"], &["list", "watch"]),
        // The node agent removes the directories of volumes that are given up.
        rule(&[""], &["persistentvolumes"], &["list", "watch", "patch"]),
    ];
    // What manifests of metrics-server bring along: its API is served here.
    let metrics = rule(&["metrics.k8s.io"], &["pods", "nodes"], READ);
    let to = |role: &str| format!("{GROUP}/aggregate-to-{role}");
    vec![
        json!({
            "kind": "ClusterRole",
            "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
                "k8s-app": "metrics-server", to("admin"): "true", to("edit"): "true", to("view"): "true"}},
            "rules": [metrics],
        }),
        // There is no node authorizer: a node agent has the rights of all nodes. It is kube-proxy, cluster DNS and provisioner as well.
        bound("theater:nodes", "system:node", nodes),
        json!({"kind": "ClusterRole", "metadata": {"name": "theater:node-agent"}, "rules": besides}),
        bound("theater:node-agent", "theater:node-agent", nodes),
        // One process runs all controllers under one name, so it has all their duties.
        bound(
            "theater:kube-controller-manager",
            "cluster-admin",
            ("User", "system:kube-controller-manager"),
        ),
    ]
}

/// All roles and bindings.
pub(crate) fn objects() -> Vec<Value> {
    let mut all: Vec<Value> = serde_json::from_str(include_str!("../data/rbac.json"))
        .expect("data/rbac.json is well formed");
    all.extend(own());
    for object in &mut all {
        object["apiVersion"] = VERSION.into();
        let meta = &mut object["metadata"];
        meta["labels"]["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
        meta["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    }
    // A sum may be a part of the next one: view of edit, edit of admin.
    for name in ["view", "edit", "admin"] {
        let roles = || all.iter().filter(|o| o["kind"] == "ClusterRole");
        let rules = roles()
            .find(|role| api::meta::name(role) == name)
            .and_then(|role| api::rbac::aggregated_rules(role, roles()));
        let role = all
            .iter_mut()
            .find(|o| o["kind"] == "ClusterRole" && api::meta::name(o) == name);
        if let (Some(role), Some(rules)) = (role, rules) {
            role["rules"] = rules.into();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bindings_lead_to_roles() {
        let all = objects();
        let key = |kind: &str, namespace: &str, name: &str| format!("{kind} {namespace}/{name}");
        let keys: std::collections::HashSet<String> = all
            .iter()
            .map(|o| {
                key(
                    api::meta::kind(o),
                    api::meta::namespace(o),
                    api::meta::name(o),
                )
            })
            .collect();
        assert_eq!(keys.len(), all.len());
        for o in all.iter().filter(|o| o["roleRef"].is_object()) {
            let kind = o["roleRef"]["kind"].as_str().unwrap();
            let namespace = if kind == "Role" {
                api::meta::namespace(o)
            } else {
                ""
            };
            let role = key(kind, namespace, o["roleRef"]["name"].as_str().unwrap());
            assert!(keys.contains(&role), "{role}");
        }
    }

    #[test]
    fn sums_of_roles_are_filled_and_complete() {
        let all = objects();
        let roles = || all.iter().filter(|o| o["kind"] == "ClusterRole");
        let mut sums = Vec::new();
        for role in roles() {
            assert!(!role["rules"].as_array().unwrap().is_empty(), "{role}");
            if let Some(rules) = api::rbac::aggregated_rules(role, roles()) {
                assert_eq!(role["rules"], Value::from(rules));
                sums.push(api::meta::name(role));
            }
        }
        assert_eq!(sums, ["admin", "edit", "view"]);
    }
}
