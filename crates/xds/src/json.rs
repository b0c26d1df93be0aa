//! Canonical protobuf JSON, through the descriptors of all Envoy messages.
//!
//! Written as Envoy writes it: proto field names (`snake_case`), fields with default values left
//! out, 64-bit integers as strings, a nested `Any` spelled out next to its `@type`. An `Any` whose
//! type nobody knows becomes `{"@type": ..., "value": <base64>}` instead of an error. Reading
//! accepts `lowerCamelCase` names, too.
//!
//! What is read here always becomes the same bytes: the entries of maps are encoded in order,
//! also inside of an `Any`.

use crate::type_url;
use crate::wire::put_bytes;
use crate::{DecodeError, Wire};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value as Field,
};
use prost_types::Any;
use serde_json::{Map, Number, Value};
use std::sync::LazyLock;

/// Why a message could not be read or written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no message of this name.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The bytes are not such a message.
    #[error("not a valid {name}: {source}")]
    Decode {
        /// The full name of the message.
        name: String,
        /// What is wrong with the encoding.
        source: DecodeError,
    },
    /// The JSON does not fit the message.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!("gen/descriptors.bin").as_slice())
        .expect("xtask writes a valid descriptor set")
});

/// The descriptors of all messages: those with Rust types and every other one of the Envoy API.
pub fn descriptor_pool() -> &'static DescriptorPool {
    &POOL
}

/// The descriptor of a message, by full name or by type URL.
pub fn descriptor(name: &str) -> Result<MessageDescriptor, Error> {
    let name = type_url::message_name(name);
    POOL.get_message_by_name(name)
        .ok_or_else(|| Error::UnknownType(name.to_owned()))
}

/// A message as JSON.
pub fn to_value<M: Wire>(message: &M) -> Result<Value, Error> {
    to_value_by_type_url(M::FULL_NAME, &message.to_wire())
}

/// An encoded message as JSON, without an `@type`.
pub fn to_value_by_type_url(type_url: &str, bytes: &[u8]) -> Result<Value, Error> {
    dynamic_to_value(&decode(descriptor(type_url)?, bytes)?)
}

/// An `Any` as JSON, with its `@type`.
pub fn any_to_value(any: &Any) -> Result<Value, Error> {
    write_any(&any.type_url, &any.value)
}

/// A message from JSON. Fields that it does not have are an error with `deny_unknown`, else skipped.
pub fn from_value<M: Wire>(value: Value, deny_unknown: bool) -> Result<M, Error> {
    read(&value, deny_unknown)
}

/// An `Any` from JSON with an `@type`.
pub fn any_from_value(value: &Value, deny_unknown: bool) -> Result<Any, Error> {
    read(value, deny_unknown)
}

fn read<M: Wire>(value: &Value, deny_unknown: bool) -> Result<M, Error> {
    let name = M::FULL_NAME;
    let message = dynamic_from_value(name, value, deny_unknown)?;
    M::from_wire(&encode(&message)).map_err(|source| Error::Decode {
        name: name.to_owned(),
        source,
    })
}

/// A message of any known type from JSON without an `@type`, by full name or by type URL.
pub fn dynamic_from_value(
    name: &str,
    value: &Value,
    deny_unknown: bool,
) -> Result<DynamicMessage, Error> {
    let descriptor = descriptor(name)?;
    let options = DeserializeOptions::new().deny_unknown_fields(deny_unknown);
    match DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options) {
        Ok(message) => Ok(message),
        Err(error) => {
            let mut marked = value.clone();
            if !mark(&mut marked) {
                return Err(error.into());
            }
            let mut message =
                DynamicMessage::deserialize_with_options(descriptor, &marked, &options)?;
            unmark(&mut message);
            Ok(message)
        }
    }
}

/// A message of any known type as JSON, without an `@type`.
pub fn dynamic_to_value(message: &DynamicMessage) -> Result<Value, Error> {
    write_message(message)
}

fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Error> {
    let name = descriptor.full_name().to_owned();
    DynamicMessage::decode(descriptor, bytes).map_err(|source| Error::Decode {
        name,
        source: source.into(),
    })
}

// ---- writing -------------------------------------------------------------------------------------

