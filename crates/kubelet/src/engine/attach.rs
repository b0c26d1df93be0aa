//! Clients attached to a container's standard streams.

use bytes::Bytes;
use tokio::sync::{Mutex, broadcast};

use crate::cri::Input;

/// The streams of one container instance, shared by its log and any number of attached clients.
pub struct AttachHub {
    output: broadcast::Sender<(bool, Bytes)>,
    stdin: Mutex<Option<Input>>,
}

impl AttachHub {
    /// A hub that owns the container's stdin.
    pub fn new(stdin: Option<Input>) -> Self {
        Self {
            output: broadcast::Sender::new(256),
            stdin: Mutex::new(stdin),
        }
    }

    /// Passes a piece of output on (`true`: standard error). Without clients it costs nothing.
    pub fn publish(&self, stderr: bool, bytes: &[u8]) {
        if self.output.receiver_count() > 0 {
            let _ = self.output.send((stderr, Bytes::copy_from_slice(bytes)));
        }
    }

    /// All output from here on. A client that is too slow misses some.
    pub fn subscribe(&self) -> broadcast::Receiver<(bool, Bytes)> {
        self.output.subscribe()
    }

    /// Writes to the container's stdin; false when it has none or it is closed.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        use tokio::io::AsyncWriteExt;
        let mut guard = self.stdin.lock().await;
        match guard.as_mut() {
            Some(stdin) => stdin.write_all(bytes).await.is_ok() && stdin.flush().await.is_ok(),
            None => false,
        }
    }

    /// Ends the container's stdin (`stdinOnce`).
    pub async fn close_stdin(&self) {
        *self.stdin.lock().await = None;
    }
}
