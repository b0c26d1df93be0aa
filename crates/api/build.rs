//! Takes what Kubernetes says of its kinds and fields out of the source of `k8s-openapi`, which is built anyway and carries it as
//! documentation, for `kubectl explain`. Where that source is not found (it lies where cargo unpacks or vendors it), the descriptions
//! are left out and everything else works.
//!
//! The outcome, `descriptions.txt` in OUT_DIR: `= DEFINITION`, then a line a field: its JSON name in lower case, a tab, its description
//! with line ends as `\n`. The definition itself is the field without a name.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The version of Kubernetes whose types the workspace builds.
const VERSION: &str = "v1_33";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let mut out = String::new();
    match source() {
        Some(source) => folder(&source.join("src").join(VERSION), &mut out),
        None => println!(
            "cargo::warning=the source of k8s-openapi is not found: kubectl explain will show no descriptions"
        ),
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(target.join("descriptions.txt"), out).expect("OUT_DIR can be written");
}

/// Where the locked version of the crate is unpacked.
fn source() -> Option<PathBuf> {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).join("../..");
    let lock = fs::read_to_string(root.join("Cargo.lock")).ok()?;
    let entry = lock
        .split("[[package]]")
        .find(|p| p.contains("\nname = \"k8s-openapi\"\n"))?;
    let version = entry.split("version = \"").nth(1)?.split('"').next()?;
    let homes = [
        env::var_os("CARGO_HOME").map(PathBuf::from),
        env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")),
    ];
    let unpacked = homes.into_iter().flatten().flat_map(|home| {
        let registries = fs::read_dir(home.join("registry/src"))
            .into_iter()
            .flatten()
            .flatten();
        registries
            .map(|registry| registry.path())
            .collect::<Vec<_>>()
    });
    let named = format!("k8s-openapi-{version}");
    unpacked
        .map(|folder| folder.join(&named))
        .chain([
            root.join("vendor").join(&named),
            root.join("vendor/k8s-openapi"),
        ])
        .find(|folder| folder.join("src").join(VERSION).is_dir())
}

fn folder(path: &Path, out: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    // The same output whatever the order of the directory.
    entries.sort();
    for entry in entries {
        let name = entry
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if entry.is_dir() {
            // Versions that are not served.
            if !name.contains("alpha") && !name.contains("beta") {
                folder(&entry, out);
            }
        } else if name != "mod.rs"
            && let Ok(text) = fs::read_to_string(&entry)
        {
            file(&text, out);
        }
    }
}

/// One file holds one definition: a comment that names it, its documentation, its struct.
fn file(text: &str, out: &mut String) {
    let mut lines = text.lines();
    let Some(definition) = lines
        .next()
        .and_then(|l| l.strip_prefix("// Generated from definition "))
    else {
        return;
    };
    let _ = writeln!(out, "= {definition}");
    let (mut doc, mut inside) = (Vec::new(), false);
    for line in lines.map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            doc.push(plain(words.strip_prefix(' ').unwrap_or(words)));
            continue;
        }
        let item = line.strip_prefix("pub ");
        let field = item
            .and_then(|item| item.split_once(": "))
            .map(|(name, _)| name);
        let name = match (inside, item, field) {
            (false, Some(item), _) if item.starts_with("struct ") || item.starts_with("enum ") => {
                inside = line.ends_with('{');
                String::new()
            }
            (true, _, Some(name)) => name.replace('_', ""),
            // Attributes stand between documentation and item.
            _ if line.starts_with('#') || line.is_empty() => continue,
            _ => return,
        };
        if !doc.is_empty() {
            let _ = writeln!(out, "{name}\t{}", doc.join("\\n"));
        }
        doc.clear();
        if !inside {
            return;
        }
    }
}

/// Documentation without what keeps rustdoc from reading it as markup.
fn plain(words: &str) -> String {
    let mut out = String::new();
    let mut chars = words.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().unwrap_or(c)),
            c => out.push(c),
        }
    }
    out
}
