//! `istioctl x describe`: what of Istio's configuration concerns a pod or a service.

mod ingress;
mod policies;
mod resources;
mod routes;

use std::fmt::Write as _;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use kube_client::{
    CONFIG_MAPS, DESTINATION_RULES, GATEWAYS, ListParams, PEER_AUTHENTICATIONS, PODS, Resource,
    SERVICES, VIRTUAL_SERVICES,
};
use serde_json::Value;

use crate::dump::{Dump, list};
use crate::mesh::{Mesh, split_namespace};
use crate::{Global, Shell, async_runtime};

/// `describe` and its flags.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Args, Debug)]
struct Flags {
    /// NAME[.NAMESPACE]
    names: Vec<String>,
    /// No warnings for pods without a sidecar
    #[arg(long = "ignoreUnmeshed")]
    ignore_unmeshed: bool,
    /// Admin port of the proxy
    #[arg(
        long = "proxy-admin-port",
        value_name = "PORT",
        default_value_t = 15000
    )]
    port: u16,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Describe a pod and its Istio configuration
    #[command(visible_alias = "po")]
    Pod(Flags),
    /// Describe a service and its Istio configuration
    #[command(visible_alias = "svc")]
    Service(Flags),
}

/// Istio's objects of all namespaces.
#[derive(Debug, Default)]
struct Config {
    virtual_services: Vec<Value>,
    destination_rules: Vec<Value>,
    gateways: Vec<Value>,
}

impl Config {
    async fn read(mesh: &Mesh) -> Result<Self> {
        let everything = ListParams::default();
        let of = async |resource: Resource| mesh.client.list(&resource, None, &everything).await;
        Ok(Self {
            virtual_services: of(VIRTUAL_SERVICES).await?.items,
            destination_rules: of(DESTINATION_RULES).await?.items,
            gateways: of(GATEWAYS).await?.items,
        })
    }
}

fn find<'a>(objects: &'a [Value], namespace: &str, name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|object| api::meta::namespace(object) == namespace && api::meta::name(object) == name)
}

/// The text that is made, and from where names are seen.
struct Report {
    text: String,
    namespace: String,
}

impl Report {
    /// A name; with its namespace where that is another one.
    fn name(&self, object: &Value) -> String {
        let (name, namespace) = (api::meta::name(object), api::meta::namespace(object));
        if namespace == self.namespace {
            name.to_owned()
        } else {
            format!("{name}.{namespace}")
        }
    }

    fn line(&mut self, indent: usize, line: &str) {
        let _ = writeln!(self.text, "{}{line}", " ".repeat(indent));
    }

    fn rule(&mut self) {
        self.line(0, "--------------------");
    }
}

/// Runs the command; the exit code.
///
/// # Errors
/// When the object does not exist or its proxy cannot be asked.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let (flags, pod) = match &arguments.what {
        None => {
            write!(
                shell.stdout,
                "{}",
                crate::command::help(&["experimental", "describe"])
            )?;
            return Ok(0);
        }
        Some(What::Pod(flags)) => (flags, true),
        Some(What::Service(flags)) => (flags, false),
    };
    let [name] = &flags.names[..] else {
        if pod {
            bail!("expecting pod name");
        }
        write!(
            shell.stderr,
            "{}\n\n",
            crate::command::help(&["experimental", "describe", "service"])
        )?;
        bail!("expecting service name");
    };
    let mesh = Mesh::connect(global, shell)?;
    let mut report = Report {
        text: String::new(),
        namespace: mesh.namespace().to_owned(),
    };
    let runtime = async_runtime()?;
    let result = runtime.block_on(async {
        if pod {
            describe_pod(&mesh, name, flags, &mut report).await
        } else {
            describe_service(&mesh, name, flags, &mut report).await
        }
    });
    write!(shell.stdout, "{}", report.text)?;
    result.map(|()| 0)
}

