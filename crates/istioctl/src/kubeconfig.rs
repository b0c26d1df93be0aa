//! Which kubeconfig a command uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube_client::{Client, Config, Impersonate, Kubeconfig};

use crate::{Global, Shell};

/// A kubeconfig, of one file or of several.
pub struct Found {
    /// What it says.
    pub config: Kubeconfig,
    /// The directory of the first file: names of files in it are relative to that.
    pub directory: PathBuf,
    /// As whom clusters are asked.
    pub impersonate: Impersonate,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl Found {
    /// How a context is reached; `None`: the current one.
    ///
    /// # Errors
    /// The context does not exist or cannot be used.
    pub fn reach(&self, context: Option<&str>) -> Result<Config> {
        let mut config = self.config.config(context, &self.directory)?;
        config.impersonate.clone_from(&self.impersonate);
        config.timeout = self.timeout;
        Ok(config)
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
    let timeout = timeout(&global.kubeclient_timeout)?;
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
                    impersonate: Impersonate {
                        user: global.as_user.clone(),
                        groups: global.as_group.clone(),
                        uid: global.as_uid.clone(),
                    },
                    timeout,
                });
            }
        }
    }
    Ok(found)
}

/// The longest wait, as typed; nothing and 0 are without end.
fn timeout(text: &str) -> Result<Duration> {
    const WITHOUT_END: Duration = Duration::from_secs(u32::MAX as u64);
    if text.is_empty() {
        return Ok(WITHOUT_END);
    }
    let parsed: api::istio::Duration = text.parse().map_err(|_| {
        anyhow!("error parsing kubeclient-timeout: time: invalid duration {text:?}")
    })?;
    Ok(match u64::try_from(parsed.nanos()) {
        Ok(0) => WITHOUT_END,
        Ok(nanos) => Duration::from_nanos(nanos),
        // What is over before it has begun.
        Err(_) => Duration::ZERO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_a_duration_of_go() {
        assert_eq!(timeout("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(timeout("0").unwrap(), timeout("").unwrap());
        assert_eq!(
            timeout("foo").unwrap_err().to_string(),
            "error parsing kubeclient-timeout: time: invalid duration \"foo\""
        );
    }
}
