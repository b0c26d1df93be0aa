//! Requests with the real curl.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::{Theater, stderr, stdout};

/// What came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// 0 when there was none.
    pub status: u16,
    /// Until the last byte.
    pub seconds: f64,
    /// `x-service-cluster`, empty when missing.
    pub cluster: String,
    /// `x-pod-name`, empty when missing.
    pub pod: String,
    /// `x-service-name`, empty when missing.
    pub service: String,
    /// As text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Between the fields that curl is told to write: in no JSON and no message.
const MARK: char = '\u{1e}';

const WRITE_OUT: &str = "\u{1e}%{http_code}\u{1e}%{time_total}\u{1e}%header{x-service-cluster}\u{1e}%header{x-pod-name}\u{1e}%header{x-service-name}\u{1e}";

impl Theater {
    /// The address of a path.
    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://theater.{}{path}", self.variable("DOMAIN"))
    }

    /// One GET by HTTPS.
    pub fn get(&self, path: &str) -> Answer {
        self.curl(&[], path, 1).remove(0)
    }

    /// As many GETs by HTTPS over one connection, one after another.
    pub fn get_many(&self, path: &str, count: usize) -> Vec<Answer> {
        self.curl(&[], path, count)
    }

    /// POSTs JSON.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        let options = ["-H", "content-type: application/json", "-d", body];
        self.curl(&options, path, 1).remove(0)
    }

    /// Requests with further options of curl, over one connection.
    pub fn curl(&self, options: &[&str], path: &str, count: usize) -> Vec<Answer> {
        self.curl_url(options, &self.url("https", path), count)
    }

    /// Like [`Self::curl`], with the whole address.
    pub fn curl_url(&self, options: &[&str], url: &str, count: usize) -> Vec<Answer> {
        let output = self
            .shell("curl")
            .args(["-sS", "--max-time", "60", "-w", WRITE_OUT])
            .args(options)
            // The part after # is repeated by curl and stays at home.
            .arg(format!("{url}#[1-{count}]"))
            .output()
            .expect("curl");
        let text = stdout(&output);
        let fields: Vec<&str> = text.split(MARK).collect();
        let answers: Vec<Answer> = fields
            .chunks_exact(6)
            .map(|part| Answer {
                body: part[0].to_owned(),
                status: part[1].parse().unwrap_or_default(),
                seconds: part[2].parse().unwrap_or_default(),
                cluster: part[3].to_owned(),
                pod: part[4].to_owned(),
                service: part[5].to_owned(),
            })
            .collect();
        assert_eq!(
            answers.len(),
            count,
            "curl {url}: {text}{}",
            stderr(&output)
        );
        answers
    }

    /// Requests one after another until [`Load::end`].
    pub fn load(&self, path: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let url = self.url("https", path);
        let environment: Vec<(String, String)> = ["CURL_CA_BUNDLE"]
            .map(|name| (name.to_owned(), self.variable(name).to_owned()))
            .into();
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut counts = BTreeMap::new();
            while !ended.load(Ordering::Relaxed) {
                let output = std::process::Command::new("curl")
                    .envs(environment.clone())
                    .args(["-sS", "--max-time", "60", "-o", "/dev/null"])
                    .args(["-w", "%{http_code} %{errormsg}\n"])
                    .arg(format!("{url}#[1-20]"))
                    .output()
                    .expect("curl");
                for line in stdout(&output).lines() {
                    *counts.entry(line.trim().to_owned()).or_default() += 1;
                }
            }
            counts
        });
        Load { stop, thread }
    }
}

/// Steady requests in the background.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<String, usize>>,
}

impl Load {
    /// How many answers there were of each status (with curl's error where there was none).
    pub fn end(self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load's thread")
    }
}

/// How many answers came from each cluster (empty for those of no service).
pub fn by_cluster(answers: &[Answer]) -> BTreeMap<&str, usize> {
    count(answers, |answer| answer.cluster.as_str())
}

/// How many answers there were of each kind.
pub fn count<'a, K: Ord>(
    answers: &'a [Answer],
    key: impl Fn(&'a Answer) -> K,
) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(key(answer)).or_default() += 1;
    }
    counts
}

/// Whether `seen` of `total` fits a probability: within six standard deviations.
///
/// # Panics
/// When it does not; of many million fair runs one is refused.
pub fn fits(what: &str, seen: usize, total: usize, probability: f64) {
    let n = total as f64;
    let mean = n * probability;
    let allowed = 6.0 * (n * probability * (1.0 - probability)).sqrt();
    let distance = (seen as f64 - mean).abs();
    assert!(
        distance <= allowed,
        "{what}: seen {seen} of {total}, expected {mean:.0} +- {allowed:.0}"
    );
}
