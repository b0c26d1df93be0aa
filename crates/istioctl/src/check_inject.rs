//! `istioctl x check-inject`: whether the injection webhooks take a pod, and why.

use anyhow::{Result, bail};
use api::selector::LabelSelector;
use clap::Args;
use kube_client::{NAMESPACES, PODS};
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime, command};

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A pod, or what has one: [TYPE/]NAME[.NAMESPACE]
    pod: Vec<String>,
    /// Labels of a pod that is not there yet: NAME=VALUE,...
    #[arg(long, short, value_name = "LABELS", default_value = "")]
    labels: String,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let several = arguments.pod.len() > 1;
    if several || arguments.pod.is_empty() && arguments.labels.is_empty() {
        writeln!(
            shell.stderr,
            "{}",
            command::help(&["experimental", "check-inject"])
        )?;
        bail!(
            "check-inject requires only [<resource-type>/]<resource-name>[.<namespace>], or specify labels flag"
        );
    }
    let mesh = Mesh::connect(global, shell)?;
    let checked = async_runtime()?.block_on(async {
        let (labels, namespace) = match arguments.pod.first() {
            Some(named) => {
                let (name, namespace) = mesh.pod(named).await?;
                let pod = mesh.client.get(&PODS, Some(&namespace), &name).await?;
                (pod["metadata"]["labels"].clone(), namespace)
            }
            None => (pairs(&arguments.labels)?, mesh.namespace().to_owned()),
        };
        let namespace = mesh.client.get(&NAMESPACES, None, &namespace).await?;
        let webhooks = mesh.webhooks("").await?;
        anyhow::Ok(check(&webhooks, &labels, &namespace["metadata"]["labels"]))
    })?;
    write!(shell.stdout, "{}", table(&checked))?;
    Ok(0)
}

/// Labels of the form `a=b,c=d`.
fn pairs(text: &str) -> Result<Value> {
    let mut labels = json!({});
    for pair in text.split(',') {
        let Some((name, value)) = pair.split_once('=') else {
            bail!("couldn't parse the selector string \"{text}\": {pair:?} is not NAME=VALUE");
        };
        labels[name.trim_end_matches('=').trim()] = value.trim_start_matches('=').trim().into();
    }
    Ok(labels)
}

/// What one webhook configuration does to the pod.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    name: String,
    revision: String,
    injects: bool,
    reason: String,
}

fn check(configurations: &[Value], pod: &Value, namespace: &Value) -> Vec<Checked> {
    let mut checked: Vec<Checked> = configurations
        .iter()
        .filter(|configuration| {
            webhooks(configuration).any(|webhook| {
                webhook["name"]
                    .as_str()
                    .is_some_and(|name| name.ends_with("istio.io"))
            })
        })
        .map(|configuration| {
            let (injects, reason) = decide(configuration, pod, namespace);
            let revision = &configuration["metadata"]["labels"]["istio.io/rev"];
            Checked {
                name: api::meta::name(configuration).to_owned(),
                revision: revision.as_str().unwrap_or_default().to_owned(),
                injects,
                reason,
            }
        })
        .collect();
    checked.sort_by(|a, b| a.name.cmp(&b.name));
    checked
}

fn webhooks(configuration: &Value) -> impl Iterator<Item = &Value> {
    configuration["webhooks"].as_array().into_iter().flatten()
}

fn expressions(selector: &Value) -> impl Iterator<Item = (&str, &str, Vec<&str>)> {
    selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            let values = one["values"].as_array().into_iter().flatten();
            (
                text("key"),
                text("operator"),
                values.filter_map(Value::as_str).collect(),
            )
        })
}

/// Whether a selector takes labels, and the label it takes them for.
fn matched(selector: &Value, labels: &Value) -> (bool, Option<String>) {
    if selector.is_null() {
        return (true, None);
    }
    if !LabelSelector::from_value(selector).matches_labels(labels) {
        return (false, None);
    }
    let label = expressions(selector).find_map(|(key, operator, _)| {
        let value = labels[key].as_str()?;
        ["In", "NotIn"]
            .contains(&operator)
            .then(|| format!("{key}={value}"))
    });
    (true, label)
}

/// The first webhook that says something decides.
fn decide(configuration: &Value, pod: &Value, namespace: &Value) -> (bool, String) {
    for webhook in webhooks(configuration) {
        let (takes_namespace, namespace_label) = matched(&webhook["namespaceSelector"], namespace);
        let (takes_pod, pod_label) = matched(&webhook["objectSelector"], pod);
        match (takes_namespace, takes_pod) {
            (true, true) => match (namespace_label, pod_label) {
                (Some(of_namespace), Some(of_pod)) => {
                    return (
                        true,
                        format!(
                            "Namespace label {of_namespace} matches, and pod label {of_pod} matches"
                        ),
                    );
                }
                (Some(label), None) => {
                    let everywhere = if label.contains("kubernetes.io/metadata.name") {
                        " (Automatic injection is enabled in all namespaces)."
                    } else {
                        ""
                    };
                    return (true, format!("Namespace label {label} matches{everywhere}"));
                }
                (None, Some(label)) => return (true, format!("Pod label {label} matches")),
                (None, None) => {}
            },
            (true, false) => {
                let forbidden =
                    expressions(&webhook["objectSelector"]).find_map(|(key, operator, values)| {
                        let value = pod[key].as_str()?;
                        let forbids = operator == "DoesNotExist"
                            || operator == "NotIn" && values.contains(&value);
                        forbids
                            .then(|| format!("Pod has {key}={value} label, preventing injection"))
                    });
                if let Some(reason) = forbidden {
                    return (false, reason);
                }
            }
            (false, true) => {
                if let Some(value) = namespace["istio-injection"].as_str()
                    && value != "enabled"
                {
                    return (
                        false,
                        format!(
                            "Namespace has istio-injection={value} label, preventing injection"
                        ),
                    );
                }
            }
            (false, false) => {}
        }
    }
    (false, nothing_matches(configuration))
}

