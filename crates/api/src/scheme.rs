//! What is served: the built-in kinds, and those that CustomResourceDefinitions add.
//!
//! The table of built-ins is the discovery of a real kube-apiserver 1.32, cut to the kinds we serve
//! (`data/discovery.json`, made by `data/measure.py`), so verbs, short names, categories and storage hashes are the real ones.

use crate::meta;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// One served resource of one group-version.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceInfo {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of the objects.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Name in URLs.
    pub plural: String,
    /// Name for one of them on command lines.
    pub singular: String,
    /// Abbreviations on command lines.
    pub short_names: Vec<String>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Groups of kinds (`all`).
    pub categories: Vec<String>,
    /// Allowed verbs, sorted.
    pub verbs: Vec<String>,
    /// Opaque hash of the storage version, as discovery shows it; empty for virtual kinds.
    pub storage_version_hash: String,
    /// Subresources in the order of discovery.
    pub subresources: Vec<SubresourceInfo>,
    /// The CustomResourceDefinition this comes from; `None` for a built-in kind.
    pub crd: Option<Arc<Value>>,
}

/// One subresource.
#[derive(Debug, Clone, PartialEq)]
pub struct SubresourceInfo {
    /// Name after the slash: `status`.
    pub name: String,
    /// Group of the body's kind, where it differs from the resource's group-version; else empty.
    pub group: String,
    /// Version of the body's kind, where it differs; else empty.
    pub version: String,
    /// Kind of the body.
    pub kind: String,
    /// Allowed verbs, sorted.
    pub verbs: Vec<String>,
}

impl ResourceInfo {
    /// `apiVersion` of the objects.
    pub fn api_version(&self) -> String {
        meta::join_group_version(&self.group, &self.version)
    }
    /// `plural.group`, as messages name it.
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }
    /// Never stored: created to ask something (reviews).
    pub fn is_virtual(&self) -> bool {
        !self.verbs.iter().any(|v| v == "get")
    }
    /// The verb is allowed on the resource itself.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&SubresourceInfo> {
        self.subresources.iter().find(|s| s.name == name)
    }
    /// The group and resource that objects are stored under. All versions of a kind share it;
    /// `events.k8s.io` events are the core events seen through another schema.
    pub fn storage_key(&self) -> (&str, &str) {
        if self.group == "events.k8s.io" && self.plural == "events" {
            return ("", "events");
        }
        (&self.group, &self.plural)
    }
}

#[derive(Deserialize)]
struct RawList {
    #[serde(rename = "groupVersion")]
    group_version: String,
    resources: Vec<RawResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResource {
    name: String,
    #[serde(default)]
    singular_name: String,
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    kind: String,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    storage_version_hash: String,
}

static BUILTIN: LazyLock<Vec<Arc<ResourceInfo>>> = LazyLock::new(|| {
    let lists: Vec<RawList> = serde_json::from_str(include_str!("../data/discovery.json"))
        .expect("data/discovery.json is well formed");
    let mut out: Vec<ResourceInfo> = Vec::new();
    for list in lists {
        let (group, version) = meta::group_version(&list.group_version);
        let start = out.len();
        for r in list.resources {
            match r.name.split_once('/') {
                None => out.push(ResourceInfo {
                    group: group.into(),
                    version: version.into(),
                    list_kind: format!("{}List", r.kind),
                    kind: r.kind,
                    plural: r.name,
                    singular: r.singular_name,
                    short_names: r.short_names,
                    namespaced: r.namespaced,
                    categories: r.categories,
                    verbs: r.verbs,
                    storage_version_hash: r.storage_version_hash,
                    subresources: Vec::new(),
                    crd: None,
                }),
                Some((parent, sub)) => {
                    let owner = out[start..]
                        .iter_mut()
                        .find(|o| o.plural == parent)
                        .expect("a subresource follows its parent");
                    owner.subresources.push(SubresourceInfo {
                        name: sub.into(),
                        group: r.group,
                        version: r.version,
                        kind: r.kind,
                        verbs: r.verbs,
                    });
                }
            }
        }
    }
    out.into_iter().map(Arc::new).collect()
});

static BY_PLURAL: LazyLock<HashMap<(String, String, String), Arc<ResourceInfo>>> =
    LazyLock::new(|| {
        BUILTIN
            .iter()
            .map(|r| {
                (
                    (r.group.clone(), r.version.clone(), r.plural.clone()),
                    r.clone(),
                )
            })
            .collect()
    });

/// All built-in resources, in the order of discovery.
pub fn builtin() -> &'static [Arc<ResourceInfo>] {
    &BUILTIN
}

/// A built-in resource by URL parts.
pub fn find(group: &str, version: &str, plural: &str) -> Option<Arc<ResourceInfo>> {
    BY_PLURAL
        .get(&(group.to_string(), version.to_string(), plural.to_string()))
        .cloned()
}

/// A built-in resource by kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<Arc<ResourceInfo>> {
    BUILTIN
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
        .cloned()
}

/// The built-in group-versions, in the order in which groups are announced.
pub fn builtin_group_versions() -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for r in BUILTIN.iter() {
        let gv = (r.group.clone(), r.version.clone());
        if !out.contains(&gv) {
            out.push(gv);
        }
    }
    out
}

