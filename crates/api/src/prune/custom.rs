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
            let Some(item) = node.items else { return };
            for (i, v) in items.iter_mut().enumerate() {
                walk(doc, item, v, &format!("{path}[{i}]"), false, unknown);
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
