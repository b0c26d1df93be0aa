//! The case files: what they may say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// One file: cases that share clusters, upstreams and settings, and run in one process of each proxy.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// Servers beyond the standard ones (see [`crate::upstream`]).
    #[serde(default)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Clusters for all cases, in Envoy's form with the shorthands of [`crate::bootstrap`].
    #[serde(default)]
    pub clusters: Vec<Value>,
    /// Fields of the connection manager for all cases.
    #[serde(default)]
    pub http: Map<String, Value>,
    /// HTTP filters before the router for all cases.
    #[serde(default)]
    pub filters: Vec<Value>,
    /// Routes behind those of each case.
    #[serde(default)]
    pub routes: Vec<Value>,
    /// Fields of the bootstrap (`layered_runtime`, `cluster_manager`, …).
    #[serde(default)]
    pub bootstrap: Map<String, Value>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case: a listener of its own, what is sent to it, and what is compared.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The behaviour, as a sentence.
    pub name: String,
    #[serde(default)]
    pub clusters: Vec<Value>,
    #[serde(default)]
    pub http: Map<String, Value>,
    #[serde(default)]
    pub filters: Vec<Value>,
    /// Routes of the virtual host `*`.
    #[serde(default)]
    pub routes: Vec<Value>,
    /// Further fields of that virtual host.
    #[serde(default)]
    pub virtual_host: Map<String, Value>,
    /// Instead of that virtual host.
    #[serde(default)]
    pub virtual_hosts: Vec<Value>,
    /// Further fields of the route configuration.
    #[serde(default)]
    pub route_config: Map<String, Value>,
    /// Fields of the listener.
    #[serde(default)]
    pub listener: Map<String, Value>,
    /// A `DownstreamTlsContext`.
    pub tls: Option<Value>,
    /// Network filters instead of the connection manager.
    pub network: Option<Vec<Value>>,
    /// What the upstreams answer, in this order; afterwards 200 and their name.
    #[serde(default)]
    pub answers: Vec<AnswerSpec>,
    /// What is sent.
    pub send: Vec<Step>,
    /// Counters and gauges whose change is compared; `http.` stands for the prefix of the case's listener.
    #[serde(default)]
    pub stats: Vec<String>,
    /// The access log format instead of the usual one; an empty one compares no log.
    pub log: Option<String>,
    /// The filter of that log.
    pub log_filter: Option<Value>,
    /// Access logs beside it.
    #[serde(default)]
    pub access_logs: Vec<Value>,
    /// Ours is different on purpose.
    pub differs: Option<Differs>,
    /// Ours is the same or stricter ([`crate::bytes`]).
    #[serde(skip)]
    pub stricter: bool,
}

/// A deliberate difference.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// Why.
    pub because: String,
    /// What our answers begin with, all of them; none where only logs or upstreams differ.
    #[serde(default)]
    pub answers: Vec<String>,
}

/// A server of the test.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// It speaks HTTP/2.
    pub http2: bool,
    /// It shows this certificate (a file of [`crate::certs`]).
    pub tls: Option<String>,
    /// It wants a client certificate.
    pub client_certificate: bool,
    /// Nobody listens there.
    pub refused: bool,
    /// Sends every byte back.
    pub echo: bool,
    /// It takes access logs over gRPC, Envoy's and OpenTelemetry's: what is seen are entries.
    pub logs: bool,
}

/// One answer of an upstream: a status, or more.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum AnswerSpec {
    Status(u16),
    Full(Box<AnswerFull>),
}

/// An answer in full.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerFull {
    /// Only from this upstream.
    pub from: Option<String>,
    /// Only to requests whose path contains this.
    pub path: Option<String>,
    /// So many times; once by default, 0 for always.
    pub times: Option<u32>,
    pub status: Option<u16>,
    pub headers: Vec<String>,
    pub body: Option<String>,
    /// The body is repeated so many times.
    pub body_times: Option<usize>,
    /// In chunks, one each; HTTP/2: one DATA frame each.
    pub chunks: Vec<String>,
    pub trailers: Vec<String>,
    /// Interim answers before.
    pub interim: Vec<u16>,
    /// Milliseconds before the head.
    pub delay: u64,
    /// The head is kept back until a stat of the proxy says so.
    pub until: Option<Wait>,
    /// Milliseconds between head and body.
    pub body_delay: u64,
    /// `close`, `reset`, `hang` or, HTTP/2, `refuse`: instead of an answer, or after `cut` bytes of it.
    pub then: Option<String>,
    /// Bytes of the answer that are sent before `then`.
    pub cut: Option<usize>,
    /// The very bytes, HTTP/1.
    pub raw: Option<String>,
}

