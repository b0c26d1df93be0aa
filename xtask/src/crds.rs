//! `cargo xtask crds`: the schemas of Istio's kinds as data, derived from the structs of `api`.

use std::path::PathBuf;

use serde_json::{Map, Value};

/// Writes the file.
pub fn run() -> anyhow::Result<()> {
    std::fs::write(file(), text()?)?;
    Ok(())
}

fn file() -> PathBuf {
    crate::workspace().join("crates/api/src/istio/crd_schemas.json")
}

/// One line a field, so that changes can be read.
fn text() -> anyhow::Result<String> {
    let schemas: Map<String, Value> = api::istio::KINDS
        .iter()
        .filter_map(|info| Some((info.kind.to_owned(), api::istio::derived(info.kind)?)))
        .collect();
    Ok(serde_json::to_string_pretty(&schemas)? + "\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schemas_are_those_of_the_structs() {
        let written = std::fs::read_to_string(super::file()).expect("the committed file");
        assert!(
            written == super::text().expect("JSON"),
            "run `cargo xtask crds` and commit what it writes"
        );
    }
}
