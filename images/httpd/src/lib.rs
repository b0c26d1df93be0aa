//! The image `httpd`: Apache's server for files, and `ab`, its benchmark.

mod ab;
mod server;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `httpd ARGS…` or `httpd-foreground`; `args` are without the program's name.
pub fn httpd_main(args: Vec<OsString>) -> ExitCode {
    server::main(&text(args))
}

/// Runs `ab ARGS…`; `args` are without the program's name.
pub fn ab_main(args: Vec<OsString>) -> ExitCode {
    ab::main(&text(args))
}

fn text(args: Vec<OsString>) -> Vec<String> {
    args.into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}
