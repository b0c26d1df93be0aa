//! `istioctl proxy-config`: what a proxy was told, from its admin interface or from a file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use time::OffsetDateTime;

use crate::dump::Dump;
use crate::mesh::Mesh;
use crate::writer::{
    self, Format, bootstrap, cluster, ecds, eds, endpoint, listener, route, secret,
};
use crate::{Global, Shell, async_runtime};

/// `proxy-config` and its flags.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Output format: one of json|yaml|short
    #[arg(long, short, global = true, value_name = "FORMAT")]
    output: Option<String>,
    /// Admin port of the proxy
    #[arg(
        long = "proxy-admin-port",
        global = true,
        value_name = "PORT",
        default_value_t = 15000
    )]
    admin_port: u16,
    #[command(subcommand)]
    what: Option<What>,
}

/// Where the configuration comes from.
#[derive(Args, Debug)]
struct Source {
    /// A pod: [TYPE/]NAME[.NAMESPACE]
    pods: Vec<String>,
    /// A file with what the proxy answered to /config_dump; `-` is standard input
    #[arg(long, short)]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ClusterFlags {
    /// Only with this in the name of the service
    #[arg(long, default_value = "", hide_default_value = true)]
    fqdn: String,
    /// Only inbound or outbound
    #[arg(long, default_value = "", hide_default_value = true)]
    direction: String,
    /// Only with this in the name of the subset
    #[arg(long, default_value = "", hide_default_value = true)]
    subset: String,
}

#[derive(Args, Debug)]
struct ListenerFlags {
    /// Only of this address
    #[arg(long, default_value = "", hide_default_value = true)]
    address: String,
    /// Only of this type: HTTP, TCP, HTTP+TCP, UNKNOWN
    #[arg(long = "type", default_value = "", hide_default_value = true)]
    kind: String,
}

#[derive(Args, Debug)]
struct EndpointFlags {
    /// Only of this address
    #[arg(long, default_value = "", hide_default_value = true)]
    address: String,
    /// Only of this port
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    port: i64,
    /// Only of the cluster of this name
    #[arg(long, default_value = "", hide_default_value = true)]
    cluster: String,
    /// Only of this health
    #[arg(long, default_value = "", hide_default_value = true)]
    status: String,
}

impl EndpointFlags {
    fn filter(&self) -> endpoint::Filter {
        endpoint::Filter {
            address: self.address.clone(),
            port: self.port,
            cluster: self.cluster.clone(),
            status: self.status.clone(),
        }
    }
}

