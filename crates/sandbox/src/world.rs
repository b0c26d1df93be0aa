//! The supervisor's world: its own network as the internet, one child world per cluster, WAN links between.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Context;
use crate::helper::{self, HelperOptions, Reply, SELF};
use crate::links::{self, End, Links, Via};
use crate::nft::{ChainKind, Hook, Step, Table, Verdict};
use crate::node::WAN_INTERFACE;
use crate::pod::on_a_thread;
use crate::process::{ExitStatus, Process};
use crate::{Cidr, Error, Result, Unsupported, identity, probe, sys};

/// Tries, in a short-lived child, everything sandboxes need (namespaces, mounts, veth, bridge, nftables NAT) and names the first
/// thing that is missing. Changes nothing in this process.
///
/// # Errors
/// What is missing and what to do about it.
pub fn probe() -> Result<(), Unsupported> {
    match helper::run("probe", &(), &[], HelperOptions::default()) {
        Ok(_) => Ok(()),
        Err(Error::Unsupported(u)) => Err(u),
        Err(e) => Err(Unsupported {
            what: e.to_string(),
            remedy: "please report this".into(),
        }),
    }
}

/// Whether a user number exists in this user namespace. In the single-user namespace of an ordinary user only 0 does.
#[must_use]
pub fn uid_is_mapped(uid: u32) -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| identity::is_mapped(&map, uid))
}

/// Whether a group number exists in this user namespace.
#[must_use]
pub fn gid_is_mapped(gid: u32) -> bool {
    std::fs::read_to_string("/proc/self/gid_map").is_ok_and(|map| identity::is_mapped(&map, gid))
}

/// The supervisor's world after [`enter`].
#[derive(Debug)]
pub struct World {
    links: Mutex<BTreeMap<String, Link>>,
}

/// A cluster's WAN link.
#[derive(Debug)]
struct Link {
    net: OwnedFd,
    /// Share of packets lost, in ten-thousandths.
    loss: u32,
}

/// Leaves the host's network and mounts: as root with new network and mount namespaces, otherwise inside a new user namespace.
/// Must be called while the process has a single thread, after host-facing listeners were opened (they keep belonging to the host).
/// Loopback is up afterwards, forwarding is on.
///
/// # Errors
/// [`Error::Unsupported`] with the remedy when the machine forbids namespaces.
pub fn enter() -> Result<World> {
    probe::leave_host(libc::CLONE_NEWNET | libc::CLONE_NEWNS)?;
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
        .map_err(|e| probe::unsupported("private mounts", &e))?;
    links::loopback_up()?;
    for (path, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        links::sysctl(path, value).map_err(probe::because("network settings under /proc/sys"))?;
    }
    links::sysctl_if_present("net/ipv6/conf/default/disable_ipv6", "1")?;
    Ok(World {
        links: Mutex::default(),
    })
}

/// How to start a cluster process.
#[derive(Debug)]
pub struct ClusterCommand {
    /// Name of the cluster: host name of its process, name of its WAN link. Letters, digits, `-`; at most 11 characters.
    pub name: String,
    /// Arguments after the program name (this executable), e.g. `["cluster", "ctx1"]`.
    pub args: Vec<OsString>,
    /// Variables added to this process's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Standard input, `/dev/null` when `None`. A socket pair here is a private channel to the supervisor.
    pub stdin: Option<OwnedFd>,
    /// Standard output, inherited when `None`.
    pub stdout: Option<OwnedFd>,
    /// Standard error, inherited when `None`.
    pub stderr: Option<OwnedFd>,
}

/// A running cluster process: PID 1 of its own PID namespace, so that everything below it ends with it.
/// It ends with this process, however this process ends, and when this is dropped.
#[derive(Debug)]
pub struct ClusterProcess {
    name: String,
    process: Process,
    net: OwnedFd,
}

