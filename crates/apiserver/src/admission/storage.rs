//! Claims get the default class; claims and volumes are held while they are in use.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::storage::Storage;

const CLASSES: &str = "storage.k8s.io/storageclasses";
/// Annotation of the class that claims get which name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Fills in a new claim or volume.
pub(crate) fn admit(storage: &Storage, a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create {
        return;
    }
    if a.is_core("persistentvolumeclaims") {
        hold(object, "kubernetes.io/pvc-protection");
        if object["spec"]["storageClassName"].is_null() {
            let (classes, _) = storage.cache().list(CLASSES, "");
            let classes: Vec<Arc<Value>> =
                classes.into_iter().map(|(_, c)| c.value.clone()).collect();
            if let Some(class) = default_class(&classes) {
                object["spec"]["storageClassName"] = class.into();
            }
        }
    } else if a.is_core("persistentvolumes") {
        hold(object, "kubernetes.io/pv-protection");
    }
}

/// The youngest of the default classes; of equally old ones the first by name.
fn default_class(classes: &[Arc<Value>]) -> Option<String> {
    let mut all: Vec<&Arc<Value>> = classes
        .iter()
        .filter(|c| api::meta::annotation(c, DEFAULT_CLASS) == Some("true"))
        .collect();
    all.sort_by_key(|c| {
        let made = api::meta::creation_timestamp(c).unwrap_or("").to_owned();
        (std::cmp::Reverse(made), api::meta::name(c).to_owned())
    });
    all.first().map(|c| api::meta::name(c).to_owned())
}

fn hold(object: &mut Value, finalizer: &str) {
    let mut all: Vec<Value> = api::meta::finalizers(object).map(Value::from).collect();
    if !all.iter().any(|f| f == finalizer) {
        all.push(finalizer.into());
    }
    api::meta::set(object, "finalizers", all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_youngest_default_class_counts() {
        let class = |name: &str, made: &str, default: &str| {
            Arc::new(
                json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {DEFAULT_CLASS: default}}}),
            )
        };
        let classes = [
            class("a", "2026-01-01T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("c", "2026-01-03T00:00:00Z", "false"),
        ];
        assert_eq!(default_class(&classes).as_deref(), Some("b"));
        assert_eq!(default_class(&classes[2..]), None);
    }
}