#[derive(Args, Debug)]
struct Verbose {
    /// A row for each match instead of one for the resource
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    verbose: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Clusters: upstream services, their subsets and ports
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        flags: ClusterFlags,
        /// Only of this port
        #[arg(
            long,
            default_value_t = 0,
            hide_default_value = true,
            allow_negative_numbers = true
        )]
        port: i64,
    },
    /// Everything
    #[command(visible_alias = "a")]
    All {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        cluster: ClusterFlags,
        #[command(flatten)]
        listener: ListenerFlags,
        #[command(flatten)]
        verbose: Verbose,
        /// Only clusters, listeners and endpoints of this port
        #[arg(
            long,
            default_value_t = 0,
            hide_default_value = true,
            allow_negative_numbers = true
        )]
        port: i64,
        /// Only routes of this name
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// A title before each table
        #[arg(long = "with-headers")]
        with_headers: bool,
    },
    /// Listeners and where their filter chains lead
    #[command(visible_aliases = ["listeners", "l"])]
    Listener {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        flags: ListenerFlags,
        #[command(flatten)]
        verbose: Verbose,
        /// Only of this port
        #[arg(
            long,
            default_value_t = 0,
            hide_default_value = true,
            allow_negative_numbers = true
        )]
        port: i64,
    },
    /// Route tables
    #[command(visible_aliases = ["routes", "r"])]
    Route {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        verbose: Verbose,
        /// Only of this name
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
    },
    /// Endpoints and their health as the proxy sees it
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        flags: EndpointFlags,
    },
    /// Endpoints and their locality as the control plane sent them
    #[command(hide = true)]
    Eds {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        flags: EndpointFlags,
    },
    /// The configuration the proxy started with
    #[command(visible_alias = "b")]
    Bootstrap {
        #[command(flatten)]
        source: Source,
    },
    /// Certificates
    #[command(visible_aliases = ["secrets", "s"])]
    Secret {
        #[command(flatten)]
        source: Source,
    },
    /// Extensions that are configured on their own
    #[command(visible_alias = "ec")]
    Ecds {
        #[command(flatten)]
        source: Source,
    },
    /// Show or set the levels of the proxy's log
    #[command(visible_alias = "o")]
    Log {
        /// A pod: [TYPE/]NAME[.NAMESPACE]
        pods: Vec<String>,
        /// Levels to set: LEVEL for all, LOGGER:LEVEL for one, several with commas
        #[arg(long)]
        level: Option<String>,
        /// Set all to warning
        #[arg(long, short)]
        reset: bool,
        /// Pods by label
        #[arg(long, short = 'l')]
        selector: Option<String>,
    },
    /// Compare the authorities two pods trust
    #[command(name = "rootca-compare", visible_alias = "rc")]
    RootCaCompare {
        /// Two pods
        pods: Vec<String>,
    },
    /// What is no such subcommand; shows the help
    #[command(external_subcommand)]
    Unknown(#[allow(dead_code)] Vec<String>),
}

/// Runs the command; the exit code.
///
/// # Errors
/// When the proxy cannot be asked or its answer lacks what is to be shown.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let Some(what) = &arguments.what else {
        return help(shell);
    };
    let command = Command { global, arguments };
    let mut out = String::new();
    let result = command.run(what, shell, &mut out);
    write!(shell.stdout, "{out}")?;
    result.map(|()| 0)
}

fn help(shell: &mut Shell<'_>) -> Result<u8> {
    write!(shell.stdout, "{}", crate::command::help(&["proxy-config"]))?;
    Ok(0)
}

struct Command<'a> {
    global: &'a Global,
    arguments: &'a Arguments,
}

