//! ServiceEntry.

use crate::Object;
use crate::message::Message;
use crate::names::{self, ExportTo, Protocol};
use crate::problem::{Problem, Validation};
use crate::{selector, workload_entry};
use api::field::quote;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    let workloads = spec.get("workloadSelector");
    if let error @ Some(_) = selector::by_labels(workloads, "service entry", &mut v) {
        return Validation {
            error,
            warning: None,
        };
    }
    let endpoints: Vec<Message<'_>> = spec.messages("endpoints").collect();
    if workloads.is_some() && !endpoints.is_empty() {
        v.fail("only one of WorkloadSelector or Endpoints is allowed in Service Entry");
    }
    let resolution = spec.name("resolution", "NONE");
    let hosts = spec.texts("hosts");
    if hosts.is_empty() {
        v.fail("service entry must have at least one host");
    }
    for host in &hosts {
        if *host == "*" {
            v.fail(format!("invalid host {host}"));
            continue;
        }
        v.errors(names::wildcard_domain(host));
        if resolution != "DYNAMIC_DNS"
            && let Some(Problem::One(text)) = names::partial_wildcard(host)
        {
            v.warn(text);
        }
    }
    let addresses = spec.texts("addresses");
    for address in &addresses {
        v.errors(names::ip_subnet(address));
    }
    if addresses.iter().any(|address| address.contains('/'))
        && !matches!(resolution, "NONE" | "STATIC")
    {
        v.fail("CIDR addresses are allowed only for NONE/STATIC resolution types");
    }
    ports(object, resolution, &mut v);
    let names: Vec<&str> = spec
        .messages("ports")
        .map(|port| port.text("name"))
        .collect();
    match resolution {
        "NONE" => {
            if !endpoints.is_empty() {
                v.fail("no endpoints should be provided for resolution type none");
            }
            if workloads.is_some() {
                v.warn("workloadSelector should not be set when resolution mode is NONE");
            }
        }
        "STATIC" => {
            for endpoint in &endpoints {
                v.add(workload_entry::endpoint(*endpoint, Some(&names)));
            }
        }
        "DYNAMIC_DNS" => dynamic_dns(object, &mut v),
        _ => dns(spec, resolution, &names, &mut v),
    }
    // Plain connections to several hosts cannot be told apart.
    if resolution != "NONE" && hosts.len() > 1 {
        let plain = |port: Message<'_>| {
            let protocol = Protocol::of(port.text("protocol"));
            !protocol.is_http() && !protocol.is_tls()
        };
        if spec.messages("ports").any(plain) {
            v.fail("multiple hosts provided with non-HTTP, non-TLS ports");
        }
    }
    let export = ExportTo {
        service_entry: true,
        ..ExportTo::default()
    };
    v.errors(export.check(object.namespace, &spec.texts("exportTo")));
    v
}

/// Whether istiod gives the hosts addresses of its own.
fn gets_addresses(object: &Object<'_>, resolution: &str) -> bool {
    let off = object
        .label("networking.istio.io/enable-autoallocate-ip")
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    resolution != "NONE" && !off && object.spec.list("addresses").is_empty()
}

fn ports(object: &Object<'_>, resolution: &str, v: &mut Validation) {
    let spec = object.spec;
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    for port in spec.messages("ports") {
        let (name, number) = (port.text("name"), port.int("number"));
        if names.contains(&name) {
            v.fail(format!(
                "service entry port name {} already defined",
                quote(name)
            ));
        }
        if numbers.contains(&number) {
            v.fail(format!("service entry port {number} already defined"));
        }
        names.push(name);
        numbers.push(number);
        let target = port.int("targetPort");
        if target != 0 {
            v.errors(names::port(target));
        }
        let protocol = port.text("protocol");
        if spec.list("addresses").is_empty()
            && !gets_addresses(object, resolution)
            && matches!(protocol, "" | "TCP")
        {
            v.warn("addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled");
        }
        v.errors(names::port_name(name));
        v.errors(names::protocol(protocol));
        v.errors(names::port(number));
    }
}

fn dns(spec: Message<'_>, resolution: &str, ports: &[&str], v: &mut Validation) {
    let endpoints: Vec<Message<'_>> = spec.messages("endpoints").collect();
    let hosts = spec.texts("hosts");
    if endpoints.is_empty()
        && let Some(why) = hosts.iter().find_map(|host| names::fqdn(host))
    {
        v.fail(format!(
            "hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode {resolution}, {why}"
        ));
    }
    if resolution == "DNS_ROUND_ROBIN" && endpoints.len() > 1 {
        v.fail(format!(
            "there must only be 0 or 1 endpoint for resolution mode {resolution}"
        ));
    }
    for endpoint in &endpoints {
        let address = endpoint.text("address");
        if !names::is_ip(address) && names::fqdn(address).is_some() {
            v.fail(workload_entry::no_address(address));
        }
        v.errors(names::labels(*endpoint, "labels"));
        workload_entry::ports(*endpoint, Some(ports), v);
    }
    let over_tcp = |port: Message<'_>| Protocol::of(port.text("protocol")).is_tcp();
    if !spec.list("addresses").is_empty() && hosts.len() > 1 && spec.messages("ports").any(over_tcp)
    {
        v.warn("service entry can not have more than one host specified simultaneously with address and tcp port");
    }
}

fn dynamic_dns(object: &Object<'_>, v: &mut Validation) {
    let spec = object.spec;
    let resolution = "DYNAMIC_DNS";
    let hosts = spec.texts("hosts");
    if hosts.is_empty() {
        v.fail(format!(
            "at least one wildcard host must be provided for resolution type {resolution}"
        ));
    }
    for host in hosts {
        if !host.starts_with('*') {
            v.fail(format!(
                "host must be wildcarded for resolution mode {resolution}"
            ));
        }
    }
    if !spec.list("addresses").is_empty() {
        v.fail(format!(
            "addresses cannot be set for resolution type {resolution}. HTTP route domains will only be generatedfrom the hosts field values"
        ));
    }
    if !spec.list("endpoints").is_empty() {
        v.fail(format!(
            "endpoints cannot be set for resolution type {resolution}. Destination IP address determined from hostsfield values"
        ));
    }
    for port in spec.messages("ports") {
        let protocol = Protocol::of(port.text("protocol"));
        if !matches!(
            protocol,
            Protocol::Http | Protocol::Tls | Protocol::Grpc | Protocol::Http2
        ) {
            v.fail(format!(
                "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type {resolution}"
            ));
        }
    }
    let waypoint = object
        .label("istio.io/use-waypoint")
        .is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    if spec.text("location") == "MESH_INTERNAL" && waypoint {
        v.fail(format!(
            "location MESH_INTERNAL with resolution type {resolution} is not supported when using waypoints"
        ));
    }
}
