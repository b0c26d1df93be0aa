//! Decoding of built-in kinds: as the Go structs behind them would, types, zero values and all.

use crate::field::child;
use crate::quantity::Quantity;
use crate::schema::{self, Additional, Document, Node, NodeId, ObjectSchema, Type};
use crate::time;
use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What OpenAPI does not say of the Go structs (`data/go_fields.py`).
#[derive(Deserialize)]
struct GoFields {
    pointers: HashMap<String, Vec<String>>,
    always: HashMap<String, Vec<String>>,
    times: HashMap<String, Vec<String>>,
    named: HashMap<String, HashMap<String, String>>,
}

static GO: LazyLock<GoFields> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../data/go_fields.json"))
        .expect("data/go_fields.json is well formed")
});

/// How Go writes a field of a struct, where the schema does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct GoField {
    /// A pointer: zero is a value and not absence.
    pub pointer: bool,
    /// A list without omitempty: an absent one is null.
    pub always: bool,
    /// A time without omitempty: an absent one is null.
    pub time: bool,
}

/// How Go writes the field of the struct with this component name.
pub fn go_field(component: &str, field: &str) -> GoField {
    let listed = |table: &HashMap<String, Vec<String>>| {
        table
            .get(component)
            .is_some_and(|l| l.iter().any(|f| f == field))
    };
    GoField {
        pointer: listed(&GO.pointers),
        always: listed(&GO.always),
        time: listed(&GO.times),
    }
}

