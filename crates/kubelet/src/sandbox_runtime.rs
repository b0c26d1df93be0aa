//! The runtime that makes real sandboxes.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use sandbox::cgroup::{Hierarchy, Resources};
use sandbox::container::{Capabilities, Container, MountSource, RootFs};
use sandbox::pod::{PodNetwork, PodSandbox};
use sandbox::process::{Stdio, Terminal, TerminalSize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};
use tokio::net::TcpStream;

use crate::cri::{
    self, ContainerSpec, ExecSpec, ExitStatus, Process, Runtime, RuntimeError, SandboxSpec, Streams,
};

/// Makes sandboxes on this node's bridge.
#[derive(Debug, Clone)]
pub struct SandboxRuntime {
    /// Bridge of the pods, `cni0`.
    pub bridge: String,
    /// The node's address on it.
    pub gateway: Ipv4Addr,
    /// Prefix length of the pod CIDR.
    pub prefix: u8,
    /// What limits containers, once one is to be limited.
    pub cgroups: Arc<Cgroups>,
}

/// The control groups of this node; made when the first container with limits starts.
#[derive(Debug)]
pub struct Cgroups {
    data: PathBuf,
    hierarchy: std::sync::OnceLock<Option<Hierarchy>>,
}

impl Cgroups {
    /// Those of the node whose data is in this directory.
    pub fn of(data: &std::path::Path) -> Self {
        Self {
            data: data.to_owned(),
            hierarchy: std::sync::OnceLock::new(),
        }
    }

    /// A group with these limits; none where nothing is limited, or the machine does not let us, which is said.
    fn group(&self, container: &str, wanted: cri::Resources) -> Vec<PathBuf> {
        let wanted = Resources {
            memory_bytes: wanted.memory_bytes,
            cpu_milli: wanted.cpu_milli,
            cpu_request_milli: wanted.cpu_request_milli,
        };
        if !wanted.is_limited() {
            return Vec::new();
        }
        let made = self.hierarchy.get_or_init(|| match Hierarchy::create(&self.data) {
            Ok(made) => Some(made),
            Err(why) => {
                tracing::warn!(
                    why,
                    "limits of memory and CPU are not enforced on this node: containers may use more than their limits"
                );
                None
            }
        });
        let Some(hierarchy) = made else {
            return Vec::new();
        };
        hierarchy.group(&wanted).unwrap_or_else(|why| {
            tracing::warn!(container, why, "the limits of a container are not enforced");
            Vec::new()
        })
    }

    fn known(&self) -> Option<&Hierarchy> {
        self.hierarchy.get()?.as_ref()
    }
}

/// The group of a running container; removed when nobody holds the container any more.
struct Limited {
    cgroups: Arc<Cgroups>,
    group: Vec<PathBuf>,
}

impl Limited {
    /// Whether a container that ended so was killed for using more memory than it may.
    fn out_of_memory(&self, code: i32) -> bool {
        const KILLED: i32 = 128 + libc::SIGKILL;
        let known = self
            .cgroups
            .known()
            .filter(|_| code == KILLED && !self.group.is_empty());
        known.is_some_and(|hierarchy| hierarchy.ran_out_of_memory(&self.group))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(hierarchy) = self.cgroups.known() {
            hierarchy.release(std::mem::take(&mut self.group));
        }
    }
}

fn failed(problem: impl std::fmt::Display) -> RuntimeError {
    RuntimeError(problem.to_string())
}

#[async_trait]
impl Runtime for SandboxRuntime {
    async fn create_sandbox(
        &self,
        spec: SandboxSpec,
    ) -> Result<Arc<dyn cri::Sandbox>, RuntimeError> {
        let network = PodNetwork {
            name: spec.name,
            ip: spec.ip,
            prefix: self.prefix,
            gateway: self.gateway,
            bridge: self.bridge.clone(),
            hostname: spec.hostname,
            host: spec.host_network,
            sysctls: spec.sysctls,
        };
        let sandbox = PodSandbox::create(network).await.map_err(failed)?;
        Ok(Arc::new(Sandbox {
            inner: tokio::sync::RwLock::new(Some(sandbox)),
            cgroups: self.cgroups.clone(),
        }))
    }
}

struct Sandbox {
    inner: tokio::sync::RwLock<Option<PodSandbox>>,
    cgroups: Arc<Cgroups>,
}

#[async_trait]
impl cri::Sandbox for Sandbox {
    async fn start(
        &self,
        spec: ContainerSpec,
    ) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
        let guard = self.inner.read().await;
        let pod = guard
            .as_ref()
            .ok_or_else(|| failed("the pod's sandbox is gone"))?;
        let limited = Limited {
            group: self.cgroups.group(&spec.name, spec.resources),
            cgroups: self.cgroups.clone(),
        };
        let mut spec = container_spec(spec);
        spec.cgroups.clone_from(&limited.group);
        let (container, stdio) = Container::start(pod, &spec).await.map_err(failed)?;
        let (streams, terminal) = streams(stdio)?;
        Ok((
            Arc::new(Running {
                container: Arc::new(container),
                terminal,
                limited,
            }),
            streams,
        ))
    }

    async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        let guard = self.inner.read().await;
        let pod = guard
            .as_ref()
            .ok_or_else(|| std::io::Error::other("the pod's sandbox is gone"))?;
        pod.connect_inside((Ipv4Addr::LOCALHOST, port).into()).await
    }

    async fn destroy(&self) -> Result<(), RuntimeError> {
        match self.inner.write().await.take() {
            Some(sandbox) => sandbox.destroy().await.map_err(failed),
            None => Ok(()),
        }
    }
}

