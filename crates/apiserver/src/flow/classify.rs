//! Which FlowSchema a request falls under.

use api::meta::list;
use serde_json::Value;

/// What of a request decides about its schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub path: &'a str,
    /// What a request for objects is about; `None` for other paths.
    pub resource: Option<About<'a>>,
}

/// A group's resource, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

/// What tells the flows of one schema apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A FlowSchema, taken apart once for all requests.
#[derive(Debug)]
pub(crate) struct Schema {
    pub name: String,
    pub precedence: i64,
    /// The PriorityLevelConfiguration it names.
    pub level: String,
    pub by: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// An account, by the name its tokens give.
    Account(String),
    /// `system:serviceaccount:NAMESPACE:`.
    Accounts(String),
}

/// Values that match; `None`: all do.
type AnyOf = Option<Vec<String>>;

#[derive(Debug)]
struct ResourceRule {
    verbs: AnyOf,
    groups: AnyOf,
    resources: AnyOf,
    cluster: bool,
    namespaces: AnyOf,
}

#[derive(Debug)]
struct PathRule {
    verbs: AnyOf,
    urls: AnyOf,
}

/// A star counts where it stands alone, which validation sees to.
fn any_of(v: &Value) -> AnyOf {
    match list(v) {
        [only] if *only == "*" => None,
        all => Some(
            all.iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect(),
        ),
    }
}

fn has(values: &AnyOf, wanted: &str) -> bool {
    values
        .as_ref()
        .is_none_or(|all| all.iter().any(|v| v == wanted))
}

fn subject(v: &Value) -> Option<Subject> {
    let name = |member: &str| v[member]["name"].as_str().map(str::to_owned);
    Some(match v["kind"].as_str()? {
        "User" => Subject::User(name("user")?),
        "Group" => Subject::Group(name("group")?),
        "ServiceAccount" => {
            let namespace = v["serviceAccount"]["namespace"].as_str()?;
            let all = format!("system:serviceaccount:{namespace}:");
            match name("serviceAccount")?.as_str() {
                "*" => Subject::Accounts(all),
                one => Subject::Account(all + one),
            }
        }
        _ => return None,
    })
}

impl Subject {
    fn matches(&self, asked: &Digest<'_>) -> bool {
        match self {
            Self::User(name) => name == "*" || name == asked.user,
            Self::Group(name) => name == "*" || asked.groups.iter().any(|g| g == name),
            Self::Account(name) => name == asked.user,
            Self::Accounts(all) => asked.user.starts_with(all.as_str()),
        }
    }
}

impl ResourceRule {
    fn matches(&self, verb: &str, about: &About<'_>) -> bool {
        let named = |rule: &String| {
            let (plural, subresource) = rule.split_once('/').unwrap_or((rule, ""));
            plural == about.plural && subresource == about.subresource
        };
        has(&self.verbs, verb)
            && self
                .resources
                .as_ref()
                .is_none_or(|all| all.iter().any(named))
            && has(&self.groups, about.group)
            && match about.namespace {
                "" => self.cluster,
                namespace => has(&self.namespaces, namespace),
            }
    }
}

