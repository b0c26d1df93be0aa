//! `istioctl kube-inject`: workloads of a file with the sidecar that the cluster's injection webhook would add to their pods.
//! The webhook itself is asked, as the API server asks it.

mod webhook;
mod workload;
mod written;

use std::path::PathBuf;

use analysis::{documents, yaml as source};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use kube_client::CONFIG_MAPS;
use serde_json::Value;

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime, files, yaml};
use webhook::Webhook;

/// Webhooks of injection have names that end so.
const INJECTOR: &str = "sidecar-injector.istio.io";

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The file with Kubernetes objects; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Where the result is written, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Control plane revision
    #[arg(long, short, value_name = "NAME", default_value = "")]
    revision: String,
    /// Name of the ConfigMap with the mesh configuration
    #[arg(
        long = "meshConfigMapName",
        value_name = "NAME",
        default_value = "istio"
    )]
    mesh_config_map: String,
    #[command(flatten)]
    unsupported: Unsupported,
    /// How istiod would be reached directly; it is reached through the API server
    #[arg(long = "xds-address", hide = true)]
    xds_address: Option<String>,
    #[arg(long = "xds-port", hide = true)]
    xds_port: Option<u16>,
    #[arg(long = "xds-label", hide = true)]
    xds_label: Option<String>,
    #[arg(long = "cert-dir", hide = true)]
    cert_dir: Option<String>,
    #[arg(long, hide = true)]
    authority: Option<String>,
    #[arg(long, hide = true)]
    insecure: bool,
    #[arg(long, hide = true)]
    plaintext: bool,
    #[arg(long, hide = true)]
    timeout: Option<String>,
    #[arg(long = "webhookConfig", hide = true)]
    webhook_config: Option<String>,
    #[arg(long = "injectConfigMapName", hide = true)]
    inject_config_map: Option<String>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// Injection by templates instead of the webhook, which this istioctl does not do.
#[derive(Args, Debug)]
struct Unsupported {
    #[arg(long = "injectConfigFile", hide = true)]
    inject_config_file: Option<String>,
    #[arg(long = "meshConfigFile", hide = true)]
    mesh_config_file: Option<String>,
    #[arg(long = "valuesFile", hide = true)]
    values_file: Option<String>,
    #[arg(long = "operatorFileName", hide = true)]
    operator_file: Option<String>,
}

impl Unsupported {
    fn named(&self) -> Option<&'static str> {
        let flags = [
            (&self.inject_config_file, "--injectConfigFile"),
            (&self.mesh_config_file, "--meshConfigFile"),
            (&self.values_file, "--valuesFile"),
            (&self.operator_file, "--operatorFileName"),
        ];
        flags
            .into_iter()
            .find_map(|(value, flag)| value.as_ref().map(|_| flag))
    }
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let Some(filename) = &arguments.filename else {
        bail!("1 error occurred:\n\t* filename not specified (see --filename or -f)\n\n");
    };
    if let Some(flag) = arguments.unsupported.named() {
        bail!(
            "{flag} is not supported: this istioctl has no injection templates and asks the cluster's injection webhook instead"
        );
    }
    let text = String::from_utf8_lossy(&files::read(filename, shell)?).into_owned();
    let mesh = Mesh::connect(global, shell)?;
    let runtime = async_runtime()?;
    let injected = runtime.block_on(async {
        let webhook = find_webhook(&mesh, arguments).await?;
        Injected::of(&text, async |pod, namespace| {
            webhook.patch(&mesh, pod, namespace).await
        })
        .await
    })?;
    for warning in &injected.warnings {
        write!(shell.stderr, "\n{warning}\n")?;
    }
    match &arguments.output {
        None => write!(shell.stdout, "{}", injected.text)?,
        Some(path) => std::fs::write(shell.path(path), injected.text)
            .map_err(|error| anyhow!("open {}: {}", path.display(), files::reason(&error)))?,
    }
    injected.error.map_or(Ok(0), Err)
}

/// The injection webhook of the revision.
async fn find_webhook(mesh: &Mesh, arguments: &Arguments) -> Result<Webhook> {
    let revision = match arguments.revision.as_str() {
        "" => "default",
        named => named,
    };
    let suffix = match revision {
        "default" => String::new(),
        named => format!("-{named}"),
    };
    let namespace = &mesh.istio_namespace;
    let name = match arguments.mesh_config_map.as_str() {
        "istio" => format!("istio{suffix}"),
        named => named.to_owned(),
    };
    mesh.client
        .get(&CONFIG_MAPS, Some(namespace), &name)
        .await
        .map_err(|error| {
            anyhow!(
                "could not read valid configmap {name:?} from namespace {namespace:?}: {error} - Use --meshConfigFile or \
                 re-run kube-inject with `-i <istioSystemNamespace> and ensure valid MeshConfig exists"
            )
        })?;
    let configurations = mesh.webhooks(&format!("istio.io/rev={revision}")).await?;
    configurations
        .first()
        .and_then(|configuration| configuration["webhooks"].as_array())
        .into_iter()
        .flatten()
        .find(|webhook| {
            webhook["name"]
                .as_str()
                .is_some_and(|name| name.ends_with(INJECTOR))
        })
        .map(|webhook| Webhook::of(&webhook["clientConfig"]))
        .ok_or_else(|| {
            anyhow!("could not find valid mutatingWebhookConfiguration {INJECTOR:?} from cluster")
        })?
}

/// What becomes of a file.
#[derive(Default)]
struct Injected {
    text: String,
    warnings: Vec<String>,
    /// Why the rest of the file is missing.
    error: Option<anyhow::Error>,
}

impl Injected {
    /// Document by document; `patch` asks the webhook about a pod in a namespace. What was done before an error is kept.
    async fn of(
        text: &str,
        patch: impl AsyncFn(&Value, &str) -> Result<Option<Value>>,
    ) -> Result<Self> {
        let mut injected = Self::default();
        for document in documents::split(text) {
            let node = source::parse(&document.text)
                .map_err(|error| error.to_string())
                .and_then(|node| {
                    node.map_or(Ok(Value::Null), |node| {
                        source::to_json(&node).map_err(|error| error.to_string())
                    })
                });
            let mut object = match node {
                Ok(object) => object,
                Err(error) => {
                    injected.error = Some(anyhow!("error converting YAML to JSON: {error}"));
                    return Ok(injected);
                }
            };
            if !workload::is_known(&object) {
                injected.text.push_str(&document.text);
            } else {
                match workload::inject(&mut object, &patch, &mut injected.warnings).await {
                    Ok(()) => injected.text.push_str(&yaml::to_string(&object)),
                    Err(error) => {
                        injected.error = Some(error);
                        return Ok(injected);
                    }
                }
            }
            injected.text.push_str("---\n");
        }
        Ok(injected)
    }
}
