//! The cases. A name such as `pods` runs `in_cluster` in one cluster; those with WAN or signals have a supervisor's part.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use sandbox::container::{Container, ExecSpec, Mount, MountSource, RootFs, User};
use sandbox::pod::PodSandbox;
use sandbox::process::{ExitStatus, TerminalSize};
use sandbox::service_nat::{self, NatRule, Protocol};
use sandbox::world::{ClusterCommand, ClusterProcess, LinkState, World};
use theater_sandbox as sandbox;

use crate::agent::{Outcome, Plan, expect, get, output, run as run_in, serve, spec, until};

type Check = Result<(), Box<dyn std::error::Error>>;
type Case = fn() -> Check;

pub const CASES: &[(&str, Case)] = &[
    ("pods_reach_each_other_and_their_own_loopback", || {
        one_cluster("pods")
    }),
    (
        "services_lead_to_endpoints_for_pods_and_node_processes",
        || one_cluster("services"),
    ),
    ("sidecar_capture_follows_istio_rules", || {
        one_cluster("redirect")
    }),
    ("containers_have_their_own_file_system_and_identity", || {
        one_cluster("container")
    }),
    ("exec_joins_a_container_with_streams_or_a_terminal", || {
        one_cluster("exec")
    }),
    ("exit_codes_and_signals_are_reported", || {
        one_cluster("exit")
    }),
    ("host_programs_run_when_asked_for", || {
        one_cluster("host_programs")
    }),
    ("many_pods_at_once", || one_cluster("many")),
    ("timings", || one_cluster("timings")),
    ("a_replaced_executable_does_no_harm", replaced_executable),
    (
        "only_load_balancer_addresses_and_the_api_cross_the_wan",
        wan,
    ),
    (
        "a_killed_supervisor_leaves_nothing_behind",
        killed_supervisor,
    ),
    ("a_killed_cluster_can_be_started_again", killed_cluster),
];

