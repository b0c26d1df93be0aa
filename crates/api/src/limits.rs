//! LimitRanges: what a pod gets when it says nothing, and what it may not ask for.

use crate::meta::list;
use crate::quota::{Usage, amount, pod_resources};
use serde_json::{Map, Value};

fn of_type<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(&range["spec"]["limits"])
        .iter()
        .filter(move |limit| limit["type"] == kind)
}

/// Fills in the default requests and limits of containers and says in the annotation of the real server what it did.
pub fn default(range: &Value, pod: &mut Value) {
    let mut notes = Vec::new();
    for limit in of_type(range, "Container") {
        for (list, word) in [
            ("containers", "container"),
            ("initContainers", "init container"),
        ] {
            let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or("").to_owned();
                for (from, to, what) in [
                    ("defaultRequest", "requests", "request"),
                    ("default", "limits", "limit"),
                ] {
                    let set = fill(container, to, &limit[from]);
                    if !set.is_empty() {
                        notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        crate::meta::map_mut(&mut pod["metadata"], "annotations")
            .insert("kubernetes.io/limit-ranger".into(), text.into());
    }
}

/// Adds what is missing and names it.
fn fill(container: &mut Value, field: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, default) in defaults.as_object().into_iter().flatten() {
        if !container["resources"][field][resource].is_null() {
            continue;
        }
        for key in ["resources", field] {
            let at = if key == "resources" {
                &mut *container
            } else {
                &mut container["resources"]
            };
            if let Some(map) = at.as_object_mut() {
                let slot = map.entry(key.to_owned()).or_insert(Value::Null);
                if slot.is_null() {
                    *slot = Value::Object(Map::new());
                }
            }
        }
        container["resources"][field][resource] = default.clone();
        set.push(resource.clone());
    }
    set.sort();
    set
}

/// Why a pod is not within a LimitRange; nothing when it is.
pub fn violations(range: &Value, pod: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let of = |v: &Value| -> Usage {
        v.as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), amount(v)))
            .collect()
    };
    for limit in of_type(range, "Container") {
        for field in ["containers", "initContainers"] {
            for container in list(&pod["spec"][field]) {
                let (requests, limits) = (
                    of(&container["resources"]["requests"]),
                    of(&container["resources"]["limits"]),
                );
                check(limit, "Container", &requests, &limits, &mut out);
            }
        }
    }
    for limit in of_type(range, "Pod") {
        let (requests, limits) = (
            pod_resources(&pod["spec"], "requests"),
            pod_resources(&pod["spec"], "limits"),
        );
        check(limit, "Pod", &requests, &limits, &mut out);
    }
    out
}

fn check(limit: &Value, kind: &str, requests: &Usage, limits: &Usage, out: &mut Vec<String>) {
    for (resource, bound) in limit["min"].as_object().into_iter().flatten() {
        let bound = amount(bound);
        let what = format!("minimum {resource} usage per {kind} is {bound}");
        match (requests.get(resource), limits.get(resource)) {
            (None, _) => out.push(format!("{what}.  No request is specified")),
            (Some(request), _) if *request < bound => {
                out.push(format!("{what}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < bound => out.push(format!("{what}, but limit is {limit}")),
            _ => {}
        }
    }
    for (resource, bound) in limit["max"].as_object().into_iter().flatten() {
        let bound = amount(bound);
        let what = format!("maximum {resource} usage per {kind} is {bound}");
        match (requests.get(resource), limits.get(resource)) {
            (_, None) => out.push(format!("{what}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => out.push(format!("{what}, but limit is {limit}")),
            (Some(request), _) if *request > bound => {
                out.push(format!("{what}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (resource, bound) in limit["maxLimitRequestRatio"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let bound = amount(bound);
        let what = format!("{resource} max limit to request ratio per {kind} is {bound}");
        let some = |usage: &Usage| usage.get(resource).copied().filter(|q| !q.is_zero());
        match (some(requests), some(limits)) {
            (None, _) => out.push(format!(
                "{what}, but no request is specified or request is 0"
            )),
            (_, None) => out.push(format!("{what}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > bound.as_f64() {
                    out.push(format!("{what}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn silence_is_filled_and_excess_is_named() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "min": {"cpu": "50m"}, "max": {"cpu": "500m"},
            "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "300m"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
        default(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
        );
        assert!(violations(&range, &pod).is_empty());
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}});
        assert_eq!(
            violations(&range, &pod),
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 500m, but limit is 1"
            ]
        );
    }
}
