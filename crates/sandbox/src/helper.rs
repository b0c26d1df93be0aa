//! The re-executed, single-threaded side of this crate, and how it is started.
//!
//! Mount, PID and user namespaces need a process with one thread. A caller with threads starts its own
//! executable again with [`INIT_COMMAND`]; the specification and descriptors travel over the helper's
//! standard input. A helper that makes a container or a cluster forks a *sibling* (CLONE_PARENT): the new
//! process is the caller's own child, and the helper is gone when the caller gets its answer.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::process::Process;
use crate::sys::{self, Fork};
use crate::{Error, Result, Unsupported, channel};

/// First argument with which the program re-executes itself.
pub const INIT_COMMAND: &str = "sandbox-init";

/// The executable of this process, whatever happened to its file.
pub(crate) const SELF: &str = "/proc/self/exe";

/// Entry of the re-executed program: `theater sandbox-init <role>`. `args` are the arguments
/// after [`INIT_COMMAND`]. Must be called before any thread exists. Never returns: it becomes
/// a container, a cluster, or exits.
pub fn init_main(args: &[OsString]) -> ! {
    // SAFETY: descriptor 0 is ours from the start.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let result = match args.first().and_then(|r| r.to_str()) {
        Some("container") => crate::container::helper(&socket),
        Some("exec") => crate::container::exec_helper(&socket),
        Some("cluster") => crate::world::cluster_helper(&socket),
        Some("probe") => crate::probe::helper(),
        _ => Err(Error::Invalid(
            "this command is for the program's own use".into(),
        )),
    };
    let reply = match result {
        Ok(reply) => reply,
        Err(e) => (Answer::from(e), Vec::new()),
    };
    let fds: Vec<_> = reply.1.iter().map(AsFd::as_fd).collect();
    if let Err(e) = channel::send(&socket, &reply.0, &fds) {
        // Started by hand, or the caller is gone.
        eprintln!("{INIT_COMMAND} is for the program's own use: {e}");
        std::process::exit(64);
    }
    std::process::exit(0)
}

/// What a helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done; the new process, 0 if there is none.
    Started {
        pid: i32,
    },
    /// Done; this process was needed for it, has ended and is to be reaped.
    Ended {
        pid: i32,
    },
    /// The new process could not execute its program; it has ended and is to be reaped.
    Failed {
        pid: i32,
        cause: Box<Answer>,
    },
    Unsupported(Unsupported),
    System {
        action: String,
        errno: i32,
        text: String,
    },
    Exec {
        program: String,
        reason: String,
        errno: i32,
    },
    Invalid(String),
}

/// Answer of a helper role with the descriptors it hands over.
pub(crate) type Reply = Result<(Answer, Vec<OwnedFd>)>;

impl From<Error> for Answer {
    fn from(e: Error) -> Self {
        match e {
            Error::Unsupported(u) => Answer::Unsupported(u),
            Error::System { action, source } => Answer::System {
                action,
                errno: source.raw_os_error().unwrap_or(0),
                text: source.to_string(),
            },
            Error::Exec {
                program,
                reason,
                errno,
            } => Answer::Exec {
                program,
                reason,
                errno,
            },
            Error::Invalid(s) => Answer::Invalid(s),
        }
    }
}

impl Answer {
    fn result(self) -> Result<i32> {
        Err(match self {
            Answer::Started { pid } => return Ok(pid),
            Answer::Ended { pid } => {
                // It has ended or is about to; the reaper sees to it.
                drop(Process::adopt(pid));
                return Ok(0);
            }
            Answer::Failed { pid, cause } => {
                drop(Process::adopt(pid));
                return cause.result();
            }
            Answer::Unsupported(u) => Error::Unsupported(u),
            Answer::System {
                action,
                errno: 0,
                text,
            } => Error::sys(action, io::Error::other(text)),
            Answer::System { action, errno, .. } => {
                Error::sys(action, io::Error::from_raw_os_error(errno))
            }
            Answer::Exec {
                program,
                reason,
                errno,
            } => Error::Exec {
                program,
                reason,
                errno,
            },
            Answer::Invalid(s) => Error::Invalid(s),
        })
    }
}

/// Settings of a helper's own process.
#[derive(Default)]
pub(crate) struct HelperOptions {
    /// Keep the environment, with these additions.
    pub(crate) env: Option<Vec<(OsString, OsString)>>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Runs a helper and returns what it answers: the PID of the process it started (0: none) and descriptors.
pub(crate) fn run<T: Serialize>(
    role: &str,
    spec: &T,
    fds: &[BorrowedFd<'_>],
    options: HelperOptions,
) -> Result<(i32, Vec<OwnedFd>)> {
    let (ours, theirs) = UnixStream::pair().doing("make a socket pair")?;
    let mut command = Command::new(SELF);
    command
        .arg0("theater")
        .args([OsStr::new(INIT_COMMAND), OsStr::new(role)])
        .stdin(OwnedFd::from(theirs));
    match options.env {
        Some(env) => command.envs(env),
        None => command.env_clear(),
    };
    if let Some(fd) = options.stdout {
        command.stdout(fd);
    }
    if let Some(fd) = options.stderr {
        command.stderr(fd);
    }
    let mut child = command
        .spawn()
        .doing("start the sandbox helper (this executable again)")?;
    // The command holds our copy of the helper's end; without it, a dead helper is an end of file.
    drop(command);
    let answer = channel::send(&ours, spec, fds).and_then(|()| channel::receive::<Answer>(&ours));
    drop(ours);
    let status = child.wait();
    let (answer, fds) = answer.map_err(|e| match status {
        Ok(s) if !s.success() => {
            Error::Invalid(format!("the sandbox helper for {role} ended early: {s}"))
        }
        _ => Error::sys(format!("talk to the sandbox helper for {role}"), e),
    })?;
    Ok((answer.result()?, fds))
}

/// Receives the specification in a helper.
pub(crate) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> Result<(T, Vec<OwnedFd>)> {
    channel::receive(socket).doing("receive the sandbox specification")
}

/// Forks the sibling that becomes the new process. `become_it` ends in an exec and returns only the reason why not; it may
/// [`hand_over`] a descriptor first. Returns once the program runs or has failed to.
pub(crate) fn fork_into(become_it: impl FnOnce(&UnixStream) -> Error) -> Reply {
    let (ours, theirs) = UnixStream::pair().doing("make a socket pair")?;
    // SAFETY: a helper has one thread.
    match unsafe { sys::fork_sibling() }.doing("fork")? {
        Fork::Child => {
            drop(ours);
            let error = Answer::from(become_it(&theirs));
            let _ = channel::send(&theirs, &error, &[]);
            std::process::exit(128)
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let mut handed_over = Vec::new();
            loop {
                match channel::receive::<Answer>(&ours) {
                    Ok((Answer::Started { .. }, fds)) => handed_over.extend(fds),
                    Ok((cause, _)) => {
                        return Ok((
                            Answer::Failed {
                                pid,
                                cause: Box::new(cause),
                            },
                            Vec::new(),
                        ));
                    }
                    // Closed by exec.
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                        return Ok((Answer::Started { pid }, handed_over));
                    }
                    Err(e) => return Err(Error::sys("wait for the program to start", e)),
                }
            }
        }
    }
}

/// From the new process, before its exec, to the caller.
pub(crate) fn hand_over(status: &UnixStream, fd: BorrowedFd<'_>) -> Result<()> {
    channel::send(status, &Answer::Started { pid: 0 }, &[fd]).doing("hand over a descriptor")
}
