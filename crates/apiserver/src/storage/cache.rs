//! The watch cache: current objects, and a bounded history of events per resource.
//!
//! Watchers pull from the history at their own pace; nobody buffers for them. One that falls
//! behind the history is cut off with `Expired`, so a client that stops reading costs nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Key, Stored};

/// Events a resource's history holds at most …
const HISTORY_EVENTS: usize = 8192;
/// … and their serialized size, whichever is reached first …
const HISTORY_BYTES: usize = 3 << 20;
/// … but never fewer than this many.
const HISTORY_FLOOR: usize = 200;
/// The newest events are ready for many watchers with selectors: as many as have texts of this size together …
const WARM_BYTES: usize = 192 << 10;
/// … but never fewer than this many.
const WARM_FLOOR: usize = 16;

/// A committed write on its way into the cache.
pub(super) struct Applied {
    pub key: Key,
    pub object: Arc<Stored>,
    pub previous: Option<Arc<Stored>>,
    pub deleted: bool,
}

/// One step of a resource's history.
#[derive(Debug)]
pub(crate) struct Event {
    pub revision: u64,
    /// `namespace/name`, or `name`.
    pub key: Arc<str>,
    pub object: Arc<Stored>,
    pub previous: Option<Arc<Stored>>,
    pub deleted: bool,
}

impl Event {
    /// Of the texts that it holds.
    fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |p| p.bytes.len());
        self.object.bytes.len() + previous
    }
}

struct Table {
    items: BTreeMap<Arc<str>, Arc<Stored>>,
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    /// How many of the newest events may have values, and the size of their texts.
    warm: usize,
    warm_bytes: usize,
    /// Every event after this revision is in `history`.
    complete_after: u64,
    changed: watch::Sender<u64>,
}

impl Table {
    fn new(complete_after: u64) -> Self {
        Self {
            items: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            warm: 0,
            warm_bytes: 0,
            complete_after,
            changed: watch::Sender::new(complete_after),
        }
    }

    fn push(&mut self, event: Event) {
        self.history_bytes += event.object.bytes.len();
        self.warm_bytes += event.size();
        self.warm += 1;
        self.history.push_back(Arc::new(event));
        while self.warm > WARM_FLOOR && self.warm_bytes > WARM_BYTES {
            self.chill(self.history.len() - self.warm);
            self.warm -= 1;
        }
        while self.history.len() > HISTORY_EVENTS
            || (self.history_bytes > HISTORY_BYTES && self.history.len() > HISTORY_FLOOR)
        {
            if let Some(old) = self.history.pop_front() {
                self.history_bytes -= old.object.bytes.len();
                self.complete_after = old.revision;
            }
        }
        self.warm = self.warm.min(self.history.len());
    }

    /// Forgets the values of an event, and of the object if that is as it was then and nobody has asked for it.
    fn chill(&mut self, at: usize) {
        let event = &self.history[at];
        self.warm_bytes -= event.size();
        let object = event.object.cold();
        if let Some(current) = self.items.get_mut(&event.key)
            && current.revision == object.revision
            && !current.is_asked_for()
        {
            *current = object.clone();
        }
        let event = Event {
            revision: event.revision,
            key: event.key.clone(),
            object,
            previous: event.previous.as_ref().map(Stored::cold),
            deleted: event.deleted,
        };
        self.history[at] = Arc::new(event);
    }

    /// Forgets the values that nobody has asked for since this was called last.
    fn cool(&mut self) {
        for item in self.items.values_mut() {
            if !item.was_asked_for() {
                *item = item.cold();
            }
        }
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Stored>)> {
        self.items
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

struct State {
    revision: u64,
    /// Tables by group and plural (`apps/deployments`, `core/pods`).
    tables: HashMap<Arc<str>, Table>,
    /// What was loaded at start: older revisions have no history.
    started_at: u64,
    /// Lists of older revisions are no longer given, as etcd compacts them away.
    compacted: u64,
}

/// Current objects and recent history, shared by all requests.
pub(crate) struct Cache {
    state: RwLock<State>,
}

/// The asked revision has left the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TooOld {
    pub asked: u64,
    pub oldest: u64,
}

/// Objects with their keys, in the order of the keys.
pub(crate) type Listed = Vec<(Arc<str>, Arc<Stored>)>;

/// What a watcher gets when it looks.
pub(crate) struct Batch {
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been seen once `events` are delivered.
    pub upto: u64,
}

impl Cache {
    pub(super) fn new(revision: u64, objects: Vec<(Key, Arc<Stored>)>) -> Self {
        let mut tables: HashMap<Arc<str>, Table> = HashMap::new();
        for (key, object) in objects {
            tables
                .entry(key.table.clone())
                .or_insert_with(|| Table::new(revision))
                .items
                .insert(key.path, object);
        }
        Self {
            state: RwLock::new(State {
                revision,
                tables,
                started_at: revision,
                compacted: 0,
            }),
        }
    }

