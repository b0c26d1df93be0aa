//! The `redis` image: a server that speaks the Redis protocol and keeps its data on disk,
//! and the command line client.
//!
//! What a command does is decided by [`store::Store::execute`], a function of the data, the
//! connection, the time and the arguments; [`server`] carries bytes between sockets, that
//! function and the append-only file.

pub mod aof;
pub mod cli;
pub mod commands;
pub mod config;
pub mod glob;
mod log;
pub mod number;
pub mod request;
pub mod resp;
pub mod server;
pub mod session;
pub mod store;
pub mod value;

use std::ffi::OsString;
use std::process::ExitCode;

/// `redis-server`: `args` without the program name.
pub fn server_main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    server::main(&args)
}

/// `redis-cli`: `args` without the program name.
pub fn cli_main(args: Vec<OsString>) -> ExitCode {
    use std::os::unix::ffi::OsStringExt;
    cli::main(args.into_iter().map(OsStringExt::into_vec).collect())
}