fn write_message(message: &DynamicMessage) -> Result<Value, Error> {
    let descriptor = message.descriptor();
    let Some(well_known) = descriptor.full_name().strip_prefix("google.protobuf.") else {
        return write_fields(message).map(Value::Object);
    };
    let field = |number: u32| message.get_field_by_number(number);
    Ok(match well_known {
        "Any" => {
            let (url, bytes) = (field(1), field(2));
            let url = url.as_deref().and_then(Field::as_str).unwrap_or_default();
            let bytes = bytes
                .as_deref()
                .and_then(Field::as_bytes)
                .map_or(&[][..], |bytes| bytes);
            write_any(url, bytes)?
        }
        "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value" | "Int64Value"
        | "StringValue" | "UInt32Value" | "UInt64Value" => {
            let value = descriptor.get_field(1).expect("a wrapper has a field");
            write_single(&message.get_field(&value), &value.kind())?
        }
        "Duration" | "Timestamp" | "FieldMask" => message
            .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())?,
        "Struct" => match field(1).as_deref() {
            Some(Field::Map(_)) => write_field(
                &descriptor.get_field(1).expect("fields"),
                &field(1).expect("fields"),
            )?,
            _ => Value::Object(Map::new()),
        },
        "ListValue" => match descriptor.get_field(1) {
            Some(values) => write_field(&values, &message.get_field(&values))?,
            None => Value::Array(Vec::new()),
        },
        "Value" => match message.fields().next() {
            Some((kind, value)) => write_field(&kind, value)?,
            None => Value::Null,
        },
        _ => Value::Object(write_fields(message)?),
    })
}

fn write_fields(message: &DynamicMessage) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    for (field, value) in message.fields() {
        object.insert(field.name().to_owned(), write_field(&field, value)?);
    }
    Ok(object)
}

