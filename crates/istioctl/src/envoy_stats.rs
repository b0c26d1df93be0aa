//! `istioctl x envoy-stats`: what a proxy counts.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use kube_client::PODS;
use serde_json::Value;

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime, command, proto_json, yaml};

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A pod: [TYPE/]NAME[.NAMESPACE]
    pods: Vec<String>,
    /// Format: short, json, yaml, prom or prom-merged (with the metrics of the application)
    #[arg(long, short, value_name = "FORMAT", default_value = "short")]
    output: String,
    /// What is shown: server or clusters
    #[arg(
        long = "type",
        short = 't',
        value_name = "TYPE",
        default_value = "server"
    )]
    kind: String,
    /// Pods by label
    #[arg(long, short = 'l', value_name = "LABELS", default_value = "")]
    selector: String,
    /// Admin port of the proxy
    #[arg(
        long = "proxy-admin-port",
        value_name = "PORT",
        default_value_t = 15000
    )]
    port: u16,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let wrong = match (arguments.pods.len(), arguments.selector.is_empty()) {
        (1, true) | (0, false) => None,
        (1, false) => Some("name cannot be provided when the label selector is specified"),
        (_, true) => Some("stats requires pod name or label selector"),
        (_, false) => None,
    };
    if let Some(wrong) = wrong {
        writeln!(
            shell.stderr,
            "{}",
            command::help(&["experimental", "envoy-stats"])
        )?;
        bail!(wrong);
    }
    let mesh = Mesh::connect(global, shell)?;
    let runtime = async_runtime()?;
    let (names, namespace) = runtime.block_on(async {
        match arguments.pods.first() {
            Some(pod) if arguments.selector.is_empty() => mesh.pods(pod).await,
            _ => {
                let names = mesh.selected(&arguments.selector).await?;
                Ok((names, mesh.namespace().to_owned()))
            }
        }
    })?;
    for name in &names {
        let (path, port) = runtime.block_on(place(&mesh, arguments, name, &namespace))?;
        let stats = runtime
            .block_on(mesh.ask((name, &namespace), "GET", &path, port))
            .map_err(|error| anyhow!("failed to execute command on Envoy: {error}"))?;
        let stats = String::from_utf8_lossy(&stats);
        write!(
            shell.stdout,
            "\nThe result of pod {name}:\n\n{}",
            written(&stats, &arguments.output)?
        )?;
    }
    Ok(0)
}

/// Path and port of what is asked for.
async fn place(
    mesh: &Mesh,
    arguments: &Arguments,
    pod: &str,
    namespace: &str,
) -> Result<(String, u16)> {
    if let Some(path) = admin_path(&arguments.kind, &arguments.output)? {
        return Ok((path.to_owned(), arguments.port));
    }
    let pod = mesh
        .client
        .get(&PODS, Some(namespace), pod)
        .await
        .map_err(|error| anyhow!("failed to retrieve Pod {namespace}/{pod}: {error}"))?;
    merged(&pod).with_context(|| {
        format!(
            "failed to retrieve prometheus path and port from Pod {namespace}/{}",
            api::meta::name(&pod)
        )
    })
}

/// The page of the admin interface; `None` for the agent's, which merges.
fn admin_path(kind: &str, output: &str) -> Result<Option<&'static str>> {
    Ok(Some(match (kind, output) {
        ("" | "server", "" | "short") => "/stats",
        ("" | "server", "json" | "yaml") => "/stats?format=json",
        ("" | "server", "prom") => "/stats/prometheus",
        ("" | "server", "prom-merged") => return Ok(None),
        ("" | "server", other) => bail!(
            "unable to match a printer suitable for the output format {other}, allowed formats are: json,yaml,short,prom,prom-merged"
        ),
        ("cluster" | "clusters", "" | "short") => "/clusters",
        ("cluster" | "clusters", "json" | "yaml") => "/clusters?format=json",
        ("cluster" | "clusters", other) => bail!(
            "unable to match a printer suitable for the output format {other}, allowed formats are: json,yaml,short"
        ),
        (other, _) => bail!("unknown stats type {other}"),
    }))
}

/// Where the pod says that its metrics are.
fn merged(pod: &Value) -> Result<(String, u16)> {
    let said = |name: &str| {
        api::meta::annotation(pod, name).ok_or_else(|| anyhow!("it has no annotation {name}"))
    };
    let port = said("prometheus.io/port")?;
    let port = port
        .parse()
        .map_err(|_| anyhow!("prometheus.io/port is {port:?}"))?;
    Ok((said("prometheus.io/path")?.to_owned(), port))
}

fn written(stats: &str, output: &str) -> Result<String> {
    Ok(match output {
        "yaml" => yaml::to_string(&serde_json::from_str(stats)?),
        "json" => {
            // What follows the JSON is copied, as Go's encoder does.
            let rest = &stats[stats.trim_end().len()..];
            let value = serde_json::from_str(stats)?;
            format!("{}{rest}\n", proto_json::indented(&value, 4))
        }
        _ => stats.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_depends_on_type_and_format() {
        assert_eq!(admin_path("server", "short").unwrap(), Some("/stats"));
        assert_eq!(
            admin_path("clusters", "yaml").unwrap(),
            Some("/clusters?format=json")
        );
        assert_eq!(admin_path("server", "prom-merged").unwrap(), None);
        let error = admin_path("clusters", "prom").unwrap_err().to_string();
        assert!(
            error.ends_with("allowed formats are: json,yaml,short"),
            "{error}"
        );
        assert_eq!(
            admin_path("wrong", "short").unwrap_err().to_string(),
            "unknown stats type wrong"
        );
    }

    #[test]
    fn merged_metrics_are_where_the_annotations_say() {
        let pod = json!({"metadata": {"annotations": {"prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus"}}});
        assert_eq!(
            merged(&pod).unwrap(),
            ("/stats/prometheus".to_owned(), 15020)
        );
        assert!(merged(&json!({})).is_err());
    }

    #[test]
    fn json_is_indented_and_yaml_has_the_same() {
        assert_eq!(
            written("{\"stats\":[]}\n", "json").unwrap(),
            "{\n    \"stats\": []\n}\n\n"
        );
        assert_eq!(written("{\"a\":1}", "yaml").unwrap(), "a: 1\n");
        assert_eq!(written("a: 1\n", "short").unwrap(), "a: 1\n");
    }
}
