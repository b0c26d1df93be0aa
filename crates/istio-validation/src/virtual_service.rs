//! VirtualService: the object, and its rules for TLS and TCP. HTTP rules are in [`crate::http_route`].

use crate::Object;
use crate::destination_rule::subset_name;
use crate::message::Message;
use crate::names::{self, ExportTo};
use crate::problem::{Found, Validation, join, listed, one};
use crate::{headers, http_route, unreachable};
use api::field::quote;

const MESH: &str = "mesh";

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    let hosts = spec.texts("hosts");
    let gateways = spec.texts("gateways");
    let delegate = hosts.is_empty();
    if delegate {
        for (field, what) in [
            ("gateways", "gateways"),
            ("tls", "tls route"),
            ("tcp", "tcp route"),
        ] {
            if !spec.list(field).is_empty() {
                v.fail(format!(
                    "delegate virtual service must have no {what} specified"
                ));
            }
        }
    }
    // Routes made from the Gateway API carry this mark.
    let converted = object.annotation("internal.istio.io/route-semantics") == Some("gateway");
    let mut for_gateway = false;
    if !gateways.is_empty() {
        v.add(gateway_names(&gateways, converted));
        for_gateway = !gateways.contains(&MESH);
    }
    let for_mesh = !for_gateway;
    if for_mesh {
        claims(spec, &gateways, &mut v);
    }
    check_hosts(spec, &hosts, for_mesh, &mut v);
    if ["http", "tcp", "tls"]
        .into_iter()
        .all(|kind| spec.list(kind).is_empty())
    {
        v.fail("http, tcp or tls must be provided in virtual service");
    }
    for route in spec.messages("http") {
        v.add(http_route::validate(route, delegate, converted));
    }
    for route in spec.messages("tls") {
        v.add(tls_route(route, spec, converted));
    }
    for route in spec.messages("tcp") {
        v.errors(tcp_route(route, converted));
    }
    v.errors(ExportTo::default().check(object.namespace, &spec.texts("exportTo")));
    for warning in unreachable::warnings(spec) {
        v.warn(warning);
    }
    v
}

/// Claims of tokens are known at gateways only.
fn claims(spec: Message<'_>, gateways: &[&str], v: &mut Validation) {
    for route in spec.messages("http") {
        for matched in route.messages("match") {
            for field in ["headers", "withoutHeaders"] {
                for (key, _) in matched.entries(field) {
                    if headers::is_claim(key) {
                        v.fail(format!(
                            "JWT claim based routing (key: {key}) is only supported for gateway, found no gateways: [{}]",
                            gateways.join(" ")
                        ));
                    }
                }
            }
        }
    }
}

fn check_hosts(spec: Message<'_>, hosts: &[&str], for_mesh: bool, v: &mut Validation) {
    let by_sni = spec
        .messages("tls")
        .flat_map(|route| route.messages("match"))
        .any(|m| !m.list("sniHosts").is_empty());
    let mut all_valid = true;
    for host in hosts {
        let problem = if for_mesh {
            names::wildcard_domain(host)
        } else {
            names::gateway_bound_domain(by_sni, host)
        };
        match problem {
            Some(problem) if !names::is_ip(host) => {
                v.errors(Some(problem));
                all_valid = false;
            }
            None if for_mesh && *host == "*" => {
                v.fail(
                    "wildcard host * is not allowed for virtual services bound to the mesh gateway",
                );
                all_valid = false;
            }
            _ => {}
        }
    }
    if !all_valid {
        return;
    }
    for (i, a) in hosts.iter().enumerate() {
        for b in &hosts[i + 1..] {
            if names::hosts_overlap(a, b) {
                v.fail(format!("duplicate hosts in virtual service: {a} & {b}"));
            }
        }
    }
}

/// Names of gateways: `namespace/name`, `name`, or the old form with dots. The first of another form than `namespace/name`
/// ends the check.
pub(crate) fn gateway_names(gateways: &[&str], converted: bool) -> Validation {
    let mut v = Validation::default();
    for gateway in gateways {
        let Some((namespace, name)) = gateway.split_once('/') else {
            if gateway.contains('.') {
                let mut parts = gateway.split('.');
                let name = parts.next().unwrap_or("");
                let better = format!("{}/{name}", parts.next().unwrap_or(""));
                v.warn(format!(
                    "using legacy gatewayName format {}; prefer the <namespace>/<name> format: {}",
                    quote(gateway),
                    quote(&better)
                ));
            }
            v.errors(names::fqdn(gateway));
            return v;
        };
        if namespace.is_empty() || name.is_empty() {
            v.fail("config namespace and gateway name cannot be empty");
        }
        if !names::is_dns_label(namespace) {
            v.fail(format!("invalid value for namespace: {}", quote(namespace)));
        }
        if !names::is_dns_label(name) && !converted {
            v.fail(format!("invalid value for gateway name: {}", quote(name)));
        }
    }
    v
}

