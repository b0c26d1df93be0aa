//! `istioctl validate`: what the rules say about the objects in files, without any cluster.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use analysis::go::{self, quote};
use analysis::{Kind, documents, yaml};
use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::{Global, Shell, command, files};

/// What is typed.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Files and directories to validate; `-` is standard input
    #[arg(
        long = "filename",
        short = 'f',
        value_name = "FILE",
        value_delimiter = ','
    )]
    files: Vec<PathBuf>,
    /// Of old; accepted
    #[arg(long, short = 'x', hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    referential: Option<bool>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// Endings of files that are looked at in a directory.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Fields that an object may have.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

const REQUIREMENTS: &str = "https://istio.io/v1.30/docs/ops/deployment/requirements/";
const SELECTION: &str =
    "https://istio.io/v1.30/docs/ops/configuration/traffic-management/protocol-selection/";

const NO_FILE: &str = "error: you must specify resources by --filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'";

/// Runs the command; the exit code. Everything is told on standard error.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    if let Some(word) = arguments.rest.first() {
        return command::no_arguments(word, "validate", shell);
    }
    if arguments.files.is_empty() {
        anyhow::bail!(NO_FILE);
    }
    let rules = Rules {
        namespace: global.namespace.as_deref().unwrap_or("default"),
        istio_namespace: &global.istio_namespace,
    };
    let mut errors = Vec::new();
    let mut done: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for name in &arguments.files {
        let inside = match inside(name, shell) {
            Ok(inside) => inside,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for path in inside {
            let text = match files::read(&path, shell) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => {
                    errors.push(format!(
                        "cannot read file {}: {error}",
                        quote(&path.display().to_string())
                    ));
                    done.push((path, Vec::new()));
                    continue;
                }
            };
            let found = rules.file(&path.display().to_string(), &text);
            write!(shell.stderr, "{}", found.remarks)?;
            errors.extend(found.errors);
            done.push((path, found.warnings));
        }
    }
    for (path, warnings) in &done {
        let standard_input = path.as_os_str() == "-";
        let name = quote(&path.display().to_string());
        match (warnings.as_slice(), standard_input) {
            ([], _) if !errors.is_empty() => continue,
            ([], true) => writeln!(shell.stderr, "validation succeed")?,
            ([], false) => writeln!(shell.stderr, "{name} is valid")?,
            (warnings, true) => write!(shell.stderr, "{}", listed(warnings))?,
            (warnings, false) => {
                writeln!(shell.stderr, "{name} has warnings: {}", listed(warnings))?;
            }
        }
        if standard_input {
            break;
        }
    }
    if errors.is_empty() {
        return Ok(0);
    }
    anyhow::bail!(go::multierror(&errors))
}

fn listed(warnings: &[String]) -> String {
    warnings
        .iter()
        .map(|warning| format!("\n\t* {warning}"))
        .collect::<String>()
        + "\n"
}

/// The file itself, or the files in a directory and those below it.
fn inside(name: &Path, shell: &Shell<'_>) -> Result<Vec<PathBuf>, String> {
    if name.as_os_str() == "-" {
        return Ok(vec![name.to_owned()]);
    }
    let shown = name.display().to_string();
    let metadata = std::fs::metadata(shell.path(name)).map_err(|error| {
        format!(
            "cannot stat file {}: stat {shown}: {}",
            quote(&shown),
            files::reason(&error)
        )
    })?;
    if !metadata.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let entries = std::fs::read_dir(shell.path(name))
        .map_err(|error| format!("open {shown}: {}", files::reason(&error)))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| name.join(entry.file_name()))
        .collect();
    names.sort();
    let mut out = Vec::new();
    for below in names {
        // A link to a directory is not followed.
        let kind = std::fs::symlink_metadata(shell.path(&below)).map(|m| m.file_type());
        if kind.is_ok_and(|kind| kind.is_dir()) {
            out.extend(inside(&below, shell)?);
        } else if below
            .extension()
            .is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
        {
            out.push(below);
        }
    }
    Ok(out)
}

