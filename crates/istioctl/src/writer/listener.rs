//! `proxy-config listener`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::route::describe_match;
use super::{Format, messages};
use crate::dump::{Address, Dump, list, text};
use crate::go_sort;
use crate::table::Table;

const HTTP: &str = "envoy.filters.network.http_connection_manager";
const TCP: &str = "envoy.filters.network.tcp_proxy";
const BLACK_HOLE: &str = "BlackHoleCluster";

/// Which listeners are shown; empty or 0: any.
#[derive(Debug, Clone)]
pub struct Filter {
    /// One of its addresses.
    pub address: String,
    /// Its port.
    pub port: i64,
    /// `HTTP`, `TCP`, `HTTP+TCP` or `UNKNOWN`, in any case.
    pub kind: String,
    /// A row for each filter chain instead of one for the listener.
    pub verbose: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            address: String::new(),
            port: 0,
            kind: String::new(),
            verbose: true,
        }
    }
}

impl Filter {
    /// Whether a listener is shown.
    pub fn matches(&self, listener: &Value) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        (self.address.is_empty()
            || addresses(listener)
                .iter()
                .any(|address| same(address, &self.address)))
            && (self.port == 0 || i64::try_from(port(listener)) == Ok(self.port))
            && (self.kind.is_empty() || same(kind(listener), &self.kind))
    }
}

fn address(listener: &Value) -> &str {
    let address = Address(&listener["address"]);
    match address.socket() {
        Some((host, _)) => host,
        None => address.pipe().unwrap_or_default(),
    }
}

fn addresses(listener: &Value) -> Vec<&str> {
    let more = list(listener, "additional_addresses").iter().map(|more| {
        Address(&more["address"])
            .socket()
            .map_or("", |(host, _)| host)
    });
    std::iter::once(address(listener)).chain(more).collect()
}

fn port(listener: &Value) -> u64 {
    Address(&listener["address"])
        .socket()
        .map_or(0, |(_, port)| port)
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    let default = &listener["default_filter_chain"];
    list(listener, "filter_chains")
        .iter()
        .chain(default.is_object().then_some(default))
}

/// Whether a TCP proxy has to do with the cluster that leads nowhere.
fn black_hole(filter: &Value) -> bool {
    filter["typed_config"].to_string().contains(BLACK_HOLE)
}

