//! The garbage collector: deletes objects whose owners are gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube_client::discovery::{ApiResource, preferred_resources};
use kube_client::{
    CUSTOM_RESOURCE_DEFINITIONS, Client, DeleteOptions, Error, ListParams, PatchType,
    Preconditions, Resource, Store, StoreEvent,
};
use parking_lot::Mutex;
use runtime::CancellationToken;
use serde_json::{Value, json};

use super::Context;
use crate::graph::{Graph, Judgement, Node, Owner};
use crate::work::{WorkQueue, Worked};

/// How long to wait for more changes of definitions before asking which kinds there are.
const SETTLE: Duration = Duration::from_millis(100);
/// How long to wait when that cannot be found out.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Collector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    /// Kinds by `apiVersion` and kind, in every version.
    kinds: Arc<Mutex<HashMap<(String, String), ApiResource>>>,
    queue: WorkQueue<String>,
}

pub(super) async fn run(context: &Context) {
    let collector = Collector {
        client: context.client.clone(),
        graph: Arc::default(),
        kinds: Arc::default(),
        queue: WorkQueue::new(),
    };
    let follow = collector.follow_kinds(context);
    let work = {
        let collector = collector.clone();
        move |uid: String| {
            let collector = collector.clone();
            async move { collector.work(&uid).await }
        }
    };
    let queue = collector.queue.clone();
    let collect = queue.run("garbage", &context.token, work);
    tokio::select! {
        () = follow => {}
        () = collect => {}
    }
}

