//! What `fortio load` prints. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::VERSION;
use crate::flags::shown;
use crate::histogram::{Counter, Histogram, as_f64};
use crate::load::{Plan, Thread};
use crate::number::g;

/// Before anything is sent.
pub(crate) fn begin(plan: &Plan, url: &str) -> String {
    let processors = processors();
    format!(
        "Fortio {VERSION} running at {} queries per second, {processors}->{processors} procs, for {}: {url}\n",
        g(plan.qps, None),
        length(plan)
    )
}

/// When the load begins.
pub(crate) fn starting(plan: &Plan) -> String {
    let threads = plan.threads;
    let rate = if plan.qps > 0.0 {
        g(plan.qps, None)
    } else {
        "max".to_owned()
    };
    let calls = match (plan.calls_of(0), plan.qps > 0.0) {
        (Some(each), true) => {
            let total = (0..threads)
                .filter_map(|thread| plan.calls_of(thread))
                .sum::<u64>();
            format!(" : {each} calls each (total {total})")
        }
        _ => String::new(),
    };
    format!(
        "Starting at {rate} qps with {threads} thread(s) [gomax {}] for {}{calls}\n",
        processors(),
        length(plan)
    )
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn length(plan: &Plan) -> String {
    match (plan.calls, plan.time) {
        (Some(calls), _) => format!("{calls} calls"),
        (None, Some(time)) => shown(time),
        (None, None) => "until interrupted".to_owned(),
    }
}

/// Everything that was measured.
pub(crate) struct Report {
    pub plan: Plan,
    pub url: String,
    pub labels: String,
    pub address: SocketAddr,
    pub warm_ups: usize,
    pub took: Duration,
    pub threads: Vec<Thread>,
    pub percentiles: Vec<f64>,
    pub resolution: f64,
}

impl Report {
    fn calls(&self) -> u64 {
        self.threads
            .iter()
            .map(|thread| thread.times.counter.count)
            .sum()
    }

    fn qps(&self) -> f64 {
        as_f64(self.calls()) / self.took.as_secs_f64()
    }

    fn codes(&self) -> BTreeMap<i32, u64> {
        let mut codes = BTreeMap::new();
        for (code, count) in self.threads.iter().flat_map(|thread| &thread.codes) {
            *codes.entry(*code).or_default() += count;
        }
        codes
    }

    fn counter(&self, of: fn(&Thread) -> &Counter) -> Counter {
        let mut sum = Counter::default();
        for thread in &self.threads {
            sum.add(of(thread));
        }
        sum
    }

    fn histogram(&self, of: fn(&Thread) -> &Histogram) -> Histogram {
        let mut sum = Histogram::new(self.resolution);
        for thread in &self.threads {
            sum.add(of(thread));
        }
        sum
    }

    /// The last line.
    pub fn summary(&self) -> String {
        let times = self.counter(|thread| &thread.times.counter);
        format!(
            "All done {} calls (plus {} warmup) {:.3} ms avg, {:.1} qps\n",
            self.calls(),
            self.warm_ups,
            times.mean() * 1000.0,
            self.qps()
        )
    }

    /// The whole report.
    pub fn text(&self) -> String {
        let mut text = format!(
            "Ended after {} : {} calls. qps={}\n",
            shown(self.took),
            self.calls(),
            g(self.qps(), Some(5))
        );
        let sleeps = self.counter(|thread| &thread.sleeps);
        if sleeps.count > 0 {
            text.push_str(&sleeps.line("Sleep times"));
        }
        text.push_str(
            &self
                .histogram(|thread| &thread.times)
                .block("Aggregated Function Time", &self.percentiles),
        );
        text.push_str(
            &self
                .histogram(|thread| &thread.errors)
                .block("Error cases", &self.percentiles),
        );
        text.push_str("# Socket and IP used for each connection:\n");
        let mut connecting = Histogram::new(self.resolution);
        for (number, thread) in self.threads.iter().enumerate() {
            connecting.add(&thread.connecting);
            let _ = write!(
                text,
                "[{number}] {:>3} socket used, resolved to {}, {}",
                thread.sockets,
                self.address,
                thread.connecting.counter.line("connection timing")
            );
        }
        text.push_str(&connecting.block("Connection time histogram (s)", &self.percentiles));
        let sockets: u64 = self.threads.iter().map(|thread| thread.sockets).sum();
        let _ = writeln!(
            text,
            "Sockets used: {sockets} (for perfect keepalive, would be {})",
            self.threads.len()
        );
        let _ = writeln!(
            text,
            "Uniform: {}, Jitter: false, Catchup allowed: {}",
            self.plan.uniform, self.plan.catch_up
        );
        let _ = writeln!(
            text,
            "IP addresses distribution:\n{}: {sockets}",
            self.address
        );
        let calls = as_f64(self.calls().max(1));
        for (code, count) in self.codes() {
            let _ = writeln!(
                text,
                "Code {code:>3} : {count} ({:.1} %)",
                100.0 * as_f64(count) / calls
            );
        }
        text.push_str(
            &self
                .counter(|thread| &thread.heads)
                .line("Response Header Sizes"),
        );
        text.push_str(
            &self
                .counter(|thread| &thread.totals)
                .line("Response Body/Total Sizes"),
        );
        text.push_str(&self.summary());
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let times = self.histogram(|thread| &thread.times);
        let codes: BTreeMap<String, u64> = self
            .codes()
            .into_iter()
            .map(|(code, count)| (code.to_string(), count))
            .collect();
        json!({
            "RunType": "HTTP",
            "Labels": self.labels,
            "URL": self.url,
            "RequestedQPS": if self.plan.qps > 0.0 { g(self.plan.qps, None) } else { "max".into() },
            "RequestedDuration": length(&self.plan),
            "ActualQPS": self.qps(),
            "ActualDuration": u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX),
            "NumThreads": self.threads.len(),
            "Version": VERSION,
            "DurationHistogram": {
                "Count": times.counter.count,
                "Min": times.counter.min,
                "Max": times.counter.max,
                "Sum": times.counter.sum,
                "Avg": times.counter.mean(),
                "StdDev": times.counter.deviation(),
                "Data": times.filled().iter().map(|bucket| json!({
                    "Start": bucket.start,
                    "End": bucket.end,
                    "Percent": bucket.percent,
                    "Count": bucket.count,
                })).collect::<Vec<_>>(),
                "Percentiles": self.percentiles.iter().map(|percent| json!({
                    "Percentile": percent,
                    "Value": times.percentile(*percent),
                })).collect::<Vec<_>>(),
            },
            "RetCodes": codes,
            "SocketCount": self.threads.iter().map(|thread| thread.sockets).sum::<u64>(),
        })
    }
}
