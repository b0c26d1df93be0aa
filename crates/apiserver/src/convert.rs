//! One object in several versions.
//!
//! Versions of custom resources share their schema, so only `apiVersion` changes, unless a webhook converts them
//! (`conversion`). The two
//! event kinds are one kind under two sets of names; autoscalers are converted by `api::autoscaling`.

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

fn is_old_autoscaler(resource: &Resource) -> bool {
    resource.is(api::autoscaling::GROUP, "horizontalpodautoscalers") && resource.version == "v1"
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

/// Whether the resource shows all objects as they are stored.
pub(crate) fn keeps(resource: &Resource) -> bool {
    resource.custom.is_none() && !is_new_event(resource) && !is_old_autoscaler(resource)
}

/// A stored object as the resource shows it; `None`: as it is.
pub(crate) fn shown(resource: &Resource, stored: &Value) -> Option<Value> {
    if is_new_event(resource) {
        let mut copy = stored.clone();
        rename(&mut copy, EVENT_FIELDS.iter().copied());
        copy["apiVersion"] = resource.api_version().into();
        return Some(copy);
    }
    if is_old_autoscaler(resource) {
        return Some(api::autoscaling::to_v1(stored));
    }
    let custom = resource.custom.as_ref()?;
    // Objects written before the storage version changed are still in the version of then.
    let version = resource.api_version();
    if stored["apiVersion"] == version.as_str() && !custom.defaults {
        return None;
    }
    let mut copy = match &custom.conversion {
        // What nobody has converted yet stays what it is: another name would make something else of it.
        Some(conversion) if stored["apiVersion"] != version.as_str() => {
            (*conversion.copy(stored)?).clone()
        }
        _ => stored.clone(),
    };
    copy["apiVersion"] = version.into();
    if custom.defaults {
        // A default may be younger than the object.
        crate::machinery::default(resource, &mut copy);
    }
    Some(copy)
}

/// Turns an object of the resource into what is stored.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    if is_new_event(resource) {
        rename(object, EVENT_FIELDS.iter().map(|(a, b)| (*b, *a)));
        object["apiVersion"] = "v1".into();
    } else if is_old_autoscaler(resource) {
        *object = api::autoscaling::to_v2(object);
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
    fn stored_objects_are_shown_in_the_version_and_with_the_defaults_of_today() {
        let definition = json!({"metadata": {"name": "ws.g.io"}, "spec": {"group": "g.io", "scope": "Namespaced",
            "names": {"plural": "ws", "kind": "W"}, "versions": [
                {"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "a": {"type": "string", "default": "A"}}}}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        let definition = crate::storage::Stored::of(definition, 1);
        let registry = crate::registry::Registry::build([&definition].into_iter());
        let stored = json!({"apiVersion": "g.io/v1", "kind": "W", "metadata": {"name": "w"}});
        let v2 = registry.find("g.io", "v2", "ws").unwrap();
        let seen = shown(v2, &stored).unwrap();
        assert_eq!(
            (&seen["apiVersion"], &seen["a"]),
            (&json!("g.io/v2"), &json!("A"))
        );
        assert!(shown(registry.find("g.io", "v1", "ws").unwrap(), &stored).is_none());
    }

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
