//! Everything that a real istiod sent must compile; with a few bytes of it changed, it compiles or is refused.
//!
//! `THEATER_RECORDED_XDS` names a folder of JSON files `{listeners: {name: ...}, routes, clusters, endpoints}`
//! (or the same under `changed`); without it there is nothing to check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use theater_dataplane::formatter::Formatter;
use theater_dataplane::sim::{Resources, World};
use xds::Wire;
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            found.push(path);
        }
    }
}

/// What Envoy refuses, too, and what is not supported yet.
const KNOWN: [&str; 3] = [
    "has the same matching rules as filter_chains[0]",
    "is missing: give route, redirect or direct_response",
    "is not carried out by this proxy; remove it",
];

type Problems = BTreeMap<String, Vec<String>>;

fn list<M: xds::Wire>(document: &Value, field: &str, problems: &mut Problems) -> Vec<M> {
    let values = document
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|values| values.iter());
    let mut messages = Vec::new();
    for (name, value) in values {
        match xds::json::from_value(value.clone(), false) {
            Ok(message) => messages.push(message),
            Err(error) => problems
                .entry(error.to_string())
                .or_default()
                .push(format!("{field} {name}")),
        }
    }
    messages
}

/// Every access log format in it must compile as well.
fn formats(value: &Value, problems: &mut Problems) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| formats(value, problems)),
        Value::Object(fields) => {
            let kind = fields
                .get("@type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if kind.ends_with("FileAccessLog") {
                let mut message = fields.clone();
                message.remove("@type");
                let log: FileAccessLog =
                    xds::json::from_value(Value::Object(message), false).expect("a FileAccessLog");
                if let Err(error) = Formatter::of_file_log(&log) {
                    problems
                        .entry(error.problem.clone())
                        .or_default()
                        .push(error.to_string());
                }
            }
            fields.values().for_each(|value| formats(value, problems));
        }
        _ => {}
    }
}

#[test]
fn what_a_real_istiod_sends_compiles() {
    let Some(folder) = std::env::var_os("THEATER_RECORDED_XDS") else {
        return;
    };
    let mut found = Vec::new();
    files(Path::new(&folder), &mut found);
    let mut problems = Problems::new();
    let mut resources_seen = 0;
    for file in &found {
        let Ok(document) =
            serde_json::from_slice::<Value>(&std::fs::read(file).expect("a readable file"))
        else {
            continue;
        };
        let document = document.get("changed").unwrap_or(&document);
        if document.get("listeners").is_none()
            && document.get("clusters").is_none()
            && document.get("routes").is_none()
        {
            continue;
        }
        let resources = Resources {
            listeners: list(document, "listeners", &mut problems),
            routes: list(document, "routes", &mut problems),
            clusters: list(document, "clusters", &mut problems),
            endpoints: list(document, "endpoints", &mut problems),
        };
        formats(document, &mut problems);
        resources_seen += resources.listeners.len()
            + resources.routes.len()
            + resources.clusters.len()
            + resources.endpoints.len();
        for error in World::compile(&resources, 0).1 {
            problems
                .entry(error.problem.clone())
                .or_default()
                .push(format!("{}: {error}", file.display()));
        }
    }
    println!("{} files, {resources_seen} resources", found.len());
    problems.retain(|problem, _| !KNOWN.iter().any(|known| problem.contains(known)));
    assert!(
        problems.is_empty(),
        "{:#?}",
        problems
            .iter()
            .map(|(problem, at)| (problem, at.len(), &at[0]))
            .collect::<Vec<_>>()
    );
}

/// Always the same numbers (xorshift): a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("below a usize")
    }

    /// The message as it would come with a few bytes changed, removed, doubled or cut off; `None` when it is no message any more.
    fn spoiled<M: Wire>(&mut self, message: &M) -> Option<M> {
        let mut bytes = message.to_wire();
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = u8::try_from(self.below(256)).expect("a byte"),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
        M::from_wire(&bytes).ok()
    }
}

#[test]
fn broken_resources_compile_or_are_refused() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/xds/base/mini");
    let mut found = Vec::new();
    files(&folder, &mut found);
    assert!(!found.is_empty(), "no recordings in {}", folder.display());
    let (mut random, mut compiled, mut refused) = (Random(0x5eed), 0, 0);
    for file in &found {
        let text = std::fs::read(file).expect("a readable file");
        let document: Value = serde_json::from_slice(&text).expect("JSON");
        let mut problems = Problems::new();
        let good = Resources {
            listeners: list(&document, "listeners", &mut problems),
            routes: list(&document, "routes", &mut problems),
            clusters: list(&document, "clusters", &mut problems),
            endpoints: list(&document, "endpoints", &mut problems),
        };
        for _ in 0..8 {
            let broken = Resources {
                listeners: good
                    .listeners
                    .iter()
                    .filter_map(|m| random.spoiled(m))
                    .collect(),
                routes: good
                    .routes
                    .iter()
                    .filter_map(|m| random.spoiled(m))
                    .collect(),
                clusters: good
                    .clusters
                    .iter()
                    .filter_map(|m| random.spoiled(m))
                    .collect(),
                endpoints: good
                    .endpoints
                    .iter()
                    .filter_map(|m| random.spoiled(m))
                    .collect(),
            };
            compiled += broken.listeners.len() + broken.routes.len() + broken.clusters.len();
            refused += World::compile(&broken, 0).1.len();
        }
    }
    assert!(
        refused > 50 && compiled > 2 * refused,
        "{compiled} compiled, {refused} refused"
    );
}
