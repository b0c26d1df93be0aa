//! Runs a controller: a shared queue, fed by informers, emptied by a few tasks at once.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube_client::{Error, Store, StoreEvent};
use parking_lot::Mutex;
use runtime::CancellationToken;
use tokio::sync::{Notify, Semaphore};

use crate::queue::Queue;

/// How many keys of one controller are worked on at once.
const CONCURRENCY: usize = 8;

/// A queue that tasks share. Cheap to clone.
#[derive(Debug)]
pub(crate) struct WorkQueue<K> {
    inner: Arc<(Mutex<Queue<K>>, Notify)>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

/// What a piece of work wants next.
pub(crate) type Worked = Result<Option<Duration>, Error>;

impl<K: Clone + Eq + Hash + Debug + Send + 'static> WorkQueue<K> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new((Mutex::default(), Notify::new())),
        }
    }

    pub(crate) fn add(&self, key: K) {
        self.inner.0.lock().add(key);
        self.inner.1.notify_one();
    }

    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        self.inner.0.lock().add_at(key, Instant::now() + delay);
        self.inner.1.notify_one();
    }

    /// Adds the keys `keys_of` finds in each change of `store`.
    pub(crate) fn feed<I: IntoIterator<Item = K>>(
        &self,
        store: &Store,
        token: &CancellationToken,
        keys_of: impl Fn(&StoreEvent) -> I + Send + 'static,
    ) where
        I::IntoIter: Send,
    {
        let mut events = store.subscribe();
        let queue = self.clone();
        let token = token.clone();
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = token.cancelled() => None,
                };
                let Some(event) = event else { return };
                for key in keys_of(&event) {
                    queue.add(key);
                }
            }
        });
    }

    /// Works until `token` is cancelled.
    pub(crate) async fn run<F, Fut>(&self, name: &'static str, token: &CancellationToken, work: F)
    where
        F: Fn(K) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Worked> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let (key, due) = {
                let mut queue = self.inner.0.lock();
                (queue.take(Instant::now()), queue.next_due())
            };
            let Some(key) = key else {
                drop(slot);
                let wait = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = token.cancelled() => return,
                    () = self.inner.1.notified() => {}
                    () = wait => {}
                }
                continue;
            };
            if token.is_cancelled() {
                return;
            }
            let (queue, work, token) = (self.clone(), work.clone(), token.clone());
            tokio::spawn(async move {
                let result = tokio::select! {
                    result = work(key.clone()) => result,
                    () = token.cancelled() => return,
                };
                queue.finish(name, &key, result);
                drop(slot);
            });
        }
    }

    fn finish(&self, name: &str, key: &K, result: Worked) {
        match result {
            Ok(again) => {
                self.inner.0.lock().done(key);
                if let Some(delay) = again {
                    self.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                let delay = self
                    .inner
                    .0
                    .lock()
                    .failed(key, Instant::now(), rand::random());
                if error.is_conflict() || error.is_not_found() || error.is_already_exists() {
                    // The local copy was behind; the next attempt sees more.
                    tracing::debug!(controller = name, ?key, %error, ?delay, "again");
                } else {
                    tracing::warn!(controller = name, ?key, %error, ?delay, "failed, will retry");
                }
            }
        }
        self.inner.1.notify_one();
    }
}
