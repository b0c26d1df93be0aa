//! Container processes: file system, identity, limits, standard streams.

use std::ffi::CString;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::helper::{self, HelperOptions, Reply};
use crate::pod::{PodSandbox, blocking};
use crate::process::{Process, Stdio, Terminal, TerminalSize};
use crate::{Error, Result, cgroup, identity, rootfs, sys};

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
    /// Control groups that it and all programs executed in it join ([`crate::cgroup`]).
    pub cgroups: Vec<PathBuf>,
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
    pub fn adjusted(mut self, add: &[String], drop: &[String]) -> Self {
        let all = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
        let same = |a: &str, b: &str| {
            identity::canonical(a).is_some_and(|a| Some(a) == identity::canonical(b))
        };
        if all(drop) {
            self.0.clear();
        }
        self.0.retain(|held| !drop.iter().any(|d| same(d, held)));
        if all(add) {
            self.0 = identity::NAMES.iter().map(|n| (*n).to_owned()).collect();
        }
        for name in add.iter().filter(|n| !n.eq_ignore_ascii_case("ALL")) {
            if !self.0.iter().any(|held| same(name, held)) {
                self.0.push(name.clone());
            }
        }
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
    /// What further programs in it inherit.
    spec: ProgramSpec,
}

impl Container {
    /// Starts a container in a pod. Returns when its program has been executed.
    /// The first process of the container is the program itself (PID 1 of a new PID namespace); when it ends, all others of the container end.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when the program cannot be executed; others name the step that failed.
    pub async fn start(pod: &PodSandbox, spec: &ContainerSpec) -> Result<(Container, Stdio)> {
        let program = ProgramSpec::of(pod, spec)?;
        let namespaces: Vec<OwnedFd> = pod
            .namespaces()
            .iter()
            .map(|n| n.try_clone_to_owned())
            .collect::<std::io::Result<_>>()
            .doing("duplicate namespace descriptors")?;
        let (hostname, container, program) =
            (pod.network().hostname.clone(), spec.clone(), program);
        blocking(move || {
            let namespaces: Vec<_> = namespaces.iter().map(AsFd::as_fd).collect();
            let spec = StartSpec {
                hostname,
                container,
                program,
            };
            let (process, stdio) = start("container", &spec, &spec.program, &namespaces)?;
            Ok((
                Container {
                    process,
                    spec: spec.program,
                },
                stdio,
            ))
        })
        .await
    }

