//! What objects use of a ResourceQuota: shared by admission, which refuses what would exceed one, and by the controller,
//! which counts again.

use crate::meta::list;
use crate::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by resource: `requests.cpu`, `pods`, `count/deployments.apps`.
pub type Usage = BTreeMap<String, Quantity>;

/// Compute resources; the short names mean requests.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// An amount of an object; absent or unreadable is nothing.
pub fn amount(v: &Value) -> Quantity {
    let read = match v {
        Value::String(s) => Quantity::parse(s).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    };
    read.unwrap_or(Quantity::from_units(0))
}

fn add(usage: &mut Usage, resource: impl Into<String>, more: Quantity) {
    usage
        .entry(resource.into())
        .and_modify(|sum| *sum = sum.plus(more))
        .or_insert(more);
}

fn raise(usage: &mut Usage, resource: &str, to: Quantity) {
    let sum = usage.entry(resource.to_owned()).or_insert(to);
    if to > *sum {
        *sum = to;
    }
}

/// Requests or limits (`field`) of a pod as a whole: what its containers need together, or the greediest init container if that
/// is more, and its overhead.
pub fn pod_resources(spec: &Value, field: &str) -> Usage {
    let mut total = Usage::new();
    for container in list(&spec["containers"]) {
        for (resource, v) in container["resources"][field]
            .as_object()
            .into_iter()
            .flatten()
        {
            add(&mut total, resource, amount(v));
        }
    }
    // Init containers run one after another; those that restart always keep what they have.
    let mut kept = Usage::new();
    let mut peak = Usage::new();
    for container in list(&spec["initContainers"]) {
        let own = container["resources"][field].as_object();
        for (resource, v) in own.into_iter().flatten() {
            if container["restartPolicy"] == "Always" {
                add(&mut kept, resource, amount(v));
                add(&mut total, resource, amount(v));
            } else {
                let before = kept.get(resource).copied();
                let needed = before.map_or(amount(v), |k| k.plus(amount(v)));
                raise(&mut peak, resource, needed);
            }
        }
    }
    for (resource, needed) in &peak {
        raise(&mut total, resource, *needed);
    }
    for (resource, v) in spec["overhead"].as_object().into_iter().flatten() {
        if field == "requests" || total.contains_key(resource) {
            add(&mut total, resource, amount(v));
        }
    }
    total
}

fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// What an object of `group` and `plural` uses.
pub fn usage(group: &str, plural: &str, object: &Value) -> Usage {
    let mut out = Usage::new();
    let one = Quantity::from_units(1);
    out.insert(
        format!("count/{}", crate::status::qualified(group, plural)),
        one,
    );
    if !group.is_empty() {
        return out;
    }
    match plural {
        "pods" => {
            if is_finished(object) {
                return out;
            }
            out.insert("pods".into(), one);
            let spec = &object["spec"];
            for (resource, n) in pod_resources(spec, "requests") {
                if COMPUTE.contains(&resource.as_str()) {
                    out.insert(resource.clone(), n);
                }
                out.insert(format!("requests.{resource}"), n);
            }
            for (resource, n) in pod_resources(spec, "limits") {
                if COMPUTE.contains(&resource.as_str()) {
                    out.insert(format!("limits.{resource}"), n);
                }
            }
        }
        "services" => {
            out.insert("services".into(), one);
            let spec = &object["spec"];
            let ports = i64::try_from(list(&spec["ports"]).len()).unwrap_or(0);
            let ports = Quantity::from_units(ports);
            match spec["type"].as_str() {
                Some("NodePort") => {
                    out.insert("services.nodeports".into(), ports);
                }
                Some("LoadBalancer") => {
                    out.insert("services.loadbalancers".into(), one);
                    if spec["allocateLoadBalancerNodePorts"] != false {
                        out.insert("services.nodeports".into(), ports);
                    }
                }
                _ => {}
            }
        }
        "configmaps"
        | "secrets"
        | "replicationcontrollers"
        | "resourcequotas"
        | "persistentvolumeclaims" => {
            out.insert(plural.into(), one);
        }
        _ => {}
    }
    out
}

/// The group and plural that count towards a resource of a quota; `None` when it is no name of one.
pub fn counted(resource: &str) -> Option<(String, String)> {
    if let Some(counted) = resource.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group.to_owned(), plural.to_owned()));
    }
    let plural = match resource {
        "services" | "services.nodeports" | "services.loadbalancers" => "services",
        "configmaps"
        | "secrets"
        | "replicationcontrollers"
        | "resourcequotas"
        | "persistentvolumeclaims" => resource,
        "pods" => "pods",
        _ if COMPUTE.contains(&resource)
            || resource.starts_with("requests.")
            || resource.starts_with("limits.") =>
        {
            "pods"
        }
        _ => return None,
    };
    Some((String::new(), plural.to_owned()))
}

