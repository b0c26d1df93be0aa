//! What surrounds a command: streams, directory, environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};

/// The surroundings of one run. Tests give their own; the program takes those of its process.
pub struct Shell<'a> {
    /// Relative file names start here.
    pub directory: PathBuf,
    /// `$KUBECONFIG`: files separated by colons.
    pub kubeconfig: Option<OsString>,
    /// The home directory; its `.kube/config` is used when no kubeconfig is named.
    pub home: Option<PathBuf>,
    /// Variables of the environment whose names begin with `ISTIOCTL_`.
    pub settings: BTreeMap<String, String>,
    /// Whether colours and other marks for people make sense on standard output.
    pub terminal: bool,
    /// What is read for the file name `-`.
    pub stdin: &'a mut dyn Read,
    /// Results.
    pub stdout: &'a mut dyn Write,
    /// Errors and warnings.
    pub stderr: &'a mut dyn Write,
}

impl<'a> Shell<'a> {
    /// The surroundings of this process, with its streams.
    pub fn of_process(
        stdin: &'a mut dyn Read,
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
    ) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            directory: std::env::current_dir().unwrap_or_default(),
            kubeconfig: variable("KUBECONFIG"),
            home: variable("HOME").map(PathBuf::from),
            settings: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .filter(|(name, value)| name.starts_with("ISTIOCTL_") && !value.is_empty())
                .collect(),
            terminal: std::io::stdout().is_terminal(),
            stdin,
            stdout,
            stderr,
        }
    }

    /// Where a file is that the user names.
    #[must_use]
    pub fn path(&self, name: &Path) -> PathBuf {
        self.directory.join(name)
    }
}
