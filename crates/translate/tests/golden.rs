//! Compares the resources of proxies with those that the real istiod makes of the same configuration.
//!
//! The cases in `tests/golden` always run. With `THEATER_GOLDEN=<dir>` (a directory with `scenes`, `base` and `cases`) all of
//! that directory run, too: those named in `golden_passed.txt` have to pass, the others are only reported.
//! `THEATER_GOLDEN_CASE=<part of a name>` runs and explains some; `THEATER_GOLDEN_BLESS=1` writes the list anew.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use theater_translate::{
    ClusterObjects, Locality, Output, ProxyInfo, Snapshot, SnapshotInput, build,
};

const KINDS: [&str; 5] = [
    "clusters",
    "endpoints",
    "listeners",
    "routes",
    "extension_configs",
];

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

struct Golden {
    root: PathBuf,
    scenes: BTreeMap<String, Value>,
    base: BTreeMap<(String, String), Value>,
}

impl Golden {
    fn open(root: &Path) -> Self {
        let mut scenes = BTreeMap::new();
        for entry in std::fs::read_dir(root.join("scenes"))
            .expect("scenes")
            .flatten()
        {
            let name = entry
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            scenes.insert(name, read(&entry.path()).expect("scene"));
        }
        let mut base = BTreeMap::new();
        for scene in scenes.keys() {
            for entry in std::fs::read_dir(root.join("base").join(scene))
                .into_iter()
                .flatten()
                .flatten()
            {
                let proxy = entry
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                base.insert((scene.clone(), proxy), read(&entry.path()).expect("base"));
            }
        }
        Self {
            root: root.to_owned(),
            scenes,
            base,
        }
    }

    fn cases(&self) -> Vec<String> {
        let mut out: Vec<String> = std::fs::read_dir(self.root.join("cases"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        out.sort();
        out
    }

    /// The first difference of every proxy of a case, or of a scene without configuration (`base/<scene>`).
    fn check(&self, case: &str) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(scene) = case.strip_prefix("base/") {
            let input = &self.scenes[scene];
            for ((_, proxy), expected) in self.base.iter().filter(|((own, _), _)| own == scene) {
                out.extend(compare_proxy(input, &[], proxy, expected));
            }
            return out;
        }
        let dir = self.root.join("cases").join(case);
        let text = std::fs::read_to_string(dir.join("case.yaml")).expect("case.yaml");
        let scene = text
            .lines()
            .find_map(|line| line.strip_prefix("# scene:"))
            .map_or("mini", str::trim);
        let config = configuration(&text, read(&dir.join("validation.json")));
        let input = read(&dir.join("input.json")).unwrap_or_else(|| self.scenes[scene].clone());
        for entry in std::fs::read_dir(&dir).expect("case").flatten() {
            let path = entry.path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "json")
                || name == "input"
                || name == "validation"
            {
                continue;
            }
            let difference = read(&path).expect("proxy");
            let base = self
                .base
                .get(&(scene.to_owned(), name.clone()))
                .cloned()
                .unwrap_or_default();
            out.extend(compare_proxy(
                &input,
                &config,
                &name,
                &apply(base, &difference),
            ));
        }
        out
    }
}

/// Base resources with those of a case changed and removed.
fn apply(mut base: Value, difference: &Value) -> Value {
    if !base.is_object() {
        base = Value::Object(Map::new());
    }
    for kind in KINDS {
        let target = base
            .as_object_mut()
            .unwrap()
            .entry(kind)
            .or_insert_with(|| Value::Object(Map::new()));
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        let target = target.as_object_mut().unwrap();
        for name in difference["removed"][kind].as_array().into_iter().flatten() {
            target.remove(name.as_str().unwrap());
        }
        for (name, value) in difference["changed"][kind]
            .as_object()
            .into_iter()
            .flatten()
        {
            target.insert(name.clone(), value.clone());
        }
    }
    base
}

