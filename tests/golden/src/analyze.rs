//! What the real `istioctl analyze` printed: `$ command`, then what it wrote and its exit code, and the same with `-o json`.
//!
//! A `.txt` file is one run: the command on its first line, then `--- stdout`, `--- stderr` and `--- exit code N`. A `.json` file beside it is the
//! standard output of the same run with `-o json`. The files it names are beside it, in `in/`, or where recordings of the courses have theirs. A name that
//! ends in `.live` was run against a cluster with the objects of `live-base.yaml`, those of [`INSTALLATION`] and those of the case; an annotation
//! `cluster` puts an object into a second cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use analysis::analyzers::Analyzer;
use analysis::{Kind, documents, yaml};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use istioctl::analyze::{Arguments, Cluster, Live};
use istioctl::{Global, Shell};
use serde_json::{Value, json};

use crate::{Outcome, entries, run};

/// What an installation brings, as far as analyzers look at it.
const INSTALLATION: &str = include_str!("analyze/installation.yaml");
/// The objects that every live case has besides.
const BASE: &str = "live-base.yaml";

/// Words with which no cluster is asked.
const NO_CLUSTER: [&str; 3] = ["--use-kube=false", "--list-analyzers", "--foo"];

/// Whether a directory has recordings of `istioctl analyze`.
#[must_use]
pub fn recognise(dir: &Path) -> bool {
    entries(dir)
        .iter()
        .any(|path| Recording::read(path).is_ok_and(|recording| recording.is_some()))
}

/// Compares all of them.
///
/// # Errors
/// A recording cannot be read.
pub fn compare(dir: &Path) -> Result<Vec<Outcome>> {
    let mut cases = Vec::new();
    gather(dir, "", &mut cases)?;
    Ok(run(cases, |case| match case.rsplit_once('/') {
        Some((below, case)) => one(&dir.join(below), case),
        None => one(dir, case),
    }))
}

/// The recordings in `dir` and the directories in it, which are `below` the one that was named.
fn gather(dir: &Path, below: &str, cases: &mut Vec<(String, String)>) -> Result<()> {
    for path in entries(dir) {
        let name = |path: &Path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            format!("{below}{name}")
        };
        if path.is_dir() {
            gather(&path, &format!("{}/", name(&path)), cases)?;
        } else if Recording::read(&path)?.is_some() {
            let name = name(&path);
            let group = if name.ends_with(".live") {
                "analyze a cluster"
            } else {
                "analyze files"
            };
            cases.push((group.to_owned(), format!("{name}.txt")));
            if path.with_extension("json").exists() {
                cases.push((group.to_owned(), format!("{name}.json")));
            }
        }
    }
    Ok(())
}

fn one(dir: &Path, case: &str) -> Result<Vec<String>> {
    let (name, format) = case.rsplit_once('.').context("a name with extension")?;
    let recording = Recording::read(&dir.join(format!("{name}.txt")))?.context("a recording")?;
    let mut arguments = recording.arguments.clone();
    if format == "json" {
        arguments.extend(["-o".to_owned(), "json".to_owned()]);
    }
    // Without a cluster, the real program says that nobody listens.
    let asks_nobody = recording.answer.stderr.contains("connection refused")
        || arguments
            .iter()
            .any(|word| NO_CLUSTER.contains(&word.as_str()));
    let answer = match name.strip_suffix(".live") {
        Some(case) => live(dir, texts_of(dir, case)?, &arguments)?,
        None if asks_nobody => of_files(dir, &recording, &arguments)?,
        None => live(&directory_of(dir, &arguments, None), Vec::new(), &arguments)?,
    };
    let mut differences = Vec::new();
    if format == "json" {
        let expected = std::fs::read_to_string(dir.join(case))?;
        // The log, which goes to the standard output too, is not in these files.
        let seen: Vec<&str> = answer
            .stdout
            .lines()
            .filter(|line| !line.contains("\twarn\t"))
            .collect();
        differ(
            "stdout",
            expected.trim_end(),
            seen.join("\n").trim_end(),
            &mut differences,
        );
    } else {
        let expected = &recording.answer;
        differ("stdout", &expected.stdout, &answer.stdout, &mut differences);
        differ("stderr", &expected.stderr, &answer.stderr, &mut differences);
        differ("exit code", &expected.code, &answer.code, &mut differences);
    }
    Ok(differences)
}

