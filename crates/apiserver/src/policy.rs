//! The roles a fresh cluster has, under the names people and manifests bind to.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": verbs})
}

fn role(name: &str, labels: &[(&str, &str)], rules: Vec<Value>) -> Value {
    let mut out = json!({
        "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "rules": rules,
    });
    for (k, v) in labels {
        out["metadata"]["labels"][*k] = (*v).into();
    }
    out
}

/// A role whose rules are those of all roles with the label.
fn aggregate(name: &str, labels: &[(&str, &str)], selected: &str, rules: Vec<Value>) -> Value {
    let mut out = role(name, labels, rules);
    out["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {
        format!("rbac.authorization.k8s.io/aggregate-to-{selected}"): "true"}}]});
    out
}

fn bind(name: &str, role: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(kind, name)| json!({"kind": kind, "name": name, "apiGroup": GROUP}))
        .collect();
    json!({
        "kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

const CORE_VIEW: &[&str] = &[
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
    "services/status",
    "bindings",
    "events",
    "limitranges",
    "namespaces/status",
    "pods/log",
    "pods/status",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "namespaces",
];
const CORE_EDIT: &[&str] = &[
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "secrets",
    "serviceaccounts",
    "services",
    "services/proxy",
    "endpoints",
];
const APPS: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
];

fn view_rules() -> Vec<Value> {
    vec![
        rule(&[""], CORE_VIEW, READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["apps"], APPS, READ),
        rule(
            &["apps"],
            &[
                "controllerrevisions",
                "deployments/status",
                "replicasets/status",
            ],
            READ,
        ),
        rule(
            &["batch"],
            &["cronjobs", "jobs", "cronjobs/status", "jobs/status"],
            READ,
        ),
        rule(
            &["networking.k8s.io"],
            &["ingresses", "networkpolicies"],
            READ,
        ),
        rule(&["policy"], &["poddisruptionbudgets"], READ),
        rule(&["metrics.k8s.io"], &["pods", "nodes"], READ),
    ]
}

fn edit_rules() -> Vec<Value> {
    vec![
        rule(
            &[""],
            &[
                "pods/attach",
                "pods/exec",
                "pods/portforward",
                "pods/proxy",
                "secrets",
                "services/proxy",
            ],
            READ,
        ),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&[""], CORE_EDIT, WRITE),
        rule(
            &[""],
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"],
            &["create", "delete", "deletecollection", "patch", "update"],
        ),
        rule(
            &[""],
            &["pods/eviction", "serviceaccounts/token"],
            &["create"],
        ),
        rule(&["apps"], APPS, WRITE),
        rule(&["apps"], &["deployments/rollback"], WRITE),
        rule(&["batch"], &["cronjobs", "jobs"], WRITE),
        rule(
            &["networking.k8s.io"],
            &["ingresses", "networkpolicies"],
            WRITE,
        ),
        rule(&["policy"], &["poddisruptionbudgets"], WRITE),
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ],
        ),
    ]
}

fn admin_rules() -> Vec<Value> {
    let all = [WRITE, READ].concat();
    vec![
        rule(
            &["authorization.k8s.io"],
            &["localsubjectaccessreviews"],
            &["create"],
        ),
        rule(&[GROUP], &["rolebindings", "roles"], &all),
    ]
}

fn discovery_paths() -> Value {
    paths(
        &[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ],
        &["get"],
    )
}

