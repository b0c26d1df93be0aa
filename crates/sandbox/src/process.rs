//! A child process held by a pidfd: wait, signal, exit status.

use std::os::fd::OwnedFd;

use crate::Result;

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
}

impl Process {
    /// PID as seen by this process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
    /// Waits for the end. Any number of tasks may wait; each gets the same answer. Cancel safe.
    /// Needs a tokio runtime with I/O enabled.
    pub async fn wait(&self) -> ExitStatus {
        ExitStatus::Code(70)
    }
    /// The exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        None
    }
    /// Sends a signal (e.g. `libc::SIGTERM` = 15). A process that has already ended is not an error.
    /// The first process of a container ignores signals it has no handler for, except SIGKILL
    /// and SIGSTOP, as in every PID namespace.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let _ = signal;
        Ok(())
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
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        let _ = size;
        Ok(())
    }
    /// A second descriptor of the same terminal, e.g. to resize while another task owns this one.
    pub fn try_clone(&self) -> Result<Terminal> {
        Err(crate::Error::Invalid("not ready".into()))
    }
}
