//! The small programs of every container: a shell and the tools that scripts expect.
//!
//! All of them are one program under several names. An option that is not known is refused,
//! never passed over.

mod applets;
mod options;
mod output;
mod printf;
mod process;
mod shell;
mod test_expression;

use std::ffi::OsString;
use std::process::ExitCode;

/// Names of the programs in this image.
pub const APPLETS: &[&str] = &applets::NAMES;

/// Runs one of [`APPLETS`]; `args` without its name.
pub fn main(name: &str, args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    process::plain_signals();
    let status = if name == "sh" {
        shell::main(&args)
    } else {
        process::end_on_signals_as_first();
        applets::run(name, &args)
    };
    ExitCode::from(u8::try_from(status & 255).unwrap_or(1))
}
