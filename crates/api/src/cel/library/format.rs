//! Kubernetes' formats of names.

use super::super::eval::Outcome;
use super::super::functions::no_overload;
use super::super::value::Value;
use crate::validate::names;
use std::sync::Arc;

const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// `format.dns1123Label()` and `format.named("dns1123Label")`.
pub(super) fn named(name: &str, values: &[Value]) -> Outcome {
    let find = |name: &str| NAMES.iter().find(|n| **n == name).copied();
    match (name, values) {
        ("named", [Value::String(name)]) => Ok(Value::Optional(
            find(name).map(|name| Arc::new(Value::Format(name))),
        )),
        (name, []) => find(name).map_or_else(no_overload, |name| Ok(Value::Format(name))),
        _ => no_overload(),
    }
}

/// The mistakes of a text; none when there are none.
pub(super) fn validate(format: &str, values: &[Value]) -> Outcome {
    let [_, Value::String(text)] = values else {
        return no_overload();
    };
    let simple = |fine: bool, what: &str| {
        if fine {
            Vec::new()
        } else {
            vec![format!("{text:?} is not a valid {what}")]
        }
    };
    // A prefix may end with a hyphen.
    let prefix = |text: &str| match text.strip_suffix('-') {
        Some(rest) => format!("{rest}a"),
        None => text.to_string(),
    };
    let mistakes = match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_1035_label(text),
        "dns1123LabelPrefix" => names::dns_label(&prefix(text)),
        "dns1123SubdomainPrefix" => names::dns_subdomain(&prefix(text)),
        "dns1035LabelPrefix" => names::dns_1035_label(&prefix(text)),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "uri" => simple(crate::go::url::parse_request_uri(text).is_ok(), "URI"),
        "uuid" => simple(is_uuid(text), "UUID"),
        "byte" => {
            use base64::Engine;
            let decoded = base64::engine::general_purpose::STANDARD.decode(&**text);
            simple(decoded.is_ok(), "base64 text")
        }
        "date" => simple(
            text.len() == 10 && crate::time::parse(&format!("{text}T00:00:00Z")).is_some(),
            "date",
        ),
        _ => simple(crate::time::parse(text).is_some(), "date and time"),
    };
    Ok(Value::Optional((!mistakes.is_empty()).then(|| {
        Arc::new(Value::list(mistakes.into_iter().map(Value::text).collect()))
    })))
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(i, _)| i).collect();
    hex.len() == 32
        && hex.chars().all(|c| c.is_ascii_hexdigit())
        && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}
