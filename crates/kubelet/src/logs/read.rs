//! Reading and following logs.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::line::parse_line;
use super::{LogError, Logs, Progress, instances};
use crate::clock::{self, Millis};

/// What `kubectl logs` can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Go on as long as the instance writes.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<Millis>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// The instance before the present one.
    pub previous: bool,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// The last `count` lines of `lines`.
pub fn select_tail<T>(lines: &[T], count: Option<usize>) -> &[T] {
    match count {
        Some(count) => &lines[lines.len().saturating_sub(count)..],
        None => lines,
    }
}

/// Renders one line of the file for the client; `None` when it is filtered or damaged.
pub(super) fn render(line: &[u8], options: &ReadOptions) -> Option<Vec<u8>> {
    let entry = parse_line(line)?;
    if let Some(since) = options.since
        && clock::parse(entry.time)? < since
    {
        return None;
    }
    let mut out = Vec::with_capacity(entry.text.len() + 40);
    if options.timestamps {
        out.extend_from_slice(entry.time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(entry.text);
    if !entry.partial {
        out.push(b'\n');
    }
    Some(out)
}

struct Reader {
    path: PathBuf,
    file: Option<std::fs::File>,
    inode: u64,
    rest: Vec<u8>,
}

impl Reader {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            inode: 0,
            rest: Vec::new(),
        }
    }

    /// All complete lines that are there now and were not read before.
    fn lines(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        use std::os::unix::fs::MetadataExt;
        let mut lines = Vec::new();
        loop {
            self.drain(&mut lines)?;
            // Rotated meanwhile (or not opened yet): go on with the present file.
            match std::fs::File::open(&self.path) {
                Ok(file) => {
                    let inode = file.metadata()?.ino();
                    if self.file.is_some() && inode == self.inode {
                        return Ok(lines);
                    }
                    // What was written between the last look and the rotation.
                    self.drain(&mut lines)?;
                    self.inode = inode;
                    self.file = Some(file);
                    self.rest.clear();
                }
                Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(lines),
                Err(problem) => return Err(problem),
            }
        }
    }

    fn drain(&mut self, lines: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut chunk = std::mem::take(&mut self.rest);
        file.read_to_end(&mut chunk)?;
        let mut start = 0;
        for (at, byte) in chunk.iter().enumerate() {
            if *byte == b'\n' {
                lines.push(chunk[start..at].to_vec());
                start = at + 1;
            }
        }
        self.rest = chunk.split_off(start);
        Ok(())
    }
}

impl Logs {
    /// A stream of the log of a container's present (or previous) instance. `pod` is the name for
    /// messages. The receiver ends when all is said; dropping it ends the reading.
    ///
    /// # Errors
    /// When `previous` is asked for and there is none, or the file cannot be read. A container that
    /// has not written anything yet is an empty log.
    pub fn read(
        &self,
        uid: &str,
        pod: &str,
        container: &str,
        options: ReadOptions,
    ) -> Result<mpsc::Receiver<Bytes>, LogError> {
        let dir = self.container_dir(uid, container);
        let mut known = instances(&dir);
        let newest = known.pop();
        let wanted = if options.previous {
            known.pop()
        } else {
            newest
        };
        let Some(instance) = wanted else {
            if options.previous {
                return Err(LogError::NoPrevious {
                    container: container.into(),
                    pod: pod.into(),
                });
            }
            return Ok(mpsc::channel(1).1);
        };
        let path = dir.join(format!("{instance}.log"));
        let progress = self.live.lock().get(&path).cloned();
        let io = |problem: std::io::Error| LogError::Io {
            container: container.into(),
            problem: problem.to_string(),
        };
        let mut lines = rotated(&path).map_err(io)?;
        let mut reader = Reader::new(path);
        lines.extend(reader.lines().map_err(io)?);
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let _ = stream(reader, lines, options, progress, sender).await;
        });
        Ok(receiver)
    }
}

fn rotated(path: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    match std::fs::read(PathBuf::from(name)) {
        Ok(bytes) => Ok(bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec())
            .collect()),
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(problem) => Err(problem),
    }
}

async fn stream(
    mut reader: Reader,
    lines: Vec<Vec<u8>>,
    options: ReadOptions,
    progress: Option<watch::Receiver<Progress>>,
    sender: mpsc::Sender<Bytes>,
) -> Option<()> {
    let mut left = options.limit_bytes;
    let first: Vec<Vec<u8>> = lines
        .iter()
        .filter_map(|line| render(line, &options))
        .collect();
    send(select_tail(&first, options.tail), &mut left, &sender).await?;
    let mut progress = progress.filter(|_| options.follow)?;
    loop {
        // Looked at before the file: what is written after this look wakes us again.
        let closed = progress.borrow_and_update().closed;
        let lines = reader.lines().ok()?;
        let more: Vec<Vec<u8>> = lines
            .iter()
            .filter_map(|line| render(line, &options))
            .collect();
        send(&more, &mut left, &sender).await?;
        if closed {
            return None;
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() && progress.borrow().closed && closed { return None },
            () = sender.closed() => return None,
        }
    }
}

/// Sends lines in chunks; `None` when the client is gone or has got all it wanted.
async fn send(
    lines: &[Vec<u8>],
    left: &mut Option<u64>,
    sender: &mpsc::Sender<Bytes>,
) -> Option<()> {
    let mut chunk = Vec::new();
    let last = lines.len().saturating_sub(1);
    for (index, line) in lines.iter().enumerate() {
        chunk.extend_from_slice(line);
        let full = left.is_some_and(|left| chunk.len() as u64 >= left);
        if index == last || chunk.len() > 64 * 1024 || full {
            if let Some(left) = left {
                chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= chunk.len() as u64;
            }
            sender
                .send(Bytes::from(std::mem::take(&mut chunk)))
                .await
                .ok()?;
        }
        if full {
            return None;
        }
    }
    Some(())
}
