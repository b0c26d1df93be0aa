//! Commands that on another cluster install Istio. Here the mesh is part of the program: they say so, say what
//! runs, and change nothing.

use anyhow::{Result, bail};
use clap::Args;
use kube_client::{DEPLOYMENTS, ListParams};
use serde_json::Value;

use crate::mesh::Mesh;
use crate::version::ISTIO_VERSION;
use crate::{Global, Shell, async_runtime};

/// Flags of `install` and `upgrade`.
#[derive(Args, Debug)]
pub struct Install {
    /// A setting, as NAME=VALUE; has no effect here
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A file of settings; has no effect here
    #[arg(long, short, value_name = "FILE")]
    filename: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    skip_confirmation: bool,
    /// Accepted, has no effect here
    #[arg(long, hide = true)]
    revision: Option<String>,
    /// Accepted, has no effect here
    #[arg(long, short = 'd', hide = true)]
    manifests: Option<String>,
    /// Accepted, has no effect here
    #[arg(long, hide = true)]
    force: bool,
    /// Accepted, has no effect here
    #[arg(long, hide = true)]
    verify: bool,
    /// Accepted, has no effect here
    #[arg(long = "readiness-timeout", hide = true)]
    readiness_timeout: Option<String>,
    /// Accepted, has no effect here
    #[arg(long = "dry-run", hide = true)]
    dry_run: bool,
}

/// Flags of `uninstall`.
#[derive(Args, Debug)]
pub struct Uninstall {
    /// All control planes
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    skip_confirmation: bool,
    /// Accepted, has no effect here
    #[arg(long, hide = true)]
    revision: Option<String>,
    /// Accepted, has no effect here
    #[arg(long, short, hide = true)]
    filename: Option<String>,
    /// Accepted, has no effect here
    #[arg(long, hide = true)]
    force: bool,
    /// Accepted, has no effect here
    #[arg(long = "dry-run", hide = true)]
    dry_run: bool,
}

/// `install` and `upgrade`.
///
/// # Errors
/// When the mesh does not run.
pub fn install(global: &Global, arguments: &Install, shell: &mut Shell<'_>) -> Result<u8> {
    let components = components(global, shell)?;
    writeln!(
        shell.stdout,
        "Istio {ISTIO_VERSION} is built into theater and runs already. Nothing was installed or changed."
    )?;
    print(&components, shell)?;
    for setting in arguments.set.iter().chain(&arguments.filename) {
        writeln!(
            shell.stdout,
            "Not applied: {setting} (the built-in mesh is not configured by install settings)"
        )?;
    }
    Ok(u8::from(!ready(&components)))
}

/// `uninstall`.
///
/// # Errors
/// When nothing can be written.
pub fn uninstall(_: &Uninstall, shell: &mut Shell<'_>) -> Result<u8> {
    writeln!(
        shell.stdout,
        "Istio is built into theater: it was not removed, and nothing was changed.\n\
         To delete what you applied, use `kubectl delete -f FILE`; to get the initial scene back, `theater reset`;\n\
         to stop everything, `theater down`."
    )?;
    Ok(0)
}

/// `verify-install`: each component, and whether it is ready.
///
/// # Errors
/// When the mesh does not run.
pub fn verify(global: &Global, shell: &mut Shell<'_>) -> Result<u8> {
    let components = components(global, shell)?;
    print(&components, shell)?;
    if !ready(&components) {
        bail!("not every component of the built-in mesh is ready");
    }
    writeln!(
        shell.stdout,
        "✔ Istio {ISTIO_VERSION} is built into theater and is installed and verified successfully"
    )?;
    Ok(0)
}

struct Component {
    name: String,
    namespace: String,
    wanted: u64,
    ready: u64,
}

fn ready(components: &[Component]) -> bool {
    components
        .iter()
        .all(|component| component.ready >= component.wanted)
}

fn components(global: &Global, shell: &Shell<'_>) -> Result<Vec<Component>> {
    let mesh = Mesh::connect(global, shell)?;
    let namespace = mesh.istio_namespace.clone();
    let deployments = async_runtime()?.block_on(async {
        let params = ListParams::default();
        mesh.client
            .list(&DEPLOYMENTS, Some(&namespace), &params)
            .await
    })?;
    let deployments = deployments.items;
    let istio = |deployment: &&Value| {
        let labels = &deployment["metadata"]["labels"];
        !labels["istio"].is_null() || labels["app"] == "istiod"
    };
    let components: Vec<Component> = deployments
        .iter()
        .filter(istio)
        .map(|deployment| Component {
            name: api::meta::name(deployment).to_owned(),
            namespace: namespace.clone(),
            wanted: deployment["spec"]["replicas"].as_u64().unwrap_or(1),
            ready: deployment["status"]["readyReplicas"].as_u64().unwrap_or(0),
        })
        .collect();
    if !components
        .iter()
        .any(|component| component.name == "istiod")
    {
        bail!(
            "there is no istiod in namespace {namespace:?}; this istioctl is for the mesh that `theater up` runs"
        );
    }
    Ok(components)
}

fn print(components: &[Component], shell: &mut Shell<'_>) -> Result<()> {
    for component in components {
        let mark = if component.ready >= component.wanted {
            "✔"
        } else {
            "✘"
        };
        writeln!(
            shell.stdout,
            "{mark} Deployment: {}.{} {}/{} ready",
            component.name, component.namespace, component.ready, component.wanted
        )?;
    }
    Ok(())
}
