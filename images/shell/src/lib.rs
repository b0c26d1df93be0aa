//! shell-image

use std::ffi::OsString;
use std::process::ExitCode;

/// Names of the programs in this image.
pub const APPLETS: &[&str] = &[];

/// Runs one of [`APPLETS`].
pub fn main(name: &str, _args: Vec<OsString>) -> ExitCode {
    eprintln!("{name}: not found");
    ExitCode::from(127)
}
