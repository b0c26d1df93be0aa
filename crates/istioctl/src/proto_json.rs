//! Protobuf JSON for people: `lowerCamelCase` names, fields in the order in which the message
//! declares them, four blanks a level.

use serde_json::{Map, Value};
use xds::json::descriptor;
use xds::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Rewrites a message of canonical JSON with proto field names; a type nobody knows stays as it is.
pub fn camel(message: &str, value: &Value) -> Value {
    match descriptor(message) {
        Ok(descriptor) => camel_message(&descriptor, value),
        Err(_) => value.clone(),
    }
}

/// As [`camel`], for a message that names its own type in `@type`; the type is left out.
pub fn camel_typed(value: &Value) -> Value {
    let mut plain = value.clone();
    let Some(kind) = plain
        .as_object_mut()
        .and_then(|object| object.shift_remove("@type"))
    else {
        return plain;
    };
    camel(kind.as_str().unwrap_or_default(), &plain)
}

fn camel_message(descriptor: &MessageDescriptor, value: &Value) -> Value {
    let Value::Object(object) = value else {
        return value.clone();
    };
    match descriptor.full_name() {
        "google.protobuf.Any" => {
            let kind = object.get("@type").cloned().unwrap_or_default();
            let mut out = Map::new();
            out.insert("@type".to_owned(), kind);
            if let Value::Object(fields) = camel_typed(value) {
                out.extend(fields);
            }
            Value::Object(out)
        }
        name if name.starts_with("google.protobuf.") => value.clone(),
        _ => {
            let mut fields: Vec<(FieldDescriptor, &Value)> = Vec::new();
            let mut unknown = Map::new();
            for (name, value) in object {
                let field = descriptor
                    .get_field_by_name(name)
                    .or_else(|| descriptor.get_field_by_json_name(name));
                match field {
                    Some(field) => fields.push((field, value)),
                    None => {
                        unknown.insert(name.clone(), value.clone());
                    }
                }
            }
            // The last step of a field's path in its file is its place in the message.
            fields.sort_by_key(|(field, _)| field.path().last().copied());
            let mut out = Map::new();
            for (field, value) in fields {
                out.insert(field.json_name().to_owned(), camel_field(&field, value));
            }
            out.extend(unknown);
            Value::Object(out)
        }
    }
}

fn camel_field(field: &FieldDescriptor, value: &Value) -> Value {
    let Kind::Message(message) = field.kind() else {
        return value.clone();
    };
    match value {
        Value::Object(entries) if field.is_map() => {
            let Kind::Message(of) = message.map_entry_value_field().kind() else {
                return value.clone();
            };
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), camel_message(&of, value)));
            Value::Object(entries.collect())
        }
        Value::Array(values) if field.is_list() => values
            .iter()
            .map(|value| camel_message(&message, value))
            .collect(),
        value => camel_message(&message, value),
    }
}

/// JSON with `width` blanks a level.
pub fn indented(value: &Value, width: usize) -> String {
    indented_by(value, &" ".repeat(width))
}

/// JSON with a tab a level.
pub fn tabbed(value: &Value) -> String {
    indented_by(value, "\t")
}

