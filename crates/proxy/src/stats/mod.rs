//! Counters, gauges and histograms under Envoy's names. On the request path only atomics that were looked up before.

pub mod groups;
pub mod histogram;
pub mod labelled;
pub mod render;
pub mod tags;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

pub use groups::{ClusterStats, HttpStats, ListenerStats, ServerStats, TcpStats};
pub use histogram::Histogram;

/// A number that only grows, until it is reset through the admin interface.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Back to zero.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A number that goes up and down, and whether it ever did.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// The bit of a gauge that says that it was used, whatever its value is now.
const USED: u64 = 1 << 63;

impl Gauge {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        self.use_it(before);
    }
    /// Takes one off.
    #[inline]
    pub fn dec(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        self.use_it(before);
    }
    #[inline]
    fn use_it(&self, before: u64) {
        if before & USED == 0 {
            self.0.fetch_or(USED, Ordering::Relaxed);
        }
    }
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value | USED, Ordering::Relaxed);
    }
    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !USED
    }
    /// Whether it was ever changed or set.
    pub fn used(&self) -> bool {
        self.0.load(Ordering::Relaxed) & USED != 0
    }
}

/// One value as it is shown.
pub enum Value<'a> {
    /// A counter.
    Counter(u64),
    /// A gauge, and whether it was ever used.
    Gauge(u64, bool),
    /// A histogram.
    Histogram(&'a Histogram),
}

/// Statistics that belong together under one prefix.
pub trait Group: Any + Send + Sync {
    /// Shows every value with its name behind the prefix.
    fn visit(&self, see: &mut dyn FnMut(&str, Value<'_>));
    /// Sets counters and histograms back.
    fn reset(&self);
    /// As itself.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// All statistics of a proxy.
#[derive(Default)]
pub struct Registry {
    groups: RwLock<BTreeMap<String, Arc<dyn Group>>>,
    /// Istio's metrics with labels.
    pub labelled: labelled::Labelled,
}

impl Registry {
    /// The group under this prefix; made at its first use and kept, so that counters outlive configurations.
    pub fn group<T: Group + Default>(&self, prefix: &str) -> Arc<T> {
        let found = self.groups.read().get(prefix).cloned();
        if let Some(group) = found.and_then(|group| group.as_any().downcast::<T>().ok()) {
            return group;
        }
        let mut groups = self.groups.write();
        let group = groups
            .entry(prefix.to_owned())
            .or_insert_with(|| Arc::new(T::default()) as Arc<dyn Group>)
            .clone();
        group.as_any().downcast::<T>().unwrap_or_default()
    }

    /// Forgets a group; whoever holds it may go on counting.
    pub fn remove(&self, prefix: &str) {
        self.groups.write().remove(prefix);
    }

    /// Shows every value with its full name, in the order of the names of the groups.
    pub fn visit(&self, see: &mut dyn FnMut(&str, Value<'_>)) {
        let groups: Vec<(String, Arc<dyn Group>)> = self
            .groups
            .read()
            .iter()
            .map(|(prefix, group)| (prefix.clone(), group.clone()))
            .collect();
        let mut name = String::new();
        for (prefix, group) in groups {
            group.visit(&mut |stat, value| {
                name.clear();
                name.push_str(&prefix);
                name.push('.');
                name.push_str(stat);
                see(&name, value);
            });
        }
    }

    /// Sets counters and histograms back.
    pub fn reset(&self) {
        for group in self.groups.read().values() {
            group.reset();
        }
    }
}
