//! Destination rules and virtual services.

use serde_json::Value;

use super::{Config, Report, contains, find, full_host, host_of};
use crate::dump::{Dump, list, text};
use crate::writer::cluster::Filter;

/// Subsets of a rule with pods among those described, and without.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    matching: Vec<String>,
    others: Vec<String>,
}

/// Splits the subsets of a rule by the labels of pods.
pub(super) fn subsets(rule: Option<&Value>, labels: &[Value]) -> Subsets {
    let mut subsets = Subsets::default();
    for subset in rule
        .into_iter()
        .flat_map(|rule| list(&rule["spec"], "subsets"))
    {
        let name = text(subset, "name").to_owned();
        if labels
            .iter()
            .any(|labels| contains(labels, &subset["labels"]))
        {
            subsets.matching.push(name);
        } else {
            subsets.others.push(name);
        }
    }
    subsets
}

/// Namespace and name in `/apis/networking.istio.io/VERSION/namespaces/NAMESPACE/KIND/NAME`.
fn origin<'a>(path: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["", "apis", _, _, "namespaces", namespace, of, name] if of == kind => {
            Some((namespace, name))
        }
        _ => None,
    }
}

fn config_of(resource: &Value) -> &str {
    resource["metadata"]["filter_metadata"]["istio"]["config"]
        .as_str()
        .unwrap_or_default()
}

/// The destination rule a proxy applies to a service's port.
pub(super) fn rule_of<'a>(
    dump: &Dump,
    service: &Value,
    port: i64,
    config: &'a Config,
    report: &mut Report,
) -> Option<&'a Value> {
    let filter = Filter {
        fqdn: host_of(service),
        port,
        direction: "outbound".to_owned(),
        ..Filter::default()
    };
    let section = dump.section("ClustersConfigDump").ok()?;
    let cluster = list(section, "dynamic_active_clusters")
        .iter()
        .map(|entry| &entry["cluster"])
        .find(|cluster| filter.matches(text(cluster, "name")) && cluster["metadata"].is_object())?;
    let (namespace, name) = origin(config_of(cluster), "destination-rule")?;
    let rule = find(&config.destination_rules, namespace, name);
    if rule.is_none() {
        report.line(0, &format!(
            "WARNING: Proxy is stale; it references to non-existent destination rule {name}.{namespace}"
        ));
    }
    rule
}

/// The virtual service whose routes lead to a service's port.
pub(super) fn virtual_service_of<'a>(
    dump: &Dump,
    service: &Value,
    port: i64,
    config: &'a Config,
    report: &mut Report,
) -> Option<&'a Value> {
    let section = dump.section("RoutesConfigDump").ok()?;
    let mut tables: Vec<&Value> = list(section, "dynamic_route_configs")
        .iter()
        .map(|entry| &entry["route_config"])
        .filter(|table| {
            let name = text(table, "name");
            name == port.to_string() || name.starts_with("http.") || name.starts_with("https.")
        })
        .collect();
    tables.sort_by_key(|table| text(table, "name"));
    let route = tables.into_iter().find_map(|table| {
        let mut hosts: Vec<&Value> = list(table, "virtual_hosts").iter().collect();
        hosts.sort_by_key(|host| text(host, "name"));
        hosts.into_iter().find_map(|host| {
            list(host, "routes")
                .iter()
                .find(|route| leads_to(route, host, service, port))
        })
    })?;
    let (namespace, name) = origin(config_of(route), "virtual-service")?;
    let found = find(&config.virtual_services, namespace, name);
    if found.is_none() {
        report.line(0, &format!(
            "WARNING: Proxy is stale; it references to non-existent virtual service {name}.{namespace}"
        ));
    }
    found
}

