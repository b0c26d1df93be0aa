//! The layout `simulation`: configuration, questions, and what must come of them.
//!
//! A case is a YAML file. Its first document tells what is asked, the others are the objects that are added to a scene of the
//! layout `xds`, in the order of their age:
//!
//! - `shows`: the rule, in a sentence. `scene`: `mini` when absent. `mesh`: merged into the scene's mesh configuration.
//! - `ask`: requests and connections. `from` names a proxy of the scene (`client` when absent), `to` a service with its port
//!   (`ratings.other:9080`), an address with its port, or only a port of the proxy itself (`:8080`); `host` is `to` when absent, `entry` is
//!   `outbound`, for gateways `direct`, and `inbound` where it says so; `path`, `method`, `headers`, `tls`, `speech`. `expect` is how it ends or a map
//!   of the fields of [`answered`]; `shares` says in percent how often each end is met, or each value of the field `of`.
//! - `see`: a resource (`cluster`, `listener`, `route` or `endpoints`: its name) of a proxy (`of`): it `is` at least this, or is `absent`. Lists are
//!   compared entry by entry.
//! - `said`: what admission says to an object (`Kind/name`): a part of its refusal, or of its warning.
//!
//! Instead of a scene the first document may hold the `listeners`, `routes`, `clusters` and `endpoints` of one proxy, and the `errors` that
//! compiling them finds.

use crate::validation::Server;
use crate::xds::Scenes;
use crate::{Outcome, entries};
use anyhow::{Context, bail, ensure};
use dataplane::sim::{Answer, ClientTls, Entry, Question, Resources, Speech, World};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Whether `dir` has cases of this layout.
pub fn recognise(dir: &Path) -> bool {
    cases(dir).next().is_some()
}

fn cases(dir: &Path) -> impl Iterator<Item = PathBuf> {
    entries(dir).into_iter().filter(|path| {
        path.extension().is_some_and(|e| e == "yaml")
            && std::fs::read_to_string(path)
                .is_ok_and(|text| text.starts_with("shows:") || text.contains("\nshows:"))
    })
}

/// Asks every case in `dir`. The scenes are those of the directory `xds` beside it.
///
/// # Errors
/// When the scenes cannot be read.
pub fn compare(dir: &Path) -> anyhow::Result<Vec<Outcome>> {
    let scenes = Scenes::open(&dir.with_file_name("xds"))?;
    let server = Server::new();
    let files: Vec<(String, String)> = cases(dir)
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ("simulation".to_owned(), name.into_owned())
        })
        .collect();
    Ok(crate::run(files, |file| {
        let path = dir.join(file);
        let text = std::fs::read_to_string(&path)?;
        case(&text, &scenes, &server)
    }))
}

/// What of a case does not come out as written.
fn case(text: &str, scenes: &Scenes, server: &Server) -> anyhow::Result<Vec<String>> {
    let (head, objects) = text.split_once("\n---\n").unwrap_or((text, ""));
    let head: Value = yaml_serde::from_str(head).context("the first document")?;
    const KEYS: [&str; 11] = [
        "shows",
        "scene",
        "mesh",
        "ask",
        "see",
        "said",
        "listeners",
        "routes",
        "clusters",
        "endpoints",
        "errors",
    ];
    for key in head.as_object().into_iter().flatten().map(|(key, _)| key) {
        ensure!(KEYS.contains(&key.as_str()), "unknown key {key:?}");
    }
    let mut out = Vec::new();
    let refused = admission(&head, objects, server, &mut out)?;
    let mut stage = if head.get("listeners").is_some() {
        Stage::of_resources(&head, &mut out)?
    } else {
        Stage::of_scene(&head, objects, &refused, scenes)?
    };
    let list = |key: &str| head[key].as_array().cloned().unwrap_or_default();
    let (asks, sees) = (list("ask"), list("see"));
    ensure!(
        !asks.is_empty() || !sees.is_empty() || head["said"].is_object(),
        "nothing is asked"
    );
    for ask in &asks {
        let why = ask["why"].as_str().map_or_else(
            || format!("{} {}", text_or(ask, "to", ""), text_or(ask, "path", "")),
            str::to_owned,
        );
        let found = stage.ask(ask).with_context(|| why.clone())?;
        out.extend(found.into_iter().map(|line| format!("{why}: {line}")));
    }
    for see in &sees {
        out.extend(stage.see(see)?);
    }
    Ok(out)
}

