//! OpenAPI v3 documents, one a group-version, as `kubectl apply`, `explain` and `diff` read them.
//!
//! Those of the built-in groups are a real kube-apiserver 1.32's, cut to what we serve (`data/measure.py`); their descriptions are
//! those of a dependency ([`descriptions`]). Those of custom resources are generated. kubectl 1.32 asks for `/openapi/v3` and, by the URL with
//! the hash it finds there, for the one document it needs; it never asks for v2 while v3 is there.

use crate::scheme::ResourceInfo;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, LazyLock, Mutex};

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
        "apiregistration.k8s.io",
        "v1",
        include_bytes!("../data/openapi_apiregistration.k8s.io_v1.json.gz"),
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "v1",
        include_bytes!("../data/openapi_flowcontrol.apiserver.k8s.io_v1.json.gz"),
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
        "storage.k8s.io",
        "v1",
        include_bytes!("../data/openapi_storage.k8s.io_v1.json.gz"),
    ),
    (
        "certificates.k8s.io",
        "v1",
        include_bytes!("../data/openapi_certificates.k8s.io_v1.json.gz"),
    ),
    (
        "autoscaling",
        "v2",
        include_bytes!("../data/openapi_autoscaling_v2.json.gz"),
    ),
    (
        "autoscaling",
        "v1",
        include_bytes!("../data/openapi_autoscaling_v1.json.gz"),
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

/// Documents with their descriptions, gzipped, by path: made when they are first asked for.
static DESCRIBED: LazyLock<Mutex<HashMap<String, Arc<[u8]>>>> = LazyLock::new(Mutex::default);

/// The gzipped document of a built-in group-version, fit to be sent as it is with `Content-Encoding: gzip`.
pub fn builtin_gzip(group: &str, version: &str) -> Option<Arc<[u8]>> {
    let mut described = DESCRIBED.lock().expect("no panic while describing");
    if let Some(known) = described.get(&path_of(group, version)) {
        return Some(known.clone());
    }
    let mut document = builtin_value(group, version)?;
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        descriptions::describe(schemas);
    }
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    serde_json::to_writer(&mut zip, &document).expect("a document is serialisable");
    let bytes: Arc<[u8]> = zip.finish().expect("memory can be written").into();
    described.insert(path_of(group, version), bytes.clone());
    Some(bytes)
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut out)
        .expect("the document is valid gzip");
    out
}

/// The document of a built-in group-version, without descriptions.
pub fn builtin_value(group: &str, version: &str) -> Option<Value> {
    let found = DOCUMENTS.iter().find(|d| d.0 == group && d.1 == version)?;
    Some(serde_json::from_slice(&unzipped(found.2)).expect("the embedded document is valid JSON"))
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
    // Clients keep documents by their hash: other descriptions are another document.
    let mut add = |path: String, bytes: &[u8]| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(bytes));
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    for (g, v, gz) in DOCUMENTS {
        add(path_of(g, v), &[gz, DESCRIPTIONS.as_slice()].concat());
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
            add(
                path_of(&r.group, &r.version),
                &[text.as_bytes(), &DESCRIPTIONS].concat(),
            );
        }
    }
    json!({"paths": paths})
}

/// Digest of the descriptions.
static DESCRIPTIONS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    use sha2::Digest;
    sha2::Sha512::digest(descriptions::TEXT).to_vec()
});

fn hash(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha512::digest(bytes)
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect()
}

/// The document of a group-version: built-in, or generated from the CRDs that serve it. `None` when nothing does.
pub fn document(crds: &[Arc<ResourceInfo>], group: &str, version: &str) -> Option<Vec<u8>> {
    if let Some(bytes) = builtin_gzip(group, version) {
        return Some(unzipped(&bytes));
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
#[path = "openapi_descriptions.rs"]
mod descriptions;
#[path = "openapi_v2.rs"]
pub mod v2;
#[path = "openapi_v2_protobuf.rs"]
mod v2_protobuf;

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
    fn kinds_and_fields_are_described_in_the_words_of_kubernetes() {
        if descriptions::TEXT.is_empty() {
            assert!(
                std::env::var_os("CI").is_none(),
                "the build has not found the source of k8s-openapi"
            );
            eprintln!("skipped: the build has not found the source of k8s-openapi");
            return;
        }
        let text = document(&[], "apps", "v1").unwrap();
        let doc: Value = serde_json::from_slice(&text).unwrap();
        let deployment = &doc["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(
            deployment["description"],
            "Deployment enables declarative updates for Pods and ReplicaSets."
        );
        for field in ["apiVersion", "kind", "metadata", "spec", "status"] {
            let described = deployment["properties"][field]["description"].as_str();
            assert!(
                described.is_some_and(|d| d.ends_with(|c: char| c != ' ')),
                "{field}"
            );
        }
        let pod = &doc["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        let said = pod["properties"]["hostIPC"]["description"]
            .as_str()
            .unwrap();
        assert!(said.starts_with("Use the host's ipc namespace."), "{said}");
        let time = &doc["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.Time"];
        assert_eq!(time.get("properties"), None, "what has no fields gets none");
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