impl Collector {
    /// Follows every kind there is, and those that come and go with their definitions.
    async fn follow_kinds(&self, context: &Context) {
        let token = &context.token;
        let definitions = Store::start(
            self.client.clone(),
            CUSTOM_RESOURCE_DEFINITIONS,
            None,
            ListParams::metadata(),
            token,
        );
        definitions.wait_synced().await;
        let mut changed = definitions.changed();
        let mut followed: HashMap<Resource, (Store, CancellationToken)> = HashMap::new();
        loop {
            changed.mark_unchanged();
            match preferred_resources(&self.client).await {
                Ok(found) => self.follow(context, &definitions, found, &mut followed),
                Err(error) => {
                    tracing::debug!(%error, "kinds not known, will retry");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn follow(
        &self,
        context: &Context,
        definitions: &Store,
        found: Vec<ApiResource>,
        followed: &mut HashMap<Resource, (Store, CancellationToken)>,
    ) {
        let wanted: Vec<Resource> = found
            .iter()
            .filter(|kind| kind.can(&["list", "watch", "delete"]) && kind.resource.kind != "Event")
            .map(|kind| kind.resource.clone())
            .collect();
        for kind in found {
            let key = (kind.resource.api_version(), kind.resource.kind.to_string());
            self.kinds.lock().insert(key, kind);
        }
        followed.retain(|resource, (_, token)| {
            let keep = wanted.contains(resource);
            if !keep {
                token.cancel();
                for uid in self.graph.lock().remove_kind(resource) {
                    self.queue.add(uid);
                }
            }
            keep
        });
        for resource in wanted {
            if followed.contains_key(&resource) {
                continue;
            }
            let token = context.token.child_token();
            let shared = context.whole_stores().into_iter().chain([definitions]);
            let known = shared
                .into_iter()
                .find(|store| *store.resource() == resource)
                .cloned();
            let store = known.unwrap_or_else(|| {
                let params = ListParams::metadata();
                Store::start(self.client.clone(), resource.clone(), None, params, &token)
            });
            let graph = self.graph.clone();
            let kind = resource.clone();
            self.queue.feed(&store, &token, move |event| match event {
                StoreEvent::Deleted(object) => graph.lock().remove(api::meta::uid(object)),
                _ => graph.lock().observe(&kind, event.object()),
            });
            followed.insert(resource, (store, token));
        }
    }

    async fn work(&self, uid: &str) -> Worked {
        let (judgement, node) = {
            let graph = self.graph.lock();
            (graph.judge(uid), graph.node(uid).cloned())
        };
        let Some(node) = node else { return Ok(None) };
        match judgement {
            Judgement::Keep => Ok(None),
            Judgement::LookUp(owners) => self.look_up(&node, owners).await,
            Judgement::Delete(policy) => {
                let options = DeleteOptions {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        uid: Some(uid.to_owned()),
                        resource_version: None,
                    }),
                    ..DeleteOptions::default()
                };
                let deleted = self
                    .client
                    .delete(&node.resource, ns_of(&node), &node.name, &options)
                    .await;
                gone_is_fine(deleted)
            }
            Judgement::Unblock => self.unblock(uid, &node).await,
            Judgement::Forget(owners) => self.forget_owners(uid, &node, &owners).await,
            Judgement::Release(finalizer) => self.release(uid, &node, finalizer).await,
            Judgement::Orphan(dependents) => {
                for dependent in dependents {
                    let known = self.graph.lock().node(&dependent).cloned();
                    if let Some(known) = known {
                        self.forget_owners(&dependent, &known, &[uid.to_owned()])
                            .await?;
                    }
                }
                // The dependents' changes bring the owner back here.
                Ok(None)
            }
        }
    }

    /// Asks the API server for owners the graph does not know: it may be behind, or they may
    /// never have existed.
    async fn look_up(&self, node: &Node, owners: Vec<Owner>) -> Worked {
        for owner in owners {
            let key = (owner.api_version.clone(), owner.kind.clone());
            let Some(kind) = self.kinds.lock().get(&key).cloned() else {
                // A kind nobody serves: nothing is known about the owner, so nothing is done.
                tracing::debug!(kind = %owner.kind, name = %owner.name, "owner of an unknown kind");
                return Ok(None);
            };
            let ns = kind.namespaced.then_some(node.ns.as_str());
            if kind.namespaced && node.ns.is_empty() {
                // A cluster-scoped object cannot have an owner in a namespace.
                self.graph.lock().is_absent(&owner.uid);
                continue;
            }
            match self.client.get(&kind.resource, ns, &owner.name).await {
                Ok(found) if api::meta::uid(&found) == owner.uid => {
                    // It exists; the graph hears of it in a moment.
                    return Ok(Some(SETTLE));
                }
                Err(error) if !error.is_not_found() => return Err(error),
                _ => self.graph.lock().is_absent(&owner.uid),
            }
        }
        Ok(Some(Duration::ZERO))
    }

    async fn forget_owners(&self, uid: &str, node: &Node, owners: &[String]) -> Worked {
        self.edit(uid, node, |object| {
            let mut references = api::meta::owner_references(object).to_vec();
            references.retain(|reference| {
                !owners
                    .iter()
                    .any(|owner| reference["uid"] == owner.as_str())
            });
            json!({"ownerReferences": references})
        })
        .await
    }

    async fn unblock(&self, uid: &str, node: &Node) -> Worked {
        self.edit(uid, node, |object| {
            let mut references = api::meta::owner_references(object).to_vec();
            for reference in &mut references {
                reference["blockOwnerDeletion"] = false.into();
            }
            json!({"ownerReferences": references})
        })
        .await
    }

    async fn release(&self, uid: &str, node: &Node, finalizer: &str) -> Worked {
        self.edit(uid, node, |object| {
            let finalizers: Vec<&str> = api::meta::finalizers(object)
                .filter(|known| *known != finalizer)
                .collect();
            json!({"finalizers": finalizers})
        })
        .await
    }

    /// Changes metadata of exactly this object as it is now.
    async fn edit(&self, uid: &str, node: &Node, change: impl Fn(&Value) -> Value) -> Worked {
        let object = match self
            .client
            .get(&node.resource, ns_of(node), &node.name)
            .await
        {
            Ok(object) if api::meta::uid(&object) == uid => object,
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut metadata = change(&object);
        metadata["resourceVersion"] = api::meta::resource_version(&object).into();
        let patch = json!({"metadata": metadata});
        let (ns, merge) = (ns_of(node), PatchType::Merge);
        let patched = self
            .client
            .patch(&node.resource, ns, &node.name, &merge, &patch, None)
            .await;
        match patched {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(|_| None),
        }
    }
}

fn ns_of(node: &Node) -> Option<&str> {
    Some(node.ns.as_str()).filter(|ns| !ns.is_empty())
}

/// An object that is gone, or was replaced by another of its name, needs no deletion.
fn gone_is_fine(result: Result<Value, Error>) -> Worked {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(None),
    }
}

impl Context {
    /// Copies of whole collections, which can be shared.
    fn whole_stores(&self) -> Vec<&Store> {
        self.stores()
            .into_iter()
            .filter(|store| {
                let partial = [self.root_cas.resource(), self.leases.resource()];
                !partial.contains(&store.resource())
            })
            .collect()
    }
}
