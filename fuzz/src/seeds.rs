//! The inputs that are kept: `fuzz/seeds/NAME`, and files of other tests that say the same.

use std::path::{Path, PathBuf};

use crate::Target;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The directories with a target's seeds; those that are not there are left out.
pub fn places(target: &Target) -> Vec<PathBuf> {
    let own = PathBuf::from("fuzz/seeds").join(target.name);
    std::iter::once(own)
        .chain(target.also.iter().map(PathBuf::from))
        .map(|place| repository().join(place))
        .filter(|place| place.exists())
        .collect()
}

/// A target's seeds with the files they come from, in the order of their paths.
///
/// # Panics
/// When a file cannot be read.
pub fn of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for place in places(target) {
        collect(&place, &mut files);
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let bytes =
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes)
        })
        .collect()
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_file() {
        files.push(place.to_owned());
        return;
    }
    let entries =
        std::fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    for entry in entries.flatten() {
        collect(&entry.path(), files);
    }
}
