//! Objects from files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Reads files, directories (with everything below that ends in .yaml, .yml or .json) and standard input. Lists are
/// taken apart.
pub(super) fn read(names: &[PathBuf]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for name in names {
        if name.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("standard input")?;
            parse(&text, "standard input", &mut objects)?;
        } else {
            one(name, &mut objects)?;
        }
    }
    Ok(objects)
}

fn one(path: &Path, objects: &mut Vec<Value>) -> Result<()> {
    let shown = path.display().to_string();
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).with_context(|| shown.clone())?;
        return parse(&text, &shown, objects);
    }
    let mut below: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| shown)?;
    below.sort();
    for path in below {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let readable = ["yaml", "yml", "json"]
            .iter()
            .any(|ending| path.extension().is_some_and(|of| of == *ending));
        if path.is_dir() || readable && !name.starts_with("kustomization") {
            one(&path, objects)?;
        }
    }
    Ok(())
}

/// The documents of a text; empty ones are skipped.
fn parse(text: &str, file: &str, objects: &mut Vec<Value>) -> Result<()> {
    let mut line = 1;
    let mut document = String::new();
    for part in text.split_inclusive('\n').map(Some).chain([None]) {
        match part {
            Some(part) if part.trim_end() != "---" => document.push_str(part),
            _ => {
                let lines = document.matches('\n').count();
                take(&document, objects)
                    .with_context(|| format!("{file}, document at line {line}"))?;
                line += lines + 1;
                document.clear();
            }
        }
    }
    Ok(())
}

fn take(document: &str, objects: &mut Vec<Value>) -> Result<()> {
    let value: Value = yaml_serde::from_str(document)?;
    if value.is_null() {
        return Ok(());
    }
    if value["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"))
        && let Some(items) = value["items"].as_array()
    {
        objects.extend(items.iter().cloned());
        return Ok(());
    }
    for field in ["apiVersion", "kind"] {
        if !value[field].is_string() {
            bail!("{field} is missing: this is no Kubernetes object");
        }
    }
    if api::meta::name(&value).is_empty() {
        bail!("{}: metadata.name is missing", value["kind"]);
    }
    objects.push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart_and_mistakes_have_a_place() {
        let mut objects = Vec::new();
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: List\nitems:\n- {kind: Pod}\n- {kind: Pod}\n";
        parse(text, "f", &mut objects).unwrap();
        assert_eq!(objects.len(), 3);
        let error = format!(
            "{:#}",
            parse("a: 1\n---\nb: [\n", "f", &mut objects).unwrap_err()
        );
        assert_eq!(
            error,
            "f, document at line 1: apiVersion is missing: this is no Kubernetes object"
        );
        let error = format!(
            "{:#}",
            parse("\n---\nb: [\n", "f", &mut objects).unwrap_err()
        );
        assert!(error.starts_with("f, document at line 3: "), "{error}");
    }
}
