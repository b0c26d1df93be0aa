//! CEL rules of custom resources, evaluated after everything else is in order.

use super::Errors;
use crate::cel::{self, Value as Cel};
use crate::field::{ErrorType, FieldError};
use crate::schema::{Additional, Document, Node, NodeId, ObjectSchema, Rule, Type};
use serde_json::Value;

/// Violations of the rules of an object; `old` is the object before, on updates. A rule that the old value violated as well is
/// forgiven as long as the value stays the same.
pub(super) fn evaluate(schema: &ObjectSchema, obj: &Value, old: Option<&Value>) -> Errors {
    let mut out = Vec::new();
    walk(&schema.doc, schema.root, obj, old, "", true, &mut out);
    out
}

fn walk(
    doc: &Document,
    id: NodeId,
    v: &Value,
    old: Option<&Value>,
    path: &str,
    root: bool,
    out: &mut Errors,
) {
    let node = doc.resolve(id);
    if v.is_null() {
        return;
    }
    if !node.rules.is_empty() {
        let now = cel::to_value(doc, id, v, root);
        let before = old
            .filter(|old| !old.is_null())
            .map(|old| cel::to_value(doc, id, old, root));
        let unchanged = old == Some(v);
        for rule in &node.rules {
            if unchanged && !rule.uses_old {
                continue;
            }
            out.extend(check(rule, node, &now, before.as_ref(), path));
        }
    }
    match v {
        Value::Object(map) => {
            for (key, inner) in map {
                let old = old.and_then(|old| old.get(key));
                if let Some(property) = node.properties.get(key) {
                    if !(root && key == "metadata") {
                        let here = crate::field::child(path, key);
                        walk(doc, *property, inner, old, &here, false, out);
                    }
                } else if let Some(Additional::Schema(values)) = node.additional {
                    let here = crate::field::key(path, key);
                    walk(doc, values, inner, old, &here, false, out);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = node.items else { return };
            for (i, item) in items.iter().enumerate() {
                let old = old.and_then(|old| correlated(node, item, old));
                walk(
                    doc,
                    inner,
                    item,
                    old,
                    &crate::field::index(path, i),
                    false,
                    out,
                );
            }
        }
        _ => {}
    }
}

/// The entry that a list had before for this one: by its keys. Entries of other lists have no history.
pub(super) fn correlated<'a>(node: &Node, item: &Value, old: &'a Value) -> Option<&'a Value> {
    if node.list_type != "map" {
        return None;
    }
    old.as_array()?
        .iter()
        .find(|other| node.list_map_keys.iter().all(|key| other[key] == item[key]))
}

fn type_name(node: &Node) -> &'static str {
    match node.ty {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Any => "",
    }
}

fn check(
    rule: &Rule,
    node: &Node,
    now: &Cel,
    before: Option<&Cel>,
    path: &str,
) -> Option<FieldError> {
    let mut variables = vec![("self", now.clone())];
    if rule.uses_old {
        if rule.optional_old {
            let old = before.cloned().map(std::sync::Arc::new);
            variables.push(("oldSelf", Cel::Optional(old)));
        } else {
            variables.push(("oldSelf", before?.clone()));
        }
    }
    let shown = Value::from(type_name(node));
    let at = if path.is_empty() { "<nil>" } else { path };
    let named = || {
        let message = rule.message.trim();
        if message.is_empty() {
            rule.source.trim().to_string()
        } else {
            message.to_string()
        }
    };
    // A definition whose rules do not parse is refused; one that is there anyway has no such rule.
    let expression = rule.rule.as_ref().ok()?;
    match expression.eval(&variables) {
        Ok(Cel::Bool(true)) => None,
        Ok(_) => Some(violation(rule, &shown, &variables, path)),
        Err(why) => {
            let detail = if why.starts_with("no such overload") {
                format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    named()
                )
            } else if why.starts_with("operation cancelled: actual cost limit exceeded") {
                format!(
                    "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    named()
                )
            } else {
                format!("{why} evaluating rule: {}", named())
            };
            Some(FieldError::invalid(at, &shown, detail))
        }
    }
}

/// The longest text that an expression may give as a message.
const LONGEST_MESSAGE: usize = 5 * 1024;

fn violation(rule: &Rule, shown: &Value, variables: &[(&str, Cel)], path: &str) -> FieldError {
    let path = match rule.field_path.trim_start_matches('.') {
        "" => path.to_string(),
        below => crate::field::child(path, below),
    };
    let at = if path.is_empty() {
        "<nil>".to_string()
    } else {
        path
    };
    let computed =
        rule.message_expression
            .as_ref()
            .and_then(|expression| match expression.eval(variables) {
                Ok(Cel::String(text)) => {
                    let text = text.trim();
                    let fine = !text.is_empty()
                        && !text.contains(['\n', '\r'])
                        && text.len() <= LONGEST_MESSAGE;
                    fine.then(|| text.to_string())
                }
                _ => None,
            });
    let detail = computed.unwrap_or_else(|| match rule.message.trim() {
        "" => format!("failed rule: {}", rule.source.trim()),
        message => message.to_string(),
    });
    match rule.reason.as_str() {
        "FieldValueForbidden" => FieldError::forbidden(at, detail),
        "FieldValueRequired" => FieldError::required(at, detail),
        "FieldValueDuplicate" => FieldError {
            kind: ErrorType::Duplicate,
            detail,
            ..FieldError::duplicate(at, shown)
        },
        _ => FieldError::invalid(at, shown, detail),
    }
}