impl PathRule {
    fn matches(&self, verb: &str, path: &str) -> bool {
        let below = |url: &String| {
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            url == path
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        has(&self.verbs, verb) && self.urls.as_ref().is_none_or(|all| all.iter().any(below))
    }
}

impl Schema {
    /// Reads a FlowSchema that has been validated.
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let rules = list(&spec["rules"]).iter().map(|rule| Rule {
            subjects: list(&rule["subjects"]).iter().filter_map(subject).collect(),
            resources: list(&rule["resourceRules"])
                .iter()
                .map(|r| ResourceRule {
                    verbs: any_of(&r["verbs"]),
                    groups: any_of(&r["apiGroups"]),
                    resources: any_of(&r["resources"]),
                    cluster: r["clusterScope"] == true,
                    namespaces: any_of(&r["namespaces"]),
                })
                .collect(),
            paths: list(&rule["nonResourceRules"])
                .iter()
                .map(|r| PathRule {
                    verbs: any_of(&r["verbs"]),
                    urls: any_of(&r["nonResourceURLs"]),
                })
                .collect(),
        });
        Self {
            name: api::meta::name(object).to_owned(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(i64::MAX),
            level: spec["priorityLevelConfiguration"]["name"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
            by: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: rules.collect(),
        }
    }

    pub fn matches(&self, asked: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|s| s.matches(asked))
                && match &asked.resource {
                    Some(about) => rule.resources.iter().any(|r| r.matches(asked.verb, about)),
                    None => rule.paths.iter().any(|r| r.matches(asked.verb, asked.path)),
                }
        })
    }

    /// What tells the flow of a request from others of this schema.
    pub fn distinguisher<'a>(&self, user: &'a str, namespace: &'a str) -> &'a str {
        match self.by {
            Distinguisher::Nothing => "",
            Distinguisher::User => user,
            Distinguisher::Namespace => namespace,
        }
    }

    /// The flow of a request within this schema, as a number to deal queues by.
    pub fn flow(&self, asked: &Digest<'_>) -> u64 {
        use std::hash::{Hash as _, Hasher as _};
        let namespace = asked.resource.map_or("", |about| about.namespace);
        let part = self.distinguisher(asked.user, namespace);
        let mut hasher = std::hash::DefaultHasher::new();
        (self.name.as_str(), part).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Vec<Schema> {
        let mut all: Vec<Schema> = api::flowcontrol::defaults()
            .iter()
            .filter(|o| o["kind"] == "FlowSchema")
            .map(Schema::of)
            .collect();
        all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        all
    }

    fn about<'a>(group: &'a str, plural: &'a str, namespace: &'a str) -> Option<About<'a>> {
        let (plural, subresource) = plural.split_once('/').unwrap_or((plural, ""));
        Some(About {
            group,
            plural,
            subresource,
            namespace,
        })
    }

    #[test]
    fn the_schemas_of_a_fresh_cluster_sort_out_who_is_who() {
        let all = defaults();
        let signed = |groups: &[&str]| -> Vec<String> {
            let all = groups.iter().copied().chain(["system:authenticated"]);
            all.map(str::to_owned).collect()
        };
        let found = |user: &str, groups: &[&str], verb: &str, path: &str, what| {
            let groups = signed(groups);
            let asked = Digest {
                user,
                groups: &groups,
                verb,
                path,
                resource: what,
            };
            all.iter()
                .find(|s| s.matches(&asked))
                .map(|s| s.name.as_str())
        };
        let pods = about("", "pods", "d");
        let leases = about("coordination.k8s.io", "leases", "kube-system");
        assert_eq!(
            found("admin", &["system:masters"], "list", "", pods),
            Some("exempt")
        );
        assert_eq!(found("bob", &[], "get", "/healthz", None), Some("probes"));
        assert_eq!(
            found("bob", &[], "get", "/healthz/ping", None),
            Some("probes")
        );
        assert_eq!(
            found("bob", &[], "get", "/healthzz", None),
            Some("global-default")
        );
        assert_eq!(found("bob", &[], "list", "", pods), Some("global-default"));
        let nodes = &["system:nodes"];
        let status = about("", "nodes/status", "");
        assert_eq!(
            found("system:node:n", nodes, "patch", "", status),
            Some("system-node-high")
        );
        assert_eq!(
            found("system:node:n", nodes, "get", "", pods),
            Some("system-nodes")
        );
        let kcm = "system:kube-controller-manager";
        assert_eq!(
            found(kcm, &[], "update", "", leases),
            Some("system-leader-election")
        );
        assert_eq!(
            found(kcm, &[], "watch", "", leases),
            Some("kube-controller-manager")
        );
        let account = "system:serviceaccount:kube-system:x";
        let groups = &["system:serviceaccounts"];
        assert_eq!(
            found(account, groups, "list", "", pods),
            Some("kube-system-service-accounts")
        );
        assert_eq!(
            found(
                "system:serviceaccount:kube-system-x:x",
                groups,
                "list",
                "",
                pods
            ),
            Some("service-accounts")
        );
    }

    #[test]
    fn cluster_wide_requests_need_a_rule_of_that_scope() {
        let schema = |cluster: bool| {
            Schema::of(
                &serde_json::json!({"metadata": {"name": "s"}, "spec": {"rules": [{
                "subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods/log"],
                    "clusterScope": cluster, "namespaces": ["d"]}]}]}}),
            )
        };
        let asked = |plural, namespace| Digest {
            user: "u",
            groups: &[],
            verb: "get",
            path: "",
            resource: about("", plural, namespace),
        };
        assert!(!schema(false).matches(&asked("pods/log", "")));
        assert!(schema(true).matches(&asked("pods/log", "")));
        assert!(schema(false).matches(&asked("pods/log", "d")));
        assert!(!schema(false).matches(&asked("pods/log", "e")));
        assert!(!schema(false).matches(&asked("pods", "d")));
    }

    #[test]
    fn flows_are_users_or_namespaces_as_the_schema_says() {
        let flow = |by: &str, user, namespace| {
            let s = Schema::of(
                &serde_json::json!({"metadata": {"name": "s"}, "spec": {"distinguisherMethod": {"type": by}}}),
            );
            s.flow(&Digest {
                user,
                groups: &[],
                verb: "get",
                path: "",
                resource: about("", "pods", namespace),
            })
        };
        assert_eq!(flow("ByUser", "a", "x"), flow("ByUser", "a", "y"));
        assert_ne!(flow("ByUser", "a", "x"), flow("ByUser", "b", "x"));
        assert_eq!(flow("ByNamespace", "a", "x"), flow("ByNamespace", "b", "x"));
        assert_ne!(flow("ByNamespace", "a", "x"), flow("ByNamespace", "a", "y"));
        assert_eq!(flow("", "a", "x"), flow("", "b", "y"));
    }
}