/// The objects that admission refuses. What it says must be what the case expects.
fn admission(
    head: &Value,
    objects: &str,
    server: &Server,
    out: &mut Vec<String>,
) -> anyhow::Result<Vec<Value>> {
    let mut expected = head["said"].as_object().cloned().unwrap_or_default();
    let mut refused = Vec::new();
    for document in crate::xds::documents(objects) {
        let mut object: Value = yaml_serde::from_str(&document).context("an object")?;
        let group = text_or(&object, "apiVersion", "").to_owned();
        if !group.contains("istio.io/") {
            continue;
        }
        let metadata = object["metadata"].as_object_mut().context("no metadata")?;
        metadata
            .entry("namespace")
            .or_insert_with(|| "default".into());
        let kind = text_or(&object, "kind", "").to_owned();
        let name = text_or(&object["metadata"], "name", "").to_owned();
        let answer = server.ask(&object, "case.yaml");
        let what = format!("{kind}/{name}");
        match expected.remove(&what) {
            Some(part) if !answer.kubectl.contains(part.as_str().unwrap_or_default()) => out.push(
                format!("{what}: seen {:?}, expected {part}", answer.kubectl),
            ),
            None if !answer.accepted => out.push(format!("{what}: {}", answer.kubectl)),
            _ => {}
        }
        if !answer.accepted {
            refused.push(json!({"kind": kind, "name": name, "error": answer.kubectl}));
        }
    }
    out.extend(
        expected
            .keys()
            .map(|what| format!("{what} is not in the case")),
    );
    Ok(refused)
}

/// The proxies of a case and what they were sent.
struct Stage {
    /// The scene with what the case adds; null when the case holds resources.
    input: Value,
    config: Vec<std::sync::Arc<Value>>,
    /// By the name of the proxy.
    proxies: HashMap<String, Sent>,
    /// Names of pods by address.
    pods: BTreeMap<String, String>,
    random: u64,
}

/// What a proxy was sent.
struct Sent {
    /// Compiled.
    world: World,
    /// What the proxy refuses of it.
    refused: Option<String>,
    json: Value,
}

impl Stage {
    fn of_resources(head: &Value, out: &mut Vec<String>) -> anyhow::Result<Self> {
        let resources = Resources {
            listeners: list(head, "listeners")?,
            routes: list(head, "routes")?,
            clusters: list(head, "clusters")?,
            endpoints: list(head, "endpoints")?,
        };
        let (world, errors) = World::compile(&resources, 0);
        let seen: Vec<Value> = errors.iter().map(|e| e.to_string().into()).collect();
        let expected = head["errors"].as_array().cloned().unwrap_or_default();
        if seen != expected {
            out.push(format!("errors: seen {seen:?}, expected {expected:?}"));
        }
        Ok(Self {
            input: Value::Null,
            config: Vec::new(),
            proxies: HashMap::from([(
                "client".to_owned(),
                Sent {
                    world,
                    refused: None,
                    json: Value::Null,
                },
            )]),
            pods: BTreeMap::new(),
            random: 42,
        })
    }

