//! Theater's proxy beside a real Envoy on the same work, in one run: processor time per request, latency, memory.
//!
//! ```sh
//! ENVOY=/path/to/envoy cargo run --release -p theater-bench -- [--rounds 3] [--seconds 4] [--connections 16] [--only TEXT]
//! ```
//!
//! `THEATER` names the program (default `target/release/theater`). Each proxy has one worker and one processor for itself;
//! clients and upstreams share another. Rounds are interleaved and every other one is in reverse order; figures are medians.
//! Processor time per request is the figure to trust: requests per second and latencies depend on what else the
//! machine does, of which `others` is the share of all processors. Prints figures and asserts nothing, but that every
//! answer is a 200.

mod config;
mod load;
#[path = "../../../crates/proxy/tests/support/management.rs"]
mod management;
mod program;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use config::Hop;
use load::{Load, Served};
use management::Management;
use program::{Process, Program, Side, busy, free_port, local, pin, processors};

/// How many services a mesh has in the scenarios about many.
const SERVICES: usize = 1000;

struct Options {
    rounds: usize,
    seconds: u64,
    connections: usize,
    only: String,
}

fn options() -> Options {
    let mut options = Options {
        rounds: 3,
        seconds: 4,
        connections: 16,
        only: String::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = value().parse().expect("--rounds is a number"),
            "--seconds" => options.seconds = value().parse().expect("--seconds is a number"),
            "--connections" => {
                options.connections = value().parse().expect("--connections is a number")
            }
            "--only" => options.only = value(),
            other => panic!("unknown argument {other}"),
        }
    }
    options
}

fn programs() -> Option<[Program; 2]> {
    let envoy = PathBuf::from(std::env::var_os("ENVOY")?);
    let ours = std::env::var_os("THEATER").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/theater"),
        PathBuf::from,
    );
    assert!(
        ours.is_file(),
        "{}: build it first, or set THEATER",
        ours.display()
    );
    Some([
        Program {
            name: "envoy",
            path: envoy,
            first: vec![],
        },
        Program {
            name: "theater",
            path: ours,
            first: vec!["proxy"],
        },
    ])
}

/// One measurement of one program.
#[derive(Debug, Clone, Default)]
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of processor time per request.
    cpu: f64,
    memory: f64,
    /// Percent of all processors that neither the proxies, nor the load used.
    others: f64,
    failed: usize,
}

/// Requests over a chain of proxies.
struct Scenario {
    name: &'static str,
    /// Given the port where it listens and where requests end: the configuration of each proxy, the first one first.
    chain: fn(u16, u16, &Path) -> Vec<serde_json::Value>,
    http2: bool,
    host: String,
    path: &'static str,
}

fn scenarios() -> Vec<Scenario> {
    fn one(port: u16, to: u16) -> Hop {
        Hop {
            port,
            to,
            admin: free_port(),
            ..Hop::default()
        }
    }
    let scenario = |name, chain| Scenario {
        name,
        chain,
        http2: false,
        host: "reviews:9080".into(),
        path: "/reviews/42",
    };
    vec![
        scenario("plain hop", |port, to, dir| {
            vec![config::hop(&one(port, to), dir)]
        }),
        scenario("plain hop, access log", |port, to, dir| {
            vec![config::hop(
                &Hop {
                    log: true,
                    ..one(port, to)
                },
                dir,
            )]
        }),
        scenario("mutual TLS, two proxies", |port, to, dir| {
            let middle = free_port();
            let out = Hop {
                opens_tls: true,
                ..one(port, middle)
            };
            let inbound = Hop {
                accepts_tls: true,
                ..one(middle, to)
            };
            vec![config::hop(&out, dir), config::hop(&inbound, dir)]
        }),
        Scenario {
            http2: true,
            ..scenario("HTTP/2 on both sides", |port, to, dir| {
                vec![config::hop(
                    &Hop {
                        http2: true,
                        ..one(port, to)
                    },
                    dir,
                )]
            })
        },
        Scenario {
            host: format!("{}:9080", config::service(SERVICES - 1)),
            ..scenario("1,000 virtual hosts", |port, to, dir| {
                let virtual_hosts = Some(config::virtual_hosts(SERVICES));
                vec![config::hop(
                    &Hop {
                        virtual_hosts,
                        ..one(port, to)
                    },
                    dir,
                )]
            })
        },
        Scenario {
            path: "/prefix-999/42",
            ..scenario("1,000 routes, the last", |port, to, dir| {
                let virtual_hosts = Some(config::prefixes(SERVICES));
                vec![config::hop(
                    &Hop {
                        virtual_hosts,
                        ..one(port, to)
                    },
                    dir,
                )]
            })
        },
    ]
}

