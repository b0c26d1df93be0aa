//! Each target over its seeds and over mutations of them, always the same ones.
//!
//! `FUZZ_MUTANTS=N` changes their number for each seed, `FUZZ_ONLY=NAME` runs one target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use theater_fuzz::mutate::{Random, mutate};
use theater_fuzz::{Target, seeds, targets};

/// The stack of a thread that serves requests (Tokio's default): nesting must end before it does.
const STACK: usize = 2 << 20;

/// Mutations of each seed where the environment does not say otherwise.
const MUTANTS: usize = 40;

fn check(target: &Target, mutants: usize, failures: &mut Vec<String>) {
    let seeds = seeds::of(target);
    if seeds.is_empty() {
        failures.push(format!("{}: no seeds in fuzz/seeds/{0}", target.name));
        return;
    }
    for (path, seed) in &seeds {
        if !passes(target, seed) {
            failures.push(format!("{}: fails for {}", target.name, path.display()));
        }
    }
    let mut random = Random::new(target.name.bytes().map(u64::from).sum());
    for (path, seed) in &seeds {
        for _ in 0..mutants {
            let other = &seeds[random.below(seeds.len())].1;
            let input = mutate(seed, other, &mut random);
            if !passes(target, &input) {
                let file = format!("{}/fuzz-{}", env!("CARGO_TARGET_TMPDIR"), target.name);
                std::fs::write(&file, &input).expect("the input is written");
                failures.push(format!(
                    "{}: fails for a mutation of {}, now in {file}",
                    target.name,
                    path.display()
                ));
                return;
            }
        }
    }
}

fn passes(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

#[test]
fn targets_take_their_seeds_and_mutations_of_them() {
    let mutants = std::env::var("FUZZ_MUTANTS")
        .ok()
        .map_or(MUTANTS, |n| n.parse().expect("FUZZ_MUTANTS is a number"));
    let only = std::env::var("FUZZ_ONLY").ok();
    let chosen: Vec<Target> = targets::all()
        .filter(|target| only.as_deref().is_none_or(|only| only == target.name))
        .collect();
    assert!(!chosen.is_empty(), "no target is called {only:?}");
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut failures = Vec::new();
        while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            // A thread with the target's name: that is what is printed when a stack overflows.
            std::thread::scope(|scope| {
                std::thread::Builder::new()
                    .name(target.name.to_owned())
                    .stack_size(STACK)
                    .spawn_scoped(scope, || check(target, mutants, &mut failures))
                    .expect("a thread starts");
            });
            println!("{}: {:.1?}", target.name, started.elapsed());
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("targets are caught"))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn seeds_belong_to_targets_and_names_are_used_once() {
    let mut names: Vec<_> = targets::all().map(|target| target.name).collect();
    let directories = std::fs::read_dir(seeds::repository().join("fuzz/seeds"))
        .expect("fuzz/seeds is there")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    for directory in directories {
        assert!(
            names.contains(&directory.as_str()),
            "fuzz/seeds/{directory}: no such target"
        );
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two targets have the same name");
}
