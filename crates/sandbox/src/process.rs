//! A child process held by a pidfd: wait, signal, exit status.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Context;
use crate::{Result, reaper, sys};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The number Kubernetes shows as `exitCode`: the code, or 128 + signal.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            ExitStatus::Code(c) => c,
            ExitStatus::Signal(s) => 128 + s,
        }
    }
    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        match self {
            ExitStatus::Code(_) => None,
            ExitStatus::Signal(s) => Some(s),
        }
    }
    /// Exit code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

/// A child of this process. Dropping it kills the process (SIGKILL). It is reaped as soon as it has ended, whether anybody waits or not:
/// the first process of a container cannot end before every other of the container has been reaped.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Takes over a child that has not been waited for.
    pub(crate) fn adopt(pid: i32) -> io::Result<Self> {
        let pidfd = Arc::new(sys::pidfd_open(pid)?);
        Ok(Self {
            pid,
            status: reaper::watch(pidfd.clone())?,
            pidfd,
        })
    }

    /// PID as seen by this process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end. Any number of tasks may wait; each gets the same answer. Cancel safe.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.map(|s| *s);
        // The reaper never lets go of a process before its end.
        ended.ok().flatten().unwrap_or(ExitStatus::Code(255))
    }

    /// The exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Sends a signal (e.g. `libc::SIGTERM` = 15). A process that has already ended is not an error.
    /// The first process of a container ignores signals it has no handler for, except SIGKILL
    /// and SIGSTOP, as in every PID namespace.
    ///
    /// # Errors
    /// The signal number does not exist.
    pub fn kill(&self, signal: i32) -> Result<()> {
        match sys::pidfd_signal(self.pidfd.as_fd(), signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.doing(format_args!("send signal {signal} to process {}", self.pid)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let _ = self.kill(libc::SIGKILL);
        }
    }
}

/// The caller's ends of a process's standard streams. All are close-on-exec, blocking mode.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Write end, if stdin was asked for without a TTY.
    pub stdin: Option<OwnedFd>,
    /// Read end, without a TTY.
    pub stdout: Option<OwnedFd>,
    /// Read end, without a TTY.
    pub stderr: Option<OwnedFd>,
    /// The terminal, with a TTY: both directions.
    pub terminal: Option<Terminal>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

/// Controlling side of a container's terminal. Reading gives EIO once the other side is closed: treat it as end of file.
#[derive(Debug)]
pub struct Terminal {
    /// The controlling side: read the output, write the input.
    pub fd: OwnedFd,
}

impl Terminal {
    /// Tells the program a new size (SIGWINCH).
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        sys::set_terminal_size(self.fd.as_fd(), size.rows, size.columns).doing("resize a terminal")
    }

    /// A second descriptor of the same terminal, e.g. to resize while another task owns this one.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> Result<Terminal> {
        Ok(Terminal {
            fd: self
                .fd
                .try_clone()
                .doing("duplicate a terminal descriptor")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_kubernetes_shows() {
        assert_eq!(ExitStatus::Code(3).exit_code(), 3);
        assert_eq!(ExitStatus::Signal(9).exit_code(), 137);
        assert_eq!(ExitStatus::Signal(15).signal(), Some(15));
        assert!(ExitStatus::Code(0).success() && !ExitStatus::Code(1).success());
    }
}