pub fn run(name: &str) -> ExitCode {
    // Not a case but a part of one.
    let parts: [(&str, Case); 1] = [("supervisor_that_is_killed", hold)];
    let Some((_, case)) = CASES.iter().chain(&parts).find(|(n, _)| *n == name) else {
        panic!("no case {name}")
    };
    match case() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{name}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A cluster and the line to it.
struct Cluster {
    plan: Plan,
    process: ClusterProcess,
    socket: UnixStream,
}

impl Cluster {
    fn start(world: &World, n: u8) -> Result<Self, Box<dyn std::error::Error>> {
        let plan = Plan(n);
        let (socket, theirs) = UnixStream::pair()?;
        let process = world.spawn_cluster(ClusterCommand {
            name: plan.name(),
            args: vec!["cluster".into(), plan.name().into()],
            env: vec![("CLUSTER".into(), n.to_string().into())],
            stdin: Some(theirs.into()),
            stdout: None,
            stderr: None,
        })?;
        world.connect_wan(&process, &plan.wan_subnet())?;
        Ok(Self {
            plan,
            process,
            socket,
        })
    }

    fn ask(&self, line: &str) -> Outcome {
        writeln!(&self.socket, "{line}")?;
        let mut answer = String::new();
        BufReader::new(&self.socket).read_line(&mut answer)?;
        match answer.trim_end_matches('\n').split_once(' ') {
            Some(("ok", text)) => Ok(text.to_owned()),
            Some((_, text)) => Err(format!("{line}: {text}").into()),
            None => {
                until("the cluster process ends", || {
                    self.process.try_wait().is_some()
                })?;
                Err(format!(
                    "{line}: the cluster process ended: {:?}",
                    self.process.try_wait()
                )
                .into())
            }
        }
    }
}

fn one_cluster(scenario: &str) -> Check {
    let world = sandbox::world::enter()?;
    let cluster = Cluster::start(&world, 1)?;
    let text = cluster.ask(scenario)?;
    if !text.is_empty() {
        println!("{text}");
    }
    Ok(())
}

fn wan() -> Check {
    let world = sandbox::world::enter()?;
    let (one, two) = (Cluster::start(&world, 1)?, Cluster::start(&world, 2)?);
    for c in [&one, &two] {
        c.ask("load_balancer")?;
    }
    let from_here = |to: SocketAddrV4| {
        crate::tool::get(to.into(), &[]).unwrap_or_else(|e| format!("error: {e}"))
    };
    let refused = "error: Connection refused (os error 111)";
    for c in [&one, &two] {
        let p = c.plan;
        // From the supervisor, with its address intact.
        let lb = SocketAddrV4::new(p.wan(10), 80);
        expect(
            "load balancer from the supervisor",
            &from_here(lb),
            &format!("{}-lb from {} to none", p.name(), p.wan(62)),
        )?;
        // The node's API port is open, all else is not.
        expect(
            "API server",
            &from_here(SocketAddrV4::new(p.wan(1), 6443)),
            &format!("api from {} to none", p.wan(62)),
        )?;
        expect(
            "kubelet port of the node",
            &from_here(SocketAddrV4::new(p.wan(1), 10250)),
            refused,
        )?;
        expect(
            "node listener through a load-balancer address",
            &from_here(SocketAddrV4::new(p.wan(10), 6443)),
            refused,
        )?;
        expect(
            "unused load-balancer address",
            &from_here(SocketAddrV4::new(p.wan(11), 80)),
            refused,
        )?;
        // A load-balancer address from within its own cluster, pod and node.
        let seen = c.ask(&format!("pod_get {lb}"))?;
        expect(
            "own load balancer from a pod",
            &seen,
            &format!("{}-lb from {} to none", p.name(), p.pod_ip(2)),
        )?;
    }
    // From the other cluster: as its node.
    let lb = SocketAddrV4::new(two.plan.wan(10), 80);
    let seen = one.ask(&format!("pod_get {lb}"))?;
    expect(
        "other cluster's load balancer",
        &seen,
        &format!("ctx2-lb from {} to none", one.plan.wan(1)),
    )?;
    let seen = one.ask(&format!("node_get {lb}"))?;
    expect(
        "other cluster's load balancer from the node",
        &seen,
        &format!("ctx2-lb from {} to none", one.plan.wan(1)),
    )?;
    let api = SocketAddrV4::new(two.plan.wan(1), 6443);
    expect(
        "other cluster's API",
        &one.ask(&format!("pod_get {api}"))?,
        &format!("api from {} to none", one.plan.wan(1)),
    )?;
    // Pods and services of the other cluster are out of reach.
    for hidden in [
        SocketAddrV4::new(two.plan.pod_ip(1), 8080),
        SocketAddrV4::new(two.plan.node_ip(), 6443),
    ] {
        let seen = one.ask(&format!("pod_get {hidden}"))?;
        if !seen.starts_with("error: ") {
            return Err(format!("{hidden} of the other cluster answered {seen:?}").into());
        }
    }
    // A cut link swallows packets, a mended one works again.
    world.set_link(
        "ctx2",
        LinkState {
            up: false,
            ..LinkState::default()
        },
    )?;
    let seen = one.ask(&format!("pod_get {lb}"))?;
    if !seen.starts_with("error: ") || seen == refused {
        return Err(format!("over a cut link: seen {seen:?}, expected a timeout").into());
    }
    world.set_link("ctx2", LinkState::default())?;
    expect(
        "mended link",
        &one.ask(&format!("pod_get {lb}"))?,
        &format!("ctx2-lb from {} to none", one.plan.wan(1)),
    )?;
    // Delay needs netem; without it the error says so.
    match world.set_link(
        "ctx2",
        LinkState {
            latency: Duration::from_millis(30),
            ..LinkState::default()
        },
    ) {
        Ok(()) => {
            let start = Instant::now();
            one.ask(&format!("pod_get {lb}"))?;
            if start.elapsed() < Duration::from_millis(120) {
                return Err(
                    format!("two round trips over 2 x 30 ms took {:?}", start.elapsed()).into(),
                );
            }
        }
        Err(sandbox::Error::Unsupported(u)) => println!("no latency here: {u}"),
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

/// Names of this machine's interfaces and mounts.
fn traces() -> std::io::Result<(BTreeSet<String>, String)> {
    let interfaces = std::fs::read_dir("/sys/class/net")?
        .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()?;
    Ok((interfaces, std::fs::read_to_string("/proc/self/mounts")?))
}

/// Processes whose environment carries the marker.
fn marked(marker: &str) -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let carries = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|e| String::from_utf8_lossy(&e).contains(marker))
    };
    processes
        .flatten()
        .filter(|p| p.file_name().to_str().is_some_and(carries))
        .count()
}