/// The rules of a schema of a definition: present, compiling, yielding a bool. `path` is that of the schema in the definition.
pub(super) fn of_definition(path: &str, schema: &Value) -> Errors {
    let mut out = Vec::new();
    let (doc, root) = Document::from_schema(schema);
    definition(path, schema, &doc, root, Place::root(), &mut out);
    out
}

/// Where a schema is in a definition.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: bool,
    /// The part of the schema whose values have no history.
    uncorrelated: Option<&'a str>,
}

impl Place<'_> {
    fn root() -> Self {
        Self {
            root: true,
            uncorrelated: None,
        }
    }
}

fn definition(
    path: &str,
    schema: &Value,
    doc: &Document,
    id: NodeId,
    place: Place<'_>,
    out: &mut Errors,
) {
    let node = doc.resolve(id);
    let ty = cel::of_schema(doc, id, place.root);
    for (i, rule) in node.rules.iter().enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{i}]");
        let raw = &schema["x-kubernetes-validations"][i];
        one_rule(&at, raw, rule, doc, ty.as_ref(), place, out);
    }
    let inner = Place {
        root: false,
        ..place
    };
    for (key, property) in &node.properties {
        let here = format!("{path}.properties[{key}]");
        definition(
            &here,
            &schema["properties"][key],
            doc,
            *property,
            inner,
            out,
        );
    }
    if let Some(items) = node.items {
        let here = format!("{path}.items");
        let inner = if node.list_type == "map" || place.uncorrelated.is_some() {
            inner
        } else {
            Place {
                root: false,
                uncorrelated: Some(path),
            }
        };
        definition(&here, &schema["items"], doc, items, inner, out);
    }
    if let Some(Additional::Schema(values)) = node.additional {
        let here = format!("{path}.additionalProperties");
        definition(
            &here,
            &schema["additionalProperties"],
            doc,
            values,
            inner,
            out,
        );
    }
}

fn go_text(raw: &Value) -> String {
    let text = |key: &str| crate::field::quote(raw[key].as_str().unwrap_or(""));
    let pointer = |key: &str, ty: &str| {
        if raw[key].is_null() {
            format!("(*{ty})(nil)")
        } else {
            format!("(*{ty})(0xc000000000)")
        }
    };
    format!(
        "apiextensions.ValidationRule{{Rule:{}, Message:{}, MessageExpression:{}, Reason:{}, FieldPath:{}, OptionalOldSelf:{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        pointer("reason", "apiextensions.FieldValueErrorReason"),
        text("fieldPath"),
        pointer("optionalOldSelf", "bool")
    )
}

