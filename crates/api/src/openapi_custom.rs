//! The OpenAPI v3 document of a group-version of custom resources.

use super::descriptions;
use crate::meta;
use crate::scheme::ResourceInfo;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// A member that all objects have, as `kubectl explain` shows it.
fn described(text: Option<Value>, mut schema: Value) -> Value {
    if let Some(text) = text {
        schema["description"] = text;
    }
    schema
}

/// The document for resources of one group-version.
pub fn document(resources: &[&Arc<ResourceInfo>]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let core = super::builtin_value("", "v1").expect("the core document is embedded");
    for name in ["ObjectMeta", "ListMeta", "DeleteOptions", "Patch", "Status"] {
        include(
            &core["components"]["schemas"],
            &format!("{META}{name}"),
            &mut schemas,
        );
    }
    descriptions::describe(&mut schemas);
    for r in resources {
        let crd = r.crd.as_deref().unwrap_or(&Value::Null);
        let version = crd["spec"]["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|v| v["name"] == r.version.as_str());
        let schema = version.map_or(&Value::Null, |v| &v["schema"]["openAPIV3Schema"]);
        add_schemas(r, schema, &mut schemas);
        add_paths(r, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Copies a component and all it refers to.
fn include(from: &Value, name: &str, into: &mut Map<String, Value>) {
    if into.contains_key(name) {
        return;
    }
    let Some(schema) = from.get(name) else { return };
    into.insert(name.to_string(), schema.clone());
    let mut found = Vec::new();
    references(schema, &mut found);
    for f in found {
        include(from, &f, into);
    }
}

fn references(v: &Value, into: &mut Vec<String>) {
    match v {
        Value::Object(m) => {
            if let Some(name) = m
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix("#/components/schemas/"))
            {
                into.push(name.to_string());
            }
            m.values().for_each(|v| references(v, into));
        }
        Value::Array(a) => a.iter().for_each(|v| references(v, into)),
        _ => {}
    }
}

/// `io.istio.networking.v1.VirtualService`: the group's labels reversed, version, kind.
fn component(r: &ResourceInfo, kind: &str) -> String {
    let reversed: Vec<&str> = r.group.split('.').rev().collect();
    format!("{}.{}.{kind}", reversed.join("."), r.version)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn add_schemas(r: &ResourceInfo, schema: &Value, schemas: &mut Map<String, Value>) {
    let gvk = |kind: &str| json!([{"group": r.group, "kind": kind, "version": r.version}]);
    // Properties only where there is a schema: clients take what is not among them for forbidden.
    let mut object = json!({"type": "object"});
    if schema.is_object() {
        object = schema.clone();
        let properties = meta::map_mut(&mut object, "properties");
        for field in ["apiVersion", "kind"] {
            let text = descriptions::of_type(&field.to_ascii_lowercase());
            properties.insert(field.into(), described(text, json!({"type": "string"})));
        }
        let metadata = json!({"allOf": [reference(&format!("{META}ObjectMeta"))]});
        properties.insert(
            "metadata".into(),
            described(descriptions::of_metadata(), metadata),
        );
        properties.sort_keys();
    }
    object["x-kubernetes-group-version-kind"] = gvk(&r.kind);
    schemas.insert(component(r, &r.kind), object);
    schemas.insert(
        component(r, &r.list_kind),
        json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": reference(&component(r, &r.kind))},
                "kind": {"type": "string"},
                "metadata": {"allOf": [reference(&format!("{META}ListMeta"))]},
            },
            "x-kubernetes-group-version-kind": gvk(&r.list_kind),
        }),
    );
}

fn query(name: &str, ty: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn list_parameters() -> Vec<Value> {
    [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ]
    .iter()
    .map(|(n, t)| query(n, t))
    .collect()
}

fn write_parameters(force: bool) -> Vec<Value> {
    let mut out: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|n| query(n, "string"))
        .collect();
    if force {
        out.push(query("force", "boolean"));
    }
    out
}

fn add_paths(r: &ResourceInfo, paths: &mut Map<String, Value>) {
    let base = format!("/apis/{}/{}", r.group, r.version);
    let object = component(r, &r.kind);
    let list = component(r, &r.list_kind);
    let status = format!("{META}Status");
    let operation = |action: &str,
                     verb: &str,
                     suffix: &str,
                     parameters: Vec<Value>,
                     codes: &[&str],
                     answer: &str| {
        let mut responses = Map::new();
        for code in codes {
            let text = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            responses.insert((*code).into(), json!({"description": text, "content": {"application/json": {"schema": reference(answer)}}}));
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        json!({
            "operationId": format!("{verb}{}{}{}{}{suffix}", camel(&r.group), camel(&r.version),
                                   if r.namespaced { "Namespaced" } else { "" }, r.kind),
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": r.group, "version": r.version, "kind": r.kind},
        })
    };
    let with_body = |mut op: Value, media: &[&str], body: &str| {
        let content: Map<String, Value> = media
            .iter()
            .map(|m| ((*m).to_string(), json!({"schema": reference(body)})))
            .collect();
        op["requestBody"] = json!({"content": content, "required": true});
        op
    };
    let patch_media = [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    let patch_body = format!("{META}Patch");
    let (collection, mut shared) = if r.namespaced {
        (
            format!("{base}/namespaces/{{namespace}}/{}", r.plural),
            vec![in_path("namespace"), query("pretty", "string")],
        )
    } else {
        (
            format!("{base}/{}", r.plural),
            vec![query("pretty", "string")],
        )
    };
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", "list", "", list_parameters(), &["200"], &list),
            "post": with_body(operation("post", "create", "", write_parameters(false), &["200", "201", "202"], &object), &["*/*"], &object),
            "delete": operation("deletecollection", "deleteCollection", "", list_parameters(), &["200"], &status),
            "parameters": shared,
        }),
    );
    if r.namespaced {
        let mut parameters = list_parameters();
        parameters.push(query("pretty", "string"));
        paths.insert(
            format!("{base}/{}", r.plural),
            json!({"get": operation("list", "list", "ForAllNamespaces", vec![], &["200"], &list), "parameters": parameters}),
        );
    }
    shared.insert(0, in_path("name"));
    let one = |suffix: &str| {
        json!({
            "get": operation("get", "read", suffix, vec![query("resourceVersion", "string")], &["200"], &object),
            "put": with_body(operation("put", "replace", suffix, write_parameters(false), &["200", "201"], &object), &["*/*"], &object),
            "patch": with_body(operation("patch", "patch", suffix, write_parameters(true), &["200"], &object), &patch_media, &patch_body),
            "parameters": shared,
        })
    };
    let mut item = one("");
    let delete_parameters = vec![
        query("dryRun", "string"),
        query("gracePeriodSeconds", "integer"),
        query("orphanDependents", "boolean"),
        query("propagationPolicy", "string"),
    ];
    let mut delete = operation(
        "delete",
        "delete",
        "",
        delete_parameters,
        &["200", "202"],
        &status,
    );
    delete["requestBody"] =
        json!({"content": {"*/*": {"schema": reference(&format!("{META}DeleteOptions"))}}});
    item["delete"] = delete;
    paths.insert(format!("{collection}/{{name}}"), item);
    if r.subresource("status").is_some() {
        paths.insert(format!("{collection}/{{name}}/status"), one("Status"));
    }
}