    fn of_scene(
        head: &Value,
        objects: &str,
        refused: &[Value],
        scenes: &Scenes,
    ) -> anyhow::Result<Self> {
        let scene = text_or(head, "scene", "mini");
        let mut input = scenes.input(scene)?.clone();
        if head["mesh"].is_object() {
            let mut mesh: Value = yaml_serde::from_str(text_or(&input, "mesh", "{}"))?;
            merge(&mut mesh, &head["mesh"]);
            input["mesh"] = mesh.to_string().into();
        }
        crate::xds::add_objects(&mut input, objects)?;
        let all = input["k8s"].as_object().into_iter().flatten();
        let pods = all
            .flat_map(|(_, objects)| objects.as_array().into_iter().flatten())
            .filter(|object| object["kind"] == "Pod")
            .filter_map(|pod| {
                let address = pod["status"]["podIP"].as_str()?;
                Some((
                    address.to_owned(),
                    text_or(&pod["metadata"], "name", "").to_owned(),
                ))
            })
            .collect();
        Ok(Self {
            config: crate::xds::configuration(objects, Some(&refused.into())),
            input,
            proxies: HashMap::new(),
            pods,
            random: 42,
        })
    }

    /// The proxy of that name, made when it is first asked for.
    fn proxy(&mut self, name: &str) -> anyhow::Result<&Sent> {
        if !self.proxies.contains_key(name) {
            let proxy = crate::xds::find_proxy(&self.input, name)?;
            let seen = crate::xds::resources(&self.input, &self.config, proxy)?;
            let resources = Resources {
                listeners: list(&seen, "listeners")?,
                routes: list(&seen, "routes")?,
                clusters: list(&seen, "clusters")?,
                endpoints: list(&seen, "endpoints")?,
            };
            let (world, errors) = World::compile(&resources, 0);
            let sent = Sent {
                world,
                refused: errors.first().map(ToString::to_string),
                json: seen,
            };
            self.proxies.insert(name.to_owned(), sent);
        }
        Ok(&self.proxies[name])
    }