fn one_rule(
    at: &str,
    raw: &Value,
    rule: &Rule,
    doc: &Document,
    ty: Option<&cel::Type>,
    place: Place<'_>,
    out: &mut Errors,
) {
    const REASONS: [&str; 4] = [
        "FieldValueRequired",
        "FieldValueForbidden",
        "FieldValueInvalid",
        "FieldValueDuplicate",
    ];
    let message = format!("{at}.message");
    let given = raw["message"].as_str();
    if rule.source.trim().is_empty() {
        out.push(FieldError::required(
            format!("{at}.rule"),
            "rule is not specified",
        ));
        return;
    }
    match given {
        Some(text) if !text.is_empty() && text.trim().is_empty() => out.push(FieldError::invalid(
            &message,
            &text.into(),
            "message must be non-empty if specified",
        )),
        Some(text) if text.trim().contains('\n') => out.push(FieldError::invalid(
            &message,
            &text.into(),
            "message must not contain line breaks",
        )),
        None | Some("") if rule.source.trim().contains('\n') => out.push(FieldError::required(
            &message,
            "message must be specified if rule contains line breaks",
        )),
        _ => {}
    }
    if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
        out.push(FieldError::not_supported(
            format!("{at}.reason"),
            &rule.reason.as_str().into(),
            &REASONS,
        ));
    }
    let mut invalid = |field: &str, why: String| {
        out.push(FieldError::invalid_go(
            format!("{at}.{field}"),
            go_text(raw),
            why,
        ));
    };
    let mut variables = Vec::new();
    if let Some(ty) = ty {
        variables.push(("self", ty.clone()));
        let old = if rule.optional_old {
            cel::Type::Optional(Box::new(ty.clone()))
        } else {
            ty.clone()
        };
        variables.push(("oldSelf", old));
    }
    let compiled = match &rule.rule {
        Ok(expression) => cel::check(expression, doc, &variables),
        Err(why) => Err(why.clone()),
    };
    match compiled {
        Err(why) => invalid("rule", format!("compilation failed: {why}")),
        Ok(checked) if checked.result != cel::Type::Bool => {
            invalid("rule", "cel expression must evaluate to a bool".into());
        }
        Ok(checked) => {
            if checked.variables.iter().any(|name| name == "oldSelf")
                && let Some(part) = place.uncorrelated
            {
                invalid(
                    "rule",
                    format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {part}"
                    ),
                );
            }
        }
    }
    if let Some(text) = raw["messageExpression"].as_str().filter(|t| !t.is_empty()) {
        let compiled = cel::parse(text).and_then(|e| cel::check(&e, doc, &variables));
        match compiled {
            Err(why) => invalid(
                "messageExpression",
                format!("messageExpression compilation failed: {why}"),
            ),
            Ok(checked) if checked.result != cel::Type::String => invalid(
                "messageExpression",
                "messageExpression must evaluate to a string".into(),
            ),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(spec: Value) -> ObjectSchema {
        let crd = json!({"spec": {"group": "g.io", "names": {"kind": "W"}, "versions": [{"name": "v1", "schema":
            {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}});
        ObjectSchema::from_crd(&crd, "v1").unwrap()
    }

    fn texts(schema: &ObjectSchema, new: &Value, old: Option<&Value>) -> Vec<String> {
        evaluate(schema, new, old)
            .iter()
            .map(FieldError::to_string)
            .collect()
    }

    #[test]
    fn violations_read_as_those_of_the_api_server() {
        let s = schema(json!({"type": "object", "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "messageExpression": "'min %d > max %d'.format([self.min, self.max])"},
                {"rule": "self.min != 7"},
                {"rule": "self.min >= 0", "reason": "FieldValueForbidden", "fieldPath": ".min", "message": "no"}],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                "names": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
                        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "shrinks"}]}},
                "labels": {"type": "object", "additionalProperties": {"type": "string",
                    "x-kubernetes-validations": [{"rule": "self.startsWith('a')", "message": "not a"}]}}}}));
        let object = json!({"spec": {"min": 7, "max": 5, "labels": {"x": "b"}}});
        assert_eq!(
            texts(&s, &object, None),
            [
                "spec: Invalid value: \"object\": min 7 > max 5",
                "spec: Invalid value: \"object\": failed rule: self.min != 7",
                "spec.labels[x]: Invalid value: \"string\": not a",
            ]
        );
        assert_eq!(
            texts(&s, &json!({"spec": {"min": -1, "max": 5}}), None),
            ["spec.min: Forbidden: no"]
        );
        assert_eq!(
            texts(&s, &json!({"spec": {"max": 5}}), None)[1],
            "spec: Invalid value: \"object\": no such key: min evaluating rule: self.min != 7"
        );
        let before = json!({"spec": {"min": 1, "max": 5, "names": [{"name": "a", "v": 3}, {"name": "b", "v": 1}]}});
        let after = json!({"spec": {"min": 1, "max": 5, "names": [{"name": "b", "v": 2}, {"name": "a", "v": 2}]}});
        assert_eq!(
            texts(&s, &after, Some(&before)),
            ["spec.names[1]: Invalid value: \"object\": shrinks"]
        );
        assert_eq!(
            texts(&s, &object, Some(&object)),
            Vec::<String>::new(),
            "what was wrong before and did not change is forgiven"
        );
    }

    #[test]
    fn rules_that_do_not_compile_are_refused() {
        let found = |rule: Value| -> Vec<String> {
            let spec = json!({"type": "object", "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "integer"}}},
                "x-kubernetes-validations": [rule]});
            of_definition("s", &spec)
                .iter()
                .map(FieldError::to_string)
                .collect()
        };
        assert!(found(json!({"rule": "self.n > 0"})).is_empty());
        assert_eq!(
            found(json!({"rule": "self.x > 0"})),
            [
                "s.x-kubernetes-validations[0].rule: Invalid value: apiextensions.ValidationRule{Rule:\"self.x > 0\", Message:\"\", MessageExpression:\"\", Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:\"\", OptionalOldSelf:(*bool)(nil)}: compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x > 0\n | ....^"
            ]
        );
        assert!(
            found(json!({"rule": "self.n"}))[0].ends_with("cel expression must evaluate to a bool")
        );
        assert!(found(json!({"rule": ""}))[0].contains("rule is not specified"));
        assert!(
            found(json!({"rule": "true", "messageExpression": "1"}))[0]
                .ends_with("messageExpression must evaluate to a string")
        );
    }

    #[test]
    fn a_rule_that_takes_too_long_is_given_up() {
        let s = schema(
            json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
            "x-kubernetes-validations": [{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))", "message": "m"}]}),
        );
        let list: Vec<u32> = (0..300).collect();
        let found = texts(&s, &json!({"spec": {"l": list}}), None);
        assert_eq!(
            found,
            [
                "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: m"
            ]
        );
    }
}