impl Command<'_> {
    fn run(&self, what: &What, shell: &mut Shell<'_>, out: &mut String) -> Result<()> {
        let default = if matches!(what, What::Bootstrap { .. }) {
            "json"
        } else {
            "short"
        };
        let output = self.arguments.output.as_deref().unwrap_or(default);
        match what {
            What::Cluster {
                source,
                flags,
                port,
            } => {
                let dump = self.dump(
                    source,
                    "cluster",
                    "?mask=dynamic_active_clusters,dynamic_warming_clusters,static_clusters",
                    shell,
                )?;
                let filter = cluster_filter(flags, *port);
                out.push_str(&match Format::parse(output)? {
                    Format::Short => cluster::summary(&dump, &filter, false)?,
                    format => cluster::dump(&dump, &filter, format)?,
                });
            }
            What::All {
                source,
                cluster,
                listener,
                verbose,
                port,
                name,
                with_headers,
            } => {
                let format = Format::parse(output)?;
                let text = self.text(source, "all", "?include_eds=true", shell)?;
                if format != Format::Short {
                    out.push_str(&match format {
                        Format::Yaml => crate::yaml::to_string(
                            &serde_json::from_slice(&text).context("not JSON")?,
                        ),
                        _ => String::from_utf8_lossy(&text).into_owned(),
                    });
                    out.push('\n');
                    return Ok(());
                }
                let filters = writer::Filters {
                    cluster: cluster_filter(cluster, *port),
                    listener: listener_filter(listener, verbose, *port),
                    route: route::Filter {
                        name: name.clone(),
                        verbose: verbose.verbose,
                    },
                    endpoint: endpoint::Filter {
                        address: listener.address.clone(),
                        port: *port,
                        ..Default::default()
                    },
                };
                let dump = Dump::parse(&text)?;
                writer::full_summary(
                    &dump,
                    &filters,
                    *with_headers,
                    OffsetDateTime::now_utc(),
                    out,
                )?;
            }
            What::Listener {
                source,
                flags,
                verbose,
                port,
            } => {
                let dump = self.dump(
                    source,
                    "listener",
                    "?mask=dynamic_listeners,static_listeners",
                    shell,
                )?;
                let filter = listener_filter(flags, verbose, *port);
                out.push_str(&match Format::parse(output)? {
                    Format::Short => listener::summary(&dump, &filter, false)?,
                    format => listener::dump(&dump, &filter, format)?,
                });
            }
            What::Route {
                source,
                verbose,
                name,
            } => {
                let dump = self.dump(
                    source,
                    "route",
                    "?mask=dynamic_route_configs,static_route_configs",
                    shell,
                )?;
                let filter = route::Filter {
                    name: name.clone(),
                    verbose: verbose.verbose,
                };
                out.push_str(&match Format::parse(output)? {
                    Format::Short => route::summary(&dump, &filter, false)?,
                    format => route::dump(&dump, &filter, format)?,
                });
            }
            What::Endpoint { source, flags } => {
                let hosts = endpoint::Hosts::parse(&self.read(
                    source,
                    "endpoints",
                    shell,
                    |mesh, (pod, ns)| {
                        let asked = mesh.ask(
                            (pod, ns),
                            "GET",
                            "/clusters?format=json",
                            self.arguments.admin_port,
                        );
                        async_runtime()?
                            .block_on(asked)
                            .map_err(|error| anyhow!("failed to execute command on Envoy: {error}"))
                    },
                )?)?;
                let filter = flags.filter();
                out.push_str(&match Format::parse(output)? {
                    Format::Short => hosts.summary(&filter),
                    format => hosts.dump(&filter, format),
                });
            }
            What::Eds { source, flags } => {
                let dump = self.dump(source, "eds", "?include_eds=true", shell)?;
                let filter = flags.filter();
                out.push_str(&match Format::parse(output)? {
                    Format::Short => eds::summary(&dump, &filter, false),
                    format => eds::dump(&dump, &filter, format),
                });
            }
            What::Bootstrap { source } => {
                let dump = self.dump(source, "bootstrap", "?mask=bootstrap", shell)?;
                out.push_str(&match Format::parse(output)? {
                    Format::Short => bootstrap::summary(&dump)?,
                    format => bootstrap::dump(&dump, format)?,
                });
            }
            What::Secret { source } => {
                let dump = self.dump(source, "secret", SECRETS, shell)?;
                out.push_str(&match Format::parse(output)? {
                    Format::Short => secret::summary(&dump, false, OffsetDateTime::now_utc())?,
                    format => secret::dump(&dump, format)?,
                });
            }
            What::Ecds { source } => {
                let dump = self.dump(source, "ecds", "?include_eds=true", shell)?;
                out.push_str(&match Format::parse(output)? {
                    Format::Short => ecds::summary(&dump)?,
                    format => ecds::dump(&dump, format)?,
                });
            }
            What::Log {
                pods,
                level,
                reset,
                selector,
            } => self.log(
                pods,
                level.as_deref(),
                *reset,
                selector.as_deref(),
                output,
                shell,
                out,
            )?,
            What::RootCaCompare { pods } => self.compare(pods, shell, out)?,
            What::Unknown(_) => {
                help(shell)?;
            }
        }
        Ok(())
    }

    /// The bytes a source names; `name` is the command's, for when it names none or two.
    fn read(
        &self,
        source: &Source,
        name: &str,
        shell: &mut Shell<'_>,
        ask: impl Fn(&Mesh, (&str, &str)) -> Result<bytes::Bytes>,
    ) -> Result<Vec<u8>> {
        match (&source.pods[..], &source.file) {
            ([pod], None) => {
                let mesh = Mesh::connect(self.global, shell)?;
                let (pod, namespace) = async_runtime()?.block_on(mesh.pod(pod))?;
                Ok(ask(&mesh, (&pod, &namespace))?.to_vec())
            }
            ([], Some(file)) => crate::files::read(file, shell),
            _ => {
                let command = if name == "endpoints" {
                    "endpoint"
                } else {
                    name
                };
                usage(command, shell)?;
                bail!("{name} requires pod name or --file parameter")
            }
        }
    }

    fn text(
        &self,
        source: &Source,
        name: &str,
        query: &str,
        shell: &mut Shell<'_>,
    ) -> Result<Vec<u8>> {
        self.read(source, name, shell, |mesh, pod| {
            self.config_dump(mesh, pod, query)
        })
    }

    fn config_dump(
        &self,
        mesh: &Mesh,
        (pod, namespace): (&str, &str),
        query: &str,
    ) -> Result<bytes::Bytes> {
        let path = format!("/config_dump{query}");
        let asked = mesh.ask((pod, namespace), "GET", &path, self.arguments.admin_port);
        async_runtime()?.block_on(asked).map_err(|error| {
            anyhow!("failed to execute command on {pod}.{namespace} sidecar: {error}")
        })
    }

    fn dump(
        &self,
        source: &Source,
        name: &str,
        query: &str,
        shell: &mut Shell<'_>,
    ) -> Result<Dump> {
        Dump::parse(&self.text(source, name, query, shell)?)
    }

    #[allow(clippy::too_many_arguments)]
    fn log(
        &self,
        pods: &[String],
        level: Option<&str>,
        reset: bool,
        selector: Option<&str>,
        output: &str,
        shell: &mut Shell<'_>,
        out: &mut String,
    ) -> Result<()> {
        if selector.is_none() && pods.is_empty() {
            usage("log", shell)?;
            bail!("log requires pod name or --selector");
        }
        if reset && level.is_some() {
            usage("log", shell)?;
            bail!("--level cannot be combined with --reset");
        }
        if output != "short" {
            bail!("--output is not applicable for this command");
        }
        let mesh = Mesh::connect(self.global, shell)?;
        let runtime = async_runtime()?;
        let (names, namespace) = match selector {
            Some(selector) => (
                runtime.block_on(mesh.selected(selector))?,
                mesh.namespace().to_owned(),
            ),
            None => runtime.block_on(mesh.pods(&pods[0]))?,
        };
        let ask = |pod: &str, query: &str| {
            let path = format!("/logging{query}");
            runtime
                .block_on(mesh.ask((pod, &namespace), "POST", &path, self.arguments.admin_port))
                .map(|body| String::from_utf8_lossy(&body).into_owned())
                .map_err(|error| anyhow!("failed to execute command on Envoy: {error}"))
        };
        let mut known = String::new();
        for pod in &names {
            known = ask(pod, "")?;
        }
        let wanted = if reset {
            vec![("level".to_owned(), "warning")]
        } else {
            levels(level.unwrap_or_default(), &known)?
        };
        let mut problems = Vec::new();
        for pod in &names {
            let mut answer = Ok(String::new());
            if wanted.is_empty() {
                answer = ask(pod, "");
            }
            for (logger, level) in &wanted {
                answer = ask(pod, &format!("?{logger}={level}"));
            }
            match answer {
                Ok(answer) => out.push_str(&format!("{pod}.{namespace}:\n{answer}")),
                Err(error) => problems.push(format!(
                    "error configuring log level for {pod}.{namespace}: {error}"
                )),
            }
        }
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        Ok(())
    }

    fn compare(&self, pods: &[String], shell: &mut Shell<'_>, out: &mut String) -> Result<()> {
        let [first, second] = pods else {
            usage("rootca-compare", shell)?;
            bail!("rootca-compare requires 2 pods as an argument");
        };
        let mesh = Mesh::connect(self.global, shell)?;
        let read = |text: &str| -> Result<(String, Vec<Vec<u8>>)> {
            let (pod, namespace) = async_runtime()?.block_on(mesh.pod(text))?;
            let dump = Dump::parse(&self.config_dump(&mesh, (&pod, &namespace), SECRETS)?)?;
            let certificates = x509_parser::pem::Pem::iter_from_buffer(&secret::root_ca(&dump)?)
                .filter_map(|pem| pem.ok().map(|pem| pem.contents))
                .collect();
            Ok((format!("{pod}.{namespace}"), certificates))
        };
        let ((first, one), (second, other)) = (read(first)?, read(second)?);
        let both = |how: &str, so: &str| {
            format!(
                "Both [{first}] and [{second}] have the {how} ROOTCA, theoretically the connectivity between them is {so}"
            )
        };
        if one.iter().any(|certificate| other.contains(certificate)) {
            out.push_str(&both("identical", "available"));
            out.push('\n');
            return Ok(());
        }
        bail!(both("non identical", "unavailable"))
    }
}

