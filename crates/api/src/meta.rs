//! Access to `ObjectMeta` on untyped objects.

use serde_json::{Map, Value, json};

/// The annotation of a DaemonSet that counts its templates; the server's own, which nobody can change.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// How deep an object may nest. JSON parsers stop at some depth, that of serde at 128; lists, watch events and reviews carry objects, and
/// their readers have to get through those.
pub const DEEPEST: usize = 120;

/// Whether a value nests deeper than `limit` lists and maps.
pub fn nests_deeper(value: &Value, limit: usize) -> bool {
    let Some(below) = limit.checked_sub(1) else {
        return value.is_array() || value.is_object();
    };
    match value {
        Value::Array(items) => items.iter().any(|v| nests_deeper(v, below)),
        Value::Object(map) => map.values().any(|v| nests_deeper(v, below)),
        _ => false,
    }
}

/// `metadata.name`, empty when absent.
pub fn name(obj: &Value) -> &str {
    str_at(obj, "name")
}
/// `metadata.namespace`, empty when absent or cluster-scoped.
pub fn namespace(obj: &Value) -> &str {
    str_at(obj, "namespace")
}
/// `metadata.uid`, empty when absent.
pub fn uid(obj: &Value) -> &str {
    str_at(obj, "uid")
}
/// `metadata.resourceVersion`, empty when absent.
pub fn resource_version(obj: &Value) -> &str {
    str_at(obj, "resourceVersion")
}
/// `metadata.generateName`, empty when absent.
pub fn generate_name(obj: &Value) -> &str {
    str_at(obj, "generateName")
}
/// `metadata.generation`, 0 when absent.
pub fn generation(obj: &Value) -> i64 {
    obj["metadata"]["generation"].as_i64().unwrap_or(0)
}
/// `metadata.creationTimestamp`.
pub fn creation_timestamp(obj: &Value) -> Option<&str> {
    obj["metadata"]["creationTimestamp"].as_str()
}
/// `metadata.deletionTimestamp`; present on an object that is waiting for finalizers or its grace period.
pub fn deletion_timestamp(obj: &Value) -> Option<&str> {
    obj["metadata"]["deletionTimestamp"].as_str()
}
/// `kind`, empty when absent.
pub fn kind(obj: &Value) -> &str {
    obj["kind"].as_str().unwrap_or("")
}
/// `apiVersion`, empty when absent.
pub fn api_version(obj: &Value) -> &str {
    obj["apiVersion"].as_str().unwrap_or("")
}

fn str_at<'a>(obj: &'a Value, key: &str) -> &'a str {
    obj["metadata"][key].as_str().unwrap_or("")
}

/// Splits `apiVersion` into (group, version); the core group is the empty string.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version into an `apiVersion`.
pub fn join_group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    }
}

/// `namespace/name`, or `name` for a cluster-scoped object.
pub fn key(obj: &Value) -> String {
    let ns = namespace(obj);
    if ns.is_empty() {
        name(obj).to_string()
    } else {
        format!("{ns}/{}", name(obj))
    }
}

/// The metadata map, created when absent. A non-object `obj` or metadata becomes an object.
pub fn metadata_mut(obj: &mut Value) -> &mut Map<String, Value> {
    map_mut(obj, "metadata")
}

/// The map at `key` of `obj`, created when absent or of another type.
pub fn map_mut<'a>(obj: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !obj.is_object() {
        *obj = json!({});
    }
    let slot = &mut obj[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("just made an object")
}

/// Sets a metadata field.
pub fn set(obj: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(obj).insert(field.to_string(), value.into());
}

/// Removes a metadata field.
pub fn unset(obj: &mut Value, field: &str) {
    if let Some(m) = obj.get_mut("metadata").and_then(Value::as_object_mut) {
        m.shift_remove(field);
    }
}

/// Labels as pairs, in the object's order.
pub fn labels(obj: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(&obj["metadata"]["labels"])
}
/// Annotations as pairs, in the object's order.
pub fn annotations(obj: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(&obj["metadata"]["annotations"])
}
/// One label.
pub fn label<'a>(obj: &'a Value, key: &str) -> Option<&'a str> {
    obj["metadata"]["labels"][key].as_str()
}
/// One annotation.
pub fn annotation<'a>(obj: &'a Value, key: &str) -> Option<&'a str> {
    obj["metadata"]["annotations"][key].as_str()
}
/// The string pairs of a map; anything else yields none.
pub fn pairs(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    map.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}
/// Finalizers, in order.
pub fn finalizers(obj: &Value) -> impl Iterator<Item = &str> {
    obj["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
/// The entries of a list; none where there is no list.
pub fn list(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}
/// Owner references, in order.
pub fn owner_references(obj: &Value) -> &[Value] {
    list(&obj["metadata"]["ownerReferences"])
}
/// The owner that manages the object (`controller: true`).
pub fn controller_of(obj: &Value) -> Option<&Value> {
    owner_references(obj)
        .iter()
        .find(|r| r["controller"] == true)
}
/// An owner reference to `owner` that makes it the managing controller.
pub fn controller_ref(owner: &Value) -> Value {
    json!({
        "apiVersion": api_version(owner), "kind": kind(owner), "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The characters Kubernetes builds generated names from: no vowels and no look-alikes, so no words appear.
pub const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name from `generateName` and randomness: the prefix cut to 58 bytes plus five characters.
pub fn generated_name(prefix: &str, random: [u8; 5]) -> String {
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = prefix[..end].to_string();
    out.extend(
        random
            .iter()
            .map(|b| NAME_ALPHABET[*b as usize % NAME_ALPHABET.len()] as char),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_metadata() {
        let mut o = json!({"kind": "Pod", "apiVersion": "v1"});
        set(&mut o, "name", "x");
        set(&mut o, "namespace", "d");
        assert_eq!(key(&o), "d/x");
        unset(&mut o, "namespace");
        assert_eq!(key(&o), "x");
        assert_eq!(group_version("apps/v1"), ("apps", "v1"));
        assert_eq!(group_version("v1"), ("", "v1"));
    }

    #[test]
    fn generated_names_keep_the_prefix_and_fit() {
        assert_eq!(generated_name("web-", [0, 1, 2, 3, 4]), "web-bcdfg");
        assert_eq!(generated_name(&"a".repeat(80), [0; 5]).len(), 63);
    }
}
