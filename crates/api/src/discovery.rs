//! Discovery documents: `/api`, `/apis`, resource lists, and the aggregated form (`apidiscovery.k8s.io/v2`).
//!
//! All are pure functions of the built-in scheme and the resources that CRDs add ([`crate::scheme::from_crd`]).

use crate::scheme::{self, ResourceInfo};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Media type parameters of the aggregated form, to answer `Accept` with.
pub const AGGREGATED_CONTENT_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `GET /api`. `server_address` is host:port as clients reach it.
pub fn core_versions(server_address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
           "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]})
}

/// A named group and its versions, preferred first.
type Group = (String, Vec<String>);

/// Groups in the order they are announced: built-in ones, then those of CRDs by name. Versions by maturity.
fn groups(crds: &[Arc<ResourceInfo>]) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    let mut add = |group: &str, version: &str| match out.iter_mut().find(|(g, _)| g == group) {
        Some((_, versions)) => {
            if !versions.iter().any(|v| v == version) {
                versions.push(version.into());
            }
        }
        None => out.push((group.into(), vec![version.into()])),
    };
    for (g, v) in scheme::builtin_group_versions() {
        add(&g, &v);
    }
    let mut custom: Vec<(&str, &str)> = crds
        .iter()
        .map(|r| (r.group.as_str(), r.version.as_str()))
        .collect();
    custom.sort();
    for (g, v) in custom {
        add(g, v);
    }
    for (_, versions) in &mut out {
        versions.sort_by_key(|v| std::cmp::Reverse(scheme::version_order(v)));
    }
    out
}

fn group_body(group: &Group) -> Map<String, Value> {
    let entry = |v: &String| json!({"groupVersion": format!("{}/{v}", group.0), "version": v});
    let mut m = Map::new();
    m.insert("name".into(), group.0.clone().into());
    m.insert("versions".into(), group.1.iter().map(entry).collect());
    m.insert("preferredVersion".into(), entry(&group.1[0]));
    m
}