fn in_scope(scope: &str, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let deadline = spec["activeDeadlineSeconds"]
        .as_i64()
        .is_some_and(|n| n >= 0);
    let best_effort = || {
        list(&spec["containers"])
            .iter()
            .chain(list(&spec["initContainers"]))
            .all(|c| {
                ["requests", "limits"].iter().all(|field| {
                    let own = c["resources"][*field].as_object();
                    own.into_iter().flatten().all(|(resource, v)| {
                        !matches!(resource.as_str(), "cpu" | "memory") || amount(v).is_zero()
                    })
                })
            })
    };
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => spec["priorityClassName"]
            .as_str()
            .is_some_and(|c| !c.is_empty()),
        _ => false,
    }
}

/// Does a quota speak about this object, by its scopes?
pub fn is_about(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let is_pod = group.is_empty() && plural == "pods";
    let scopes = list(&spec["scopes"]);
    let selectors = list(&spec["scopeSelector"]["matchExpressions"]);
    if !is_pod {
        return scopes.is_empty() && selectors.is_empty();
    }
    scopes
        .iter()
        .all(|scope| in_scope(scope.as_str().unwrap_or(""), object))
        && selectors.iter().all(|selector| {
            let scope = selector["scopeName"].as_str().unwrap_or("");
            let class = object["spec"]["priorityClassName"].as_str().unwrap_or("");
            let listed = list(&selector["values"]).iter().any(|v| v == class);
            match selector["operator"].as_str().unwrap_or("") {
                "In" if scope == "PriorityClass" => listed,
                "NotIn" if scope == "PriorityClass" => !listed,
                "DoesNotExist" => !in_scope(scope, object),
                _ => in_scope(scope, object),
            }
        })
}

/// What a pod must say because a quota counts it: the message, or nothing when all is said.
pub fn missing(hard: &Value, pod: &Value) -> Option<String> {
    let mut out = Vec::new();
    let mut resources: Vec<&String> = hard
        .as_object()
        .into_iter()
        .flat_map(|m| m.keys())
        .collect();
    resources.sort();
    for resource in resources {
        let (field, name) = match resource.split_once('.') {
            Some((field @ ("requests" | "limits"), name)) => (field, name),
            _ => ("requests", resource.as_str()),
        };
        if !matches!(name, "cpu" | "memory") {
            continue;
        }
        let mut silent: Vec<&str> = list(&pod["spec"]["containers"])
            .iter()
            .chain(list(&pod["spec"]["initContainers"]))
            .filter(|c| c["resources"][field][name].is_null())
            .map(|c| c["name"].as_str().unwrap_or(""))
            .collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            out.push(format!("{resource} for: {}", silent.join(",")));
        }
    }
    (!out.is_empty()).then(|| format!("must specify {}", out.join("; ")))
}

/// `cpu=1,pods=2`.
pub fn show(usage: &Usage) -> String {
    let parts: Vec<String> = usage.iter().map(|(k, v)| format!("{k}={v}")).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(group: &str, plural: &str, object: Value) -> String {
        show(&usage(group, plural, &object))
    }

    #[test]
    fn objects_use_what_they_are() {
        let pod = json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
            {"resources": {"requests": {"cpu": "500m"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "2"}}}]}});
        assert_eq!(
            shown("", "pods", pod.clone()),
            "count/pods=1,cpu=2,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=2,requests.memory=1Gi"
        );
        let mut done = pod;
        done["status"]["phase"] = "Succeeded".into();
        assert_eq!(shown("", "pods", done), "count/pods=1");
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            shown("", "services", service),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        assert_eq!(
            shown("apps", "replicasets", json!({})),
            "count/replicasets.apps=1"
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let bare = json!({"spec": {"containers": [{}]}});
        let burst = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}], "activeDeadlineSeconds": 5}});
        for (scope, bare_in, burst_in) in [
            ("BestEffort", true, false),
            ("NotBestEffort", false, true),
            ("Terminating", false, true),
            ("NotTerminating", true, false),
        ] {
            assert_eq!(
                is_about(&quota(scope), "", "pods", &bare),
                bare_in,
                "{scope}"
            );
            assert_eq!(
                is_about(&quota(scope), "", "pods", &burst),
                burst_in,
                "{scope}"
            );
        }
        assert!(!is_about(&quota("BestEffort"), "", "services", &json!({})));
    }

    #[test]
    fn what_is_counted_must_be_said() {
        let pod = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(
            missing(&json!({"limits.cpu": "1", "pods": "5"}), &pod).as_deref(),
            Some("must specify limits.cpu for: a")
        );
        assert_eq!(missing(&json!({"pods": "5"}), &pod), None);
    }

    #[test]
    fn names_lead_to_what_is_counted() {
        let of = |r: &str| counted(r).map(|(g, p)| format!("{p}.{g}"));
        assert_eq!(
            of("count/widgets.example.com").as_deref(),
            Some("widgets.example.com")
        );
        assert_eq!(of("requests.cpu").as_deref(), Some("pods."));
        assert_eq!(of("services.nodeports").as_deref(), Some("services."));
        assert_eq!(of("unknown"), None);
    }
}