/// What is known besides the files.
struct Rules<'a> {
    /// Of objects that name none.
    namespace: &'a str,
    /// Where Services and Deployments are left alone.
    istio_namespace: &'a str,
}

/// What is wrong in a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// What is said at once and counts as neither.
    remarks: String,
}

impl Rules<'_> {
    /// Reads document after document; one that is no YAML ends it.
    fn file(&self, name: &str, text: &str) -> Told {
        let mut told = Told::default();
        for document in documents::split(text) {
            let object = match decoded(&document.text) {
                Ok(object) => object,
                Err(error) => {
                    told.errors
                        .push(format!("failed to decode file {name}:  {error}"));
                    break;
                }
            };
            let mut of_object = Told::default();
            self.object(&object, &mut of_object);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metadata = &object["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let prefix = format!("{}/{namespace}/{name}: ", text(&object["kind"]));
            let prefixed = |text: String| format!("{prefix}{text}");
            told.errors
                .extend(of_object.errors.into_iter().map(prefixed));
            told.warnings
                .extend(of_object.warnings.into_iter().map(prefixed));
            told.remarks.push_str(&of_object.remarks);
        }
        told
    }

    fn object(&self, object: &Value, told: &mut Told) {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion")
            .split_once('/')
            .unwrap_or(("", text("apiVersion")));
        let ours =
            group.ends_with(".istio.io") && Kind::find(group, version, text("kind")).is_some();
        let mut placed = object.clone();
        // Other metadata are told below.
        let holds_fields = placed["metadata"].is_object() || placed["metadata"].is_null();
        if ours && holds_fields && api::meta::namespace(&placed).is_empty() {
            placed["metadata"]["namespace"] = self.namespace.into();
        }
        match istio_validation::strict_findings(&placed).filter(|_| ours) {
            Some(Err(why)) => told
                .errors
                .push(format!("cannot parse proto message: {why}")),
            Some(Ok(findings)) => {
                told.errors = unknown_fields(object);
                if told.errors.is_empty() {
                    told.errors = findings.errors;
                    told.warnings = findings.warnings;
                }
            }
            None => self.of_kubernetes(object, told),
        }
    }

    /// Services and Deployments, which alone in a list are looked at too, and the outline of an IstioOperator.
    fn of_kubernetes(&self, object: &Value, told: &mut Told) {
        if object["apiVersion"] == "install.istio.io/v1alpha1" && object["kind"] == "IstioOperator"
        {
            told.errors = unknown_fields(object);
            if told.errors.is_empty() {
                told.errors.extend(unknown_of_operator(&object["spec"]));
            }
            return;
        }
        for item in object["items"].as_array().into_iter().flatten() {
            self.workload(item, told);
        }
        if told.errors.is_empty() {
            self.workload(object, told);
        }
    }

    fn workload(&self, object: &Value, told: &mut Told) {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        if namespace == self.istio_namespace {
            return;
        }
        let name = metadata["name"].as_str().unwrap_or_default();
        match object["kind"].as_str() {
            Some("Service") => ports(object, &format!("{name}/{namespace}/:"), told),
            Some("Deployment") => labels(object, &format!("{name}/{namespace}:"), told),
            _ => {}
        }
    }
}

/// Fields beside those that every object may have.
fn unknown_fields(object: &Value) -> Vec<String> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !FIELDS.contains(&name.as_str()))
        .map(|(name, _)| format!("unknown field {}", quote(name)))
        .collect()
}

/// A field that the spec of an IstioOperator does not have.
fn unknown_of_operator(spec: &Value) -> Option<String> {
    const KNOWN: [&str; 11] = [
        "profile",
        "installPackagePath",
        "hub",
        "tag",
        "namespace",
        "revision",
        "compatibilityVersion",
        "meshConfig",
        "components",
        "values",
        "unvalidatedValues",
    ];
    let names = spec.as_object().into_iter().flatten().map(|(name, _)| name);
    let unknown = names.filter(|name| !KNOWN.contains(&name.as_str())).min()?;
    Some(format!(
        "could not unmarshal: json: unknown field {}",
        quote(unknown)
    ))
}

