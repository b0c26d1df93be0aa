//! A child process held by a pidfd: wait, signal, exit status.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Context;
use crate::{Result, sys};

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

/// A child of this process. Dropping it kills the process (SIGKILL) and reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    status: Mutex<Option<ExitStatus>>,
}

impl Process {
    /// Takes over a child that has not been waited for.
    pub(crate) fn adopt(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            pidfd: sys::pidfd_open(pid)?,
            status: Mutex::new(None),
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
    /// Needs a tokio runtime with I/O enabled.
    pub async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            // A pidfd is readable once its process has ended. Each waiter registers a descriptor of its own.
            let readable = async {
                let fd = self.pidfd.try_clone()?;
                // SAFETY: the descriptor is owned by the AsyncFd and stays the same until dropped.
                let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
                    .map_err(|e| e.into_parts().1)?;
                fd.readable().await.map(drop)
            };
            if let Err(error) = readable.await {
                tracing::warn!(pid = self.pid, %error, "cannot watch a process, asking again");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    /// The exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        let mut status = self
            .status
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if status.is_none() {
            *status = sys::wait_pidfd(self.pidfd.as_fd(), false).unwrap_or_else(|error| {
                // Someone else reaped our child: its status is lost, not its end.
                tracing::error!(pid = self.pid, %error, "exit status lost");
                Some(ExitStatus::Code(255))
            });
        }
        *status
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
        if self.try_wait().is_some() {
            return;
        }
        let _ = self.kill(libc::SIGKILL);
        // Dying takes the kernel a moment; nobody should wait for it here, and no zombie should stay.
        if let Ok(pidfd) = self.pidfd.try_clone() {
            let _ = std::thread::Builder::new()
                .name("reap".into())
                .spawn(move || sys::wait_pidfd(pidfd.as_fd(), true));
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