fn nothing_matches(configuration: &Value) -> String {
    let never = json!({"matchLabels": {"istio.io/deactivated": "never-match"}});
    if webhooks(configuration)
        .any(|webhook| webhook["namespaceSelector"] == never && webhook["objectSelector"] == never)
    {
        return "The injection webhook is deactivated, and will never match labels.".to_owned();
    }
    let wanted = |field: &str| {
        let labels: Vec<String> = webhooks(configuration)
            .flat_map(|webhook| expressions(&webhook[field]))
            .filter(|(_, operator, _)| *operator == "In")
            .flat_map(|(key, _, values)| {
                values
                    .into_iter()
                    .map(|value| format!("{key}={value}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        labels.join(", ")
    };
    format!(
        "No matching namespace labels ({}) or pod labels ({})",
        wanted("namespaceSelector"),
        wanted("objectSelector")
    )
}

/// The table, which has colours whatever it is written to.
fn table(checked: &[Checked]) -> String {
    if checked.is_empty() {
        return "ERROR: no Istio injection hooks present.\n".to_owned();
    }
    /// A cell and its colour.
    type Cell<'a> = (&'a str, Option<u8>);
    let shown = |(text, color): &Cell<'_>| match color {
        Some(color) => format!("\u{1b}[{color}m{text}\u{1b}[0m"),
        None => (*text).to_owned(),
    };
    let header = ["WEBHOOK", "REVISION", "INJECTED", "REASON"].map(|title| (title, None));
    let rows = checked.iter().map(|one| {
        let mark = if one.injects {
            ("\u{2714}", Some(32))
        } else {
            ("\u{2718}", Some(31))
        };
        [
            (one.name.as_str(), None),
            (one.revision.as_str(), None),
            mark,
            (one.reason.as_str(), None),
        ]
    });
    let rows: Vec<[Cell<'_>; 4]> = std::iter::once(header).chain(rows).collect();
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(&shown(cell));
            if column + 1 == row.len() {
                out.push('\n');
                continue;
            }
            // As wide as the bytes of the widest cell, colours included, but filled up by what is seen.
            let widest = rows.iter().map(|row| shown(&row[column]).len()).max();
            let blanks = widest.unwrap_or(0) + 2 - cell.0.chars().count();
            out.extend(std::iter::repeat_n(' ', blanks));
        }
    }
    if checked.iter().filter(|one| one.injects).count() > 1 {
        out.push_str("ERROR: multiple webhooks will inject, which can lead to errors");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injector() -> Value {
        let webhook = |name: &str, namespaces: Value, objects: Value| {
            json!({"name": format!("{name}.sidecar-injector.istio.io"),
                "namespaceSelector": {"matchExpressions": namespaces}, "objectSelector": {"matchExpressions": objects}})
        };
        json!({"metadata": {"name": "istio-sidecar-injector", "labels": {"istio.io/rev": "default"}}, "webhooks": [
            webhook("namespace", json!([{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]),
                json!([{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}])),
            webhook("object", json!([{"key": "istio-injection", "operator": "DoesNotExist"}]),
                json!([{"key": "sidecar.istio.io/inject", "operator": "In", "values": ["true"]}])),
        ]})
    }

    fn reason(pod: Value, namespace: Value) -> (bool, String) {
        let mut checked = check(&[injector()], &pod, &namespace);
        let one = checked.remove(0);
        (one.injects, one.reason)
    }

    #[test]
    fn the_label_that_decides_is_named() {
        let enabled = json!({"istio-injection": "enabled"});
        for (pod, namespace, injects, why) in [
            (
                json!({"app": "a"}),
                enabled.clone(),
                true,
                "Namespace label istio-injection=enabled matches",
            ),
            (
                json!({"sidecar.istio.io/inject": "true"}),
                enabled.clone(),
                true,
                "Namespace label istio-injection=enabled matches, and pod label sidecar.istio.io/inject=true matches",
            ),
            (
                json!({"sidecar.istio.io/inject": "false"}),
                enabled,
                false,
                "Pod has sidecar.istio.io/inject=false label, preventing injection",
            ),
            (
                json!({"sidecar.istio.io/inject": "true"}),
                json!({}),
                true,
                "Pod label sidecar.istio.io/inject=true matches",
            ),
            (
                json!({"sidecar.istio.io/inject": "true"}),
                json!({"istio-injection": "disabled"}),
                false,
                "Namespace has istio-injection=disabled label, preventing injection",
            ),
            (
                json!({}),
                json!({}),
                false,
                "No matching namespace labels (istio-injection=enabled) or pod labels (sidecar.istio.io/inject=true)",
            ),
        ] {
            assert_eq!(reason(pod, namespace), (injects, why.to_owned()));
        }
    }

    #[test]
    fn the_table_is_filled_as_the_real_one() {
        let checked = check(
            &[injector()],
            &json!({}),
            &json!({"istio-injection": "enabled"}),
        );
        assert_eq!(
            table(&checked),
            "WEBHOOK                 REVISION  INJECTED      REASON\n\
             istio-sidecar-injector  default   \u{1b}[32m\u{2714}\u{1b}[0m             Namespace label istio-injection=enabled matches\n"
        );
        assert_eq!(table(&[]), "ERROR: no Istio injection hooks present.\n");
    }
}