/// `GET /apis`: the group list.
pub fn group_list(crds: &[Arc<ResourceInfo>]) -> Value {
    let groups: Vec<Value> = groups(crds)
        .iter()
        .filter(|g| !g.0.is_empty())
        .map(|g| Value::Object(group_body(g)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/<group>`; `None` when there is no such group.
pub fn group(crds: &[Arc<ResourceInfo>], name: &str) -> Option<Value> {
    let groups = groups(crds);
    let g = groups.iter().find(|g| g.0 == name && !name.is_empty())?;
    let mut m = Map::new();
    m.insert("kind".into(), "APIGroup".into());
    m.insert("apiVersion".into(), "v1".into());
    m.extend(group_body(g));
    Some(Value::Object(m))
}

fn resources_of<'a>(
    crds: &'a [Arc<ResourceInfo>],
    group: &'a str,
    version: &'a str,
) -> Vec<&'a Arc<ResourceInfo>> {
    let mut out: Vec<&Arc<ResourceInfo>> = scheme::builtin()
        .iter()
        .chain(crds)
        .filter(|r| r.group == group && r.version == version)
        .collect();
    out.sort_by(|a, b| a.plural.cmp(&b.plural));
    out
}

/// `GET /api/v1` or `/apis/<group>/<version>`; `None` when nothing is served there.
pub fn resource_list(crds: &[Arc<ResourceInfo>], group: &str, version: &str) -> Option<Value> {
    let resources = resources_of(crds, group, version);
    if resources.is_empty() {
        return None;
    }
    let mut list = Vec::new();
    for r in resources {
        let mut m = Map::new();
        m.insert("name".into(), r.plural.clone().into());
        m.insert("singularName".into(), r.singular.clone().into());
        m.insert("namespaced".into(), r.namespaced.into());
        m.insert("kind".into(), r.kind.clone().into());
        m.insert("verbs".into(), r.verbs.clone().into());
        if !r.short_names.is_empty() {
            m.insert("shortNames".into(), r.short_names.clone().into());
        }
        if !r.categories.is_empty() {
            m.insert("categories".into(), r.categories.clone().into());
        }
        if !r.storage_version_hash.is_empty() {
            m.insert(
                "storageVersionHash".into(),
                r.storage_version_hash.clone().into(),
            );
        }
        list.push(Value::Object(m));
        for s in &r.subresources {
            let mut m = Map::new();
            m.insert("name".into(), format!("{}/{}", r.plural, s.name).into());
            m.insert("singularName".into(), "".into());
            m.insert("namespaced".into(), r.namespaced.into());
            if !s.version.is_empty() {
                if !s.group.is_empty() {
                    m.insert("group".into(), s.group.clone().into());
                }
                m.insert("version".into(), s.version.clone().into());
            }
            m.insert("kind".into(), s.kind.clone().into());
            m.insert("verbs".into(), s.verbs.clone().into());
            list.push(Value::Object(m));
        }
    }
    let mut m = Map::new();
    m.insert("kind".into(), "APIResourceList".into());
    if !group.is_empty() {
        m.insert("apiVersion".into(), "v1".into());
    }
    m.insert(
        "groupVersion".into(),
        crate::meta::join_group_version(group, version).into(),
    );
    m.insert("resources".into(), Value::Array(list));
    Some(Value::Object(m))
}

/// `GET /api` (`core = true`) or `/apis` in the aggregated form ([`AGGREGATED_CONTENT_TYPE`]).
pub fn aggregated(crds: &[Arc<ResourceInfo>], core: bool) -> Value {
    let mut items = Vec::new();
    for (group, versions) in groups(crds).iter().filter(|g| g.0.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| {
                let resources: Vec<Value> = resources_of(crds, group, v)
                    .into_iter()
                    .map(|r| aggregated_resource(r))
                    .collect();
                json!({"version": v, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let mut m = Map::new();
        let mut metadata = Map::new();
        if !group.is_empty() {
            metadata.insert("name".into(), group.clone().into());
        }
        metadata.insert("creationTimestamp".into(), Value::Null);
        m.insert("metadata".into(), Value::Object(metadata));
        m.insert("versions".into(), Value::Array(versions));
        items.push(Value::Object(m));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(r: &ResourceInfo) -> Value {
    // Built-in kinds leave the group and version of their own kind empty; those of CRDs spell them out.
    let kind = |group: &str, version: &str, kind: &str| {
        if version.is_empty() && r.crd.is_some() {
            json!({"group": r.group, "version": r.version, "kind": kind})
        } else {
            json!({"group": group, "version": version, "kind": kind})
        }
    };
    let mut m = Map::new();
    m.insert("resource".into(), r.plural.clone().into());
    m.insert("responseKind".into(), kind("", "", &r.kind));
    m.insert(
        "scope".into(),
        if r.namespaced {
            "Namespaced"
        } else {
            "Cluster"
        }
        .into(),
    );
    m.insert("singularResource".into(), r.singular.clone().into());
    m.insert("verbs".into(), r.verbs.clone().into());
    if !r.short_names.is_empty() {
        m.insert("shortNames".into(), r.short_names.clone().into());
    }
    if !r.categories.is_empty() {
        m.insert("categories".into(), r.categories.clone().into());
    }
    let subs: Vec<Value> = r
        .subresources
        .iter()
        .map(|s| json!({"subresource": s.name, "responseKind": kind(&s.group, &s.version, &s.kind), "verbs": s.verbs}))
        .collect();
    if !subs.is_empty() {
        m.insert("subresources".into(), Value::Array(subs));
    }
    Value::Object(m)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_repeat_what_was_measured() {
        let measured: Vec<Value> =
            serde_json::from_str(include_str!("../data/discovery.json")).unwrap();
        for list in measured {
            let gv = list["groupVersion"].as_str().unwrap();
            let (g, v) = crate::meta::group_version(gv);
            let ours = resource_list(&[], g, v).unwrap();
            assert_eq!(ours["resources"], list["resources"], "{gv}");
        }
    }

    #[test]
    fn groups_of_crds_join_the_list() {
        let crd = json!({"spec": {"group": "g.io", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W"},
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v1beta1", "served": true}]}});
        let crds = scheme::from_crd(&crd);
        let g = group(&crds, "g.io").unwrap();
        assert_eq!(g["preferredVersion"]["version"], "v1");
        assert_eq!(
            group_list(&crds)["groups"]
                .as_array()
                .unwrap()
                .last()
                .unwrap()["name"],
            "g.io"
        );
        assert_eq!(
            aggregated(&crds, true)["items"].as_array().unwrap().len(),
            1
        );
        assert!(resource_list(&crds, "g.io", "v2").is_none());
    }
}
