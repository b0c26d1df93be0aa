//! Services, Endpoints, EndpointSlices.

use super::{Errors, gostring, invalid_each, labels, list, names, text};
use crate::field::{FieldError, quote};
use serde_json::Value;
use std::net::IpAddr;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const IP_HINT: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Says what is wrong with an IP address.
pub fn ip(path: &str, v: &Value) -> Option<FieldError> {
    text(v)
        .parse::<IpAddr>()
        .is_err()
        .then(|| FieldError::invalid(path, v, IP_HINT))
}

/// Addresses that no endpoint or external address may have.
fn special_ip(path: &str, v: &Value) -> Option<FieldError> {
    let Ok(ip) = text(v).parse::<IpAddr>() else {
        return None;
    };
    let link_local = match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.segments()[0] & 0xffc0 == 0xfe80,
    };
    let why = if ip.is_unspecified() {
        format!("may not be unspecified ({ip})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()
    } else {
        return None;
    };
    Some(FieldError::invalid(path, v, why))
}

fn supported(out: &mut Errors, path: String, v: &Value, allowed: &[&str]) {
    if !v.is_null() && !allowed.contains(&text(v)) {
        out.push(FieldError::not_supported(path, v, allowed));
    }
}

/// A service.
pub fn service(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let kind = text(&spec["type"]);
    let cluster_ip = text(&spec["clusterIP"]);
    let headless = cluster_ip == "None";
    let mut out = Vec::new();
    if kind != "ExternalName"
        && !cluster_ip.is_empty()
        && !headless
        && cluster_ip.parse::<IpAddr>().is_err()
    {
        // Allocation comes first and ends the matter.
        return vec![FieldError::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIP"],
            IP_HINT,
        )];
    }
    let ports = list(&spec["ports"]);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        out.push(FieldError::required("spec.ports", ""));
    }
    out.extend(service_ports(ports, kind));
    supported(
        &mut out,
        "spec.sessionAffinity".into(),
        &spec["sessionAffinity"],
        &["ClientIP", "None"],
    );
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if spec["sessionAffinity"] == "ClientIP"
        && timeout.as_i64().is_some_and(|t| !(1..=86400).contains(&t))
    {
        out.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            timeout,
            "must be greater than 0 and less than 86400",
        ));
    }
    out.extend(labels("spec.selector", &spec["selector"]));
    for (i, e) in list(&spec["externalIPs"]).iter().enumerate() {
        let path = format!("spec.externalIPs[{i}]");
        out.extend(ip(&path, e).or_else(|| special_ip(&path, e)));
    }
    supported(
        &mut out,
        "spec.type".into(),
        &spec["type"],
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    if matches!(kind, "NodePort" | "LoadBalancer") && headless {
        out.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &"None".into(),
            format!("may not be set to 'None' for {kind} services"),
        ));
    }
    if kind == "ExternalName" {
        if !cluster_ip.is_empty() || !list(&spec["clusterIPs"]).is_empty() {
            out.push(FieldError::forbidden(
                "spec.clusterIPs",
                "may not be set for ExternalName services",
            ));
        }
        let name = text(&spec["externalName"]).trim_end_matches('.');
        if name.is_empty() {
            out.push(FieldError::required("spec.externalName", ""));
        } else {
            out.extend(invalid_each(
                "spec.externalName",
                &spec["externalName"],
                names::dns_subdomain(name),
            ));
        }
    }
    out.extend(source_ranges(&spec["loadBalancerSourceRanges"], kind));
    let external = &spec["externalTrafficPolicy"];
    if !external.is_null() {
        let reachable =
            matches!(kind, "NodePort" | "LoadBalancer") || !list(&spec["externalIPs"]).is_empty();
        if !reachable {
            out.push(FieldError::invalid(
                "spec.externalTrafficPolicy",
                external,
                "may only be set for externally-accessible services",
            ));
        } else {
            supported(
                &mut out,
                "spec.externalTrafficPolicy".into(),
                external,
                &["Cluster", "Local"],
            );
        }
    }
    supported(
        &mut out,
        "spec.internalTrafficPolicy".into(),
        &spec["internalTrafficPolicy"],
        &["Cluster", "Local"],
    );
    out
}

