//! The targets, by area.

mod control_plane;
mod credentials;
mod images;
mod istioctl;
mod kubernetes;
mod mesh;
mod proxy;
mod requests;
mod xds;

use crate::Target;

/// All of them.
pub fn all() -> impl Iterator<Item = Target> {
    [
        control_plane::TARGETS,
        credentials::TARGETS,
        images::TARGETS,
        istioctl::TARGETS,
        kubernetes::TARGETS,
        mesh::TARGETS,
        proxy::TARGETS,
        requests::TARGETS,
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

/// Whether a value has numbers with a fraction: the JSON parser may be off by the last bit of those, so they are no test of reading again.
fn has_fractions(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_f64(),
        serde_json::Value::Array(items) => items.iter().any(has_fractions),
        serde_json::Value::Object(map) => map.values().any(has_fractions),
        _ => false,
    }
}
