//! Types, and the types of schemas.

use super::value::{Key, ListKind, Map, Value};
use crate::schema::{Additional, Document, NodeId, Type as SchemaType};
use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the language
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    Type,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    /// An object with the fields of a schema.
    Object(NodeId),
    /// The whole resource: an object that has `apiVersion`, `kind` and `metadata` besides.
    Resource(NodeId),
    /// The visible part of an object's metadata.
    Metadata,
    /// An object with these fields.
    Fields(Arc<[(String, Type)]>),
    /// A type of Kubernetes' libraries.
    Opaque(&'static str),
    /// Any one type, the same everywhere in a signature.
    Param(char),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Type => f.write_str("type"),
            Self::List(t) => write!(f, "list({t})"),
            Self::Map(k, v) => write!(f, "map({k}, {v})"),
            Self::Optional(t) => write!(f, "optional_type({t})"),
            Self::Object(_) | Self::Resource(_) | Self::Metadata | Self::Fields(_) => {
                f.write_str("object")
            }
            Self::Opaque(name) => f.write_str(name),
            Self::Param(name) => write!(f, "{name}"),
        }
    }
}

/// Words that are no names in expressions.
pub(crate) const KEYWORDS: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as expressions write it (`x-y` as `x__dash__y`); None when they cannot.
pub fn escaped(name: &str) -> Option<String> {
    if KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    if first.is_ascii_digit() {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The type of the values of a schema; None for those that expressions cannot see.
pub fn of_schema(doc: &Document, id: NodeId, root: bool) -> Option<Type> {
    let node = doc.resolve(id);
    if node.int_or_string {
        return Some(Type::Dyn);
    }
    Some(match node.ty {
        SchemaType::Object if root || node.embedded => Type::Resource(id),
        SchemaType::Object => match node.additional {
            Some(Additional::Schema(values)) => Type::Map(
                Box::new(Type::String),
                Box::new(of_schema(doc, values, false)?),
            ),
            Some(Additional::Any(true)) => return None,
            _ => Type::Object(id),
        },
        SchemaType::Array => Type::List(Box::new(of_schema(doc, node.items?, false)?)),
        SchemaType::String => match node.format.as_str() {
            "byte" => Type::Bytes,
            "duration" => Type::Duration,
            "date" | "date-time" => Type::Timestamp,
            _ => Type::String,
        },
        SchemaType::Boolean => Type::Bool,
        SchemaType::Number => Type::Double,
        SchemaType::Integer => Type::Int,
        SchemaType::Any => return None,
    })
}

/// The type of a field of an object, by the name that expressions use.
pub(super) fn field(doc: &Document, of: &Type, name: &str) -> Option<Type> {
    let (id, whole) = match of {
        Type::Object(id) => (*id, false),
        Type::Resource(id) => (*id, true),
        Type::Fields(fields) => {
            let found = fields.iter().rev().find(|(field, _)| field == name);
            return found.map(|(_, ty)| ty.clone());
        }
        Type::Metadata => {
            return matches!(name, "name" | "generateName").then_some(Type::String);
        }
        _ => return None,
    };
    if whole {
        match name {
            "apiVersion" | "kind" => return Some(Type::String),
            "metadata" => return Some(Type::Metadata),
            _ => {}
        }
    }
    let node = doc.resolve(id);
    let (_, inner) = node
        .properties
        .iter()
        .find(|(property, _)| escaped(property).as_deref() == Some(name))?;
    of_schema(doc, *inner, false)
}

/// A JSON value as a value of the language, by its schema.
pub fn to_value(doc: &Document, id: NodeId, json: &serde_json::Value, root: bool) -> Value {
    let node = doc.resolve(id);
    match json {
        serde_json::Value::Object(map) => {
            let mut out = Map::with_capacity(map.len());
            if root || node.embedded {
                for field in ["apiVersion", "kind"] {
                    if let Some(text) = map.get(field).and_then(|v| v.as_str()) {
                        out.insert(Key::String(field.into()), Value::text(text));
                    }
                }
                let metadata = &json["metadata"];
                let mut visible = Map::new();
                for field in ["name", "generateName"] {
                    if let Some(text) = metadata[field].as_str() {
                        visible.insert(Key::String(field.into()), Value::text(text));
                    }
                }
                out.insert(
                    Key::String("metadata".into()),
                    Value::Map(Arc::new(visible)),
                );
            }
            for (key, inner) in map {
                if let Some(property) = node.properties.get(key) {
                    if of_schema(doc, *property, false).is_none() {
                        continue;
                    }
                    // A null of a field that cannot be null is no value.
                    let target = doc.resolve(*property);
                    if inner.is_null() && !target.nullable && !doc.node(*property).nullable {
                        continue;
                    }
                    if let Some(name) = escaped(key) {
                        out.entry(Key::String(name.into()))
                            .or_insert_with(|| to_value(doc, *property, inner, false));
                    }
                } else if let Some(Additional::Schema(values)) = node.additional {
                    out.insert(
                        Key::String(key.as_str().into()),
                        to_value(doc, values, inner, false),
                    );
                }
            }
            Value::Map(Arc::new(out))
        }
        serde_json::Value::Array(items) => {
            let items: Vec<Value> = match node.items {
                Some(inner) => items
                    .iter()
                    .map(|v| to_value(doc, inner, v, false))
                    .collect(),
                None => items.iter().map(plain).collect(),
            };
            let kind = match node.list_type.as_str() {
                "set" => ListKind::Set,
                "map" => ListKind::Map(
                    node.list_map_keys
                        .iter()
                        .map(|key| escaped(key).unwrap_or_default().into())
                        .collect(),
                ),
                _ => ListKind::Atomic,
            };
            Value::List(Arc::new(items), Arc::new(kind))
        }
        serde_json::Value::String(text) => match node.format.as_str() {
            "duration" => crate::go::time::parse_duration(text)
                .map_or_else(|_| Value::text(text.as_str()), Value::Duration),
            "date-time" => crate::time::parse(text)
                .map_or_else(|| Value::text(text.as_str()), Value::Timestamp),
            "date" => crate::time::parse(&format!("{text}T00:00:00Z"))
                .map_or_else(|| Value::text(text.as_str()), Value::Timestamp),
            "byte" => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_or_else(|_| Value::text(text.as_str()), |b| Value::Bytes(b.into()))
            }
            _ => Value::text(text.as_str()),
        },
        serde_json::Value::Number(number) if node.ty == SchemaType::Number => {
            Value::Double(number.as_f64().unwrap_or_default())
        }
        other => plain(other),
    }
}

/// A JSON value without a schema.
pub fn plain(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(int) => Value::Int(int),
            None => match n.as_f64() {
                Some(f) if f.fract() == 0.0 && f.abs() < 9e15 => Value::Int(f as i64),
                f => Value::Double(f.unwrap_or_default()),
            },
        },
        serde_json::Value::String(s) => Value::text(s.as_str()),
        serde_json::Value::Array(items) => Value::list(items.iter().map(plain).collect()),
        serde_json::Value::Object(map) => Value::Map(Arc::new(
            map.iter()
                .map(|(k, v)| (Key::String(k.as_str().into()), plain(v)))
                .collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_escaped() {
        assert_eq!(escaped("a").as_deref(), Some("a"));
        assert_eq!(
            escaped("x-y.z/a__b").as_deref(),
            Some("x__dash__y__dot__z__slash__a__underscores__b")
        );
        assert_eq!(escaped("in").as_deref(), Some("__in__"));
        assert_eq!(escaped("a b"), None);
    }
}
