//! `istioctl proxy-status`: whether proxies have what their control plane sent.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::dump::{list, text};
use crate::mesh::Mesh;
use crate::table::Table;
use crate::xds_debug::{self, Answer};
use crate::{Global, Shell, async_runtime, compare, files, proto_json, yaml};

/// Flags of `proxy-status`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A pod whose configuration is compared with its control plane's: [TYPE/]NAME[.NAMESPACE]
    pod: Option<String>,
    /// Output format: one of json|yaml|table
    #[arg(long, short, default_value = "table", value_name = "FORMAT")]
    output: String,
    /// 1 shows each type
    #[arg(long, short, default_value_t = 0, value_name = "N")]
    verbosity: u8,
    /// A file with what the pod's proxy answered to /config_dump
    #[arg(long)]
    file: Option<PathBuf>,
    /// Admin port of the proxy
    #[arg(
        long = "proxy-admin-port",
        value_name = "PORT",
        default_value_t = 15000
    )]
    port: u16,
    /// Control plane revision; there is one here
    #[arg(long, hide = true)]
    revision: Option<String>,
    /// Label of control planes to ask
    #[arg(long = "xds-label", hide = true)]
    label: Option<String>,
}

/// Runs the command; the exit code.
///
/// # Errors
/// When no control plane answers.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let mesh = Mesh::connect(global, shell)?;
    let runtime = async_runtime()?;
    if let Some(pod) = &arguments.pod {
        let (pod, namespace) = runtime.block_on(mesh.pod(pod))?;
        let proxy = match &arguments.file {
            Some(file) => files::read(file, shell),
            None => runtime
                .block_on(mesh.ask((&pod, &namespace), "GET", "/config_dump", arguments.port))
                .map(|bytes| bytes.to_vec()),
        };
        let proxy = proxy.map_err(|error| anyhow!("could not contact sidecar: {error}"))?;
        let name = format!("{pod}.{namespace}");
        let answers =
            runtime.block_on(xds_debug::ask_all(&mesh, xds_debug::CONFIG_DUMP, &[name]))?;
        let answer = answers
            .into_iter()
            .find(|answer| !answer.response.resources.is_empty());
        let Some(answer) = answer else {
            bail!("unable to find config dump in Istiod responses");
        };
        let configs = resources(&answer)?;
        let istiod = serde_json::to_vec(&json!({"configs": configs}))?;
        write!(shell.stdout, "{}", compare::report(&istiod, &proxy)?)?;
        return Ok(0);
    }
    if !["table", "json", "yaml"].contains(&arguments.output.as_str()) {
        bail!("output format {:?} not supported", arguments.output);
    }
    let answers = runtime.block_on(xds_debug::ask_all(&mesh, xds_debug::SYNCZ, &[]))?;
    let namespace = mesh.namespace.as_deref();
    let text = match arguments.output.as_str() {
        "table" => {
            let mut proxies = Vec::new();
            for answer in &answers {
                proxies.extend(
                    resources(answer)?
                        .into_iter()
                        .map(|proxy| (answer.id().to_owned(), proxy)),
                );
            }
            proxies.retain(|(_, proxy)| of_namespace(proxy, namespace));
            table(&proxies, arguments.verbosity > 0, OffsetDateTime::now_utc())
        }
        format => {
            let mut out = String::new();
            for answer in &answers {
                out.push_str(&document(answer, namespace, format == "yaml")?);
            }
            out
        }
    };
    write!(shell.stdout, "{text}")?;
    Ok(0)
}

fn resources(answer: &Answer) -> Result<Vec<Value>> {
    let resources = &answer.response.resources;
    Ok(resources
        .iter()
        .map(xds::json::any_to_value)
        .collect::<Result<_, _>>()?)
}

fn of_namespace(proxy: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|wanted| text(&proxy["node"]["metadata"], "NAMESPACE") == wanted)
}

/// The response as JSON or YAML.
fn document(answer: &Answer, namespace: Option<&str>, as_yaml: bool) -> Result<String> {
    let mut value = xds::json::to_value(&answer.response)?;
    if let Some(resources) = value["resources"].as_array_mut() {
        resources.retain(|proxy| of_namespace(proxy, namespace));
    }
    const KIND: &str = "envoy.service.discovery.v3.DiscoveryResponse";
    let value = proto_json::camel(KIND, &value);
    Ok(if as_yaml {
        format!("{}\n", yaml::to_string(&value))
    } else {
        format!("{}\n", proto_json::legacy(KIND, &value))
    })
}

/// Types in the order of columns; others follow by name.
const TYPES: [(&str, &str); 4] = [
    ("type.googleapis.com/envoy.config.cluster.v3.Cluster", "CDS"),
    (
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        "LDS",
    ),
    (
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "EDS",
    ),
    (
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "RDS",
    ),
];
const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

fn short(type_url: &str) -> &str {
    if let Some((_, short)) = TYPES.iter().find(|(url, _)| *url == type_url) {
        return short;
    }
    match type_url {
        EXTENSION => "ECDS",
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret" => "SDS",
        "type.googleapis.com/istio.networking.nds.v1.NameTable" => "NDS",
        "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig" => "PCDS",
        other => other,
    }
}

