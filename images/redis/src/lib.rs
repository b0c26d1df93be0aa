//! The `redis` image: a server that speaks the Redis protocol and keeps its data on disk,
//! and the command line client.

use std::ffi::OsString;
use std::process::ExitCode;

/// `redis-server`: `args` without the program name.
pub fn server_main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("redis-server: not available in this build");
    ExitCode::FAILURE
}

/// `redis-cli`: `args` without the program name.
pub fn cli_main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("redis-cli: not available in this build");
    ExitCode::FAILURE
}
