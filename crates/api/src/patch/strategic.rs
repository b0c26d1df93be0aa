//! Strategic merge patch: lists merge by the merge keys of the schema; directives replace, delete and order.

use crate::schema::{Additional, Document, NodeId, ObjectSchema};
use crate::status::StatusError;
use serde_json::{Map, Value};

const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of a built-in kind.
pub fn strategic(schema: &ObjectSchema, obj: &Value, patch: &Value) -> Result<Value, StatusError> {
    super::must_be_object(super::PatchKind::Strategic, patch)?;
    let (Value::Object(original), Value::Object(patch)) = (obj, patch) else {
        return Err(StatusError::internal("the stored object is not an object"));
    };
    let merged = merge_maps(
        &schema.doc,
        Some(schema.root),
        original.clone(),
        patch.clone(),
    )?;
    Ok(Value::Object(merged))
}

type Result_<T> = Result<T, StatusError>;

/// A patch that means nothing. The real server says 500; the mistake is the client's.
fn malformed(message: String) -> StatusError {
    StatusError::new(400, "", message)
}

fn bad_type(patch: &str, v: &Value) -> StatusError {
    let map = crate::go::fmt::value(v);
    malformed(format!("unknown patch type: {patch} in map: {map}"))
}

/// The schema of a member.
fn member(doc: &Document, id: Option<NodeId>, key: &str) -> Option<NodeId> {
    let node = doc.resolve(id?);
    node.properties.get(key).copied().or(match node.additional {
        Some(Additional::Schema(s)) => Some(s),
        _ => None,
    })
}

fn entry(doc: &Document, id: Option<NodeId>) -> Option<NodeId> {
    doc.resolve(id?).items
}

/// How a list merges: `None` replaces; `Some("")` is a set of primitives; else the merge key.
fn list_strategy(doc: &Document, id: Option<NodeId>) -> Option<String> {
    let node = doc.node(id?);
    node.patch_strategy
        .iter()
        .any(|s| s == "merge")
        .then(|| node.patch_merge_key.clone())
}

fn replaces(doc: &Document, id: Option<NodeId>) -> bool {
    id.is_some_and(|id| doc.node(id).patch_strategy.iter().any(|s| s == "replace"))
}

