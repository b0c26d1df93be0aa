//! The programs that are compared: how they are started, what they have used so far.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A proxy that takes Envoy's command line and configuration.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
    /// What stands before Envoy's options.
    pub first: Vec<&'static str>,
}

impl Program {
    /// Starts it with one worker on the processor for proxies.
    pub fn start(&self, config: &serde_json::Value, directory: &Path) -> Process {
        let file = directory.join(format!("{}.json", free_port()));
        fs::write(&file, config.to_string()).unwrap();
        pin(Side::Proxy);
        let child = Command::new(&self.path)
            .args(&self.first)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(file.with_extension("errors")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        pin(Side::Load);
        Process {
            child,
            errors: file.with_extension("errors"),
        }
    }
}

/// A running proxy, ended when dropped.
pub struct Process {
    child: Child,
    errors: PathBuf,
}

impl Process {
    /// Processor time used so far, in seconds.
    pub fn cpu(&self) -> f64 {
        cpu_of(&self.child.id().to_string())
    }

    /// Memory it uses, shared pages counted in parts, in MiB.
    pub fn memory(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<f64>()
            .unwrap()
            / 1024.0
    }

    /// Why it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().unwrap()?;
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        Some(format!("{status}: {text}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time a process has used, in seconds. `pid` may be `self`.
pub fn cpu_of(pid: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    // Linux counts in hundredths of a second for every program (USER_HZ).
    (ticks(11) + ticks(12)) / 100.0
}

/// A port of loopback that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}

/// An address of loopback.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Who runs on which processor.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    /// The proxy has one for itself.
    Proxy,
    /// Clients and upstreams share another.
    Load,
}

/// How many processors the machine has, whichever of them this thread may use.
pub fn processors() -> usize {
    // SAFETY: sysconf has no preconditions.
    let all = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(all).unwrap_or(1).max(1)
}

/// Puts this thread, and what it starts from now on, on a processor; does nothing where there is only one.
pub fn pin(side: Side) {
    if processors() < 2 {
        return;
    }
    // SAFETY: the set is a plain value of the size given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(matches!(side, Side::Proxy).into(), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Time of all processors that anybody has used since the machine started, in seconds.
pub fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> = text.lines().next().unwrap()[5..]
        .split_whitespace()
        .map(|field| field.parse().unwrap())
        .collect();
    let all: f64 = fields.iter().take(8).sum();
    (all - fields[3] - fields[4]) / 100.0
}