/// The resources that a CRD serves, one a served version, highest version first (`v1`, `v1beta1`, `v1alpha3`).
/// Empty when the CRD has no usable names.
pub fn from_crd(crd: &Value) -> Vec<Arc<ResourceInfo>> {
    let spec = &crd["spec"];
    // Accepted names win: a CRD whose names clash is not served under them.
    let names = if crd["status"]["acceptedNames"]["plural"]
        .as_str()
        .is_some_and(|p| !p.is_empty())
    {
        &crd["status"]["acceptedNames"]
    } else {
        &spec["names"]
    };
    let (Some(group), Some(plural), Some(kind)) = (
        spec["group"].as_str(),
        names["plural"].as_str(),
        names["kind"].as_str(),
    ) else {
        return Vec::new();
    };
    let strings = |v: &Value| -> Vec<String> {
        v.as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| s.as_str().map(String::from))
            .collect()
    };
    let singular = names["singular"]
        .as_str()
        .map_or_else(|| kind.to_lowercase(), String::from);
    let list_kind = names["listKind"]
        .as_str()
        .map_or_else(|| format!("{kind}List"), String::from);
    let storage = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true)
        .and_then(|v| v["name"].as_str())
        .unwrap_or("");
    let hash = storage_version_hash(group, storage, kind);
    let crd = Arc::new(crd.clone());
    let mut out: Vec<ResourceInfo> = Vec::new();
    for v in spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["served"] == true)
    {
        let Some(version) = v["name"].as_str() else {
            continue;
        };
        let mut subresources = Vec::new();
        if v["subresources"]["status"].is_object() {
            subresources.push(SubresourceInfo {
                name: "status".into(),
                group: String::new(),
                version: String::new(),
                kind: kind.into(),
                verbs: ["get", "patch", "update"].map(String::from).to_vec(),
            });
        }
        if v["subresources"]["scale"].is_object() {
            subresources.push(SubresourceInfo {
                name: "scale".into(),
                group: "autoscaling".into(),
                version: "v1".into(),
                kind: "Scale".into(),
                verbs: ["get", "patch", "update"].map(String::from).to_vec(),
            });
        }
        out.push(ResourceInfo {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: list_kind.clone(),
            plural: plural.into(),
            singular: singular.clone(),
            short_names: strings(&names["shortNames"]),
            namespaced: spec["scope"] == "Namespaced",
            categories: strings(&names["categories"]),
            // Discovery of custom resources lists verbs in this order, not sorted.
            verbs: [
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "create",
                "update",
                "watch",
            ]
            .map(String::from)
            .to_vec(),
            storage_version_hash: hash.clone(),
            subresources,
            crd: Some(crd.clone()),
        });
    }
    out.sort_by(|a, b| {
        version_order(&b.version)
            .cmp(&version_order(&a.version))
            .then(a.version.cmp(&b.version))
    });
    out.into_iter().map(Arc::new).collect()
}

/// `base64(sha256("group/version/kind")[..8])`: what discovery calls storageVersionHash.
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    use base64::Engine;
    use sha2::Digest;
    let sum = sha2::Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&sum[..8])
}

/// Sorting key of API versions: GA over beta over alpha, then numbers; anything else sorts lowest.
pub fn version_order(version: &str) -> (u8, u32, u32) {
    let parse = || -> Option<(u8, u32, u32)> {
        let rest = version.strip_prefix('v')?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major: u32 = rest[..end].parse().ok()?;
        let tail = &rest[end..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        if let Some(n) = tail.strip_prefix("beta") {
            return Some((2, major, n.parse().ok()?));
        }
        Some((1, major, tail.strip_prefix("alpha")?.parse().ok()?))
    };
    parse().unwrap_or((0, 0, 0))
}

/// The status a CRD gets when its names are accepted: conditions `NamesAccepted` and `Established`, accepted names,
/// stored versions. `now` is RFC 3339.
pub fn established_status(crd: &Value, now: &str) -> Value {
    let spec = &crd["spec"];
    let mut stored: Vec<Value> = crd["status"]["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for v in spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
    {
        if !stored.contains(&v["name"]) {
            stored.push(v["name"].clone());
        }
    }
    let condition = |kind: &str, reason: &str, message: &str| {
        // The time of an unchanged condition stays.
        let since = crd["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind && c["status"] == "True")
            .and_then(|c| c["lastTransitionTime"].as_str())
            .unwrap_or(now);
        json!({"lastTransitionTime": since, "message": message, "reason": reason, "status": "True", "type": kind})
    };
    json!({
        "acceptedNames": spec["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_what_discovery_says() {
        let pods = find("", "v1", "pods").unwrap();
        assert_eq!(pods.short_names, ["po"]);
        assert_eq!(pods.categories, ["all"]);
        assert!(pods.namespaced && !pods.is_virtual());
        assert!(pods.subresource("exec").is_some() && pods.subresource("log").is_some());
        assert_eq!(
            find_kind("apps", "v1", "Deployment")
                .unwrap()
                .subresource("scale")
                .unwrap()
                .group,
            "autoscaling"
        );
        assert!(
            find("authentication.k8s.io", "v1", "tokenreviews")
                .unwrap()
                .is_virtual()
        );
    }

    #[test]
    fn storage_hashes_follow_the_rule() {
        let d = find("apps", "v1", "deployments").unwrap();
        assert_eq!(
            storage_version_hash("apps", "v1", "Deployment"),
            d.storage_version_hash
        );
    }

    #[test]
    fn crd_versions_are_ordered_by_maturity() {
        let crd = json!({"spec": {"group": "g.io", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W", "shortNames": ["w"]},
            "versions": [{"name": "v1alpha3", "served": true}, {"name": "v1", "served": true, "storage": true}, {"name": "v1beta1", "served": true},
                         {"name": "v0", "served": false}]}});
        let r = from_crd(&crd);
        assert_eq!(
            r.iter().map(|r| r.version.as_str()).collect::<Vec<_>>(),
            ["v1", "v1beta1", "v1alpha3"]
        );
        assert_eq!(r[0].singular, "w");
        assert_eq!(r[0].list_kind, "WList");
    }
}
