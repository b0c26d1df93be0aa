//! Defaults that the schema of a custom resource says.

use crate::schema::{Additional, Document, NodeId, ObjectSchema};
use serde_json::Value;

/// Fills in the schema's defaults. A null where null is no value counts as absent.
pub fn apply(schema: &ObjectSchema, obj: &mut Value) {
    if !schema.preserve_all {
        walk(&schema.doc, schema.root, obj);
    }
}

fn walk(doc: &Document, id: NodeId, v: &mut Value) {
    let node = doc.resolve(id);
    match v {
        Value::Object(map) => {
            // Null that is no value is no field.
            map.retain(|key, v| {
                let p = node.properties.get(key).or(match &node.additional {
                    Some(Additional::Schema(s)) => Some(s),
                    _ => None,
                });
                !v.is_null() || p.is_none_or(|p| doc.node(*p).nullable || doc.resolve(*p).nullable)
            });
            for (key, p) in &node.properties {
                let own = doc.node(*p);
                let default = &own.default;
                let absent = !map.contains_key(key);
                if absent && !default.is_null() {
                    map.insert(key.clone(), default.clone());
                }
                if let Some(v) = map.get_mut(key) {
                    walk(doc, *p, v);
                }
            }
            if let Some(Additional::Schema(s)) = node.additional {
                for (k, v) in map.iter_mut() {
                    if !node.properties.contains_key(k) {
                        walk(doc, s, v);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = node.items {
                items.iter_mut().for_each(|v| walk(doc, item, v));
            }
        }
        _ => {}
    }
}
