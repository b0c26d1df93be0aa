//! Signals, traps, and children that end.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::state::{Flow, Run, Shell};

/// Signals that have come and whose trap has not run yet, as bits.
static PENDING: AtomicU64 = AtomicU64::new(0);

/// Signals that end a process and that scripts care about.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

extern "C" fn note(signal: i32) {
    PENDING.fetch_or(1 << signal, Ordering::Relaxed);
}

fn set(signal: i32, action: libc::sighandler_t) {
    // Safety: the handler only changes an atomic number. No SA_RESTART: waiting calls must
    // come back.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = action;
        libc::sigaction(signal, &new, std::ptr::null_mut());
    }
}

/// Notes a signal for its trap.
pub fn catch(signal: i32) {
    set(signal, note as *const () as libc::sighandler_t);
}

/// Lets a signal pass unnoticed.
pub fn ignore(signal: i32) {
    set(signal, libc::SIG_IGN);
}

/// What the process does by itself: the kernel gives the first process of a container no
/// defaults, so it needs handlers to end at all.
pub fn reset(signal: i32) {
    if std::process::id() == 1 && ENDING.contains(&signal) {
        catch(signal);
    } else {
        set(signal, libc::SIG_DFL);
    }
}

/// At the start of a shell.
pub fn install(interactive: bool) {
    for signal in ENDING {
        if std::process::id() == 1 {
            catch(signal);
        }
    }
    if interactive {
        // The prompt survives Ctrl-C; what runs does not.
        catch(libc::SIGINT);
    }
}

/// In a child, before anything else.
pub fn default_for_children() {
    PENDING.store(0, Ordering::Relaxed);
    for signal in ENDING {
        // Safety: only asks what is set.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut old);
            old.sa_sigaction == libc::SIG_IGN
        };
        if !ignored {
            set(signal, libc::SIG_DFL);
        }
    }
}

fn take_pending() -> Option<i32> {
    let pending = PENDING.load(Ordering::Relaxed);
    if pending == 0 {
        return None;
    }
    let signal = pending.trailing_zeros();
    PENDING.fetch_and(!(1 << signal), Ordering::Relaxed);
    i32::try_from(signal).ok()
}

/// Runs the traps of signals that have come; without a trap the shell ends.
pub fn run_traps(shell: &mut Shell) -> Run<()> {
    while let Some(signal) = take_pending() {
        let Some(action) = shell.traps.get(&signal).cloned() else {
            if signal == libc::SIGINT && shell.interactive {
                continue;
            }
            return Err(Flow::Exit(128 + signal));
        };
        let status = shell.status;
        shell.source_text(&action)?;
        shell.status = status;
    }
    Ok(())
}

fn untrapped(shell: &Shell) -> bool {
    let pending = PENDING.load(Ordering::Relaxed);
    (1..64).any(|signal| {
        pending & (1 << signal) != 0
            && !shell.traps.contains_key(&signal)
            && !(shell.interactive && signal == libc::SIGINT)
    })
}

/// The status of a child that has ended, as `$?` shows it.
fn ended(status: WaitStatus) -> Option<(i32, i32)> {
    match status {
        WaitStatus::Exited(pid, status) => Some((pid.as_raw(), status)),
        WaitStatus::Signaled(pid, signal, _) => Some((pid.as_raw(), 128 + signal as i32)),
        _ => None,
    }
}

/// Waits for a child. Other children that end meanwhile are remembered: the first process
/// of a container gets everybody's.
pub fn wait_for(shell: &mut Shell, pid: i32) -> Run {
    loop {
        if let Some(status) = shell.ended.remove(&pid) {
            return Ok(status);
        }
        match waitpid(None, None) {
            Ok(status) => {
                if let Some((pid, status)) = ended(status) {
                    remember(shell, pid, status);
                }
            }
            Err(Errno::EINTR) => {
                if untrapped(shell) {
                    run_traps(shell)?;
                }
            }
            Err(_) => return Ok(127),
        }
    }
}

/// `wait`: for one child or for all; a signal with a trap ends it.
pub fn wait_interruptibly(shell: &mut Shell, pid: Option<i32>) -> Run {
    loop {
        if let Some(pid) = pid
            && let Some(status) = shell.ended.remove(&pid)
        {
            return Ok(status);
        }
        if let Some(signal) =
            (1..64).find(|signal| PENDING.load(Ordering::Relaxed) & (1 << signal) != 0)
        {
            run_traps(shell)?;
            return Ok(128 + signal);
        }
        match waitpid(None, None) {
            Ok(status) => {
                if let Some((pid, status)) = ended(status) {
                    remember(shell, pid, status);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => {
                shell.ended.clear();
                return Ok(if pid.is_some() { 127 } else { 0 });
            }
        }
    }
}

/// Collects children that have ended without waiting.
pub fn collect(shell: &mut Shell) {
    while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
        let Some((pid, status)) = ended(status) else {
            return;
        };
        remember(shell, pid, status);
    }
}

fn remember(shell: &mut Shell, pid: i32, status: i32) {
    // Orphans of a container come here too, and nobody asks for them.
    if shell.ended.len() > 4096 {
        shell.ended.clear();
    }
    shell.ended.insert(pid, status);
}
