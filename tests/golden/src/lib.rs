//! What the real Istio answered, compared with what Theater answers.
//!
//! Recorded answers lie in directories; what a directory holds is told by its content, not by its name. Each such layout is a
//! module with two functions and a row in [`LAYOUTS`]:
//!
//! - `recognise(dir)`: does this directory hold answers of this layout?
//! - `compare(dir)`: an [`Outcome`] for each case in it.
//!
//! Equal means equal: names, order where order has a meaning, every field. Whatever goes wrong with a case (a panic, a file that cannot be
//! read) makes that case different and no other ([`run`]). The directories are not known beforehand, so nothing here
//! names a case.

pub mod analyze;
pub mod difference;
pub mod istioctl;
pub mod report;
pub mod simulation;
pub mod validation;
pub mod xds;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the totals are counted by: a prefix of case names, or the name of the layout.
    pub group: String,
    /// The name of the case, as its files are called.
    pub case: String,
    /// Each path that differs, with what was recorded and what Theater says; empty: equal.
    pub differences: Vec<String>,
}

/// One kind of recorded answers.
pub struct Layout {
    /// What it is called in the report.
    pub name: &'static str,
    /// Whether a directory holds answers of this kind.
    pub recognise: fn(&Path) -> bool,
    /// Compares everything in such a directory.
    pub compare: fn(&Path) -> anyhow::Result<Vec<Outcome>>,
}

/// Every layout that is known.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        name: "xds",
        recognise: xds::recognise,
        compare: xds::compare,
    },
    Layout {
        name: "istioctl",
        recognise: istioctl::recognise,
        compare: istioctl::compare,
    },
    Layout {
        name: "validation",
        recognise: validation::recognise,
        compare: validation::compare,
    },
    Layout {
        name: "analyze",
        recognise: analyze::recognise,
        compare: analyze::compare,
    },
    Layout {
        name: "simulation",
        recognise: simulation::recognise,
        compare: simulation::compare,
    },
];

/// How many directories below the one that was named are looked into.
const DEPTH: usize = 2;

/// Compares all answers in `dir`, which is of a known layout or has directories that are.
///
/// # Errors
/// When no layout is recognised in `dir` or below it.
pub fn compare(dir: &Path) -> anyhow::Result<Vec<Outcome>> {
    let mut found = Vec::new();
    find(dir, DEPTH, &mut found);
    anyhow::ensure!(
        !found.is_empty(),
        "{}: no recorded answers of a known layout ({}) here",
        dir.display(),
        LAYOUTS
            .iter()
            .map(|layout| layout.name)
            .collect::<Vec<_>>()
            .join(", ")
    );
    let mut out = Vec::new();
    for (layout, dir) in found {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let result = caught(|| (layout.compare)(&dir));
        match result {
            Ok(outcomes) => out.extend(outcomes),
            Err(error) => out.push(Outcome {
                group: layout.name.to_owned(),
                case: name.into_owned(),
                differences: vec![format!("{error:#}")],
            }),
        }
    }
    Ok(out)
}

fn find(dir: &Path, depth: usize, found: &mut Vec<(&'static Layout, PathBuf)>) {
    let known = found.len();
    found.extend(
        LAYOUTS
            .iter()
            .filter(|layout| (layout.recognise)(dir))
            .map(|layout| (layout, dir.to_owned())),
    );
    if found.len() > known || depth == 0 {
        return;
    }
    for below in entries(dir).into_iter().filter(|path| path.is_dir()) {
        find(&below, depth - 1, found);
    }
}

/// The paths in a directory, by name; none when it cannot be read.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    out.sort();
    out
}

/// Runs `check` on each case of (group, name), several at a time. A case that fails or panics is different, and says why.
pub fn run<F>(cases: Vec<(String, String)>, check: F) -> Vec<Outcome>
where
    F: Fn(&str) -> anyhow::Result<Vec<String>> + Sync,
{
    let next = AtomicUsize::new(0);
    let out = Mutex::new(Vec::with_capacity(cases.len()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((group, case)) = cases.get(index) else {
                        return;
                    };
                    let differences =
                        caught(|| check(case)).unwrap_or_else(|error| vec![format!("{error:#}")]);
                    let outcome = Outcome {
                        group: group.clone(),
                        case: case.clone(),
                        differences,
                    };
                    out.lock()
                        .expect("no panic while held")
                        .push((index, outcome));
                }
            });
        }
    });
    let mut out = out.into_inner().expect("no panic while held");
    out.sort_by_key(|(index, _)| *index);
    out.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What `task` returns; a panic becomes an error with its message and place, and is not printed.
fn caught<T>(task: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    std::thread_local! {
        static MESSAGE: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
        static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                MESSAGE.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
    INSIDE.set(outer);
    result.unwrap_or_else(|_| {
        let message = MESSAGE.take().unwrap_or_default();
        Err(anyhow::anyhow!("{}", message.replace('\n', " ")))
    })
}