/// Waits for the first 200.
fn wait_for(at: &Load, processes: &mut [Process]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let once = Load {
        connections: 1,
        streams: 0,
        ..at.clone()
    };
    loop {
        if std::net::TcpStream::connect(at.at).is_ok() {
            let served = load::run(&once, Duration::from_millis(20));
            if served.requests > 0 && served.failed == 0 {
                return;
            }
        }
        for process in &mut *processes {
            if let Some(why) = process.ended() {
                panic!("a proxy has ended: {why}");
            }
        }
        assert!(Instant::now() < deadline, "no 200 within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn measure(program: &Program, scenario: &Scenario, to: u16, options: &Options, dir: &Path) -> Run {
    let port = free_port();
    let mut processes: Vec<Process> = (scenario.chain)(port, to, dir)
        .iter()
        .map(|config| program.start(config, dir))
        .collect();
    let load = Load {
        at: local(port),
        host: scenario.host.clone(),
        path: scenario.path.into(),
        connections: if scenario.http2 {
            4
        } else {
            options.connections
        },
        streams: if scenario.http2 { 16 } else { 0 },
    };
    wait_for(&load, &mut processes);
    load::run(&load, Duration::from_millis(500));
    let used = |processes: &[Process]| processes.iter().map(Process::cpu).sum::<f64>();
    let (cpu, machine, mine, start) = (
        used(&processes),
        busy(),
        program::cpu_of("self"),
        Instant::now(),
    );
    let served: Served = load::run(&load, Duration::from_secs(options.seconds));
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = used(&processes) - cpu;
    let others = busy() - machine - cpu - (program::cpu_of("self") - mine);
    let cores = processors() as f64;
    Run {
        rate: served.requests as f64 / elapsed,
        p50: served.percentile(50.0),
        p99: served.percentile(99.0),
        cpu: cpu / served.requests.max(1) as f64 * 1e6,
        memory: processes.iter().map(Process::memory).sum(),
        others: (others / elapsed / cores * 100.0).max(0.0),
        failed: served.failed,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

fn requests(programs: &[Program; 2], options: &Options, dir: &Path) {
    let (http1, http2) = (load::upstream(false), load::upstream(true));
    println!(
        "{:24}{:>9}{:>9}{:>7}{:>8}{:>8}{:>8}{:>9}{:>9}{:>8}",
        "", "", "CPU us", "ratio", "req/s", "p50 us", "p99 us", "MiB", "ratio", "others"
    );
    for scenario in scenarios()
        .iter()
        .filter(|s| s.name.contains(&options.only))
    {
        let to = if scenario.http2 { http2 } else { http1 }.port();
        let mut runs: [Vec<Run>; 2] = Default::default();
        for round in 0..options.rounds {
            for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                runs[at].push(measure(&programs[at], scenario, to, options, dir));
            }
        }
        let of = |at: usize, get: fn(&Run) -> f64| median(runs[at].iter().map(get).collect());
        for (at, program) in programs.iter().enumerate() {
            let (cpu, memory) = (of(at, |r| r.cpu), of(at, |r| r.memory));
            println!(
                "{:24}{:>9}{cpu:>9.1}{:>7.2}{:>8.0}{:>8.0}{:>8.0}{memory:>9.1}{:>9.2}{:>7.0}%{}",
                if at == 0 { scenario.name } else { "" },
                program.name,
                cpu / of(0, |r| r.cpu),
                of(at, |r| r.rate),
                of(at, |r| r.p50),
                of(at, |r| r.p99),
                memory / of(0, |r| r.memory),
                of(at, |r| r.others),
                match runs[at].iter().map(|r| r.failed).sum::<usize>() {
                    0 => String::new(),
                    failed => format!("  {failed} FAILED"),
                }
            );
        }
    }
}

/// What a mesh of many services costs a proxy: each figure in one of these.
#[derive(Debug, Clone, Default)]
struct Updates {
    /// Milliseconds from the start of the process to the first answer.
    first: f64,
    /// Milliseconds of processor time until then.
    first_cpu: f64,
    memory: f64,
    /// Milliseconds, and of processor time, for one service's endpoints.
    endpoint: (f64, f64),
    /// The same for the routes to all services.
    routes: (f64, f64),
    /// The same for all clusters, with their endpoints.
    clusters: (f64, f64),
}

/// Wall and processor time of something done several times, in milliseconds each.
fn timed(process: &Process, times: usize, mut what: impl FnMut(usize)) -> (f64, f64) {
    let (start, cpu) = (Instant::now(), process.cpu());
    for n in 0..times {
        what(n);
    }
    let each = 1000.0 / times as f64;
    (
        start.elapsed().as_secs_f64() * each,
        (process.cpu() - cpu) * each,
    )
}

fn update(program: &Program, dir: &Path, to: &[std::net::SocketAddr; 2]) -> Updates {
    let (management, address) = Management::start(|| program::pin(program::Side::Load));
    let port = free_port();
    let named = |n: usize, value| (config::cluster_name(n), value);
    let clusters = |seconds| {
        (0..SERVICES)
            .map(|n| named(n, config::managed_cluster(n, seconds)))
            .collect::<Vec<_>>()
    };
    let endpoints = || {
        (0..SERVICES)
            .map(|n| named(n, config::endpoints(&config::cluster_name(n), to)))
            .collect::<Vec<_>>()
    };
    let routes = |version| vec![("9080".to_owned(), config::managed_routes(SERVICES, version))];
    management.has(xds::type_url::CLUSTER, clusters(10));
    management.has(xds::type_url::ENDPOINT, endpoints());
    management.has(
        xds::type_url::LISTENER,
        vec![("bench".into(), config::managed_listener(port))],
    );
    management.has(xds::type_url::ROUTE, routes(0));
    let last = Load {
        at: local(port),
        host: format!("{}:9080", config::service(SERVICES - 1)),
        path: "/".into(),
        connections: 1,
        streams: 0,
    };

    let start = Instant::now();
    let mut processes = [program.start(&config::managed(free_port(), address), dir)];
    wait_for(&last, &mut processes);
    let [process] = &processes;
    let (first, first_cpu) = (
        start.elapsed().as_secs_f64() * 1000.0,
        process.cpu() * 1000.0,
    );
    let memory = process.memory();
    let endpoint = timed(process, 200, |n| {
        let name = config::cluster_name(SERVICES / 2);
        let value = config::endpoints(&name, &to[..1 + n % 2]);
        management
            .send(xds::type_url::ENDPOINT, &[(name, value)])
            .expect("accepted");
    });
    let routes = timed(process, 10, |n| {
        management
            .send(xds::type_url::ROUTE, &routes(n as u64 + 1))
            .expect("accepted");
    });
    let clusters = timed(process, 5, |n| {
        management
            .send(xds::type_url::CLUSTER, &clusters(11 + n as u64))
            .expect("accepted");
        management
            .send(xds::type_url::ENDPOINT, &endpoints())
            .expect("accepted");
    });
    Updates {
        first,
        first_cpu,
        memory,
        endpoint,
        routes,
        clusters,
    }
}

fn updates(programs: &[Program; 2], options: &Options, dir: &Path) {
    let to = [load::upstream(false), load::upstream(false)];
    let mut runs: [Vec<Updates>; 2] = Default::default();
    for round in 0..options.rounds {
        for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            runs[at].push(update(&programs[at], dir, &to));
        }
    }
    let of = |at: usize, get: fn(&Updates) -> f64| median(runs[at].iter().map(get).collect());
    println!(
        "\n{:48}{:>9}{:>9}{:>7}",
        "1,000 services from a management server", "envoy", "theater", "ratio"
    );
    let line = |name: &str, get: fn(&Updates) -> f64| {
        let (envoy, ours) = (of(0, get), of(1, get));
        println!("{name:48}{envoy:>9.1}{ours:>9.1}{:>7.2}", ours / envoy);
    };
    line("start to first answer, ms", |u| u.first);
    line("processor time until then, ms", |u| u.first_cpu);
    line("memory, MiB", |u| u.memory);
    line("one service's endpoints, ms until acknowledged", |u| {
        u.endpoint.0
    });
    line("                         ms of processor time", |u| {
        u.endpoint.1
    });
    line("the routes to all, ms until acknowledged", |u| u.routes.0);
    line("                   ms of processor time", |u| u.routes.1);
    // Not when it is acknowledged: Envoy waits up to 15 s for endpoints of changed clusters that it is sent too early.
    line("all clusters and endpoints, ms of processor time", |u| {
        u.clusters.1
    });
}

/// `ca.pem`, `server.pem`, `client.pem` and their keys.
fn certificates(directory: &Path) {
    let now = SystemTime::now() - Duration::from_secs(3600);
    let authority = pki::Authority::new_root("bench", "bench", now, 10).unwrap();
    let validity = pki::Validity::starting(now, Duration::from_secs(48 * 3600));
    std::fs::write(directory.join("ca.pem"), authority.root_pem()).unwrap();
    for name in ["server", "client"] {
        let mut request = pki::CertRequest::server(name, &[], &[], validity);
        request.client = true;
        request.uris = vec![format!("spiffe://cluster.local/ns/shop/sa/{name}")];
        let issued = authority.issue(&request).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), issued.chain_pem).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), issued.key_pem).unwrap();
    }
}

fn main() {
    let Some(programs) = programs() else {
        println!("skipped: ENVOY does not name a real Envoy to compare with");
        return;
    };
    let options = options();
    pin(Side::Load);
    let directory = std::env::temp_dir().join(format!("theater-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    certificates(&directory);
    println!(
        "median of {} rounds of {} s, one worker each",
        options.rounds, options.seconds
    );
    requests(&programs, &options, &directory);
    if "1,000 services".contains(&options.only) {
        updates(&programs, &options, &directory);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
