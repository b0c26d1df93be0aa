//! ValidatingAdmissionPolicies: rules in CEL that refuse objects, bound to what they are about.

use std::sync::Arc;

use api::cel::admission::{Asked, Objection, objections};
use serde_json::{Value, json};

use super::{Attributes, webhook};
use crate::error::{ApiError, ApiResult};
use crate::machinery;
use crate::registry::Resource;
use crate::state::Server;
use crate::storage::Key;

const GROUP: &str = "admissionregistration.k8s.io";

/// Nobody locks themselves out of mending a policy, and questions are not objects.
fn exempt(a: &Attributes<'_>) -> bool {
    a.resource.is_virtual()
        || a.resource.group == GROUP && a.resource.plural.starts_with("validatingadmissionpolic")
}

/// Asks the policies that are about a request. What the action `Audit` would record has nowhere to go: there is no audit log.
pub(crate) fn validate(server: &Arc<Server>, a: &Attributes<'_>, object: &Value) -> ApiResult<()> {
    let cache = server.storage.cache();
    let (policies, _) = cache.list(&format!("{GROUP}/validatingadmissionpolicies"), "");
    if policies.is_empty() || exempt(a) {
        return Ok(());
    }
    let (bindings, _) = cache.list(&format!("{GROUP}/validatingadmissionpolicybindings"), "");
    let labels = webhook::namespace_labels(server, a, object);
    let review = webhook::review(a, object, "");
    let namespace = namespace_of(server, a);
    for (_, policy) in policies {
        let policy = policy.value();
        if !about(
            &policy["spec"]["matchConstraints"],
            a,
            object,
            labels.as_ref(),
        ) {
            continue;
        }
        for (_, binding) in &bindings {
            let binding = binding.value();
            let limits = &binding["spec"]["matchResources"];
            if binding["spec"]["policyName"] != policy["metadata"]["name"]
                || !limits.is_null() && !about(limits, a, object, labels.as_ref())
            {
                continue;
            }
            let found = match params(server, a, policy, binding) {
                Ok(all) => all
                    .iter()
                    .flat_map(|params| {
                        let asked = Asked {
                            request: &review["request"],
                            namespace: &namespace,
                            params,
                        };
                        objections(policy, asked)
                    })
                    .collect(),
                Err(_) if policy["spec"]["failurePolicy"] == "Ignore" => Vec::new(),
                Err(why) => vec![Objection {
                    message: format!("failed to configure binding: {why}"),
                    reason: String::new(),
                }],
            };
            for objection in found {
                act(a, policy, binding, &objection)?;
            }
        }
    }
    Ok(())
}

/// Does what the binding says to an objection.
fn act(a: &Attributes<'_>, policy: &Value, binding: &Value, o: &Objection) -> ApiResult<()> {
    let (policy, name) = (api::meta::name(policy), api::meta::name(binding));
    let actions = binding["spec"]["validationActions"].as_array();
    for action in actions.into_iter().flatten() {
        match action.as_str() {
            Some("Deny") => return Err(denied(a, policy, name, o)),
            Some("Warn") => a.warnings.lock().push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{name}': {}",
                o.message
            )),
            _ => {}
        }
    }
    Ok(())
}

fn denied(a: &Attributes<'_>, policy: &str, binding: &str, o: &Objection) -> ApiError {
    let message = format!(
        "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
        o.message
    );
    let (code, reason) = match o.reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let mut e = ApiError::forbidden(&a.resource.group, &a.resource.plural, a.name, &message);
    e.code = code;
    e.reason = reason;
    e.details["causes"] = json!([{"message": message}]);
    e
}

/// Is a request among `matchConstraints` or `matchResources`? Limits without rules are about everything.
fn about(limits: &Value, a: &Attributes<'_>, object: &Value, namespace: Option<&Value>) -> bool {
    let matches = |rule: &Value| {
        let names = rule["resourceNames"].as_array();
        webhook::rule_matches(rule, a)
            && names.is_none_or(|names| names.is_empty() || names.iter().any(|n| n == a.name))
    };
    let any = |list: &str| {
        limits[list]
            .as_array()
            .is_some_and(|all| all.iter().any(matches))
    };
    let unlimited = limits["resourceRules"].as_array().is_none_or(Vec::is_empty);
    !any("excludeResourceRules")
        && (unlimited || any("resourceRules"))
        && webhook::selected(limits, a, object, namespace)
}

