//! The schemas of Istio's kinds, derived from the structs. They are compiled for `cargo xtask crds` only, which writes them
//! into `crd_schemas.json`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use super::crd_constraints as constraints;
use super::*;

/// The schema of a kind's `spec` in the structural form that Kubernetes demands; `None` for a kind that is not Istio's.
pub fn derived(kind: &str) -> Option<Value> {
    let mut spec = match kind {
        "AuthorizationPolicy" => schema_of::<AuthorizationPolicy>(),
        "DestinationRule" => schema_of::<DestinationRule>(),
        "EnvoyFilter" => schema_of::<EnvoyFilter>(),
        "Gateway" => schema_of::<Gateway>(),
        "PeerAuthentication" => schema_of::<PeerAuthentication>(),
        "ProxyConfig" => schema_of::<ProxyConfig>(),
        "RequestAuthentication" => schema_of::<RequestAuthentication>(),
        "ServiceEntry" => schema_of::<ServiceEntry>(),
        "Sidecar" => schema_of::<Sidecar>(),
        "Telemetry" => schema_of::<Telemetry>(),
        "TrafficExtension" => schema_of::<TrafficExtension>(),
        "VirtualService" => schema_of::<VirtualService>(),
        "WasmPlugin" => schema_of::<WasmPlugin>(),
        "WorkloadEntry" => schema_of::<WorkloadEntry>(),
        "WorkloadGroup" => schema_of::<WorkloadGroup>(),
        _ => return None,
    };
    constraints::apply(kind, &mut spec);
    Some(spec)
}

fn schema_of<T: JsonSchema>() -> Value {
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

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-kubernetes-validations": [
                {"message": "must be a valid duration greater than 1ms", "rule": "duration(self) >= duration('1ms')"}
            ]
        })
    }
}
