//! Real namespaces, links, containers. Runs as root or as an ordinary user; where namespaces are forbidden, says why and skips.
//!
//! This program is its own supervisor, cluster process, sandbox helper and the one tool inside the containers.

mod agent;
mod cases;
mod containers;
mod load;
mod network;
mod tool;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use theater_sandbox as sandbox;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let second = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    match second {
        sandbox::INIT_COMMAND => sandbox::init_main(&args[2..]),
        "tool" => tool::main(&args[2..]),
        "cluster" => agent::main(),
        "case" => cases::run(args[2].to_str().expect("a case name")),
        "probe" => probe(),
        _ => harness(&args[1..]),
    }
}

/// As libtest: arguments without dashes are filters; each case runs in a process of its own.
fn harness(args: &[OsString]) -> ExitCode {
    let args: Vec<_> = args.iter().filter_map(|a| a.to_str()).collect();
    let filters: Vec<_> = args.iter().filter(|a| !a.starts_with('-')).collect();
    if args.contains(&"--list") {
        for (name, _) in cases::CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = sandbox::world::probe() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let selected = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(**f));
    // What root may do, an ordinary user should be able to do too: in a user namespace.
    let ordinary = ordinary_user();
    for user in [None, ordinary.as_ref()] {
        if user.is_some_and(|u| u.skip.is_some()) {
            continue;
        }
        for (name, _) in cases::CASES.iter().filter(|(n, _)| selected(n)) {
            let start = Instant::now();
            let mut command =
                user.map_or_else(|| Command::new("/proc/self/exe"), Ordinary::command);
            let status = command.args(["case", name]).status().expect("run a case");
            let ok = status.success();
            failed += u32::from(!ok);
            let who = if user.is_some() {
                " as an ordinary user"
            } else {
                ""
            };
            println!(
                "test {name}{who} ... {} ({:.0?})",
                if ok { "ok" } else { "FAILED" },
                start.elapsed()
            );
        }
    }
    if let Some(reason) = ordinary.and_then(|u| u.skip) {
        println!("as an ordinary user: skipped: {reason}");
    }
    println!("\ntest result: {} failed", failed);
    ExitCode::from(u8::from(failed > 0))
}

/// Another user who runs a copy of this program.
struct Ordinary {
    directory: tempfile::TempDir,
    skip: Option<String>,
}

impl Ordinary {
    fn command(&self) -> Command {
        const NOBODY: u32 = 65534;
        let mut command = Command::new(self.directory.path().join("program"));
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .env("TMPDIR", self.directory.path());
        command
    }
}

/// When run by root; otherwise every case runs as an ordinary user anyway.
fn ordinary_user() -> Option<Ordinary> {
    // SAFETY: no memory involved.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join("program");
    std::fs::copy("/proc/self/exe", &program).expect("copy the program");
    for (path, mode) in [(directory.path(), 0o1777), (&program, 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("set permissions");
    }
    let mut user = Ordinary {
        directory,
        skip: None,
    };
    let output = user.command().arg("probe").output().expect("probe");
    if !output.status.success() {
        user.skip = Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Some(user)
}

fn probe() -> ExitCode {
    match sandbox::world::probe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}