fn write_field(field: &FieldDescriptor, value: &Field) -> Result<Value, Error> {
    match value {
        Field::List(list) => {
            let kind = field.kind();
            list.iter()
                .map(|value| write_single(value, &kind))
                .collect::<Result<_, _>>()
                .map(Value::Array)
        }
        Field::Map(map) => {
            let entry = field.kind();
            let kind = entry
                .as_message()
                .expect("a map has entries")
                .map_entry_value_field()
                .kind();
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries
                .into_iter()
                .map(|(key, value)| Ok((map_key(key), write_single(value, &kind)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object)
        }
        single => write_single(single, &field.kind()),
    }
}

fn write_single(value: &Field, kind: &Kind) -> Result<Value, Error> {
    Ok(match value {
        Field::Bool(value) => Value::Bool(*value),
        Field::I32(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::I64(value) => Value::String(value.to_string()),
        Field::U64(value) => Value::String(value.to_string()),
        // The shortest digits that mean this float, not those of the nearest double.
        Field::F32(value) => write_float(value.to_string().parse().unwrap_or(f64::from(*value))),
        Field::F64(value) => write_float(*value),
        Field::String(value) => Value::String(value.clone()),
        Field::Bytes(value) => Value::String(BASE64.encode(value)),
        Field::EnumNumber(number) => write_enum(kind.as_enum(), *number),
        Field::Message(message) => write_message(message)?,
        Field::List(_) | Field::Map(_) => unreachable!("lists and maps do not nest"),
    })
}

fn write_enum(descriptor: Option<&EnumDescriptor>, number: i32) -> Value {
    match descriptor {
        Some(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => Value::Null,
        Some(descriptor) => match descriptor.get_value(number) {
            Some(value) => Value::String(value.name().to_owned()),
            None => Value::from(number),
        },
        None => Value::from(number),
    }
}

/// Whole numbers without a fraction, as every other implementation writes them.
fn write_float(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Value::from(value as i64);
    }
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None => Value::from(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn write_any(url: &str, bytes: &[u8]) -> Result<Value, Error> {
    let mut object = Map::new();
    if url.is_empty() && bytes.is_empty() {
        return Ok(Value::Object(object));
    }
    object.insert("@type".to_owned(), Value::from(url));
    match descriptor(url) {
        Ok(descriptor) => {
            let plain = !has_own_json(descriptor.full_name());
            let message = decode(descriptor, bytes)?;
            if plain {
                object.extend(write_fields(&message)?);
            } else {
                object.insert("value".to_owned(), write_message(&message)?);
            }
        }
        Err(_) => {
            object.insert("value".to_owned(), Value::from(BASE64.encode(bytes)));
        }
    }
    Ok(Value::Object(object))
}

/// Whether the JSON of a message is something else than an object of its fields. Inside of an
/// `Any` it then stands under `value`.
fn has_own_json(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|name| {
        name.ends_with("Value")
            || matches!(
                name,
                "Any" | "Duration" | "Timestamp" | "FieldMask" | "Struct" | "Empty"
            )
    })
}

// ---- reading: an `Any` of unknown type -----------------------------------------------------------

/// prost-reflect takes the type of an `Any` from behind the last slash of its URL. With this
/// suffix, an unknown type with base64 bytes is read as a `BytesValue`; see [`unmark`].
const MARK: &str = "\u{0}/google.protobuf.BytesValue";

/// Marks every `{"@type": <unknown>, "value": <base64>}`; says whether there was one.
fn mark(value: &mut Value) -> bool {
    match value {
        Value::Array(values) => values
            .iter_mut()
            .fold(false, |found, value| mark(value) | found),
        Value::Object(object) => {
            let unknown = object.len() <= 2
                && matches!(object.get("value"), None | Some(Value::String(_)))
                && object
                    .get("@type")
                    .and_then(Value::as_str)
                    .is_some_and(|url| descriptor(url).is_err());
            if unknown && object.len() == 1 {
                object.insert("value".to_owned(), Value::from(""));
            }
            if unknown && object.contains_key("value") {
                if let Some(Value::String(url)) = object.get_mut("@type") {
                    url.push_str(MARK);
                }
                return true;
            }
            object
                .values_mut()
                .fold(false, |found, value| mark(value) | found)
        }
        _ => false,
    }
}

/// Gives every marked `Any` its URL and its bytes back, at any depth.
fn unmark(message: &mut DynamicMessage) {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let Ok(any) = message.transcode_to::<Any>() else {
            return;
        };
        let (url, bytes) = match any.type_url.strip_suffix(MARK) {
            Some(url) => (
                url.to_owned(),
                Vec::<u8>::decode(any.value.as_slice()).unwrap_or_default(),
            ),
            None => {
                let Ok(mut inner) =
                    descriptor(&any.type_url).and_then(|inner| decode(inner, &any.value))
                else {
                    return;
                };
                unmark(&mut inner);
                (any.type_url, inner.encode_to_vec())
            }
        };
        message.set_field_by_number(1, Field::String(url));
        message.set_field_by_number(2, Field::Bytes(bytes.into()));
        return;
    }
    for (_, field) in message.fields_mut() {
        match field {
            Field::List(list) => list.iter_mut().for_each(unmark_field),
            Field::Map(map) => map.values_mut().for_each(unmark_field),
            single => unmark_field(single),
        }
    }
}

fn unmark_field(field: &mut Field) {
    match field {
        Field::Message(message) => unmark(message),
        // A `Struct` may have a key "@type", too.
        Field::String(text) if text.ends_with(MARK) => text.truncate(text.len() - MARK.len()),
        _ => {}
    }
}

// ---- reading: the same bytes every time ----------------------------------------------------------

/// Encodes a message with the entries of all its maps in order, also inside of every `Any`.
///
/// The maps of a [`DynamicMessage`] are hash maps; its own encoding differs from call to call.
pub fn encode(message: &DynamicMessage) -> Vec<u8> {
    let descriptor = message.descriptor();
    let mut out = Vec::new();
    if descriptor.full_name() == "google.protobuf.Any"
        && let Ok(mut any) = message.transcode_to::<Any>()
    {
        if let Ok(inner) = self::descriptor(&any.type_url)
            && let Ok(inner) = decode(inner, &any.value)
        {
            any.value = encode(&inner);
        }
        return any.encode_to_vec();
    }
    for (field, value) in message.fields() {
        match value {
            Field::Message(inner) => put_bytes(&mut out, field.number(), &encode(inner)),
            Field::List(list) if matches!(field.kind(), Kind::Message(_)) => {
                for inner in list.iter().filter_map(Field::as_message) {
                    put_bytes(&mut out, field.number(), &encode(inner));
                }
            }
            Field::Map(map) => {
                let Kind::Message(entry) = field.kind() else {
                    continue;
                };
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                for (key, value) in entries {
                    let mut pair = DynamicMessage::new(entry.clone());
                    pair.set_field_by_number(1, Field::from(key.clone()));
                    pair.set_field_by_number(2, value.clone());
                    put_bytes(&mut out, field.number(), &encode(&pair));
                }
            }
            plain => {
                let mut single = DynamicMessage::new(descriptor.clone());
                single.set_field(&field, plain.clone());
                out.extend(single.encode_to_vec());
            }
        }
    }
    if message.unknown_fields().next().is_some() {
        let mut rest = message.clone();
        rest.take_fields().for_each(drop);
        out.extend(rest.encode_to_vec());
    }
    out
}