fn hold() -> Check {
    let world = sandbox::world::enter()?;
    let clusters = [Cluster::start(&world, 1)?, Cluster::start(&world, 2)?];
    for c in &clusters {
        c.ask("hold")?;
    }
    println!("holding");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn killed_supervisor() -> Check {
    let before = traces()?;
    let marker = format!("sandbox-test-{}", std::process::id());
    let mut supervisor = Command::new("/proc/self/exe")
        .args(["case", "supervisor_that_is_killed"])
        .env("MARKER", &marker)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    expect("supervisor", line.trim(), "holding")?;
    let running = marked(&marker);
    // Supervisor, two clusters, each with two containers and an exec.
    if running < 9 {
        return Err(format!("{running} processes before the kill, expected 9").into());
    }
    let start = Instant::now();
    supervisor.kill()?;
    supervisor.wait()?;
    until("all processes end with their supervisor", || {
        marked(&marker) == 0
    })?;
    println!("all gone after {:.1?}", start.elapsed());
    let after = traces()?;
    if before != after {
        return Err(format!("left behind: {before:?} became {after:?}").into());
    }
    Ok(())
}

fn killed_cluster() -> Check {
    let world = sandbox::world::enter()?;
    let one = Cluster::start(&world, 1)?;
    one.ask("load_balancer")?;
    one.process.kill(libc::SIGKILL)?;
    until("the killed cluster is seen to end", || {
        one.process.try_wait().is_some()
    })?;
    if one.process.try_wait() != Some(ExitStatus::Signal(libc::SIGKILL)) {
        return Err(format!("seen {:?}, expected signal 9", one.process.try_wait()).into());
    }
    drop(one);
    let one = Cluster::start(&world, 1)?;
    one.ask("load_balancer")?;
    let seen = crate::tool::get(SocketAddrV4::new(one.plan.wan(10), 80).into(), &[])?;
    expect(
        "after the restart",
        &seen,
        &format!("ctx1-lb from {} to none", one.plan.wan(62)),
    )
}

fn replaced_executable() -> Check {
    if std::env::var_os("COPY").is_none() {
        let directory = tempfile::tempdir()?;
        let copy = directory.path().join("program");
        std::fs::copy("/proc/self/exe", &copy)?;
        let status = Command::new(&copy)
            .args(["case", "a_replaced_executable_does_no_harm"])
            .env("COPY", &copy)
            .status()?;
        return if status.success() {
            Ok(())
        } else {
            Err("the copy failed".into())
        };
    }
    let copy = std::env::var("COPY")?;
    let world = sandbox::world::enter()?;
    let before = Cluster::start(&world, 1)?;
    std::fs::remove_file(&copy)?;
    std::fs::write(&copy, "something else")?;
    let after = Cluster::start(&world, 2)?;
    for c in [before, after] {
        c.ask("pods")?;
    }
    Ok(())
}

/// What a cluster process does when asked.
pub async fn in_cluster(plan: Plan, line: &str) -> Outcome {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("pods", _) => pods(plan).await,
        ("services", _) => services(plan).await,
        ("redirect", _) => redirect(plan).await,
        ("container", _) => container(plan).await,
        ("exec", _) => exec(plan).await,
        ("exit", _) => exit(plan).await,
        ("host_programs", _) => host_programs(plan).await,
        ("many", _) => many(plan).await,
        ("timings", _) => timings(plan).await,
        ("load_balancer", _) => load_balancer(plan).await,
        ("hold", _) => hold_pods(plan).await,
        ("pod_get", to) => {
            let pod = PodSandbox::create(plan.pod(2)).await?;
            let text = run_in(&pod, &["get", to]).await?;
            pod.destroy().await?;
            Ok(text)
        }
        ("node_get", to) => Ok(get(to.parse()?).await),
        other => Err(format!("unknown request {other:?}").into()),
    }
}

async fn pods(plan: Plan) -> Outcome {
    let (a, b) = (
        PodSandbox::create(plan.pod(1)).await?,
        PodSandbox::create(plan.pod(2)).await?,
    );
    let _server = serve(&a, &["serve", "80", "a"]).await?;
    let to = format!("{}:80", plan.pod_ip(1));
    expect(
        "pod to pod",
        &run_in(&b, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(2)),
    )?;
    expect(
        "pod to itself by address",
        &run_in(&a, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(1)),
    )?;
    expect(
        "pod to its loopback",
        &run_in(&a, &["get", "127.0.0.1:80"]).await?,
        "a from 127.0.0.1 to none",
    )?;
    expect(
        "source 127.0.0.6",
        &run_in(&a, &["get", "127.0.0.1:80", "127.0.0.6"]).await?,
        "a from 127.0.0.6 to none",
    )?;
    expect(
        "node to pod",
        &get(to.parse()?).await,
        &format!("a from {} to none", plan.node_ip()),
    )?;
    // Port-forward: a connection from inside.
    let mut stream = a.connect_inside("127.0.0.1:80".parse()?).await?;
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
    expect("connect_inside", &text, "a from 127.0.0.1 to none")?;
    let twice = PodSandbox::create(plan.pod(1))
        .await
        .unwrap_err()
        .to_string();
    expect(
        "an address twice",
        &twice,
        &format!(
            "pod test/pod-1: address {} is in use by another pod of this node",
            plan.pod_ip(1)
        ),
    )?;
    // A destroyed pod's address can be used again at once.
    b.destroy().await?;
    let b = PodSandbox::create(plan.pod(2)).await?;
    expect(
        "reused address",
        &run_in(&b, &["get", &to]).await?,
        &format!("a from {} to none", plan.pod_ip(2)),
    )?;
    Ok(String::new())
}

