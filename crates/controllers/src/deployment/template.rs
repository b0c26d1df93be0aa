//! Pod templates: when two are the same, and the hash that names a ReplicaSet.

use serde_json::Value;

use super::TEMPLATE_HASH;

/// Whether two templates make the same pods. The hash label, nulls and the order of members do
/// not count.
pub(crate) fn same_template(one: &Value, other: &Value) -> bool {
    normal(one) == normal(other)
}

/// The hash of a template: stable, and different for another number of collisions.
pub(crate) fn hash(template: &Value, collisions: i64) -> String {
    let mut hash = Fnv::new();
    hash.value(&normal(template));
    if collisions > 0 {
        hash.bytes(&collisions.to_le_bytes());
    }
    // Decimal digits written with letters that spell no words, as Kubernetes does.
    let alphabet = api::meta::NAME_ALPHABET;
    hash.0
        .to_string()
        .bytes()
        .map(|digit| char::from(alphabet[usize::from(digit) % alphabet.len()]))
        .collect()
}

fn normal(template: &Value) -> Value {
    let mut template = without_nulls(template);
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(TEMPLATE_HASH);
    }
    template
}

pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// FNV-1a, 32 bits: short names, and the same on every machine and in every version.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Members in the order of their names.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut members: Vec<_> = map.iter().collect();
                members.sort_by_key(|(key, _)| *key);
                self.bytes(b"{");
                for (key, value) in members {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(value);
                }
                self.bytes(b"}");
            }
            Value::Array(list) => {
                self.bytes(b"[");
                for value in list {
                    self.value(value);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            leaf => self.bytes(leaf.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_nulls_and_the_hash_label_do_not_count() {
        let one = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1, "y": [1, 2]}});
        let other = json!({"spec": {"y": [1, 2], "x": 1, "z": null},
            "metadata": {"creationTimestamp": null, "labels": {TEMPLATE_HASH: "123", "a": "b"}}});
        assert!(same_template(&one, &other));
        assert_eq!(hash(&one, 0), hash(&other, 0));
        assert_ne!(hash(&one, 0), hash(&one, 1));
        let changed = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1, "y": [2, 1]}});
        assert!(!same_template(&one, &changed));
        assert_ne!(hash(&one, 0), hash(&changed, 0));
    }

    #[test]
    fn hashes_stay_the_same_from_version_to_version() {
        assert_eq!(hash(&json!({"spec": {"containers": []}}), 0), "67884c7499");
    }
}
