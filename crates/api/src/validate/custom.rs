//! Custom resources against their structural schema.

use super::{Errors, rules};
use crate::field::{ErrorType, FieldError, child, show};
use crate::schema::{Additional, Document, Node, NodeId, ObjectSchema, Type};
use serde_json::Value;

/// All violations; `old` is the object before, on updates: what was wrong and did not change is forgiven. CEL rules are
/// evaluated when nothing keeps them from it, also nothing in `metadata`, what is wrong with the object's metadata; if something does,
/// the real server's remark about that comes last.
pub fn validate(
    schema: &ObjectSchema,
    obj: &Value,
    old: Option<&Value>,
    metadata: &[FieldError],
) -> Errors {
    let mut out = Vec::new();
    if schema.preserve_all {
        return out;
    }
    check(&schema.doc, schema.root, obj, old, "", &mut out);
    lists(&schema.doc, schema.root, obj, "", &mut out);
    use ErrorType::*;
    let blocked = metadata.iter().chain(&out).any(|e| {
        matches!(
            e.kind,
            NotSupported | Required | TooLong | TooMany | TypeInvalid
        )
    });
    if !blocked {
        out.extend(rules::evaluate(schema, obj, old));
    } else if has_rules(&schema.doc, schema.root, 0) {
        out.push(FieldError::invalid(
            "<nil>",
            &Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
    }
    out
}

fn has_rules(doc: &Document, id: NodeId, depth: usize) -> bool {
    let node = doc.resolve(id);
    if depth > 64 {
        return false;
    }
    !node.rules.is_empty()
        || node
            .properties
            .values()
            .any(|p| has_rules(doc, *p, depth + 1))
        || node.items.is_some_and(|i| has_rules(doc, i, depth + 1))
        || matches!(node.additional, Some(Additional::Schema(s)) if has_rules(doc, s, depth + 1))
}

fn type_name(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|f| f.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(ty: Type, v: &Value) -> bool {
    match ty {
        Type::Any => true,
        Type::Object => v.is_object(),
        Type::Array => v.is_array(),
        Type::String => v.is_string(),
        Type::Boolean => v.is_boolean(),
        Type::Number => v.is_number(),
        Type::Integer => type_name(v) == "integer",
    }
}

fn at(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn type_error(path: &str, v: &Value, expected: &str) -> FieldError {
    let got = type_name(v);
    let mut e = FieldError::type_invalid(
        at(path),
        &got.into(),
        format!(
            "{} in body must be of type {expected}: {}",
            at(path),
            crate::field::quote(got)
        ),
    );
    e.kind = ErrorType::TypeInvalid;
    e
}

fn check(doc: &Document, id: NodeId, v: &Value, old: Option<&Value>, path: &str, out: &mut Errors) {
    let node = doc.resolve(id);
    if old == Some(v) {
        return;
    }
    if v.is_null() && (node.nullable || doc.node(id).nullable) {
        return;
    }
    if node.int_or_string {
        if !fits(Type::Integer, v) && !v.is_string() {
            out.push(type_error(path, v, "integer,string"));
        }
    } else if !fits(node.ty, v) {
        let expected = match node.ty {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::Any => "",
        };
        out.push(type_error(path, v, expected));
    }
    if !node.enumeration.is_empty() && !node.enumeration.contains(v) {
        let supported: Vec<String> = node
            .enumeration
            .iter()
            .map(|e| e.as_str().map_or_else(|| e.to_string(), String::from))
            .collect();
        out.push(FieldError::not_supported(at(path), v, &supported));
    }
    let wrong_type = !node.int_or_string && !fits(node.ty, v);
    match v {
        Value::String(s) if !wrong_type => string(node, s, v, path, out),
        Value::Number(n) if !wrong_type => number(node, n.as_f64().unwrap_or(0.0), v, path, out),
        Value::Array(items) if !wrong_type => {
            array(node, items, path, out);
            if let Some(item) = node.items {
                for (i, v) in items.iter().enumerate() {
                    let old = old.and_then(|old| rules::correlated(node, v, old));
                    check(doc, item, v, old, &format!("{path}[{i}]"), out);
                }
            }
        }
        Value::Object(_) if !wrong_type => object(doc, node, v, old, path, out),
        _ => {}
    }
    combinations(doc, node, v, path, out);
}

fn string(node: &Node, s: &str, v: &Value, path: &str, out: &mut Errors) {
    let b = &node.bounds;
    let len = s.chars().count() as u64;
    if let Some(max) = b.max_length.filter(|m| len > *m) {
        out.push(FieldError::too_long(at(path), max as usize));
    } else if let Some(min) = b.min_length.filter(|m| len < *m) {
        out.push(FieldError::invalid(
            at(path),
            v,
            format!("{path} in body should be at least {min} chars long"),
        ));
    } else if let Some((source, Some(re))) = &node.pattern
        && !re.is_match(s)
    {
        out.push(FieldError::invalid(
            at(path),
            v,
            format!("{path} in body should match '{source}'"),
        ));
    }
    if !format_ok(&node.format, s) {
        // A format is a kind of type, and worded like one; the value is shown instead of the type.
        out.push(FieldError::type_invalid(
            at(path),
            v,
            format!(
                "{path} in body must be of type {}: {}",
                node.format,
                show(v)
            ),
        ));
    }
}

/// The formats that the API server checks, as far as they are decidable without more libraries.
fn format_ok(format: &str, s: &str) -> bool {
    match format {
        "date-time" | "datetime" => crate::time::parse(s).is_some(),
        "date" => s.len() == 10 && crate::time::parse(&format!("{s}T00:00:00Z")).is_some(),
        "duration" => duration_ok(s),
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(s).is_ok()
        }
        _ => true,
    }
}

/// Go durations, and the `3 days` form that the format library also reads.
fn duration_ok(s: &str) -> bool {
    static GO: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
        regex::Regex::new(r"^[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|\d+\s*(w|d|weeks?|days?|hours?|hrs?|minutes?|mins?|seconds?|secs?|millis|micros|nanos?))$")
            .expect("a constant pattern")
    });
    GO.is_match(s)
}

fn number(node: &Node, n: f64, v: &Value, path: &str, out: &mut Errors) {
    let b = &node.bounds;
    if let Some(factor) = b.multiple_of {
        let ratio = n / factor;
        if n == 0.0 {
            // The real server's arithmetic takes zero for the factor.
            out.push(FieldError::invalid(
                at(path),
                v,
                format!("factor MultipleOf declared for {path} must be positive: 0"),
            ));
        } else if (ratio - ratio.round()).abs() > 1e-9 {
            out.push(FieldError::invalid(
                at(path),
                v,
                format!("{path} in body should be a multiple of {factor}"),
            ));
        }
    }
    if let Some(max) = b
        .maximum
        .filter(|m| n > *m || (b.exclusive_maximum && n >= *m))
    {
        let word = if b.exclusive_maximum {
            "less than"
        } else {
            "less than or equal to"
        };
        out.push(FieldError::invalid(
            at(path),
            v,
            format!("{path} in body should be {word} {max}"),
        ));
    }
    if let Some(min) = b
        .minimum
        .filter(|m| n < *m || (b.exclusive_minimum && n <= *m))
    {
        let word = if b.exclusive_minimum {
            "greater than"
        } else {
            "greater than or equal to"
        };
        out.push(FieldError::invalid(
            at(path),
            v,
            format!("{path} in body should be {word} {min}"),
        ));
    }
}

fn array(node: &Node, items: &[Value], path: &str, out: &mut Errors) {
    let b = &node.bounds;
    let len = items.len() as u64;
    if let Some(max) = b.max_items.filter(|m| len > *m) {
        out.push(FieldError::too_many(at(path), items.len(), max as usize));
    }
    if let Some(min) = b.min_items.filter(|m| len < *m) {
        out.push(FieldError::invalid(
            at(path),
            &len.into(),
            format!("{path} in body should have at least {min} items"),
        ));
    }
    if b.unique_items
        && items
            .iter()
            .enumerate()
            .any(|(i, v)| items[..i].contains(v))
    {
        out.push(FieldError::invalid(
            at(path),
            &Value::Array(items.to_vec()),
            format!("{path} in body shouldn't contain duplicates"),
        ));
    }
}

fn object(
    doc: &Document,
    node: &Node,
    v: &Value,
    old: Option<&Value>,
    path: &str,
    out: &mut Errors,
) {
    let Some(map) = v.as_object() else { return };
    let b = &node.bounds;
    let len = map.len() as u64;
    if let Some(max) = b.max_properties.filter(|m| len > *m) {
        out.push(FieldError::too_many(at(path), map.len(), max as usize));
    }
    if let Some(min) = b.min_properties.filter(|m| len < *m) {
        out.push(FieldError::invalid(
            at(path),
            &len.into(),
            format!("{path} in body should have at least {min} properties"),
        ));
    }
    for r in &node.required {
        if !map.contains_key(r) {
            out.push(FieldError::required(child(path, r), ""));
        }
    }
    for (k, v) in map {
        let here = child(path, k);
        let old = old.and_then(|old| old.get(k));
        if let Some(p) = node.properties.get(k) {
            if !(path.is_empty() && k == "metadata") {
                check(doc, *p, v, old, &here, out);
            }
        } else if let Some(Additional::Schema(s)) = node.additional {
            check(doc, s, v, old, &here, out);
        }
    }
}

fn errors_of(doc: &Document, id: NodeId, v: &Value, path: &str) -> Errors {
    let mut out = Vec::new();
    check(doc, id, v, None, path, &mut out);
    out
}

/// A violated combination names no field, only its path in the text.
fn combination(path: &str, why: &str) -> FieldError {
    FieldError::invalid("<nil>", &"".into(), format!("\"{path}\" must {why}"))
}

fn combinations(doc: &Document, node: &Node, v: &Value, path: &str, out: &mut Errors) {
    let closest = |all: Vec<Errors>| all.into_iter().min_by_key(Vec::len).unwrap_or_default();
    if !node.any_of.is_empty() {
        let all: Vec<Errors> = node
            .any_of
            .iter()
            .map(|s| errors_of(doc, *s, v, path))
            .collect();
        if !all.iter().any(Vec::is_empty) {
            out.push(combination(path, "validate at least one schema (anyOf)"));
            out.extend(closest(all));
        }
    }
    if !node.one_of.is_empty() {
        let all: Vec<Errors> = node
            .one_of
            .iter()
            .map(|s| errors_of(doc, *s, v, path))
            .collect();
        match all.iter().filter(|e| e.is_empty()).count() {
            1 => {}
            0 => {
                out.push(combination(
                    path,
                    "validate one and only one schema (oneOf). Found none valid",
                ));
                out.extend(closest(all));
            }
            n => out.push(combination(
                path,
                &format!("validate one and only one schema (oneOf). Found {n} valid alternatives"),
            )),
        }
    }
    let failed: Vec<Errors> = node
        .all_of
        .iter()
        .map(|s| errors_of(doc, *s, v, path))
        .filter(|errors| !errors.is_empty())
        .collect();
    if !failed.is_empty() {
        let none = if failed.len() == node.all_of.len() {
            ". None validated"
        } else {
            ""
        };
        out.push(combination(
            path,
            &format!("validate all the schemas (allOf){none}"),
        ));
        out.extend(failed.into_iter().flatten());
    }
    if let Some(not) = node.not
        && errors_of(doc, not, v, path).is_empty()
    {
        out.push(combination(path, "not validate the schema (not)"));
    }
}

/// Duplicates in sets and in lists with keys.
fn lists(doc: &Document, id: NodeId, v: &Value, path: &str, out: &mut Errors) {
    let node = doc.resolve(id);
    match v {
        Value::Array(items) => {
            let key =
                |v: &Value| -> Value { node.list_map_keys.iter().map(|k| v[k].clone()).collect() };
            let stranger = items.iter().position(|v| !v.is_object() && !v.is_null());
            if let Some(i) = stranger.filter(|_| node.list_type == "map") {
                let item = &items[i];
                let mut e = FieldError::invalid(
                    format!("{path}[{i}]"),
                    item,
                    "must be an object for an array of list-type map",
                );
                if item.is_array() {
                    e.shown = Some(crate::go::syntax(item));
                }
                out.push(e);
            }
            for (i, item) in items.iter().enumerate() {
                let here = format!("{path}[{i}]");
                match node.list_type.as_str() {
                    "set" if items[..i].contains(item) => {
                        out.push(FieldError::duplicate(here.clone(), item))
                    }
                    "map"
                        if stranger.is_none() && items[..i].iter().any(|o| key(o) == key(item)) =>
                    {
                        let keys: serde_json::Map<String, Value> = node
                            .list_map_keys
                            .iter()
                            .filter_map(|k| item.get(k).map(|v| (k.clone(), v.clone())))
                            .collect();
                        let mut e = FieldError::duplicate(here.clone(), &Value::Null);
                        e.shown = Some(crate::go::syntax(&Value::Object(keys)));
                        out.push(e);
                    }
                    _ => {}
                }
                if let Some(s) = node.items {
                    lists(doc, s, item, &here, out);
                }
            }
        }
        Value::Object(map) => {
            for (k, v) in map {
                let here = child(path, k);
                if let Some(p) = node.properties.get(k) {
                    lists(doc, *p, v, &here, out);
                } else if let Some(Additional::Schema(s)) = node.additional {
                    lists(doc, s, v, &here, out);
                }
            }
        }
        _ => {}
    }
}