fn merge_maps(
    doc: &Document,
    id: Option<NodeId>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result_<Map<String, Value>> {
    if let Some(directive) = patch.shift_remove("$patch") {
        return match directive.as_str() {
            Some("replace") => Ok(clean(patch)),
            Some("delete") => Ok(Map::new()),
            Some("merge") => merge_maps(doc, id, original, patch),
            other => Err(bad_type(other.unwrap_or("?"), &Value::Object(patch))),
        };
    }
    if let Some(keep) = patch.shift_remove("$retainKeys") {
        let keep: Vec<&str> = keep
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        original.retain(|k, _| keep.contains(&k.as_str()));
    }
    ordered_lists(doc, id, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(list)) = original.get_mut(name) {
                list.retain(|v| !gone.contains(v));
            }
            continue;
        }
        if value.is_null() {
            original.shift_remove(&key);
            continue;
        }
        let sub = member(doc, id, &key);
        let merged = match (original.get(&key), value) {
            (Some(Value::Object(o)), Value::Object(p)) if !replaces(doc, sub) => {
                let delete = p.get("$patch").and_then(Value::as_str) == Some("delete");
                let merged = merge_maps(doc, sub, o.clone(), p)?;
                if delete {
                    original.shift_remove(&key);
                    continue;
                }
                Value::Object(merged)
            }
            (Some(Value::Array(o)), Value::Array(p)) => {
                Value::Array(merge_lists(doc, sub, o.clone(), p)?)
            }
            (None, Value::Array(p)) if list_strategy(doc, sub).is_some() => {
                Value::Array(merge_lists(doc, sub, Vec::new(), p)?)
            }
            (None, Value::Object(p)) => {
                if p.get("$patch").and_then(Value::as_str) == Some("delete") {
                    continue;
                }
                Value::Object(merge_maps(doc, sub, Map::new(), p)?)
            }
            (_, v) => v,
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// A replacement without directives and nulls.
fn clean(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .filter(|(k, v)| !k.starts_with('$') && !v.is_null())
        .collect()
}

/// Lists with `$setElementOrder`: merged here, ordered, and taken out of the patch.
fn ordered_lists(
    doc: &Document,
    id: Option<NodeId>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result_<()> {
    let orders: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(ORDER))
        .cloned()
        .collect();
    for directive in orders {
        let Some(Value::Array(order)) = patch.shift_remove(&directive) else {
            continue;
        };
        let name = &directive[ORDER.len()..];
        let sub = member(doc, id, name);
        let Some(key) = list_strategy(doc, sub) else {
            continue;
        };
        if let Some(Value::Array(gone)) = patch.shift_remove(&format!("{DELETE_PRIMITIVES}{name}"))
            && let Some(Value::Array(list)) = original.get_mut(name)
        {
            list.retain(|v| !gone.contains(v));
        }
        let before = match original.get(name) {
            Some(Value::Array(a)) => Some(a.clone()),
            _ => None,
        };
        let merged = match (&before, patch.shift_remove(name)) {
            (Some(o), Some(Value::Array(p))) => merge_lists(doc, sub, o.clone(), p)?,
            (Some(o), None) => o.clone(),
            (None, Some(Value::Array(p))) => merge_lists(doc, sub, Vec::new(), p)?,
            (_, Some(Value::Null)) => {
                original.shift_remove(name);
                continue;
            }
            _ => continue,
        };
        let merged = arrange(merged, &order, before.as_deref().unwrap_or(&[]), &key);
        original.insert(name.to_string(), Value::Array(merged));
    }
    Ok(())
}

fn merge_lists(
    doc: &Document,
    id: Option<NodeId>,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result_<Vec<Value>> {
    let Some(key) = list_strategy(doc, id) else {
        return Ok(patch);
    };
    if key.is_empty() {
        let mut merged = original.clone();
        for v in &patch {
            if !merged.contains(v) {
                merged.push(v.clone());
            }
        }
        return Ok(arrange(merged, &patch, &original, &key));
    }
    let item = entry(doc, id);
    let mut merged = original.clone();
    let mut rest = Vec::new();
    let mut replace = false;
    for p in patch {
        let Value::Object(mut m) = p else {
            rest.push(p);
            continue;
        };
        match m.get("$patch").and_then(Value::as_str) {
            Some("delete") => {
                let Some(k) = m.get(&key) else {
                    return Err(malformed(format!(
                        "delete patch type with no merge key defined in {}",
                        Value::Object(m)
                    )));
                };
                merged.retain(|o| o.get(&key) != Some(k));
            }
            Some("replace") => {
                replace = true;
                m.shift_remove("$patch");
                if !m.is_empty() {
                    rest.push(Value::Object(m));
                }
            }
            Some("merge") | None => {
                m.shift_remove("$patch");
                rest.push(Value::Object(m));
            }
            Some(other) => return Err(bad_type(other, &Value::Object(m.clone()))),
        }
    }
    if replace {
        return Ok(rest);
    }
    for p in &rest {
        let Some(k) = p.get(&key) else {
            return Err(malformed(format!(
                "map: {} does not contain declared merge key: {key}",
                crate::go::fmt::value(p)
            )));
        };
        let found = merged.iter().position(|o| o.get(&key) == Some(k));
        let base = match found {
            Some(i) => merged[i].as_object().cloned().unwrap_or_default(),
            None => Map::new(),
        };
        let new = Value::Object(merge_maps(
            doc,
            item,
            base,
            p.as_object().cloned().unwrap_or_default(),
        )?);
        match found {
            Some(i) => merged[i] = new,
            None => merged.push(new),
        }
    }
    Ok(arrange(merged, &rest, &original, &key))
}

/// Orders a merged list: entries named by the patch in the patch's order; the server's own entries keep their relative
/// order and stand before the first patch entry that followed them in the live list.
fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: &str) -> Vec<Value> {
    let same = |a: &Value, b: &Value| {
        if key.is_empty() {
            a == b
        } else {
            a.get(key) == b.get(key)
        }
    };
    let index = |list: &[Value], v: &Value| list.iter().position(|o| same(o, v));
    let (mut named, own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| index(order, v).is_some());
    named.sort_by_key(|v| index(order, v));
    let mut out = Vec::with_capacity(named.len() + own.len());
    let (mut own, mut named) = (own.into_iter().peekable(), named.into_iter().peekable());
    loop {
        match (own.peek(), named.peek()) {
            (Some(o), Some(n)) => {
                let before =
                    matches!((index(live, o), index(live, n)), (Some(a), Some(b)) if a < b);
                out.extend(if before { own.next() } else { named.next() });
            }
            (Some(_), None) => out.extend(own.next()),
            (None, Some(_)) => out.extend(named.next()),
            (None, None) => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(kind: (&str, &str), o: Value, p: Value) -> Value {
        let s = ObjectSchema::builtin(kind.0, "v1", kind.1).unwrap();
        strategic(&s, &o, &p).unwrap()
    }
    const POD: (&str, &str) = ("", "Pod");

    #[test]
    fn containers_merge_by_name_and_keep_their_order() {
        let o = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
        let out = patched(
            POD,
            o.clone(),
            json!({"spec": {"containers": [{"name": "b", "image": "3"}]}}),
        );
        assert_eq!(
            out,
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}})
        );
        let out = patched(
            POD,
            o.clone(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c", "image": "9"}, {"name": "b", "$patch": "delete"}]}}),
        );
        assert_eq!(
            out,
            json!({"spec": {"containers": [{"name": "c", "image": "9"}, {"name": "a", "image": "1"}]}})
        );
        let out = patched(
            POD,
            o,
            json!({"spec": {"containers": [{"name": "x", "image": "9"}, {"$patch": "replace"}]}}),
        );
        assert_eq!(
            out,
            json!({"spec": {"containers": [{"name": "x", "image": "9"}]}})
        );
    }

    #[test]
    fn atomic_lists_are_replaced_and_maps_merged() {
        let o = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]}, "spec": {"containers": [{"name": "a", "command": ["x", "y"]}]}});
        let out = patched(
            POD,
            o,
            json!({"metadata": {"labels": {"a": null, "c": "3"}, "finalizers": ["y"]}, "spec": {"containers": [{"name": "a", "command": ["z"]}]}}),
        );
        assert_eq!(
            out,
            json!({"metadata": {"labels": {"b": "2", "c": "3"}, "finalizers": ["y", "x"]}, "spec": {"containers": [{"name": "a", "command": ["z"]}]}})
        );
    }

    #[test]
    fn directives_of_primitive_lists_and_retained_keys() {
        let o = json!({"metadata": {"finalizers": ["x", "y"]}});
        let out = patched(
            POD,
            o,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "$setElementOrder/finalizers": ["y"]}}),
        );
        assert_eq!(out, json!({"metadata": {"finalizers": ["y"]}}));
        let o = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let out = patched(
            ("apps", "Deployment"),
            o,
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        );
        assert_eq!(out, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    }

    #[test]
    fn service_ports_merge_by_port_and_env_by_name() {
        let o = json!({"spec": {"ports": [{"port": 80, "targetPort": 1}]}});
        let out = patched(
            ("", "Service"),
            o,
            json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 81}]}}),
        );
        assert_eq!(
            out["spec"]["ports"],
            json!([{"port": 80, "targetPort": 1, "name": "http"}, {"port": 81}])
        );
        let s = ObjectSchema::builtin("", "v1", "Service").unwrap();
        let e =
            strategic(&s, &json!({}), &json!({"spec": {"ports": [{"name": "x"}]}})).unwrap_err();
        assert!(
            e.message
                .contains("does not contain declared merge key: port"),
            "{}",
            e.message
        );
    }

    #[test]
    fn maps_can_be_replaced_or_deleted_whole() {
        let o = json!({"spec": {"selector": {"a": "1"}, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}});
        let out = patched(
            ("", "Service"),
            o,
            json!({"spec": {"selector": {"$patch": "replace", "b": "2"}, "sessionAffinityConfig": {"$patch": "delete"}}}),
        );
        assert_eq!(out, json!({"spec": {"selector": {"b": "2"}}}));
    }
}
