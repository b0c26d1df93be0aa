//! The image `fortio/fortio`: Istio's load generator (`load`, `curl`) and its echo server (`server`). Flags it does not
//! know are refused, never ignored.

mod client;
mod echo;
mod flags;
mod histogram;
mod load;
mod number;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// The release whose reports these are like.
pub(crate) const VERSION: &str = "1.60.3";

const USAGE: &str = "\
Φορτίο usage:
\tfortio command [flags] target
where command is one of: load (load testing), server (starts the echo servers), curl (single URL debug),
version (prints the version), help.
where target is a url (http load tests).
";

/// Runs `fortio ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fortio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, args)) = args.split_first() else {
        eprint!("{USAGE}");
        bail!("Error: need at least 1 command parameter");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match command.as_str() {
        "load" => runtime.block_on(load::main(args)),
        "curl" => runtime.block_on(load::curl(args)),
        "server" => runtime.block_on(echo::main(args)),
        "version" => {
            println!("{VERSION}");
            Ok(ExitCode::SUCCESS)
        }
        "help" | "-h" | "--help" | "-help" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => {
            eprint!("{USAGE}");
            bail!("Error: unknown command {other}")
        }
    }
}
