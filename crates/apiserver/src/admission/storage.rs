//! Claims get the default class; claims and volumes are held while they are in use.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::storage::{Key, Storage};

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
            let classes: Vec<Arc<Value>> = classes.into_iter().map(|(_, c)| c.shared()).collect();
            if let Some(class) = default_class(&classes) {
                object["spec"]["storageClassName"] = class.into();
            }
        }
    } else if a.is_core("persistentvolumes") {
        hold(object, "kubernetes.io/pv-protection");
    }
}

/// Refuses claims for more than before where nobody can make the volume larger.
pub(crate) fn validate(storage: &Storage, a: &Attributes<'_>, object: &Value) -> ApiResult<()> {
    let Some(old) = a.old.filter(|_| {
        a.operation == Operation::Update
            && a.subresource.is_empty()
            && a.is_core("persistentvolumeclaims")
    }) else {
        return Ok(());
    };
    let class = old["spec"]["storageClassName"].as_str().unwrap_or("");
    let key = Key::new(&CLASSES.into(), "", class);
    let class = storage.cache().get(&key);
    match resize_refused(old, object, class.as_ref().map(|c| c.value())) {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(
            "",
            "persistentvolumeclaims",
            a.name,
            why,
        )),
    }
}

/// Why a claim may not ask for more.
fn resize_refused(old: &Value, new: &Value, class: Option<&Value>) -> Option<&'static str> {
    let size = |claim: &Value| {
        let text = claim["spec"]["resources"]["requests"]["storage"].as_str()?;
        api::quantity::Quantity::parse(text).ok()
    };
    if size(new)? <= size(old)? {
        return None;
    }
    if old["status"]["phase"] != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let can = class.is_some_and(|c| c["allowVolumeExpansion"] == true);
    (!can).then_some(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
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
    fn claims_grow_where_their_class_allows_it() {
        let claim = |size: &str, phase: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}, "status": {"phase": phase}});
        let (old, new) = (claim("1Gi", "Bound"), claim("2Gi", "Bound"));
        let class = json!({"allowVolumeExpansion": true});
        assert_eq!(resize_refused(&old, &new, Some(&class)), None);
        assert_eq!(resize_refused(&old, &old, None), None);
        assert!(resize_refused(&old, &new, Some(&json!({}))).is_some());
        assert!(resize_refused(&old, &new, None).is_some());
        let pending = claim("1Gi", "Pending");
        assert_eq!(
            resize_refused(&pending, &new, Some(&class)),
            Some("Only bound persistent volume claims can be expanded")
        );
    }

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
