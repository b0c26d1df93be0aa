//! The images `httpd` and `nginx`: servers for files under the names and with the pages of Apache and nginx; and `ab`, Apache's
//! benchmark.

mod ab;
mod server;
mod site;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `httpd ARGS…` or `httpd-foreground`; `args` are without the program's name.
pub fn httpd_main(args: Vec<OsString>) -> ExitCode {
    server::main(&site::APACHE, &text(args))
}

/// Runs `nginx ARGS…`; `args` are without the program's name.
pub fn nginx_main(args: Vec<OsString>) -> ExitCode {
    server::main(&site::NGINX, &text(args))
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