fn namespace_of(server: &Server, a: &Attributes<'_>) -> Value {
    if !a.resource.namespaced {
        return Value::Null;
    }
    let key = Key::new(&"core/namespaces".into(), "", a.namespace);
    let found = server.storage.cache().get(&key);
    found.map_or(Value::Null, |found| found.value().clone())
}

/// The parameters a policy is asked with: each in turn; one null where it has none.
fn params(
    server: &Server,
    a: &Attributes<'_>,
    policy: &Value,
    binding: &Value,
) -> Result<Vec<Arc<Value>>, String> {
    let (kind, reference) = (&policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
    if kind.is_null() || reference.is_null() {
        return Ok(vec![Arc::new(Value::Null)]);
    }
    let (group, version) = api::meta::group_version(kind["apiVersion"].as_str().unwrap_or(""));
    let kind = kind["kind"].as_str().unwrap_or("");
    let registry = server.registry();
    let resource: &Resource = registry
        .all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
        .ok_or_else(|| format!("paramKind kind `{kind}` not known"))?;
    let own = reference["namespace"].as_str().unwrap_or("");
    let namespace = match (resource.namespaced, own) {
        (false, "") => "",
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into(),
            );
        }
        (true, "") if a.resource.namespaced => a.namespace,
        (true, "") => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, own) => own,
    };
    let cache = server.storage.cache();
    let found: Vec<Arc<Value>> = match reference["name"].as_str().filter(|n| !n.is_empty()) {
        Some(name) => cache
            .get(&resource.key(namespace, name))
            .iter()
            .map(|o| crate::shape::value_of(resource, o))
            .collect(),
        None => {
            let prefix = if namespace.is_empty() {
                String::new()
            } else {
                format!("{namespace}/")
            };
            let (all, _) = cache.list(&resource.table, &prefix);
            all.iter()
                .filter(|(_, o)| {
                    machinery::selects(&reference["selector"], &o.value()["metadata"]["labels"])
                })
                .map(|(_, o)| crate::shape::value_of(resource, o))
                .collect()
        }
    };
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".into(),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Operation;
    use crate::authn::User;
    use crate::registry::Registry;
    use parking_lot::Mutex;

    fn creating(name: &str, f: impl FnOnce(&Attributes<'_>)) {
        let registry = Registry::build(std::iter::empty());
        let resource = registry.find("apps", "v1", "deployments").unwrap().clone();
        let (user, warnings) = (User::default(), Mutex::new(Vec::new()));
        f(&Attributes {
            operation: Operation::Create,
            resource: &resource,
            namespace: "d",
            name,
            subresource: "",
            old: None,
            user: &user,
            dry_run: false,
            warnings: &warnings,
        });
    }

    #[test]
    fn a_policy_is_about_what_its_rules_name() {
        let rule = |names: Value| json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"], "resourceNames": names});
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        let inside = json!({"env": "test"});
        creating("x", |a| {
            let holds = |limits: Value| about(&limits, a, &object, Some(&inside));
            assert!(holds(json!({"resourceRules": [rule(Value::Null)]})));
            assert!(holds(json!({"resourceRules": [rule(json!(["x"]))]})));
            assert!(!holds(json!({"resourceRules": [rule(json!(["y"]))]})));
            assert!(holds(json!({})), "without rules there is no limit");
            assert!(!holds(
                json!({"resourceRules": [rule(Value::Null)], "excludeResourceRules": [rule(json!(["x"]))]})
            ));
            assert!(!holds(
                json!({"resourceRules": [rule(Value::Null)], "namespaceSelector": {"matchLabels": {"env": "live"}}})
            ));
        });
    }

    #[test]
    fn a_binding_says_what_becomes_of_an_objection() {
        let policy = json!({"metadata": {"name": "p"}});
        let binding = |actions: Value| json!({"metadata": {"name": "b"}, "spec": {"validationActions": actions}});
        let objection = Objection {
            message: "no".into(),
            reason: String::new(),
        };
        creating("x", |a| {
            let e = act(a, &policy, &binding(json!(["Deny"])), &objection).unwrap_err();
            assert_eq!((e.code, e.reason), (422, "Invalid"));
            assert_eq!(
                e.message,
                "deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
            );
            act(a, &policy, &binding(json!(["Warn"])), &objection).unwrap();
            assert_eq!(
                *a.warnings.lock(),
                ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no"]
            );
        });
    }
}
