//! The cases. A name such as `pods` runs `in_cluster` in one cluster; those with WAN or signals have a supervisor's part.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use sandbox::pod::PodSandbox;
use sandbox::process::ExitStatus;
use sandbox::world::{ClusterCommand, ClusterProcess, LinkState, World};
use theater_sandbox as sandbox;

use crate::agent::{Outcome, Plan, expect, get, run as run_in, until};
use crate::{containers, load, network};

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
    ("containers_get_no_more_than_their_limits", || {
        one_cluster("limits")
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
    let start = Instant::now();
    let world = sandbox::world::enter()?;
    let entered = start.elapsed();
    let cluster = Cluster::start(&world, 1)?;
    if scenario == "timings" {
        println!(
            "enter {entered:.1?}, cluster process and link {:.1?}",
            start.elapsed() - entered
        );
    }
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
        let seen = one.ask(&format!("pod_get {hidden} brief"))?;
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
    let seen = one.ask(&format!("pod_get {lb} brief"))?;
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

/// This machine's interfaces and mounts.
fn traces() -> std::io::Result<BTreeSet<String>> {
    let mut all = std::fs::read_dir("/sys/class/net")?
        .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    all.extend(mounts.lines().map(str::to_owned));
    Ok(all)
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
    // What others take away meanwhile is theirs.
    let left: Vec<String> = traces()?.difference(&before).cloned().collect();
    expect("left behind", &left.join("\n"), "")
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
        ("pods", _) => network::pods(plan).await,
        ("services", _) => network::services(plan).await,
        ("redirect", _) => network::redirect(plan).await,
        ("container", _) => containers::container(plan).await,
        ("exec", _) => containers::exec(plan).await,
        ("exit", _) => containers::exit(plan).await,
        ("limits", _) => containers::limits(plan).await,
        ("host_programs", _) => containers::host_programs(plan).await,
        ("many", _) => load::many(plan).await,
        ("timings", _) => load::timings(plan).await,
        ("load_balancer", _) => network::load_balancer(plan).await,
        ("hold", _) => containers::hold_pods(plan).await,
        ("pod_get", to) => {
            let pod = PodSandbox::create(plan.pod(2)).await?;
            let get: Vec<&str> = ["get"].into_iter().chain(to.split(' ')).collect();
            let text = run_in(&pod, &get).await?;
            pod.destroy().await?;
            Ok(text)
        }
        ("node_get", to) => Ok(get(to.parse()?).await),
        other => Err(format!("unknown request {other:?}").into()),
    }
}
