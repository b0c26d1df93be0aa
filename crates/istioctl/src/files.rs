//! Files the user names.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::Shell;

/// Reads a file, or standard input for `-`; errors as Go words them.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path, shell: &mut Shell<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        shell.stdin.read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::File::open(shell.path(path))
        .map_err(|error| anyhow!("open {}: {}", path.display(), reason(&error)))?
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("read {}: {}", path.display(), reason(&error)))?;
    Ok(bytes)
}

/// The system's text for an error, without Rust's number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
