//! `istioctl analyze`: what is wrong with a configuration, before or after it is applied.

use anyhow::{Result, bail};
use clap::Args;

use crate::{Global, Shell};

/// Flags of `analyze`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Files and directories; `-` is standard input
    pub files: Vec<std::path::PathBuf>,
}

/// Runs the command; the exit code.
///
/// # Errors
/// When files or cluster cannot be read.
pub fn run(_global: &Global, _arguments: &Arguments, _shell: &mut Shell<'_>) -> Result<u8> {
    bail!("analyze is not part of this build")
}
