//! Container logs.
//!
//! One file for each instance of a container, `<dir>/<pod uid>/<container>/<instance>.log`, in the
//! CRI log format: `2026-01-02T03:04:05.678901234Z stdout F text`. A line longer than 16 KiB is cut
//! into parts marked `P`, the last one `F`. A file is rotated to `<instance>.log.1` when it grows past
//! its limit; the present and the previous instance are kept.

mod line;
mod read;
mod write;

pub use line::{Entry, parse_line};
pub use read::{ReadOptions, select_tail};
pub use write::LogWriter;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Where an instance's log stands: how many bytes were written in all, and whether more can come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    written: u64,
    closed: bool,
}

/// All container logs of a node.
#[derive(Clone)]
pub struct Logs {
    dir: Arc<PathBuf>,
    max_bytes: u64,
    live: Arc<Mutex<HashMap<PathBuf, watch::Receiver<Progress>>>>,
}

/// Why a log cannot be shown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// `previous` was asked for and there is none.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// Container name.
        container: String,
        /// Pod name.
        pod: String,
    },
    /// The file cannot be read.
    #[error("cannot read the log of container {container:?}: {problem}")]
    Io {
        /// Container name.
        container: String,
        /// What the system said.
        problem: String,
    },
}

impl Logs {
    /// Logs under `dir`; each file holds at most about `max_bytes` before it is rotated.
    pub fn new(dir: PathBuf, max_bytes: u64) -> Self {
        Self {
            dir: Arc::new(dir),
            max_bytes,
            live: Arc::default(),
        }
    }

    fn container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.dir.join(uid).join(container)
    }

    /// Opens the log of a new instance and drops what is older than the previous one.
    ///
    /// # Errors
    /// When the directory or file cannot be made.
    pub fn open(&self, uid: &str, container: &str, instance: u32) -> std::io::Result<LogWriter> {
        let dir = self.container_dir(uid, container);
        std::fs::create_dir_all(&dir)?;
        for old in instances(&dir) {
            if old + 1 < instance {
                let _ = std::fs::remove_file(dir.join(format!("{old}.log")));
                let _ = std::fs::remove_file(dir.join(format!("{old}.log.1")));
            }
        }
        let path = dir.join(format!("{instance}.log"));
        let (writer, progress) = LogWriter::create(path.clone(), self.max_bytes)?;
        let mut live = self.live.lock();
        live.retain(|_, progress| !progress.borrow().closed);
        live.insert(path, progress);
        Ok(writer)
    }

    /// Removes all logs of a pod.
    pub fn remove_pod(&self, uid: &str) {
        let _ = std::fs::remove_dir_all(self.dir.join(uid));
    }

    /// Removes the logs of pods that `keep` does not want.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        for entry in std::fs::read_dir(&*self.dir)
            .into_iter()
            .flatten()
            .flatten()
        {
            if !entry.file_name().to_str().is_some_and(&keep) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Instance numbers that have a log, ascending.
fn instances(dir: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".log")?
                .parse()
                .ok()
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests;
