//! The state directory: everything that outlives a run, and how a running theater is found.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Names the state directory; wins over the default below the user's home.
pub const STATE_VARIABLE: &str = "THEATER_HOME";

/// Paths below the state directory. Directories are 0700, files that hold keys 0600.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The directory given on the command line, else `$THEATER_HOME`, else
    /// `$XDG_STATE_HOME/theater`, else `~/.local/state/theater`.
    ///
    /// # Errors
    /// When no home directory is known or the directory cannot be made.
    pub fn open(given: Option<PathBuf>) -> Result<Self> {
        let root = match given {
            Some(root) => root,
            None => default_root().context(
                "no state directory: HOME is not set; name one with --state-dir or THEATER_HOME",
            )?,
        };
        make_private_dir(&root)
            .with_context(|| format!("cannot make the state directory {}", root.display()))?;
        // Relative paths would change meaning with the working directory of a child.
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot read the state directory {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory that is used when none is named, as it is after links are resolved.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        default_root().and_then(|root| root.canonicalize().ok())
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where one cluster keeps its objects, volumes and logs.
    #[must_use]
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The kubeconfig `theater env` points to.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Certificates a client on the host needs to trust the theater's HTTPS.
    #[must_use]
    pub fn ca_bundle(&self) -> PathBuf {
        self.root.join("ca-bundle.pem")
    }

    /// Programs `theater env` puts on the PATH.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The socket a running supervisor answers on.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// What the last run printed about itself, for `theater env` and `status`.
    #[must_use]
    pub fn run_file(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// Keys and certificates of the theater's own authorities.
    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.root.join("authorities.json")
    }

    /// Exists once the initial scene was applied completely.
    #[must_use]
    pub fn scene_marker(&self) -> PathBuf {
        self.root.join("scene-applied")
    }

    /// Takes the lock that one running theater holds on this directory.
    ///
    /// Returns `None` when another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_lock(&self) -> Result<Option<StateLock>> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: flock takes a descriptor that `file` keeps open; it touches no memory.
        let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
        Ok(locked.then_some(StateLock { _file: file }))
    }
}

/// Held for as long as a supervisor runs; the kernel releases it when the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

fn default_root() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    variable(STATE_VARIABLE)
        .map(PathBuf::from)
        .or_else(|| variable("XDG_STATE_HOME").map(|home| PathBuf::from(home).join("theater")))
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state/theater")))
}

/// Makes a directory (and its parents) that only its owner can enter.
///
/// # Errors
/// As [`fs::create_dir_all`].
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Replaces a file in one step with content only its owner can read: readers see the old or
/// the new content, never a part.
///
/// # Errors
/// When the file cannot be written beside `path` or renamed to it.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_lock_on_the_same_directory_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().join("state"))).unwrap();
        let first = state.try_lock().unwrap();
        assert!(first.is_some());
        assert!(state.try_lock().unwrap().is_none());
        drop(first);
        assert!(state.try_lock().unwrap().is_some());
    }

    #[test]
    fn private_files_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "seen {mode:o}, expected 600");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
