//! Linux sandboxes: the world of clusters, node networks, pods and container processes.
//!
//! Everything is done with system calls and netlink messages; no program of the machine is
//! run. Nothing in here knows an API object.
//!
//! The crate re-executes the running program for work that needs a single-threaded process
//! (mount and PID namespaces). Every program that uses it must therefore start with
//!
//! ```no_run
//! use theater_sandbox as sandbox;
//! let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
//! if args.get(1).is_some_and(|a| a == sandbox::INIT_COMMAND) {
//!     sandbox::init_main(&args[2..]);
//! }
//! ```
//!
//! before it starts any thread.
//!
//! A cluster process then runs, for example:
//!
//! ```no_run
//! # use theater_sandbox as sandbox;
//! use sandbox::container::{Container, ContainerSpec, ExecSpec, RootFs};
//! use sandbox::pod::{PodNetwork, PodSandbox};
//! # async fn example() -> sandbox::Result<()> {
//! let network = PodNetwork {
//!     name: "default/web".into(),
//!     ip: [10, 10, 0, 5].into(),
//!     prefix: 16,
//!     gateway: [10, 10, 0, 1].into(),
//!     bridge: "cni0".into(),
//!     hostname: "web".into(),
//!     host: false,
//!     sysctls: Vec::new(),
//! };
//! let pod = PodSandbox::create(network).await?;
//! let spec = ContainerSpec {
//!     name: "default/web/server".into(),
//!     argv: vec!["http-echo".into(), "-text=hello".into()],
//!     rootfs: RootFs { applets: vec!["http-echo".into(), "sh".into()], ..RootFs::default() },
//!     ..ContainerSpec::default()
//! };
//! let (container, stdio) = Container::start(&pod, &spec).await?;
//! let logs = stdio.stdout; // the read end of a pipe
//! let ls = ExecSpec { argv: vec!["sh".into(), "-c".into(), "ls /".into()], ..ExecSpec::default() };
//! let (process, _streams) = container.exec(&ls).await?;
//! println!("exec ended with {}", process.wait().await.exit_code());
//! container.kill(15)?;
//! println!("container ended with {}", container.wait().await.exit_code());
//! pod.destroy().await?;
//! # Ok(())
//! # }
//! ```
//!
//! From the outside in:
//!
//! - [`world`]: the supervisor leaves the host's network, starts clusters, links them.
//! - [`node`]: a cluster's node network (bridge, forwarding, masquerade, filters).
//! - [`service_nat`]: virtual addresses of services to endpoints.
//! - [`pod`]: the namespaces that a pod's containers share.
//! - [`redirect`]: capture of a pod's traffic by its sidecar.
//! - [`container`]: container processes and their file systems.
//! - [`cgroup`]: what containers may use of memory and processors.

#[cfg(not(target_os = "linux"))]
compile_error!("theater-sandbox needs Linux");

pub mod cgroup;
mod channel;
pub mod cidr;
pub mod container;
mod error;
mod helper;
mod identity;
mod links;
mod netlink;
mod nft;
pub mod node;
pub mod pod;
mod probe;
pub mod process;
mod reaper;
pub mod redirect;
mod rootfs;
pub mod service_nat;
mod sys;
pub mod world;

pub use cidr::Cidr;
pub use error::{Error, Result, Unsupported};
pub use helper::{INIT_COMMAND, init_main};
