//! Objects as a local copy keeps them: without `metadata.managedFields`, which are half of what an object is and which nobody reads
//! there (a server keeps them where an update has none), and in as much memory as they need. A parser that does not know how many
//! entries follow leaves room for some that never come, a third of an object that is kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

const MANAGED_FIELDS: &str = "managedFields";

/// The event of a watch, its object lean.
pub(crate) fn event(line: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let mut open = Open::default();
    let value = Seed {
        open: &mut open,
        place: Place::Event,
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// An object that was read in another way, made lean.
pub(crate) fn object(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove(MANAGED_FIELDS);
    }
    exact(object)
}

fn exact(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut exactly = Map::with_capacity(members.len());
            exactly.extend(members.into_iter().map(|(key, value)| (key, exact(value))));
            Value::Object(exactly)
        }
        Value::Array(items) => {
            let mut exactly = Vec::with_capacity(items.len());
            exactly.extend(items.into_iter().map(exact));
            Value::Array(exactly)
        }
        scalar => scalar,
    }
}

/// What has been read of the maps and lists that are not complete yet, the innermost last.
#[derive(Default)]
struct Open {
    members: Vec<(String, Value)>,
    items: Vec<Value>,
}

/// Where in the event a value is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Event,
    Object,
    Metadata,
    Deeper,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Event, "object") => Self::Object,
            (Self::Object, "metadata") => Self::Metadata,
            _ => Self::Deeper,
        }
    }
}

struct Seed<'a> {
    open: &'a mut Open,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let start = self.open.items.len();
        while let Some(item) = list.next_element_seed(Seed {
            open: &mut *self.open,
            place: Place::Deeper,
        })? {
            self.open.items.push(item);
        }
        Ok(Value::Array(self.open.items.drain(start..).collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let start = self.open.members.len();
        while let Some(key) = map.next_key::<String>()? {
            if self.place == Place::Metadata && key == MANAGED_FIELDS {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(Seed {
                open: &mut *self.open,
                place: self.place.below(&key),
            })?;
            self.open.members.push((key, value));
        }
        let mut members = Map::with_capacity(self.open.members.len() - start);
        members.extend(self.open.members.drain(start..));
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn modified() -> Value {
        json!({"type": "MODIFIED", "object": {
            "metadata": {"name": "a", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}], "uid": "1"},
            "spec": {"metadata": {"managedFields": ["of a template"]}, "b": [1, -2, {"z": null, "a": [[], {}, true]}], "a": "text", "c": 1.5},
        }})
    }

    #[test]
    fn an_event_is_what_any_parser_reads_without_managed_fields() {
        let whole = modified();
        let read = event(whole.to_string().as_bytes()).unwrap();
        let mut expected = whole;
        expected["object"]["metadata"]
            .as_object_mut()
            .unwrap()
            .shift_remove(MANAGED_FIELDS);
        // In the same order as well.
        assert_eq!(read.to_string(), expected.to_string());
    }

    #[test]
    fn an_object_read_otherwise_becomes_the_same() {
        let whole = modified();
        assert_eq!(
            object(whole["object"].clone()).to_string(),
            event(whole.to_string().as_bytes()).unwrap()["object"].to_string()
        );
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", r#"{"type": }"#, r#"{"type": "ADDED"} x"#] {
            assert!(event(text.as_bytes()).is_err(), "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(event(deep.as_bytes()).is_err());
    }
}
