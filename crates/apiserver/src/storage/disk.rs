//! The durable part: a redb file and the one thread that writes it.
//!
//! Writes that arrive while a transaction is being synced wait in the channel and share the
//! next one (group commit): two hundred concurrent creates cost a handful of syncs. The
//! writer is also the only place where compare-and-swap is decided, so there is nothing to lock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Applied, Cache};
use super::{Key, StorageError, Stored, WriteError};

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
/// Writes one transaction may carry.
const BATCH: usize = 512;

/// What must be true of the stored object for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Expect {
    Absent,
    Revision(u64),
}

#[derive(Debug)]
pub(crate) enum Change {
    Put(Value),
    /// The last state watchers are shown, when it differs from the stored one.
    Delete(Option<Value>),
}

pub(super) struct Write {
    pub key: Key,
    pub expect: Expect,
    pub change: Change,
    pub reply: oneshot::Sender<Result<Arc<Stored>, WriteError>>,
}

/// Everything found on disk when the server starts.
pub(super) struct Loaded {
    pub revision: u64,
    pub objects: Vec<(Key, Arc<Stored>)>,
}

pub(super) fn open(path: &Path) -> Result<(Database, Loaded), StorageError> {
    let fail = |what: &str, e: &dyn std::fmt::Display| StorageError {
        path: path.to_owned(),
        what: format!("{what}: {e}"),
    };
    let db = Database::create(path).map_err(|e| fail("cannot open", &e))?;
    let txn = db.begin_write().map_err(|e| fail("cannot begin", &e))?;
    {
        txn.open_table(OBJECTS).map_err(|e| fail("objects", &e))?;
        txn.open_table(META).map_err(|e| fail("meta", &e))?;
    }
    txn.commit().map_err(|e| fail("cannot commit", &e))?;
    let read = db.begin_read().map_err(|e| fail("cannot read", &e))?;
    let table = read.open_table(OBJECTS).map_err(|e| fail("objects", &e))?;
    let mut objects = Vec::new();
    for row in table.iter().map_err(|e| fail("objects", &e))? {
        let (key, bytes) = row.map_err(|e| fail("objects", &e))?;
        let parsed = Key::parse(key.value()).ok_or_else(|| fail("unreadable key", &key.value()))?;
        let stored = Stored::from_bytes(bytes.value())
            .map_err(|e| fail(&format!("unreadable object {}", key.value()), &e))?;
        objects.push((parsed, Arc::new(stored)));
    }
    let meta = read.open_table(META).map_err(|e| fail("meta", &e))?;
    let revision = meta
        .get(REVISION)
        .map_err(|e| fail("meta", &e))?
        // Revision 1 is etcd's first; zero means "any" to clients and must never be given out.
        .map_or(1, |v| v.value());
    Ok((db, Loaded { revision, objects }))
}

/// The writer's loop; ends when every sender is gone.
pub(super) fn write_loop(db: &Database, cache: &Cache, mut inbox: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = inbox.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH {
            match inbox.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        commit(db, cache, &mut batch);
    }
}

fn commit(db: &Database, cache: &Cache, batch: &mut Vec<Write>) {
    let mut revision = cache.revision();
    let mut overlay: HashMap<Key, Option<Arc<Stored>>> = HashMap::new();
    let mut applied: Vec<Applied> = Vec::new();
    let mut replies = Vec::new();
    for write in batch.drain(..) {
        let current = match overlay.get(&write.key) {
            Some(known) => known.clone(),
            None => cache.get(&write.key),
        };
        if let Err(e) = check(write.expect, current.as_deref()) {
            // The caller may have gone away; nothing is owed to it then.
            let _ = write.reply.send(Err(e));
            continue;
        }
        revision += 1;
        let (object, deleted) = match write.change {
            Change::Put(value) => (Stored::new(value, revision), false),
            Change::Delete(last) => {
                let value = last
                    .unwrap_or_else(|| current.as_ref().map_or(Value::Null, |c| c.value().clone()));
                (Stored::new(value, revision), true)
            }
        };
        let object = Arc::new(object);
        overlay.insert(write.key.clone(), (!deleted).then(|| object.clone()));
        applied.push(Applied {
            key: write.key,
            object: object.clone(),
            previous: current,
            deleted,
        });
        replies.push((write.reply, object));
    }
    if applied.is_empty() {
        return;
    }
    match persist(db, &applied, revision) {
        Ok(()) => {
            cache.apply(applied, revision);
            for (reply, object) in replies {
                let _ = reply.send(Ok(object));
            }
        }
        Err(e) => {
            tracing::error!(error = %e, "objects could not be written to disk");
            for (reply, _) in replies {
                let _ = reply.send(Err(WriteError::Disk(e.clone())));
            }
        }
    }
}

fn check(expect: Expect, current: Option<&Stored>) -> Result<(), WriteError> {
    match (expect, current) {
        (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(_)) => Err(WriteError::Exists),
        (Expect::Revision(_), None) => Err(WriteError::Missing),
        (Expect::Revision(want), Some(have)) if have.revision == want => Ok(()),
        (Expect::Revision(_), Some(_)) => Err(WriteError::Changed),
    }
}

fn persist(db: &Database, applied: &[Applied], revision: u64) -> Result<(), String> {
    let run = || -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        {
            let mut objects = txn.open_table(OBJECTS)?;
            for one in applied {
                let key = one.key.to_string();
                if one.deleted {
                    objects.remove(key.as_str())?;
                } else {
                    objects.insert(key.as_str(), one.object.to_disk().as_slice())?;
                }
            }
            txn.open_table(META)?.insert(REVISION, revision)?;
        }
        // The default durability syncs before it returns: an acknowledged write survives kill -9.
        txn.commit()?;
        Ok(())
    };
    run().map_err(|e| e.to_string())
}
