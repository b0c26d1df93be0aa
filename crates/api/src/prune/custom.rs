//! Pruning of custom resources by their structural schema.

use super::typed;
use crate::field::child;
use crate::schema::{Additional, Document, NodeId, ObjectSchema, Type};
use serde_json::Value;

/// Drops what the schema does not know; paths of what was dropped go to `unknown`, sorted. Metadata of a wrong type is
/// the error.
pub fn prune(
    schema: &ObjectSchema,
    obj: &mut Value,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let start = unknown.len();
    let metadata = typed::walk_metadata(obj, "", unknown);
    if !schema.preserve_all {
        walk(&schema.doc, schema.root, obj, "", true, unknown);
    }
    unknown[start..].sort();
    metadata
}

fn walk(
    doc: &Document,
    id: NodeId,
    v: &mut Value,
    path: &str,
    whole_object: bool,
    unknown: &mut Vec<String>,
) {
    let node = doc.resolve(id);
    if node.embedded {
        // Validation names what is wrong with an embedded object.
        let _ = typed::walk_metadata(v, path, unknown);
    }
    match v {
        Value::Array(items) => {
            for (i, v) in items.iter_mut().enumerate() {
                let here = format!("{path}[{i}]");
                match node.items {
                    Some(item) => walk(doc, item, v, &here, false, unknown),
                    None if node.preserve_unknown => {}
                    None => empty(v, &here, unknown),
                }
            }
        }
        Value::Object(map) => {
            let whole = whole_object || node.embedded;
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                if whole && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                let here = child(path, &key);
                if let Some(p) = node.properties.get(&key) {
                    walk(doc, *p, &mut map[&key], &here, false, unknown);
                    continue;
                }
                match &node.additional {
                    Some(Additional::Schema(s)) => {
                        walk(doc, *s, &mut map[&key], &here, false, unknown)
                    }
                    Some(Additional::Any(true)) => {}
                    _ if node.preserve_unknown => {}
                    _ if node.ty == Type::Any
                        && node.properties.is_empty()
                        && node.int_or_string => {}
                    _ => {
                        map.shift_remove(&key);
                        unknown.push(here);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Drops the fields of objects in a list where the schema knows none: their names are unknown, and only then is the list wrong.
fn empty(v: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match v {
        Value::Array(items) => {
            for (i, v) in items.iter_mut().enumerate() {
                empty(v, &format!("{path}[{i}]"), unknown);
            }
        }
        Value::Object(map) => {
            unknown.extend(map.keys().map(|key| child(path, key)));
            map.clear();
        }
        _ => {}
    }
}
