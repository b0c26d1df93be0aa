//! `fortio load` and `fortio curl`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::client::{Answer, Client, Target};
use crate::flags::Flags;
use crate::histogram::{Counter, Histogram};
use crate::report::{self, Report};

const VALUED: [&str; 13] = [
    "H",
    "X",
    "c",
    "content-type",
    "json",
    "labels",
    "loglevel",
    "n",
    "p",
    "payload",
    "qps",
    "r",
    "t",
];
const SWITCHES: [&str; 5] = [
    "allow-initial-errors",
    "keepalive",
    "nocatchup",
    "quiet",
    "uniform",
];

/// How the load is shaped.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub threads: u64,
    /// Requests a second of all threads; 0 is as many as possible.
    pub qps: f64,
    /// How long; `None` until interrupted.
    pub time: Option<Duration>,
    /// Exactly so many calls instead.
    pub calls: Option<u64>,
    pub catch_up: bool,
    pub uniform: bool,
}

impl Plan {
    /// How many calls a thread makes; `None` when the time decides.
    pub fn calls_of(&self, thread: u64) -> Option<u64> {
        let share = |total: u64| {
            let each = total / self.threads;
            // The last one does what does not divide.
            if thread + 1 == self.threads {
                total - each * (self.threads - 1)
            } else {
                each
            }
        };
        match (self.calls, self.time) {
            (Some(calls), _) => Some(share(calls)),
            (None, Some(time)) if self.qps > 0.0 => {
                let each = (self.qps * time.as_secs_f64() / as_f64(self.threads)).round();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive and far below 2^53"
                )]
                Some((each as u64).max(2))
            }
            _ => None,
        }
    }
}

/// What one thread measured.
pub(crate) struct Thread {
    pub sleeps: Counter,
    pub times: Histogram,
    pub errors: Histogram,
    pub codes: BTreeMap<i32, u64>,
    pub heads: Counter,
    pub totals: Counter,
    pub sockets: u64,
    pub connecting: Histogram,
    pub took: Duration,
}

impl Thread {
    fn new(resolution: f64) -> Self {
        Self {
            sleeps: Counter::default(),
            times: Histogram::new(resolution),
            errors: Histogram::new(resolution),
            codes: BTreeMap::new(),
            heads: Counter::default(),
            totals: Counter::default(),
            sockets: 0,
            connecting: Histogram::new(resolution),
            took: Duration::ZERO,
        }
    }

    fn count(&mut self, seconds: f64, answer: &Answer) {
        self.times.record(seconds);
        if !(200..400).contains(&answer.status) {
            self.errors.record(seconds);
        }
        *self.codes.entry(answer.status).or_default() += 1;
        #[expect(clippy::cast_precision_loss, reason = "sizes of answers")]
        {
            self.heads.record(answer.head as f64);
            self.totals.record(answer.total as f64);
        }
    }
}

pub(crate) async fn main(args: &[String]) -> Result<ExitCode> {
    let mut valued = VALUED.to_vec();
    valued.push("timeout");
    let flags = Flags::parse(args, &valued, &SWITCHES)?;
    let target = target(&flags)?;
    let time = flags.duration("t", Duration::from_secs(5))?;
    let calls: u64 = flags.number("n", 0)?;
    let plan = Plan {
        threads: flags.number("c", 4_u64)?.max(1),
        qps: match flags.text("qps") {
            Some("max") => 0.0,
            _ => flags.number("qps", 8.0)?,
        },
        time: (!time.is_zero()).then_some(time),
        calls: (calls > 0).then_some(calls),
        catch_up: !flags.is_on("nocatchup"),
        uniform: flags.is_on("uniform"),
    };
    let percentiles = flags
        .text("p")
        .unwrap_or("50,75,90,99,99.9")
        .split(',')
        .map(|text| {
            text.trim()
                .parse()
                .with_context(|| format!("invalid percentile {text:?}"))
        })
        .collect::<Result<Vec<f64>>>()?;
    let resolution: f64 = flags.number("r", 0.001)?;
    check_level(flags.text("loglevel").unwrap_or("Info"))?;
    let quiet = flags.is_on("quiet");
    if let Some(file) = flags.text("json")
        && file != "-"
    {
        bail!("-json {file}: only - (standard output) is understood");
    }

    let address = resolve(&target).await?;
    if !quiet {
        eprint!("{}", report::begin(&plan, &target.url));
    }
    let (stop, stopped) = watch::channel(false);
    interrupted(stop)?;
    // As in the original, an exact number of calls has none before it.
    let warms = plan.calls.is_none();
    let warm = warm_up(&plan, &target, address, resolution, warms).await;
    if let Some((answer, reason)) = warm.failed
        && !flags.is_on("allow-initial-errors")
    {
        if let Some(reason) = reason {
            eprintln!("{reason}");
        }
        eprintln!(
            "Aborting because of error {} for {} ({} bytes)",
            answer.status, target.url, answer.total
        );
        return Ok(ExitCode::FAILURE);
    }
    if !quiet {
        eprint!("{}", report::starting(&plan));
    }
    let started = Instant::now();
    let mut running = Vec::new();
    for (number, client) in warm.clients.into_iter().enumerate() {
        let plan = plan.clone();
        let stopped = stopped.clone();
        running.push(tokio::spawn(async move {
            let number = u64::try_from(number).unwrap_or_default();
            thread(&plan, number, client, resolution, started, stopped).await
        }));
    }
    let mut threads = Vec::new();
    for thread in running {
        threads.push(thread.await?);
    }
    let report = Report {
        plan,
        address,
        warm_ups: if warms { threads.len() } else { 0 },
        took: started.elapsed(),
        threads,
        percentiles,
        resolution,
        labels: flags.text("labels").unwrap_or_default().to_owned(),
        url: target.url.clone(),
    };
    // Standard output is for -json.
    if quiet {
        eprint!("{}", report.summary());
    } else {
        eprint!("{}", report.text());
    }
    if flags.text("json").is_some() {
        println!("{:#}", report.json());
    }
    Ok(ExitCode::SUCCESS)
}