async fn services(plan: Plan) -> Outcome {
    let rule = |n: u8, port: u16, protocol, targets: &[(u8, u16)]| NatRule {
        ip: plan.service_ip(n),
        port,
        protocol,
        targets: targets
            .iter()
            .map(|(pod, port)| SocketAddrV4::new(plan.pod_ip(*pod), *port))
            .collect(),
    };
    let mut pods = Vec::new();
    for n in 1..=3 {
        pods.push(PodSandbox::create(plan.pod(n)).await?);
    }
    let _servers = [
        serve(&pods[0], &["serve", "8080", "one"]).await?,
        serve(&pods[1], &["serve", "8080", "two"]).await?,
        serve(&pods[0], &["udp-serve", "53", "datagram"]).await?,
    ];
    service_nat::apply(&[
        rule(1, 80, Protocol::Tcp, &[(1, 8080)]),
        rule(2, 80, Protocol::Tcp, &[(1, 8080), (2, 8080)]),
        rule(3, 80, Protocol::Tcp, &[]),
        rule(3, 53, Protocol::Udp, &[]),
        rule(10, 53, Protocol::Udp, &[(1, 53)]),
    ])?;
    let at = |n: u8, port: u16| format!("{}:{port}", plan.service_ip(n));
    let refused = "error: Connection refused (os error 111)";
    let client = &pods[2];
    expect(
        "service from a pod",
        &run_in(client, &["get", &at(1, 80)]).await?,
        &format!("one from {} to none", plan.pod_ip(3)),
    )?;
    expect(
        "service from the endpoint itself",
        &run_in(&pods[0], &["get", &at(1, 80)]).await?,
        &format!("one from {} to none", plan.node_ip()),
    )?;
    expect(
        "service from the node",
        &get(at(1, 80).parse()?).await,
        &format!("one from {} to none", plan.node_ip()),
    )?;
    expect(
        "UDP service",
        &run_in(client, &["get", &at(10, 53), "udp"]).await?,
        "datagram",
    )?;
    expect(
        "service without endpoints from a pod",
        &run_in(client, &["get", &at(3, 80)]).await?,
        refused,
    )?;
    expect(
        "service without endpoints from the node",
        &get(at(3, 80).parse()?).await,
        refused,
    )?;
    expect(
        "UDP service without endpoints",
        &run_in(client, &["get", &at(3, 53), "udp"]).await?,
        refused,
    )?;
    expect(
        "port that a service does not have",
        &run_in(client, &["get", &at(1, 81)]).await?,
        refused,
    )?;
    expect(
        "address that no service has, from the node",
        &get(at(99, 80).parse()?).await,
        refused,
    )?;
    let mut counts = [0; 2];
    for _ in 0..100 {
        let seen = get(at(2, 80).parse()?).await;
        counts[usize::from(seen.starts_with("two"))] += 1;
    }
    // 100 fair coins: outside 20..=80 less than once in 10^8 runs.
    if !(20..=80).contains(&counts[0]) {
        return Err(format!("of 100 connections, one/two got {counts:?}").into());
    }
    service_nat::apply(&[rule(1, 80, Protocol::Tcp, &[(2, 8080)])])?;
    expect(
        "replaced endpoints",
        &run_in(client, &["get", &at(1, 80)]).await?,
        &format!("two from {} to none", plan.pod_ip(3)),
    )?;
    service_nat::clear()?;
    expect(
        "after clearing",
        &run_in(client, &["get", &at(1, 80)]).await?,
        refused,
    )?;
    Ok(String::new())
}

