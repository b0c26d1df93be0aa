//! CustomResourceDefinitions: kinds that come and go while the server runs.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::registry::{Registry, Resource, table_name};
use crate::state::{Server, now};
use crate::storage::{Change, Expect, Key};

/// The group and plural of definitions.
pub(crate) const GROUP: &str = "apiextensions.k8s.io";
const TABLE: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Is the resource that of definitions?
pub(crate) fn is_definition(resource: &Resource) -> bool {
    resource.is(GROUP, "customresourcedefinitions")
}

/// Are the names of a definition accepted, so that it is served?
pub(crate) fn is_established(definition: &Value) -> bool {
    definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Established" && c["status"] == "True")
}

/// Everything served now; `before` is what was served last.
pub(crate) fn registry(server: &Server, before: &Registry) -> Registry {
    let (definitions, _) = server.storage.cache().list(TABLE, "");
    before.next(definitions.iter().map(|(_, d)| d.as_ref()))
}

/// Writes the status of a definition on its way into the store: names are accepted
/// at once unless another kind of the group has them.
pub(crate) fn establish(server: &Server, definition: &mut Value) {
    let clash = clash(&server.registry(), definition);
    let at = now();
    let mut status = crate::machinery::established(definition, &at);
    if let Some((reason, message)) = clash {
        status["acceptedNames"] = serde_json::json!({"plural": "", "kind": ""});
        for (i, (kind, reason, message)) in [
            ("NamesAccepted", reason, message.as_str()),
            ("Established", "NotAccepted", "not all names are accepted"),
        ]
        .into_iter()
        .enumerate()
        {
            status["conditions"][i] = serde_json::json!({
                "lastTransitionTime": at, "message": message, "reason": reason,
                "status": "False", "type": kind,
            });
        }
    }
    definition["status"] = status;
}

