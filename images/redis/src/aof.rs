//! The append-only file: every change as a request, in the layout of Redis 7 (a directory
//! with a manifest, a base file and an incremental file), so that either server can go on
//! with what the other has written.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

use crate::config::Config;
use crate::log;
use crate::request::Reader;
use crate::resp::{Reply, encode_request};
use crate::session::Session;
use crate::store::{Effect, Store};

/// Why the data on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// What it said.
        source: io::Error,
    },
    /// Another server has it.
    #[error("{0}: another server is using this directory; stop it or choose another --dir")]
    Locked(String),
    /// A file is damaged before its end.
    #[error(
        "{path}: bad file format at byte {offset}: {reason}; redis-check-aof --fix cuts the file there"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// Where the last good request ends.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot of a real Redis.
    #[error(
        "{0} is an RDB snapshot, which this server does not read; let a real Redis rewrite it: CONFIG SET aof-use-rdb-preamble no, then BGREWRITEAOF"
    )]
    Snapshot(String),
    /// The manifest is not understood.
    #[error("{path}: line {line:?} is not understood")]
    Manifest {
        /// Which file.
        path: String,
        /// Which line.
        line: String,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { path, source }
}

/// What the manifest says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Manifest {
    base: Option<(String, u64)>,
    increments: Vec<(String, u64)>,
    history: Vec<(String, u64)>,
}

impl Manifest {
    fn parse(text: &str) -> Result<Self, String> {
        let mut manifest = Manifest::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            let value = |key: &str| {
                let index = words.iter().position(|word| *word == key)?;
                words.get(index + 1).copied()
            };
            let entry = value("file").zip(value("seq").and_then(|seq| seq.parse().ok()));
            let Some((name, seq)) = entry.filter(|(name, _)| !name.contains('/')) else {
                return Err(line.to_owned());
            };
            let entry = (name.to_owned(), seq);
            match value("type") {
                Some("b") => manifest.base = Some(entry),
                Some("i") => manifest.increments.push(entry),
                Some("h") => manifest.history.push(entry),
                _ => return Err(line.to_owned()),
            }
        }
        Ok(manifest)
    }

    fn text(&self) -> String {
        let lines = |entries: &[(String, u64)], kind: char| -> String {
            entries
                .iter()
                .map(|(name, seq)| format!("file {name} seq {seq} type {kind}\n"))
                .collect()
        };
        let base: Vec<_> = self.base.iter().cloned().collect();
        lines(&base, 'b') + &lines(&self.history, 'h') + &lines(&self.increments, 'i')
    }

    fn files(&self) -> impl Iterator<Item = &String> {
        self.base
            .iter()
            .chain(&self.increments)
            .map(|(name, _)| name)
    }

    fn next_seq(&self) -> u64 {
        let all = self
            .base
            .iter()
            .chain(&self.increments)
            .chain(&self.history);
        all.map(|(_, seq)| *seq).max().unwrap_or(0) + 1
    }
}

/// The open file.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    name: String,
    manifest: Manifest,
    file: Arc<File>,
    pending: Vec<u8>,
    database: Option<usize>,
    size: u64,
    base_size: u64,
    unsynced: Arc<AtomicBool>,
    _lock: File,
}