fn leads_to(route: &Value, host: &Value, service: &Value, port: i64) -> bool {
    let full = host_of(service);
    let ends_with = |name: &str| {
        name.strip_suffix(&full)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    if list(host, "domains")
        .iter()
        .filter_map(Value::as_str)
        .any(ends_with)
    {
        return true;
    }
    let action = &route["route"];
    let cluster = match action["cluster"].as_str() {
        Some(cluster) => cluster,
        None => list(&action["weighted_clusters"], "clusters")
            .first()
            .map_or("", |cluster| text(cluster, "name")),
    };
    match cluster.split('|').collect::<Vec<_>>()[..] {
        ["outbound", number, _, name] => number == port.to_string() && name == full,
        _ => false,
    }
}

/// A destination rule and which of its subsets the pods are in.
pub(super) fn destination_rule(
    report: &mut Report,
    indent: usize,
    rule: &Value,
    subsets: &Subsets,
) {
    let name = report.name(rule);
    let spec = &rule["spec"];
    report.line(
        indent,
        &format!("DestinationRule: {name} for {:?}", text(spec, "host")),
    );
    if !subsets.matching.is_empty() || !subsets.others.is_empty() {
        let others = subsets.others.join(",");
        if subsets.matching.is_empty() {
            report.line(
                indent + 3,
                &format!(
                    "WARNING POD DOES NOT MATCH ANY SUBSETS.  (Non matching subsets {others})"
                ),
            );
        }
        report.line(
            indent + 3,
            &format!("Matching subsets: {}", subsets.matching.join(",")),
        );
        if !others.is_empty() {
            report.line(indent + 6, &format!("(Non-matching subsets {others})"));
        }
    }
    let policy = &spec["trafficPolicy"];
    if policy.is_null() {
        report.line(indent + 3, "No Traffic Policy");
        return;
    }
    if policy["tls"].is_object() {
        report.line(
            indent + 3,
            &format!("Traffic Policy TLS Mode: {}", tls_mode(&policy["tls"])),
        );
    }
    if let Some(summary) = policies(policy) {
        report.line(indent + 3, &summary);
    }
    let ports = &policy["portLevelSettings"];
    if ports.is_array() {
        report.line(indent + 3, "Port Level Settings:");
        for port in ports.as_array().into_iter().flatten() {
            report.line(
                4,
                &format!("{}:", port["port"]["number"].as_i64().unwrap_or(0)),
            );
            if port["tls"].is_object() {
                report.line(indent + 6, &format!("TLS Mode: {}", tls_mode(&port["tls"])));
            }
            if let Some(summary) = policies(port) {
                report.line(indent + 6, &summary);
            }
        }
    }
}

fn tls_mode(tls: &Value) -> &str {
    tls["mode"].as_str().unwrap_or("DISABLE")
}

fn policies(policy: &Value) -> Option<String> {
    let named = [
        ("loadBalancer", "load balancer"),
        ("connectionPool", "connection pool"),
        ("outlierDetection", "outlier detection"),
    ];
    let found: Vec<&str> = named
        .iter()
        .filter(|(field, _)| !policy[*field].is_null())
        .map(|(_, name)| *name)
        .collect();
    (!found.is_empty()).then(|| format!("Policies: {}", found.join("/")))
}

/// A virtual service and which of its routes lead to the pods of a service.
pub(super) fn virtual_service(
    report: &mut Report,
    indent: usize,
    object: &Value,
    service: &Value,
    subsets: &Subsets,
    rule: Option<&Value>,
) {
    let name = report.name(object);
    report.line(indent, &format!("VirtualService: {name}"));
    let spec = &object["spec"];
    let (http, tcp) = (list(spec, "http"), list(spec, "tcp"));
    let (mut matches, mut facts, mut notes) = (0, 0, Vec::new());
    let rule_name = rule.map(|rule| report.name(rule));
    let judged = http
        .iter()
        .map(|route| http_route(object, route, service, subsets, rule_name.as_deref()))
        .chain(tcp.iter().map(|route| tcp_route(object, route, service)));
    for (leads, told) in judged {
        if leads {
            matches += 1;
            facts += told.len();
            for fact in told {
                report.line(indent + 3, &fact);
            }
        } else {
            notes.extend(told);
        }
    }
    let tell_notes = |report: &mut Report| {
        for note in &notes {
            report.line(indent + 6, note);
        }
    };
    if matches == 0 {
        for (routes, kind) in [(http, "HTTP"), (tcp, "TCP")] {
            if !routes.is_empty() {
                let count = routes.len();
                report.line(
                    indent + 3,
                    &format!(
                        "WARNING: No destinations match pod subsets (checked {count} {kind} routes)"
                    ),
                );
            }
        }
        tell_notes(report);
        return;
    }
    let possible = http.len() + list(spec, "tls").len() + tcp.len();
    if matches < possible {
        report.line(
            indent + 3,
            &format!(
                "{} additional destination(s) that will not reach this pod",
                possible - matches
            ),
        );
        if facts == 0 {
            tell_notes(report);
        }
        return;
    }
    if facts == 0 {
        for (routes, kind) in [(http, "HTTP"), (tcp, "TCP")] {
            if !routes.is_empty() {
                report.line(indent + 3, &format!("{} {kind} route(s)", routes.len()));
            }
        }
    }
}

fn http_route(
    object: &Value,
    route: &Value,
    service: &Value,
    subsets: &Subsets,
    rule: Option<&str>,
) -> (bool, Vec<String>) {
    let own = host_of(service);
    let (mut facts, mut notes, mut leads) = (Vec::new(), Vec::new(), false);
    for destination in list(route, "route") {
        let to = &destination["destination"];
        let (host, subset) = (text(to, "host"), text(to, "subset"));
        let weight = destination["weight"].as_i64().unwrap_or(0);
        if full_host(host, api::meta::namespace(object)) != own {
            facts.push(if subset.is_empty() {
                format!("Route to host \"{host}\" with weight {weight}%")
            } else {
                format!("Route to {host} with invalid config")
            });
            continue;
        }
        let has = |subsets: &[String]| subsets.iter().any(|known| known == subset);
        if !subset.is_empty() && has(&subsets.others) {
            let when = matches_of(list(route, "match"));
            notes.push(format!(
                "Route to non-matching subset {subset} for ({when})"
            ));
            continue;
        }
        if !subset.is_empty() && !has(&subsets.matching) {
            notes.push(match rule {
                None => format!(
                    "Warning: Route to subset {subset} but NO DESTINATION RULE defining subsets!"
                ),
                Some(rule) => format!(
                    "Warning: Route to UNKNOWN subset {subset}; check DestinationRule {rule}"
                ),
            });
            continue;
        }
        leads = true;
        if weight > 0 {
            let subset = if subset.is_empty() {
                String::new()
            } else {
                format!(" subset \"{subset}\"")
            };
            facts.push(format!(
                "Route to host \"{host}\"{subset} with weight {weight}%"
            ));
        }
    }
    if leads {
        let mut conditions = Vec::new();
        if !route["fault"].is_null() {
            conditions.push(format!("Fault injection {}", fault(&route["fault"])));
        }
        conditions.extend(list(route, "match").iter().map(match_of));
        if !conditions.is_empty() {
            facts.push(conditions.join(", "));
        }
    } else {
        facts.extend(notes);
    }
    (leads, facts)
}

fn tcp_route(object: &Value, route: &Value, service: &Value) -> (bool, Vec<String>) {
    let own = host_of(service);
    let leads = list(route, "route").iter().any(|destination| {
        full_host(
            text(&destination["destination"], "host"),
            api::meta::namespace(object),
        ) == own
    });
    let facts = list(route, "match").iter().map(Value::to_string);
    (leads, if leads { facts.collect() } else { Vec::new() })
}

/// A fault in the text form of its message.
fn fault(fault: &Value) -> String {
    let seconds = |text: &str| text.trim_end_matches('s').to_owned();
    let mut parts = Vec::new();
    let percentage = |of: &Value| match of["percentage"]["value"].as_f64() {
        Some(value) => format!("percentage:{{value:{value}}}"),
        None => String::new(),
    };
    let delay = &fault["delay"];
    if delay.is_object() {
        let fixed = seconds(text(delay, "fixedDelay"));
        parts.push(format!(
            "delay:{{fixed_delay:{{seconds:{fixed}}} {}}}",
            percentage(delay)
        ));
    }
    let abort = &fault["abort"];
    if abort.is_object() {
        parts.push(format!(
            "abort:{{http_status:{} {}}}",
            abort["httpStatus"],
            percentage(abort)
        ));
    }
    parts.join(" ")
}

fn matches_of(matches: &[Value]) -> String {
    if matches.is_empty() {
        return "everything".to_owned();
    }
    matches.iter().map(match_of).collect::<Vec<_>>().join(", ")
}

fn match_of(matching: &Value) -> String {
    let mut out = "Match: ".to_owned();
    if matching["uri"].is_object() {
        out.push_str(&string_match(&matching["uri"]));
        if matching["ignoreUriCase"] == true {
            out.push_str(" uncased");
        }
    }
    if let Some(headers) = matching["headers"]
        .as_object()
        .filter(|headers| !headers.is_empty())
    {
        let headers: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", string_match(value)))
            .collect();
        out.push_str(&format!(" when headers are {}", headers.join("; ")));
    }
    out.trim().to_owned()
}

fn string_match(matching: &Value) -> String {
    if let Some(exact) = matching["exact"].as_str() {
        return exact.to_owned();
    }
    if let Some(prefix) = matching["prefix"].as_str() {
        return format!("{prefix}*");
    }
    match matching["regex"].as_str() {
        Some(regex) => format!("regex:{regex:?}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Report {
        Report {
            text: String::new(),
            namespace: "shop".into(),
        }
    }

    #[test]
    fn routes_to_the_pods_subset_are_told_with_their_weight() {
        let service = json!({"metadata": {"name": "basket", "namespace": "shop"}});
        let rule = json!({"metadata": {"name": "rule", "namespace": "shop"}, "spec": {"host": "basket",
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]}});
        let subsets = subsets(Some(&rule), &[json!({"version": "v1"})]);
        let mut seen = report();
        destination_rule(&mut seen, 0, &rule, &subsets);
        let route = |subset: &str, weight: u32| json!({"destination": {"host": "basket", "subset": subset}, "weight": weight});
        let object = json!({"metadata": {"name": "vs", "namespace": "shop"}, "spec": {"http": [
            {"match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [route("v2", 100)]},
            {"route": [route("v1", 70), route("v2", 30)]}]}});
        virtual_service(&mut seen, 0, &object, &service, &subsets, Some(&rule));
        let expected = "\
DestinationRule: rule for \"basket\"
   Matching subsets: v1
      (Non-matching subsets v2)
   No Traffic Policy
VirtualService: vs
   Route to host \"basket\" subset \"v1\" with weight 70%
   1 additional destination(s) that will not reach this pod
";
        assert_eq!(seen.text, expected);
    }

    #[test]
    fn a_virtual_service_that_passes_by_says_why() {
        let service = json!({"metadata": {"name": "basket", "namespace": "shop"}});
        let object = json!({"metadata": {"name": "vs", "namespace": "other"}, "spec": {"http": [
            {"route": [{"destination": {"host": "basket.shop", "subset": "v9"}}]}]}});
        let mut seen = report();
        virtual_service(&mut seen, 3, &object, &service, &Subsets::default(), None);
        let expected = "   VirtualService: vs.other
      WARNING: No destinations match pod subsets (checked 1 HTTP routes)
         Warning: Route to subset v9 but NO DESTINATION RULE defining subsets!
";
        assert_eq!(seen.text, expected);
    }
}
