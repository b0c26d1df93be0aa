//! `proxy-config eds`: endpoints as the control plane sent them, with their locality.

use serde_json::Value;

use super::endpoint::Filter;
use super::names::ClusterName;
use super::{Format, messages};
use crate::dump::{Address, Dump, list, text};
use crate::go_sort;
use crate::table::Table;

fn addresses(endpoint: &Value) -> Vec<String> {
    let endpoint = &endpoint["endpoint"];
    let more = list(endpoint, "additional_addresses")
        .iter()
        .map(|more| &more["address"]);
    std::iter::once(&endpoint["address"])
        .chain(more)
        .map(|address| {
            let address = Address(address);
            match address.socket() {
                Some((host, port)) => format!("{host}:{port}"),
                None => match address.pipe() {
                    Some(path) => path.to_owned(),
                    None => address.internal().unwrap_or_else(|| "unknown".to_owned()),
                },
            }
        })
        .collect()
}

fn status(endpoint: &Value) -> &str {
    endpoint["health_status"].as_str().unwrap_or("UNKNOWN")
}

/// The assignments with what of them is shown. Nothing when the dump was taken without endpoints.
fn sorted(dump: &Dump, filter: &Filter) -> Vec<Value> {
    let Ok(section) = dump.section("EndpointsConfigDump") else {
        return Vec::new();
    };
    let entries = list(section, "dynamic_endpoint_configs")
        .iter()
        .chain(list(section, "static_endpoint_configs"));
    let mut assignments = Vec::new();
    for entry in entries {
        let mut assignment = entry["endpoint_config"].clone();
        let cluster = text(&assignment, "cluster_name").to_owned();
        let mut left = 0;
        let groups = assignment
            .get_mut("endpoints")
            .and_then(Value::as_array_mut);
        for locality in groups.into_iter().flatten() {
            if let Some(Value::Array(endpoints)) = locality.get_mut("lb_endpoints") {
                endpoints.retain(|endpoint| {
                    let port = Address(&endpoint["endpoint"]["address"]).socket();
                    let port = port.map_or(0, |(_, port)| port);
                    filter.matches(&addresses(endpoint), port, &cluster, status(endpoint))
                });
                left += endpoints.len();
            }
        }
        if left > 0 {
            assignments.push(assignment);
        }
    }
    go_sort::sort(&mut assignments, |a, b| {
        let (a, b) = (text(a, "cluster_name"), text(b, "cluster_name"));
        ClusterName::parse(a).order(&ClusterName::parse(b)).is_lt()
    });
    assignments
}

/// The table. `named`: with the kind of the resource before its name, as `all` shows it.
pub fn summary(dump: &Dump, filter: &Filter, named: bool) -> String {
    let mut table = Table::new(&["NAME", "STATUS", "LOCALITY", "CLUSTER"]);
    for assignment in sorted(dump, filter) {
        for group in list(&assignment, "endpoints") {
            let locality = &group["locality"];
            // Parts end with the first one that is missing.
            let parts: Vec<&str> = ["region", "zone", "sub_zone"]
                .iter()
                .map(|part| text(locality, part))
                .take_while(|part| !part.is_empty())
                .collect();
            for endpoint in list(group, "lb_endpoints") {
                let prefix = if named { "endpoint/" } else { "" };
                table.row(&[
                    format!("{prefix}{}", addresses(endpoint).join(",")),
                    status(endpoint).to_owned(),
                    parts.join("/"),
                    text(&assignment, "cluster_name").to_owned(),
                ]);
            }
        }
    }
    table.render(5)
}

/// The assignments themselves.
pub fn dump(dump: &Dump, filter: &Filter, format: Format) -> String {
    let assignments = sorted(dump, filter);
    messages(&assignments.iter().collect::<Vec<_>>(), format)
}
