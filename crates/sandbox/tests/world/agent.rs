//! The cluster process: carries out what its supervisor asks for over standard input.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sandbox::Cidr;
use sandbox::container::{Container, ContainerSpec, RootFs};
use sandbox::node::NodeNetwork;
use sandbox::pod::{PodNetwork, PodSandbox};
use sandbox::process::Stdio;
use sandbox::world::WanSubnet;
use theater_sandbox as sandbox;

pub type Outcome = Result<String, Box<dyn std::error::Error>>;

/// Addresses of test cluster 1 or 2.
#[derive(Clone, Copy)]
pub struct Plan(pub u8);

impl Plan {
    pub fn name(self) -> String {
        format!("ctx{}", self.0)
    }
    pub fn node_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0 * 10, 0, 1)
    }
    pub fn pod_ip(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0 * 10, 0, 10 + n)
    }
    pub fn service_ip(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.0, 0, n)
    }
    /// Address in the WAN subnet.
    pub fn wan(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, (self.0 - 1) * 64 + n)
    }
    pub fn wan_subnet(self) -> WanSubnet {
        WanSubnet {
            subnet: Cidr::new(self.wan(0), 26),
            node: self.wan(1),
            supervisor: self.wan(62),
        }
    }
    pub fn node(self) -> NodeNetwork {
        NodeNetwork {
            bridge: "cni0".into(),
            node_ip: self.node_ip(),
            pod_cidr: Cidr::new(Ipv4Addr::new(10, self.0 * 10, 0, 0), 16),
            service_cidr: Cidr::new(self.service_ip(0), 16),
            wan_ip: self.wan(1),
            wan_subnet: self.wan_subnet().subnet,
            wan_ports: vec![6443],
        }
    }
    pub fn pod(self, n: u8) -> PodNetwork {
        PodNetwork {
            name: format!("test/pod-{n}"),
            ip: self.pod_ip(n),
            prefix: 16,
            gateway: self.node_ip(),
            bridge: "cni0".into(),
            hostname: format!("pod-{n}"),
            host: false,
            sysctls: Vec::new(),
        }
    }
}

pub fn spec(args: &[&str]) -> ContainerSpec {
    let mut argv = vec!["theater".to_owned(), "tool".to_owned()];
    argv.extend(args.iter().map(|s| (*s).to_owned()));
    ContainerSpec {
        name: "test/container".into(),
        argv,
        rootfs: RootFs::default(),
        ..ContainerSpec::default()
    }
}

/// Runs a tool in a pod to its end and returns what it printed.
pub async fn run(pod: &PodSandbox, args: &[&str]) -> Outcome {
    let mut spec = spec(args);
    if args.contains(&"mark") || args[0] == "redirect" {
        spec.capabilities = spec.capabilities.adjusted(&["NET_ADMIN".into()], &[]);
    }
    let (container, stdio) = Container::start(pod, &spec).await?;
    let text = output(stdio).await?;
    container.wait().await;
    Ok(text)
}

/// Starts a server and waits until it listens.
pub async fn serve(
    pod: &PodSandbox,
    args: &[&str],
) -> Result<Container, Box<dyn std::error::Error>> {
    let (container, mut stdio) = Container::start(pod, &spec(args)).await?;
    let out = stdio.stdout.take().ok_or("no stdout")?;
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(std::fs::File::from(out))
            .read_line(&mut line)
            .map(|_| line)
    });
    let line = line.await??;
    if line.trim().is_empty() {
        return Err("the server did not start".into());
    }
    Ok(container)
}

/// Standard output to its end; standard error when there is any.
pub async fn output(stdio: Stdio) -> Outcome {
    let read = |fd: Option<OwnedFd>| {
        tokio::task::spawn_blocking(move || match fd {
            Some(fd) => std::io::read_to_string(std::fs::File::from(fd)),
            None => Ok(String::new()),
        })
    };
    let (out, err) = (read(stdio.stdout), read(stdio.stderr));
    let (out, err) = (out.await??, err.await??);
    Ok(if err.is_empty() {
        out.trim_end().to_owned()
    } else {
        format!("{out}|{err}")
    })
}

/// From the cluster process itself.
pub async fn get(to: SocketAddrV4) -> String {
    let result = tokio::task::spawn_blocking(move || crate::tool::get(to.into(), &[]))
        .await
        .expect("no panic");
    result.unwrap_or_else(|e| format!("error: {e}"))
}

pub fn expect(what: &str, seen: &str, expected: &str) -> Result<(), Box<dyn std::error::Error>> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("{what}: seen {seen:?}, expected {expected:?}").into())
    }
}

/// Polls until the condition holds or a minute has passed.
pub fn until(
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        if Instant::now() > end {
            return Err(format!("not in a minute: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub fn main() -> ExitCode {
    let plan = Plan(
        std::env::var("CLUSTER")
            .expect("CLUSTER")
            .parse()
            .expect("a number"),
    );
    // SAFETY: the supervisor's socket pair is standard input.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    sandbox::node::setup(&plan.node()).expect("node network");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let mut answers = socket.try_clone().expect("clone");
    for line in BufReader::new(socket).lines() {
        let line = line.expect("read");
        let answer = match runtime.block_on(crate::cases::in_cluster(plan, &line)) {
            Ok(text) => format!("ok {text}"),
            Err(e) => format!("failed {e}"),
        };
        writeln!(answers, "{}", answer.replace('\n', " ")).expect("answer");
    }
    ExitCode::SUCCESS
}
