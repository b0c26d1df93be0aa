//! CustomResourceDefinitions of Istio's kinds, with schemas made from the structs.

use super::crd_constraints as constraints;
use super::crd_kinds::{CrdInfo, KINDS};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// The CustomResourceDefinitions of all kinds of Istio.
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

fn crd(info: &CrdInfo) -> Value {
    let category = info.group.replace('.', "-");
    let mut spec = (info.schema)();
    constraints::apply(info.kind, &mut spec);
    let versions: Vec<Value> = info
        .versions
        .iter()
        .enumerate()
        .map(|(index, version)| version_of(info, version, index == 0, &spec))
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

pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
        object.remove("$schema");
    }
    schema
}

/// Rewrites a JSON schema into the structural form that Kubernetes demands: a type everywhere, no null, no alternatives.
fn structural(schema: &mut Value) {
    if *schema == Value::Bool(true) {
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        return;
    }
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    for key in ["default", "title", "$schema", "definitions"] {
        object.remove(key);
    }
    // Option<T>: one alternative is null.
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(alternatives)) = object.remove(key) else {
            continue;
        };
        let mut names = Vec::new();
        for mut alternative in alternatives {
            if alternative["type"] == "null" {
                continue;
            }
            if let Some(name) = alternative.get("const") {
                names.push(name.clone());
            } else if let Some(Value::Array(values)) = alternative
                .get("enum")
                .filter(|_| alternative.get("properties").is_none())
            {
                names.extend(values.iter().cloned());
            } else if alternative.get("oneOf").is_some() {
                structural(&mut alternative);
                names.extend(alternative["enum"].as_array().cloned().unwrap_or_default());
            } else if let Value::Object(inner) = alternative {
                for (key, value) in inner {
                    object.entry(key).or_insert(value);
                }
            }
        }
        if !names.is_empty() {
            object.insert("type".to_owned(), json!("string"));
            object.insert("enum".to_owned(), Value::Array(names));
        }
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let single = types
            .iter()
            .find(|kind| **kind != "null")
            .cloned()
            .unwrap_or(json!("object"));
        object.insert("type".to_owned(), single);
    }
    if let Some(Value::Array(names)) = object.get_mut("enum") {
        names.retain(|name| !name.is_null());
    }
    match object.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            object.remove("format");
            object.insert("maximum".to_owned(), json!(u32::MAX));
        }
        Some("uint64" | "uint") => {
            object.remove("format");
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        match object.get_mut(key) {
            Some(Value::Bool(false)) => {
                object.remove(key);
            }
            Some(inner) => structural(inner),
            None => {}
        }
    }
    if object.get("type").is_none() {
        object.insert("type".to_owned(), json!("object"));
        object.insert(
            "x-kubernetes-preserve-unknown-fields".to_owned(),
            json!(true),
        );
    }
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
