//! The data, and the one function that executes requests on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::commands::{self, Context};
use crate::config::Config;
use crate::resp::Reply;
use crate::session::Session;
use crate::value::Value;

/// A key's value and what belongs to it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it holds.
    pub value: Value,
    /// When it goes, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Grows with every change (`WATCH`).
    pub version: u64,
}

/// One numbered database.
///
/// Keys are only ever added at the end, and a removed key's place is taken by the last one.
/// That is what lets `SCAN` walk down by position without missing a key.
#[derive(Debug, Default)]
pub struct Database {
    entries: IndexMap<Bytes, Entry>,
    expiring: BTreeSet<(i64, Bytes)>,
    versions: u64,
}

impl Database {
    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys have an expiry.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.expiring.len()
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.entries.iter()
    }

    /// The key at a position.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<(&Bytes, &Entry)> {
        self.entries.get_index(index)
    }

    /// A key's entry.
    #[must_use]
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A key's value.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// A key's value, to be changed: counts as a change for `WATCH`.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        let entry = self.entries.get_mut(key)?;
        self.versions += 1;
        entry.version = self.versions;
        Some(&mut entry.value)
    }

    /// Puts a value, with an expiry or without.
    pub fn put(&mut self, key: Bytes, value: Value, expires_ms: Option<i64>) {
        self.versions += 1;
        let entry = Entry {
            value,
            expires_ms,
            version: self.versions,
        };
        if let Some(at) = expires_ms {
            self.expiring.insert((at, key.clone()));
        }
        if let Some(before) = self.entries.insert(key.clone(), entry)
            && let Some(at) = before.expires_ms
            && expires_ms != Some(at)
        {
            self.expiring.remove(&(at, key));
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.entries.swap_remove_entry(key)?;
        if let Some(at) = entry.expires_ms {
            self.expiring.remove(&(at, key));
        }
        Some(entry)
    }

    /// Takes a key out when its collection has become empty.
    pub fn remove_if_empty(&mut self, key: &[u8]) {
        if self.get(key).is_some_and(Value::is_empty_collection) {
            self.remove(key);
        }
    }

    /// Changes when a key goes; whether the key exists.
    pub fn set_expiry(&mut self, key: &Bytes, expires_ms: Option<i64>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if let Some(at) = entry.expires_ms {
            self.expiring.remove(&(at, key.clone()));
        }
        if let Some(at) = expires_ms {
            self.expiring.insert((at, key.clone()));
        }
        entry.expires_ms = expires_ms;
        self.versions += 1;
        entry.version = self.versions;
        true
    }

    /// Takes everything out; how many keys there were.
    pub fn clear(&mut self) -> usize {
        let count = self.entries.len();
        self.entries.clear();
        self.expiring.clear();
        count
    }

    fn next_due(&mut self, now_ms: i64) -> Option<Bytes> {
        let (at, _) = self.expiring.first()?;
        if *at > now_ms {
            return None;
        }
        let (_, key) = self.expiring.pop_first()?;
        self.entries.swap_remove(&key);
        Some(key)
    }
}

/// A change as the append-only file keeps it: a request that leads to the same data
/// whenever it is executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The database it belongs to.
    pub database: usize,
    /// The request.
    pub request: Vec<Bytes>,
}

/// What a command asks of the process around the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write the append-only file anew.
    Rewrite,
    /// Force it to the disk.
    Sync,
    /// End.
    Shutdown,
}

/// What `CLIENT LIST` shows of each connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The line without the number.
    pub address: String,
    /// `CLIENT SETNAME`.
    pub name: Bytes,
    /// The selected database.
    pub database: usize,
    /// When it connected, in milliseconds.
    pub since_ms: i64,
    /// When it last asked something, in milliseconds.
    pub last_ms: i64,
    /// The last command.
    pub command: &'static str,
    /// Channels and patterns.
    pub subscriptions: (usize, usize),
    /// The library's name and version.
    pub library: (Bytes, Bytes),
    /// 2 or 3.
    pub protocol: u8,
}