/// What the beginning of its deletion does to a definition: it stays until its objects are gone, and says so.
pub(crate) fn terminate(definition: &mut Value, now: &str) {
    let mut finalizers: Vec<Value> = api::meta::finalizers(definition).map(Value::from).collect();
    if !finalizers.iter().any(|f| f == CLEANUP) {
        finalizers.push(CLEANUP.into());
    }
    api::meta::set(definition, "finalizers", finalizers);
    let condition = serde_json::json!({
        "type": "Terminating", "status": "True", "lastTransitionTime": now, "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    });
    match definition["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => definition["status"]["conditions"] = serde_json::json!([condition]),
    }
}

/// Which name of the definition another kind of its group already has.
fn clash(registry: &Registry, definition: &Value) -> Option<(&'static str, String)> {
    let spec = &definition["spec"];
    let group = spec["group"].as_str()?;
    let names = &spec["names"];
    let plural = names["plural"].as_str()?;
    for other in registry
        .all()
        .iter()
        .filter(|r| r.group == group && r.plural != plural)
    {
        if names["kind"] == other.kind.as_str() {
            return Some((
                "KindConflict",
                format!("{:?} is already in use", other.kind),
            ));
        }
        if names["listKind"] == other.list_kind.as_str() {
            return Some((
                "ListKindConflict",
                format!("{:?} is already in use", other.list_kind),
            ));
        }
        if names["singular"] == other.singular.as_str() {
            return Some((
                "SingularConflict",
                format!("{:?} is already in use", other.singular),
            ));
        }
        for short in names["shortNames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if other.short_names.iter().any(|s| s == short) {
                return Some(("ShortNamesConflict", format!("{short:?} is already in use")));
            }
        }
    }
    None
}

/// Refuses a definition whose versions a webhook converts, and which does not say where that is.
pub(crate) fn check_conversion(definition: &Value) -> ApiResult<()> {
    let conversion = &definition["spec"]["conversion"];
    if conversion["strategy"] != "Webhook" {
        return Ok(());
    }
    let client = &conversion["webhook"]["clientConfig"];
    if client["url"].is_string() || client["service"].is_object() {
        return Ok(());
    }
    let e = api::field::FieldError::required(
        "spec.conversion.webhook.clientConfig",
        "required when strategy is set to Webhook",
    );
    let name = api::meta::name(definition);
    Err(ApiError::invalid(
        GROUP,
        "CustomResourceDefinition",
        name,
        &[e],
    ))
}

/// Refuses objects of kinds that are about to disappear.
pub(crate) fn check_alive(server: &Server, resource: &Resource) -> ApiResult<()> {
    if resource.custom.is_none() {
        return Ok(());
    }
    let name = format!("{}.{}", resource.plural, resource.group);
    let dying = server
        .storage
        .cache()
        .get(&Key::new(&TABLE.into(), "", &name))
        .is_none_or(|d| api::meta::deletion_timestamp(d.value()).is_some());
    if dying {
        return Err(ApiError::method_not_allowed(
            &resource.group,
            &resource.plural,
            "create",
        ));
    }
    Ok(())
}

/// Removes the objects of dying definitions, then the definitions.
pub(crate) async fn clean_up(server: &Arc<Server>) {
    let (definitions, _) = server.storage.cache().list(TABLE, "");
    for (name, definition) in definitions {
        let d = definition.value();
        if api::meta::deletion_timestamp(d).is_none()
            || !api::meta::finalizers(d).any(|f| f == CLEANUP)
        {
            continue;
        }
        let (Some(group), Some(plural)) = (
            d["spec"]["group"].as_str(),
            d["spec"]["names"]["plural"].as_str(),
        ) else {
            continue;
        };
        let table: Arc<str> = table_name(group, plural).into();
        let (objects, _) = server.storage.cache().list(&table, "");
        let mut held = false;
        for (path, object) in objects {
            let key = Key {
                table: table.clone(),
                path,
            };
            let expect = Expect::Revision(object.revision);
            let change = if api::meta::finalizers(object.value()).next().is_none() {
                Change::Delete(None)
            } else if api::meta::deletion_timestamp(object.value()).is_none() {
                held = true;
                let mut marked = object.value().clone();
                api::meta::set(&mut marked, "deletionTimestamp", now());
                api::meta::set(&mut marked, "deletionGracePeriodSeconds", 0);
                Change::Put(marked)
            } else {
                held = true;
                continue;
            };
            if server.storage.write(key, expect, change).await.is_err() {
                // Somebody else writes it; the next round looks again.
                held = true;
            }
        }
        if held {
            continue;
        }
        let mut last = d.clone();
        let rest: Vec<Value> = api::meta::finalizers(d)
            .filter(|f| *f != CLEANUP)
            .map(Value::from)
            .collect();
        let change = if rest.is_empty() {
            api::meta::unset(&mut last, "finalizers");
            Change::Delete(Some(last))
        } else {
            api::meta::set(&mut last, "finalizers", rest);
            Change::Put(last)
        };
        let key = Key::new(&TABLE.into(), "", &name);
        if server
            .storage
            .write(key, Expect::Revision(definition.revision), change)
            .await
            .is_ok()
        {
            server.rebuild_registry();
        }
    }
}

/// Watches definitions and keeps the registry and the clean-up going.
pub(crate) async fn run(server: Arc<Server>) {
    let mut changed = server.storage.cache().subscribe(TABLE);
    loop {
        changed.borrow_and_update();
        server.rebuild_registry();
        clean_up(&server).await;
        crate::api_services::publish(&server).await;
        let dying = server
            .storage
            .cache()
            .list(TABLE, "")
            .0
            .iter()
            .any(|(_, d)| api::meta::deletion_timestamp(d.value()).is_some());
        tokio::select! {
            c = changed.changed() => if c.is_err() { return },
            // Objects of a dying definition may lose their finalizers without a word here.
            () = tokio::time::sleep(std::time::Duration::from_millis(200)), if dying => {}
            () = server.shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversion_webhook_needs_an_address() {
        let of = |conversion: Value| json!({"metadata": {"name": "as.g.io"}, "spec": {"conversion": conversion}});
        assert!(check_conversion(&of(json!({"strategy": "None"}))).is_ok());
        let hook = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"service": {"name": "s", "namespace": "n"}}}});
        assert!(check_conversion(&of(hook)).is_ok());
        assert_eq!(
            check_conversion(&of(json!({"strategy": "Webhook"})))
                .unwrap_err()
                .message,
            "CustomResourceDefinition.apiextensions.k8s.io \"as.g.io\" is invalid: spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook"
        );
    }

    #[test]
    fn names_of_other_kinds_are_refused() {
        let a = json!({"metadata": {"name": "as.g.io"}, "spec": {"group": "g.io", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A", "singular": "a", "shortNames": ["x"]},
            "versions": [{"name": "v1", "served": true, "storage": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        let stored = crate::storage::Stored::of(a.clone(), 1);
        let registry = Registry::build([&stored].into_iter());
        let mut b = a.clone();
        assert_eq!(clash(&registry, &b), None, "its own names are its own");
        b["spec"]["names"] = json!({"plural": "bs", "kind": "A", "singular": "b"});
        assert_eq!(clash(&registry, &b).unwrap().0, "KindConflict");
        b["spec"]["names"] =
            json!({"plural": "bs", "kind": "B", "singular": "b", "shortNames": ["x"]});
        assert_eq!(clash(&registry, &b).unwrap().0, "ShortNamesConflict");
    }
}