async fn describe_pod(mesh: &Mesh, name: &str, flags: &Flags, report: &mut Report) -> Result<()> {
    let (name, namespace) = split_namespace(name, mesh.namespace());
    let pod = mesh.client.get(&PODS, Some(namespace), name).await?;
    let labels = &pod["metadata"]["labels"];
    resources::pod(report, &pod, flags.ignore_unmeshed);
    let everything = ListParams::default();
    let services = mesh
        .client
        .list(&SERVICES, Some(namespace), &everything)
        .await?
        .items;
    let services: Vec<Value> = services
        .into_iter()
        .filter(|service| {
            let selector = &service["spec"]["selector"];
            selector
                .as_object()
                .is_some_and(|selector| !selector.is_empty())
                && contains(labels, selector)
        })
        .collect();
    if services.is_empty() && !flags.ignore_unmeshed {
        let name = report.name(&pod);
        report.line(0, &format!(
            "Warning: No Kubernetes Services select pod {name} (see https://istio.io/docs/setup/kubernetes/additional-setup/requirements/ )"
        ));
    }
    let config = Config::read(mesh).await?;
    let all_labels = [labels.clone()];
    report.rule();
    pod_services(mesh, &pod, &services, &all_labels, &config, flags, report).await?;
    report.rule();
    let map = mesh
        .client
        .get(&CONFIG_MAPS, Some(&mesh.istio_namespace), "istio")
        .await;
    let map = map.map_err(|error| {
        anyhow!(
            "failed to fetch mesh config: could not read configmap \"istio\" from namespace {:?}: {error}",
            mesh.istio_namespace
        )
    })?;
    let settings: api::istio::MeshConfig =
        yaml_serde::from_str(map["data"]["mesh"].as_str().unwrap_or("{}"))?;
    let root = settings.root_namespace();
    let mut applicable = Vec::new();
    for namespace in [root, namespace] {
        applicable.extend(
            mesh.client
                .list(&PEER_AUTHENTICATIONS, Some(namespace), &everything)
                .await?
                .items,
        );
    }
    policies::peer_authentication(report, &applicable, labels, root);
    ingress_info(mesh, &services, &all_labels, &config, flags, report).await
}