    fn ask(&mut self, ask: &Value) -> anyhow::Result<Vec<String>> {
        let from = text_or(ask, "from", "client").to_owned();
        let question = self.question(ask, &from)?;
        let mut state = self.random;
        let pods = self.pods.clone();
        let mut random = move || splitmix(&mut state);
        self.random += 1;
        let Sent { world, refused, .. } = self.proxy(&from)?;
        if let Some(error) = refused {
            bail!("the proxy {from} refuses what it is sent: {error}");
        }
        if let Some(shares) = ask["shares"].as_object() {
            let (times, of) = (2_000_u32, text_or(ask, "of", "end"));
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..times {
                let seen = answered(&world.ask(&question, &mut random), &pods);
                let value = match seen.get(of).with_context(|| format!("no field {of:?}"))? {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                *counts.entry(value).or_default() += 1;
            }
            let near = counts.len() == shares.len()
                && counts.iter().all(|(value, count)| {
                    shares.get(value).and_then(Value::as_f64).is_some_and(|p| {
                        let p = p / 100.0;
                        let n = f64::from(times);
                        (f64::from(*count) - p * n).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
                    })
                });
            let seen = || format!("seen {counts:?} of {times}, expected {shares:?} %");
            return Ok((!near).then(seen).into_iter().collect());
        }
        let seen = answered(&world.ask(&question, &mut random), &pods);
        let wanted = match &ask["expect"] {
            Value::Object(fields) => fields.clone(),
            Value::String(end) => Map::from_iter([("end".to_owned(), end.as_str().into())]),
            _ => bail!("`expect` or `shares` is missing"),
        };
        let mut out = Vec::new();
        for (field, wanted) in wanted {
            let have = seen
                .get(&field)
                .with_context(|| format!("unknown field {field:?}"))?;
            if !fits(have, &wanted) {
                out.push(format!("{field}: seen {have}, expected {wanted}"));
            }
        }
        Ok(out)
    }

    fn see(&mut self, see: &Value) -> anyhow::Result<Vec<String>> {
        let of = text_or(see, "of", "client").to_owned();
        let kinds = [
            ("cluster", "clusters"),
            ("listener", "listeners"),
            ("route", "routes"),
            ("endpoints", "endpoints"),
        ];
        let (kind, name) = kinds
            .iter()
            .find_map(|(key, kind)| Some((*kind, see[*key].as_str()?)))
            .context("`see` names no resource")?;
        let resources = &self.proxy(&of)?.json;
        let found = resources[kind].get(name);
        let place = format!("{of}: {kind}[{name}]");
        Ok(match (found, see["absent"] == true) {
            (None, true) => Vec::new(),
            (Some(_), true) => vec![format!("{place} is there")],
            (None, false) => vec![format!("{place} is not there")],
            (Some(found), false) => {
                ensure!(see["is"].is_object(), "{place}: `is` is missing");
                let mut out = Vec::new();
                parts(found, &see["is"], &place, &mut out);
                out
            }
        })
    }

    fn question(&self, ask: &Value, from: &str) -> anyhow::Result<Question> {
        const KEYS: [&str; 16] = [
            "why", "from", "to", "host", "entry", "path", "method", "headers", "tls", "speech",
            "expect", "shares", "of", "at", "source", "body",
        ];
        for key in ask.as_object().context("a question")?.keys() {
            ensure!(KEYS.contains(&key.as_str()), "unknown key {key:?}");
        }
        let to = ask["to"].as_str().context("`to` is missing")?;
        let gateway =
            from.contains("gateway") && self.input.is_object() && !from.starts_with("api-");
        let entry = match text_or(ask, "entry", if gateway { "direct" } else { "outbound" }) {
            "outbound" => Entry::Outbound,
            "inbound" => Entry::Inbound,
            "direct" => Entry::Direct,
            other => bail!("unknown entry {other:?}"),
        };
        let host = text_or(ask, "host", to);
        let mut question = Question::get(
            entry,
            self.address(to, from)?,
            host,
            text_or(ask, "path", "/"),
        );
        question.method = text_or(ask, "method", "GET").parse()?;
        if let Some(source) = ask["source"].as_str() {
            question.source = source.parse()?;
        }
        for (name, value) in ask["headers"].as_object().into_iter().flatten() {
            let value = HeaderValue::from_str(value.as_str().context("a header is no text")?)?;
            question.headers.append(name.parse::<HeaderName>()?, value);
        }
        question.speech = match text_or(ask, "speech", "http1") {
            "http1" => Speech::Http1,
            "http2" => Speech::Http2,
            "raw" => Speech::Raw,
            other => bail!("unknown speech {other:?}"),
        };
        question.tls = ask.get("tls").map(|tls| ClientTls {
            server_name: text_or(tls, "sni", "").to_owned(),
            alpn: tls["alpn"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            identity: tls["identity"].as_str().map(str::to_owned),
        });
        question.now = UNIX_EPOCH + Duration::from_secs(ask["at"].as_u64().unwrap_or_default());
        Ok(question)
    }

    /// Where `to` is: an address, a port of the proxy itself, or the address of a service in the proxy's cluster.
    fn address(&self, to: &str, from: &str) -> anyhow::Result<SocketAddr> {
        if let Ok(address) = to.parse() {
            return Ok(address);
        }
        let (name, port) = to.rsplit_once(':').context("`to` has no port")?;
        let proxy = crate::xds::find_proxy(&self.input, from)?;
        if name.is_empty() {
            let own = text_or(proxy, "id", "").split('~').nth(1).unwrap_or("");
            return Ok(format!("{own}:{port}").parse()?);
        }
        let (name, namespace) = match name.split_once('.') {
            Some((name, rest)) => (name, rest.split('.').next().unwrap_or_default()),
            None => (name, text_or(&proxy["metadata"], "NAMESPACE", "default")),
        };
        let objects = &self.input["k8s"][text_or(proxy, "istiod", "ctx1")];
        let service = objects.as_array().into_iter().flatten().find(|object| {
            object["kind"] == "Service"
                && object["metadata"]["name"] == name
                && object["metadata"]["namespace"] == namespace
        });
        let address = service
            .and_then(|service| service["spec"]["clusterIP"].as_str())
            .with_context(|| format!("{to}: no service with an address"))?;
        Ok(format!("{address}:{port}").parse()?)
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn text_or<'a>(value: &'a Value, field: &str, otherwise: &'a str) -> &'a str {
    value[field].as_str().unwrap_or(otherwise)
}

/// The messages of a list, or of a map by name.
fn list<M: ::xds::Wire>(document: &Value, field: &str) -> anyhow::Result<Vec<M>> {
    let values: Vec<Value> = match &document[field] {
        Value::Array(list) => list.clone(),
        Value::Object(map) => map.values().cloned().collect(),
        _ => Vec::new(),
    };
    values
        .into_iter()
        .map(|value| {
            ::xds::json::from_value(value, true).map_err(|e| anyhow::anyhow!("{field}: {e}"))
        })
        .collect()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Whether a field of an answer is as wanted: of a map only the keys that are named count, null means absent.
fn fits(have: &Value, wanted: &Value) -> bool {
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| have.get(name).unwrap_or(&Value::Null) == value),
        _ => have == wanted,
    }
}

/// Adds each place where `have` is not at least `wanted`; null means absent.
fn parts(have: &Value, wanted: &Value, place: &str, out: &mut Vec<String>) {
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                let have = have.get(key).unwrap_or(&Value::Null);
                parts(have, wanted, &format!("{place}.{key}"), out);
            }
        }
        (Value::Array(have), Value::Array(wanted)) if have.len() == wanted.len() => {
            for (i, (have, wanted)) in have.iter().zip(wanted).enumerate() {
                parts(have, wanted, &format!("{place}[{i}]"), out);
            }
        }
        _ if have == wanted => {}
        _ => out.push(format!("{place}: seen {have}, expected {wanted}")),
    }
}

