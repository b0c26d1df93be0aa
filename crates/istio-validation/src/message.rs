//! Reading decoded messages: what is absent has the value that protobuf gives it.

use api::go::time::parse_duration;
use serde_json::{Map, Value};

/// A message, after [`crate::decode`].
#[derive(Debug, Clone, Copy)]
pub struct Message<'a>(pub &'a Value);

static ABSENT: Value = Value::Null;

impl<'a> Message<'a> {
    /// The raw value of a field; null when absent.
    pub fn raw(self, field: &str) -> &'a Value {
        self.0.get(field).unwrap_or(&ABSENT)
    }

    /// Is the field there?
    pub fn has(self, field: &str) -> bool {
        !self.raw(field).is_null()
    }

    /// A message in a field.
    pub fn get(self, field: &str) -> Option<Message<'a>> {
        Some(self.raw(field)).filter(|v| !v.is_null()).map(Message)
    }

    /// A message in a field; an empty one when absent.
    pub fn sub(self, field: &str) -> Message<'a> {
        Message(self.raw(field))
    }

    /// A text; empty when absent.
    pub fn text(self, field: &str) -> &'a str {
        self.raw(field).as_str().unwrap_or("")
    }

    /// A text in a field that knows whether it is there.
    pub fn maybe_text(self, field: &str) -> Option<&'a str> {
        self.raw(field).as_str()
    }

    /// A whole number; 0 when absent.
    pub fn int(self, field: &str) -> i64 {
        self.maybe_int(field).unwrap_or(0)
    }

    /// A whole number that knows whether it is there.
    pub fn maybe_int(self, field: &str) -> Option<i64> {
        self.raw(field).as_i64()
    }

    /// Any number that knows whether it is there.
    pub fn maybe_number(self, field: &str) -> Option<f64> {
        self.raw(field).as_f64()
    }

    /// Any number; 0 when absent.
    pub fn number(self, field: &str) -> f64 {
        self.maybe_number(field).unwrap_or(0.0)
    }

    /// True only when it says so.
    pub fn flag(self, field: &str) -> bool {
        self.raw(field).as_bool().unwrap_or(false)
    }

    /// The length of a duration in nanoseconds.
    pub fn duration(self, field: &str) -> Option<i64> {
        parse_duration(self.maybe_text(field)?).ok()
    }

    /// The entries of a list.
    pub fn list(self, field: &str) -> &'a [Value] {
        self.raw(field).as_array().map_or(&[], Vec::as_slice)
    }

    /// The messages of a list.
    pub fn messages(self, field: &str) -> impl DoubleEndedIterator<Item = Message<'a>> + use<'a> {
        self.list(field).iter().map(Message)
    }

    /// The texts of a list.
    pub fn texts(self, field: &str) -> Vec<&'a str> {
        self.list(field).iter().filter_map(Value::as_str).collect()
    }

    /// A map, if it is there and not empty.
    pub fn map(self, field: &str) -> Option<&'a Map<String, Value>> {
        self.raw(field).as_object()
    }

    /// The entries of a map.
    pub fn entries(self, field: &str) -> impl Iterator<Item = (&'a str, Message<'a>)> + use<'a> {
        self.map(field)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), Message(v)))
    }

    /// This value itself as a text: an entry of a map of texts.
    pub fn own_text(self) -> &'a str {
        self.0.as_str().unwrap_or("")
    }

    /// This value itself as a number: an entry of a map of numbers.
    pub fn own_int(self) -> i64 {
        self.0.as_i64().unwrap_or(0)
    }

    /// An enum; its zero value when absent.
    pub fn name(self, field: &str, zero: &'a str) -> &'a str {
        match self.text(field) {
            "" => zero,
            name => name,
        }
    }
}
