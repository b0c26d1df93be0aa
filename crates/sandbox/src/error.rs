//! What can go wrong, said so that a person can act on it.

use std::fmt;
use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The machine does not offer something that sandboxes need.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{what}; {remedy}")]
pub struct Unsupported {
    /// What is missing, e.g. "user namespaces are disabled (kernel.unprivileged_userns_clone=0)".
    pub what: String,
    /// What a person can do about it.
    pub remedy: String,
}

/// Errors of sandboxes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something; the remedy is in the text.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A system call or netlink request failed.
    #[error("{action}: {source}")]
    System {
        /// What was being done, with the object's name.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The container's program could not be executed: not found, not executable, wrong format.
    /// Kubernetes reports this as StartError with exit code 128.
    #[error("exec: \"{program}\": {reason}")]
    Exec {
        /// `argv[0]` as given.
        program: String,
        /// Reason in the words container runtimes use ("executable file not found in $PATH").
        reason: String,
        /// errno of the execve, or ENOENT.
        errno: i32,
    },
    /// The request contradicts itself or names something that does not exist.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn sys(action: impl fmt::Display, source: io::Error) -> Self {
        Error::System {
            action: action.to_string(),
            source,
        }
    }
    pub(crate) fn last_os(action: impl fmt::Display) -> Self {
        Self::sys(action, io::Error::last_os_error())
    }
    /// The errno behind the error, when there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } => source.raw_os_error(),
            Error::Exec { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Adds to an I/O error what was being done.
pub(crate) trait Context<T> {
    fn doing(self, action: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, action: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::sys(action, e))
    }
}
