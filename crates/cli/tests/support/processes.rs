//! The machine's processes, read from /proc.

use std::collections::BTreeMap;
use std::time::Duration;

use super::eventually;

/// A process; its start time tells it from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number on the host.
    pub pid: i32,
    /// Its parent's.
    parent: i32,
    /// Ticks since the machine started.
    started: u64,
    /// Words of its command line.
    pub command: Vec<String>,
}

/// All processes below `pid`, itself included.
pub fn tree(pid: i32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = all.get(&pid).cloned().into_iter().collect();
    let mut index = 0;
    while index < found.len() {
        let parent = found[index].pid;
        found.extend(all.values().filter(|p| p.parent == parent).cloned());
        index += 1;
    }
    found
}

/// Sends a signal to one process.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes no memory; `pid` is a single positive number.
    let result = unsafe { libc::kill(pid, signal) };
    assert!(pid > 1 && result == 0, "signal {signal} to {pid}");
}

/// Waits until none of the processes lives any more.
///
/// # Panics
/// When one still does after `limit`.
pub fn gone(processes: &[Process], limit: Duration) {
    eventually("no process of the theater remains", limit, || {
        let left: Vec<&Process> = processes.iter().filter(|process| lives(process)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    });
}

/// Whether exactly this process is still there.
pub fn lives(process: &Process) -> bool {
    read(process.pid).is_some_and(|now| now.started == process.started)
}

fn all() -> BTreeMap<i32, Process> {
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read(pid)?)))
        .collect()
}

/// `None` when it has ended, also when nobody has taken note of that yet.
fn read(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, even parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.first()? == "Z" {
        return None;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        command: String::from_utf8_lossy(&command)
            .split_terminator('\0')
            .map(ToOwned::to_owned)
            .collect(),
    })
}