fn indented_by(value: &Value, indent: &str) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer).expect("values are JSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// As Go's `encoding/json` writes it for the Web: `<`, `>` and `&` escaped.
pub fn indented_escaped(value: &Value, width: usize) -> String {
    // These characters occur in JSON only inside of strings.
    indented(value, width)
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

/// A message of [`camel`] as Go's older protobuf library lays it out: four blanks a level, two levels for what is
/// in a list or map, an empty line in an empty message.
pub fn legacy(message: &str, value: &Value) -> String {
    let mut out = String::new();
    match descriptor(message) {
        Ok(descriptor) => legacy_message(&descriptor, value, "", None, &mut out),
        Err(_) => out = indented(value, 4),
    }
    out
}

const INDENT: &str = "    ";

fn legacy_message(
    descriptor: &MessageDescriptor,
    value: &Value,
    indent: &str,
    type_url: Option<&str>,
    out: &mut String,
) {
    let Value::Object(object) = value else {
        return legacy_loose(value, indent, out);
    };
    match descriptor.full_name() {
        "google.protobuf.Any" => {
            let url = object
                .get("@type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if let Ok(of) = self::descriptor(url) {
                return legacy_message(&of, value, indent, Some(url), out);
            }
        }
        name if name.starts_with("google.protobuf.") && type_url.is_none() => {
            return legacy_loose(value, indent, out);
        }
        _ => {}
    }
    out.push_str("{\n");
    let fields = object
        .iter()
        .filter(|(name, _)| type_url.is_none() || *name != "@type");
    let url = type_url.map(|url| ("@type".to_owned(), Value::from(url)));
    let url = url.iter().map(|(name, value)| (name, value));
    for (number, (name, value)) in url.chain(fields).enumerate() {
        if number > 0 {
            out.push_str(",\n");
        }
        out.push_str(&format!("{indent}{INDENT}{}: ", escaped(name)));
        match descriptor.get_field_by_json_name(name) {
            Some(field) => legacy_field(&field, value, indent, out),
            None => legacy_loose(value, indent, out),
        }
    }
    out.push_str(&format!("\n{indent}}}"));
}

fn legacy_field(field: &FieldDescriptor, value: &Value, indent: &str, out: &mut String) {
    let deeper = format!("{indent}{INDENT}");
    let single =
        |field: &FieldDescriptor, value: &Value, indent: &str, out: &mut String| match field.kind()
        {
            Kind::Message(message) => {
                legacy_message(&message, value, &format!("{indent}{INDENT}"), None, out);
            }
            _ => out.push_str(&escaped_value(value)),
        };
    match value {
        Value::Array(values) if field.is_list() => {
            legacy_items(
                values.iter().map(|value| (None, value)),
                ('[', ']'),
                indent,
                out,
                |value, out| {
                    single(field, value, &deeper, out);
                },
            );
        }
        Value::Object(entries) if field.is_map() => {
            let Kind::Message(entry) = field.kind() else {
                return;
            };
            let of = entry.map_entry_value_field();
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (Some(key), value));
            legacy_items(entries, ('{', '}'), indent, out, |value, out| {
                single(&of, value, &deeper, out)
            });
        }
        value => single(field, value, indent, out),
    }
}

fn legacy_items<'a>(
    items: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
    brackets: (char, char),
    indent: &str,
    out: &mut String,
    write: impl Fn(&Value, &mut String),
) {
    out.push(brackets.0);
    for (number, (key, value)) in items.enumerate() {
        out.push_str(if number > 0 { ",\n" } else { "\n" });
        out.push_str(&format!("{indent}{INDENT}{INDENT}"));
        if let Some(key) = key {
            out.push_str(&format!("{}: ", escaped(key)));
        }
        write(value, out);
    }
    out.push_str(&format!("\n{indent}{INDENT}{}", brackets.1));
}

/// What is inside of a Struct: its messages are levels of their own.
fn legacy_loose(value: &Value, indent: &str, out: &mut String) {
    let deeper = format!("{indent}{INDENT}{INDENT}{INDENT}");
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (Some(key), value));
            legacy_items(entries, ('{', '}'), indent, out, |value, out| {
                legacy_loose(value, &deeper, out)
            });
        }
        Value::Array(values) => {
            let items = values.iter().map(|value| (None, value));
            legacy_items(items, ('[', ']'), indent, out, |value, out| {
                legacy_loose(value, &deeper, out)
            });
        }
        value => out.push_str(&escaped_value(value)),
    }
}

fn escaped(text: &str) -> String {
    escaped_value(&Value::from(text))
}

fn escaped_value(value: &Value) -> String {
    value
        .to_string()
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The layout of `istioctl proxy-config bootstrap`, as seen from the real one.
    #[test]
    fn the_older_layout_has_levels_of_its_own() {
        let node =
            json!({"node": {"id": "i", "metadata": {"B": ["x"], "A": {"k": 1}}, "locality": {}}});
        let expected = r#"{
    "node": {
        "id": "i",
        "metadata": {
                "A": {
                            "k": 1
                        },
                "B": [
                            "x"
                        ]
            },
        "locality": {

        }
    }
}"#;
        let seen = legacy("envoy.config.bootstrap.v3.Bootstrap", &node);
        assert_eq!(seen, expected, "{seen}");
    }

    #[test]
    fn names_become_camel_case_in_messages_but_not_in_maps() {
        let route = json!({
            "metadata": {"filter_metadata": {"istio": {"some_key": 1}}},
            "match": {"prefix": "/", "case_sensitive": true},
            "name": "n"
        });
        let seen = camel("envoy.config.route.v3.Route", &route).to_string();
        let expected = r#"{"name":"n","match":{"prefix":"/","caseSensitive":true},"metadata":{"filterMetadata":{"istio":{"some_key":1}}}}"#;
        assert_eq!(seen, expected);
    }
}