fn differ(what: &str, expected: &str, seen: &str, differences: &mut Vec<String>) {
    let (expected, seen) = (normal(expected), normal(seen));
    if expected == seen {
        return;
    }
    let (mut recorded, mut ours) = (expected.lines(), seen.lines());
    for line in 1.. {
        match (recorded.next(), ours.next()) {
            (None, None) => return,
            (expected, seen) if expected == seen => {}
            (expected, seen) => differences.push(format!(
                "{what}, line {line}: recorded {:?}, ours {:?}",
                expected.unwrap_or("nothing"),
                seen.unwrap_or("nothing")
            )),
        }
    }
}

/// Without what is different at every run: the time, and of IST0170 the cluster that is told of and the order of clusters and reasons.
fn normal(text: &str) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = match line.split_once("\twarn\t") {
                Some((_, rest)) => format!("<time>\twarn\t{rest}"),
                None => line.to_owned(),
            };
            in_order(&line).unwrap_or(line)
        })
        .collect();
    // Lines stand in the order of clusters.
    let inconsistent = |line: &String| line.contains(INCONSISTENT);
    if let Some(first) = lines.iter().position(inconsistent) {
        let count = lines[first..]
            .iter()
            .take_while(|line| inconsistent(line))
            .count();
        lines[first..first + count].sort_unstable();
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

const INCONSISTENT: &str = "is inconsistent across clusters [";

fn in_order(line: &str) -> Option<String> {
    const REASONS: &str = "The inconsistent behaviors are: ";
    let sorted = |list: &str, between: &str| {
        let parts: BTreeSet<&str> = list.split(between).collect();
        parts.into_iter().collect::<Vec<_>>().join(between)
    };
    let (before, rest) = line.split_once(INCONSISTENT)?;
    let (names, after) = rest.split_once(']')?;
    let before = match (before.find(" [cluster-"), before.find("] (")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &before[..from], &before[to + 1..]),
        _ => before.to_owned(),
    };
    let after = match after.split_once(REASONS) {
        Some((text, reasons)) => {
            let reasons = sorted(reasons.trim_end_matches('.'), "; ");
            format!("{text}{REASONS}{reasons}.")
        }
        None => after.to_owned(),
    };
    Some(format!(
        "{before}{INCONSISTENT}{}]{after}",
        sorted(names, " ")
    ))
}

/// What a program wrote.
#[derive(Debug, Default)]
struct Answer {
    stdout: String,
    stderr: String,
    code: String,
}

struct Recording {
    arguments: Vec<String>,
    /// The file that was piped into it.
    piped: Option<String>,
    answer: Answer,
}

impl Recording {
    /// The recording in a file; `None` if it is none of `istioctl analyze`, or of something besides its output.
    fn read(path: &Path) -> Result<Option<Self>> {
        if path.extension().is_none_or(|extension| extension != "txt") {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path)?;
        let Some((command, rest)) = text.split_once('\n') else {
            return Ok(None);
        };
        let Some(command) = command.strip_prefix("$ ") else {
            return Ok(None);
        };
        let (piped, command) = match command.split_once(" | ") {
            Some((source, command)) => (source.strip_prefix("cat ").map(str::to_owned), command),
            None => (None, command),
        };
        // A remark after the command tells of preparations, or that only a part was written down.
        let remark = command.contains("   (");
        let Some(arguments) = command.strip_prefix("istioctl analyze") else {
            return Ok(None);
        };
        if remark {
            return Ok(None);
        }
        let (Some(stdout), Some(stderr), Some(code)) = (
            rest.find("--- stdout\n"),
            rest.find("--- stderr\n"),
            rest.rfind("--- exit code "),
        ) else {
            bail!("{}: no stdout, stderr and exit code", path.display());
        };
        ensure!(stdout < stderr && stderr < code, "sections in order");
        Ok(Some(Self {
            arguments: words(arguments),
            piped,
            answer: Answer {
                stdout: rest[stdout + 11..stderr].to_owned(),
                stderr: rest[stderr + 11..code].to_owned(),
                code: rest[code + 14..].trim().to_owned(),
            },
        }))
    }
}

