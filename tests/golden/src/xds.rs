//! The layout `xds`: what istiod sends to proxies.
//!
//! - `scenes/<scene>.json`: Kubernetes objects by cluster (`k8s`), `mesh` and `networks` (YAML), and the `proxies`.
//! - `base/<scene>/<proxy>.json`: the whole answer without any Istio configuration.
//! - `cases/<case>/case.yaml`: the configuration that is added; `# scene:` in its head says to which scene (else `mini`).
//!   `input.json` replaces the scene where it is there; `validation.json` says what the webhook answered;
//!   every other `<proxy>.json` holds the resources that are `changed` (whole) and the names of those `removed`.

use crate::difference::differences;
use crate::{Outcome, entries};
use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use translate::{ClusterObjects, Locality, Output, ProxyInfo, Snapshot, SnapshotInput, build};

/// The lists of resources in an answer.
const KINDS: [&str; 5] = [
    "clusters",
    "endpoints",
    "listeners",
    "routes",
    "extension_configs",
];

/// Groups whose objects are Istio configuration; everything else in a case is in `input.json` as well.
const ISTIO: [&str; 5] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "install.istio.io",
];

/// Whether `dir` has cases of this layout, or is one.
pub fn recognise(dir: &Path) -> bool {
    dir.join("case.yaml").is_file()
        || dir.join("base").is_dir() && dir.join("scenes").is_dir()
        || entries(&dir.join("cases"))
            .iter()
            .any(|case| case.join("case.yaml").is_file())
}

/// Compares each scene without configuration (`base/<scene>`) and each case, or the one case that `dir` is.
///
/// # Errors
/// When scenes or base answers cannot be read.
pub fn compare(dir: &Path) -> anyhow::Result<Vec<Outcome>> {
    let single = dir.join("case.yaml").is_file();
    let dir = dir
        .canonicalize()
        .with_context(|| dir.display().to_string())?;
    let root = if single {
        dir.parent().and_then(Path::parent).unwrap_or(&dir)
    } else {
        &dir
    };
    let recorded = Recorded::open(root)?;
    if single {
        let case = file_name(&dir);
        return Ok(crate::run(vec![(group(&case), case)], |_| {
            recorded.case(&dir)
        }));
    }
    let mut cases: Vec<(String, String)> = entries(&root.join("base"))
        .iter()
        .map(|scene| ("base".to_owned(), format!("base/{}", file_name(scene))))
        .collect();
    cases.extend(
        entries(&root.join("cases"))
            .iter()
            .filter(|case| case.is_dir())
            .map(|case| (group(&file_name(case)), file_name(case))),
    );
    Ok(crate::run(cases, |case| match case.strip_prefix("base/") {
        Some(scene) => recorded.scene(scene),
        None => recorded.case(&root.join("cases").join(case)),
    }))
}

/// Cases are counted by what stands before the first `-` of their names.
fn group(case: &str) -> String {
    case.split('-').next().unwrap_or_default().to_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The JSON files of a directory: what they are called without `.json`, and where they are.
fn json_files(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    entries(dir).into_iter().filter_map(|path| {
        let name = file_name(&path).strip_suffix(".json")?.to_owned();
        Some((name, path))
    })
}

/// The clusters that configuration is added to, by name.
pub(crate) struct Scenes(BTreeMap<String, Value>);

impl Scenes {
    /// Reads the scenes of a directory of this layout.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let mut scenes = BTreeMap::new();
        for (name, path) in json_files(&root.join("scenes")) {
            scenes.insert(name, read(&path)?);
        }
        Ok(Self(scenes))
    }

    pub(crate) fn input(&self, scene: &str) -> anyhow::Result<&Value> {
        self.0
            .get(scene)
            .with_context(|| format!("there is no scene {scene:?}"))
    }
}

struct Recorded {
    scenes: Scenes,
    /// By scene and proxy.
    base: BTreeMap<(String, String), Value>,
}

impl Recorded {
    fn open(root: &Path) -> anyhow::Result<Self> {
        let scenes = Scenes::open(root)?;
        let mut base = BTreeMap::new();
        for dir in entries(&root.join("base")) {
            for (proxy, path) in json_files(&dir) {
                base.insert((file_name(&dir), proxy), read(&path)?);
            }
        }
        Ok(Self { scenes, base })
    }

    fn input(&self, scene: &str) -> anyhow::Result<&Value> {
        self.scenes.input(scene)
    }

    /// The differences of every proxy of a scene without configuration.
    fn scene(&self, scene: &str) -> anyhow::Result<Vec<String>> {
        let input = self.input(scene)?;
        let mut out = Vec::new();
        for ((_, proxy), expected) in self.base.iter().filter(|((own, _), _)| own == scene) {
            out.extend(compare_proxy(input, &[], proxy, expected)?);
        }
        Ok(out)
    }