/// The user Istio's proxies run as; traffic capture exempts it.
const PROXY_UID: u32 = 1337;

fn container_spec(spec: ContainerSpec) -> sandbox::container::ContainerSpec {
    let (mut add, drop) = spec.capabilities;
    if spec.privileged {
        add = vec!["ALL".to_owned()];
    }
    let (uid, gid, groups) = spec.user;
    // Where this user does not exist (an ordinary user's namespace has one user only), capture tells
    // the proxy's packets by their mark, and setting that needs this capability.
    if uid == PROXY_UID && !sandbox::world::uid_is_mapped(uid) {
        add.push("NET_ADMIN".to_owned());
    }
    let mounts = spec
        .mounts
        .into_iter()
        .map(|mount| sandbox::container::Mount {
            destination: PathBuf::from(mount.target),
            source: MountSource::Host(mount.source),
            read_only: mount.read_only,
        })
        .collect();
    sandbox::container::ContainerSpec {
        name: spec.name,
        argv: spec.argv,
        env: spec.env,
        cwd: PathBuf::from(spec.working_dir),
        rootfs: RootFs {
            applets: spec.applets,
            host_programs: spec.host_programs,
            hosts: spec.hosts,
            resolv_conf: spec.resolv_conf,
            read_only: spec.read_only_root,
            mounts,
        },
        user: sandbox::container::User { uid, gid, groups },
        capabilities: Capabilities::default().adjusted(&add, &drop),
        tty: spec.tty.then(TerminalSize::default),
        stdin: spec.stdin,
        ..Default::default()
    }
}

/// A container.
struct Running {
    container: Arc<Container>,
    terminal: Option<Mutex<Terminal>>,
    limited: Limited,
}

/// A program executed in a container; keeps the container's handle alive.
struct Executed {
    process: sandbox::process::Process,
    container: Arc<Container>,
    terminal: Option<Mutex<Terminal>>,
}

fn exit_status(status: sandbox::process::ExitStatus) -> ExitStatus {
    ExitStatus {
        code: status.exit_code(),
        signal: status.signal(),
        oom: false,
    }
}

fn resize(terminal: Option<&Mutex<Terminal>>, rows: u16, columns: u16) {
    if let Some(terminal) = terminal
        && let Err(problem) = terminal.lock().resize(TerminalSize { rows, columns })
    {
        tracing::debug!(%problem, "terminal size");
    }
}

async fn exec(
    container: &Arc<Container>,
    spec: ExecSpec,
) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
    let spec = sandbox::container::ExecSpec {
        argv: spec.argv,
        tty: spec.tty.then(TerminalSize::default),
        stdin: spec.stdin,
        ..Default::default()
    };
    let (process, stdio) = container.exec(&spec).await.map_err(failed)?;
    let (streams, terminal) = streams(stdio)?;
    Ok((
        Arc::new(Executed {
            process,
            container: container.clone(),
            terminal,
        }),
        streams,
    ))
}

#[async_trait]
impl Process for Running {
    fn pid(&self) -> i32 {
        self.container.pid()
    }
    async fn wait(&self) -> ExitStatus {
        let mut status = exit_status(self.container.wait().await);
        status.oom = self.limited.out_of_memory(status.code);
        status
    }
    fn kill(&self, signal: i32) {
        let _ = self.container.kill(signal);
    }
    fn resize(&self, rows: u16, columns: u16) {
        resize(self.terminal.as_ref(), rows, columns);
    }
    async fn exec(&self, spec: ExecSpec) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
        exec(&self.container, spec).await
    }
}

#[async_trait]
impl Process for Executed {
    fn pid(&self) -> i32 {
        self.process.pid()
    }
    async fn wait(&self) -> ExitStatus {
        exit_status(self.process.wait().await)
    }
    fn kill(&self, signal: i32) {
        let _ = self.process.kill(signal);
    }
    fn resize(&self, rows: u16, columns: u16) {
        resize(self.terminal.as_ref(), rows, columns);
    }
    async fn exec(&self, spec: ExecSpec) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
        exec(&self.container, spec).await
    }
}

fn streams(stdio: Stdio) -> Result<(Streams, Option<Mutex<Terminal>>), RuntimeError> {
    let input = |fd: OwnedFd| {
        Fd::new(fd)
            .map(|fd| Box::new(fd) as cri::Input)
            .map_err(failed)
    };
    let output = |fd: OwnedFd| {
        Fd::new(fd)
            .map(|fd| Box::new(fd) as cri::Output)
            .map_err(failed)
    };
    if let Some(terminal) = stdio.terminal {
        let dup = || terminal.fd.try_clone().map_err(failed);
        let streams = Streams {
            stdin: Some(input(dup()?)?),
            stdout: Some(output(dup()?)?),
            stderr: None,
        };
        return Ok((streams, Some(Mutex::new(terminal))));
    }
    let streams = Streams {
        stdin: stdio.stdin.map(input).transpose()?,
        stdout: stdio.stdout.map(output).transpose()?,
        stderr: stdio.stderr.map(output).transpose()?,
    };
    Ok((streams, None))
}

/// A pipe end or terminal as an asynchronous stream.
struct Fd(AsyncFd<OwnedFd>);

impl Fd {
    fn new(fd: OwnedFd) -> std::io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and nothing replaces it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }
}

impl AsyncRead for Fd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|fd| nix::unistd::read(fd.get_ref(), unfilled).map_err(Into::into)) {
                Ok(result) => {
                    buffer.advance(result?);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Fd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(Into::into)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