/// The words of a command, some in single quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut current: Option<String> = None;
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                current.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(current.take()),
            letter => current.get_or_insert_default().push(letter),
        }
    }
    words.extend(current);
    words
}

/// The directory with the files that a command names.
fn directory_of(dir: &Path, arguments: &[String], piped: Option<&str>) -> PathBuf {
    let named: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain(piped)
        .filter(|word| {
            Path::new(word)
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "json")
        })
        .collect();
    let candidates =
        ["in", ".", "../../spec/yaml", "../../../spec/yaml"].map(|below| dir.join(below));
    candidates
        .iter()
        .find(|candidate| {
            named.iter().any(|name| candidate.join(name).exists())
                || (named.is_empty() && candidate.is_dir())
        })
        .unwrap_or(&candidates[1])
        .clone()
}

fn of_files(dir: &Path, recording: &Recording, arguments: &[String]) -> Result<Answer> {
    let piped = recording.piped.as_deref();
    let directory = directory_of(dir, arguments, piped);
    let input = match piped {
        Some(name) => std::fs::read(directory.join(name))?,
        None => Vec::new(),
    };
    let words = std::iter::once("analyze")
        .chain(arguments.iter().map(String::as_str))
        .map(OsString::from)
        .collect();
    within(&directory, input, |shell| istioctl::run(words, shell))
}

fn within(
    directory: &Path,
    input: Vec<u8>,
    command: impl FnOnce(&mut Shell<'_>) -> u8,
) -> Result<Answer> {
    let (mut stdin, mut stdout, mut stderr) = (Cursor::new(input), Vec::new(), Vec::new());
    let code = command(&mut Shell {
        directory: directory.to_owned(),
        kubeconfig: None,
        home: None,
        settings: std::collections::BTreeMap::new(),
        terminal: false,
        stdin: &mut stdin,
        stdout: &mut stdout,
        stderr: &mut stderr,
    });
    Ok(Answer {
        stdout: String::from_utf8(stdout)?,
        stderr: String::from_utf8(stderr)?,
        code: code.to_string(),
    })
}

/// Against a cluster that is made of files: those of the case, those that every case has, and the installation.
fn live(directory: &Path, mut texts: Vec<String>, arguments: &[String]) -> Result<Answer> {
    texts.push(INSTALLATION.to_owned());
    let clusters = clusters(&texts)?;
    let words = std::iter::once("analyze").chain(arguments.iter().map(String::as_str));
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => bail!("{error}"),
    };
    within(directory, Vec::new(), |shell| {
        let read = |global: &Global, _: &Arguments, _: &[Analyzer], _: &Shell<'_>| {
            let namespace = global.namespace.as_deref().unwrap_or("default");
            let namespaces = clusters[0].objects.get(&Kind::Namespace);
            let known = namespaces
                .into_iter()
                .flatten()
                .any(|object| object["metadata"]["name"] == namespace);
            Ok(if known {
                Live::Clusters(clusters)
            } else {
                Live::NoNamespace(namespace.to_owned())
            })
        };
        istioctl::analyze::run_with(&line.global, &line.analyze, shell, read).unwrap_or(1)
    })
}

/// The command line of a live case.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    analyze: Arguments,
}

/// The objects of a live case and of every live case.
fn texts_of(dir: &Path, case: &str) -> Result<Vec<String>> {
    let mut texts = match std::fs::read_to_string(dir.join(format!("{case}.yaml"))) {
        Ok(text) => vec![text],
        Err(_) => applied(dir, case)?,
    };
    for path in [dir.join(BASE), dir.join("..").join(BASE)] {
        texts.extend(std::fs::read_to_string(path));
    }
    Ok(texts)
}

