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

/// A `resource.Quantity`: its digits without trailing zeros as value and scale, and how it was written.
pub fn quantity(v: &Value) -> String {
    let text = match v {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let suffix_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(suffix_at);
    let (power, format) = match suffix {
        "n" => (-9, "DecimalSI"),
        "u" => (-6, "DecimalSI"),
        "m" => (-3, "DecimalSI"),
        "k" => (3, "DecimalSI"),
        "M" => (6, "DecimalSI"),
        "G" => (9, "DecimalSI"),
        "T" => (12, "DecimalSI"),
        "" => (0, "DecimalSI"),
        _ => (0, "BinarySI"),
    };
    let (value, scale) = if format == "BinarySI" {
        let units = crate::quantity::Quantity::parse(&text).map_or(0, |q| q.value());
        (units.to_string(), 0)
    } else {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let scale = power - i32::try_from(fraction.len()).unwrap_or(0);
        (format!("{whole}{fraction}"), scale)
    };
    format!(
        "resource.Quantity{{i:resource.int64Amount{{value:{value}, scale:{scale}}}, d:resource.infDecAmount{{Dec:(*inf.Dec)(nil)}}, s:{}, Format:{}}}",
        crate::field::quote(&text),
        crate::field::quote(format)
    )
}

/// JSON that the server keeps as bytes, a `runtime.RawExtension`.
pub fn raw(v: &Value) -> String {
    let bytes: Vec<String> = v.to_string().bytes().map(|b| format!("{b:#x}")).collect();
    format!(
        "runtime.RawExtension{{Raw:[]uint8{{{}}}, Object:runtime.Object(nil)}}",
        bytes.join(", ")
    )
}
