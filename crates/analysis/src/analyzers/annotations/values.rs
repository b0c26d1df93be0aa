//! Which values annotations of pods may have (Istio's `pkg/kube/inject/validate.go`); the texts are those of Go's parsers.

use std::net::IpAddr;

use api::quantity::Quantity;

use crate::go::quote;
use crate::yaml;

/// Whether the annotation `name` may be `value`.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    match name {
        "sidecar.istio.io/interceptionMode" => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err(format!(
                "interceptionMode invalid, use REDIRECT,TPROXY,NONE: {value}"
            )),
        },
        "status.sidecar.istio.io/port" => {
            port(value).map_err(|problem| format!("excludeInboundPorts invalid: {problem}"))
        }
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => {
            unsigned(value, u64::from(u32::MAX))
        }
        "traffic.sidecar.istio.io/includeOutboundIPRanges" => {
            if value == "*" {
                return Ok(());
            }
            ranges(value).map_err(|problem| format!("includeIPRanges invalid: {problem}"))
        }
        "traffic.sidecar.istio.io/excludeOutboundIPRanges" => {
            ranges(value).map_err(|problem| format!("excludeIPRanges invalid: {problem}"))
        }
        "traffic.sidecar.istio.io/includeInboundPorts" => {
            if value == "*" {
                return Ok(());
            }
            ports("includeInboundPorts", value)
        }
        "traffic.sidecar.istio.io/excludeInboundPorts" => ports("excludeInboundPorts", value),
        "traffic.sidecar.istio.io/excludeOutboundPorts" => ports("excludeOutboundPorts", value),
        "traffic.sidecar.istio.io/excludeInterfaces"
        | "traffic.sidecar.istio.io/kubevirtInterfaces"
        | "istio.io/reroute-virtual-interfaces" => interfaces(value),
        "prometheus.istio.io/merge-metrics" => boolean(value),
        "proxy.istio.io/config" => proxy_config(value),
        "sidecar.istio.io/proxyCPU"
        | "sidecar.istio.io/proxyMemory"
        | "sidecar.istio.io/proxyCPULimit"
        | "sidecar.istio.io/proxyMemoryLimit" => {
            if value.chars().any(char::is_control) {
                return Err("value contains control characters".to_owned());
            }
            Quantity::parse(value)
                .map(|_| ())
                .map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

fn unsigned(text: &str, most: u64) -> Result<(), String> {
    let problem = |what: &str| {
        Err(format!(
            "strconv.ParseUint: parsing {}: {what}",
            quote(text)
        ))
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return problem("invalid syntax");
    }
    match text.parse::<u64>() {
        Ok(value) if value <= most => Ok(()),
        _ => problem("value out of range"),
    }
}

fn boolean(text: &str) -> Result<(), String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false"
        | "False" => Ok(()),
        _ => Err(format!(
            "strconv.ParseBool: parsing {}: invalid syntax",
            quote(text)
        )),
    }
}

fn port(text: &str) -> Result<(), String> {
    unsigned(text.trim(), u64::from(u16::MAX))
        .map_err(|problem| format!("failed parsing port '{text}': {problem}"))
}

fn ports(parameter: &str, text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    for one in text.split(',') {
        port(one).map_err(|problem| {
            format!("{parameter} invalid: failed parsing port '{one}': {problem}")
        })?;
    }
    Ok(())
}

fn ranges(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    text.split(',').try_for_each(|range| {
        prefix(range).map_err(|problem| {
            format!(
                "failed parsing cidr '{range}': netip.ParsePrefix({}): {problem}",
                quote(range)
            )
        })
    })
}

fn prefix(text: &str) -> Result<(), String> {
    let Some((address, bits)) = text.rsplit_once('/') else {
        return Err("no '/'".to_owned());
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => {
            let problem = unreadable_address(address);
            return Err(format!("ParseAddr({}): {problem}", quote(address)));
        }
    };
    let decimal = bits.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = bits.len() > 1 && bits.starts_with('0');
    match bits.parse::<u32>() {
        Ok(bits) if decimal && !leading_zero => {
            if bits > most {
                return Err("prefix length out of range".to_owned());
            }
            Ok(())
        }
        _ => Err(format!("bad bits after slash: {}", quote(bits))),
    }
}

