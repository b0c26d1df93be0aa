//! The OpenAPI document of a service, put together from a short list of operations.

use serde_json::{Map, Value, json};

/// One operation of a service.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The verb in lower case: `get`, `post`.
    pub verb: &'static str,
    /// The path with parameters in braces: `/users/{id}`.
    pub path: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The schema of the body it takes, by name.
    pub request: Option<&'static str>,
    /// The success status and the schema of the answer, by name; `[]` before the name means a list.
    pub answer: (u16, &'static str),
    /// Other statuses it can answer with.
    pub errors: &'static [u16],
}

/// The OpenAPI 3.1 document for `operations` with the given schemas.
#[must_use]
pub fn document(service: &str, operations: &[Operation], schemas: Value) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": service, "version": env!("CARGO_PKG_VERSION")},
        "paths": {},
        "components": {"schemas": {"Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
            }},
        }}},
    });
    extend(&mut document, operations, schemas);
    document
}

/// Adds operations and schemas to a document.
pub(crate) fn extend(document: &mut Value, operations: &[Operation], schemas: Value) {
    for operation in operations {
        document["paths"][operation.path][operation.verb] = describe(operation);
    }
    for (name, schema) in schemas.as_object().into_iter().flatten() {
        document["components"]["schemas"][name] = schema.clone();
    }
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let (status, answer) = operation.answer;
    let mut responses = Map::new();
    responses.insert(
        status.to_string(),
        json!({"description": "success", "content": {"application/json": {"schema": schema(answer)}}}),
    );
    for error in operation.errors {
        responses.insert(
            error.to_string(),
            json!({"description": "error", "content": {"application/json": {"schema": schema("Error")}}}),
        );
    }
    let mut described = json!({"summary": operation.summary, "responses": responses});
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(request) = operation.request {
        described["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": schema(request)}},
        });
    }
    described
}

fn schema(name: &str) -> Value {
    match name.strip_prefix("[]") {
        Some(item) => json!({"type": "array", "items": schema(item)}),
        None => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}
