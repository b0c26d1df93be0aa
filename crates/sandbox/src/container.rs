//! Container processes: file system, identity, limits, standard streams.

use std::ops::Deref;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::pod::PodSandbox;
use crate::process::{Process, Stdio, TerminalSize};

/// What to run and in which surroundings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name for messages, e.g. `namespace/pod/container`.
    pub name: String,
    /// Program and arguments. A program without `/` is looked up in `PATH` of `env`
    /// (`/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin` if `env` has none).
    pub argv: Vec<String>,
    /// The whole environment; nothing is added except `HOSTNAME`, `HOME` and `PATH` when absent.
    pub env: Vec<(String, String)>,
    /// Working directory, created when absent; empty means `/`.
    pub cwd: PathBuf,
    /// The file system.
    pub rootfs: RootFs,
    /// Who the process is.
    pub user: User,
    /// Capability names without `CAP_` (`NET_ADMIN`), any case. These and no others are held, also by a user other
    /// than 0 (as ambient capabilities). [`Capabilities::default`] is what container runtimes give.
    pub capabilities: Capabilities,
    /// Terminal instead of three pipes.
    pub tty: Option<TerminalSize>,
    /// Whether the caller gets a writable stdin; otherwise stdin is empty.
    pub stdin: bool,
    /// Limits of the process.
    pub limits: Limits,
}

/// User and groups of a process. Where the machine gives us a single user (user namespace of an ordinary user), every
/// number falls back to 0: see [`crate::world::uid_is_mapped`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Further groups (fsGroup, supplementalGroups).
    pub groups: Vec<u32>,
}

/// A set of capability names without `CAP_`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub Vec<String>);

impl Default for Capabilities {
    /// The set container runtimes give by default.
    fn default() -> Self {
        let names = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        Self(names.iter().map(|s| (*s).to_owned()).collect())
    }
}

impl Capabilities {
    /// The set after Kubernetes' `securityContext.capabilities`: `drop` first (`ALL` drops everything), then `add` (`ALL` adds everything).
    #[must_use]
    pub fn adjusted(self, add: &[String], drop: &[String]) -> Self {
        let _ = (add, drop);
        self
    }
}

/// Limits of a container. `None` = none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files (soft and hard).
    pub open_files: Option<u64>,
    /// Core file size in bytes; containers get 0 unless set.
    pub core_bytes: Option<u64>,
    /// Size of the writable root file system in bytes (it lives in memory); 256 MiB unless set.
    pub root_bytes: Option<u64>,
}

/// How the container's root directory is put together: a fresh tmpfs with
/// `/bin/theater` (the running executable, whatever happens to its file), the shared libraries it needs, `/etc`, `/proc`, `/dev`, `/tmp`, `/run`
/// and the mounts below.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Commands of the multi-call binary: symlinks `/bin/<name>` -> `theater`. A name with `/` is a full path (`/usr/local/bin/pilot-agent`).
    pub applets: Vec<String>,
    /// Also show the machine's own `/usr`, `/lib`, `/lib64`, `/sbin` read-only (for a real redis-server). `/bin` stays ours.
    pub host_programs: bool,
    /// Content of `/etc/hosts`; a minimal one when empty.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Root directory not writable (`readOnlyRootFilesystem`); mounts keep their own setting.
    pub read_only: bool,
    /// Volumes and files, mounted in this order.
    pub mounts: Vec<Mount>,
}

/// One thing mounted into a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container; created when absent.
    pub destination: PathBuf,
    /// What is seen there.
    pub source: MountSource,
    /// Not writable.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or a file of this mount namespace, with everything mounted below it.
    Host(PathBuf),
    /// An empty file system in memory.
    Tmpfs {
        /// Its limit.
        size_bytes: Option<u64>,
        /// Permissions of its root, e.g. 0o1777.
        mode: u32,
    },
    /// A file with this content, part of the root file system.
    File {
        /// The bytes.
        content: Vec<u8>,
        /// Permissions.
        mode: u32,
    },
}

/// A running container. Dropping it kills it.
#[derive(Debug)]
pub struct Container {
    process: Process,
}

impl Container {
    /// Starts a container in a pod. Returns when its program has been executed.
    /// The first process of the container is the program itself (PID 1 of a new PID namespace); when it ends, all others of the container end.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when the program cannot be executed; others name the step that failed.
    pub async fn start(pod: &PodSandbox, spec: &ContainerSpec) -> Result<(Container, Stdio)> {
        let _ = (pod, spec);
        Err(crate::Error::Invalid("not ready".into()))
    }
    /// Runs a further program in the container (`kubectl exec`, exec probes): same namespaces, root, user and capabilities.
    ///
    /// # Errors
    /// As [`Container::start`]; also when the container has ended.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<(Process, Stdio)> {
        let _ = spec;
        Err(crate::Error::Invalid("not ready".into()))
    }
    /// The first process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Deref for Container {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

/// A further program in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments, found as in [`ContainerSpec::argv`].
    pub argv: Vec<String>,
    /// Variables added to (or replacing) those of the container's spec.
    pub env: Vec<(String, String)>,
    /// Working directory; the container's when `None`.
    pub cwd: Option<PathBuf>,
    /// Terminal instead of pipes.
    pub tty: Option<TerminalSize>,
    /// Whether stdin is wanted.
    pub stdin: bool,
}
