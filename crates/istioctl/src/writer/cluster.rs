//! `proxy-config cluster`.

use anyhow::{Result, bail};
use serde_json::Value;

use super::names::{ClusterName, managed_by};
use super::{Format, messages};
use crate::dump::{Dump, list, text};
use crate::go_sort;
use crate::table::Table;

/// Which clusters are shown. Each field is looked for in the name; empty or 0: any.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// Part of the host name.
    pub fqdn: String,
    /// Port of the service.
    pub port: i64,
    /// Part of the subset.
    pub subset: String,
    /// `inbound` or `outbound`.
    pub direction: String,
}

impl Filter {
    /// Whether the cluster of this name is shown.
    pub fn matches(&self, name: &str) -> bool {
        name.contains(&self.fqdn)
            && name.contains(&self.direction)
            && name.contains(&self.subset)
            && (self.port == 0 || name.contains(&format!("|{}|", self.port)))
    }
}

fn sorted(dump: &Dump) -> Result<Vec<&Value>> {
    let section = dump.section("ClustersConfigDump")?;
    let mut clusters: Vec<&Value> = list(section, "dynamic_active_clusters")
        .iter()
        .chain(list(section, "static_clusters"))
        .map(|entry| &entry["cluster"])
        .filter(|cluster| cluster.is_object())
        .collect();
    if clusters.is_empty() {
        bail!("no clusters found");
    }
    go_sort::sort(&mut clusters, |a, b| {
        let (a, b) = (text(a, "name"), text(b, "name"));
        ClusterName::parse(a).order(&ClusterName::parse(b)).is_lt()
    });
    Ok(clusters)
}

/// The table. `named`: with the name of the resource before, as `all` shows it.
///
/// # Errors
/// When the dump has no clusters.
pub fn summary(dump: &Dump, filter: &Filter, named: bool) -> Result<String> {
    let mut table = Table::default();
    let mut header = vec![
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ];
    if named {
        header.insert(0, "NAME");
    }
    table.row(&header);
    for cluster in sorted(dump)? {
        let name = text(cluster, "name");
        if !filter.matches(name) {
            continue;
        }
        // Clusters of a custom kind have none; it reads as the first one.
        let kind = cluster["type"].as_str().unwrap_or("STATIC");
        let resource = format!("cluster/{name}");
        let mut row = match ClusterName::structured(name) {
            Some(parts) => vec![
                parts.host.to_owned(),
                parts.port.to_string(),
                if parts.subset.is_empty() {
                    "-"
                } else {
                    parts.subset
                }
                .to_owned(),
                parts.direction.to_owned(),
            ],
            None => {
                let shown = if named && !name.is_empty() {
                    &resource
                } else {
                    name
                };
                [shown, "-", "-", "-"].map(str::to_owned).to_vec()
            }
        };
        row.extend([kind.to_owned(), managed_by(&cluster["metadata"])]);
        if named && !name.is_empty() {
            row.insert(0, resource);
        }
        table.row(&row);
    }
    Ok(table.render(5))
}

/// The clusters themselves.
///
/// # Errors
/// When the dump has no clusters.
pub fn dump(dump: &Dump, filter: &Filter, format: Format) -> Result<String> {
    let mut clusters = sorted(dump)?;
    clusters.retain(|cluster| filter.matches(text(cluster, "name")));
    Ok(messages(&clusters, format))
}
