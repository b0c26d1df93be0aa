//! APIServices of what this server itself answers for, made and removed as groups come and go. Those with a Service are people's, and
//! [`crate::aggregation`] looks after them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::state::{Server, now};
use crate::storage::{Change, Expect, Key};

const TABLE: &str = "apiregistration.k8s.io/apiservices";
/// How this server marks the objects that it keeps itself: those of its own groups, and those of definitions.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Where the built-in groups stand (`data/priorities.json`), measured at a real server by `measure.py` of `api`.
static BUILTIN: LazyLock<Vec<(String, String, i64, i64)>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../data/priorities.json"))
        .expect("data/priorities.json is well formed")
});

/// What is said of a group that this server answers for.
pub(crate) fn local_status(at: &str) -> Value {
    json!({"conditions": [{"type": "Available", "status": "True", "lastTransitionTime": at,
        "reason": "Local", "message": "Local APIServices are always available"}]})
}

/// The object for a group-version.
fn local(group: &str, version: &str, uid: &str, at: &str) -> Value {
    let builtin = BUILTIN
        .iter()
        .find(|(g, v, _, _)| g == group && v == version);
    let (managed, (minimum, priority)) = match builtin {
        Some((_, _, minimum, priority)) => ("onstart", (*minimum, *priority)),
        None => ("true", (1000, 100)),
    };
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": minimum, "versionPriority": priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.{group}"), "uid": uid, "creationTimestamp": at,
            "labels": {MANAGED: managed}},
        "spec": spec,
        "status": local_status(at),
    })
}

/// Makes the objects agree with what is served now.
pub(crate) async fn publish(server: &Server) {
    let registry = server.registry();
    let mut wanted: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    // The group itself has none, as in a real cluster.
    let announced = registry
        .all()
        .iter()
        .filter(|r| r.group != crate::aggregation::GROUP);
    for r in announced {
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
        let ours = api::meta::label(stored.value(), MANAGED).is_some();
        if ours && !wanted.contains_key(&*name) {
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
    fn the_core_group_has_no_name_and_stands_first() {
        let core = local("", "v1", "u", "now");
        assert_eq!(core["metadata"]["name"], "v1.");
        assert!(core["spec"].get("group").is_none());
        assert_eq!(core["spec"]["groupPriorityMinimum"], 18000);
        let custom = local("g.io", "v1", "u", "now");
        assert_eq!(custom["spec"]["group"], "g.io");
        assert_eq!(custom["metadata"]["labels"][MANAGED], "true");
    }
}
