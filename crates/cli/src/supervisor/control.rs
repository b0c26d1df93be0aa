//! How `theater status`, `down`, `reset` and a second `up` talk to the running supervisor: one JSON
//! line each way over a socket in the state directory, which only the owner can open.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How is everything?
    Status,
    /// Start clusters that have ended.
    Revive,
    /// Put the initial scene back.
    Reset,
    /// Change the link between a cluster and the WAN.
    Wan {
        /// The cluster.
        cluster: String,
        /// Whether anything gets through.
        up: bool,
        /// Delay in each direction, milliseconds.
        latency_ms: u32,
        /// Packets lost, percent.
        loss_percent: f64,
    },
    /// End everything, in order.
    Stop,
}

/// One cluster as the supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub name: String,
    /// Its process on the host, if it runs.
    pub pid: Option<i32>,
    /// Where its API server answers on the host.
    pub api: String,
}

/// The supervisor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status {
        /// The supervisor's process.
        pid: u32,
        /// Where the theater's page is.
        url: String,
        /// Its clusters.
        clusters: Vec<ClusterStatus>,
    },
    /// To [`Request::Revive`]: the clusters that were started again.
    Revived {
        /// Their names.
        clusters: Vec<String>,
    },
    /// Done.
    Done,
    /// It did not work.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

/// The longest request that is read.
const REQUEST_LIMIT: u64 = 4096;

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// Serves the control socket for as long as the runtime lives.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve<H: Handler>(path: &Path, handler: Arc<H>) -> io::Result<()> {
    // Whoever holds the state directory's lock owns the socket: an old one is a leftover.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &*handler).await {
                    tracing::debug!(%error, "control connection ended");
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, handler: &impl Handler) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_LIMIT))
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => handler.handle(request).await,
        Err(error) => Answer::Failed {
            message: format!("not a request of this version of theater: {error}"),
        },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks the supervisor behind `path`; `None` when there is none.
///
/// # Errors
/// When it answers something else than this version expects.
pub async fn ask(path: &Path, request: &Request) -> Result<Option<Answer>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot connect to {}", path.display()));
        }
    };
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    if line.is_empty() {
        // It may be gone before its last words are: that is what was asked for.
        if *request == Request::Stop {
            return Ok(Some(Answer::Done));
        }
        bail!("the running theater ended before it answered");
    }
    let answer: Answer = serde_json::from_str(&line)
        .context("the running theater is of another version; stop it by Ctrl-C in its terminal")?;
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, request: Request) -> Answer {
            match request {
                Request::Stop => Answer::Done,
                other => Answer::Failed {
                    message: format!("{other:?}"),
                },
            }
        }
    }

    #[tokio::test]
    async fn asks_and_answers_over_a_socket_of_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        assert_eq!(ask(&path, &Request::Stop).await.unwrap(), None);
        serve(&path, Arc::new(Echo)).unwrap();
        assert_eq!(
            ask(&path, &Request::Stop).await.unwrap(),
            Some(Answer::Done)
        );
        assert_eq!(
            ask(&path, &Request::Reset).await.unwrap(),
            Some(Answer::Failed {
                message: "Reset".into()
            })
        );
    }

    #[tokio::test]
    async fn garbage_gets_an_answer_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        serve(&path, Arc::new(Echo)).unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("not a request"), "seen {text}");
    }
}
