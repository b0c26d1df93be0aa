//! JSON against the descriptors of Envoy's messages, with the words of Go's (older) protobuf JSON decoder, which istiod uses
//! for the patches of EnvoyFilters.

use crate::decode::{float, mismatch, whole};
use api::field::quote;
use api::go::time::parse_duration;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

const MESSAGE: &str = "map[string]json.RawMessage";
const LIST: &str = "[]json.RawMessage";

/// Checks a message; with `strict` fields that it does not have are an error, else they are skipped.
///
/// # Errors
/// The decoder's text for the first thing that does not fit.
pub(crate) fn check(
    message: &MessageDescriptor,
    value: &Value,
    strict: bool,
) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    if let Some(name) = message.full_name().strip_prefix("google.protobuf.")
        && let Some(result) = well_known(name, value, strict)
    {
        return result;
    }
    let Some(map) = value.as_object() else {
        return Err(mismatch(value, MESSAGE));
    };
    let mut known = Vec::new();
    // The fields in the order of the message, whatever that of the document is.
    let declared = message.descriptor_proto().field.iter();
    for field in declared.filter_map(|field| message.get_field_by_name(field.name())) {
        let found = [field.json_name(), field.name()]
            .into_iter()
            .find_map(|n| map.get_key_value(n));
        for name in [field.json_name(), field.name()] {
            known.push(name.to_string());
        }
        if let Some((_, value)) = found.filter(|(_, value)| !value.is_null()) {
            check_field(&field, value, strict)?;
        }
    }
    if strict && let Some(unknown) = map.keys().find(|key| !known.contains(key)) {
        return Err(format!(
            "unknown field {} in {}",
            quote(unknown),
            message.full_name()
        ));
    }
    Ok(())
}

fn check_field(field: &FieldDescriptor, value: &Value, strict: bool) -> Result<(), String> {
    if field.is_map() {
        let Some(map) = value.as_object() else {
            return Err(mismatch(value, MESSAGE));
        };
        let Kind::Message(entry) = field.kind() else {
            return Ok(());
        };
        let kind = entry.map_entry_value_field().kind();
        return map.values().try_for_each(|v| single(&kind, v, strict));
    }
    if field.is_list() {
        let Some(items) = value.as_array() else {
            return Err(mismatch(value, LIST));
        };
        return items
            .iter()
            .try_for_each(|v| single(&field.kind(), v, strict));
    }
    single(&field.kind(), value, strict)
}

fn single(kind: &Kind, value: &Value, strict: bool) -> Result<(), String> {
    let fits = |fine: bool, go: &str| {
        if fine {
            Ok(())
        } else {
            Err(mismatch(value, go))
        }
    };
    match kind {
        Kind::Message(message) => check(message, value, strict),
        Kind::Enum(names) => match value.as_str() {
            Some(name) if names.get_value_by_name(name).is_none() => Err(format!(
                "unknown value {} for enum {}",
                quote(&value.to_string()),
                names.full_name()
            )),
            Some(_) => Ok(()),
            None => whole(
                value,
                "protoreflect.EnumNumber",
                i32::MIN.into(),
                i32::MAX.into(),
            )
            .map(drop),
        },
        Kind::Bool => fits(value.is_boolean(), "bool"),
        Kind::String => fits(value.is_string(), "string"),
        Kind::Bytes => fits(value.is_string(), "[]uint8"),
        Kind::Double => float(value, "float64").map(drop),
        Kind::Float => float(value, "float32").map(drop),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            whole(value, "int32", i32::MIN.into(), i32::MAX.into()).map(drop)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            whole(value, "int64", i64::MIN.into(), i64::MAX.into()).map(drop)
        }
        Kind::Uint32 | Kind::Fixed32 => whole(value, "uint32", 0, u32::MAX.into()).map(drop),
        Kind::Uint64 | Kind::Fixed64 => whole(value, "uint64", 0, u64::MAX.into()).map(drop),
    }
}