/// The files of a case that has none of its own name: those that the same case names as files, the last one first, because it was
/// applied over the others.
fn applied(dir: &Path, case: &str) -> Result<Vec<String>> {
    let recording = Recording::read(&dir.join(format!("{case}.txt")))?.context("files")?;
    let directory = directory_of(dir, &recording.arguments, None);
    recording
        .arguments
        .iter()
        .rev()
        .filter(|word| word.ends_with(".yaml"))
        .map(|name| Ok(std::fs::read_to_string(directory.join(name))?))
        .collect()
}

/// The clusters with the objects in `texts`; the first of two with one name is taken.
fn clusters(texts: &[String]) -> Result<Vec<Cluster>> {
    let mut by_name: BTreeMap<String, Cluster> = BTreeMap::new();
    // Servers choose at random, so that two clusters hardly ever choose the same.
    let mut node_port = 32_767;
    for text in texts {
        for document in documents::split(text) {
            let Some(node) = yaml::parse(document.text.trim())? else {
                continue;
            };
            let object = yaml::to_json(&node)?;
            let items = if object["kind"] == "List" {
                object["items"].as_array().cloned().unwrap_or_default()
            } else {
                vec![object]
            };
            for item in items {
                let name = item["metadata"]["annotations"]["cluster"].as_str();
                let cluster = by_name
                    .entry(name.unwrap_or_default().to_owned())
                    .or_default();
                put(cluster, as_stored(item, &mut node_port));
            }
        }
    }
    let mut clusters = Vec::new();
    for (name, mut cluster) in by_name {
        let own = name.is_empty();
        for info in analysis::KINDS {
            if !info.kind.synthetic() && (own || info.kind.in_remote_clusters()) {
                cluster.objects.entry(info.kind).or_default();
            }
        }
        let definitions = cluster.objects.get(&Kind::CustomResourceDefinition);
        let definitions = definitions.cloned().unwrap_or_default();
        istioctl::analyze::too_old(&definitions, &mut cluster.warnings);
        cluster.mesh_config_map = cluster
            .objects
            .get(&Kind::ConfigMap)
            .into_iter()
            .flatten()
            .find(|config| config["metadata"]["name"] == "istio")
            .cloned();
        cluster.remote = (!own).then_some(name);
        cluster.default_namespace = "default".to_owned();
        cluster.only_revision("default");
        clusters.push(cluster);
    }
    Ok(clusters)
}

fn put(cluster: &mut Cluster, object: Value) {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion")
        .split_once('/')
        .unwrap_or(("", text("apiVersion")));
    let Some(kind) = Kind::find(group, version, text("kind")) else {
        return;
    };
    let objects = cluster.objects.entry(kind).or_default();
    let known = objects.iter().any(|other| {
        other["metadata"]["name"] == object["metadata"]["name"]
            && other["metadata"]["namespace"] == object["metadata"]["namespace"]
    });
    if !known {
        objects.push(object);
    }
}

/// An object as the API server would store it, as far as analyzers notice.
/// `node_port` is the next one to give away.
fn as_stored(mut object: Value, node_port: &mut u16) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let cluster_wide = ["Namespace", "Node", "CustomResourceDefinition"].contains(&kind.as_str())
        || kind.ends_with("WebhookConfiguration");
    if !cluster_wide && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    if kind == "Service" {
        if object["spec"]["type"].is_null() {
            object["spec"]["type"] = json!("ClusterIP");
        }
        let on_nodes = ["NodePort", "LoadBalancer"].map(Value::from);
        let on_nodes = on_nodes.contains(&object["spec"]["type"]);
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if on_nodes && port["nodePort"].is_null() {
                port["nodePort"] = json!(*node_port);
                *node_port -= 1;
            }
            if port["protocol"].is_null() {
                port["protocol"] = json!("TCP");
            }
            if port["targetPort"].is_null() {
                port["targetPort"] = port["port"].clone();
            }
        }
    }
    if kind == "Secret" {
        use base64::Engine as _;
        let texts = object["stringData"].take();
        for (name, text) in texts.as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default();
            object["data"][name] = json!(base64::engine::general_purpose::STANDARD.encode(text));
        }
    }
    object
}