fn kind(listener: &Value) -> &'static str {
    let (mut http, mut tcp) = (false, false);
    for filter in chains(listener).flat_map(|chain| list(chain, "filters")) {
        match text(filter, "name") {
            HTTP => http = true,
            TCP => tcp |= !black_hole(filter),
            _ => {}
        }
    }
    match (http, tcp) {
        (true, false) => "HTTP",
        (true, true) => "HTTP+TCP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

fn all(dump: &Dump) -> Result<Vec<&Value>> {
    let section = dump
        .section("ListenersConfigDump")
        .context("listener dump")?;
    let listeners: Vec<&Value> = list(section, "dynamic_listeners")
        .iter()
        .map(|entry| &entry["active_state"]["listener"])
        .chain(
            list(section, "static_listeners")
                .iter()
                .map(|entry| &entry["listener"]),
        )
        .filter(|listener| listener.is_object())
        .collect();
    if listeners.is_empty() {
        bail!("no listeners found");
    }
    Ok(listeners)
}

/// The table. `named`: with the name of the resource before, as `all` shows it.
///
/// # Errors
/// When the dump has no listeners.
pub fn summary(dump: &Dump, filter: &Filter, named: bool) -> Result<String> {
    let mut listeners = all(dump)?;
    listeners.retain(|listener| filter.matches(listener));
    go_sort::sort(&mut listeners, |a, b| {
        (port(a), address(a), kind(a)) < (port(b), address(b), kind(b))
    });
    let mut header = vec!["ADDRESSES", "PORT"];
    if named {
        header.insert(0, "NAME");
    }
    if filter.verbose {
        header.extend(["MATCH", "DESTINATION"]);
    } else {
        header.push("TYPE");
    }
    let mut table = Table::new(&header);
    for listener in listeners {
        let mut start = vec![addresses(listener).join(","), port(listener).to_string()];
        if named {
            start.insert(0, format!("listener/{}", text(listener, "name")));
        }
        let mut row = |more: &[String]| table.row(&[&start[..], more].concat());
        if !filter.verbose {
            row(&[kind(listener).to_owned()]);
            continue;
        }
        let mut rows: Vec<(String, String)> = chains(listener)
            .map(|chain| {
                (
                    describe_chain(&chain["filter_chain_match"]),
                    destination(list(chain, "filters")),
                )
            })
            .collect();
        go_sort::sort(&mut rows, |a, b| a.1 > b.1);
        for (matching, destination) in rows {
            row(&[matching, destination]);
        }
    }
    Ok(table.render(1))
}

/// The listeners themselves, in the order of the dump.
///
/// # Errors
/// When the dump has no listeners.
pub fn dump(dump: &Dump, filter: &Filter, format: Format) -> Result<String> {
    let mut listeners = all(dump)?;
    listeners.retain(|listener| filter.matches(listener));
    Ok(messages(&listeners, format))
}

/// Sets of application protocols with a name of their own.
const PROTOCOLS: [(&str, &[&str]); 4] = [
    (
        "App: HTTP TLS",
        &[
            "http/1.0",
            "http/1.1",
            "h2c",
            "istio-http/1.0",
            "istio-http/1.1",
            "istio-h2",
        ],
    ),
    (
        "App: Istio HTTP Plain",
        &["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"],
    ),
    ("App: TCP TLS", &["istio-peer-exchange", "istio"]),
    ("App: HTTP", &["http/1.0", "http/1.1", "h2c"]),
];

fn strings<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    list(value, field)
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

fn describe_chain(chain: &Value) -> String {
    let mut conditions = Vec::new();
    let names = strings(chain, "server_names");
    if !names.is_empty() {
        conditions.push(format!("SNI: {}", names.join(",")));
    }
    let transport = text(chain, "transport_protocol");
    if !transport.is_empty() {
        conditions.push(format!("Trans: {transport}"));
    }
    let protocols = strings(chain, "application_protocols");
    if !protocols.is_empty() {
        let known = PROTOCOLS.iter().find(|(_, known)| protocols == *known);
        conditions.push(match known {
            Some((name, _)) => (*name).to_owned(),
            None => format!("App: {}", protocols.join(",")),
        });
    }
    let port = &chain["destination_port"];
    let port = if port.is_null() {
        String::new()
    } else {
        format!(":{port}")
    };
    let ranges: Vec<String> = list(chain, "prefix_ranges")
        .iter()
        .map(|range| {
            let length = range["prefix_len"].as_u64().unwrap_or(0);
            format!("{}/{length}", text(range, "address_prefix"))
        })
        .collect();
    if !ranges.is_empty() {
        conditions.push(format!("Addr: {}{port}", ranges.join(",")));
    } else if !port.is_empty() {
        conditions.push(format!("Addr: *{port}"));
    }
    if conditions.is_empty() {
        return "ALL".to_owned();
    }
    conditions.join("; ")
}

/// A cluster of our own making by its name, a service's with a word before.
fn cluster(name: &str) -> String {
    if name.contains("Cluster") {
        name.to_owned()
    } else {
        format!("Cluster: {name}")
    }
}

fn destination(filters: &[Value]) -> String {
    for filter in filters {
        let config = &filter["typed_config"];
        match text(filter, "name") {
            HTTP => {
                let routes = &config["route_config"];
                if routes.is_object() {
                    return describe_routes(routes);
                }
                return match text(&config["rds"], "route_config_name") {
                    "" => "HTTP".to_owned(),
                    name => format!("Route: {name}"),
                };
            }
            TCP if !black_hole(filter) => return cluster(text(config, "cluster")),
            _ => {}
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn describe_routes(routes: &Value) -> String {
    if let Some(name) = cluster_of_everything(routes) {
        return cluster(name);
    }
    let hosts: Vec<String> = list(routes, "virtual_hosts")
        .iter()
        .map(|host| {
            let domains = strings(host, "domains");
            let matches: Vec<String> = list(host, "routes")
                .iter()
                .map(|route| describe_match(&route["match"]))
                .collect();
            let matches = matches.join(", ");
            if domains == ["*"] || domains.is_empty() {
                matches
            } else {
                format!("{} {matches}", domains.join("/"))
            }
        })
        .collect();
    format!("Inline Route: {}", hosts.join("; "))
}

/// The cluster, if everything goes there.
fn cluster_of_everything(routes: &Value) -> Option<&str> {
    let [host] = list(routes, "virtual_hosts") else {
        return None;
    };
    let [route] = list(host, "routes") else {
        return None;
    };
    if strings(host, "domains") != ["*"] || text(&route["match"], "prefix") != "/" {
        return None;
    }
    route["route"]["cluster"].as_str()
}
