//! Objects: durable on disk, current and recent in memory.

mod cache;
mod disk;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use api::table::{Cells, Source};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub(crate) use cache::{Cache, Event, TooOld};
pub(crate) use disk::{Change, Expect};

/// Writes that may wait for the writer; more than that and the caller waits too.
const QUEUE: usize = 1024;

/// Where an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// `apps/deployments`, `core/pods`.
    pub table: Arc<str>,
    /// `namespace/name`, or `name` where the resource has no namespaces.
    pub path: Arc<str>,
}

impl Key {
    pub fn new(table: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self {
            table: table.clone(),
            path: if namespace.is_empty() {
                name.into()
            } else {
                format!("{namespace}/{name}").into()
            },
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("/registry/")?;
        let mut parts = rest.splitn(3, '/');
        let (group, plural, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            table: format!("{group}/{plural}").into(),
            path: path.into(),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/registry/{}/{}", self.table, self.path)
    }
}

/// One version of one object: its text, and what was taken apart of it when somebody needed that. As a value an object takes twenty times the
/// memory of its text, so the cache forgets the values that nobody asks for.
#[derive(Debug)]
pub(crate) struct Stored {
    pub revision: u64,
    value: OnceLock<Arc<Value>>,
    /// Somebody has asked for the value since the cache looked last.
    asked: AtomicBool,
    /// Its row in tables.
    cells: OnceLock<Option<Arc<Cells>>>,
    /// The object as JSON, ready to be sent.
    pub bytes: Bytes,
    /// Where its `metadata` is in them.
    metadata: Range<usize>,
    /// Where what comes behind `kind` and `apiVersion` begins in them.
    rest: usize,
}

fn parse(bytes: &[u8]) -> Arc<Value> {
    // It was written from a value, or read as one when the store was opened.
    Arc::new(serde_json::from_slice(bytes).expect("a stored object is JSON"))
}

/// An object as JSON, `kind` and `apiVersion` first as the real server writes them.
struct Encoded {
    bytes: Vec<u8>,
    /// Where its `metadata` is (nowhere: an empty range).
    metadata: Range<usize>,
    /// Where the first member behind `kind` and `apiVersion` begins, or the closing brace.
    rest: usize,
}

fn encode(value: &Value) -> Encoded {
    const HEAD: [&str; 2] = ["kind", "apiVersion"];
    let mut out = Vec::with_capacity(1024);
    let mut metadata = 0..0;
    let put = |out: &mut Vec<u8>, value: &Value| {
        // Writing into memory does not fail, and a value has no keys that are no texts.
        serde_json::to_writer(out, value).expect("a value is serialisable");
    };
    let Some(map) = value.as_object() else {
        put(&mut out, value);
        return Encoded {
            bytes: out,
            metadata,
            rest: 0,
        };
    };
    let head = HEAD.iter().filter_map(|key| map.get_key_value(*key));
    let others = map.iter().filter(|(key, _)| !HEAD.contains(&key.as_str()));
    let mut rest = None;
    for (key, value) in head.chain(others) {
        out.push(if out.is_empty() { b'{' } else { b',' });
        if rest.is_none() && !HEAD.contains(&key.as_str()) {
            rest = Some(out.len());
        }
        serde_json::to_writer(&mut out, key).expect("a text is serialisable");
        out.push(b':');
        let start = out.len();
        put(&mut out, value);
        if key == "metadata" {
            metadata = start..out.len();
        }
    }
    if out.is_empty() {
        out.push(b'{');
    }
    let rest = rest.unwrap_or(out.len());
    out.push(b'}');
    Encoded {
        bytes: out,
        metadata,
        rest,
    }
}

impl Stored {
    /// Stamps the revision into `metadata.resourceVersion`.
    fn new(mut value: Value, revision: u64) -> Self {
        if let Some(object) = value.as_object_mut() {
            let meta = object
                .entry("metadata")
                .or_insert_with(|| Value::Object(Default::default()));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("resourceVersion".into(), revision.to_string().into());
            }
        }
        Self::of(value, revision)
    }

    /// An object as it is, of a revision; 0 for one that is not stored.
    pub fn of(value: Value, revision: u64) -> Self {
        let encoded = encode(&value);
        Self {
            revision,
            value: Arc::new(value).into(),
            asked: AtomicBool::new(false),
            cells: OnceLock::new(),
            bytes: encoded.bytes.into(),
            metadata: encoded.metadata,
            rest: encoded.rest,
        }
    }

    /// The object, for those who come back to it: it stays at hand for a while.
    pub fn value(&self) -> &Value {
        self.kept()
    }

    /// The same to take along.
    pub fn shared(&self) -> Arc<Value> {
        self.kept().clone()
    }

    fn kept(&self) -> &Arc<Value> {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        self.value.get_or_init(|| parse(&self.bytes))
    }

    /// The object, for those who look at many: it is not kept on their behalf.
    pub fn glance(&self) -> Arc<Value> {
        match self.value.get() {
            Some(value) => value.clone(),
            None => parse(&self.bytes),
        }
    }

    /// Whether somebody has asked for the value lately.
    fn is_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The same, and from now on it is not lately any more.
    fn was_asked_for(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// The same without what was taken apart.
    fn cold(self: &Arc<Self>) -> Arc<Self> {
        if self.value.get().is_none() {
            return self.clone();
        }
        Arc::new(Self {
            revision: self.revision,
            value: OnceLock::new(),
            asked: AtomicBool::new(false),
            cells: self.cells.clone(),
            bytes: self.bytes.clone(),
            metadata: self.metadata.clone(),
            rest: self.rest,
        })
    }

    /// Its `metadata` as JSON.
    pub fn metadata(&self) -> &[u8] {
        &self.bytes[self.metadata.clone()]
    }

    /// What is behind the opening brace, without `kind` and `apiVersion`.
    pub fn without_type(&self) -> &[u8] {
        &self.bytes[self.rest..]
    }

    /// The same object, shown as of another revision.
    pub fn restamped(other: &Self, revision: u64) -> Self {
        Self::new((*other.glance()).clone(), revision)
    }

    fn to_disk(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.bytes.len());
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (head, body) = bytes
            .split_first_chunk::<8>()
            .ok_or("shorter than its header")?;
        let value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        Ok(Self::of(value, u64::from_be_bytes(*head)))
    }
}

impl Source for Stored {
    fn object(&self) -> Arc<Value> {
        self.glance()
    }

