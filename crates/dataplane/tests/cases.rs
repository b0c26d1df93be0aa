//! Every file of `tests/cases`: the resources of one proxy, questions, and what must come of them.

use std::collections::BTreeMap;
use std::path::Path;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::time::{Duration, UNIX_EPOCH};
use theater_dataplane::sim::{Answer, ClientTls, Entry, Question, Resources, Speech, World};

/// The same numbers in every run.
fn random() -> impl FnMut() -> u64 {
    let mut state = 42_u64;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

fn list<M: xds::Wire>(document: &Value, field: &str) -> Vec<M> {
    let values = document
        .get(field)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    values
        .into_iter()
        .map(|value| {
            xds::json::from_value(value, true).unwrap_or_else(|error| panic!("{field}: {error}"))
        })
        .collect()
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

fn question(ask: &Value) -> Question {
    let entry = match text(ask, "entry").unwrap_or("outbound") {
        "outbound" => Entry::Outbound,
        "inbound" => Entry::Inbound,
        "direct" => Entry::Direct,
        other => panic!("unknown entry {other:?}"),
    };
    let to = text(ask, "to")
        .expect("`to`: where the connection goes")
        .parse()
        .expect("an address");
    let mut question = Question::get(
        entry,
        to,
        text(ask, "host").unwrap_or_default(),
        text(ask, "path").unwrap_or("/"),
    );
    if let Some(method) = text(ask, "method") {
        question.method = method.parse().expect("a method");
    }
    for (name, value) in ask
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let value = HeaderValue::from_str(value.as_str().expect("a text")).expect("a header value");
        question
            .headers
            .append(name.parse::<HeaderName>().expect("a header name"), value);
    }
    question.speech = match text(ask, "speech").unwrap_or("http1") {
        "http1" => Speech::Http1,
        "http2" => Speech::Http2,
        "raw" => Speech::Raw,
        other => panic!("unknown speech {other:?}"),
    };
    question.tls = ask.get("tls").map(|tls| ClientTls {
        server_name: text(tls, "sni").unwrap_or_default().to_owned(),
        alpn: tls
            .get("alpn")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|v| v.as_str().expect("a text").to_owned())
            .collect(),
        identity: text(tls, "identity").map(str::to_owned),
    });
    question.now =
        UNIX_EPOCH + Duration::from_secs(ask.get("at").and_then(Value::as_u64).unwrap_or_default());
    question
}

/// The answer as the fields that a case may name.
fn seen(answer: &Answer) -> Map<String, Value> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or("?"))));
    let mut seen = Map::new();
    for (field, value) in [
        ("end", Value::from(answer.summary())),
        ("listener", text(&answer.listener)),
        ("chain", text(&answer.chain)),
        ("virtual_host", text(&answer.virtual_host)),
        ("route", text(&answer.route)),
        ("stopped_by", text(&answer.stopped_by)),
        ("cluster", text(&answer.cluster)),
        ("transport", text(&answer.transport)),
        ("authority", Value::from(answer.authority.clone())),
        ("path", Value::from(answer.path.clone())),
        (
            "delay_ms",
            answer
                .delay
                .map_or(Value::Null, |delay| Value::from(delay.as_millis() as u64)),
        ),
        ("headers", Value::Object(headers.collect())),
    ] {
        seen.insert(field.to_owned(), value);
    }
    seen
}

fn run(file: &Path, failures: &mut Vec<String>) {
    let yaml = std::fs::read_to_string(file).expect("a readable file");
    let document: Value =
        yaml_serde::from_str(&yaml).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let resources = Resources {
        listeners: list(&document, "listeners"),
        routes: list(&document, "routes"),
        clusters: list(&document, "clusters"),
        endpoints: list(&document, "endpoints"),
    };
    let (world, errors) = World::compile(&resources, 0);
    let expected: Vec<&str> = document
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if errors != expected {
        failures.push(format!(
            "{name}: errors seen {errors:#?}, expected {expected:#?}"
        ));
    }
    let mut random = random();
    for ask in document
        .get("ask")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let why = text(ask, "why").unwrap_or("(no why)");
        let question = question(ask);
        if let Some(distribution) = ask.get("distribution").and_then(Value::as_object) {
            let times = ask.get("times").and_then(Value::as_u64).unwrap_or(1000) as usize;
            let tolerance = ask.get("tolerance").and_then(Value::as_u64).unwrap_or(0);
            let counts = world.distribution(&question, times, &mut random);
            let wanted: BTreeMap<String, u64> = distribution
                .iter()
                .map(|(end, count)| (end.clone(), count.as_u64().expect("a count")))
                .collect();
            let near = counts.len() == wanted.len()
                && counts.iter().all(|(end, seen)| {
                    wanted
                        .get(end)
                        .is_some_and(|wanted| wanted.abs_diff(*seen as u64) <= tolerance)
                });
            if !near {
                failures.push(format!(
                    "{name}: {why}: seen {counts:?}, expected {wanted:?} +- {tolerance}"
                ));
            }
            continue;
        }
        let seen = seen(&world.ask(&question, &mut random));
        for (field, wanted) in ask
            .get("expect")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let have = seen
                .get(field)
                .unwrap_or_else(|| panic!("{name}: {why}: unknown field {field:?}"));
            let fits = match (have, wanted) {
                // Of the headers only those that are named count; null means absent.
                (Value::Object(have), Value::Object(wanted)) => wanted
                    .iter()
                    .all(|(name, value)| have.get(name).unwrap_or(&Value::Null) == value),
                _ => have == wanted,
            };
            if !fits {
                failures.push(format!(
                    "{name}: {why}: {field}: seen {have}, expected {wanted}"
                ));
            }
        }
    }
}

#[test]
fn every_case_comes_out_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "the cases are missing");
    let mut failures = Vec::new();
    for file in files.iter().filter(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    }) {
        run(file, &mut failures);
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
