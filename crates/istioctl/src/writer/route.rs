//! `proxy-config route`.

use anyhow::{Result, bail};
use serde_json::Value;

use super::names::managed_by;
use super::{Format, messages};
use crate::dump::{Dump, list, text};
use crate::go_sort;
use crate::table::Table;

/// Which route tables are shown.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The name; empty: any.
    pub name: String,
    /// A row for each route instead of one for the table.
    pub verbose: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            name: String::new(),
            verbose: true,
        }
    }
}

impl Filter {
    fn matches(&self, routes: &Value) -> bool {
        self.name.is_empty() || self.name == text(routes, "name")
    }
}

fn sorted(dump: &Dump) -> Result<Vec<&Value>> {
    let section = dump.section("RoutesConfigDump")?;
    let mut tables: Vec<&Value> = list(section, "dynamic_route_configs")
        .iter()
        .chain(list(section, "static_route_configs"))
        .map(|entry| &entry["route_config"])
        .filter(|routes| routes.is_object())
        .collect();
    if tables.is_empty() {
        bail!("no routes found");
    }
    // Only ports are ordered; other names stay somewhere between them.
    let number = |routes: &Value| text(routes, "name").parse::<i64>().ok();
    go_sort::sort(&mut tables, |a, b| match (number(a), number(b)) {
        (Some(a), Some(b)) => a < b,
        _ => false,
    });
    Ok(tables)
}

/// The table. `named`: with the kind of the resource before its name, as `all` shows it.
///
/// # Errors
/// When the dump has no routes.
pub fn summary(dump: &Dump, filter: &Filter, named: bool) -> Result<String> {
    let mut table = if filter.verbose {
        Table::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"])
    } else {
        Table::new(&["NAME", "VIRTUAL HOSTS"])
    };
    for routes in sorted(dump)? {
        if !filter.matches(routes) {
            continue;
        }
        let prefix = if named { "route/" } else { "" };
        let name = format!("{prefix}{}", text(routes, "name"));
        let hosts = list(routes, "virtual_hosts");
        if !filter.verbose {
            table.row(&[name, hosts.len().to_string()]);
            continue;
        }
        for host in hosts {
            let domains: Vec<&str> = list(host, "domains")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let domains = describe_domains(&domains);
            let mut row = |matching: String, made_by: String| {
                table.row(&[&name, text(host, "name"), &domains, &matching, &made_by]);
            };
            let of_host = list(host, "routes");
            if of_host.is_empty() {
                row("/*".to_owned(), "404".to_owned());
            }
            for route in of_host {
                if route["route"]["cluster"] != "PassthroughCluster" {
                    row(
                        describe_match(&route["match"]),
                        managed_by(&route["metadata"]),
                    );
                }
            }
        }
    }
    Ok(table.render(5))
}

/// The route tables themselves.
///
/// # Errors
/// When the dump has no routes.
pub fn dump(dump: &Dump, filter: &Filter, format: Format) -> Result<String> {
    let mut tables = sorted(dump)?;
    tables.retain(|routes| filter.matches(routes));
    Ok(messages(&tables, format))
}

/// What a route asks of a path; conditions on anything else are not told.
pub fn describe_match(matching: &Value) -> String {
    let mut conditions = Vec::new();
    let path = |field: &str| Some(text(matching, field)).filter(|path| !path.is_empty());
    if let Some(prefix) = path("prefix") {
        conditions.push(format!("{prefix}*"));
    }
    if let Some(prefix) = path("path_separated_prefix") {
        conditions.push(format!("PathPrefix:{prefix}"));
    }
    if let Some(path) = path("path") {
        conditions.push(path.to_owned());
    }
    let regex = &matching["safe_regex"];
    if regex.is_object() {
        conditions.push(format!("regex {}", text(regex, "regex")));
    }
    conditions.join(" ")
}

/// The first two names by which a host is called, without ports and without longer forms of the same name.
fn describe_domains(domains: &[&str]) -> String {
    const SHOWN: usize = 2;
    if let [only] = domains {
        return (*only).to_owned();
    }
    let without_port = |domain: &&&str| match domain.matches(':').count() {
        0 => true,
        // An IPv6 address, possibly with a port after its bracket.
        3.. => domain.ends_with(']'),
        _ => false,
    };
    let domains: Vec<&str> = domains.iter().filter(without_port).copied().collect();
    let longer = |domain: &str| {
        [".svc.cluster.local", ".svc"].iter().any(|suffix| {
            domain
                .strip_suffix(suffix)
                .is_some_and(|short| domains.contains(&short))
        })
    };
    let names: Vec<&str> = domains
        .iter()
        .copied()
        .filter(|domain| !longer(domain))
        .collect();
    if names.len() > SHOWN {
        return format!(
            "{} + {} more...",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        );
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_shortly() {
        let seen = |domains: &[&str]| describe_domains(domains);
        assert_eq!(seen(&["*"]), "*");
        assert_eq!(
            seen(&["a.b.svc.cluster.local", "a", "a.b.svc", "a.b", "10.0.0.1"]),
            "a, a.b + 1 more..."
        );
        assert_eq!(
            seen(&["a.b", "a.b:80", "[fd00:1::2]", "[fd00:1::2]:80"]),
            "a.b, [fd00:1::2]"
        );
    }
}
