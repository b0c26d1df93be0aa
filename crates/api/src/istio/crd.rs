//! CustomResourceDefinitions of Istio's kinds. The schemas of their `spec` are in `crd_schemas.json`, which
//! `cargo xtask crds` derives from the structs (`crd_schema`): deriving them is much to compile, and the same every time.

use super::crd_kinds::{CrdInfo, KINDS};
use serde_json::{Map, Value, json};

/// The CustomResourceDefinitions of all kinds of Istio.
pub fn crds() -> Vec<Value> {
    let mut schemas: Map<String, Value> =
        serde_json::from_str(include_str!("crd_schemas.json")).expect("xtask wrote JSON");
    KINDS
        .iter()
        .map(|info| crd(info, &schemas.remove(info.kind).unwrap_or_default()))
        .collect()
}

fn crd(info: &CrdInfo, spec: &Value) -> Value {
    let category = info.group.replace('.', "-");
    let versions: Vec<Value> = info
        .versions
        .iter()
        .enumerate()
        .map(|(index, version)| version_of(info, version, index == 0, spec))
        .collect();
    let mut names = json!({
        "categories": ["istio-io", category],
        "kind": info.kind,
        "listKind": format!("{}List", info.kind),
        "plural": info.plural,
        "singular": info.singular,
    });
    if !info.short_names.is_empty() {
        names["shortNames"] = json!(info.short_names);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", info.plural, info.group),
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {
                "app.kubernetes.io/instance": "istio",
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/part-of": "istio",
                "app.kubernetes.io/version": "1.0.0",
                "helm.sh/chart": "base-1.0.0",
            },
        },
        "spec": {"group": info.group, "names": names, "scope": "Namespaced", "versions": versions},
    })
}

fn version_of(info: &CrdInfo, version: &str, storage: bool, spec: &Value) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "spec": spec,
            "status": status(),
        },
    });
    if info.spec_required {
        schema["required"] = json!(["spec"]);
    }
    let mut out = json!({
        "name": version,
        "served": true,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    });
    if !info.columns.is_empty() {
        let columns = info
            .columns
            .iter()
            .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}));
        out["additionalPrinterColumns"] = columns.collect();
    }
    out
}

/// The status that Istio's controllers write.
fn status() -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let generation = json!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
    });
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {"type": "array", "items": {"type": "object", "properties": {
                "lastProbeTime": time,
                "lastTransitionTime": time,
                "message": text,
                "observedGeneration": generation,
                "reason": text,
                "status": text,
                "type": text,
            }}},
            "observedGeneration": generation,
            "validationMessages": {"type": "array", "items": {"type": "object", "properties": {
                "documentationUrl": text,
                "level": {"type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"]},
                "type": {"type": "object", "properties": {"code": text, "name": text}},
            }}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, path: &str) {
        let object = schema
            .as_object()
            .unwrap_or_else(|| panic!("{path}: no object: {schema}"));
        assert!(
            object.get("type").is_some_and(Value::is_string)
                || schema["x-kubernetes-int-or-string"] == true,
            "{path}: no single type: {schema}"
        );
        for key in ["$ref", "definitions", "default", "const"] {
            assert!(!object.contains_key(key), "{path}: {key} in {schema}");
        }
        for (name, inner) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            check(inner, &format!("{path}.{name}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = object.get(key) {
                check(inner, &format!("{path}.{key}"));
            }
        }
    }

    #[test]
    fn schemas_are_structural() {
        for crd in crds() {
            let versions = crd["spec"]["versions"].as_array().unwrap();
            assert_eq!(
                versions
                    .iter()
                    .filter(|version| version["storage"] == true)
                    .count(),
                1
            );
            for version in versions {
                check(
                    &version["schema"]["openAPIV3Schema"],
                    crd["metadata"]["name"].as_str().unwrap(),
                );
            }
        }
    }

    #[test]
    fn fields_of_a_virtual_service() {
        let crd = crds()
            .into_iter()
            .find(|crd| crd["spec"]["names"]["kind"] == "VirtualService")
            .unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["match"]["items"]["properties"]["port"]
                ["type"],
            "integer"
        );
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["timeout"]["type"],
            "string"
        );
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["redirect"]["properties"]["derivePort"]
                ["enum"],
            json!(["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])
        );
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["vs"]));
    }
}