/// `networking.istio.io` as `NetworkingIstioIo`.
fn camel(s: &str) -> String {
    s.split(['.', '-'])
        .map(|part| {
            let mut c = part.chars();
            c.next()
                .map(|f| f.to_uppercase().collect::<String>() + c.as_str())
                .unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crd_gets_paths_and_schemas() {
        let crd = json!({"spec": {"group": "probe.io", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                          "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]}});
        let rs = crate::scheme::from_crd(&crd);
        let doc = document(&rs.iter().collect::<Vec<_>>());
        let keys: Vec<&String> = doc["paths"].as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "/apis/probe.io/v1/namespaces/{namespace}/widgets",
                "/apis/probe.io/v1/widgets",
                "/apis/probe.io/v1/namespaces/{namespace}/widgets/{name}",
                "/apis/probe.io/v1/namespaces/{namespace}/widgets/{name}/status"
            ]
        );
        assert_eq!(
            doc["components"]["schemas"]["io.probe.v1.Widget"]["properties"]
                .as_object()
                .unwrap()
                .len(),
            4
        );
        assert!(
            doc["components"]["schemas"]
                .get("io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry")
                .is_some()
        );
        assert_eq!(
            doc["paths"]["/apis/probe.io/v1/namespaces/{namespace}/widgets"]["post"]["operationId"],
            "createProbeIoV1NamespacedWidget"
        );
    }
}
