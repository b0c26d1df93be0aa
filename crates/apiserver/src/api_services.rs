//! APIServices: which group-versions there are, and that this server itself answers for all of them. They can be read only: extension API
//! servers are not called.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::state::{Server, now};
use crate::storage::{Change, Expect, Key};

const TABLE: &str = "apiregistration.k8s.io/apiservices";

/// The object for a group-version.
fn local(group: &str, version: &str, uid: &str, at: &str) -> Value {
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": 1000, "versionPriority": 100});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.{group}"), "uid": uid, "creationTimestamp": at,
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "true"}},
        "spec": spec,
        "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": at}]},
    })
}

/// Makes the objects agree with what is served now.
pub(crate) async fn publish(server: &Server) {
    let registry = server.registry();
    let mut wanted: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for r in registry.all() {
        wanted.insert(format!("{}.{}", r.version, r.group), (&r.group, &r.version));
    }
    let (present, _) = server.storage.cache().list(TABLE, "");
    let at = now();
    for (name, (group, version)) in &wanted {
        if present.iter().any(|(have, _)| **have == **name) {
            continue;
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let change = Change::Put(local(group, version, &uid, &at));
        write(server, name, Expect::Absent, change).await;
    }
    for (name, stored) in present {
        if !wanted.contains_key(&*name) {
            let expect = Expect::Revision(stored.revision);
            write(server, &name, expect, Change::Delete(None)).await;
        }
    }
}

async fn write(server: &Server, name: &str, expect: Expect, change: Change) {
    let key = Key::new(&TABLE.into(), "", name);
    if let Err(e) = server.storage.write(key, expect, change).await {
        tracing::warn!(error = ?e, name, "an APIService could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_group_has_no_name() {
        let core = local("", "v1", "u", "now");
        assert_eq!(core["metadata"]["name"], "v1.");
        assert!(core["spec"].get("group").is_none());
        assert_eq!(local("apps", "v1", "u", "now")["spec"]["group"], "apps");
    }
}
