//! Bodies in Kubernetes' protobuf encoding, read into the same objects as JSON ones.
//!
//! kubectl's `create` commands and most Go clients send them for built-in kinds. Answers are
//! JSON, which all of these clients accept. The field numbers come from `data/protobuf.txt.gz`
//! (made by `data/protobuf.py`).

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// The first bytes of every body.
const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; schemas of definitions are the deepest real ones.
const DEPTH: usize = 100;

#[derive(Debug)]
struct Field {
    /// Name in JSON; empty when inlined or the message's only content.
    name: String,
    kind: Kind,
    list: bool,
    map: bool,
    pointer: bool,
    inline: bool,
    always: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    Double,
    Bytes,
    Message(String),
}

type Messages = HashMap<String, HashMap<u32, Field>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("../data/protobuf.txt.gz")[..])
        .read_to_string(&mut text)
        .expect("the embedded table is valid gzip");
    text.lines().filter_map(read_message).collect()
});

fn read_message(line: &str) -> Option<(String, HashMap<u32, Field>)> {
    let mut parts = line.split('|');
    let name = parts.next()?.to_owned();
    let mut fields = HashMap::new();
    for part in parts {
        let mut columns = part.split(',');
        let number: u32 = columns.next()?.parse().ok()?;
        let json_name = columns.next()?.to_owned();
        let mut kind = columns.next()?;
        let flags = columns.next().unwrap_or("");
        let list = kind.starts_with("[]");
        let map = kind.starts_with("{}");
        kind = kind.trim_start_matches("[]").trim_start_matches("{}");
        let kind = match kind {
            "s" => Kind::Text,
            "i" => Kind::Integer,
            "b" => Kind::Boolean,
            "d" => Kind::Double,
            "y" => Kind::Bytes,
            other => Kind::Message(other.to_owned()),
        };
        fields.insert(
            number,
            Field {
                name: json_name,
                kind,
                list,
                map,
                pointer: flags.contains('*'),
                inline: flags.contains('~'),
                always: flags.contains('!'),
            },
        );
    }
    Some((name, fields))
}

/// A value on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

type Parsed<T> = Result<T, String>;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Parsed<u64> {
        let mut out = 0u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            if shift < 64 {
                out |= u64::from(first & 0x7f) << shift;
            }
            if first & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err("integer overflow".into())
    }

    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        if n > self.0.len() {
            return Err("unexpected EOF".into());
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Parsed<Option<(u32, Wire<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "illegal tag")?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| "unexpected EOF")?,
            )),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "invalid length")?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(
                self.take(4)?.try_into().map_err(|_| "unexpected EOF")?,
            )),
            other => return Err(format!("illegal wireType {other}")),
        };
        Ok(Some((number, value)))
    }
}

/// The fields of a message that has no table of its own.
fn raw_fields(bytes: &[u8]) -> Parsed<Vec<(u32, Wire<'_>)>> {
    let mut reader = Reader(bytes);
    let mut out = Vec::new();
    while let Some(field) = reader.next()? {
        out.push(field);
    }
    Ok(out)
}

fn text(bytes: &[u8]) -> Parsed<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not valid UTF-8".into())
}

fn field_bytes(bytes: &[u8], number: u32) -> Parsed<&[u8]> {
    let mut found: &[u8] = &[];
    for (n, value) in raw_fields(bytes)? {
        if let (true, Wire::Bytes(b)) = (n == number, value) {
            found = b;
        }
    }
    Ok(found)
}

fn field_integer(bytes: &[u8], number: u32) -> Parsed<i64> {
    let mut found = 0;
    for (n, value) in raw_fields(bytes)? {
        if let (true, Wire::Varint(v)) = (n == number, value) {
            found = v.cast_signed();
        }
    }
    Ok(found)
}

/// A body's object.
///
/// # Errors
/// A sentence for the message of the 400.
pub(crate) fn decode(body: &[u8]) -> Parsed<Value> {
    let rest = body.strip_prefix(MAGIC).ok_or(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
    )?;
    let type_meta = field_bytes(rest, 1)?;
    let api_version = text(field_bytes(type_meta, 1)?)?;
    let kind = text(field_bytes(type_meta, 2)?)?;
    let raw = field_bytes(rest, 2)?;
    let (group, version) = api::meta::group_version(&api_version);
    let package = if group.is_empty() {
        "core"
    } else {
        group.split('.').next().unwrap_or("")
    };
    let mut name = format!("{package}/{version}.{kind}");
    if !MESSAGES.contains_key(&name) {
        name = format!("meta/v1.{kind}");
    }
    if !MESSAGES.contains_key(&name) {
        return Err(format!(
            "no kind {kind:?} is registered for version {api_version:?}"
        ));
    }
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    message(&name, raw, &mut object, DEPTH)?;
    Ok(Value::Object(object))
}

