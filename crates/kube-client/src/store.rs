//! The informer: a local copy of a collection that follows the API server.

mod content;
mod reflector;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Client, ListParams, Resource};
use content::Content;

/// A change of the local copy.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// An object came.
    Added(Arc<Value>),
    /// An object changed.
    Modified {
        /// Before.
        old: Arc<Value>,
        /// Now.
        new: Arc<Value>,
    },
    /// An object went; its last known state.
    Deleted(Arc<Value>),
}

impl StoreEvent {
    /// The object: its present state, or the last one.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Self::Added(object) | Self::Modified { new: object, .. } | Self::Deleted(object) => {
                object
            }
        }
    }
}

/// A local copy of a collection. Cheap to clone; it stops following when the last clone is
/// dropped or its token is cancelled.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    _guard: Arc<DropGuard>,
}

struct Shared {
    resource: Resource,
    content: RwLock<Content>,
    /// Counts changes.
    changed: watch::Sender<u64>,
    synced: watch::Sender<bool>,
    /// Highest version seen.
    version: watch::Sender<u64>,
    /// Why the server is not being followed just now.
    problem: RwLock<Option<String>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("resource", &self.shared.resource)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Starts to follow a collection: of a namespace or (`ns` none) of the cluster, narrowed by
    /// the selectors of `params`. It lists, then watches, and keeps on through lost
    /// connections and expired versions until `token` is cancelled.
    pub fn start(
        client: Client,
        resource: Resource,
        ns: Option<&str>,
        params: ListParams,
        token: &CancellationToken,
    ) -> Self {
        let token = token.child_token();
        let shared = Arc::new(Shared {
            resource,
            content: RwLock::default(),
            changed: watch::Sender::new(0),
            synced: watch::Sender::new(false),
            version: watch::Sender::new(0),
            problem: RwLock::new(None),
        });
        let ns = ns.map(str::to_owned);
        let follow = reflector::follow(client, ns, params, shared.clone());
        let cancelled = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = follow => {}
            }
        });
        Self {
            shared,
            _guard: Arc::new(token.drop_guard()),
        }
    }

    /// What is followed.
    pub fn resource(&self) -> &Resource {
        &self.shared.resource
    }

    /// Waits until the first list has arrived.
    pub async fn wait_synced(&self) {
        // The sender lives in `self.shared`, so waiting cannot fail.
        let _ = self
            .shared
            .synced
            .subscribe()
            .wait_for(|&synced| synced)
            .await;
    }

    /// Whether the first list has arrived.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// One object; `ns` empty for cluster-scoped ones.
    pub fn get(&self, ns: &str, name: &str) -> Option<Arc<Value>> {
        self.shared.content.read().get(ns, name)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<Value>> {
        self.shared.content.read().list()
    }

    /// All objects of a namespace, ordered by name.
    pub fn list_namespace(&self, ns: &str) -> Vec<Arc<Value>> {
        self.shared.content.read().list_namespace(ns)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.content.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A counter of changes: wait on it, then look at the store. Many changes in a row
    /// wake the waiter once.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// All changes from here on, preceded by an [`StoreEvent::Added`] for everything that is
    /// there already. Nothing is skipped or repeated; what is not read yet is kept in memory.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            receiver: self.shared.content.write().subscribe(),
        }
    }

    /// Why the server is not being followed at the moment; `None` when all is well.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.read().clone()
    }

    /// Waits until this copy has seen `resource_version`, so that one's own write is visible in
    /// it. Returns false after `timeout`. Meant for stores without selectors: a write that the
    /// selectors leave out is never seen.
    pub async fn wait_for_version(&self, resource_version: &str, timeout: Duration) -> bool {
        let Some(wanted) = content::version_number(resource_version) else {
            return true;
        };
        let mut version = self.shared.version.subscribe();
        let seen = version.wait_for(|&seen| seen >= wanted);
        matches!(tokio::time::timeout(timeout, seen).await, Ok(Ok(_)))
    }
}

/// The changes of a [`Store`], in order.
#[derive(Debug)]
pub struct Subscription {
    receiver: mpsc::UnboundedReceiver<StoreEvent>,
}

impl Subscription {
    /// The next change; `None` when the store is gone. Cancel safe.
    pub async fn recv(&mut self) -> Option<StoreEvent> {
        self.receiver.recv().await
    }

    /// The next change, if there is one now.
    pub fn try_recv(&mut self) -> Option<StoreEvent> {
        self.receiver.try_recv().ok()
    }
}

impl Shared {
    fn replace(&self, items: Vec<Value>, resource_version: &str) {
        if self.content.write().replace(items) {
            self.changed.send_modify(|count| *count += 1);
        }
        self.saw(resource_version);
        self.synced
            .send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    fn apply(&self, event: crate::Event) {
        use crate::Event;
        let changed = match event {
            Event::Added(object) | Event::Modified(object) => {
                let version = content::version_of(&object);
                let changed = self.content.write().put(self.resource.complete(object));
                self.saw(&version);
                changed
            }
            Event::Deleted(object) => {
                let version = content::version_of(&object);
                let changed = self.content.write().remove(&object);
                self.saw(&version);
                changed
            }
            Event::Bookmark(object) => {
                self.saw(&content::version_of(&object));
                false
            }
        };
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn saw(&self, resource_version: &str) {
        if let Some(number) = content::version_number(resource_version) {
            self.version.send_if_modified(|seen| {
                let newer = number > *seen;
                if newer {
                    *seen = number;
                }
                newer
            });
        }
    }
}