async fn redirect(plan: Plan) -> Outcome {
    let (pod, client) = (
        PodSandbox::create(plan.pod(1)).await?,
        PodSandbox::create(plan.pod(2)).await?,
    );
    let me = plan.pod_ip(1);
    let other = plan.pod_ip(2);
    let _servers = [
        serve(&pod, &["serve", "15001", "outbound"]).await?,
        serve(&pod, &["serve", "15006", "inbound"]).await?,
        serve(&pod, &["serve", "15020", "agent"]).await?,
        serve(&pod, &["serve", "15008", "tunnel"]).await?,
        serve(&pod, &["serve", "8080", "app"]).await?,
        serve(&client, &["serve", "8080", "other"]).await?,
        serve(&client, &["serve", "3306", "database"]).await?,
    ];
    let flags = "redirect -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020 -o 3306 --log_output_level=default:info";
    let mut flags: Vec<_> = flags.split(' ').collect();
    flags.extend(["-x", ""]);
    expect("istio-init", &run_in(&pod, &flags).await?, "redirected")?;
    let at = |ip: std::net::Ipv4Addr, port: u16| format!("{ip}:{port}");
    let cases: &[(&str, &PodSandbox, &[&str], String)] = &[
        (
            "inbound is captured",
            &client,
            &[&at(me, 8080)],
            format!("inbound from {other} to {me}:8080"),
        ),
        (
            "excluded inbound port is not",
            &client,
            &[&at(me, 15020)],
            format!("agent from {other} to {me}:15020"),
        ),
        (
            "tunnel port is not",
            &client,
            &[&at(me, 15008)],
            format!("tunnel from {other} to {me}:15008"),
        ),
        (
            "outbound is captured",
            &pod,
            &[&at(other, 8080)],
            format!("outbound from {me} to {other}:8080"),
        ),
        (
            "excluded outbound port is not",
            &pod,
            &[&at(other, 3306)],
            format!("database from {me} to none"),
        ),
        (
            "outbound to a service that is not there",
            &pod,
            &["10.97.55.55:80"],
            format!("outbound from {me} to 10.97.55.55:80"),
        ),
        (
            "the proxy's outbound is not",
            &pod,
            &[&at(other, 8080), "mark"],
            format!("other from {me} to none"),
        ),
        (
            "application to its loopback",
            &pod,
            &["127.0.0.1:8080"],
            "app from 127.0.0.1 to 127.0.0.1:8080".into(),
        ),
        (
            "application to its own address",
            &pod,
            &[&at(me, 8080)],
            format!("app from {me} to {me}:8080"),
        ),
        (
            "proxy to the pod's own address",
            &pod,
            &[&at(me, 8080), "mark"],
            format!("inbound from {me} to {me}:8080"),
        ),
        (
            "proxy to the pod's own tunnel port",
            &pod,
            &[&at(me, 15008), "mark"],
            format!("tunnel from {me} to {me}:15008"),
        ),
        (
            "proxy from 127.0.0.6 to the application",
            &pod,
            &[&at(me, 8080), "mark", "127.0.0.6"],
            format!("app from 127.0.0.6 to {me}:8080"),
        ),
        (
            "proxy to loopback",
            &pod,
            &["127.0.0.1:8080", "mark"],
            "app from 127.0.0.1 to 127.0.0.1:8080".into(),
        ),
    ];
    for (what, pod, args, expected) in cases {
        let args: Vec<&str> = ["get"].iter().chain(*args).copied().collect();
        expect(what, &run_in(pod, &args).await?, expected)?;
    }
    if sandbox::world::uid_is_mapped(1337) {
        for (what, user) in [
            (
                "user",
                User {
                    uid: 1337,
                    gid: 0,
                    groups: vec![],
                },
            ),
            (
                "group",
                User {
                    uid: 5,
                    gid: 1337,
                    groups: vec![],
                },
            ),
        ] {
            let mut s = spec(&["get", &at(other, 8080)]);
            s.user = user;
            let (_container, stdio) = Container::start(&pod, &s).await?;
            expect(
                &format!("the proxy by its {what}"),
                &output(stdio).await?,
                &format!("other from {me} to none"),
            )?;
        }
    }
    Ok(String::new())
}