fn node_rules() -> Vec<Value> {
    let all = [
        "create", "delete", "get", "list", "patch", "update", "watch",
    ];
    vec![
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(
            &["authorization.k8s.io"],
            &["localsubjectaccessreviews", "subjectaccessreviews"],
            &["create"],
        ),
        rule(&[""], &["services", "endpoints", "namespaces"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(
            &[""],
            &["nodes"],
            &["create", "get", "list", "watch", "update", "patch"],
        ),
        rule(&[""], &["nodes/status"], &["patch", "update"]),
        rule(&[""], &["events"], &["create", "patch", "update"]),
        rule(
            &[""],
            &["pods"],
            &["get", "list", "watch", "create", "delete"],
        ),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&[""], &["pods/eviction"], &["create"]),
        rule(&[""], &["configmaps", "secrets"], READ),
        rule(&[""], &["serviceaccounts"], READ),
        rule(&[""], &["serviceaccounts/token"], &["create"]),
        rule(&["coordination.k8s.io"], &["leases"], &all),
    ]
}

/// All roles and bindings.
pub(crate) fn objects() -> Vec<Value> {
    let to = |name: &'static str| [(name, "true")];
    const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
    const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
    const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";
    let (view, edit, admin) = (view_rules(), edit_rules(), admin_rules());
    let edit_all = [edit.clone(), view.clone()].concat();
    let admin_all = [admin.clone(), edit_all.clone()].concat();
    let reviews = vec![
        rule(
            &["authorization.k8s.io"],
            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            &["create"],
        ),
        rule(
            &["authentication.k8s.io"],
            &["selfsubjectreviews"],
            &["create"],
        ),
    ];
    vec![
        role(
            "cluster-admin",
            &[],
            vec![rule(&["*"], &["*"], &["*"]), paths(&["*"], &["*"])],
        ),
        bind(
            "cluster-admin",
            "cluster-admin",
            &[("Group", "system:masters")],
        ),
        aggregate("admin", &[], "admin", admin_all),
        aggregate("edit", &to(TO_ADMIN), "edit", edit_all),
        aggregate("view", &to(TO_EDIT), "view", view.clone()),
        role("system:aggregate-to-admin", &to(TO_ADMIN), admin),
        role("system:aggregate-to-edit", &to(TO_EDIT), edit),
        role("system:aggregate-to-view", &to(TO_VIEW), view),
        role("system:discovery", &[], vec![discovery_paths()]),
        bind(
            "system:discovery",
            "system:discovery",
            &[("Group", "system:authenticated")],
        ),
        role("system:basic-user", &[], reviews),
        bind(
            "system:basic-user",
            "system:basic-user",
            &[("Group", "system:authenticated")],
        ),
        role(
            "system:public-info-viewer",
            &[],
            vec![paths(
                &["/healthz", "/livez", "/readyz", "/version", "/version/"],
                &["get"],
            )],
        ),
        bind(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[
                ("Group", "system:authenticated"),
                ("Group", "system:unauthenticated"),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            &[],
            vec![paths(
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
                &["get"],
            )],
        ),
        bind(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            &[("Group", "system:serviceaccounts")],
        ),
        role(
            "system:monitoring",
            &[],
            vec![paths(
                &[
                    "/healthz",
                    "/healthz/*",
                    "/livez",
                    "/livez/*",
                    "/metrics",
                    "/metrics/slis",
                    "/readyz",
                    "/readyz/*",
                ],
                &["get"],
            )],
        ),
        bind(
            "system:monitoring",
            "system:monitoring",
            &[("Group", "system:monitoring")],
        ),
        role("system:node", &[], node_rules()),
        bind("system:node", "system:node", &[("Group", "system:nodes")]),
        role(
            "system:node-proxier",
            &[],
            vec![
                rule(&[""], &["services", "endpoints"], &["list", "watch"]),
                rule(&[""], &["nodes"], READ),
                rule(&[""], &["events"], &["create", "patch", "update"]),
                rule(
                    &["discovery.k8s.io"],
                    &["endpointslices"],
                    &["list", "watch"],
                ),
            ],
        ),
        bind(
            "system:node-proxier",
            "system:node-proxier",
            &[("User", "system:kube-proxy")],
        ),
        role(
            "system:auth-delegator",
            &[],
            vec![
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(
                    &["authorization.k8s.io"],
                    &["subjectaccessreviews"],
                    &["create"],
                ),
            ],
        ),
        // One process runs all controllers under one name, so it has all their duties.
        role(
            "system:kube-controller-manager",
            &[],
            vec![rule(&["*"], &["*"], &["*"]), paths(&["*"], &["get"])],
        ),
        bind(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            &[("User", "system:kube-controller-manager")],
        ),
        role(
            "system:kube-scheduler",
            &[],
            vec![
                rule(
                    &["", "events.k8s.io"],
                    &["events"],
                    &["create", "patch", "update"],
                ),
                rule(
                    &["coordination.k8s.io"],
                    &["leases"],
                    &["create", "get", "list", "update", "watch"],
                ),
                rule(
                    &[""],
                    &[
                        "nodes",
                        "namespaces",
                        "persistentvolumeclaims",
                        "persistentvolumes",
                        "services",
                        "replicationcontrollers",
                    ],
                    READ,
                ),
                rule(&[""], &["pods"], &["delete", "get", "list", "watch"]),
                rule(&[""], &["bindings", "pods/binding"], &["create"]),
                rule(&[""], &["pods/status"], &["patch", "update"]),
                rule(&["apps"], &["replicasets", "statefulsets"], READ),
                rule(&["policy"], &["poddisruptionbudgets"], READ),
                rule(&["storage.k8s.io"], &["*"], READ),
            ],
        ),
        bind(
            "system:kube-scheduler",
            "system:kube-scheduler",
            &[("User", "system:kube-scheduler")],
        ),
        role(
            "system:kube-dns",
            &[],
            vec![rule(&[""], &["endpoints", "services"], &["list", "watch"])],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_bindings_lead_to_roles() {
        let all = objects();
        let names = |kind: &str| -> Vec<String> {
            all.iter()
                .filter(|o| o["kind"] == kind)
                .map(|o| api::meta::name(o).to_owned())
                .collect()
        };
        let roles = names("ClusterRole");
        for o in all.iter().filter(|o| o["kind"] == "ClusterRoleBinding") {
            let role = o["roleRef"]["name"].as_str().unwrap();
            assert!(roles.iter().any(|r| r == role), "{role}");
        }
        for list in [roles, names("ClusterRoleBinding")] {
            let unique: std::collections::HashSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
        }
    }
}
