//! What users may do: role-based access control over the stored roles and bindings.

mod rights;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::authn::User;
use crate::error::{ApiError, ApiResult};
pub(crate) use rights::Rbac;
use rights::{Binding, Read, Role};

/// A request as the authorizer sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Resource {
        verb: String,
        group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    },
    Path {
        verb: String,
        path: String,
    },
}

fn strings(v: &Value) -> impl Iterator<Item = &str> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn has(list: &Value, wanted: &str) -> bool {
    strings(list).any(|s| s == "*" || s == wanted)
}

/// Does a rule of a role cover the action?
pub(crate) fn rule_allows(rule: &Value, action: &Action) -> bool {
    match action {
        Action::Resource {
            verb,
            group,
            resource,
            subresource,
            name,
            ..
        } => {
            if !has(&rule["verbs"], verb) || !has(&rule["apiGroups"], group) {
                return false;
            }
            let resource_ok = strings(&rule["resources"]).any(|r| {
                if r == "*" {
                    return true;
                }
                if subresource.is_empty() {
                    return r == resource;
                }
                match r.split_once('/') {
                    Some((left, right)) => {
                        (left == resource || left == "*") && right == subresource
                    }
                    None => false,
                }
            });
            let mut names = strings(&rule["resourceNames"]).peekable();
            resource_ok && (names.peek().is_none() || names.any(|n| n == name))
        }
        Action::Path { verb, path } => {
            has(&rule["verbs"], verb)
                && strings(&rule["nonResourceURLs"]).any(|p| {
                    p == "*"
                        || p == path
                        || p.strip_suffix('*')
                            .is_some_and(|prefix| path.starts_with(prefix))
                })
        }
    }
}

/// Whom a binding gives its role.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl Subject {
    /// A subject as a binding names it; `namespace` is the binding's own.
    fn read(subject: &Value, namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str().unwrap_or_default().to_owned();
        Some(match subject["kind"].as_str()? {
            "User" => Self::User(name),
            "Group" => Self::Group(name),
            "ServiceAccount" => Self::ServiceAccount {
                namespace: subject["namespace"].as_str().unwrap_or(namespace).into(),
                name,
            },
            _ => return None,
        })
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(name) => user.is_in(name),
            Self::ServiceAccount { namespace, name } => {
                user.name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    == Some((namespace, name))
            }
        }
    }
}

/// Who may do what, at one moment.
#[derive(Default)]
pub(crate) struct Rights {
    /// The revisions of the four kinds that this was read at; `None` before the first time.
    read_at: Option<[u64; 4]>,
    cluster_role_bindings: Vec<Arc<Binding>>,
    role_bindings: Vec<Arc<Binding>>,
    cluster_roles: Read<Role>,
    roles: Read<Role>,
}

impl Rights {
    /// Calls `visit` with each rule that holds for the user in the namespace (and cluster-wide)
    /// until it says stop.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        visit: &mut dyn FnMut(&Value, &dyn Fn() -> String) -> bool,
    ) {
        let of_user = |binding: &&Arc<Binding>| binding.subjects.iter().any(|s| s.is(user));
        for binding in self.bindings(namespace).filter(of_user) {
            let Some(role) = self.role(binding) else {
                continue;
            };
            let Binding {
                plural,
                path,
                role_kind,
                role_name,
                ..
            } = binding.as_ref();
            let because =
                || format!("RBAC: allowed by {plural} {path:?} of {role_kind} {role_name:?}");
            for rule in &role.rules {
                if visit(rule, &because) {
                    return;
                }
            }
        }
    }

    /// Why the action is allowed, or `None`.
    pub fn allows(&self, user: &User, action: &Action) -> Option<String> {
        if user.is_in("system:masters") {
            return Some(String::new());
        }
        let namespace = match action {
            Action::Resource { namespace, .. } => namespace.as_str(),
            Action::Path { .. } => "",
        };
        let mut why = None;
        self.visit(user, namespace, &mut |rule, because| {
            if rule_allows(rule, action) {
                why = Some(because());
            }
            why.is_some()
        });
        why
    }

    /// `status` of a `SelfSubjectRulesReview`.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Value {
        let mut resources = Vec::new();
        let mut paths = Vec::new();
        if user.is_in("system:masters") {
            resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        self.visit(user, namespace, &mut |rule, _| {
            if rule.get("resources").is_some() {
                resources.push(rule.clone());
            } else {
                paths.push(rule.clone());
            }
            false
        });
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
    }

    /// Refuses with the text of Kubernetes.
    pub fn require(&self, user: &User, action: &Action) -> ApiResult<()> {
        if self.allows(user, action).is_some() {
            return Ok(());
        }
        Err(forbidden(user, action))
    }
}