    pub fn revision(&self) -> u64 {
        self.state.read().revision
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.state
            .read()
            .tables
            .get(&key.table)?
            .items
            .get(&key.path)
            .cloned()
    }

    pub(super) fn apply(&self, applied: Vec<Applied>, revision: u64) {
        let mut state = self.state.write();
        let started_at = state.started_at;
        let mut touched: Vec<Arc<str>> = Vec::new();
        for one in applied {
            let table = state
                .tables
                .entry(one.key.table.clone())
                .or_insert_with(|| Table::new(started_at));
            if one.deleted {
                table.items.remove(&one.key.path);
            } else {
                table.items.insert(one.key.path.clone(), one.object.clone());
            }
            table.push(Event {
                revision: one.object.revision,
                key: one.key.path,
                object: one.object,
                previous: one.previous,
                deleted: one.deleted,
            });
            if !touched.contains(&one.key.table) {
                touched.push(one.key.table);
            }
        }
        state.revision = revision;
        for name in touched {
            if let Some(table) = state.tables.get(&name) {
                table.changed.send_replace(revision);
            }
        }
    }

    /// Objects whose key starts with `prefix`, in key order, and the revision they are of.
    pub fn list(&self, table: &str, prefix: &str) -> (Listed, u64) {
        let state = self.state.read();
        let items = state.tables.get(table).map_or_else(Vec::new, |t| {
            t.scan(prefix)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        });
        (items, state.revision)
    }

    /// Since which revision each of the tables is as it is.
    pub fn changed_at<const N: usize>(&self, tables: &[&str; N]) -> [u64; N] {
        let state = self.state.read();
        tables.map(|name| state.tables.get(name).map_or(0, |t| *t.changed.borrow()))
    }

    /// How many objects a table holds.
    pub fn count(&self, table: &str) -> usize {
        self.state
            .read()
            .tables
            .get(table)
            .map_or(0, |t| t.items.len())
    }

    /// Forgets the values of objects that nobody has asked for since this was called last.
    pub fn cool(&self) {
        self.state.write().tables.values_mut().for_each(Table::cool);
    }

    /// Gives up the lists of revisions before this one.
    pub fn compact(&self, revision: u64) {
        let mut state = self.state.write();
        state.compacted = state.compacted.max(revision);
    }

    /// The objects as they were at `revision`: the present with later events undone.
    pub fn list_at(&self, table: &str, prefix: &str, revision: u64) -> Result<Listed, TooOld> {
        let state = self.state.read();
        let Some(t) = state.tables.get(table) else {
            return Ok(Vec::new());
        };
        let oldest = t.complete_after.max(state.compacted);
        if revision < oldest {
            return Err(TooOld {
                asked: revision,
                oldest,
            });
        }
        let mut items: BTreeMap<Arc<str>, Arc<Stored>> = t
            .scan(prefix)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for event in t.history.iter().rev() {
            if event.revision <= revision {
                break;
            }
            if !event.key.starts_with(prefix) {
                continue;
            }
            match &event.previous {
                Some(previous) => items.insert(event.key.clone(), previous.clone()),
                None => items.remove(&event.key),
            };
        }
        Ok(items.into_iter().collect())
    }

    /// Events after `after`, oldest first.
    pub fn since(&self, table: &str, after: u64) -> Result<Batch, TooOld> {
        let state = self.state.read();
        let oldest = state
            .tables
            .get(table)
            .map_or(state.started_at, |t| t.complete_after);
        if after < oldest {
            return Err(TooOld {
                asked: after,
                oldest,
            });
        }
        let events = state.tables.get(table).map_or_else(Vec::new, |t| {
            let first = t.history.partition_point(|e| e.revision <= after);
            t.history.range(first..).cloned().collect()
        });
        Ok(Batch {
            events,
            upto: state.revision.max(after),
        })
    }

    /// A signal that fires whenever the table changes.
    pub fn subscribe(&self, table: &str) -> watch::Receiver<u64> {
        if let Some(t) = self.state.read().tables.get(table) {
            return t.changed.subscribe();
        }
        let mut state = self.state.write();
        let started_at = state.started_at;
        state
            .tables
            .entry(table.into())
            .or_insert_with(|| Table::new(started_at))
            .changed
            .subscribe()
    }
}
