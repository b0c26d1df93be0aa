//! What came of a case, without what is never the same twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// What came of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// What the client got, one for each answer.
    pub answers: Vec<String>,
    /// What the upstreams got.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// The lines of the access log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// How the stats have changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, i64>,
}

static DATE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?mi)^date: .*GMT$").unwrap());
static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?mi)^x-envoy-upstream-service-time: \d+$").unwrap());
static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
});
static AGENT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"OTel-OTLP-Exporter-Envoy/\S+").unwrap());
static LEFT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^x-envoy-expected-rq-timeout-ms: (\d+)").unwrap());
static REQUEST_ID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^x-request-id: (\S+)").unwrap());
static HASH: LazyLock<Regex> = LazyLock::new(|| Regex::new("Hash=[0-9a-f]{64}").unwrap());
static LOCAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"127\.0\.0\.1:\d+").unwrap());

/// Names instead of ports, stars instead of times and random identifiers.
pub fn mask(text: &str, upstreams: &BTreeMap<String, SocketAddr>, listener: SocketAddr) -> String {
    let mut text = text
        .replace("\r\n", "\n")
        .replace(&listener.to_string(), "{listener}");
    for (name, at) in upstreams {
        text = text.replace(&at.to_string(), &format!("{{{name}}}"));
    }
    let text = LOCAL.replace_all(&text, "127.0.0.1:*");
    let text = DATE.replace_all(&text, "date: *");
    let text = TIME.replace_all(&text, "x-envoy-upstream-service-time: *");
    let text = UUID.replace_all(&text, "{uuid}");
    let text = AGENT.replace_all(&text, "OTel-OTLP-Exporter-Envoy/*");
    let text = HASH.replace_all(&text, "Hash={hash}");
    text.into_owned()
}

/// A later try of a request has less time than the first one, how much less is another matter each time: it gets the time of the first.
pub fn same_time_for_all_tries(seen: &mut [String]) {
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    for text in seen {
        let (Some(id), Some(left)) = (REQUEST_ID.captures(text), LEFT.captures(text)) else {
            continue;
        };
        let (id, left) = (id[1].to_owned(), left[1].parse().unwrap_or(0));
        let whole = *first.entry(id).or_insert(left);
        if left < whole {
            let line = format!("x-envoy-expected-rq-timeout-ms: {whole}");
            *text = LEFT.replace(text, line).into_owned();
        }
    }
}

impl Outcome {
    /// What is different in `other`, in words; empty when nothing is.
    pub fn differences(&self, other: &Self, mine: &str, theirs: &str) -> String {
        let mut out = String::new();
        let mut lists = |what: &str, a: &[String], b: &[String]| {
            if a == b {
                return;
            }
            for index in 0..a.len().max(b.len()) {
                let nothing = "<nothing>".to_owned();
                let (a, b) = (
                    a.get(index).unwrap_or(&nothing),
                    b.get(index).unwrap_or(&nothing),
                );
                if a != b {
                    out.push_str(&format!(
                        "  {what} {}:\n{}",
                        index + 1,
                        by_line(a, b, mine, theirs)
                    ));
                }
            }
        };
        lists("answer", &self.answers, &other.answers);
        lists("to the upstreams", &self.upstream, &other.upstream);
        lists("log", &self.log, &other.log);
        for (name, value) in &self.stats {
            let seen = other.stats.get(name).copied().unwrap_or_default();
            if seen != *value {
                out.push_str(&format!("  {name}: {mine} {value}, {theirs} {seen}\n"));
            }
        }
        out
    }
}

fn by_line(a: &str, b: &str, mine: &str, theirs: &str) -> String {
    let only = |a: &str, b: &str, name: &str| -> String {
        let other: Vec<&str> = b.lines().collect();
        a.lines()
            .filter(|line| !other.contains(line))
            .map(|line| format!("    {name:>6}: {line}\n"))
            .collect()
    };
    let text = only(a, b, mine) + &only(b, a, theirs);
    if text.is_empty() {
        format!("    {mine}: {a:?}\n    {theirs}: {b:?}\n")
    } else {
        text
    }
}

/// Whether counts follow the expected shares within five standard deviations.
pub fn within(
    counts: &BTreeMap<String, usize>,
    shares: &BTreeMap<String, f64>,
) -> Result<(), String> {
    let total: usize = counts.values().sum();
    for (body, share) in shares {
        let seen = counts.get(body).copied().unwrap_or(0) as f64;
        let mean = total as f64 * share;
        let bound = 5.0 * (mean * (1.0 - share)).sqrt() + 1e-9;
        if (seen - mean).abs() > bound {
            return Err(format!(
                "{body:?}: {seen} of {total}, expected {mean:.0} ± {bound:.0}"
            ));
        }
    }
    if counts.keys().any(|body| !shares.contains_key(body)) {
        return Err(format!("unexpected answers: {counts:?}"));
    }
    Ok(())
}
