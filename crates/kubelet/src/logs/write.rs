//! Writing one instance's log.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::Progress;
use super::line::{Splitter, push_line};
use crate::cri::Output;

/// The log of one running instance.
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    max_bytes: u64,
    progress: watch::Sender<Progress>,
}

impl LogWriter {
    pub(super) fn create(
        path: PathBuf,
        max_bytes: u64,
    ) -> std::io::Result<(Self, watch::Receiver<Progress>)> {
        let file = File::options().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        let (progress, receiver) = watch::channel(Progress::default());
        Ok((
            Self {
                path,
                file,
                size,
                max_bytes,
                progress,
            },
            receiver,
        ))
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.max_bytes {
            let mut rotated = self.path.clone().into_os_string();
            rotated.push(".1");
            let renamed = std::fs::rename(&self.path, PathBuf::from(rotated));
            if let (Ok(()), Ok(file)) = (
                renamed,
                File::options().create(true).append(true).open(&self.path),
            ) {
                self.file = file;
                self.size = 0;
            }
        }
        // A full disk must not stop the container: what cannot be written is lost.
        if let Err(problem) = self.file.write_all(bytes) {
            tracing::warn!(path = %self.path.display(), %problem, "container log");
        }
        self.size += bytes.len() as u64;
        self.progress
            .send_modify(|progress| progress.written += bytes.len() as u64);
    }

    /// Copies both streams until they end. `tap` sees the raw bytes (`true`: standard error), for
    /// clients attached to the container.
    pub async fn copy(
        mut self,
        stdout: Option<Output>,
        stderr: Option<Output>,
        mut tap: impl FnMut(bool, &[u8]) + Send,
    ) {
        let mut streams = [(stdout, Splitter::default()), (stderr, Splitter::default())];
        let (mut out_buffer, mut err_buffer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        let mut lines = Vec::with_capacity(4096);
        loop {
            let [(out, _), (err, _)] = &mut streams;
            let (stderr, read) = match (out, err) {
                (None, None) => break,
                (Some(out), None) => (false, out.read(&mut out_buffer).await),
                (None, Some(err)) => (true, err.read(&mut err_buffer).await),
                (Some(out), Some(err)) => tokio::select! {
                    read = out.read(&mut out_buffer) => (false, read),
                    read = err.read(&mut err_buffer) => (true, read),
                },
            };
            let (stream, splitter) = &mut streams[usize::from(stderr)];
            let nanos = now_nanos();
            lines.clear();
            match read {
                // A terminal whose program has ended answers with an error instead of an end.
                Ok(0) | Err(_) => {
                    *stream = None;
                    splitter.finish(|text, partial| {
                        push_line(&mut lines, nanos, stderr, partial, text)
                    });
                }
                Ok(count) => {
                    let chunk = if stderr {
                        &err_buffer[..count]
                    } else {
                        &out_buffer[..count]
                    };
                    splitter.feed(chunk, |text, partial| {
                        push_line(&mut lines, nanos, stderr, partial, text)
                    });
                    tap(stderr, chunk);
                }
            }
            self.write(&lines);
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }
}

fn now_nanos() -> i128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}