fn message(name: &str, bytes: &[u8], out: &mut Map<String, Value>, depth: usize) -> Parsed<()> {
    if depth == 0 {
        return Err("messages are nested too deeply".into());
    }
    let fields = MESSAGES
        .get(name)
        .ok_or_else(|| format!("unknown message {name}"))?;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields.get(&number) else {
            continue;
        };
        if field.inline {
            if let (Kind::Message(inner), Wire::Bytes(b)) = (&field.kind, &wire) {
                message(inner, b, out, depth - 1)?;
            }
            continue;
        }
        if field.map {
            if let Wire::Bytes(entry) = wire {
                let key = text(field_bytes(entry, 1)?)?;
                let mut value = zero(&field.kind);
                for (n, w) in raw_fields(entry)? {
                    if n == 2 {
                        value = scalar(&field.kind, &w, depth)?;
                    }
                }
                let map = out.entry(field.name.clone()).or_insert_with(|| json!({}));
                map[key] = value;
            }
            continue;
        }
        if field.list {
            let list = out.entry(field.name.clone()).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else {
                continue;
            };
            match (&field.kind, &wire) {
                // Packed numbers.
                (Kind::Integer | Kind::Boolean, Wire::Bytes(packed)) => {
                    let mut inner = Reader(packed);
                    while !inner.0.is_empty() {
                        let v = inner.varint()?;
                        list.push(scalar(&field.kind, &Wire::Varint(v), depth)?);
                    }
                }
                _ => list.push(scalar(&field.kind, &wire, depth)?),
            }
            continue;
        }
        let value = scalar(&field.kind, &wire, depth)?;
        // Go writes empty members of structs too; JSON leaves them out.
        let empty = value.is_null() || value == "" || value == 0 || value == false;
        if empty && (value.is_null() || !(field.pointer || field.always)) {
            continue;
        }
        out.insert(field.name.clone(), value);
    }
    Ok(())
}

fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::Bytes => "".into(),
        Kind::Integer | Kind::Double => 0.into(),
        Kind::Boolean => false.into(),
        Kind::Message(_) => json!({}),
    }
}

fn scalar(kind: &Kind, wire: &Wire<'_>, depth: usize) -> Parsed<Value> {
    Ok(match (kind, wire) {
        (Kind::Text, Wire::Bytes(b)) => text(b)?.into(),
        (Kind::Bytes, Wire::Bytes(b)) => base64::engine::general_purpose::STANDARD.encode(b).into(),
        (Kind::Integer, Wire::Varint(v)) => v.cast_signed().into(),
        (Kind::Integer, Wire::Fixed64(v)) => v.cast_signed().into(),
        (Kind::Integer, Wire::Fixed32(v)) => v.cast_signed().into(),
        (Kind::Boolean, Wire::Varint(v)) => (*v != 0).into(),
        (Kind::Double, Wire::Fixed64(v)) => {
            let number = f64::from_bits(*v);
            if number.fract() == 0.0 && number.abs() < 9e15 {
                #[allow(clippy::cast_possible_truncation)] // whole and small enough
                let whole = number as i64;
                whole.into()
            } else {
                number.into()
            }
        }
        (Kind::Message(name), Wire::Bytes(b)) => special(name, b, depth)?,
        _ => return Err("wrong wireType for a field".into()),
    })
}

