//! The OpenAPI v2 document of everything served, made from the v3 documents: older tools and client generators read it.

use crate::scheme::ResourceInfo;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

const GVK: &str = "x-kubernetes-group-version-kind";

/// Words of v3 that v2 does not have.
const NOT_IN_V2: [&str; 5] = [
    "oneOf",
    "anyOf",
    "not",
    "nullable",
    "x-kubernetes-validations",
];

/// Paths and definitions of some group-versions.
#[derive(Default)]
struct Parts {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Parts {
    fn add(&mut self, v3: &Value) {
        for (name, schema) in v3["components"]["schemas"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if !self.definitions.contains_key(name) {
                self.definitions.insert(name.clone(), definition(schema));
            }
        }
        for (path, item) in v3["paths"].as_object().into_iter().flatten() {
            self.paths.insert(path.clone(), self::item(item));
        }
    }
}

/// The inside of an object's braces.
fn members(map: &Map<String, Value>) -> String {
    let text = Value::Object(map.clone()).to_string();
    text[1..text.len() - 1].to_owned()
}

/// Paths and definitions of the built-in kinds as text, and the names of these definitions: they never change.
static BUILTIN: LazyLock<(String, String, HashSet<String>)> = LazyLock::new(|| {
    let mut parts = Parts::default();
    for (group, version) in crate::scheme::builtin_group_versions() {
        if let Some(v3) = super::builtin_value(&group, &version) {
            parts.add(&v3);
        }
    }
    let names = parts.definitions.keys().cloned().collect();
    (members(&parts.paths), members(&parts.definitions), names)
});

/// What the document says about itself.
const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.32";

/// What CRDs add to the built-in parts.
fn added(crds: &[Arc<ResourceInfo>]) -> Parts {
    let mut parts = Parts::default();
    let mut done: Vec<(&str, &str)> = Vec::new();
    for r in crds {
        if done.contains(&(&r.group, &r.version)) {
            continue;
        }
        done.push((&r.group, &r.version));
        let v3 = super::document(crds, &r.group, &r.version)
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let Some(v3) = v3 {
            parts.add(&v3);
        }
    }
    parts
        .definitions
        .retain(|name, _| !BUILTIN.2.contains(name));
    parts
}

/// The body of `GET /openapi/v2` as protobuf, which kubectl reads. `crds`: all resources of CRDs.
pub fn protobuf(crds: &[Arc<ResourceInfo>]) -> Vec<u8> {
    // Definitions only, and for the moment: as values they take many times the memory of their text.
    let mut built_in: Map<String, Value> = serde_json::from_str(&format!("{{{}}}", BUILTIN.1))
        .expect("the definitions were written from values");
    super::descriptions::describe(&mut built_in);
    let added = added(crds).definitions;
    super::v2_protobuf::document(TITLE, VERSION, [&built_in, &added])
}

/// The body of `GET /openapi/v2`. `crds`: all resources of CRDs.
pub fn document(crds: &[Arc<ResourceInfo>]) -> String {
    let (paths, definitions, _) = &*BUILTIN;
    let parts = added(crds);
    let join = |builtin: &str, own: &Map<String, Value>| {
        let own = members(own);
        let comma = if own.is_empty() { "" } else { "," };
        format!("{builtin}{comma}{own}")
    };
    format!(
        "{{\"swagger\":\"2.0\",\"info\":{{\"title\":\"{TITLE}\",\"version\":\"{VERSION}\"}},\"paths\":{{{}}},\"definitions\":{{{}}}}}",
        join(paths, &parts.paths),
        join(definitions, &parts.definitions)
    )
}

/// A schema in the words of v2.
fn definition(schema: &Value) -> Value {
    match schema {
        Value::Object(m) => {
            if let [only] = m
                .get("allOf")
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice)
                && only.get("$ref").is_some()
            {
                // A reference with a default beside it.
                let mut out = definition(only);
                if let Some(text) = m.get("description") {
                    out["description"] = text.clone();
                }
                return out;
            }
            if m.contains_key(GVK)
                && m.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
            {
                // An object of any form: properties would close it.
                let mut out = m.clone();
                out.retain(|key, _| key == "type" || key == GVK);
                return Value::Object(out);
            }
            let any = m.get("nullable") == Some(&Value::Bool(true));
            let open = m.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            let mut out = Map::new();
            if m.contains_key("oneOf") && !m.contains_key("type") && m["oneOf"].is_array() && !any {
                // A number or a text: v2 says text.
                out.insert("type".into(), "string".into());
            }
            for (key, value) in m {
                // What may be null has no type in v2, and what is open cannot be closed by properties.
                let dropped = NOT_IN_V2.contains(&key.as_str())
                    || key == "allOf"
                    || (any && matches!(key.as_str(), "type" | "items" | "properties"))
                    || (open && key == "items");
                if dropped {
                    continue;
                }
                let value = match key.as_str() {
                    "$ref" => reference(value),
                    "properties" => value
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, schema)| (name.clone(), definition(schema)))
                        .collect::<Map<_, _>>()
                        .into(),
                    "items" | "additionalProperties" => definition(value),
                    _ => value.clone(),
                };
                out.insert(key.clone(), value);
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

fn reference(target: &Value) -> Value {
    target
        .as_str()
        .map(|t| t.replace("#/components/schemas/", "#/definitions/"))
        .into()
}

/// A path with its operations.
fn item(item: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let value = if key == "parameters" {
            value
                .as_array()
                .into_iter()
                .flatten()
                .map(parameter)
                .collect()
        } else {
            operation(value)
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

/// `schema` of a parameter lies beside its name in v2.
fn parameter(p: &Value) -> Value {
    let mut out = p.as_object().cloned().unwrap_or_default();
    if let Some(Value::Object(schema)) = out.shift_remove("schema") {
        out.extend(schema);
    }
    Value::Object(out)
}

fn operation(op: &Value) -> Value {
    let Some(op) = op.as_object() else {
        return op.clone();
    };
    let mut out = Map::new();
    let mut parameters: Vec<Value> = Vec::new();
    let mut produces: Vec<String> = Vec::new();
    for (key, value) in op {
        match key.as_str() {
            "parameters" => {
                parameters.extend(value.as_array().into_iter().flatten().map(parameter));
            }
            "requestBody" => {
                let content = value["content"].as_object();
                let media: Vec<&String> = content.into_iter().flat_map(|c| c.keys()).collect();
                let schema = content
                    .and_then(|c| c.values().next())
                    .map(|m| &m["schema"]);
                parameters.insert(
                    0,
                    json!({"name": "body", "in": "body", "required": true,
                        "schema": schema.map(definition).unwrap_or_default()}),
                );
                out.insert("consumes".into(), json!(media));
            }
            "responses" => {
                let mut responses = Map::new();
                for (code, response) in value.as_object().into_iter().flatten() {
                    let mut new = Map::new();
                    new.insert("description".into(), response["description"].clone());
                    for (media, content) in response["content"].as_object().into_iter().flatten() {
                        if !produces.contains(media) {
                            produces.push(media.clone());
                        }
                        if content["schema"].is_object() {
                            new.insert("schema".into(), definition(&content["schema"]));
                        }
                    }
                    responses.insert(code.clone(), Value::Object(new));
                }
                out.insert("responses".into(), Value::Object(responses));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    if !parameters.is_empty() {
        out.insert("parameters".into(), parameters.into());
    }
    out.insert("produces".into(), json!(produces));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_refer_to_each_other() {
        let crd = json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "a": {"type": "string", "nullable": true}, "b": {"type": "integer", "anyOf": []}}}}}}}]}});
        let doc = document(&crate::scheme::from_crd(&crd));
        let doc: Value = serde_json::from_str(&doc).unwrap();
        let foo = &doc["definitions"]["com.example.v1.Foo"]["properties"];
        assert_eq!(
            foo["spec"]["properties"],
            json!({"a": {}, "b": {"type": "integer"}})
        );
        assert_eq!(
            foo["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        let list = &doc["paths"]["/api/v1/namespaces/{namespace}/pods"]["get"];
        assert_eq!(
            list["responses"]["200"]["schema"]["$ref"],
            "#/definitions/io.k8s.api.core.v1.PodList"
        );
        assert!(
            !doc.to_string().contains("#/components/"),
            "a reference of v3 is left"
        );
    }
}
