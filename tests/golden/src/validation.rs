//! The layout `validation`: what the API server and istiod's webhook say to objects.
//!
//! - `<theme>.yaml`: documents.
//! - `<theme>.jsonl`: a line for each document: `verdict`, `kubectl` (what `kubectl create --dry-run=server` prints for it alone),
//!   `webhook_error` and `webhook_warnings` (what the webhook says to the object as pruned), `unknown_fields`.
//!
//! Each document is taken through the code that the API server and the webhook run: kinds of the CRDs, strict decoding, schema and
//! CEL rules, the webhook. It is counted twice, by its verdict and by its texts. Theater's own warnings do not count.

use crate::{Outcome, entries};
use anyhow::{Context, ensure};
use api::field::FieldError;
use api::prune::{self, Duplicates, FieldValidation};
use api::schema::ObjectSchema;
use api::scheme::ResourceInfo;
use istio_validation::Verdict;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whether `dir` has themes with recorded answers.
pub fn recognise(dir: &Path) -> bool {
    !themes(dir).is_empty()
}

fn themes(dir: &Path) -> Vec<PathBuf> {
    entries(dir)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .filter(|path| path.with_extension("jsonl").is_file())
        .collect()
}

/// Compares every document, in two groups: verdicts and texts. A case is called by theme and number, from 1.
///
/// # Errors
/// When a theme cannot be read.
pub fn compare(dir: &Path) -> anyhow::Result<Vec<Outcome>> {
    let server = Server::new();
    let mut out = Vec::new();
    for path in themes(dir) {
        let theme = path.file_stem().unwrap_or_default().to_string_lossy();
        let documents = documents(&path)?;
        let recorded = path.with_extension("jsonl");
        let lines =
            std::fs::read_to_string(&recorded).with_context(|| recorded.display().to_string())?;
        let lines: Vec<&str> = lines.lines().collect();
        ensure!(
            lines.len() == documents.len(),
            "{}: {} documents, {} answers",
            path.display(),
            documents.len(),
            lines.len()
        );
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        for (i, (document, line)) in documents.iter().zip(lines).enumerate() {
            let want: Recorded = serde_json::from_str(line)
                .with_context(|| format!("{}: line {}", recorded.display(), i + 1))?;
            let got = server.ask(document, &file);
            for (group, differences) in [
                ("validation-verdict", verdict(&want, &got)),
                ("validation-text", texts(&want, &got)),
            ] {
                out.push(Outcome {
                    group: group.into(),
                    case: format!("{theme} {}", i + 1),
                    differences,
                });
            }
        }
    }
    Ok(out)
}

fn documents(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = booleans(&text);
    let mut out = Vec::new();
    for document in yaml_serde::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).with_context(|| path.display().to_string())?;
        if !value.is_null() {
            out.push(value);
        }
    }
    Ok(out)
}