/// `fortio curl URL`: one request, its headers and body.
pub(crate) async fn curl(args: &[String]) -> Result<ExitCode> {
    let mut valued = VALUED.to_vec();
    valued.push("timeout");
    let flags = Flags::parse(args, &valued, &SWITCHES)?;
    let target = target(&flags)?;
    let address = resolve(&target).await?;
    let (answer, reason) = Client::new(target, address, 0.001).fetch().await;
    if let Some(reason) = reason {
        bail!(reason);
    }
    // As the original: headers to standard error, so that the body can be used.
    eprint!("{}", answer.headers.replace('\r', ""));
    print!("{}", String::from_utf8_lossy(&answer.body));
    Ok(if (200..400).contains(&answer.status) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn target(flags: &Flags) -> Result<Target> {
    let [url] = flags.rest.as_slice() else {
        bail!("Error: fortio load/curl needs a url as its only argument, after the flags");
    };
    let mut target = Target::new(
        url,
        flags.text("X"),
        flags.all("H"),
        Bytes::from(flags.text("payload").unwrap_or_default().to_owned()),
        flags.text("content-type"),
    )?;
    target.keep_alive = flags.text("keepalive") != Some("false");
    target.timeout = flags.duration("timeout", target.timeout)?;
    Ok(target)
}

/// Whether it is the name of a log level. There is one kind of message here, and it is always shown.
fn check_level(name: &str) -> Result<()> {
    let levels = [
        "debug", "verbose", "info", "warning", "error", "critical", "fatal",
    ];
    if levels
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name) || known[..1].eq_ignore_ascii_case(name))
    {
        return Ok(());
    }
    bail!("loglevel {name:?} is none of Debug, Verbose, Info, Warning, Error, Critical, Fatal")
}

async fn resolve(target: &Target) -> Result<SocketAddr> {
    let (host, port) = target.address();
    tokio::net::lookup_host((host.as_str(), port))
        .await
        .ok()
        .and_then(|mut found| found.next())
        .with_context(|| format!("Aborting because of lookup {host}: no such host"))
}

fn interrupted(stop: watch::Sender<bool>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("Interrupted run abort.");
        let _ = stop.send(true);
        // Kept, so that those who wait see the change and not the end of the sender.
        std::future::pending::<()>().await;
    });
    Ok(())
}

struct WarmedUp {
    clients: Vec<Client>,
    failed: Option<(Answer, Option<String>)>,
}