    /// Runs a further program in the container (`kubectl exec`, exec probes): same namespaces, root, user and capabilities.
    ///
    /// # Errors
    /// As [`Container::start`]; also when the container has ended.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<(Process, Stdio)> {
        if self.process.try_wait().is_some() {
            return Err(Error::Invalid(format!(
                "container {} is not running",
                self.spec.name
            )));
        }
        let mut program = self.spec.clone();
        program.argv.clone_from(&spec.argv);
        for (name, value) in &spec.env {
            program.env.retain(|(n, _)| n != name);
            program.env.push((name.clone(), value.clone()));
        }
        if let Some(cwd) = &spec.cwd {
            program.cwd.clone_from(cwd);
        }
        program.tty = spec.tty;
        program.stdin = spec.stdin;
        program.check()?;
        let pidfd = self
            .process
            .pidfd()
            .try_clone_to_owned()
            .doing("duplicate a process descriptor")?;
        blocking(move || start("exec", &program, &program, &[pidfd.as_fd()])).await
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

/// A program in the surroundings of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ProgramSpec {
    name: String,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: PathBuf,
    user: User,
    capabilities: Capabilities,
    limits: Limits,
    tty: Option<TerminalSize>,
    stdin: bool,
    cgroups: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct StartSpec {
    hostname: String,
    container: ContainerSpec,
    program: ProgramSpec,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ProgramSpec {
    fn of(pod: &PodSandbox, spec: &ContainerSpec) -> Result<Self> {
        let mut env = spec.env.clone();
        let home = if spec.user.uid == 0 { "/root" } else { "/" };
        for (name, value) in [
            ("PATH", DEFAULT_PATH),
            ("HOSTNAME", &pod.network().hostname),
            ("HOME", home),
        ] {
            if !env.iter().any(|(n, _)| n == name) {
                env.push((name.into(), value.into()));
            }
        }
        let program = Self {
            name: spec.name.clone(),
            argv: spec.argv.clone(),
            env,
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            capabilities: spec.capabilities.clone(),
            limits: spec.limits.clone(),
            tty: spec.tty,
            stdin: spec.stdin,
            cgroups: spec.cgroups.clone(),
        };
        program.check()?;
        Ok(program)
    }

    fn check(&self) -> Result<()> {
        if self.argv.is_empty() {
            return Err(Error::Invalid(format!(
                "container {}: no command given",
                self.name
            )));
        }
        Ok(())
    }
}

/// Caller's side: makes the streams, runs the helper, adopts the new process.
fn start<T: Serialize>(
    role: &str,
    spec: &T,
    program: &ProgramSpec,
    fds: &[BorrowedFd<'_>],
) -> Result<(Process, Stdio)> {
    let mut stdio = Stdio::default();
    let mut theirs = Vec::new();
    if program.tty.is_none() {
        let pipe = || sys::pipe().doing("make a pipe");
        let ((out, out_theirs), (err, err_theirs)) = (pipe()?, pipe()?);
        theirs.extend([out_theirs, err_theirs]);
        (stdio.stdout, stdio.stderr) = (Some(out), Some(err));
        if program.stdin {
            let (input_theirs, input) = pipe()?;
            theirs.push(input_theirs);
            stdio.stdin = Some(input);
        }
    }
    let fds: Vec<_> = fds
        .iter()
        .copied()
        .chain(theirs.iter().map(AsFd::as_fd))
        .collect();
    let (pid, handed_over) = helper::run(role, spec, &fds, HelperOptions::default())?;
    let process = Process::adopt(pid).doing(format_args!(
        "watch process {pid} of container {}",
        program.name
    ))?;
    stdio.terminal = handed_over.into_iter().next().map(|fd| Terminal { fd });
    Ok((process, stdio))
}

/// Helper: makes the container's first process in the pod's namespaces.
pub(crate) fn helper(socket: &UnixStream) -> Reply {
    let (spec, mut fds) = helper::receive::<StartSpec>(socket)?;
    // Before the container exists, so that nothing of it is outside.
    cgroup::join(&spec.program.cgroups)?;
    let streams = fds.split_off(3);
    for (fd, kind) in fds
        .iter()
        .zip([libc::CLONE_NEWNET, libc::CLONE_NEWUTS, libc::CLONE_NEWIPC])
    {
        sys::setns(fd.as_fd(), kind).doing("join the pod's namespaces")?;
    }
    let executable = rootfs::own_executable();
    sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID)
        .doing("make the container's mount and PID namespaces")?;
    helper::fork_into(move |status| {
        let built = rootfs::enter(&spec.container, &spec.hostname, executable);
        match built.and_then(|()| become_program(&spec.program, streams, status)) {
            Err(e) => e,
            Ok(never) => match never {},
        }
    })
}

/// Helper: a further process in the namespaces of a container's first process.
pub(crate) fn exec_helper(socket: &UnixStream) -> Reply {
    let (spec, mut fds) = helper::receive::<ProgramSpec>(socket)?;
    // While the directories are in sight.
    cgroup::join(&spec.cgroups)?;
    let streams = fds.split_off(1);
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    sys::setns(fds[0].as_fd(), all)
        .doing(format_args!("join container {} (has it ended?)", spec.name))?;
    helper::fork_into(move |status| match become_program(&spec, streams, status) {
        Err(e) => e,
        Ok(never) => match never {},
    })
}

/// The last steps, in place: streams, directory, identity, program.
fn become_program(
    spec: &ProgramSpec,
    streams: Vec<OwnedFd>,
    status: &UnixStream,
) -> Result<std::convert::Infallible> {
    let user = identity::mapped(&spec.user).doing("read the user map")?;
    let mut streams = streams.into_iter();
    let (input, output, errors);
    if let Some(size) = spec.tty {
        let (main, peer) = sys::open_terminal(size.rows, size.columns).doing("open a terminal")?;
        helper::hand_over(status, main.as_fd())?;
        (output, errors) = (
            peer.try_clone().doing("duplicate a terminal")?,
            peer.try_clone().doing("duplicate a terminal")?,
        );
        input = peer;
    } else {
        let mut next = || {
            streams
                .next()
                .ok_or_else(|| Error::Invalid("a standard stream is missing".into()))
        };
        (output, errors) = (next()?, next()?);
        input = if spec.stdin {
            next()?
        } else {
            rootfs::dev_null().doing("open /dev/null")?
        };
    }
    for (number, fd) in [(0, &input), (1, &output), (2, &errors)] {
        // Programs open /dev/stdout anew, which the stream's owner decides on.
        if number > 0 || spec.stdin || spec.tty.is_some() {
            let _ = sys::chown_fd(fd.as_fd(), user.uid, user.gid);
        }
        sys::dup_to(fd.as_fd(), number).doing("place a standard stream")?;
    }
    sys::close_others_on_exec().doing("close descriptors")?;
    sys::new_session(spec.tty.is_some()).doing("start a session")?;
    // SAFETY: no memory involved.
    unsafe { libc::umask(0o022) };
    identity::assume(&user, &spec.capabilities, &spec.limits)?;
    let cwd = if spec.cwd.as_os_str().is_empty() {
        Path::new("/")
    } else {
        &spec.cwd
    };
    std::env::set_current_dir(cwd).doing(format_args!(
        "enter the working directory {}",
        cwd.display()
    ))?;
    sys::default_signals();
    let program = find(&spec.argv[0], &spec.env)?;
    let failure = sys::execve(&program, &spec.argv, &spec.env);
    Err(exec_error(
        &spec.argv[0],
        &failure.to_string(),
        failure.raw_os_error().unwrap_or(libc::EIO),
    ))
}

fn exec_error(program: &str, reason: &str, errno: i32) -> Error {
    Error::Exec {
        program: program.to_owned(),
        reason: reason.to_owned(),
        errno,
    }
}

/// Looks a program up as execvp does, with the words container runtimes use when it is not there.
fn find(name: &str, env: &[(String, String)]) -> Result<PathBuf> {
    // The result of stat and access, or errno.
    let executable = |path: &Path| -> Result<(), i32> {
        let meta = std::fs::metadata(path).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
        let c = CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)?;
        // SAFETY: a valid C string.
        if meta.is_dir() || unsafe { libc::access(c.as_ptr(), libc::X_OK) } != 0 {
            return Err(libc::EACCES);
        }
        Ok(())
    };
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(libc::EACCES) => Err(exec_error(name, "permission denied", libc::EACCES)),
            Err(errno) => Err(exec_error(
                name,
                &format!("stat {name}: no such file or directory"),
                errno,
            )),
        };
    }
    let path = env
        .iter()
        .find(|(n, _)| n == "PATH")
        .map_or(DEFAULT_PATH, |(_, v)| v);
    let mut denied = false;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(errno) => denied |= errno == libc::EACCES,
        }
    }
    if denied {
        return Err(exec_error(name, "permission denied", libc::EACCES));
    }
    Err(exec_error(
        name,
        "executable file not found in $PATH",
        libc::ENOENT,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn dropping_all_and_adding_some_leaves_those() {
        let c = Capabilities::default()
            .adjusted(&names(&["NET_ADMIN", "CAP_NET_RAW"]), &names(&["ALL"]));
        assert_eq!(c.0, ["NET_ADMIN", "CAP_NET_RAW"]);
    }

    #[test]
    fn a_single_capability_is_dropped_or_added_once() {
        let c = Capabilities::default().adjusted(&names(&["cap_kill"]), &names(&["net_raw"]));
        assert!(!c.0.contains(&"NET_RAW".to_owned()));
        assert_eq!(
            c.0.iter()
                .filter(|n| n.eq_ignore_ascii_case("kill") || n.eq_ignore_ascii_case("cap_kill"))
                .count(),
            1
        );
        assert_eq!(
            Capabilities::default()
                .adjusted(&names(&["all"]), &[])
                .0
                .len(),
            identity::NAMES.len()
        );
    }

    #[test]
    fn programs_are_found_or_named_as_missing() {
        let env = vec![("PATH".to_owned(), "/nowhere:/bin".to_owned())];
        assert_eq!(find("sh", &env).unwrap(), Path::new("/bin/sh"));
        let e = find("no-such-program", &env).unwrap_err();
        assert_eq!(
            e.to_string(),
            "exec: \"no-such-program\": executable file not found in $PATH"
        );
        let e = find("/no/such", &env).unwrap_err();
        assert_eq!(
            e.to_string(),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(find("/etc", &env).unwrap_err().errno(), Some(libc::EACCES));
    }
}