/// The answer as the fields that a case may name. Addresses of pods are told by the pods' names.
fn answered(answer: &Answer, pods: &BTreeMap<String, String>) -> Map<String, Value> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let millis = |time: Option<Duration>| time.map_or(Value::Null, |t| json!(t.as_millis() as u64));
    let headers: Map<String, Value> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").into()))
        .collect();
    let mut end = answer.summary();
    if let Some((address, port)) = end.rsplit_once(':')
        && let Some(pod) = pods.get(address)
    {
        end = format!("{pod}:{port}");
    }
    let body = match &answer.end {
        dataplane::sim::End::Reply(reply) => reply.body.to_string().into(),
        _ => Value::Null,
    };
    let route = answer.forwarded_by.as_deref();
    let mirrors: Vec<String> = route
        .map_or(&[][..], |route| &route.mirrors)
        .iter()
        .map(|mirror| {
            let part =
                f64::from(mirror.fraction.numerator) / f64::from(mirror.fraction.denominator);
            format!("{} {}%", mirror.cluster, part * 100.0)
        })
        .collect();
    let times = answer.timeouts;
    let fields = [
        ("end", end.into()),
        ("body", body),
        ("listener", text(&answer.listener)),
        ("chain", text(&answer.chain)),
        ("virtual_host", text(&answer.virtual_host)),
        ("route", text(&answer.route)),
        ("stopped_by", text(&answer.stopped_by)),
        ("cluster", text(&answer.cluster)),
        ("transport", text(&answer.transport)),
        ("authority", answer.authority.clone().into()),
        ("path", answer.path.clone().into()),
        ("delay_ms", millis(answer.delay)),
        ("timeout_ms", millis(times.and_then(|t| t.global))),
        ("per_try_ms", millis(times.and_then(|t| t.per_try))),
        (
            "retries",
            route
                .and_then(|route| route.retry.as_ref())
                .map_or(Value::Null, |retry| retry.num_retries.into()),
        ),
        ("mirrors", mirrors.into()),
        ("headers", headers.into()),
    ];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