async fn describe_service(
    mesh: &Mesh,
    name: &str,
    flags: &Flags,
    report: &mut Report,
) -> Result<()> {
    let (name, namespace) = split_namespace(name, mesh.namespace());
    let service = mesh.client.get(&SERVICES, Some(namespace), name).await?;
    let selector: Vec<String> = service["spec"]["selector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mut pods = Vec::new();
    if !selector.is_empty() {
        let params = ListParams::labels(selector.join(","));
        pods = mesh
            .client
            .list(&PODS, Some(namespace), &params)
            .await?
            .items;
    }
    let selected = pods.len();
    pods.retain(|pod| resources::usable(report, pod));
    let Some(pod) = pods.first() else {
        let name = report.name(&service);
        if selected == 0 {
            report.line(0, &format!("Service {name:?} has no pods."));
            return Ok(());
        }
        report.line(
            0,
            &format!("Service {name:?} has no Istio pods.  ({selected} pods in service)."),
        );
        report.line(
            0,
            "Use `istioctl kube-inject` or redeploy with Istio automatic sidecar injection.",
        );
        return Ok(());
    };
    let labels: Vec<Value> = pods
        .iter()
        .map(|pod| pod["metadata"]["labels"].clone())
        .collect();
    let services = [service];
    let config = Config::read(mesh).await?;
    pod_services(mesh, pod, &services, &labels, &config, flags, report).await?;
    ingress_info(mesh, &services, &labels, &config, flags, report).await
}

async fn config_dump(mesh: &Mesh, pod: &Value, port: u16) -> Result<bytes::Bytes> {
    let pod = (api::meta::name(pod), api::meta::namespace(pod));
    mesh.ask(pod, "GET", "/config_dump", port).await
}

async fn pod_services(
    mesh: &Mesh,
    pod: &Value,
    services: &[Value],
    labels: &[Value],
    config: &Config,
    flags: &Flags,
    report: &mut Report,
) -> Result<()> {
    let answer = match config_dump(mesh, pod, flags.port).await {
        Ok(answer) => answer,
        Err(_) if flags.ignore_unmeshed => return Ok(()),
        Err(error) => bail!("failed to execute command on sidecar: {error}"),
    };
    let dump = Dump::parse(&answer).map_err(|error| {
        anyhow!(
            "can't parse sidecar config_dump for {error}: {}",
            api::meta::name(pod)
        )
    })?;
    for (row, service) in services.iter().enumerate() {
        if row > 0 {
            report.rule();
        }
        resources::service(report, service, pod);
        let ports = list(&service["spec"], "ports");
        let indent = if ports.len() > 1 { 3 } else { 0 };
        for port in ports {
            let number = port["port"].as_i64().unwrap_or(0);
            if ports.len() > 1 {
                report.line(0, &format!("{number}:"));
            }
            let rule = routes::rule_of(&dump, service, number, config, report);
            let subsets = routes::subsets(rule, labels);
            if let Some(rule) = rule {
                routes::destination_rule(report, indent, rule, &subsets);
            }
            if let Some(found) = routes::virtual_service_of(&dump, service, number, config, report)
            {
                routes::virtual_service(report, indent, found, service, &subsets, rule);
            }
            let names = policies::rbac(&dump);
            if !names.is_empty() {
                let before = if ports.len() > 1 {
                    format!("{number} ")
                } else {
                    String::new()
                };
                report.line(0, &format!("{before}RBAC policies: {}", names.join(", ")));
            }
        }
    }
    Ok(())
}

async fn ingress_info(
    mesh: &Mesh,
    services: &[Value],
    labels: &[Value],
    config: &Config,
    flags: &Flags,
    report: &mut Report,
) -> Result<()> {
    let pods = mesh.running(None, "istio=ingressgateway").await?;
    if pods.is_empty() {
        report.line(0, "Skipping Gateway information (no ingress gateway pods)");
        return Ok(());
    }
    let mut ingresses = Vec::new();
    let mut namespaces: Vec<&str> = pods.iter().map(api::meta::namespace).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for namespace in namespaces {
        let of_namespace = mesh
            .client
            .list(&SERVICES, Some(namespace), &ListParams::default())
            .await?;
        ingresses.extend(of_namespace.items.into_iter().filter_map(|service| {
            ingress::Ingress::new(
                service,
                pods.iter()
                    .filter(|pod| api::meta::namespace(pod) == namespace),
            )
        }));
    }
    if ingresses.is_empty() {
        report.line(
            0,
            "Skipping Gateway information (no ingress gateway service)",
        );
    }
    let mut seen = Vec::new();
    for pod in &pods {
        let answer = config_dump(mesh, pod, flags.port).await;
        let answer = answer.map_err(|error| {
            anyhow!("failed to execute command on ingress gateway sidecar: {error}")
        })?;
        let dump = Dump::parse(&answer)
            .map_err(|error| anyhow!("can't parse ingress gateway sidecar config_dump: {error}"))?;
        for service in services {
            for port in list(&service["spec"], "ports") {
                let number = port["port"].as_i64().unwrap_or(0);
                let rule = routes::rule_of(&dump, service, number, config, report);
                let subsets = routes::subsets(rule, labels);
                let Some(found) =
                    routes::virtual_service_of(&dump, service, number, config, report)
                else {
                    continue;
                };
                if ingress::exposed(report, found, config, &ingresses, &mut seen) {
                    routes::virtual_service(report, 0, found, service, &subsets, rule);
                }
            }
        }
    }
    Ok(())
}

/// Whether labels have everything a selector asks for.
fn contains(labels: &Value, selector: &Value) -> bool {
    selector
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// The part of an Istio host before the cluster's domain is added.
fn full_host(host: &str, namespace: &str) -> String {
    const DOMAIN: &str = ".svc.cluster.local";
    let mut host = host.to_owned();
    if !host.contains('.') {
        host = format!("{host}.{namespace}");
    }
    if host.starts_with('*') || host.ends_with(DOMAIN) {
        host
    } else {
        format!("{host}{DOMAIN}")
    }
}

/// The full name of a Service.
fn host_of(service: &Value) -> String {
    full_host(api::meta::name(service), api::meta::namespace(service))
}
