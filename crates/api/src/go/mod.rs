//! What Go's standard library accepts and says where Kubernetes and Istio pass its errors on to the user.
//!
//! The checks follow Go's documented behaviour, which differs from Rust's in places that users meet: `0x10` and `1_0` as
//! numbers, zones in addresses, RE2 syntax, requests URIs.

pub mod base64;
pub mod fmt;
pub mod json;
pub mod netip;
pub mod regexp;
pub mod strconv;
pub mod time;
pub mod url;
pub mod yaml;

use crate::field::quote;
use serde_json::Value;

/// A value as `%#v` prints what Go's JSON decoder makes of it: `map[string]interface {}{"a":1}`.
pub fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => strconv::format_float(float),
            None => number.to_string(),
        },
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", quote(key), syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_in_the_syntax_of_go() {
        assert_eq!(
            syntax(&json!({"b": 1.5, "a": null, "c": 3, "d": true, "e": ["x", {}]})),
            r#"map[string]interface {}{"a":interface {}(nil), "b":1.5, "c":3, "d":true, "e":[]interface {}{"x", map[string]interface {}{}}}"#
        );
    }
}