/// What Go says about an address that is none.
fn unreadable_address(text: &str) -> String {
    let Some(first) = text
        .chars()
        .find(|letter| matches!(letter, '.' | ':' | '%'))
    else {
        return "unable to parse IP".to_owned();
    };
    if first != '.' {
        return "unable to parse IP".to_owned();
    }
    let mut fields = 0;
    for (index, field) in text.split('.').enumerate() {
        if let Some(position) = field.find(|letter: char| !letter.is_ascii_digit()) {
            let rest: usize = text
                .split('.')
                .take(index)
                .map(|field| field.len() + 1)
                .sum();
            return format!(
                "unexpected character (at {})",
                quote(&text[rest + position..])
            );
        }
        if field.len() > 1 && field.starts_with('0') {
            return "IPv4 field has octet with leading zero".to_owned();
        }
        if field.parse::<u64>().is_ok_and(|value| value > 255) {
            return "IPv4 field has value >255".to_owned();
        }
        fields += 1;
    }
    if fields > 4 {
        "IPv4 address too long".to_owned()
    } else {
        "IPv4 address too short".to_owned()
    }
}

fn interfaces(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    for name in text.split(',').map(str::trim) {
        if name.is_empty() {
            return Err("empty interface name".to_owned());
        }
        if name.len() > 15 {
            return Err(format!(
                "interface name {} too long (max 15 chars)",
                quote(name)
            ));
        }
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
        if !name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            || !name.chars().all(allowed)
        {
            return Err(format!(
                "interface name {} contains invalid characters",
                quote(name)
            ));
        }
    }
    Ok(())
}

/// Only that it is YAML with fields of a proxy's configuration; the texts about single fields are not Istio's.
fn proxy_config(text: &str) -> Result<(), String> {
    let convert = |problem: String| format!("failed to convert to apply proxy config: {problem}");
    let node = yaml::parse(text).map_err(|error| convert(error.to_string()))?;
    let Some(node) = node else { return Ok(()) };
    let value = yaml::to_json(&node).map_err(|error| convert(error.to_string()))?;
    if value.is_null() {
        return Ok(());
    }
    serde_json::from_value::<api::istio::MeshProxyConfig>(value)
        .map(|_| ())
        .map_err(|error| convert(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_told_as_gos_parsers_do() {
        for (name, value, expected) in [
            (
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "10.0.0.0/40",
                "includeIPRanges invalid: failed parsing cidr '10.0.0.0/40': netip.ParsePrefix(\"10.0.0.0/40\"): prefix length out of range",
            ),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "10.0.0/8",
                "excludeIPRanges invalid: failed parsing cidr '10.0.0/8': netip.ParsePrefix(\"10.0.0/8\"): ParseAddr(\"10.0.0\"): IPv4 address too short",
            ),
            (
                "traffic.sidecar.istio.io/excludeInboundPorts",
                "80,x",
                "excludeInboundPorts invalid: failed parsing port 'x': failed parsing port 'x': strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                "status.sidecar.istio.io/port",
                "70000",
                "excludeInboundPorts invalid: failed parsing port '70000': strconv.ParseUint: parsing \"70000\": value out of range",
            ),
            (
                "prometheus.istio.io/merge-metrics",
                "maybe",
                "strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "sidecar.istio.io/proxyCPU",
                "much",
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ] {
            assert_eq!(
                check(name, value),
                Err(expected.to_owned()),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn right_values_pass() {
        for (name, value) in [
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
            (
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "10.0.0.0/8,fd00::/8",
            ),
            ("traffic.sidecar.istio.io/excludeInboundPorts", " 80, 443"),
            ("sidecar.istio.io/proxyMemory", "128Mi"),
            ("proxy.istio.io/config", "concurrency: 2\n"),
            ("sidecar.istio.io/userVolume", "anything"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}: {value}");
        }
    }
}