/// kubectl reads YAML 1.1, in which a bare `yes`, `no`, `on` or `off` is a boolean: they are written out here, for a reader of
/// YAML 1.2.
fn booleans(text: &str) -> String {
    const WORDS: [(&str, &str); 16] = [
        ("y", "true"),
        ("Y", "true"),
        ("yes", "true"),
        ("Yes", "true"),
        ("YES", "true"),
        ("on", "true"),
        ("On", "true"),
        ("ON", "true"),
        ("n", "false"),
        ("N", "false"),
        ("no", "false"),
        ("No", "false"),
        ("NO", "false"),
        ("off", "false"),
        ("Off", "false"),
        ("OFF", "false"),
    ];
    let line = |line: &str| {
        let mut out = String::new();
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            let end = rest[start..]
                .find(|c: char| !c.is_ascii_alphabetic())
                .map_or(rest.len(), |n| start + n);
            out.push_str(&rest[..start]);
            let before = out.trim_end();
            let opens = before.ends_with(['[', ',', '{'])
                || before.ends_with([':', '-']) && out.ends_with(' ');
            let after = rest[end..].trim_start();
            let closes = after.is_empty()
                || after.starts_with([',', ']', '}'])
                || after.starts_with('#') && rest[end..].starts_with(' ');
            let word = &rest[start..end];
            let value = WORDS.iter().find(|(w, _)| *w == word && opens && closes);
            out.push_str(value.map_or(word, |(_, value)| value));
            rest = &rest[end..];
        }
        out + rest
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Recorded {
    verdict: String,
    kubectl: String,
    webhook_error: Option<String>,
    webhook_warnings: Vec<String>,
    unknown_fields: Vec<String>,
}

/// What Theater says.
pub(crate) struct Answer {
    pub(crate) accepted: bool,
    pub(crate) kubectl: String,
    /// None where there is no such kind, and so nobody to ask.
    webhook: Option<Verdict>,
    unknown_fields: Vec<String>,
}

/// The kinds of Istio, as the API server knows them.
pub(crate) struct Server {
    kinds: Vec<(Arc<ResourceInfo>, ObjectSchema)>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let kinds = api::istio::crds()
            .iter()
            .flat_map(api::scheme::from_crd)
            .filter_map(|resource| {
                let schema = ObjectSchema::of(&resource)?;
                Some((resource, schema))
            })
            .collect();
        Self { kinds }
    }

    pub(crate) fn ask(&self, document: &Value, file: &str) -> Answer {
        let text = |pointer: &str| {
            document
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("")
        };
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        let refused = |kubectl: String| Answer {
            accepted: false,
            kubectl,
            webhook: None,
            unknown_fields: Vec::new(),
        };
        let found = self.kinds.iter().find(|(r, _)| {
            r.api_version() == version && (r.kind == kind || r.kind.to_lowercase() == kind)
        });
        let Some((resource, schema)) = found else {
            return refused(format!(
                "error: resource mapping not found for name: {name:?} namespace: {namespace:?} from {file:?}: no matches for kind {kind:?} in version {version:?}\nensure CRDs are installed first"
            ));
        };
        if let Some(why) = undecodable(resource, schema, document) {
            return refused(format!("error: unable to decode {file:?}: {why}"));
        }
        if kind != resource.kind {
            let wrong = FieldError::invalid(
                "kind",
                &document["kind"],
                format!("must be {}", resource.kind),
            );
            return refused(invalid(kind, name, &[wrong]));
        }
        let creating = format!("error when creating {file:?}");
        let mut object = document.clone();
        let warned = prune::decode(
            schema,
            &mut object,
            &Duplicates::default(),
            FieldValidation::Warn,
        );
        let unknown_fields = warned.map_or_else(
            |_| Vec::new(),
            |warnings| warnings.iter().filter_map(|w| unknown(w)).collect(),
        );
        // What was recorded of the webhook alone is about the object before defaults; in a request they come first.
        let webhook = istio_validation::validate(&object);
        if namespace.is_empty() {
            object["metadata"]["namespace"] = "default".into();
        }
        // What nobody may write who creates an object.
        if let Some(map) = object.as_object_mut() {
            map.shift_remove("status");
        }
        api::defaults::apply(schema, &mut object);
        let asked = istio_validation::validate(&object);
        let strict = prune::decode(
            schema,
            &mut document.clone(),
            &Duplicates::default(),
            FieldValidation::Strict,
        );
        let errors = api::validate::create(resource, schema, &object);
        let kubectl = if let Err(status) = strict {
            Err(format!(
                "Error from server ({}): {creating}: {}",
                status.reason, status.message
            ))
        } else if !errors.is_empty() {
            Err(invalid(kind, name, &errors))
        } else if let Some(error) = &asked.error {
            Err(format!(
                "Error from server: {creating}: admission webhook \"validation.istio.io\" denied the request: {error}"
            ))
        } else {
            let mut text = format!(
                "{}.{}/{name} created (server dry run)",
                resource.singular, resource.group
            );
            // A client prints a warning once.
            let mut told = Vec::new();
            let warnings = api::validate::finalizer_warnings(&object, None);
            for warning in warnings.into_iter().chain(asked.warnings) {
                if !told.contains(&warning) {
                    text.push_str(&format!("\nWarning: {warning}"));
                    told.push(warning);
                }
            }
            Ok(text)
        };
        Answer {
            accepted: kubectl.is_ok(),
            kubectl: kubectl.unwrap_or_else(|text| text),
            webhook: Some(webhook),
            unknown_fields,
        }
    }
}

