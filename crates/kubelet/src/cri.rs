//! What runs pods, as the node agent sees it. One implementation makes real sandboxes
//! ([`crate::sandbox_runtime`]), one plays them in memory for tests ([`crate::fake`]).

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// A stream a program writes to.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;
/// A stream a program reads from.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Why the runtime could not do something; a sentence for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RuntimeError(pub String);

/// The namespaces a pod needs.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// `namespace/name`, for messages.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Host name inside.
    pub hostname: String,
    /// It uses the node's network; `ip` is the node's address.
    pub host_network: bool,
    /// Kernel parameters of its namespaces.
    pub sysctls: Vec<(String, String)>,
}

/// One container to start.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// `namespace/pod/container`, for messages.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Built-in programs in `/bin`.
    pub applets: Vec<String>,
    /// Whether the host's programs are visible.
    pub host_programs: bool,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// User, group, further groups.
    pub user: (u32, u32, Vec<u32>),
    /// Capabilities to add and to drop, on top of a runtime's usual set.
    pub capabilities: (Vec<String>, Vec<String>),
    /// All capabilities (`privileged`).
    pub privileged: bool,
    /// Root directory not writable.
    pub read_only_root: bool,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Whether stdin can be attached to.
    pub stdin: bool,
    /// Files and directories, in order.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
}

/// What a container may use, by `resources` of its specification. `None` = nothing said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Limit of memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Limit of processor time in thousandths of a processor.
    pub cpu_milli: Option<u64>,
    /// Request of processor time in thousandths of a processor.
    pub cpu_request_milli: Option<u64>,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// File or directory as this process sees it.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
}

/// A further program in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Whether stdin is wanted.
    pub stdin: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// That signal.
    pub signal: Option<i32>,
    /// Killed for lack of memory.
    pub oom: bool,
}

/// The standard streams of a started program. With a terminal everything comes on `stdout`.
#[derive(Default)]
pub struct Streams {
    /// To write to.
    pub stdin: Option<Input>,
    /// To read from.
    pub stdout: Option<Output>,
    /// To read from.
    pub stderr: Option<Output>,
}

/// Makes pods' sandboxes.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes the namespaces and the network of a pod.
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError>;
}

/// One pod's sandbox.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// Starts a container; returns when its program has been executed.
    async fn start(&self, spec: ContainerSpec)
    -> Result<(Arc<dyn Process>, Streams), RuntimeError>;
    /// Connects to a port of the pod's loopback interface from inside.
    async fn connect(&self, port: u16) -> std::io::Result<TcpStream>;
    /// Ends the sandbox; containers should have ended before.
    async fn destroy(&self) -> Result<(), RuntimeError>;
}

/// A running program: a container's first process, or one executed in it.
#[async_trait]
pub trait Process: Send + Sync + 'static {
    /// Its number as this process sees it.
    fn pid(&self) -> i32;
    /// Until it ends; any number of callers.
    async fn wait(&self) -> ExitStatus;
    /// Sends a signal; an ended process is no error.
    fn kill(&self, signal: i32);
    /// Sets the size of its terminal, if it has one.
    fn resize(&self, rows: u16, columns: u16);
    /// Runs a further program beside it (containers only).
    async fn exec(&self, spec: ExecSpec) -> Result<(Arc<dyn Process>, Streams), RuntimeError>;
}

/// Runs a program in a container to its end and collects what it prints (at most 10 KiB, stdout and
/// stderr together).
///
/// # Errors
/// When it cannot be started or does not end within `timeout` (it is killed then).
pub async fn run_to_end(
    container: &dyn Process,
    argv: &[String],
    timeout: Duration,
) -> Result<(i32, String), RuntimeError> {
    let spec = ExecSpec {
        argv: argv.to_vec(),
        ..ExecSpec::default()
    };
    let (process, streams) = container.exec(spec).await?;
    drop(streams.stdin);
    let output = async |stream: Option<Output>| {
        let mut text = Vec::new();
        if let Some(stream) = stream {
            let _ = stream.take(10 * 1024).read_to_end(&mut text).await;
        }
        text
    };
    let run = async {
        let (mut out, err, status) = tokio::join!(
            output(streams.stdout),
            output(streams.stderr),
            process.wait()
        );
        out.extend_from_slice(&err);
        (status.code, String::from_utf8_lossy(&out).into_owned())
    };
    match tokio::time::timeout(timeout, run).await {
        Ok(result) => Ok(result),
        Err(_) => {
            process.kill(libc::SIGKILL);
            Err(RuntimeError(format!(
                "command timed out: {:?} timed out after {}s",
                argv.join(" "),
                timeout.as_secs().max(1)
            )))
        }
    }
}
