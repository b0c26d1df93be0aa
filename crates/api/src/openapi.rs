//! OpenAPI v3 documents, one a group-version, as `kubectl apply`, `explain` and `diff` read them.
//!
//! Those of the built-in groups are a real kube-apiserver 1.32's, without descriptions and cut to what we serve
//! (`data/measure.py`); those of custom resources are generated. kubectl 1.32 asks for `/openapi/v3` and, by the URL with
//! the hash it finds there, for the one document it needs; it never asks for v2 while v3 is there.

use crate::scheme::ResourceInfo;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::sync::Arc;

/// (group, version, gzipped document).
const DOCUMENTS: &[(&str, &str, &[u8])] = &[
    ("", "v1", include_bytes!("../data/openapi_v1.json.gz")),
    (
        "apps",
        "v1",
        include_bytes!("../data/openapi_apps_v1.json.gz"),
    ),
    (
        "batch",
        "v1",
        include_bytes!("../data/openapi_batch_v1.json.gz"),
    ),
    (
        "discovery.k8s.io",
        "v1",
        include_bytes!("../data/openapi_discovery.k8s.io_v1.json.gz"),
    ),
    (
        "events.k8s.io",
        "v1",
        include_bytes!("../data/openapi_events.k8s.io_v1.json.gz"),
    ),
    (
        "policy",
        "v1",
        include_bytes!("../data/openapi_policy_v1.json.gz"),
    ),
    (
        "scheduling.k8s.io",
        "v1",
        include_bytes!("../data/openapi_scheduling.k8s.io_v1.json.gz"),
    ),
    (
        "node.k8s.io",
        "v1",
        include_bytes!("../data/openapi_node.k8s.io_v1.json.gz"),
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        include_bytes!("../data/openapi_rbac.authorization.k8s.io_v1.json.gz"),
    ),
    (
        "coordination.k8s.io",
        "v1",
        include_bytes!("../data/openapi_coordination.k8s.io_v1.json.gz"),
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        include_bytes!("../data/openapi_apiextensions.k8s.io_v1.json.gz"),
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        include_bytes!("../data/openapi_admissionregistration.k8s.io_v1.json.gz"),
    ),
    (
        "networking.k8s.io",
        "v1",
        include_bytes!("../data/openapi_networking.k8s.io_v1.json.gz"),
    ),
    (
        "authentication.k8s.io",
        "v1",
        include_bytes!("../data/openapi_authentication.k8s.io_v1.json.gz"),
    ),
    (
        "authorization.k8s.io",
        "v1",
        include_bytes!("../data/openapi_authorization.k8s.io_v1.json.gz"),
    ),
];

/// The gzipped document of a built-in group-version, fit to be sent as it is with `Content-Encoding: gzip`.
pub fn builtin_gzip(group: &str, version: &str) -> Option<&'static [u8]> {
    DOCUMENTS
        .iter()
        .find(|d| d.0 == group && d.1 == version)
        .map(|d| d.2)
}

/// The document of a built-in group-version as bytes.
pub fn builtin_bytes(group: &str, version: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(builtin_gzip(group, version)?)
        .read_to_end(&mut out)
        .expect("the embedded document is valid gzip");
    Some(out)
}

/// The document of a built-in group-version.
pub fn builtin_value(group: &str, version: &str) -> Option<Value> {
    Some(
        serde_json::from_slice(&builtin_bytes(group, version)?)
            .expect("the embedded document is valid JSON"),
    )
}

/// The path of a group-version below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `GET /openapi/v3`. `crds`: all resources of CRDs.
pub fn index(crds: &[Arc<ResourceInfo>]) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String, bytes: &[u8]| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(bytes));
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    for (g, v, gz) in DOCUMENTS {
        add(path_of(g, v), gz);
    }
    let mut done: Vec<(&str, &str)> = Vec::new();
    for r in crds {
        if !done.contains(&(&r.group, &r.version)) {
            done.push((&r.group, &r.version));
            // The CRDs' own text decides the document: no need to generate it for its hash.
            let text: String = crds
                .iter()
                .filter(|o| o.group == r.group && o.version == r.version)
                .filter_map(|o| o.crd.as_ref().map(|c| c["spec"].to_string()))
                .collect();
            add(path_of(&r.group, &r.version), text.as_bytes());
        }
    }
    json!({"paths": paths})
}

fn hash(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha512::digest(bytes)
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect()
}

/// The document of a group-version: built-in, or generated from the CRDs that serve it. `None` when nothing does.
pub fn document(crds: &[Arc<ResourceInfo>], group: &str, version: &str) -> Option<Vec<u8>> {
    if let Some(bytes) = builtin_bytes(group, version) {
        return Some(bytes);
    }
    let resources: Vec<&Arc<ResourceInfo>> = crds
        .iter()
        .filter(|r| r.group == group && r.version == version)
        .collect();
    if resources.is_empty() {
        return None;
    }
    Some(custom::document(&resources).to_string().into_bytes())
}

#[path = "openapi_custom.rs"]
mod custom;
#[path = "openapi_v2.rs"]
pub mod v2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_promise_field_validation_on_patch() {
        // kubectl validates on the client when it does not find this parameter.
        for (g, v, _) in DOCUMENTS {
            let doc = builtin_value(g, v).unwrap();
            for (path, item) in doc["paths"].as_object().unwrap() {
                // The proxy subresource passes any verb on; it has no body of ours to validate.
                if let Some(patch) = item.get("patch").filter(|_| !path.contains("/proxy")) {
                    let names: Vec<&str> = patch["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter_map(|p| p["name"].as_str())
                        .collect();
                    assert!(names.contains(&"fieldValidation"), "{path}: {names:?}");
                }
            }
        }
    }

    #[test]
    fn index_names_every_document_by_hash() {
        let index = index(&[]);
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert_eq!(index["paths"].as_object().unwrap().len(), DOCUMENTS.len());
    }
}
