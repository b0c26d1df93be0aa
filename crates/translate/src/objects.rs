//! Access to plain Kubernetes objects, and typed Istio objects made from them.

use crate::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// A typed object with what matters of its metadata.
#[derive(Debug, Clone)]
pub(crate) struct Config<T> {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// RFC 3339 in UTC, which sorts as text.
    pub(crate) created: String,
    pub(crate) annotations: Labels,
    pub(crate) labels: Labels,
    pub(crate) spec: T,
    pub(crate) status: Option<Arc<Value>>,
}

pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

pub(crate) fn items<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(value, path)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

pub(crate) fn labels(value: &Value, path: &[&str]) -> Labels {
    at(value, path)
        .and_then(Value::as_object)
        .map(|map| {
            map.iter()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        })
        .unwrap_or_default()
}

/// Whether all of `selector` are among `labels`.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Removes nulls, as the API server does for fields that cannot be null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Reads an Istio object; what cannot be read becomes a problem.
pub(crate) fn typed<T: DeserializeOwned + Default>(
    object: &Value,
    problems: &mut Vec<Problem>,
) -> Option<Config<T>> {
    let spec = match object.get("spec").map(without_nulls) {
        None | Some(Value::Null) => T::default(),
        Some(spec) => match serde_json::from_value(spec) {
            Ok(spec) => spec,
            Err(error) => {
                problems.push(Problem::new(
                    identity(object),
                    "spec",
                    format!("is not understood and ignored: {error}"),
                ));
                return None;
            }
        },
    };
    Some(Config {
        name: text(object, &["metadata", "name"]).to_owned(),
        namespace: text(object, &["metadata", "namespace"]).to_owned(),
        created: text(object, &["metadata", "creationTimestamp"]).to_owned(),
        annotations: labels(object, &["metadata", "annotations"]),
        labels: labels(object, &["metadata", "labels"]),
        spec,
        status: object.get("status").cloned().map(Arc::new),
    })
}

/// `Kind/namespace/name`.
pub(crate) fn identity(object: &Value) -> String {
    format!(
        "{}/{}/{}",
        text(object, &["kind"]),
        text(object, &["metadata", "namespace"]),
        text(object, &["metadata", "name"])
    )
}