fn source_ranges(ranges: &Value, kind: &str) -> Errors {
    let mut out = Vec::new();
    let all = list(ranges);
    if !all.is_empty() && kind != "LoadBalancer" {
        out.push(FieldError::forbidden(
            "spec.LoadBalancerSourceRanges",
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    for (i, r) in all.iter().enumerate() {
        let ok = text(r).trim().split_once('/').is_some_and(|(ip, len)| {
            match (ip.parse::<IpAddr>(), len.parse::<u8>()) {
                (Ok(IpAddr::V4(_)), Ok(n)) => n <= 32,
                (Ok(IpAddr::V6(_)), Ok(n)) => n <= 128,
                _ => false,
            }
        });
        if !ok {
            let path = format!("spec.LoadBalancerSourceRanges[{i}]");
            out.push(FieldError::invalid(
                path,
                r,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
        }
    }
    out
}

fn service_ports(ports: &[Value], kind: &str) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, p) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = text(&p["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                out.push(FieldError::required(format!("{path}.name"), ""));
            }
        } else {
            out.extend(invalid_each(
                &format!("{path}.name"),
                &p["name"],
                names::dns_label(name),
            ));
            if seen.contains(&name) {
                out.push(FieldError::duplicate(format!("{path}.name"), &p["name"]));
            }
            seen.push(name);
        }
        out.extend(invalid_each(
            &format!("{path}.port"),
            &p["port"],
            names::port_number(p["port"].as_i64().unwrap_or(0)),
        ));
        supported(
            &mut out,
            format!("{path}.protocol"),
            &p["protocol"],
            PROTOCOLS,
        );
        out.extend(target_port(&format!("{path}.targetPort"), &p["targetPort"]));
        if let Some(app) = p["appProtocol"].as_str() {
            out.extend(invalid_each(
                &format!("{path}.appProtocol"),
                &p["appProtocol"],
                names::qualified_name(app),
            ));
        }
        if kind == "ClusterIP" && p["nodePort"].as_i64().unwrap_or(0) != 0 {
            out.push(FieldError::forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
        if ports[..i]
            .iter()
            .any(|o| o["protocol"] == p["protocol"] && o["port"] == p["port"])
        {
            let shown = format!(
                "core.ServicePort{{Name:\"\", Protocol:{}, AppProtocol:(*string)(nil), Port:{}, TargetPort:{}, NodePort:0}}",
                quote(text(&p["protocol"])),
                p["port"],
                gostring::int_or_string(&Value::Null)
            );
            let mut e = FieldError::duplicate(path, &Value::Null);
            e.shown = Some(shown);
            out.push(e);
        }
    }
    out
}

/// A port by number or name.
pub fn target_port(path: &str, v: &Value) -> Errors {
    match v {
        Value::String(s) => invalid_each(path, v, names::port_name(s)).collect(),
        Value::Null => Vec::new(),
        n => invalid_each(path, n, names::port_number(n.as_i64().unwrap_or(0))).collect(),
    }
}

/// What a service refuses to change.
pub fn update(obj: &Value, old: &Value) -> Option<FieldError> {
    let (new, old) = (&obj["spec"], &old["spec"]);
    if new["type"] == "ExternalName" || old["type"] == "ExternalName" {
        return None;
    }
    let (a, b) = (text(&new["clusterIP"]), text(&old["clusterIP"]));
    if a == b || b.is_empty() || a.is_empty() {
        return None;
    }
    Some(FieldError::invalid_go(
        "spec.clusterIPs[0]",
        gostring::strings(&serde_json::json!([a])),
        "may not change once set",
    ))
}

/// Endpoints.
pub fn endpoints(obj: &Value) -> Errors {
    let mut out = Vec::new();
    for (i, s) in list(&obj["subsets"]).iter().enumerate() {
        let path = format!("subsets[{i}]");
        let (ready, other) = (list(&s["addresses"]), list(&s["notReadyAddresses"]));
        if ready.is_empty() && other.is_empty() {
            out.push(FieldError::required(
                path.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (key, all) in [("addresses", ready), ("notReadyAddresses", other)] {
            for (j, a) in all.iter().enumerate() {
                let p = format!("{path}.{key}[{j}].ip");
                if let Some(e) = ip(&p, &a["ip"]) {
                    out.push(e);
                    out.push(FieldError::invalid(
                        p.as_str(),
                        &a["ip"],
                        "must be a valid IP address",
                    ));
                }
                out.extend(special_ip(&p, &a["ip"]));
            }
        }
        let ports = list(&s["ports"]);
        for (j, p) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{j}]");
            if text(&p["name"]).is_empty() {
                if ports.len() > 1 {
                    out.push(FieldError::required(format!("{path}.name"), ""));
                }
            } else {
                out.extend(invalid_each(
                    &format!("{path}.name"),
                    &p["name"],
                    names::dns_label(text(&p["name"])),
                ));
            }
            out.extend(invalid_each(
                &format!("{path}.port"),
                &p["port"],
                names::port_number(p["port"].as_i64().unwrap_or(0)),
            ));
            supported(
                &mut out,
                format!("{path}.protocol"),
                &p["protocol"],
                PROTOCOLS,
            );
        }
    }
    out
}

/// An EndpointSlice.
pub fn endpoint_slice(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let kind = text(&obj["addressType"]);
    if kind.is_empty() {
        out.push(FieldError::required("addressType", ""));
    } else {
        supported(
            &mut out,
            "addressType".into(),
            &obj["addressType"],
            &["FQDN", "IPv4", "IPv6"],
        );
    }
    for (i, e) in list(&obj["endpoints"]).iter().enumerate() {
        let path = format!("endpoints[{i}].addresses");
        let addresses = list(&e["addresses"]);
        if addresses.is_empty() {
            out.push(FieldError::required(
                path.clone(),
                "must contain at least 1 address",
            ));
        }
        for (j, a) in addresses.iter().enumerate() {
            let path = format!("{path}[{j}]");
            match kind {
                "IPv4" if text(a).parse::<std::net::Ipv4Addr>().is_err() => {
                    out.push(FieldError::invalid(path, a, "must be a valid IPv4 address"));
                }
                "IPv6" if text(a).parse::<std::net::Ipv6Addr>().is_err() => {
                    out.push(FieldError::invalid(path, a, "must be a valid IPv6 address"));
                }
                _ => out.extend(special_ip(&path, a)),
            }
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, p) in list(&obj["ports"]).iter().enumerate() {
        let path = format!("ports[{i}]");
        let name = text(&p["name"]);
        if !name.is_empty() {
            out.extend(invalid_each(
                &format!("{path}.name"),
                &p["name"],
                names::dns_label(name),
            ));
        }
        if seen.contains(&name) {
            out.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
        }
        seen.push(name);
        supported(
            &mut out,
            format!("{path}.protocol"),
            &p["protocol"],
            PROTOCOLS,
        );
    }
    out
}