impl Log {
    /// Reads what is on disk into the empty `store` and opens the file for more. A request
    /// cut off at the very end, as kill -9 or a power failure leave one, is cut away.
    ///
    /// # Errors
    /// The data cannot be read or is damaged elsewhere.
    pub fn open(store: &mut Store, now_ms: i64) -> Result<Self, Error> {
        let config = store.config.clone();
        let directory = config.dir.join(&config.append_dir);
        if !directory.exists() {
            std::fs::create_dir(&directory).map_err(at(&directory))?;
        }
        let lock = File::open(&directory).map_err(at(&directory))?;
        if lock.try_lock().is_err() {
            return Err(Error::Locked(directory.display().to_string()));
        }
        let manifest_path = directory.join(manifest_name(&config));
        let old_file = config.dir.join(&config.append_file);
        let mut manifest = Manifest::default();
        let mut upgrade = false;
        if manifest_path.exists() {
            let text = std::fs::read_to_string(&manifest_path).map_err(at(&manifest_path))?;
            manifest = Manifest::parse(&text).map_err(|line| Error::Manifest {
                path: manifest_path.display().to_string(),
                line,
            })?;
        } else if old_file.is_file() {
            upgrade = true;
        }
        let mut paths: Vec<PathBuf> = manifest.files().map(|name| directory.join(name)).collect();
        if upgrade {
            paths.push(old_file.clone());
        }
        let last = paths.len().saturating_sub(1);
        let mut sizes = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            sizes.push(load(store, path, index == last)?);
        }
        store.effects.clear();
        store.orders.clear();
        store.messages.clear();
        store.expire(now_ms);
        if !paths.is_empty() {
            let keys: usize = store
                .databases
                .iter()
                .map(crate::store::Database::len)
                .sum();
            log::line(format!("DB loaded from append only file: {keys} keys"));
        }
        let base_size = if manifest.base.is_some() {
            sizes.first().copied().unwrap_or(0)
        } else {
            0
        };
        let total: u64 = sizes.iter().sum();
        let mut log = match manifest.increments.last() {
            Some((name, _)) => {
                let path = directory.join(name);
                Log {
                    file: Arc::new(open_to_append(&path)?),
                    directory,
                    name: config.append_file.clone(),
                    manifest,
                    pending: Vec::new(),
                    database: None,
                    size: total - base_size,
                    base_size,
                    unsynced: Arc::default(),
                    _lock: lock,
                }
            }
            None => {
                let empty = File::open(&directory).map_err(at(&directory))?;
                let mut log = Log {
                    file: Arc::new(empty),
                    directory,
                    name: config.append_file.clone(),
                    manifest,
                    pending: Vec::new(),
                    database: None,
                    size: 0,
                    base_size: 0,
                    unsynced: Arc::default(),
                    _lock: lock,
                };
                log.rewrite(store)?;
                log
            }
        };
        if upgrade {
            std::fs::remove_file(&old_file).map_err(at(&old_file))?;
        }
        log.append(&std::mem::take(&mut store.effects));
        if log.rewrite_due(&config) {
            log.rewrite(store)?;
        }
        Ok(log)
    }

    /// Whether the incremental file has grown so much that a rewrite pays.
    #[must_use]
    pub fn rewrite_due(&self, config: &Config) -> bool {
        let growth = self.base_size.saturating_mul(config.rewrite_percentage) / 100;
        config.rewrite_percentage > 0 && self.size > config.rewrite_min && self.size > growth
    }

    /// Adds changes to what [`Log::write`] will write.
    pub fn append(&mut self, effects: &[Effect]) {
        for effect in effects {
            if self.database != Some(effect.database) {
                encode_request(
                    &["SELECT".to_owned(), effect.database.to_string()],
                    &mut self.pending,
                );
                self.database = Some(effect.database);
            }
            encode_request(&effect.request, &mut self.pending);
        }
    }

    /// Hands everything to the kernel: from then on only a failure of the machine loses it.
    ///
    /// # Errors
    /// The disk is full, for example. Nothing is forgotten: the next call tries again.
    pub fn write(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = (&*self.file).write_all(&self.pending) {
            // Half a request must not be followed by others.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += self.pending.len() as u64;
        self.pending.clear();
        self.unsynced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What forces written data to the disk, to be called on any thread; nothing when all
    /// of it is there.
    #[must_use]
    pub fn syncer(&self) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static> {
        let unsynced = self.unsynced.clone();
        let file = self.file.clone();
        unsynced.swap(false, Ordering::Relaxed).then_some(move || {
            file.sync_data()
                .inspect_err(|_| unsynced.store(true, Ordering::Relaxed))
        })
    }

    /// Writes the data anew, as short as possible, and goes on with an empty incremental
    /// file. Until the manifest is replaced, the old files hold.
    ///
    /// # Errors
    /// The file system refuses; the old files go on.
    pub fn rewrite(&mut self, store: &Store) -> Result<(), Error> {
        let seq = self.manifest.next_seq();
        let base = format!("{}.{seq}.base.aof", self.name);
        let increment = format!("{}.{seq}.incr.aof", self.name);
        let base_path = self.directory.join(&base);
        let base_size = write_base(store, &base_path).map_err(at(&base_path))?;
        let increment_path = self.directory.join(&increment);
        File::create(&increment_path).map_err(at(&increment_path))?;
        let file = open_to_append(&increment_path)?;
        let manifest = Manifest {
            base: Some((base, seq)),
            increments: vec![(increment, seq)],
            history: Vec::new(),
        };
        let path = self.directory.join(format!("{}.manifest", self.name));
        replace(&path, manifest.text().as_bytes()).map_err(at(&path))?;
        let old = std::mem::replace(&mut self.manifest, manifest);
        for name in old.files().chain(old.history.iter().map(|(name, _)| name)) {
            // Left behind it would only take space.
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        self.file = Arc::new(file);
        self.pending.clear();
        self.database = None;
        self.size = 0;
        self.base_size = base_size;
        log::line(format!("append only file written anew: {base_size} bytes"));
        Ok(())
    }
}

fn manifest_name(config: &Config) -> String {
    format!("{}.manifest", config.append_file)
}

fn open_to_append(path: &Path) -> Result<File, Error> {
    OpenOptions::new().append(true).open(path).map_err(at(path))
}

fn write_base(store: &Store, path: &Path) -> io::Result<u64> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut size = 0;
    let mut database = None;
    let mut text = Vec::new();
    for effect in store.rebuild() {
        text.clear();
        if database != Some(effect.database) {
            encode_request(
                &["SELECT".to_owned(), effect.database.to_string()],
                &mut text,
            );
            database = Some(effect.database);
        }
        encode_request(&effect.request, &mut text);
        out.write_all(&text)?;
        size += text.len() as u64;
    }
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(size)
}

/// Replaces a file as a whole, or not at all.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("temp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Executes a file's requests; its size afterwards.
fn load(store: &mut Store, path: &Path, may_end_early: bool) -> Result<u64, Error> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut reader = Reader::new(usize::MAX, usize::MAX);
    let mut buffer = BytesMut::new();
    let mut chunk = vec![0; 256 * 1024];
    let mut session = Session::default();
    let (mut total, mut good) = (0_u64, 0_u64);
    loop {
        let count = file.read(&mut chunk).map_err(at(path))?;
        if count == 0 {
            break;
        }
        if total == 0 && chunk[..count].starts_with(b"REDIS") {
            return Err(Error::Snapshot(path.display().to_string()));
        }
        total += count as u64;
        buffer.extend_from_slice(&chunk[..count]);
        let damaged = |offset, reason| Error::Damaged {
            path: path.display().to_string(),
            offset,
            reason,
        };
        while let Some(args) = reader
            .next(&mut buffer)
            .map_err(|reason| damaged(good, reason))?
        {
            replay(store, &mut session, &args).map_err(|reason| damaged(good, reason))?;
            if session.transaction.is_none() {
                good = total - buffer.len() as u64;
            }
        }
    }
    if good < total {
        if !may_end_early {
            return Err(Error::Damaged {
                path: path.display().to_string(),
                offset: good,
                reason: "the file ends within a request".into(),
            });
        }
        log::line(format!(
            "the append only file ends within a request: {} bytes after {good} are cut away",
            total - good
        ));
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at(path))?;
        file.set_len(good).map_err(at(path))?;
        file.sync_all().map_err(at(path))?;
    }
    Ok(good)
}