/// Messages whose JSON is not an object of their fields.
fn special(name: &str, bytes: &[u8], depth: usize) -> Parsed<Value> {
    let embedded = |b: &[u8]| -> Parsed<Value> {
        if b.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(b).map_err(|e| format!("embedded JSON: {e}"))
    };
    let nested = |inner: &str, b: &[u8]| -> Parsed<Value> {
        let mut map = Map::new();
        message(inner, b, &mut map, depth.saturating_sub(1))?;
        Ok(Value::Object(map))
    };
    const PROPS: &str = "apiextensions/v1.JSONSchemaProps";
    Ok(match name {
        "meta/v1.Time" | "meta/v1.MicroTime" => {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            let (seconds, nanos) = (field_integer(bytes, 1)?, field_integer(bytes, 2)?);
            let at = api::time::Time::from_unix_timestamp(seconds).map_err(|e| e.to_string())?
                + std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
            if name.ends_with("MicroTime") {
                api::time::rfc3339_micro(at).into()
            } else {
                api::time::rfc3339(at).into()
            }
        }
        "resource.Quantity" => text(field_bytes(bytes, 1)?)?.into(),
        "intstr.IntOrString" => {
            if field_integer(bytes, 1)? == 1 {
                text(field_bytes(bytes, 3)?)?.into()
            } else {
                field_integer(bytes, 2)?.into()
            }
        }
        "meta/v1.Duration" => format!("{}ns", field_integer(bytes, 1)?).into(),
        "runtime.RawExtension" | "meta/v1.FieldsV1" | "apiextensions/v1.JSON" => {
            embedded(field_bytes(bytes, 1)?)?
        }
        "authentication/v1.ExtraValue"
        | "authorization/v1.ExtraValue"
        | "certificates/v1.ExtraValue" => {
            let mut list = Vec::new();
            for (n, wire) in raw_fields(bytes)? {
                if let (1, Wire::Bytes(b)) = (n, wire) {
                    list.push(text(b)?);
                }
            }
            list.into()
        }
        "apiextensions/v1.JSONSchemaPropsOrBool" => match field_bytes(bytes, 2)? {
            [] => (field_integer(bytes, 1)? != 0).into(),
            schema => nested(PROPS, schema)?,
        },
        "apiextensions/v1.JSONSchemaPropsOrArray" => match field_bytes(bytes, 1)? {
            [] => {
                let mut list = Vec::new();
                for (n, wire) in raw_fields(bytes)? {
                    if let (2, Wire::Bytes(b)) = (n, wire) {
                        list.push(nested(PROPS, b)?);
                    }
                }
                list.into()
            }
            schema => nested(PROPS, schema)?,
        },
        "apiextensions/v1.JSONSchemaPropsOrStringArray" => {
            let mut list = Vec::new();
            for (n, wire) in raw_fields(bytes)? {
                if let (2, Wire::Bytes(b)) = (n, wire) {
                    list.push(text(b)?);
                }
            }
            list.into()
        }
        _ => nested(name, bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
        out.push(number << 3 | 2);
        out.push(u8::try_from(bytes.len()).unwrap());
        out.extend_from_slice(bytes);
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let mut meta = Vec::new();
        put(&mut meta, 1, api_version.as_bytes());
        put(&mut meta, 2, kind.as_bytes());
        let mut out = MAGIC.to_vec();
        put(&mut out, 1, &meta);
        put(&mut out, 2, raw);
        out
    }

    #[test]
    fn a_config_map_is_read() {
        let mut meta = Vec::new();
        put(&mut meta, 1, b"a");
        put(&mut meta, 2, b"");
        put(&mut meta, 8, b"");
        let mut entry = Vec::new();
        put(&mut entry, 1, b"k");
        put(&mut entry, 2, b"v");
        let mut raw = Vec::new();
        put(&mut raw, 1, &meta);
        put(&mut raw, 2, &entry);
        assert_eq!(
            decode(&body("v1", "ConfigMap", &raw)).unwrap(),
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn zero_stays_where_it_means_something() {
        // Deployment.spec.replicas is a pointer, minReadySeconds is not.
        let mut raw = Vec::new();
        put(&mut raw, 2, &[1 << 3, 0, 5 << 3, 0]);
        let d = decode(&body("apps/v1", "Deployment", &raw)).unwrap();
        assert_eq!(d["spec"]["replicas"], 0);
        assert!(d["spec"].get("minReadySeconds").is_none());
    }

    #[test]
    fn the_port_of_a_node_is_read() {
        // NodeStatus.daemonEndpoints.kubeletEndpoint.Port, whose name in JSON begins with a capital.
        let mut endpoints = Vec::new();
        put(&mut endpoints, 1, &[1 << 3, 0x8a, 0x50]);
        let mut status = Vec::new();
        put(&mut status, 6, &endpoints);
        let mut raw = Vec::new();
        put(&mut raw, 3, &status);
        let node = decode(&body("v1", "Node", &raw)).unwrap();
        assert_eq!(
            node["status"],
            json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}})
        );
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        assert!(
            decode(b"{}")
                .unwrap_err()
                .contains("does not appear to be a protobuf message")
        );
        assert!(
            decode(&body("v1", "Nonsense", &[]))
                .unwrap_err()
                .contains("no kind")
        );
        assert!(decode(&body("v1", "ConfigMap", &[10, 200])).is_err());
        assert!(decode(&[b'k', b'8', b's', 0, 255, 255]).is_err());
    }
}