    /// The differences of every proxy of a case.
    fn case(&self, dir: &Path) -> anyhow::Result<Vec<String>> {
        let case = self.load(dir)?;
        let mut out = Vec::new();
        for (proxy, path) in &case.answers {
            let base = self.base.get(&(case.scene.clone(), proxy.clone()));
            let expected = apply(base, &read(path)?);
            out.extend(compare_proxy(&case.input, &case.config, proxy, &expected)?);
        }
        Ok(out)
    }

    fn load(&self, dir: &Path) -> anyhow::Result<Case<'_>> {
        let path = dir.join("case.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let scene = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix("scene:"))
            .map_or("mini", str::trim)
            .to_owned();
        let (own, verdicts) = (dir.join("input.json"), dir.join("validation.json"));
        let verdicts = verdicts.is_file().then(|| read(&verdicts)).transpose()?;
        let input = if own.is_file() {
            Cow::Owned(read(&own)?)
        } else {
            Cow::Borrowed(self.input(&scene)?)
        };
        let answers: Vec<(String, PathBuf)> = json_files(dir)
            .filter(|(name, _)| name != "input" && name != "validation")
            .collect();
        if answers.is_empty() {
            bail!("there is no answer to any proxy");
        }
        Ok(Case {
            config: configuration(&text, verdicts.as_ref()),
            scene,
            input,
            answers,
        })
    }
}

struct Case<'a> {
    scene: String,
    input: Cow<'a, Value>,
    config: Vec<Arc<Value>>,
    /// Proxies and what was recorded for them.
    answers: Vec<(String, PathBuf)>,
}

/// What Theater makes for each proxy of each scene and case in a directory of this layout, by `case/proxy`. `change` may alter what a proxy
/// says of itself in its node metadata.
///
/// # Errors
/// When something cannot be read or made.
pub fn made(
    root: &Path,
    change: &dyn Fn(&mut Map<String, Value>),
) -> anyhow::Result<Vec<(String, Value)>> {
    let recorded = Recorded::open(root)?;
    let mut out = Vec::new();
    let mut add = |case: &str, input: &Value, config: &[Arc<Value>], proxy: &str| {
        let mut proxy = find_proxy(input, proxy)?.clone();
        if let Some(metadata) = proxy["metadata"].as_object_mut() {
            change(metadata);
        }
        let name = format!("{case}/{}", proxy["name"].as_str().unwrap_or_default());
        out.push((name, resources(input, config, &proxy)?));
        anyhow::Ok(())
    };
    for (scene, proxy) in recorded.base.keys() {
        add(scene, recorded.input(scene)?, &[], proxy)?;
    }
    for dir in entries(&root.join("cases")) {
        let case = recorded.load(&dir)?;
        for (proxy, _) in &case.answers {
            add(&file_name(&dir), &case.input, &case.config, proxy)?;
        }
    }
    Ok(out)
}

/// The base answer with what a case changed and removed.
fn apply(base: Option<&Value>, difference: &Value) -> Value {
    let mut out = Map::new();
    for kind in KINDS {
        let mut resources = base
            .and_then(|base| base[kind].as_object())
            .cloned()
            .unwrap_or_default();
        for name in difference["removed"][kind].as_array().into_iter().flatten() {
            resources.remove(name.as_str().unwrap_or_default());
        }
        let changed = difference["changed"][kind].as_object();
        resources.extend(
            changed
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        out.insert(kind.to_owned(), Value::Object(resources));
    }
    Value::Object(out)
}

/// The Istio objects of a case without those that admission refuses; the one with number i was created at second i.
pub(crate) fn configuration(text: &str, verdicts: Option<&Value>) -> Vec<Arc<Value>> {
    let refused: BTreeSet<(&str, &str)> = verdicts
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|verdict| {
            ["error", "parse_error", "unknown"]
                .iter()
                .any(|key| verdict.get(key).is_some())
        })
        .map(|verdict| {
            let text = |key: &str| verdict[key].as_str().unwrap_or_default();
            (text("kind"), text("name"))
        })
        .collect();
    let mut out = Vec::new();
    for document in documents(text) {
        let Ok(mut object) = yaml_serde::from_str::<Value>(&document) else {
            continue;
        };
        let group = object["apiVersion"].as_str().unwrap_or_default();
        let group = group.split('/').next().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        if !ISTIO.contains(&group)
            || !object["metadata"].is_object()
            || refused.contains(&(kind, name))
        {
            continue;
        }
        let number = out.len();
        let created = format!(
            "2026-01-01T{:02}:{:02}:{:02}Z",
            number / 3600,
            number / 60 % 60,
            number % 60
        );
        let metadata = object["metadata"].as_object_mut().expect("is one");
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| created.into());
        metadata
            .entry("namespace")
            .or_insert_with(|| "default".into());
        out.push(Arc::new(object));
    }
    out
}

