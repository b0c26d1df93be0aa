//! Fuzz targets: every parser that reads what somebody else wrote.
//!
//! A target is a function over bytes. It ends for any input, quickly and in bounded memory, and does not panic; where there is a
//! law (what is written is read the same, the cut of the bytes does not matter) it panics when the law is broken.
//!
//! - `cargo test` runs each target over its seeds and over some mutations of them, always the same (`tests/replay.rs`).
//! - `fuzz/run` lets libFuzzer search with the coverage of this workspace's code as its guide. What it finds becomes a seed.
//!
//! A new target is a line in the table of its area under [`targets`] and a few seeds in `fuzz/seeds/NAME`.

pub mod mutate;
pub mod seeds;
pub mod targets;

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory of seeds.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Directories of the repository, relative to its root, whose files are seeds too.
    pub also: &'static [&'static str],
}

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    targets::all().find(|target| target.name == name)
}