/// The name of a JSON type as Go's decoder says it.
pub fn json_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// One step of the walk.
enum Step<'a> {
    /// The beginning, at a path.
    Start(&'a str),
    /// A field of a struct.
    Field(&'a str),
    /// A key of a map.
    Key(&'a str),
    /// An entry of a list.
    Entry(usize),
}

/// Where the walk is. Paths are put together when there is something to say of a place.
struct At<'a> {
    /// The place this one is in; nowhere at the beginning.
    outer: Option<&'a At<'a>>,
    step: Step<'a>,
    /// The struct that has the field; for what is in a map or list, the struct that has those.
    owner: Option<&'a Node>,
    /// The field's own name.
    field: &'a str,
}

impl<'a> At<'a> {
    fn start(path: &'a str, field: &'a str) -> Self {
        Self {
            outer: None,
            step: Step::Start(path),
            owner: None,
            field,
        }
    }
    fn field(&'a self, owner: &'a Node, field: &'a str) -> Self {
        Self {
            outer: Some(self),
            step: Step::Field(field),
            owner: Some(owner),
            field,
        }
    }
    fn inner(&'a self, step: Step<'a>) -> Self {
        Self {
            outer: Some(self),
            step,
            owner: self.owner,
            field: self.field,
        }
    }
    /// With indices and keys, for unknown fields.
    fn path(&self) -> String {
        let outer = self.outer.map(At::path).unwrap_or_default();
        match self.step {
            Step::Start(path) => path.to_owned(),
            Step::Field(name) | Step::Key(name) => child(&outer, name),
            Step::Entry(i) => format!("{outer}[{i}]"),
        }
    }
    /// Of fields alone, for type errors. Where not the whole object is decoded, they count from the start.
    fn fields(&self) -> String {
        let outer = self.outer.map(At::fields).unwrap_or_default();
        match self.step {
            Step::Field(name) => child(&outer, name),
            _ => outer,
        }
    }
}

/// Decodes a whole object. The error is the text after "cannot be handled as a ...: ".
pub fn walk_object(
    schema: &ObjectSchema,
    obj: &mut Value,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let mut w = Walk {
        doc: &schema.doc,
        unknown,
    };
    w.walk(schema.root, obj, &At::start("", ""))
}

/// Decodes the metadata of an object at `path` that is not built in.
pub fn walk_metadata(obj: &mut Value, path: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    let (doc, id) = schema::object_meta();
    let Some(meta) = obj.get_mut("metadata").filter(|m| m.is_object()) else {
        return Ok(());
    };
    let path = child(path, "metadata");
    let had_time = meta.get("creationTimestamp").is_some();
    let mut w = Walk { doc: &doc, unknown };
    // Only the metadata is decoded as a struct: type errors count from there.
    let result = w.walk(id, meta, &At::start(&path, "metadata"));
    if !had_time && let Some(m) = meta.as_object_mut() {
        m.shift_remove("creationTimestamp");
    }
    result
}

struct Walk<'a> {
    doc: &'a Document,
    unknown: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn walk(&mut self, id: NodeId, v: &mut Value, at: &At) -> Result<(), String> {
        let node = self.doc.resolve(id);
        match node.short_name() {
            "Quantity" => return quantity(v, at),
            "Time" => return timestamp(v, at, false),
            "MicroTime" => return timestamp(v, at, true),
            _ => {}
        }
        if node.int_or_string {
            return match v {
                Value::String(_) => Ok(()),
                Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
                other => Err(mismatch(other, at, "int32")),
            };
        }
        match node.ty {
            Type::Any => Ok(()),
            Type::Object if !node.properties.is_empty() => self.strukt(node, v, at),
            Type::Object => match &node.additional {
                Some(Additional::Schema(s)) => self.map(*s, v, at),
                // RawExtension, FieldsV1: anything.
                _ => Ok(()),
            },
            Type::Array => {
                let Value::Array(items) = v else {
                    return Err(mismatch(v, at, &self.go_type(id)));
                };
                let Some(item) = node.items else {
                    return Ok(());
                };
                for (i, v) in items.iter_mut().enumerate() {
                    if v.is_null() {
                        *v = self.zero(item);
                    }
                    self.walk(item, v, &at.inner(Step::Entry(i)))?;
                }
                Ok(())
            }
            _ => scalar(node, v, at),
        }
    }

    fn map(&mut self, value: NodeId, v: &mut Value, at: &At) -> Result<(), String> {
        let Value::Object(map) = v else {
            return Err(mismatch(
                v,
                at,
                &format!("map[string]{}", self.go_type(value)),
            ));
        };
        for (k, v) in map.iter_mut() {
            if v.is_null() {
                *v = self.zero(value);
            }
            self.walk(value, v, &at.inner(Step::Key(k)))?;
        }
        Ok(())
    }

    fn strukt(&mut self, node: &Node, v: &mut Value, at: &At) -> Result<(), String> {
        let Value::Object(map) = v else {
            return Err(mismatch(v, at, &format!("v1.{}", node.short_name())));
        };
        let mut result = Ok(());
        map.retain(|key, v| {
            if result.is_err() {
                return true;
            }
            let Some(&id) = node.properties.get(key) else {
                self.unknown.push(at.field(node, key).path());
                return false;
            };
            if v.is_null() {
                return false;
            }
            result = self.walk(id, v, &at.field(node, key));
            if result.is_ok() && self.left_out(node, key, id, v) {
                return false;
            }
            if v.as_array().is_some_and(Vec::is_empty) && self.doc.node(id).go.always {
                // An empty list does not survive the real server's storage.
                *v = Value::Null;
            }
            true
        });
        result?;
        self.complete(node, map);
        Ok(())
    }

    /// `omitempty`: an empty value that Go would not write.
    fn left_out(&self, node: &Node, key: &str, id: NodeId, v: &Value) -> bool {
        let (field, go) = (self.doc.resolve(id), self.doc.node(id).go);
        let empty = match v {
            Value::Array(a) => a.is_empty() && !go.always,
            Value::Object(m) => {
                m.is_empty() && field.properties.is_empty() && field.additional.is_some()
            }
            Value::String(s) => s.is_empty() && !go.pointer && field.ty == Type::String,
            Value::Bool(b) => !b && !go.pointer,
            Value::Number(n) => {
                n.as_f64() == Some(0.0)
                    && !go.pointer
                    && field.ty != Type::Any
                    && !field.int_or_string
            }
            Value::Null => false,
        };
        empty && !node.required.iter().any(|r| r == key) && self.doc.node(id).default.is_null()
    }

    /// What Go writes although nobody said it: empty structs, zero values without omitempty, null times and lists.
    fn complete(&mut self, node: &Node, map: &mut Map<String, Value>) {
        for (key, id) in &node.properties {
            let field = self.doc.node(*id);
            let null = field.go.time || field.go.always;
            if (!null && field.default.is_null()) || map.contains_key(key) {
                continue;
            }
            let mut v = field.default.clone();
            // An empty struct has empty structs in it.
            let target = self.doc.resolve(*id);
            if let Value::Object(m) = &mut v
                && !target.properties.is_empty()
            {
                self.complete(target, m);
            }
            map.insert(key.clone(), v);
        }
    }

    fn zero(&mut self, id: NodeId) -> Value {
        let node = self.doc.resolve(id);
        match node.ty {
            Type::String => json!(""),
            Type::Integer | Type::Number => json!(0),
            Type::Boolean => json!(false),
            Type::Array => json!([]),
            Type::Object => json!({}),
            Type::Any => Value::Null,
        }
    }

    fn go_type(&self, id: NodeId) -> String {
        let node = self.doc.resolve(id);
        match node.ty {
            Type::Array => format!(
                "[]{}",
                node.items
                    .map_or("interface {}".into(), |i| self.go_type(i))
            ),
            Type::Object if !node.properties.is_empty() => format!("v1.{}", node.short_name()),
            Type::Object => match &node.additional {
                Some(Additional::Schema(s)) => format!("map[string]{}", self.go_type(*s)),
                _ => format!("v1.{}", node.short_name()),
            },
            _ if node.short_name() == "Quantity" => "resource.Quantity".into(),
            _ => go_scalar(node).into(),
        }
    }
}