/// The table of proxies, each with the control plane it is connected to.
fn table(proxies: &[(String, Value)], each_type: bool, now: OffsetDateTime) -> String {
    let mut proxies: Vec<&(String, Value)> = proxies.iter().collect();
    crate::go_sort::sort(&mut proxies, |a, b| {
        text(&a.1["node"], "id") < text(&b.1["node"], "id")
    });
    let mut seen: Vec<&str> = proxies
        .iter()
        .flat_map(|(_, proxy)| list(proxy, "generic_xds_configs"))
        .map(|config| text(config, "type_url"))
        .collect();
    if each_type {
        seen.extend(TYPES.iter().map(|(url, _)| *url));
        seen.push(EXTENSION);
    }
    seen.sort_unstable();
    seen.dedup();
    if !each_type {
        let place = |url: &str| {
            TYPES
                .iter()
                .position(|(known, _)| *known == url)
                .unwrap_or(TYPES.len())
        };
        seen.sort_by_key(|url| place(url));
    }
    let mut header = vec!["NAME", "CLUSTER"];
    if each_type {
        header.extend(seen.iter().map(|url| short(url)));
        header.extend(["ISTIOD", "VERSION"]);
    } else {
        header.extend(["ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
    }
    let mut table = Table::new(&header);
    for (istiod, proxy) in proxies {
        let node = &proxy["node"];
        let status = |url: &str| {
            list(proxy, "generic_xds_configs")
                .iter()
                .find(|config| text(config, "type_url") == url)
                .map_or_else(|| "IGNORED".to_owned(), |config| describe(config, now))
        };
        let mut row = vec![
            text(node, "id").to_owned(),
            text(&node["metadata"], "CLUSTER_ID").to_owned(),
        ];
        if each_type {
            row.extend(seen.iter().map(|url| status(url)));
        }
        row.push(istiod.clone());
        row.push(text(&node["metadata"], "ISTIO_VERSION").to_owned());
        if !each_type {
            let subscribed: Vec<&str> = seen
                .iter()
                .filter(|url| status(url) != "IGNORED")
                .map(|url| short(url))
                .collect();
            row.push(match subscribed.len() {
                0 => "0".to_owned(),
                count => format!("{count} ({})", subscribed.join(",")),
            });
        }
        table.row(&row);
    }
    table.render(5)
}

fn describe(config: &Value, now: OffsetDateTime) -> String {
    match text(config, "config_status") {
        "" | "UNKNOWN" => "IGNORED".to_owned(),
        "NOT_SENT" => "NOT SENT".to_owned(),
        status => {
            let updated = text(config, "last_updated");
            let updated =
                OffsetDateTime::parse(updated, &time::format_description::well_known::Rfc3339);
            match updated {
                Ok(at) => format!("{status} ({})", human_duration(now - at)),
                Err(_) => status.to_owned(),
            }
        }
    }
}

/// As kubectl shows ages: two units where they matter.
fn human_duration(age: time::Duration) -> String {
    let seconds = age.whole_seconds();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 | 0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Vec<(String, Value)> {
        let config = |url: &str, status: &str| json!({"type_url": url, "config_status": status, "last_updated": "2024-01-01T00:00:00Z"});
        let proxy = |id: &str, configs: Value| {
            let metadata =
                json!({"CLUSTER_ID": "ctx1", "NAMESPACE": "n", "ISTIO_VERSION": "1.31.0"});
            let node = json!({"id": id, "metadata": metadata});
            (
                "istiod-1".to_owned(),
                json!({"node": node, "generic_xds_configs": configs}),
            )
        };
        vec![
            proxy(
                "b.n",
                json!([config(TYPES[0].0, "SYNCED"), config(TYPES[3].0, "STALE")]),
            ),
            proxy("a.n", json!([config(TYPES[0].0, "NOT_SENT")])),
        ]
    }

    #[test]
    fn proxies_are_listed_by_name_with_their_types() {
        let now = OffsetDateTime::from_unix_timestamp(1_704_067_200 + 90).unwrap();
        let expected = "\
NAME     CLUSTER     ISTIOD       VERSION     SUBSCRIBED TYPES
a.n      ctx1        istiod-1     1.31.0      1 (CDS)
b.n      ctx1        istiod-1     1.31.0      2 (CDS,RDS)
";
        assert_eq!(table(&proxies(), false, now), expected);
        let all = table(&proxies(), true, now);
        assert!(
            all.contains("SYNCED (90s)") && all.contains("NOT SENT") && all.contains("STALE (90s)"),
            "{all}"
        );
    }

    #[test]
    fn ages_have_the_units_that_matter() {
        let seen = |seconds| human_duration(time::Duration::seconds(seconds));
        assert_eq!(seen(119), "119s");
        assert_eq!(seen(185), "3m5s");
        assert_eq!(seen(3600), "60m");
        assert_eq!(seen(4 * 3600 + 60), "4h1m");
        assert_eq!(seen(3 * 86400), "3d");
    }
}
