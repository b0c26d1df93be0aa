//! The loop that counts what ResourceQuotas limit. Kinds are followed from the moment a quota names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube_client::{ListParams, Resource, Store, StoreEvent};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Context, Key, key_of};
use crate::action::Executor;
use crate::quota::{Objects, counted, reconcile};
use crate::work::{WorkQueue, Worked};

/// Local copies of counted kinds by group and plural.
type Followed = Arc<Mutex<BTreeMap<(String, String), Store>>>;

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    queue.feed(&context.quotas, &context.token, |event| {
        quota_news(event).then(|| key_of(event.object()))
    });
    let followed = Followed::default();
    let executor = context.executor("resourcequota-controller");
    let context = context.clone();
    let work = {
        let (context, queue) = (context.clone(), queue.clone());
        move |key| {
            work(
                context.clone(),
                executor.clone(),
                queue.clone(),
                followed.clone(),
                key,
            )
        }
    };
    queue.run("resourcequota", &context.token, work).await;
}

async fn work(
    context: Context,
    executor: Executor,
    queue: WorkQueue<Key>,
    followed: Followed,
    (ns, name): Key,
) -> Worked {
    let Some(quota) = context.quotas.get(&ns, &name) else {
        return Ok(None);
    };
    let mut objects = Objects::new();
    for kind in counted(&quota) {
        let Some(store) = follow(&context, &queue, &followed, &kind).await else {
            continue;
        };
        objects.insert(kind, store.list_namespace(&ns));
    }
    executor
        .run(reconcile(&quota, &objects).into_iter().collect())
        .await?;
    Ok(None)
}

/// The local copy of a kind, started when this is the first time that it is needed.
async fn follow(
    context: &Context,
    queue: &WorkQueue<Key>,
    followed: &Followed,
    kind: &(String, String),
) -> Option<Store> {
    if let Some(store) = followed.lock().get(kind) {
        return Some(store.clone());
    }
    let (group, plural) = kind;
    let resource = resource(context, group, plural).await?;
    let store = Store::start(
        context.client.clone(),
        resource,
        None,
        ListParams::default(),
        &context.token,
    );
    store.wait_synced().await;
    let store = followed.lock().entry(kind.clone()).or_insert(store).clone();
    let (quotas, counted_kind) = (context.quotas.clone(), kind.clone());
    queue.feed(&store, &context.token, move |event| {
        quotas
            .list_namespace(api::meta::namespace(event.object()))
            .iter()
            .filter(|quota| counted(quota).contains(&counted_kind) && news(event, quota))
            .map(|quota| key_of(quota))
            .collect::<Vec<_>>()
    });
    Some(store)
}

/// A namespaced kind as the server announces it; `None` when it serves none of that name.
async fn resource(context: &Context, group: &str, plural: &str) -> Option<Resource> {
    if let Some(known) = api::scheme::builtin()
        .iter()
        .find(|r| r.group == group && r.plural == plural && r.namespaced && !r.is_virtual())
    {
        return Some(Resource::new(group, &known.version, plural, &known.kind));
    }
    let served = kube_client::discovery::preferred_resources(&context.client)
        .await
        .ok()?;
    served
        .into_iter()
        .find(|r| r.resource.group == group && r.resource.plural == plural && r.namespaced)
        .map(|r| r.resource)
}

/// Whether an object's event calls for counting again. What is created is charged by the API server, which knows it before
/// anybody else does: counting then, with a copy that may be behind, would take the charge back. What was there before the
/// quota has to be counted, and what ends or becomes another sort of thing frees what it had.
fn news(event: &StoreEvent, quota: &Value) -> bool {
    match event {
        StoreEvent::Deleted(_) => true,
        StoreEvent::Added(object) => {
            api::meta::creation_timestamp(object) <= api::meta::creation_timestamp(quota)
        }
        StoreEvent::Modified { old, new } => {
            crate::pods::is_finished(old) != crate::pods::is_finished(new)
                || old["spec"]["type"] != new["spec"]["type"]
                || old["metadata"]["deletionTimestamp"] != new["metadata"]["deletionTimestamp"]
        }
    }
}

/// Whether a quota's own event calls for counting: a charge does not.
fn quota_news(event: &StoreEvent) -> bool {
    match event {
        StoreEvent::Modified { old, new } => {
            old["spec"] != new["spec"] || new["status"]["hard"] != new["spec"]["hard"]
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_charge_is_not_counted_away() {
        let at = |time: &str| Arc::new(json!({"metadata": {"creationTimestamp": time}}));
        let quota = at("2026-01-01T00:00:10Z");
        assert!(!news(
            &StoreEvent::Added(at("2026-01-01T00:00:11Z")),
            &quota
        ));
        assert!(news(&StoreEvent::Added(at("2026-01-01T00:00:09Z")), &quota));
        assert!(news(
            &StoreEvent::Deleted(at("2026-01-01T00:00:11Z")),
            &quota
        ));
        let pod = |phase: &str| Arc::new(json!({"status": {"phase": phase}}));
        let ended = StoreEvent::Modified {
            old: pod("Running"),
            new: pod("Succeeded"),
        };
        assert!(news(&ended, &quota));
        let charged = |used: &str| {
            Arc::new(
                json!({"spec": {"hard": {"pods": "2"}}, "status": {"hard": {"pods": "2"}, "used": {"pods": used}}}),
            )
        };
        assert!(!quota_news(&StoreEvent::Modified {
            old: charged("0"),
            new: charged("1"),
        }));
    }
}
