//! `theater xds`: what a pod's proxy would be told, from files, without a cluster.

mod files;
mod scene;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use translate::Snapshot;

use scene::Scene;

/// Flags of `theater xds`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A file or directory of Kubernetes objects and Istio configuration, YAML or JSON; `-` is standard input
    #[arg(long, short, required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// The pod whose proxy is asked about: NAME.NAMESPACE, where NAME may also be a Deployment's
    #[arg(long, value_name = "NAME.NAMESPACE")]
    proxy: String,
    /// Namespace of objects that name none
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Id of the cluster in the mesh
    #[arg(long, default_value = "Kubernetes", value_name = "ID")]
    cluster: String,
    /// A table, as `istioctl proxy-config` shows it, instead of the whole dump
    #[arg(long, value_enum)]
    table: Option<Table>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    #[value(alias = "cluster")]
    Clusters,
    #[value(alias = "listener")]
    Listeners,
    #[value(alias = "route")]
    Routes,
    #[value(alias = "endpoint", alias = "eds")]
    Endpoints,
}

/// Prints the config dump, in the form of Envoy's `/config_dump?include_eds`; what could not be used goes to standard error.
///
/// # Errors
/// When a file cannot be read or there is no such pod.
pub fn run(arguments: &Arguments) -> Result<()> {
    let objects = files::read(&arguments.filename)?;
    let scene = Scene::build(objects, &arguments.namespace, &arguments.cluster)?;
    let proxy = scene.proxy(&arguments.proxy)?;
    let snapshot = Snapshot::from_objects(scene.into_input());
    let output = translate::build(&snapshot, &proxy);
    for problem in &output.problems {
        eprintln!("theater xds: {problem}");
    }
    let node = json!({"id": proxy.id, "metadata": proxy.metadata});
    let mut configs = vec![json!({
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": {"node": node},
    })];
    configs.extend(istiod::config_dump(&output));
    let text = serde_json::to_string_pretty(&json!({"configs": configs}))?;
    let text = match arguments.table {
        None => text + "\n",
        Some(table) => render(table, &text)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough: `theater xds ... | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

fn render(table: Table, dump: &str) -> Result<String> {
    use istioctl::writer::{cluster, eds, endpoint, listener, route};
    let dump = istioctl::dump::Dump::parse(dump.as_bytes())?;
    Ok(match table {
        Table::Clusters => cluster::summary(&dump, &cluster::Filter::default(), false)?,
        Table::Listeners => listener::summary(&dump, &listener::Filter::default(), false)?,
        Table::Routes => route::summary(&dump, &route::Filter::default(), false)?,
        Table::Endpoints => eds::summary(&dump, &endpoint::Filter::default(), false),
    })
}

/// `KIND NAMESPACE/NAME`, for messages.
fn named(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("object");
    format!(
        "{kind} {}/{}",
        api::meta::namespace(object),
        api::meta::name(object)
    )
}

/// The two parts of `NAME.NAMESPACE`.
fn split(text: &str) -> Result<(&str, &str)> {
    match text.rsplit_once('.') {
        Some((name, namespace)) if !name.is_empty() && !namespace.is_empty() => {
            Ok((name, namespace))
        }
        _ => bail!("--proxy {text:?}: write NAME.NAMESPACE"),
    }
}
