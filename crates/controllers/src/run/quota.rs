//! The loop that counts what ResourceQuotas limit. Kinds are followed from the moment a quota names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube_client::{ListParams, Resource, Store};
use parking_lot::Mutex;

use super::{Context, Key, key_of};
use crate::action::Executor;
use crate::quota::{Objects, counted, reconcile};
use crate::work::{WorkQueue, Worked};

/// Local copies of counted kinds by group and plural.
type Followed = Arc<Mutex<BTreeMap<(String, String), Store>>>;

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    queue.feed(&context.quotas, &context.token, |event| {
        [key_of(event.object())]
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
            .filter(|quota| counted(quota).contains(&counted_kind))
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