/// Adds the objects of Kubernetes in `text` to those of their cluster: the one that the annotation `cluster` names, else the first.
///
/// # Errors
/// When something is no object.
pub(crate) fn add_objects(input: &mut Value, text: &str) -> anyhow::Result<()> {
    for document in documents(text) {
        let mut object: Value = yaml_serde::from_str(&document).context("an object")?;
        let group = object["apiVersion"].as_str().unwrap_or_default();
        if object.is_null() || ISTIO.contains(&group.split('/').next().unwrap_or_default()) {
            continue;
        }
        let metadata = object["metadata"].as_object_mut().context("no metadata")?;
        metadata
            .entry("namespace")
            .or_insert_with(|| "default".into());
        let cluster = metadata
            .get_mut("annotations")
            .and_then(|annotations| annotations.as_object_mut()?.remove("cluster"));
        let clusters = input["k8s"].as_object_mut().context("no clusters")?;
        let objects = match cluster.as_ref().and_then(Value::as_str) {
            Some(name) => clusters.get_mut(name),
            None => clusters.values_mut().next(),
        };
        objects
            .and_then(Value::as_array_mut)
            .context("no such cluster")?
            .push(object);
    }
    Ok(())
}

/// The parts between lines that are `---`.
pub(crate) fn documents(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    out
}

fn yaml<T: serde::de::DeserializeOwned + Default>(input: &Value, key: &str) -> anyhow::Result<T> {
    match input[key].as_str().filter(|text| !text.trim().is_empty()) {
        Some(text) => yaml_serde::from_str(text).with_context(|| key.to_owned()),
        None => Ok(T::default()),
    }
}

fn snapshot(input: &Value, config: &[Arc<Value>], istiod: &str) -> anyhow::Result<Snapshot> {
    let clusters = input["k8s"].as_object().context("k8s is not an object")?;
    let clusters = clusters
        .iter()
        .map(|(id, objects)| ClusterObjects {
            id: id.clone(),
            network: None,
            objects: objects
                .as_array()
                .into_iter()
                .flatten()
                .cloned()
                .map(Arc::new)
                .collect(),
        })
        .collect();
    Ok(Snapshot::from_objects(SnapshotInput {
        config_cluster: istiod.to_owned(),
        clusters,
        config: config.to_vec(),
        mesh: yaml(input, "mesh")?,
        networks: yaml(input, "networks")?,
        ..SnapshotInput::default()
    }))
}

fn proxy_info(proxy: &Value) -> anyhow::Result<ProxyInfo> {
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
    let id = proxy["id"].as_str().context("a proxy without id")?;
    Ok(ProxyInfo::from_node(id, &proxy["metadata"], locality)?)
}

fn to_json(output: &Output) -> anyhow::Result<Value> {
    fn all<M: xds::Wire>(map: &BTreeMap<String, M>) -> anyhow::Result<Value> {
        let values = map
            .iter()
            .map(|(name, message)| Ok((name.clone(), ::xds::json::to_value(message)?)));
        Ok(Value::Object(values.collect::<anyhow::Result<_>>()?))
    }
    Ok(serde_json::json!({
        "clusters": all(&output.clusters)?,
        "endpoints": all(&output.endpoints)?,
        "listeners": all(&output.listeners)?,
        "routes": all(&output.routes)?,
        "extension_configs": all(&output.extension_configs)?,
    }))
}

pub(crate) fn find_proxy<'a>(input: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    input["proxies"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|proxy| proxy["name"] == name)
        .with_context(|| format!("{name}: there is no such proxy"))
}

/// What Theater makes for a proxy.
pub(crate) fn resources(
    input: &Value,
    config: &[Arc<Value>],
    proxy: &Value,
) -> anyhow::Result<Value> {
    let snapshot = snapshot(input, config, proxy["istiod"].as_str().unwrap_or("ctx1"))?;
    to_json(&build(&snapshot, &proxy_info(proxy)?))
}

fn compare_proxy(
    input: &Value,
    config: &[Arc<Value>],
    name: &str,
    expected: &Value,
) -> anyhow::Result<Vec<String>> {
    let actual = resources(input, config, find_proxy(input, name)?)?;
    let mut out = Vec::new();
    for kind in KINDS {
        let empty = Map::new();
        let want = expected[kind].as_object().unwrap_or(&empty);
        let got = actual[kind].as_object().unwrap_or(&empty);
        let names: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
        for resource in names {
            let path = format!("{name}: {kind}[{resource}]");
            match (want.get(resource), got.get(resource)) {
                (Some(want), Some(got)) => {
                    out.extend(differences(&normal(want), &normal(got), &path));
                }
                (Some(_), None) => out.push(format!("{path}: missing")),
                (None, Some(_)) => out.push(format!("{path}: not expected")),
                (None, None) => {}
            }
        }
    }
    Ok(out)
}

/// A resource without the order that istiod itself leaves to chance: query parameters of one match.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let mut value = normal(value);
                    if key == "query_parameters"
                        && let Some(list) = value.as_array_mut()
                    {
                        list.sort_by_key(Value::to_string);
                    }
                    (key.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        other => other.clone(),
    }
}
