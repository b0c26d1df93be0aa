//! Real namespaces, links, containers. Runs as root or as an ordinary user; where namespaces are forbidden, says why and skips.
//!
//! This program is its own supervisor, cluster process, sandbox helper and the one tool inside the containers.

mod agent;
mod cases;
mod tool;

use std::ffi::OsString;
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
    for (name, _) in cases::CASES
        .iter()
        .filter(|(n, _)| filters.is_empty() || filters.iter().any(|f| n.contains(**f)))
    {
        let start = Instant::now();
        let status = Command::new("/proc/self/exe")
            .args(["case", name])
            .status()
            .expect("run a case");
        let ok = status.success();
        failed += u32::from(!ok);
        println!(
            "test {name} ... {} ({:.0?})",
            if ok { "ok" } else { "FAILED" },
            start.elapsed()
        );
    }
    println!("\ntest result: {} failed", failed);
    ExitCode::from(u8::from(failed > 0))
}