fn replay(store: &mut Store, session: &mut Session, args: &[Bytes]) -> Result<(), String> {
    // Lines with a time, which real servers write on demand.
    if args[0].starts_with(b"#") {
        return Ok(());
    }
    // At the beginning of time: what has expired since was still there when the following
    // requests were written.
    match store.execute(session, 0, args) {
        Reply::Error(reason) => Err(reason.into_owned()),
        _ => {
            store.effects.clear();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Store {
        let config = Config {
            dir: dir.to_owned(),
            append_only: true,
            ..Config::default()
        };
        Store::new(config, 1)
    }

    fn run(store: &mut Store, log: &mut Log, now_ms: i64, line: &str) -> Reply {
        let args: Vec<Bytes> = line
            .split(' ')
            .map(|word| Bytes::from(word.to_owned()))
            .collect();
        let reply = store.execute(&mut Session::default(), now_ms, &args);
        log.append(&std::mem::take(&mut store.effects));
        log.write().unwrap();
        reply
    }

    fn dump(store: &Store) -> Vec<String> {
        let mut lines: Vec<String> = store
            .rebuild()
            .map(|effect| format!("{effect:?}"))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = store(dir.path());
        let mut log = Log::open(&mut first, 1000).unwrap();
        for line in [
            "SET a 1 EX 100",
            "SET gone 1 PX 10",
            "INCRBYFLOAT f 0.1",
            "RPUSH l a b c",
            "SADD s a b c",
            "SPOP s",
            "HSET h f v",
            "ZADD z 1.5 m",
            "GETEX a PERSIST",
        ] {
            run(&mut first, &mut log, 1000, line);
        }
        run(&mut first, &mut log, 5000, "INCR gone");
        let expected = dump(&first);
        assert!(matches!(
            Log::open(&mut store(dir.path()), 0),
            Err(Error::Locked(_))
        ));
        drop(log);
        // Once from the incremental file, once after a rewrite.
        let mut second = store(dir.path());
        let mut log = Log::open(&mut second, 6000).unwrap();
        assert_eq!(dump(&second), expected);
        log.rewrite(&second).unwrap();
        drop(log);
        let mut third = store(dir.path());
        Log::open(&mut third, 6000).unwrap();
        assert_eq!(dump(&third), expected);
        let files = std::fs::read_dir(dir.path().join("appendonlydir"))
            .unwrap()
            .count();
        assert_eq!(files, 3);
    }

    #[test]
    fn a_cut_off_end_is_cut_away_and_a_transaction_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = store(dir.path());
        let mut log = Log::open(&mut first, 0).unwrap();
        run(&mut first, &mut log, 0, "SET a 1");
        let path = dir.path().join("appendonlydir/appendonly.aof.1.incr.aof");
        let good = std::fs::metadata(&path).unwrap().len();
        drop(log);
        for tail in [
            "*2\r\n$3\r\nDEL\r\n$1\r\n",
            "*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL\r\n$1\r\na\r\n",
        ] {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(tail.as_bytes()).unwrap();
            let mut again = store(dir.path());
            Log::open(&mut again, 0).unwrap();
            assert_eq!(dump(&again).len(), 1, "{tail:?}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), good);
        }
        std::fs::write(&path, "*1\r\nnonsense\r\n*1\r\n$4\r\nPING\r\n").unwrap();
        assert!(matches!(
            Log::open(&mut store(dir.path()), 0),
            Err(Error::Damaged { .. })
        ));
    }

    #[test]
    fn the_single_file_of_older_servers() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("appendonly.aof");
        std::fs::write(&old, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap();
        let mut store = store(dir.path());
        Log::open(&mut store, 0).unwrap();
        assert_eq!(dump(&store).len(), 1);
        assert!(!old.exists());
    }

    #[test]
    fn manifests() {
        let text = "file a.1.base.rdb seq 1 type b\nfile a.2.incr.aof seq 2 type i\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.text(), text);
        assert_eq!(manifest.next_seq(), 3);
        assert!(Manifest::parse("file ../x seq 1 type b").is_err());
    }
}