impl ClusterProcess {
    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// PID as seen by the supervisor.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
    /// Sends a signal; a process that has ended is not an error. As PID 1 it receives only signals it has handlers for, and SIGKILL.
    ///
    /// # Errors
    /// There is no such signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.process.kill(signal)
    }
    /// Waits for its end. Everything it started has ended then too.
    pub async fn wait(&self) -> ExitStatus {
        self.process.wait().await
    }
    /// The exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        self.process.try_wait()
    }
}

/// Addresses of a cluster on the WAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanSubnet {
    /// The whole subnet, e.g. 203.0.113.0/26; routed to the node, so that load-balancer addresses need no further set-up.
    pub subnet: Cidr,
    /// The node's address.
    pub node: Ipv4Addr,
    /// The supervisor's address, the node's default gateway.
    pub supervisor: Ipv4Addr,
}

/// State of a WAN link, applied in both directions (a round trip takes twice `latency`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkState {
    /// `false` cuts the link: every packet is lost.
    pub up: bool,
    /// One-way delay.
    pub latency: Duration,
    /// Variation of the delay, plus or minus.
    pub jitter: Duration,
    /// Share of packets lost, 0.0 to 1.0.
    pub loss: f64,
}

impl Default for LinkState {
    fn default() -> Self {
        Self {
            up: true,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
        }
    }
}

impl World {
    /// Starts a cluster process: this executable with `args`, PID 1 of a new PID namespace, with own network, mount, UTS and IPC
    /// namespaces and its own /proc. Returns when the program has been executed. Blocking, some milliseconds.
    ///
    /// # Errors
    /// The name is not usable, or a step failed (the error names it).
    pub fn spawn_cluster(&self, command: ClusterCommand) -> Result<ClusterProcess> {
        let name = &command.name;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 11 || !name.chars().all(allowed) {
            return Err(Error::Invalid(format!(
                "cluster name {name:?} must have 1 to 11 letters, digits or '-'"
            )));
        }
        let (answer, receiver) = mpsc::channel();
        let gone = || Error::Invalid("the thread that starts clusters is gone".into());
        starter()?.send((command, answer)).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?
    }

    /// Connects a cluster to the supervisor's network: interface `wan-<name>` here, `wan0` there, addresses and routes.
    /// A leftover of an earlier process of the same name is replaced.
    ///
    /// # Errors
    /// The addresses contradict each other, or a request to the kernel failed.
    pub fn connect_wan(&self, cluster: &ClusterProcess, wan: &WanSubnet) -> Result<()> {
        for ip in [wan.node, wan.supervisor] {
            if !wan.subnet.contains(ip) {
                return Err(Error::Invalid(format!(
                    "cluster {}: WAN address {ip} is outside its subnet {}",
                    cluster.name, wan.subnet
                )));
            }
        }
        let near = interface(&cluster.name);
        let mut here = Links::open()?;
        // The kernel clears a dead cluster's network away in its own time.
        here.delete(&near)?;
        let (near_mac, far_mac) = (crate::node::mac(wan.supervisor), crate::node::mac(wan.node));
        let far = End {
            name: WAN_INTERFACE,
            mac: Some(far_mac),
        };
        here.create_veth(
            &End {
                name: &near,
                mac: Some(near_mac),
            },
            None,
            &far,
            cluster.net.as_fd(),
        )?;
        let index = links::index(&near)?;
        here.add_address(index, Cidr::new(wan.supervisor, 32), false)?;
        here.add_route(
            Cidr::new(wan.node, 32),
            &Via::Link(index),
            Some(wan.supervisor),
        )?;
        here.add_route(
            wan.subnet,
            &Via::Gateway(wan.node, index),
            Some(wan.supervisor),
        )?;
        let net = cluster
            .net
            .try_clone()
            .doing("duplicate a namespace descriptor")?;
        self.links()
            .insert(cluster.name.clone(), Link { net, loss: 0 });
        on_a_thread(|| -> Result<()> {
            sys::setns(cluster.net.as_fd(), libc::CLONE_NEWNET).doing(format_args!(
                "enter the network of cluster {}",
                cluster.name
            ))?;
            let mut there = Links::open()?;
            let index = links::index(WAN_INTERFACE)?;
            there.up(index, true)?;
            there.add_address(index, Cidr::new(wan.node, 32), false)?;
            there.add_route(
                Cidr::new(wan.supervisor, 32),
                &Via::Link(index),
                Some(wan.node),
            )?;
            there.add_route(
                Cidr::new(Ipv4Addr::UNSPECIFIED, 0),
                &Via::Gateway(wan.supervisor, index),
                Some(wan.node),
            )
        })?
    }

