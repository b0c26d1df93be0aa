//! Groups of extension API servers in the discovery of this one.

use serde_json::{Map, Value, json};

use super::{Aggregator, Remote};

/// Adds them to the list of `/apis`.
pub(crate) fn groups(aggregator: &Aggregator, mut list: Value) -> Value {
    let remotes = aggregator.remotes();
    let Some(all) = list["groups"].as_array_mut() else {
        return list;
    };
    for r in by_priority(&remotes) {
        let entry =
            json!({"groupVersion": format!("{}/{}", r.group, r.version), "version": r.version});
        match all.iter_mut().find(|g| g["name"] == r.group.as_str()) {
            None => {
                all.push(json!({"name": r.group, "versions": [entry], "preferredVersion": entry}))
            }
            Some(group) => {
                if let Some(versions) = group["versions"].as_array_mut()
                    && !versions.contains(&entry)
                {
                    versions.push(entry);
                }
            }
        }
    }
    list
}

/// `GET /apis/GROUP`, from the list of all.
pub(crate) fn group(list: &Value, name: &str) -> Option<Value> {
    let found = list["groups"]
        .as_array()?
        .iter()
        .find(|g| g["name"] == name)?;
    let mut out = Map::new();
    out.insert("kind".into(), "APIGroup".into());
    out.insert("apiVersion".into(), "v1".into());
    out.extend(found.as_object()?.clone());
    Some(Value::Object(out))
}

fn by_priority(remotes: &[std::sync::Arc<Remote>]) -> Vec<&Remote> {
    let mut all: Vec<&Remote> = remotes.iter().map(|r| &**r).collect();
    all.sort_by(|a, b| {
        (&a.group, b.version_priority, &a.version).cmp(&(&b.group, a.version_priority, &b.version))
    });
    all
}

/// Adds them to aggregated discovery.
pub(crate) fn aggregated(aggregator: &Aggregator, mut list: Value) -> Value {
    let remotes = aggregator.remotes();
    let Some(items) = list["items"].as_array_mut() else {
        return list;
    };
    for r in by_priority(&remotes) {
        let freshness = if r.available { "Current" } else { "Stale" };
        let version =
            json!({"version": r.version, "resources": resources(r), "freshness": freshness});
        match items
            .iter_mut()
            .find(|i| i["metadata"]["name"] == r.group.as_str())
        {
            None => items.push(json!({
                "metadata": {"name": r.group, "creationTimestamp": null}, "versions": [version],
            })),
            Some(group) => {
                if let Some(versions) = group["versions"].as_array_mut() {
                    versions.retain(|v| v["version"] != r.version.as_str());
                    versions.push(version);
                }
            }
        }
    }
    list
}

/// An APIResourceList in the form of aggregated discovery.
fn resources(remote: &Remote) -> Value {
    let mut out: Vec<Value> = Vec::new();
    let list = remote.resources["resources"].as_array();
    for r in list.into_iter().flatten() {
        let text = |field: &str, default: &str| match r[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => default.to_owned(),
        };
        let kind = json!({
            "group": text("group", &remote.group), "version": text("version", &remote.version), "kind": r["kind"],
        });
        let name = text("name", "");
        if let Some((parent, sub)) = name.split_once('/') {
            if let Some(owner) = out.iter_mut().find(|o| o["resource"] == parent) {
                let one = json!({"subresource": sub, "responseKind": kind, "verbs": r["verbs"]});
                match owner["subresources"].as_array_mut() {
                    Some(all) => all.push(one),
                    None => owner["subresources"] = json!([one]),
                }
            }
            continue;
        }
        let scope = if r["namespaced"] == true {
            "Namespaced"
        } else {
            "Cluster"
        };
        let mut one = json!({"resource": name, "responseKind": kind, "scope": scope,
            "singularResource": text("singularName", ""), "verbs": r["verbs"]});
        for field in ["shortNames", "categories"] {
            if r[field].is_array() {
                one[field] = r[field].clone();
            }
        }
        out.push(one);
    }
    out.into()
}

/// Adds their documents to the index of OpenAPI v3.
pub(crate) fn openapi_index(aggregator: &Aggregator, mut index: Value) -> Value {
    for r in aggregator
        .remotes()
        .iter()
        .filter(|r| r.available && r.openapi)
    {
        let path = format!("apis/{}/{}", r.group, r.version);
        let at = format!("/openapi/v3/{path}");
        index["paths"][path] = json!({"serverRelativeURL": at});
    }
    index
}
