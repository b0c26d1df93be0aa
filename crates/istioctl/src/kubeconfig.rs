//! Which kubeconfig a command uses.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use kube_client::{Client, Config, Kubeconfig};

use crate::{Global, Shell};

/// A kubeconfig, of one file or of several.
pub struct Found {
    /// What it says.
    pub config: Kubeconfig,
    /// The directory of the first file: names of files in it are relative to that.
    pub directory: PathBuf,
}

impl Found {
    /// How a context is reached; `None`: the current one.
    ///
    /// # Errors
    /// The context does not exist or cannot be used.
    pub fn reach(&self, context: Option<&str>) -> Result<Config> {
        Ok(self.config.config(context, &self.directory)?)
    }

    /// The client of a context; `None`: the current one.
    ///
    /// # Errors
    /// The context does not exist or cannot be used.
    pub fn client(&self, context: Option<&str>) -> Result<Client> {
        Ok(Client::new(self.reach(context)?)?)
    }
}

/// The kubeconfig that the flag, else `$KUBECONFIG` (several files are merged), else the home directory has; `None` where there is none.
///
/// # Errors
/// A file that is there, or that the flag names, cannot be read.
pub fn find(global: &Global, shell: &Shell<'_>) -> Result<Option<Found>> {
    let paths = match (&global.kubeconfig, &shell.kubeconfig, &shell.home) {
        (Some(path), _, _) => vec![shell.path(path)],
        (None, Some(paths), _) => std::env::split_paths(paths)
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| shell.path(&path))
            .collect(),
        (None, None, Some(home)) => vec![home.join(".kube/config")],
        (None, None, None) => Vec::new(),
    };
    let required = global.kubeconfig.is_some();
    let mut found: Option<Found> = None;
    for path in &paths {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => continue,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let config = Kubeconfig::parse(&text).with_context(|| path.display().to_string())?;
        match &mut found {
            Some(found) => found.config.merge(config),
            None => {
                found = Some(Found {
                    config,
                    directory: path.parent().unwrap_or(Path::new(".")).to_owned(),
                });
            }
        }
    }
    Ok(found)
}