async fn container(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let volume = tempfile::tempdir()?;
    std::fs::write(volume.path().join("key"), "value")?;
    let mount = |destination: &str, source, read_only| Mount {
        destination: destination.into(),
        source,
        read_only,
    };
    let rootfs = RootFs {
        applets: vec!["sleep".into(), "/usr/local/bin/pilot-agent".into()],
        hosts: "127.0.0.1 localhost\n10.10.0.11 pod-1\n".into(),
        resolv_conf: "nameserver 10.97.0.10\n".into(),
        mounts: vec![
            mount("/etc/config", MountSource::Host(volume.path().into()), true),
            mount("/data", MountSource::Host(volume.path().into()), false),
            mount(
                "/etc/one/file",
                MountSource::Host(volume.path().join("key")),
                true,
            ),
            mount(
                "/var/run/secrets/token",
                MountSource::File {
                    content: b"secret".to_vec(),
                    mode: 0o400,
                },
                true,
            ),
            mount(
                "/cache",
                MountSource::Tmpfs {
                    size_bytes: Some(4096),
                    mode: 0o1777,
                },
                false,
            ),
        ],
        ..RootFs::default()
    };
    let run = async |args: &[&str], rootfs: &RootFs| -> Outcome {
        let mut s = spec(args);
        s.rootfs = rootfs.clone();
        s.env = vec![("A".into(), "b c".into()), ("PATH".into(), "/bin".into())];
        s.cwd = "/app/work".into();
        let (container, stdio) = Container::start(&pod, &s).await?;
        let text = output(stdio).await?;
        container.wait().await;
        Ok(text)
    };
    let cat = async |path: &str| run(&["cat", path], &rootfs).await;
    expect("volume", &cat("/etc/config/key").await?, "value")?;
    expect("single file", &cat("/etc/one/file").await?, "value")?;
    expect("secret", &cat("/run/secrets/token").await?, "secret")?;
    expect(
        "/etc/hosts",
        &cat("/etc/hosts").await?,
        rootfs.hosts.trim_end(),
    )?;
    expect(
        "/etc/resolv.conf",
        &cat("/etc/resolv.conf").await?,
        "nameserver 10.97.0.10",
    )?;
    expect("/etc/hostname", &cat("/etc/hostname").await?, "pod-1")?;
    let read_only = "error: Read-only file system (os error 30)";
    let write = async |path: &str| run(&["write", path], &rootfs).await;
    expect(
        "read-only volume",
        &write("/etc/config/key").await?,
        read_only,
    )?;
    expect("writable volume", &write("/data/new").await?, "written")?;
    expect(
        "the volume itself",
        &std::fs::read_to_string(volume.path().join("new"))?,
        "x",
    )?;
    expect("root", &write("/app/file").await?, "written")?;
    expect("memory volume", &write("/cache/file").await?, "written")?;
    expect(
        "the program",
        &write("/bin/theater").await?,
        "error: Text file busy (os error 26)",
    )
    .or_else(|e| {
        if e.to_string().contains("Read-only") {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    expect(
        "kernel settings",
        &write("/proc/sys/kernel/hostname").await?,
        read_only,
    )?;
    let closed = RootFs {
        read_only: true,
        ..rootfs.clone()
    };
    expect(
        "read-only root",
        &run(&["write", "/app/file"], &closed).await?,
        read_only,
    )?;
    expect(
        "volume in a read-only root",
        &run(&["write", "/data/new"], &closed).await?,
        "written",
    )?;
    expect(
        "/dev",
        &run(&["ls", "/dev"], &rootfs).await?,
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
    )?;
    expect(
        "applets",
        &run(&["ls", "/bin"], &rootfs).await?,
        "sleep theater",
    )?;
    expect(
        "full path applet",
        &run(&["ls", "/usr/local/bin"], &rootfs).await?,
        "pilot-agent",
    )?;
    expect(
        "/dev/stdout",
        &run(&["write", "/dev/stdout"], &rootfs).await?,
        "xwritten",
    )?;
    // The machine's files are not there.
    let top = run(&["ls", "/"], &rootfs).await?;
    for hidden in ["home", "work", "sys", "boot"] {
        if top.split(' ').any(|n| n == hidden) {
            return Err(format!("/{hidden} of the machine is visible: {top}").into());
        }
    }
    let processes = run(&["ls", "/proc"], &rootfs).await?;
    let pids: Vec<_> = processes
        .split(' ')
        .filter(|n| n.parse::<u32>().is_ok())
        .collect();
    expect("processes", &pids.join(" "), "1")?;

    let who = run(&["who"], &rootfs).await?;
    expect(
        "identity",
        &who,
        "pid=1 uid=0 gid=0 caps=00000000a80425fb nnp=1 host=pod-1 cwd=/app/work env=A=b c,PATH=/bin,HOSTNAME=pod-1,HOME=/root",
    )?;
    let mut s = spec(&["who"]);
    s.user = User {
        uid: 1337,
        gid: 1337,
        groups: vec![],
    };
    s.capabilities = s
        .capabilities
        .adjusted(&["NET_ADMIN".into()], &["ALL".into()]);
    let (_c, stdio) = Container::start(&pod, &s).await?;
    let who = output(stdio).await?;
    let id = if sandbox::world::uid_is_mapped(1337) {
        1337
    } else {
        0
    };
    let expected = format!("pid=1 uid={id} gid={id} caps=0000000000001000 nnp=1 ");
    if !who.starts_with(&expected) {
        return Err(format!("proxy's identity: seen {who:?}, expected {expected:?}").into());
    }
    Ok(String::new())
}

async fn exec(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let mut s = spec(&["sleep"]);
    s.env = vec![("FROM".into(), "container".into())];
    s.cwd = "/app".into();
    let (container, _stdio) = Container::start(&pod, &s).await?;
    let exec = |args: &[&str]| ExecSpec {
        argv: ["theater", "tool"]
            .iter()
            .chain(args)
            .map(|s| (*s).to_owned())
            .collect(),
        ..ExecSpec::default()
    };

    let (process, stdio) = container.exec(&exec(&["who"])).await?;
    let who = output(stdio).await?;
    if !who.contains(" host=pod-1 cwd=/app ")
        || !who.contains("FROM=container")
        || who.contains("pid=1 ")
    {
        return Err(format!("exec is not in its container: {who:?}").into());
    }
    if !process.wait().await.success() {
        return Err("exec failed".into());
    }
    let (_p, stdio) = container.exec(&exec(&["write", "/app/file"])).await?;
    output(stdio).await?;
    let (_p, stdio) = container.exec(&exec(&["cat", "/app/file"])).await?;
    expect("files of an earlier exec", &output(stdio).await?, "x")?;

    let mut with_input = exec(&["echo"]);
    with_input.stdin = true;
    let (_p, mut stdio) = container.exec(&with_input).await?;
    let mut input = std::fs::File::from(stdio.stdin.take().ok_or("no stdin")?);
    input.write_all(b"hello")?;
    drop(input);
    expect("streams", &output(stdio).await?, "HELLO|5 bytes")?;

    let mut with_terminal = exec(&["terminal"]);
    with_terminal.tty = Some(TerminalSize {
        rows: 10,
        columns: 20,
    });
    let (process, mut stdio) = container.exec(&with_terminal).await?;
    let terminal = stdio.terminal.take().ok_or("no terminal")?;
    terminal.resize(TerminalSize {
        rows: 33,
        columns: 99,
    })?;
    let mut io = std::fs::File::from(terminal.try_clone()?.fd);
    io.write_all(b"hi\n")?;
    let text = tokio::task::spawn_blocking(move || {
        let (mut text, mut buffer) = (String::new(), [0; 256]);
        // The end of a terminal is EIO.
        while let Ok(n @ 1..) = io.read(&mut buffer) {
            text += &String::from_utf8_lossy(&buffer[..n]);
        }
        text
    });
    let text = text.await?;
    if !text.contains("tty=1 33x99 said hi") || !process.wait().await.success() {
        return Err(format!("terminal: seen {text:?}").into());
    }

    let missing = container
        .exec(&ExecSpec {
            argv: vec!["bash".into()],
            ..ExecSpec::default()
        })
        .await
        .unwrap_err();
    expect(
        "missing program",
        &missing.to_string(),
        "exec: \"bash\": executable file not found in $PATH",
    )?;
    // An exec ends with its container.
    let (process, _stdio) = container.exec(&exec(&["sleep"])).await?;
    container.kill(libc::SIGKILL)?;
    container.wait().await;
    if process.wait().await != ExitStatus::Signal(9) {
        return Err("an exec outlived its container".into());
    }
    let late = container
        .exec(&exec(&["who"]))
        .await
        .unwrap_err()
        .to_string();
    expect(
        "exec after the end",
        &late,
        "container test/container is not running",
    )?;
    Ok(String::new())
}

async fn exit(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let (c, _stdio) = Container::start(&pod, &spec(&["exit", "42"])).await?;
    // Several waiters get the same answer.
    let (a, b) = tokio::join!(c.wait(), c.wait());
    expect(
        "exit code",
        &format!("{a:?} {b:?} {:?}", c.try_wait()),
        "Code(42) Code(42) Some(Code(42))",
    )?;
    let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
    c.kill(libc::SIGKILL)?;
    expect("killed", &format!("{:?}", c.wait().await), "Signal(9)")?;
    c.kill(libc::SIGTERM)?;
    let (c, stdio) = Container::start(&pod, &spec(&["graceful"])).await?;
    let mut out = BufReader::new(std::fs::File::from(stdio.stdout.ok_or("no stdout")?));
    out.read_line(&mut String::new())?;
    c.kill(libc::SIGTERM)?;
    expect("graceful", &format!("{:?}", c.wait().await), "Code(7)")?;
    let mut s = spec(&[]);
    s.argv = vec!["nonsense".into()];
    let e = Container::start(&pod, &s).await.unwrap_err();
    expect(
        "unknown program",
        &e.to_string(),
        "exec: \"nonsense\": executable file not found in $PATH",
    )?;
    s.argv = vec![];
    expect(
        "no program",
        &Container::start(&pod, &s).await.unwrap_err().to_string(),
        "container test/container: no command given",
    )?;
    let mut s = spec(&["exit", "0"]);
    s.rootfs.mounts = vec![Mount {
        destination: "/v".into(),
        source: MountSource::Host("/no/such/place".into()),
        read_only: true,
    }];
    let e = Container::start(&pod, &s).await.unwrap_err();
    expect(
        "missing volume",
        &e.to_string(),
        "mount /no/such/place: No such file or directory (os error 2)",
    )?;
    // Dropped containers die and leave no zombie.
    let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
    let status = PathBuf::from(format!("/proc/{}/status", c.pid()));
    drop(c);
    until("a dropped container is gone", || !status.exists())?;
    let children = || {
        std::fs::read_dir("/proc").map_or(0, |d| {
            d.flatten()
                .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
                .count()
        })
    };
    until("no process but this one remains", || children() == 1)?;
    Ok(String::new())
}

async fn host_programs(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let mut s = spec(&[]);
    s.argv = ["uname", "-n"].map(String::from).into();
    s.rootfs.host_programs = true;
    let (_c, stdio) = match Container::start(&pod, &s).await {
        Err(sandbox::Error::Exec { .. }) => return Ok("uname is not in /usr/bin here".into()),
        other => other?,
    };
    expect("uname of the machine", &output(stdio).await?, "pod-1")?;
    s.argv = ["theater", "tool", "exit", "3"].map(String::from).into();
    let (c, _stdio) = Container::start(&pod, &s).await?;
    expect(
        "own program beside",
        &format!("{:?}", c.wait().await),
        "Code(3)",
    )?;
    Ok(String::new())
}

async fn many(plan: Plan) -> Outcome {
    let start = Instant::now();
    let creations: Vec<_> = (1..=40)
        .map(|n| tokio::spawn(PodSandbox::create(plan.pod(n))))
        .collect();
    let mut pods = Vec::new();
    for c in creations {
        pods.push(c.await??);
    }
    let created = start.elapsed();
    let start = Instant::now();
    let mut tasks = Vec::new();
    for pod in pods {
        tasks.push(tokio::spawn(async move {
            let (c, _stdio) = Container::start(&pod, &spec(&["exit", "5"])).await?;
            let status = c.wait().await;
            pod.destroy().await?;
            Ok::<_, sandbox::Error>(status)
        }));
    }
    for t in tasks {
        if t.await?? != ExitStatus::Code(5) {
            return Err("a container did not exit with 5".into());
        }
    }
    Ok(format!(
        "40 pods in {created:.1?}; a container in each, waited for and destroyed, in {:.1?}",
        start.elapsed()
    ))
}

async fn timings(plan: Plan) -> Outcome {
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (mut create, mut start, mut exec, mut destroy) = (vec![], vec![], vec![], vec![]);
    for _ in 0..20 {
        let t = Instant::now();
        let pod = PodSandbox::create(plan.pod(1)).await?;
        create.push(t.elapsed());
        let t = Instant::now();
        let (c, _stdio) = Container::start(&pod, &spec(&["sleep"])).await?;
        start.push(t.elapsed());
        let t = Instant::now();
        let (p, _stdio) = c
            .exec(&ExecSpec {
                argv: ["theater", "tool", "exit", "0"].map(String::from).into(),
                ..ExecSpec::default()
            })
            .await?;
        exec.push(t.elapsed());
        p.wait().await;
        c.kill(libc::SIGKILL)?;
        c.wait().await;
        let t = Instant::now();
        pod.destroy().await?;
        destroy.push(t.elapsed());
    }
    let rules: Vec<_> = (0..200u16)
        .map(|n| NatRule {
            ip: plan.service_ip((n % 250) as u8),
            port: 80 + n,
            protocol: Protocol::Tcp,
            targets: (0..5)
                .map(|i| SocketAddrV4::new(plan.pod_ip(i), 8080))
                .collect(),
        })
        .collect();
    let mut apply = vec![];
    for _ in 0..20 {
        let t = Instant::now();
        service_nat::apply(&rules)?;
        apply.push(t.elapsed());
    }
    Ok(format!(
        "median of 20: pod create {:.1?}, container start {:.1?}, exec {:.1?}, pod destroy {:.1?}, 200 services of 5 endpoints {:.1?}",
        median(create),
        median(start),
        median(exec),
        median(destroy),
        median(apply)
    ))
}

/// A pod behind a load-balancer address, and node listeners as an API server and a kubelet have.
async fn load_balancer(plan: Plan) -> Outcome {
    let pod = PodSandbox::create(plan.pod(1)).await?;
    let server = serve(&pod, &["serve", "8080", &format!("{}-lb", plan.name())]).await?;
    let rule = NatRule {
        ip: plan.wan(10),
        port: 80,
        protocol: Protocol::Tcp,
        targets: vec![SocketAddrV4::new(plan.pod_ip(1), 8080)],
    };
    service_nat::apply(&[rule])?;
    for (port, name) in [(6443, "api"), (10250, "kubelet")] {
        let listener = std::net::TcpListener::bind(("0.0.0.0", port))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = stream
                    .peer_addr()
                    .map(|a| a.ip().to_string())
                    .unwrap_or_default();
                let _ = write!(&stream, "{name} from {peer} to none");
            }
        });
    }
    std::mem::forget((pod, server));
    Ok(String::new())
}

async fn hold_pods(plan: Plan) -> Outcome {
    let marker = std::env::var("MARKER")?;
    for n in 1..=2 {
        let pod = PodSandbox::create(plan.pod(n)).await?;
        let mut s = spec(&["sleep"]);
        s.env = vec![("MARKER".into(), marker.clone())];
        let (c, stdio) = Container::start(&pod, &s).await?;
        let exec = c
            .exec(&ExecSpec {
                argv: s.argv.clone(),
                ..ExecSpec::default()
            })
            .await?;
        std::mem::forget((pod, c, stdio, exec));
    }
    Ok(String::new())
}