/// Messages with a JSON form of their own; None for the others of the package.
fn well_known(name: &str, value: &Value, strict: bool) -> Option<Result<(), String>> {
    let text = || value.as_str().ok_or_else(|| mismatch(value, "string"));
    let scalar = |kind: Kind| Some(single(&kind, value, strict));
    match name {
        "BoolValue" => scalar(Kind::Bool),
        "BytesValue" => scalar(Kind::Bytes),
        "StringValue" => scalar(Kind::String),
        "Int32Value" => scalar(Kind::Int32),
        "UInt32Value" => scalar(Kind::Uint32),
        "Int64Value" => scalar(Kind::Int64),
        "UInt64Value" => scalar(Kind::Uint64),
        "FloatValue" => scalar(Kind::Float),
        "DoubleValue" => scalar(Kind::Double),
        "Duration" => Some(text().and_then(|text| {
            parse_duration(text)
                .map(drop)
                .map_err(|why| format!("bad Duration: {why}"))
        })),
        "Timestamp" => Some(text().and_then(|text| {
            let parsed = api::time::parse(text).map(drop);
            parsed.ok_or_else(|| format!("bad Timestamp: parsing time {}", quote(text)))
        })),
        "Value" => Some(Ok(())),
        "ListValue" => Some(match value {
            Value::Array(_) => Ok(()),
            _ => Err(format!("bad ListValue: {}", mismatch(value, LIST))),
        }),
        "Struct" => Some(match value {
            Value::Object(_) => Ok(()),
            _ => Err(format!("bad StructValue: {}", mismatch(value, MESSAGE))),
        }),
        "Any" => Some(any(value, strict)),
        _ => None,
    }
}

fn any(value: &Value, strict: bool) -> Result<(), String> {
    let Some(map) = value.as_object() else {
        return Err(mismatch(value, MESSAGE));
    };
    let Some(kind) = map.get("@type") else {
        return Err("Any JSON doesn't have '@type'".into());
    };
    let Some(url) = kind.as_str() else {
        return Err(format!(
            "can't unmarshal Any's '@type': {}",
            quote(&sorted(kind).to_string())
        ));
    };
    let Ok(message) = xds::json::descriptor(url) else {
        return Err(format!("could not resolve Any message type: {url}"));
    };
    let own_form = message
        .full_name()
        .strip_prefix("google.protobuf.")
        .is_some_and(|name| well_known(name, &Value::Null, strict).is_some());
    let inner = if own_form {
        match map.get("value") {
            Some(value) => check(&message, value, strict),
            None => return Err("Any JSON doesn't have 'value'".into()),
        }
    } else {
        let mut rest = map.clone();
        rest.shift_remove("@type");
        check(&message, &Value::Object(rest), strict)
    };
    inner.map_err(|why| format!("can't unmarshal Any nested proto {url}: {why}"))
}

/// A value with its members in the order of their names, as Go writes maps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            members
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        value => value.clone(),
    }
}

/// Extensions that are named without a configuration: `typed_config` of the message or of one inside of it is missing. Envoy
/// used to find those by name.
pub(crate) fn without_typed_config(message: &MessageDescriptor, value: &Value) -> Vec<String> {
    let Some(map) = value.as_object() else {
        return Vec::new();
    };
    if message.full_name() == "google.protobuf.Any" {
        return Vec::new();
    }
    let set = |field: &FieldDescriptor| {
        [field.json_name(), field.name()]
            .into_iter()
            .find_map(|name| map.get(name))
            .filter(|value| !value.is_null())
    };
    let (mut out, mut needs, mut has, mut name) = (Vec::new(), false, false, "");
    for field in message.fields() {
        let value = set(&field);
        match field.json_name() {
            "name" => name = value.and_then(Value::as_str).unwrap_or(""),
            "typedConfig" => {
                needs = true;
                has |= value.is_some();
            }
            "configDiscovery" => has |= value.is_some(),
            _ => {}
        }
        if let (Some(value), Kind::Message(inner)) = (value, field.kind())
            && !field.is_list()
            && !field.is_map()
        {
            out.extend(without_typed_config(&inner, value));
        }
    }
    if needs && !has {
        out.push(name.to_string());
    }
    out
}