/// Everything the server knows.
#[derive(Debug)]
pub struct Store {
    /// The numbered databases.
    pub databases: Vec<Database>,
    /// Changes since they were last taken.
    pub effects: Vec<Effect>,
    /// Messages for other connections since they were last taken.
    pub messages: Vec<(u64, Reply)>,
    /// Orders since they were last taken.
    pub orders: Vec<Order>,
    /// Subscribers of channels.
    pub channels: HashMap<Bytes, IndexSet<u64>>,
    /// Subscribers of patterns.
    pub patterns: IndexMap<Bytes, IndexSet<u64>>,
    /// The connections.
    pub peers: BTreeMap<u64, Peer>,
    /// The settings.
    pub config: Config,
    /// Numbers for `INFO`.
    pub figures: Figures,
    /// Why nothing may be written now; the disk is full, for example.
    pub write_refusal: Option<String>,
    pub(crate) random: StdRng,
}

/// Numbers for `INFO`.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// When the process started, in milliseconds since 1970.
    pub started_ms: i64,
    /// Requests executed.
    pub commands: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Keys that went by themselves.
    pub expired: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// When the data was last known to be on disk, in seconds since 1970.
    pub saved_s: i64,
    /// Changes since then.
    pub unsaved: u64,
    /// Memory of the process in bytes, as last measured.
    pub resident: u64,
}

impl Store {
    /// An empty store; `seed` decides what `SPOP` and `RANDOMKEY` choose.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Store {
            databases: (0..config.databases).map(|_| Database::default()).collect(),
            effects: Vec::new(),
            messages: Vec::new(),
            orders: Vec::new(),
            channels: HashMap::new(),
            patterns: IndexMap::new(),
            peers: BTreeMap::new(),
            config,
            figures: Figures::default(),
            write_refusal: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Executes one request.
    pub fn execute(&mut self, session: &mut Session, now_ms: i64, args: &[Bytes]) -> Reply {
        self.expire(now_ms);
        self.figures.commands += 1;
        commands::dispatch(
            &mut Context {
                store: self,
                session,
                now_ms,
            },
            args,
        )
    }

    /// Lets every key go whose time has come.
    pub fn expire(&mut self, now_ms: i64) {
        for (database, keys) in self.databases.iter_mut().enumerate() {
            while let Some(key) = keys.next_due(now_ms) {
                self.figures.expired += 1;
                self.effects.push(Effect {
                    database,
                    request: vec![Bytes::from_static(b"DEL"), key],
                });
            }
        }
    }

    /// Forgets a connection.
    pub fn disconnect(&mut self, session: &Session) {
        self.peers.remove(&session.id);
        self.disconnect_channels(session);
    }

    /// Ends all subscriptions of a connection.
    pub(crate) fn disconnect_channels(&mut self, session: &Session) {
        for channel in &session.channels {
            leave(&mut self.channels, channel, session.id);
        }
        for pattern in &session.patterns {
            if let Some(ids) = self.patterns.get_mut(pattern) {
                ids.shift_remove(&session.id);
                if ids.is_empty() {
                    self.patterns.shift_remove(pattern);
                }
            }
        }
    }

    /// Requests that make an empty store hold this data.
    pub fn rebuild(&self) -> impl Iterator<Item = Effect> {
        self.databases
            .iter()
            .enumerate()
            .flat_map(|(database, keys)| {
                keys.iter().flat_map(move |(key, entry)| {
                    let expiry = entry.expires_ms.map(|at| {
                        vec![
                            Bytes::from_static(b"PEXPIREAT"),
                            key.clone(),
                            Bytes::from(at.to_string()),
                        ]
                    });
                    entry
                        .value
                        .rebuild(key)
                        .into_iter()
                        .chain(expiry)
                        .map(move |request| Effect { database, request })
                })
            })
    }
}

pub(crate) fn leave(channels: &mut HashMap<Bytes, IndexSet<u64>>, channel: &Bytes, id: u64) {
    if let Some(ids) = channels.get_mut(channel) {
        ids.shift_remove(&id);
        if ids.is_empty() {
            channels.remove(channel);
        }
    }
}
