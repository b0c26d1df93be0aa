//! Small readers of untyped objects.

use api::time::Time;
use serde_json::{Map, Value, json};

/// A whole number, 0 when absent.
pub(crate) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// A list's elements; none when absent.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text, empty when absent.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The uid of the managing owner; empty when there is none.
pub(crate) fn controller_uid(object: &Value) -> &str {
    api::meta::controller_of(object).map_or("", |owner| text(&owner["uid"]))
}

/// Whether the object is being deleted.
pub(crate) fn is_terminating(object: &Value) -> bool {
    api::meta::deletion_timestamp(object).is_some()
}

/// A time of an object, when it can be read.
pub(crate) fn time_at(value: &Value) -> Option<Time> {
    api::time::parse(value.as_str()?)
}

/// When the object was made; the epoch when that is unknown.
pub(crate) fn created(object: &Value) -> Time {
    time_at(&object["metadata"]["creationTimestamp"]).unwrap_or(Time::UNIX_EPOCH)
}

/// The entry of a condition list with this type.
pub(crate) fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    items(conditions)
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// The merge patch that turns one value into another; `None` when they are equal. Absence and
/// null are the same.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in after {
        if let Some(change) = merge_patch(&old[key.as_str()], value) {
            patch.insert(key.clone(), change);
        }
    }
    for (key, value) in before {
        if !value.is_null() && !after.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Removes members that are null, zero, or empty, as the API's `omitempty` does.
pub(crate) fn omit_empty(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| match value {
            Value::Null => false,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(_) => true,
        });
    }
    object
}

/// The merge patch of an object's status, when it changes.
pub(crate) fn status_patch(object: &Value, status: &Value) -> Option<Value> {
    let old = if object["status"].is_null() {
        json!({})
    } else {
        object["status"].clone()
    };
    merge_patch(&old, status).map(|change| json!({"status": change}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches_hold_only_the_difference() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1], "n": null});
        let new = json!({"a": 1, "b": {"c": 5}, "e": [1, 2], "f": "x"});
        assert_eq!(
            merge_patch(&old, &new).unwrap(),
            json!({"b": {"c": 5, "d": null}, "e": [1, 2], "f": "x"})
        );
        assert_eq!(
            merge_patch(&old, &json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]})),
            None
        );
    }
}
