//! The program that libFuzzer drives; `fuzz/run` builds and starts it.
//!
//! `FUZZ_TARGET` names the target. Without it the program prints a line for each one: its name and its directories of seeds.
#![no_main]

use std::sync::OnceLock;

use theater_fuzz::{Target, seeds, target, targets};

static TARGET: OnceLock<Target> = OnceLock::new();

fn choose() {
    let Ok(name) = std::env::var("FUZZ_TARGET") else {
        for target in targets::all() {
            let places = seeds::places(&target);
            let places: Vec<_> = places.iter().map(|place| place.to_string_lossy()).collect();
            println!("{} {}", target.name, places.join(" "));
        }
        std::process::exit(0);
    };
    let Some(target) = target(&name) else {
        eprintln!("FUZZ_TARGET={name}: no such target; without FUZZ_TARGET all are listed");
        std::process::exit(2);
    };
    let _ = TARGET.set(target);
}

libfuzzer_sys::fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});
