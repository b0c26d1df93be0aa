//! Values as Go's `%#v` prints them, where field errors show structs and maps.

use crate::field::quote;
use crate::meta;
use serde_json::Value;

/// `map[string]string{"a":"b"}`; an absent map is `map[string]string(nil)`.
pub fn string_map(v: &Value) -> String {
    if !v.is_object() {
        return "map[string]string(nil)".into();
    }
    let mut pairs: Vec<String> = meta::pairs(v)
        .map(|(k, v)| format!("{}:{}", quote(k), quote(v)))
        .collect();
    pairs.sort();
    format!("map[string]string{{{}}}", pairs.join(", "))
}

/// `[]string{"a", "b"}`; an absent list is `[]string(nil)`.
pub fn strings(v: &Value) -> String {
    match v.as_array() {
        None => "[]string(nil)".into(),
        Some(a) => {
            let items: Vec<String> = a.iter().map(|s| quote(s.as_str().unwrap_or(""))).collect();
            format!("[]string{{{}}}", items.join(", "))
        }
    }
}

/// A `v1.LabelSelector`.
pub fn label_selector(v: &Value) -> String {
    let expressions = match v["matchExpressions"].as_array() {
        None => "[]v1.LabelSelectorRequirement(nil)".to_string(),
        Some(a) => {
            let items: Vec<String> = a
                .iter()
                .map(|e| {
                    format!(
                        "v1.LabelSelectorRequirement{{Key:{}, Operator:{}, Values:{}}}",
                        quote(e["key"].as_str().unwrap_or("")),
                        quote(e["operator"].as_str().unwrap_or("")),
                        strings(&e["values"])
                    )
                })
                .collect();
            format!("[]v1.LabelSelectorRequirement{{{}}}", items.join(", "))
        }
    };
    format!(
        "v1.LabelSelector{{MatchLabels:{}, MatchExpressions:{expressions}}}",
        string_map(&v["matchLabels"])
    )
}

/// An `intstr.IntOrString`.
pub fn int_or_string(v: &Value) -> String {
    match v {
        Value::String(s) => format!(
            "intstr.IntOrString{{Type:1, IntVal:0, StrVal:{}}}",
            quote(s)
        ),
        _ => format!(
            "intstr.IntOrString{{Type:0, IntVal:{}, StrVal:\"\"}}",
            v.as_i64().unwrap_or(0)
        ),
    }
}

/// A `v1.OwnerReference`. Pointers show as addresses in Go; set ones are shown by their value here.
pub fn owner_reference(v: &Value) -> String {
    let s = |k: &str| quote(v[k].as_str().unwrap_or(""));
    let flag = |k: &str| {
        v[k].as_bool()
            .map_or("(*bool)(nil)".to_string(), |b| format!("&{b}"))
    };
    format!(
        "v1.OwnerReference{{APIVersion:{}, Kind:{}, Name:{}, UID:{}, Controller:{}, BlockOwnerDeletion:{}}}",
        s("apiVersion"),
        s("kind"),
        s("name"),
        s("uid"),
        flag("controller"),
        flag("blockOwnerDeletion")
    )
}

/// A JSON object as `map[string]interface {}{...}`.
pub fn any_map(v: &Value) -> String {
    match v {
        Value::Object(m) => {
            let mut pairs: Vec<String> = m
                .iter()
                .map(|(k, v)| format!("{}:{}", quote(k), any_map(v)))
                .collect();
            pairs.sort();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
        Value::Array(a) => {
            let items: Vec<String> = a.iter().map(any_map).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::String(s) => quote(s),
        Value::Null => "interface {}(nil)".into(),
        other => other.to_string(),
    }
}