    fn text(&self) -> &[u8] {
        &self.bytes
    }

    fn metadata(&self) -> &[u8] {
        self.metadata()
    }

    fn kept(&self) -> &OnceLock<Option<Arc<Cells>>> {
        &self.cells
    }
}

/// The store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("the object store {path} cannot be used: {what}")]
pub struct StorageError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub what: String,
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WriteError {
    Exists,
    Missing,
    /// Somebody else wrote in between.
    Changed,
    Disk(String),
}

/// The store: many readers, one writer thread.
pub(crate) struct Storage {
    cache: Arc<Cache>,
    writes: mpsc::Sender<disk::Write>,
}

impl Storage {
    /// Opens (or creates) `dir/objects.redb` and loads it.
    ///
    /// The second value is the writer thread: it ends when the last `Storage` is dropped, and
    /// only then is the file closed.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, std::thread::JoinHandle<()>), StorageError> {
        let fail = |what: std::io::Error| StorageError {
            path: dir.to_owned(),
            what: what.to_string(),
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        let (db, loaded) = disk::open(&dir.join("objects.redb"))?;
        let cache = Arc::new(Cache::new(loaded.revision, loaded.objects));
        let (writes, inbox) = mpsc::channel(QUEUE);
        let writer = {
            let cache = cache.clone();
            std::thread::Builder::new()
                .name("apiserver-store".into())
                .spawn(move || disk::write_loop(&db, &cache, inbox))
                .map_err(fail)?
        };
        Ok((Arc::new(Self { cache, writes }), writer))
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub async fn write(
        &self,
        key: Key,
        expect: Expect,
        change: Change,
    ) -> Result<Arc<Stored>, WriteError> {
        if let Change::Put(value) = &change
            && api::meta::nests_deeper(value, api::meta::DEEPEST)
        {
            // It could be written, and never be read again.
            return Err(WriteError::Disk("it nests too deeply".into()));
        }
        let (reply, answer) = oneshot::channel();
        let closed = || WriteError::Disk("the store is closed".into());
        self.writes
            .send(disk::Write {
                key,
                expect,
                change,
                reply,
            })
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[cfg(test)]
mod tests;