fn go_scalar(node: &Node) -> &str {
    match (node.ty, node.format.as_str()) {
        (Type::Boolean, _) => "bool",
        (Type::Integer, "int64") => "int64",
        (Type::Integer, _) => "int32",
        (Type::Number, _) => "float64",
        (Type::String, "byte") => "[]uint8",
        _ => "string",
    }
}

fn mismatch(v: &Value, at: &At, ty: &str) -> String {
    let what = match v {
        Value::Number(n) if ty.starts_with("int") || ty.starts_with("float") => {
            format!("number {n}")
        }
        other => json_type(other).to_string(),
    };
    format!(
        "json: cannot unmarshal {what} into Go struct field {}.{} of type {ty}",
        at.owner.map_or("", Node::short_name),
        at.fields()
    )
}

fn scalar(node: &Node, v: &mut Value, at: &At) -> Result<(), String> {
    let ok = match (node.ty, &*v) {
        (Type::String, Value::String(s)) => {
            if node.format == "byte"
                && let Err(e) = base64::engine::general_purpose::STANDARD.decode(s)
            {
                let at = match e {
                    base64::DecodeError::InvalidByte(i, _)
                    | base64::DecodeError::InvalidLastSymbol(i, _) => i,
                    _ => s.len(),
                };
                return Err(format!("illegal base64 data at input byte {at}"));
            }
            true
        }
        (Type::Boolean, Value::Bool(_)) => true,
        (Type::Integer, Value::Number(n)) => match n.as_i64() {
            Some(i) => node.format != "int32" || i32::try_from(i).is_ok(),
            None => false,
        },
        (Type::Number, Value::Number(_)) => true,
        _ => false,
    };
    if ok {
        return Ok(());
    }
    let component = at.owner.map_or("", |owner| owner.name.as_str());
    let named = GO.named.get(component).and_then(|m| m.get(at.field));
    Err(mismatch(
        v,
        at,
        named.map_or_else(|| go_scalar(node), String::as_str),
    ))
}

/// Quantities are rewritten in canonical form.
fn quantity(v: &mut Value, at: &At) -> Result<(), String> {
    let text = match &*v {
        Value::String(s) => s.trim().to_string(),
        Value::Number(n) => n.to_string(),
        other => {
            // The decoder hands raw JSON to the quantity parser, which knows no other type.
            let _ = (other, at);
            return Err(crate::quantity::QuantityError::Format.to_string());
        }
    };
    let q = Quantity::parse(&text).map_err(|e| e.to_string())?;
    *v = q.to_string().into();
    Ok(())
}

/// Times are rewritten in UTC, to the second or microsecond.
fn timestamp(v: &mut Value, at: &At, micro: bool) -> Result<(), String> {
    let Value::String(s) = &*v else {
        return Err(mismatch(v, at, "string"));
    };
    let strict = !micro
        || s.get(19..).is_some_and(|rest| {
            rest.starts_with('.') && rest[1..].bytes().take_while(u8::is_ascii_digit).count() == 6
        });
    let Some(t) = time::parse(s).filter(|_| strict) else {
        let layout = if micro {
            "2006-01-02T15:04:05.000000Z07:00"
        } else {
            "2006-01-02T15:04:05Z07:00"
        };
        let (rest, element) = unparsable(s, micro);
        return Err(format!(
            "parsing time {0:?} as {layout:?}: cannot parse {rest:?} as {element:?}",
            s
        ));
    };
    *v = if micro {
        time::rfc3339_micro(t)
    } else {
        time::rfc3339(t)
    }
    .into();
    Ok(())
}

/// The rest of a time where parsing fails, and the element of Go's layout that was expected there.
fn unparsable(s: &str, micro: bool) -> (&str, &'static str) {
    let elements: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ];
    let mut rest = s;
    for (element, len) in elements {
        let ok = rest.is_char_boundary(len.min(rest.len()))
            && rest.len() >= len
            && if element.starts_with(|c: char| c.is_ascii_digit()) {
                rest[..len].bytes().all(|b| b.is_ascii_digit())
            } else {
                rest.starts_with(element)
            };
        if !ok {
            return (rest, element);
        }
        rest = &rest[len..];
    }
    (rest, if micro { ".000000" } else { "Z07:00" })
}