const SECRETS: &str = "?mask=dynamic_active_secrets,dynamic_warming_secrets";

fn usage(command: &str, shell: &mut Shell<'_>) -> Result<()> {
    write!(
        shell.stderr,
        "{}\n\n",
        crate::command::help(&["proxy-config", command])
    )?;
    Ok(())
}

fn cluster_filter(flags: &ClusterFlags, port: i64) -> cluster::Filter {
    cluster::Filter {
        fqdn: flags.fqdn.clone(),
        port,
        subset: flags.subset.clone(),
        direction: flags.direction.clone(),
    }
}

fn listener_filter(flags: &ListenerFlags, verbose: &Verbose, port: i64) -> listener::Filter {
    listener::Filter {
        address: flags.address.clone(),
        port,
        kind: flags.kind.clone(),
        verbose: verbose.verbose,
    }
}

/// Reads `--level`: pairs of logger and level, that of all loggers first. `known` is the proxy's list of loggers.
fn levels(text: &str, known: &str) -> Result<Vec<(String, &'static str)>> {
    const LEVELS: [(&str, &str); 8] = [
        ("trace", "trace"),
        ("debug", "debug"),
        ("info", "info"),
        ("warning", "warning"),
        ("warn", "warning"),
        ("error", "error"),
        ("critical", "critical"),
        ("off", "off"),
    ];
    let level = |name: &str| {
        LEVELS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, level)| *level)
            .with_context(|| format!("unrecognized logging level: {name}"))
    };
    let mut wanted: Vec<(String, &'static str)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        // A namespace before the logger means nothing here.
        let plain = part.rsplit("::").next().unwrap_or(part);
        match plain.split_once([':', '=']) {
            None => wanted = vec![("level".to_owned(), level(part)?)],
            Some((logger, name)) => {
                if !known.contains(logger) && logger != "level" {
                    bail!("unrecognized logger name: {logger}");
                }
                wanted.push((logger.to_owned(), level(name)?));
            }
        }
    }
    wanted.sort_by_key(|(logger, _)| logger != "level");
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_all_loggers_first() {
        let known = "active loggers:\n  http: warning\n  redis: warning\n";
        let seen = levels("http:debug,level:error", known).unwrap();
        assert_eq!(
            seen,
            [("level".to_owned(), "error"), ("http".to_owned(), "debug")]
        );
        assert_eq!(levels("", known).unwrap(), []);
        assert_eq!(
            levels("none", known).unwrap_err().to_string(),
            "unrecognized logging level: none"
        );
        assert_eq!(
            levels("nope:debug", known).unwrap_err().to_string(),
            "unrecognized logger name: nope"
        );
    }
}
