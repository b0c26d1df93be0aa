//! One thread that reaps the children of this crate as soon as they end.
//!
//! Waiting must not be left to whoever holds the process: the kernel lets the first process of a PID namespace end only after
//! all others in it were reaped, and programs started by `exec` are children of ours.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::process::ExitStatus;
use crate::sys::{self, Epoll};

struct Child {
    pidfd: Arc<OwnedFd>,
    status: watch::Sender<Option<ExitStatus>>,
}

struct Reaper {
    epoll: Epoll,
    children: Mutex<HashMap<RawFd, Child>>,
}

/// Has a child reaped; the receiver gets its status.
pub(crate) fn watch(pidfd: Arc<OwnedFd>) -> io::Result<watch::Receiver<Option<ExitStatus>>> {
    static REAPER: OnceLock<Result<Arc<Reaper>, i32>> = OnceLock::new();
    let reaper =
        REAPER.get_or_init(|| start().map_err(|e| e.raw_os_error().unwrap_or(libc::EAGAIN)));
    let reaper = reaper
        .as_ref()
        .map_err(|errno| io::Error::from_raw_os_error(*errno))?;
    let (status, receiver) = watch::channel(None);
    let number = pidfd.as_raw_fd();
    // In the map first: the event may come at once.
    reaper.children().insert(
        number,
        Child {
            pidfd: pidfd.clone(),
            status,
        },
    );
    reaper
        .epoll
        .add(pidfd.as_fd())
        .inspect_err(|_| drop(reaper.children().remove(&number)))?;
    Ok(receiver)
}

fn start() -> io::Result<Arc<Reaper>> {
    let reaper = Arc::new(Reaper {
        epoll: Epoll::new()?,
        children: Mutex::default(),
    });
    let worker = reaper.clone();
    std::thread::Builder::new()
        .name("reaper".into())
        .stack_size(256 << 10)
        .spawn(move || worker.run())?;
    Ok(reaper)
}

impl Reaper {
    fn children(&self) -> std::sync::MutexGuard<'_, HashMap<RawFd, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            for number in self.epoll.wait() {
                let mut children = self.children();
                let Some(child) = children.get(&number) else {
                    continue;
                };
                let status = match sys::wait_pidfd(child.pidfd.as_fd()) {
                    Ok(None) => continue,
                    Ok(Some(status)) => status,
                    Err(error) => {
                        // Someone else reaped our child: its status is lost, not its end.
                        tracing::error!(%error, "exit status of a child lost");
                        ExitStatus::Code(255)
                    }
                };
                // The descriptor is still open here, so its number cannot mean another child.
                self.epoll.remove(child.pidfd.as_fd());
                if let Some(child) = children.remove(&number) {
                    child.status.send_replace(Some(status));
                }
            }
        }
    }
}