/// The object of a document.
fn decoded(text: &str) -> Result<Value, String> {
    let converting = |error: String| format!("error converting YAML to JSON: {error}");
    let Some(node) = yaml::parse(text).map_err(|error| converting(error.to_string()))? else {
        return Ok(Value::Null);
    };
    let twice = yaml::duplicate_keys(&node);
    if !twice.is_empty() {
        let lines = twice.join("\n  ");
        return Err(converting(format!("yaml: unmarshal errors:\n  {lines}")));
    }
    let object = yaml::to_json(&node).map_err(|error| converting(error.to_string()))?;
    let what = match &object {
        Value::Null | Value::Object(_) => return Ok(object),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    Err(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
    ))
}

/// Whether a word names a protocol.
fn is_protocol(word: &str) -> bool {
    matches!(
        word.to_lowercase().as_str(),
        "tcp"
            | "udp"
            | "grpc"
            | "grpc-web"
            | "http"
            | "http_proxy"
            | "http2"
            | "https"
            | "tls"
            | "mongo"
            | "redis"
            | "mysql"
    )
}

/// Ports whose protocol nobody can tell.
fn ports(service: &Value, shown: &str, told: &mut Told) {
    let service_name = quote(shown);
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        if port["protocol"]
            .as_str()
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case("udp"))
        {
            continue;
        }
        let error = match (port["appProtocol"].as_str(), port["name"].as_str()) {
            (Some(protocol), _) if is_protocol(protocol) => continue,
            (Some(_), _) => format!(
                "service {service_name} doesn't follow Istio protocol selection. This is not recommended, See {SELECTION}"
            ),
            (None, None) => format!(
                "service {service_name} has an unnamed port. This is not recommended, See {REQUIREMENTS}"
            ),
            (None, Some(name)) if is_protocol(name.split('-').next().unwrap_or_default()) => {
                continue;
            }
            (None, Some(name)) => format!(
                "service {service_name} port {} does not follow the Istio naming convention. See {REQUIREMENTS}",
                quote(name)
            ),
        };
        told.errors.push(error);
    }
}

/// Labels of the pods from which metrics take the name and version of the workload.
fn labels(deployment: &Value, shown: &str, told: &mut Told) {
    let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object();
    let has = |names: [&str; 3]| {
        labels.is_some_and(|labels| names.iter().any(|name| labels.contains_key(*name)))
    };
    let name = [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ];
    let revision = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    if has(name) && has(revision) {
        return;
    }
    let mut pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            format!(
                "{}:{}",
                quote(name),
                quote(value.as_str().unwrap_or_default())
            )
        })
        .collect();
    pairs.sort_unstable();
    let _ = writeln!(
        told.remarks,
        "deployment {} may not provide Istio metrics and telemetry labels: map[{}]. See {REQUIREMENTS}",
        quote(shown),
        pairs.join(" ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        let rules = Rules {
            namespace: "default",
            istio_namespace: "istio-system",
        };
        rules.file("a.yaml", text)
    }

    #[test]
    fn several_objects_are_told_one_by_one() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [b, b], htpp: []}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}, {port: 81, name: web}, {port: 82, name: http-web}]}\n";
        assert_eq!(
            told(text).errors,
            [
                "VirtualService//a: cannot parse proto message: unknown field \"htpp\" in istio.networking.v1alpha3.VirtualService".to_owned(),
                format!("Service/shop/s: service \"s/shop/:\" has an unnamed port. This is not recommended, See {REQUIREMENTS}"),
                format!("Service/shop/s: service \"s/shop/:\" port \"web\" does not follow the Istio naming convention. See {REQUIREMENTS}"),
            ]
        );
    }

    #[test]
    fn a_key_that_comes_twice_ends_the_file() {
        let told = told("kind: A\nkind: B\n---\nkind: [\n");
        assert_eq!(
            told.errors,
            [
                "failed to decode file a.yaml:  error converting YAML to JSON: yaml: unmarshal errors:\n  line 2: key \"kind\" already set in map"
            ]
        );
    }
}
