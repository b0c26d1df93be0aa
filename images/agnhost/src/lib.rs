//! The image `agnhost`: the programs with which Kubernetes' own conformance suite looks at a cluster from
//! inside a pod. Commands, flags, output and endpoints are those the suite relies on; a command or flag that is not
//! known is refused.

mod conversion;
mod dns;
mod flags;
mod grpc_health;
mod guestbook;
mod in_cluster;
mod logs_generator;
mod mounttest;
mod netexec;
mod nettest;
mod server;
mod servers;
mod webhook;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// Paths under which the image has this program.
pub const PATHS: &[&str] = &["/agnhost", "/agnhost-2"];

/// Commands, for the message about an unknown one.
const COMMANDS: &str = "crd-conversion-webhook, dns-server-list, dns-suffix, entrypoint-tester, etc-hosts, \
grpc-health-checking, guestbook, inclusterclient, liveness, logs-generator, mounttest, netexec, nettest, pause, porter, \
serve-hostname, test-service-account-issuer-discovery, test-webserver, webhook";

/// Runs `agnhost ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        bail!("a command is required: one of {COMMANDS}");
    };
    match command.as_str() {
        "crd-conversion-webhook" => conversion::run(rest)?,
        "dns-server-list" => println!("{}", dns::servers(&dns::resolv_conf()?)?),
        "dns-suffix" => println!("{}", dns::suffixes(&dns::resolv_conf()?)?),
        "entrypoint-tester" => {
            // All of it, with the name it was called by: that is what is being tested.
            let all: Vec<String> = std::env::args().collect();
            println!("[{}]", all.join(" "));
        }
        "etc-hosts" => println!("{}", std::fs::read_to_string("/etc/hosts")?),
        "grpc-health-checking" => grpc_health::run(rest)?,
        "guestbook" => guestbook::run(rest)?,
        "inclusterclient" => in_cluster::poll(rest)?,
        "liveness" => servers::liveness(rest)?,
        "logs-generator" => logs_generator::run(rest)?,
        "mounttest" => return mounttest::run(rest),
        "netexec" => netexec::run(rest)?,
        "nettest" => nettest::run(rest)?,
        "pause" => return pause(rest),
        "porter" => servers::porter(rest)?,
        "serve-hostname" => servers::serve_hostname(rest)?,
        "test-service-account-issuer-discovery" => in_cluster::issuer_discovery(rest)?,
        "test-webserver" => servers::test_webserver(rest)?,
        "webhook" => webhook::run(rest)?,
        other => bail!("unknown command {other:?} for \"agnhost\": one of {COMMANDS}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Does nothing until it is told to end: 1 after an interrupt, 2 after a termination.
fn pause(args: &[String]) -> Result<ExitCode> {
    flags::Flags::parse(args, &[])?;
    println!("Paused");
    server::block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        Ok(tokio::select! {
            _ = interrupt.recv() => ExitCode::from(1),
            _ = terminate.recv() => ExitCode::from(2),
        })
    })
}

/// The image `pause`: waits, and ends well when it is told to.
pub fn pause_main() -> ExitCode {
    let waited = server::block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    });
    match waited {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pause: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The image `nonewprivs`: says which user it is effectively.
pub fn nonewprivs_main() -> ExitCode {
    println!("Effective uid: {}", nix::unistd::geteuid());
    ExitCode::SUCCESS
}