/// Why kubectl itself cannot read an object: its metadata are not what they must be, which the server would say as well, in nearly the same words.
fn undecodable(resource: &ResourceInfo, schema: &ObjectSchema, document: &Value) -> Option<String> {
    let decoded = prune::decode(
        schema,
        &mut document.clone(),
        &Duplicates::default(),
        FieldValidation::Strict,
    );
    let message = decoded.err()?.message;
    let handled = format!(" cannot be handled as a {}: ", resource.kind);
    let (_, why) = message.split_once(&handled)?;
    let field = "Go struct field ObjectMeta.";
    (why.contains(field) || why.starts_with("parsing time"))
        .then(|| why.replace(field, &format!("{field}metadata.")))
}

/// The path in `unknown field "spec.x"`.
fn unknown(warning: &str) -> Option<String> {
    let path = warning.strip_prefix("unknown field \"")?;
    path.strip_suffix('"').map(String::from)
}

/// How kubectl prints the causes of a 422.
fn invalid(kind: &str, name: &str, errors: &[FieldError]) -> String {
    let head = format!("The {kind} {name:?} is invalid: ");
    match errors {
        [only] => format!("{head}{only}"),
        errors => errors
            .iter()
            .fold(head, |text, error| format!("{text}\n* {error}")),
    }
}

fn verdict(want: &Recorded, got: &Answer) -> Vec<String> {
    let accepted = want.verdict == "accepted";
    if accepted == got.accepted {
        return Vec::new();
    }
    vec![format!(
        "verdict: want {}, got: {}",
        want.verdict, got.kubectl
    )]
}

fn texts(want: &Recorded, got: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    let mut compare = |what: &str, want: String, got: String| {
        if want != got {
            out.push(format!("{what}: want {want:?}, got {got:?}"));
        }
    };
    compare("kubectl", unordered(&want.kubectl), unordered(&got.kubectl));
    compare(
        "unknown_fields",
        want.unknown_fields.join(", "),
        got.unknown_fields.join(", "),
    );
    if let Some(webhook) = &got.webhook {
        let error = |text: &Option<String>| unordered(text.as_deref().unwrap_or(""));
        compare(
            "webhook_error",
            error(&want.webhook_error),
            error(&webhook.error),
        );
        compare(
            "webhook_warnings",
            want.webhook_warnings.join("\n"),
            webhook.warnings.join("\n"),
        );
    }
    out
}

/// Several errors of a CRD come in no order: their lines are sorted. Go prints messages of protobuf with one space or two between
/// fields, as the build of the program has it, so that nobody relies on it. Of the two webhooks that an object of a revision is shown to, the
/// first to answer is told.
fn unordered(text: &str) -> String {
    let mut lines: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| {
            line.replace("  ", " ")
                .replace(r#""rev.validation."#, r#""validation."#)
        })
        .collect();
    if let Some(first) = lines.iter().position(|line| line.starts_with("* ")) {
        lines[first..].sort_unstable();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_booleans_as_for_kubectl() {
        for (text, want) in [
            ("hosts: [on, \"off\", one]", "hosts: [true, \"off\", one]"),
            ("a: yes # why", "a: true # why"),
            ("- no", "- false"),
            ("on: of on and off", "on: of on and off"),
            ("a: x-no", "a: x-no"),
        ] {
            assert_eq!(booleans(text), want);
        }
    }
}
