//! One object in several versions.
//!
//! Versions of custom resources share their schema, so only `apiVersion` changes. The two
//! event kinds are one kind under two sets of names.

use serde_json::{Map, Value};

use crate::registry::Resource;

/// Names of `v1` events and of `events.k8s.io/v1` events for the same things.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn is_new_event(resource: &Resource) -> bool {
    resource.is("events.k8s.io", "events")
}

fn rename(object: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let names: Vec<_> = names.collect();
    let Some(map) = object.as_object_mut() else {
        return;
    };
    let renamed: Map<String, Value> = std::mem::take(map)
        .into_iter()
        .map(|(k, v)| match names.iter().find(|(from, _)| *from == k) {
            Some((_, to)) => ((*to).to_owned(), v),
            None => (k, v),
        })
        .collect();
    *map = renamed;
}

/// A stored object as the resource shows it; `None`: as it is.
pub(crate) fn shown(resource: &Resource, stored: &Value) -> Option<Value> {
    if is_new_event(resource) {
        let mut copy = stored.clone();
        rename(&mut copy, EVENT_FIELDS.iter().copied());
        copy["apiVersion"] = resource.api_version().into();
        return Some(copy);
    }
    if resource.version == resource.storage_version {
        return None;
    }
    let mut copy = stored.clone();
    copy["apiVersion"] = resource.api_version().into();
    Some(copy)
}

/// Turns an object of the resource into what is stored.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    if is_new_event(resource) {
        rename(object, EVENT_FIELDS.iter().map(|(a, b)| (*b, *a)));
        object["apiVersion"] = "v1".into();
    } else if resource.version != resource.storage_version {
        object["apiVersion"] =
            api::meta::join_group_version(&resource.group, &resource.storage_version).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_under_both_names() {
        let registry = crate::registry::Registry::build(std::iter::empty());
        let new = registry.find("events.k8s.io", "v1", "events").unwrap();
        let core = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "message": "m", "reason": "r"});
        let mut as_new = shown(new, &core).unwrap();
        assert_eq!(as_new["regarding"]["kind"], "Pod");
        assert_eq!(
            (&as_new["note"], &as_new["apiVersion"]),
            (&json!("m"), &json!("events.k8s.io/v1"))
        );
        to_stored(new, &mut as_new);
        assert_eq!(as_new, core);
    }
}