/// The refusal people know: who, what, where.
pub(crate) fn forbidden(user: &User, action: &Action) -> ApiError {
    match action {
        Action::Resource {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let full = if subresource.is_empty() {
                resource.clone()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let why = format!(
                "User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}",
                user.name
            );
            ApiError::forbidden(group, resource, name, &why)
        }
        Action::Path { verb, path } => {
            let mut e = ApiError::new(
                403,
                "Forbidden",
                format!(
                    "forbidden: User {:?} cannot {verb} path {path:?}",
                    user.name
                ),
            );
            e.details = json!({});
            e
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(verb: &str, resource: &str, sub: &str, name: &str) -> Action {
        Action::Resource {
            verb: verb.into(),
            group: String::new(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: "d".into(),
            name: name.into(),
        }
    }

    #[test]
    fn rules_match_as_kubernetes_matches_them() {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        assert!(rule_allows(&rule, &action("get", "pods", "", "a")));
        assert!(rule_allows(&rule, &action("get", "pods", "log", "a")));
        assert!(!rule_allows(&rule, &action("get", "pods", "exec", "a")));
        assert!(!rule_allows(&rule, &action("list", "pods", "", "")));
        let named =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]});
        assert!(rule_allows(&named, &action("get", "pods", "", "a")));
        assert!(!rule_allows(&named, &action("get", "pods", "", "b")));
        let sub = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]});
        assert!(rule_allows(
            &sub,
            &action("get", "deployments", "scale", "b")
        ));
        assert!(!rule_allows(&sub, &action("get", "deployments", "", "b")));
        let path = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]});
        let get = |p: &str| Action::Path {
            verb: "get".into(),
            path: p.into(),
        };
        assert!(rule_allows(&path, &get("/healthz/x")) && rule_allows(&path, &get("/version")));
        assert!(!rule_allows(&path, &get("/metrics")));
    }

    #[test]
    fn the_refusal_says_who_what_and_where() {
        let user = User {
            name: "bob".into(),
            ..User::default()
        };
        assert_eq!(
            forbidden(&user, &action("create", "pods", "exec", "web")).message,
            r#"pods "web" is forbidden: User "bob" cannot create resource "pods/exec" in API group "" in the namespace "d""#
        );
        let mut cluster = action("list", "nodes", "", "");
        if let Action::Resource { namespace, .. } = &mut cluster {
            namespace.clear();
        }
        assert_eq!(
            forbidden(&user, &cluster).message,
            r#"nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
    }

    #[test]
    fn a_service_account_subject_defaults_to_the_bindings_namespace() {
        let user = User {
            name: "system:serviceaccount:d:web".into(),
            ..User::default()
        };
        let is = |subject: Value| Subject::read(&subject, "d").unwrap().is(&user);
        assert!(is(json!({"kind": "ServiceAccount", "name": "web"})));
        assert!(!is(
            json!({"kind": "ServiceAccount", "name": "web", "namespace": "e"})
        ));
        assert_eq!(
            Subject::read(&json!({"kind": "Team", "name": "web"}), "d"),
            None
        );
    }
}