/// Where requests or connections go.
pub(crate) fn destination(destination: Option<Message<'_>>) -> Found {
    let destination = destination?;
    let host = destination.text("host");
    let mut errors = if host == "*" {
        one(format!("invalid destination host {host}"))
    } else {
        names::wildcard_domain(host)
    };
    let subset = destination.text("subset");
    if !subset.is_empty() {
        join(&mut errors, subset_name(subset));
    }
    if let Some(port) = destination.get("port") {
        join(&mut errors, names::port(port.int("number")));
    }
    errors
}

/// Destinations with their shares; `each` checks what is special about one.
pub(crate) fn destinations(
    route: Message<'_>,
    converted: bool,
    each: impl Fn(Message<'_>) -> Found,
) -> Found {
    let mut errors = None;
    let mut total: i64 = 0;
    let mut count = 0;
    for entry in route.messages("route") {
        count += 1;
        let to = entry.get("destination");
        if to.is_none() {
            push_listed(&mut errors, "destination is required");
        }
        join(&mut errors, each(entry));
        if !converted {
            join(&mut errors, destination(to));
        }
        let weight = entry.int("weight");
        if weight < 0 {
            join(&mut errors, one(format!("weight {weight} < 0")));
        }
        // Weights are added as 32-bit numbers.
        total = i64::from((total + weight) as i32);
    }
    if count > 1 && total == 0 {
        join(&mut errors, one("total destination weight = 0"));
    }
    errors
}

fn tls_route(route: Message<'_>, spec: Message<'_>, converted: bool) -> Validation {
    let mut v = Validation::default();
    if route.list("match").is_empty() {
        v.fail("TLS route must have at least one match condition");
    }
    for matched in route.messages("match") {
        let hosts = matched.texts("sniHosts");
        if hosts.is_empty() {
            v.fail("TLS match must have at least one SNI host");
        }
        for host in hosts {
            v.add(sni_host(host, spec));
        }
        v.add(connection_match(matched));
    }
    if route.list("route").is_empty() {
        v.fail("TLS route is required");
    }
    v.errors(destinations(route, converted, |_| None));
    v
}

fn sni_host(host: &str, spec: Message<'_>) -> Validation {
    let mut v = Validation::default();
    let for_gateway = !spec.texts("gateways").contains(&MESH);
    let problem = if for_gateway {
        names::gateway_bound_domain(true, host)
    } else {
        names::wildcard_domain(host)
    };
    if problem.is_some() {
        if names::is_ip(host) {
            v.warn(format!(
                "using an IP address ({}) goes against SNI spec and most clients do not support this",
                quote(host)
            ));
        } else {
            v.errors(problem);
        }
        return v;
    }
    let hosts = spec.texts("hosts");
    if !hosts.iter().any(|own| names::host_is_subset(host, own)) {
        v.fail(format!(
            "SNI host {} is not a compatible subset of any of the virtual service hosts: [{}]",
            quote(host),
            hosts.join(", ")
        ));
    }
    v
}

/// What matches of TLS and TCP rules have in common.
fn connection_match(matched: Message<'_>) -> Validation {
    let mut v = Validation::default();
    for subnet in matched.texts("destinationSubnets") {
        v.errors(names::ip_subnet(subnet));
    }
    let port = matched.int("port");
    if port != 0 {
        v.errors(names::port(port));
    }
    v.errors(names::labels(matched, "sourceLabels"));
    v.add(gateway_names(&matched.texts("gateways"), false));
    v
}

/// Warnings of its gateways are not heard.
fn tcp_route(route: Message<'_>, converted: bool) -> Found {
    let mut errors = None;
    for matched in route.messages("match") {
        join(&mut errors, connection_match(matched).error);
    }
    if route.list("route").is_empty() {
        join(&mut errors, one("TCP route is required"));
    }
    join(&mut errors, destinations(route, converted, |_| None));
    errors
}

/// A text that stands in a list even alone.
pub(crate) fn push_listed(errors: &mut Found, text: &str) {
    match errors.take() {
        None => *errors = listed(text),
        some => {
            *errors = some;
            join(errors, one(text));
        }
    }
}
