//! `istioctl dashboard`: a local port for a web interface inside of the cluster.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use kube_client::{ListParams, PODS};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime};

/// `dashboard` and its flags.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Local port [default: the interface's own, else any free one]
    #[arg(
        long,
        short,
        global = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,
    /// Local address
    #[arg(long, global = true, default_value = "localhost")]
    address: String,
    /// Accepted; the address is printed, no browser is opened
    #[arg(long, global = true, hide = true, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    browser: bool,
    /// Port of the interface
    #[arg(long = "ui-port", global = true, hide = true)]
    ui_port: Option<u16>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The admin interface of a pod's proxy
    #[command(visible_alias = "proxy")]
    Envoy {
        /// The pod: [TYPE/]NAME[.NAMESPACE]
        pod: Option<String>,
        /// A pod by label
        #[arg(long, short = 'l')]
        selector: Option<String>,
    },
    /// The debug pages of a control plane
    #[command(name = "istiod-debug")]
    IstiodDebug {
        /// The pod
        pod: Option<String>,
    },
    /// The introspection pages of a control plane, which the built-in one does not have
    Controlz {
        /// The pod
        pod: Option<String>,
    },
    /// Kiali
    Kiali,
    /// Grafana
    Grafana,
    /// Jaeger
    Jaeger,
    /// Prometheus
    Prometheus,
    /// Zipkin
    Zipkin,
    /// SkyWalking
    Skywalking,
}

/// Where an interface is.
struct Interface {
    title: &'static str,
    selector: &'static str,
    port: u16,
    path: &'static str,
}

/// Runs the command until it is interrupted; the exit code.
///
/// # Errors
/// When there is no such interface in the cluster.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let addon = |title, selector, port, path| Interface {
        title,
        selector,
        port,
        path,
    };
    let interface = match &arguments.what {
        None => {
            write!(shell.stdout, "{}", crate::command::help(&["dashboard"]))?;
            return Ok(0);
        }
        Some(What::Envoy { pod, selector }) => {
            let mesh = Mesh::connect(global, shell)?;
            let (pod, namespace) = match (pod, selector) {
                (Some(pod), None) => async_runtime()?.block_on(mesh.pod(pod))?,
                (None, Some(selector)) => {
                    let found = async_runtime()?
                        .block_on(mesh.running(Some(mesh.namespace()), selector))?;
                    let pod = found.first().context("no pods found")?;
                    (api::meta::name(pod).to_owned(), mesh.namespace().to_owned())
                }
                _ => bail!("specify a pod or --selector"),
            };
            return forward(&mesh, arguments, (&pod, &namespace), 15000, "", shell);
        }
        Some(What::Controlz { .. }) => bail!(
            "the built-in istiod has no introspection pages (ControlZ, port 9876); its debug pages: istioctl dashboard istiod-debug"
        ),
        Some(What::IstiodDebug { .. }) => addon("Istiod", "app=istiod", 15014, "/debug/syncz"),
        Some(What::Kiali) => addon("Kiali", "app=kiali", 20001, "/kiali"),
        Some(What::Grafana) => addon("Grafana", "app.kubernetes.io/name=grafana", 3000, ""),
        Some(What::Jaeger) => addon("Jaeger", "app=jaeger", 16686, ""),
        Some(What::Prometheus) => {
            addon("Prometheus", "app.kubernetes.io/name=prometheus", 9090, "")
        }
        Some(What::Zipkin) => addon("Zipkin", "app=zipkin", 9411, ""),
        Some(What::Skywalking) => addon("SkyWalking", "app=skywalking-ui", 8080, ""),
    };
    let mesh = Mesh::connect(global, shell)?;
    let namespace = mesh
        .namespace
        .clone()
        .unwrap_or_else(|| mesh.istio_namespace.clone());
    let params = ListParams::labels(interface.selector);
    let pods = async_runtime()?.block_on(mesh.client.list(&PODS, Some(&namespace), &params))?;
    let Some(pod) = pods.items.first() else {
        bail!(
            "no pods found with selector {} in namespace {namespace}: {} is not there; would open http://{}:{}{}",
            interface.selector,
            interface.title,
            arguments.address,
            interface.port,
            interface.path
        );
    };
    let port = arguments.ui_port.unwrap_or(interface.port);
    forward(
        &mesh,
        arguments,
        (api::meta::name(pod), &namespace),
        port,
        interface.path,
        shell,
    )
}

fn forward(
    mesh: &Mesh,
    arguments: &Arguments,
    (pod, namespace): (&str, &str),
    port: u16,
    path: &str,
    shell: &mut Shell<'_>,
) -> Result<u8> {
    async_runtime()?.block_on(async {
        // A pod that does not run is told before a port is opened.
        drop(mesh.connect_to(namespace, pod, port).await?);
        let local = if arguments.port == 0 {
            port
        } else {
            arguments.port
        };
        let listener = match TcpListener::bind((&*arguments.address, local)).await {
            Err(error) if arguments.port == 0 && error.kind() == std::io::ErrorKind::AddrInUse => {
                TcpListener::bind((&*arguments.address, 0)).await
            }
            result => result,
        };
        let listener =
            listener.with_context(|| format!("cannot listen on {}:{local}", arguments.address))?;
        let local = listener.local_addr()?.port();
        writeln!(shell.stdout, "http://{}:{local}{path}", arguments.address)?;
        shell.stdout.flush()?;
        loop {
            let (mut client, _) = listener.accept().await?;
            let mut stream = mesh.connect_to(namespace, pod, port).await?;
            tokio::spawn(async move {
                // Either side may leave at any time.
                let _ = copy_bidirectional(&mut client, &mut stream).await;
            });
        }
    })
}