/// One request for each connection, all at once, that is not counted.
async fn warm_up(
    plan: &Plan,
    target: &Target,
    address: SocketAddr,
    resolution: f64,
    warms: bool,
) -> WarmedUp {
    let mut tasks = Vec::new();
    for _ in 0..plan.threads {
        let mut client = Client::new(target.clone(), address, resolution);
        tasks.push(tokio::spawn(async move {
            let answer = if warms {
                Some(client.fetch().await)
            } else {
                None
            };
            (client, answer)
        }));
    }
    let mut warmed = WarmedUp {
        clients: Vec::new(),
        failed: None,
    };
    for task in tasks {
        // A task ends only with its value: nothing aborts it and it does not panic.
        let Ok((client, answer)) = task.await else {
            continue;
        };
        if let Some((answer, reason)) = answer
            && !(200..400).contains(&answer.status)
        {
            warmed.failed.get_or_insert((answer, reason));
        }
        warmed.clients.push(client);
    }
    warmed
}

async fn thread(
    plan: &Plan,
    number: u64,
    mut client: Client,
    resolution: f64,
    started: Instant,
    mut stopped: watch::Receiver<bool>,
) -> Thread {
    let mut measured = Thread::new(resolution);
    let calls = plan.calls_of(number);
    let rate = plan.qps / as_f64(plan.threads);
    let offset = if plan.uniform && rate > 0.0 {
        Duration::from_secs_f64(as_f64(number) / as_f64(plan.threads) / rate)
    } else {
        Duration::ZERO
    };
    let mut planned = started + offset;
    let mut call = 0;
    loop {
        if *stopped.borrow() || calls.is_some_and(|calls| call >= calls) {
            break;
        }
        if calls.is_none() && plan.time.is_some_and(|time| started.elapsed() >= time) {
            break;
        }
        if rate > 0.0 && (call > 0 || !offset.is_zero()) {
            let now = Instant::now();
            if call > 0 {
                planned += Duration::from_secs_f64(1.0 / rate);
            }
            if !plan.catch_up && planned < now {
                planned = now;
            }
            // Negative: behind the plan, and the call is made at once.
            let behind = now.saturating_duration_since(planned);
            let ahead = planned.saturating_duration_since(now);
            measured
                .sleeps
                .record(ahead.as_secs_f64() - behind.as_secs_f64());
            if !ahead.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(ahead) => {}
                    _ = stopped.changed() => break,
                }
            }
        }
        let begin = Instant::now();
        let (answer, _) = client.fetch().await;
        measured.count(begin.elapsed().as_secs_f64(), &answer);
        call += 1;
    }
    measured.took = started.elapsed();
    measured.sockets = client.sockets;
    measured.connecting = client.connecting;
    measured
}

fn as_f64(count: u64) -> f64 {
    crate::histogram::as_f64(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(qps: f64, threads: u64) -> Plan {
        Plan {
            threads,
            qps,
            time: Some(Duration::from_secs(60)),
            calls: None,
            catch_up: true,
            uniform: false,
        }
    }

    #[test]
    fn calls_are_shared_out_among_the_threads() {
        assert_eq!(plan(100.0, 8).calls_of(0), Some(750));
        assert_eq!(plan(0.0, 8).calls_of(0), None);
        let exactly = Plan {
            calls: Some(10),
            ..plan(100.0, 4)
        };
        let each: Vec<u64> = (0..4)
            .filter_map(|thread| exactly.calls_of(thread))
            .collect();
        assert_eq!(each, [2, 2, 2, 4]);
    }

    #[tokio::test]
    async fn every_call_is_counted_with_its_code_and_size() {
        let address = crate::echo::test_server().await;
        let target = Target::new(
            &format!("{address}/echo?size=10"),
            None,
            &[],
            Bytes::new(),
            None,
        )
        .unwrap();
        let plan = Plan {
            calls: Some(20),
            ..plan(0.0, 2)
        };
        let warmed = warm_up(&plan, &target, address, 0.001, true).await;
        assert!(warmed.failed.is_none());
        let (_stop, stopped) = watch::channel(false);
        let mut sum = 0;
        for (number, client) in (0..).zip(warmed.clients) {
            let thread = thread(
                &plan,
                number,
                client,
                0.001,
                Instant::now(),
                stopped.clone(),
            )
            .await;
            assert_eq!(thread.codes, BTreeMap::from([(200, 10)]));
            assert_eq!(thread.sockets, 1, "the connection is kept");
            assert!((thread.totals.mean() - thread.heads.mean() - 10.0).abs() < 1e-9);
            sum += thread.times.counter.count;
        }
        assert_eq!(sum, 20);
    }

    #[test]
    fn unknown_flags_and_levels_are_refused() {
        assert!(check_level("Warning").is_ok() && check_level("w").is_ok());
        assert!(check_level("loud").is_err());
        assert!(Flags::parse(&["-grpc".into()], &VALUED, &SWITCHES).is_err());
    }
}
