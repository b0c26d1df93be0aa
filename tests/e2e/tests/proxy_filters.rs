//! What is told about filters when an EnvoyFilter is applied is what the proxy does with them.

use std::collections::BTreeSet;
use std::path::Path;

/// The names of HTTP filters that stand in a part of a source file.
fn names(file: &str, from: &str, to: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    let text = std::fs::read_to_string(&path).expect("the file");
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("{file}: no {from}"));
    let end = text[start..]
        .find(to)
        .unwrap_or_else(|| panic!("{file}: no {to}"));
    text[start..start + end]
        .split('"')
        .filter(|part| part.starts_with("envoy.extensions.filters.http."))
        .map(str::to_owned)
        .collect()
}

#[test]
fn filters_that_are_warned_about_are_those_that_the_proxy_refuses() {
    let compiled = names(
        "crates/proxy/src/http/filters.rs",
        "impl HttpFilter {",
        "fn mutations(",
    );
    let mut told = names(
        "crates/istio-validation/src/limits.rs",
        "const HTTP_FILTERS",
        "];",
    );
    // The last filter of a connection manager is its own.
    told.remove("envoy.extensions.filters.http.router.v3.Router");
    assert_eq!(compiled, told);
    assert!(compiled.len() > 15, "{compiled:?}");
}