/// The objects of a case; number i was created at second i. Objects that admission refuses are left out.
fn configuration(text: &str, validation: Option<Value>) -> Vec<Arc<Value>> {
    let refused: BTreeSet<(String, String)> = validation
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|verdict| verdict.get("error").is_some() || verdict.get("parse_error").is_some())
        .map(|verdict| {
            (
                verdict["kind"].as_str().unwrap_or_default().to_owned(),
                verdict["name"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let documents = text
        .split("\n---")
        .map(|part| part.trim_start_matches("---"));
    let mut out = Vec::new();
    let mut number = 0;
    for document in documents {
        let Ok(mut object) = yaml_serde::from_str::<Value>(document) else {
            continue;
        };
        if !object.is_object() {
            continue;
        }
        let index = number;
        number += 1;
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if refused.contains(&(object["kind"].as_str().unwrap_or_default().to_owned(), name)) {
            continue;
        }
        let created = format!("2026-01-01T00:{:02}:{:02}Z", index / 60, index % 60);
        if object["metadata"].get("creationTimestamp").is_none() {
            object["metadata"]["creationTimestamp"] = Value::from(created);
        }
        if object["metadata"].get("namespace").is_none() {
            object["metadata"]["namespace"] = Value::from("default");
        }
        out.push(Arc::new(object));
    }
    out
}

fn snapshot(input: &Value, config: &[Arc<Value>], istiod: &str) -> Snapshot {
    let clusters = input["k8s"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(id, objects)| ClusterObjects {
            id: id.clone(),
            network: None,
            objects: objects
                .as_array()
                .unwrap()
                .iter()
                .cloned()
                .map(Arc::new)
                .collect(),
        })
        .collect();
    let yaml = |key: &str| input[key].as_str().filter(|text| !text.trim().is_empty());
    Snapshot::from_objects(SnapshotInput {
        config_cluster: istiod.to_owned(),
        clusters,
        config: config.to_vec(),
        mesh: yaml("mesh")
            .map(|text| yaml_serde::from_str(text).expect("mesh"))
            .unwrap_or_default(),
        networks: yaml("networks")
            .map(|text| yaml_serde::from_str(text).expect("networks"))
            .unwrap_or_default(),
        ..SnapshotInput::default()
    })
}

fn proxy_info(proxy: &Value) -> ProxyInfo {
    let part = |key: &str| {
        proxy["locality"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let locality = Locality {
        region: part("region"),
        zone: part("zone"),
        subzone: part("sub_zone"),
    };
    ProxyInfo::from_node(proxy["id"].as_str().unwrap(), &proxy["metadata"], locality).expect("node")
}

fn to_json(output: &Output) -> Value {
    fn all<M: prost::Name>(map: &BTreeMap<String, M>) -> Value {
        Value::Object(
            map.iter()
                .map(|(name, message)| (name.clone(), xds::json::to_value(message).expect("json")))
                .collect(),
        )
    }
    serde_json::json!({
        "clusters": all(&output.clusters),
        "endpoints": all(&output.endpoints),
        "listeners": all(&output.listeners),
        "routes": all(&output.routes),
        "extension_configs": all(&output.extension_configs),
    })
}

fn compare_proxy(
    input: &Value,
    config: &[Arc<Value>],
    name: &str,
    expected: &Value,
) -> Vec<String> {
    let proxy = input["proxies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|proxy| proxy["name"] == name);
    let Some(proxy) = proxy else {
        return vec![format!("{name}: no such proxy")];
    };
    let snapshot = snapshot(input, config, proxy["istiod"].as_str().unwrap_or("ctx1"));
    let output = build(&snapshot, &proxy_info(proxy));
    let actual = to_json(&output);
    let explain = std::env::var_os("THEATER_GOLDEN_CASE").is_some();
    let mut out = Vec::new();
    for kind in KINDS {
        let empty = Map::new();
        let want = expected[kind].as_object().unwrap_or(&empty);
        let got = actual[kind].as_object().unwrap();
        let names: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
        for resource in names {
            let path = format!("{name}: {kind}[{resource}]");
            let difference = match (want.get(resource), got.get(resource)) {
                (Some(want), Some(got)) => first_difference(&sorted(want), &sorted(got), path),
                (Some(_), None) => Some(format!("{path}: missing")),
                (None, Some(_)) => Some(format!("{path}: not expected")),
                (None, None) => None,
            };
            if let Some(difference) = difference {
                out.push(difference);
                if !explain {
                    return out;
                }
            }
        }
    }
    out
}

/// istiod puts the query parameters of one match in random order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let mut value = sorted(value);
                    if key == "query_parameters"
                        && let Some(list) = value.as_array_mut()
                    {
                        list.sort_by_key(Value::to_string);
                    }
                    (key.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn first_difference(want: &Value, got: &Value, path: String) -> Option<String> {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                let path = format!("{path}.{key}");
                match got.get(key) {
                    Some(other) => {
                        if let Some(difference) = first_difference(value, other, path) {
                            return Some(difference);
                        }
                    }
                    None => return Some(format!("{path}: missing, want {}", short(value))),
                }
            }
            got.iter()
                .find(|(key, _)| !want.contains_key(*key))
                .map(|(key, value)| format!("{path}.{key}: not expected, got {}", short(value)))
        }
        (Value::Array(want), Value::Array(got)) => {
            for (index, (value, other)) in want.iter().zip(got).enumerate() {
                if let Some(difference) = first_difference(value, other, format!("{path}[{index}]"))
                {
                    return Some(difference);
                }
            }
            (want.len() != got.len())
                .then(|| format!("{path}: want {} items, got {}", want.len(), got.len()))
        }
        _ if want == got => None,
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ => Some(format!("{path}: want {}, got {}", short(want), short(got))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    text.chars().take(200).collect()
}

#[test]
fn committed_cases() {
    let golden = Golden::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let mut failures = Vec::new();
    let cases: Vec<String> = golden
        .scenes
        .keys()
        .map(|scene| format!("base/{scene}"))
        .chain(golden.cases())
        .collect();
    for case in &cases {
        failures.extend(
            golden
                .check(case)
                .into_iter()
                .map(|difference| format!("{case}: {difference}")),
        );
    }
    assert!(cases.len() > 10, "the committed cases are gone");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn whole_directory() {
    let Some(root) = std::env::var_os("THEATER_GOLDEN") else {
        println!("THEATER_GOLDEN is not set: only the committed cases run");
        return;
    };
    let golden = Golden::open(Path::new(&root));
    let only = std::env::var("THEATER_GOLDEN_CASE").ok();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_passed.txt");
    let known: BTreeSet<String> = std::fs::read_to_string(&list)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let cases: Vec<String> = golden
        .scenes
        .keys()
        .map(|scene| format!("base/{scene}"))
        .chain(golden.cases())
        .collect();
    let mut passed = BTreeSet::new();
    let mut totals: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut lost = Vec::new();
    for case in cases.iter().filter(|case| {
        only.as_ref()
            .is_none_or(|part| case.contains(part.as_str()))
    }) {
        let differences =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| golden.check(case)))
                .unwrap_or_else(|_| vec!["panic".to_owned()]);
        let total = totals
            .entry(case.split(['-', '/']).next().unwrap().to_owned())
            .or_default();
        total.1 += 1;
        if differences.is_empty() {
            total.0 += 1;
            passed.insert(case.clone());
            continue;
        }
        for difference in &differences {
            println!("{case}: {difference}");
        }
        if known.contains(case) {
            lost.push(case.clone());
        }
    }
    for (prefix, (equal, all)) in &totals {
        println!("{prefix}: {equal} of {all} equal");
    }
    println!(
        "{} more pass than golden_passed.txt says",
        passed.difference(&known).count()
    );
    if std::env::var_os("THEATER_GOLDEN_BLESS").is_some() && only.is_none() {
        let text: String = passed.iter().map(|case| format!("{case}\n")).collect();
        std::fs::write(&list, text).expect("golden_passed.txt");
    }
    assert!(lost.is_empty(), "these passed before: {}", lost.join(", "));
}