    /// Changes the link of a cluster, in both directions. A link that is not `up` swallows every packet: what is sent over it times out.
    ///
    /// # Errors
    /// The cluster is not connected; [`Error::Unsupported`] for latency where the kernel has no netem (the link is left as it was).
    pub fn set_link(&self, name: &str, state: LinkState) -> Result<()> {
        if !(0.0..=1.0).contains(&state.loss) {
            return Err(Error::Invalid(format!(
                "link of {name}: loss {} must be between 0.0 and 1.0",
                state.loss
            )));
        }
        let mut links = self.links();
        let link = links
            .get_mut(name)
            .ok_or_else(|| Error::Invalid(format!("cluster {name} is not connected to the WAN")))?;
        let delay = |interface: &str| -> Result<()> {
            let index = links::index(interface)?;
            Links::open()?.set_delay(index, state.latency, state.jitter).map_err(|e| match e.errno() {
                Some(libc::ENOENT | libc::EOPNOTSUPP) => Error::Unsupported(Unsupported {
                    what: "this kernel cannot delay packets (no netem)".into(),
                    remedy: "load it with `sudo modprobe sch_netem`, or use a kernel built with CONFIG_NET_SCH_NETEM".into(),
                }),
                _ => e,
            })
        };
        delay(&interface(name))?;
        on_a_thread(|| -> Result<()> {
            sys::setns(link.net.as_fd(), libc::CLONE_NEWNET)
                .doing(format_args!("enter the network of cluster {name}"))?;
            delay(WAN_INTERFACE)
        })??;
        link.loss = if state.up {
            (state.loss * 10_000.0).round() as u32
        } else {
            10_000
        };
        loss_rules(&links).commit()
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the supervisor's end of a cluster's link.
fn interface(cluster: &str) -> String {
    format!("wan-{cluster}")
}

/// Each packet meets the rule once per link and direction.
fn loss_rules(links: &BTreeMap<String, Link>) -> Table {
    const RAW: i32 = -300;
    let mut t = Table::replace("theater-wan");
    t.base_chain("arriving", ChainKind::Filter, Hook::Prerouting, RAW);
    t.base_chain("leaving", ChainKind::Filter, Hook::Postrouting, RAW);
    for (name, link) in links.iter().filter(|(_, l)| l.loss > 0) {
        let lost = || [Step::Chance(link.loss), Step::Then(Verdict::Drop)];
        let [chance, drop] = lost();
        t.rule(
            "arriving",
            &[Step::InInterface(interface(name), true), chance, drop],
        );
        let [chance, drop] = lost();
        t.rule(
            "leaving",
            &[Step::OutInterface(interface(name), true), chance, drop],
        );
    }
    t
}

type Job = (ClusterCommand, mpsc::Sender<Result<ClusterProcess>>);

/// Clusters are started by a thread that never ends: the signal that makes them die with their parent is about the parent's
/// *thread*.
fn starter() -> Result<mpsc::Sender<Job>> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let locked =
        |s: &Mutex<mpsc::Sender<Job>>| s.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(s) = STARTER.get() {
        return Ok(locked(s));
    }
    let (sender, jobs) = mpsc::channel::<Job>();
    let work = move || {
        for (command, answer) in jobs {
            let _ = answer.send(start_cluster(command));
        }
        loop {
            std::thread::park();
        }
    };
    std::thread::Builder::new()
        .name("clusters".into())
        .spawn(work)
        .doing("start the thread that starts clusters")?;
    Ok(locked(STARTER.get_or_init(|| Mutex::new(sender))))
}

#[derive(Serialize, Deserialize)]
struct ClusterSpec {
    name: String,
    /// Bytes, as arguments need not be text.
    args: Vec<Vec<u8>>,
}

fn start_cluster(command: ClusterCommand) -> Result<ClusterProcess> {
    let ClusterCommand {
        name,
        args,
        env,
        stdin,
        stdout,
        stderr,
    } = command;
    let spec = ClusterSpec {
        name: name.clone(),
        args: args.into_iter().map(OsString::into_vec).collect(),
    };
    let stdin: Vec<_> = stdin.iter().map(AsFd::as_fd).collect();
    let (pid, mut fds) = helper::run(
        "cluster",
        &spec,
        &stdin,
        HelperOptions {
            env: Some(env),
            stdout,
            stderr,
        },
    )?;
    let process = Process::adopt(pid).doing(format_args!("watch cluster {name}"))?;
    let net = fds
        .pop()
        .ok_or_else(|| Error::Invalid(format!("cluster {name} did not hand over its network")))?;
    Ok(ClusterProcess { name, process, net })
}

/// Helper: makes a cluster's namespaces and its PID 1.
pub(crate) fn cluster_helper(socket: &UnixStream) -> Reply {
    sys::die_with_parent().doing("tie to the supervisor")?;
    let (spec, stdin) = helper::receive::<ClusterSpec>(socket)?;
    let flags = libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID;
    sys::unshare(flags).map_err(|e| probe::unsupported("namespaces for a cluster", &e))?;
    let net = std::fs::File::open("/proc/self/ns/net")
        .map(OwnedFd::from)
        .doing("open the cluster's network namespace")?;
    let (answer, _) =
        helper::fork_into(
            |_| match become_cluster(&spec, stdin.into_iter().next(), socket) {
                Err(e) => e,
                Ok(never) => match never {},
            },
        )?;
    Ok((answer, vec![net]))
}

fn become_cluster(
    spec: &ClusterSpec,
    stdin: Option<OwnedFd>,
    socket: &UnixStream,
) -> Result<std::convert::Infallible> {
    sys::die_with_parent().doing("tie to the supervisor")?;
    if sys::hung_up(socket.as_fd()) {
        // The supervisor died before the tie was made.
        std::process::exit(1);
    }
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").doing("make mounts private")?;
    let executable = executable().doing("find this executable")?;
    sys::mount(
        "proc",
        "/proc",
        "proc",
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        "",
    )
    .doing("mount /proc")?;
    sys::sethostname(&spec.name).doing("set the host name")?;
    links::loopback_up()?;
    let stdin = match stdin {
        Some(fd) => fd,
        None => crate::rootfs::dev_null().doing("open /dev/null")?,
    };
    sys::dup_to(stdin.as_fd(), 0).doing("place standard input")?;
    sys::close_others_on_exec().doing("close descriptors")?;
    sys::default_signals();
    let args = spec.args.iter().map(|a| std::ffi::OsStr::from_bytes(a));
    // exec keeps the environment of this process: the supervisor's, with additions.
    let error = std::process::Command::new(&executable)
        .arg0("theater")
        .args(args)
        .exec();
    Err(Error::sys(
        format!("execute {}", executable.display()),
        error,
    ))
}

/// This executable by its path in the cluster's own mount namespace, as long as the file is still the one that runs: containers
/// can then mount it even after it has been replaced.
fn executable() -> std::io::Result<PathBuf> {
    let path = std::fs::read_link(SELF)?;
    let running = std::fs::metadata(SELF)?;
    let same = std::fs::metadata(&path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (running.dev(), running.ino()));
    Ok(if same { path } else { SELF.into() })
}
