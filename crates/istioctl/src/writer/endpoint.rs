//! `proxy-config endpoint`: the hosts a proxy knows, from `/clusters?format=json`.

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::{Format, messages};
use crate::dump::{Address, list, text};
use crate::go_sort;
use crate::table::Table;

/// Which endpoints are shown; empty or 0: any. Texts are compared without regard to case.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// Address, without port for hosts, with port for EDS.
    pub address: String,
    /// Port.
    pub port: i64,
    /// Name of the cluster.
    pub cluster: String,
    /// Health.
    pub status: String,
}

impl Filter {
    /// Whether an endpoint is shown.
    pub(super) fn matches(
        &self,
        addresses: &[String],
        port: u64,
        cluster: &str,
        status: &str,
    ) -> bool {
        let same = |wanted: &str, seen: &str| {
            wanted.is_empty() || wanted.to_lowercase() == seen.to_lowercase()
        };
        addresses.iter().any(|address| same(&self.address, address))
            && (self.port == 0 || i64::try_from(port) == Ok(self.port))
            && same(&self.cluster, cluster)
            && same(&self.status, status)
    }
}

/// The hosts of a proxy by cluster.
#[derive(Debug)]
pub struct Hosts(Value);

impl Hosts {
    /// Reads the text of `/clusters?format=json`.
    ///
    /// # Errors
    /// When it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| {
            anyhow!("error unmarshalling config dump response from Envoy: {reason}")
        };
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(not_json(bytes, &error)))?;
        let message = xds::json::dynamic_from_value("envoy.admin.v3.Clusters", &value, false);
        let message = message.map_err(|error| wrong(error.to_string()))?;
        Ok(Self(xds::json::dynamic_to_value(&message)?))
    }

    fn shown<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a Value, Vec<Host<'a>>)> {
        list(&self.0, "cluster_statuses").iter().map(|cluster| {
            let name = text(cluster, "name");
            let hosts = list(cluster, "host_statuses")
                .iter()
                .map(|host| Host::of(host, name))
                .filter(|host| {
                    filter.matches(
                        std::slice::from_ref(&host.address),
                        host.port,
                        name,
                        host.status,
                    )
                })
                .collect();
            (cluster, hosts)
        })
    }

    /// The table.
    pub fn summary(&self, filter: &Filter) -> String {
        let mut hosts: Vec<Host<'_>> = self.shown(filter).flat_map(|(_, hosts)| hosts).collect();
        go_sort::sort(&mut hosts, |a, b| {
            (&a.address, a.port, a.cluster) < (&b.address, b.port, b.cluster)
        });
        let mut table = Table::new(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
        for host in hosts {
            let endpoint = match host.port {
                0 => host.address,
                port => format!("{}:{port}", host.address),
            };
            let check = if host.ejected { "FAILED" } else { "OK" };
            table.row(&[&endpoint, host.status, check, host.cluster]);
        }
        table.render(5)
    }

    /// The clusters that have hosts which are shown, whole.
    pub fn dump(&self, filter: &Filter, format: Format) -> String {
        let clusters: Vec<Value> = self
            .shown(filter)
            .filter(|(_, hosts)| !hosts.is_empty())
            .map(|(cluster, _)| {
                let mut cluster = cluster.clone();
                if let Some(object) = cluster.as_object_mut() {
                    object.insert("@type".to_owned(), "envoy.admin.v3.ClusterStatus".into());
                }
                cluster
            })
            .collect();
        messages(&clusters.iter().collect::<Vec<_>>(), format)
    }
}

struct Host<'a> {
    address: String,
    port: u64,
    cluster: &'a str,
    status: &'a str,
    ejected: bool,
}

impl<'a> Host<'a> {
    fn of(host: &'a Value, cluster: &'a str) -> Self {
        let address = Address(&host["address"]);
        let (address, port) = match address.socket() {
            Some((host, port)) => (host.to_owned(), port),
            None => match address.pipe() {
                Some(path) => (format!("unix://{path}"), 0),
                None => (
                    address.internal().unwrap_or_else(|| "unknown".to_owned()),
                    0,
                ),
            },
        };
        let health = &host["health_status"];
        Self {
            address,
            port,
            cluster,
            status: health["eds_health_status"].as_str().unwrap_or("UNKNOWN"),
            ejected: health["failed_outlier_check"] == true,
        }
    }
}

/// Why bytes are not JSON, in the words of Go's reader where their beginning tells it.
fn not_json(bytes: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.trim_start().chars().next() {
        None => "unexpected end of JSON input".to_owned(),
        Some(first) if !"{[\"-0123456789tfn".contains(first) => {
            format!("invalid character {first:?} looking for beginning of value")
        }
        Some(_) => error.to_string(),
    }
}
