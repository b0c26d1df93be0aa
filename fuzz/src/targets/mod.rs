//! The targets, by area.

mod images;
mod kubernetes;
mod mesh;
mod proxy;
mod xds;

use crate::Target;

/// All of them.
pub fn all() -> impl Iterator<Item = Target> {
    [
        images::TARGETS,
        kubernetes::TARGETS,
        mesh::TARGETS,
        proxy::TARGETS,
        xds::TARGETS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The input as text, where only text reaches the parser.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
