//! Reading fields of objects as protobuf does: a field that is not there has its zero value, and both of its names are known.

use std::collections::BTreeMap;

use serde_json::Value;

static NULL: Value = Value::Null;

/// Access to the fields of an object.
pub trait Fields {
    /// The field with this lowerCamelCase name, or with its name in the proto file; null where it is missing.
    fn field(&self, name: &str) -> &Value;

    /// The field as text, empty where it is none.
    fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }

    /// The field as a list, empty where it is none.
    fn items(&self, name: &str) -> &[Value] {
        self.field(name).as_array().map_or(&[], Vec::as_slice)
    }

    /// The texts in a list.
    fn texts(&self, name: &str) -> Vec<&str> {
        self.items(name).iter().filter_map(Value::as_str).collect()
    }

    /// The texts of a map, such as labels.
    fn texts_by_key(&self, name: &str) -> BTreeMap<String, String> {
        self.field(name)
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// The field as a whole number, 0 where it is none.
    fn number(&self, name: &str) -> i64 {
        let value = self.field(name);
        value
            .as_i64()
            .or_else(|| value.as_f64().map(|number| number as i64))
            .or_else(|| value.as_str()?.parse().ok())
            .unwrap_or_default()
    }

    /// Whether the field is there and not null.
    fn has(&self, name: &str) -> bool {
        !self.field(name).is_null()
    }

    /// The field as the name of an enum's value; numbers are looked up in `names`.
    fn choice<'a>(&'a self, name: &str, names: &[&'a str]) -> &'a str {
        match self.field(name) {
            Value::String(text) => text,
            Value::Number(number) => number
                .as_u64()
                .and_then(|number| names.get(number as usize).copied())
                .unwrap_or_default(),
            _ => names.first().copied().unwrap_or_default(),
        }
    }
}

impl Fields for Value {
    fn field(&self, name: &str) -> &Value {
        let Some(object) = self.as_object() else {
            return &NULL;
        };
        if let Some(value) = object.get(name) {
            return value;
        }
        if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return &NULL;
        }
        object.get(&proto_name(name)).unwrap_or(&NULL)
    }
}

/// `caCertificates` is `ca_certificates` in the proto file.
fn proto_name(name: &str) -> String {
    let mut result = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            result.push('_');
        }
        result.push(letter.to_ascii_lowercase());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_names_of_a_field_are_known_and_missing_ones_are_zero() {
        let value = json!({"ca_certificates": "/a", "port": {"number": 80}, "mode": 1});
        assert_eq!(value.text("caCertificates"), "/a");
        assert_eq!(value.field("port").number("number"), 80);
        assert_eq!(value.choice("mode", &["DISABLE", "SIMPLE"]), "SIMPLE");
        assert_eq!(value.choice("other", &["DISABLE", "SIMPLE"]), "DISABLE");
        assert!(value.items("servers").is_empty());
    }
}