impl AnswerSpec {
    /// In full.
    pub fn full(&self) -> AnswerFull {
        match self {
            Self::Status(status) => AnswerFull {
                status: Some(*status),
                ..AnswerFull::default()
            },
            Self::Full(full) => (**full).clone(),
        }
    }
}

/// One thing that is done: `GET /path`, a request, or something else.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Short(String),
    Wait { wait: Wait },
    Parallel { parallel: Vec<Step> },
    Frames { frames: Vec<String> },
    Request(Box<RequestSpec>),
}

/// A condition that is waited for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// So many requests have come to the upstreams since the case began.
    pub seen: Option<usize>,
    /// The upstreams have so many texts to show, which are complete requests or what the log service was told.
    pub told: Option<usize>,
    /// A stat …
    pub stat: Option<String>,
    /// … has changed by so much since the case began.
    pub changed: Option<i64>,
    /// … has this value.
    pub is: Option<i64>,
    /// So many milliseconds of real time, where the behaviour is time itself.
    pub time: Option<u64>,
}

/// A request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestSpec {
    pub method: Option<String>,
    pub path: Option<String>,
    pub host: Option<String>,
    /// `Name: value` each.
    pub headers: Vec<String>,
    pub body: Option<String>,
    /// The body is repeated so many times.
    pub body_times: Option<usize>,
    /// The body in chunks (HTTP/2: frames).
    pub chunks: Vec<String>,
    pub trailers: Vec<String>,
    pub http2: bool,
    pub tls: Option<ClientTls>,
    /// The same again, so many times in all, each on its own connection.
    pub repeat: Option<usize>,
    /// With `repeat`: the share of each body that is expected, within statistical bounds, of both proxies.
    pub tally: BTreeMap<String, f64>,
    /// The very bytes instead.
    pub raw: Option<String>,
    /// The very bytes in parts.
    pub parts: Vec<Part>,
    /// How many answers are read; one by default.
    pub answers: Option<usize>,
    /// The connection is closed when this many requests have come to the upstreams.
    pub hang_up_when_seen: Option<usize>,
    /// Text that is repeated in `raw` where it says `{pad}`: (text, times).
    pub pad: Option<(String, usize)>,
}

/// Part of a raw request.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Part {
    Text(String),
    /// Waits until the answer contains this.
    Until {
        until: String,
    },
    /// Waits for this.
    Wait {
        wait: Wait,
    },
    /// Milliseconds of real time, where the behaviour is time itself.
    Time {
        time: u64,
    },
    /// Ends our direction.
    Shut {
        #[expect(dead_code, reason = "its presence says it")]
        shut: bool,
    },
}

/// How the client speaks TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    /// The client's certificate (a file of [`crate::certs`]).
    pub certificate: Option<String>,
}

/// A scene with its place.
pub struct Loaded {
    pub name: String,
    pub path: PathBuf,
    pub scene: Scene,
}

/// Where the cases are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/cases")
}

/// All scenes whose name contains `filter`.
pub fn load(filter: &str) -> Vec<Loaded> {
    let mut files = Vec::new();
    for theme in std::fs::read_dir(directory()).expect("the cases") {
        let theme = theme.unwrap().path();
        if !theme.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&theme).unwrap() {
            let path = file.unwrap().path();
            let text = path.to_string_lossy();
            if text.ends_with(".yaml") && !text.ends_with(".envoy.yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
        .into_iter()
        .filter_map(|path| {
            let name = path
                .strip_prefix(directory())
                .unwrap()
                .with_extension("")
                .to_string_lossy()
                .into_owned();
            if !name.contains(filter) {
                return None;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let scene: Scene =
                yaml_serde::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut names = std::collections::HashSet::new();
            for case in &scene.cases {
                assert!(
                    names.insert(&case.name),
                    "{name}: two cases {:?}",
                    case.name
                );
            }
            Some(Loaded { name, path, scene })
        })
        .collect()
}
