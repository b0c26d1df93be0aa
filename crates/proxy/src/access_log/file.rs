//! Files that lines go to: gathered in memory and written together, soon.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::service::Service;

/// Lines are written at once when so much is waiting.
const FULL: usize = 64 * 1024;
/// How long lines are gathered under load; a lone line leaves sooner.
const GATHER: Duration = Duration::from_millis(20);

/// A file that lines go to.
pub struct Sink {
    buffer: Mutex<String>,
    file: Mutex<File>,
    waiting: Notify,
    pub(super) null: bool,
}

impl Sink {
    fn open(path: &str) -> std::io::Result<Self> {
        // The process's own streams: opening them anew would start at their beginning if they are files.
        let file = match path {
            // SAFETY: the descriptors are open for the life of the process and duplicated, so dropping is harmless.
            "/dev/stdout" => unsafe { File::from_raw_fd(libc::dup(1)) },
            // SAFETY: as above.
            "/dev/stderr" => unsafe { File::from_raw_fd(libc::dup(2)) },
            path => File::options().create(true).append(true).open(path)?,
        };
        Ok(Self {
            buffer: Mutex::default(),
            file: Mutex::new(file),
            waiting: Notify::new(),
            null: path == "/dev/null",
        })
    }

    pub(super) fn line(&self, write: impl FnOnce(&mut String)) {
        let full = {
            let mut buffer = self.buffer.lock();
            let first = buffer.is_empty();
            write(&mut buffer);
            if first {
                self.waiting.notify_one();
            }
            buffer.len() >= FULL
        };
        if full {
            self.flush();
        }
    }

    /// Writes what is waiting.
    pub fn flush(&self) {
        // The file first: lines of two flushes must not change places.
        let mut file = self.file.lock();
        let text = std::mem::take(&mut *self.buffer.lock());
        if !text.is_empty() && !self.null {
            // A reader that went away must not stop traffic.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

/// Whereto lines and entries go. One file per path, whoever logs to it.
#[derive(Default)]
pub struct Sinks {
    sinks: Mutex<HashMap<String, Arc<Sink>>>,
    /// Services that entries go to. One for all logs with the same settings.
    pub(super) services: Mutex<Vec<std::sync::Weak<Service>>>,
}

impl Sinks {
    /// The sink of a path; must be called inside of a runtime, which then flushes it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn get(&self, path: &str) -> std::io::Result<Arc<Sink>> {
        let mut sinks = self.sinks.lock();
        if let Some(sink) = sinks.get(path) {
            return Ok(sink.clone());
        }
        let sink = Arc::new(Sink::open(path)?);
        sinks.insert(path.to_owned(), sink.clone());
        let flushed = Arc::downgrade(&sink);
        tokio::spawn(async move {
            while let Some(sink) = flushed.upgrade() {
                sink.waiting.notified().await;
                tokio::time::sleep(GATHER).await;
                sink.flush();
            }
        });
        Ok(sink)
    }

    /// Writes everything that is waiting.
    pub fn flush(&self) {
        for sink in self.sinks.lock().values() {
            sink.flush();
        }
    }
}
