//! Names, hosts, addresses, ports, lengths of time: the checks that all kinds share.

use crate::message::Message;
use crate::problem::{Found, Problem, join, one};
use api::field::quote;
use api::go::{netip, regexp};

const MILLISECOND: i64 = 1_000_000;

/// Letters, digits and hyphens, no hyphen at the ends, at most 63.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// The same, or `*`, or the same after `*` or `*-`.
fn is_wildcard_dns_label(text: &str) -> bool {
    if text.len() > 63 {
        return false;
    }
    let rest = text.strip_prefix('*').unwrap_or(text);
    let rest = if text.starts_with('*') {
        rest.strip_prefix('-').unwrap_or(rest)
    } else {
        rest
    };
    text == "*" || is_dns_label(rest)
}

pub(crate) fn is_ip(text: &str) -> bool {
    netip::parse_addr(text).is_ok()
}

/// 1 to 65535.
pub(crate) fn port(number: i64) -> Found {
    if (1..=65535).contains(&number) {
        None
    } else {
        one(format!(
            "port number {number} must be in the range 1..65535"
        ))
    }
}

/// At least a millisecond, in whole ones.
pub(crate) fn duration(message: Message<'_>, field: &str) -> Found {
    let nanos = message.duration(field)?;
    if nanos < MILLISECOND {
        one("duration must be greater than 1ms")
    } else if nanos % MILLISECOND != 0 {
        one("only durations to ms precision are supported")
    } else {
        None
    }
}

fn domain_length(name: &str) -> Found {
    if name.len() > 255 {
        one(format!("domain name {} too long (max 255)", quote(name)))
    } else if name.is_empty() {
        one("empty domain name not allowed")
    } else {
        None
    }
}

fn domain_labels(domain: &str) -> Found {
    let parts: Vec<&str> = domain.split('.').collect();
    let top = parts[parts.len() - 1];
    if api::go::strconv::atoi(top).is_ok() {
        return one(format!(
            "domain name {} invalid (top level domain {} cannot be all-numeric)",
            quote(domain),
            quote(top)
        ));
    }
    for (i, label) in parts.iter().enumerate() {
        // `istio.io.` is unambiguous.
        if i == parts.len() - 1 && label.is_empty() {
            return None;
        }
        if !is_dns_label(label) {
            return one(bad_label(domain, label));
        }
    }
    None
}

fn bad_label(domain: &str, label: &str) -> String {
    format!(
        "domain name {} invalid (label {} invalid)",
        quote(domain),
        quote(label)
    )
}

/// A fully qualified name.
pub(crate) fn fqdn(name: &str) -> Found {
    domain_length(name).or_else(|| domain_labels(name))
}

/// A name whose first label may be or begin with a wildcard.
pub(crate) fn wildcard_domain(name: &str) -> Found {
    if let problem @ Some(_) = domain_length(name) {
        return problem;
    }
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    if !is_wildcard_dns_label(first) {
        return one(bad_label(name, first));
    }
    rest.and_then(domain_labels)
}

/// A host of a VirtualService for a gateway; with `sni` also the names that gateways give to services,
/// `outbound_.80_.v1_.host`.
pub(crate) fn gateway_bound_domain(sni: bool, name: &str) -> Found {
    const FORM: &str = "outbound_.<PORT>_._.<HOSTNAME>";
    if let problem @ Some(_) = domain_length(name) {
        return problem;
    }
    if !sni || !name.starts_with("outbound_") {
        return wildcard_domain(name);
    }
    let parts: Vec<&str> = name.split('_').collect();
    if parts.len() < 4 {
        return one(format!(
            "domain name {name} invalid, should follow '{FORM}' format"
        ));
    }
    let (port, host) = (parts[1].trim_matches('.'), parts[3].trim_matches('.'));
    let wrong = |label: &str| {
        one(format!(
            "{}. should follow {FORM} format",
            bad_label(name, label)
        ))
    };
    if !port.contains(|c: char| c.is_ascii_digit()) {
        return wrong(port);
    }
    if !host.contains(|c: char| c.is_ascii_alphabetic()) {
        return wrong(host);
    }
    None
}

/// `*` in a name only as `*` or `*.`.
pub(crate) fn partial_wildcard(host: &str) -> Found {
    if host.contains('*') && host.len() != 1 && !host.starts_with("*.") {
        one(format!("partial wildcard {} not allowed", quote(host)))
    } else {
        None
    }
}

pub(crate) fn ip_address(text: &str) -> Found {
    (!is_ip(text)).then(|| Problem::One(format!("{text} is not a valid IP")))
}

/// An address or a block of them.
pub(crate) fn ip_subnet(text: &str) -> Found {
    if text.matches('/').count() != 1 {
        return ip_address(text);
    }
    netip::parse_prefix(text)
        .is_err()
        .then(|| Problem::One(format!("{text} is not a valid CIDR block")))
}

/// An absolute path, or an abstract socket.
pub(crate) fn unix_address(path: &str) -> Found {
    if path.is_empty() {
        return one("unix address must not be empty");
    }
    if path.starts_with('@') || path.starts_with('/') && !path.ends_with('/') {
        return None;
    }
    one(format!("{path} is not an absolute path to a file"))
}

/// Who of a Gateway's or Sidecar's hosts is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostOf {
    Gateway {
        /// The Gateway was made from one of the Gateway API.
        converted: bool,
    },
    Sidecar,
}

/// `namespace/host` of Gateways and Sidecars.
pub(crate) fn namespaced_host(text: &str, of: HostOf) -> Found {
    let Some((namespace, host)) = text.split_once('/') else {
        return match of {
            HostOf::Gateway { .. } => host_part(text, of),
            HostOf::Sidecar => one("host must be of form namespace/dnsName"),
        };
    };
    let mut errors = None;
    if namespace.is_empty() || host.is_empty() {
        join(
            &mut errors,
            one("config namespace and dnsName in host entry cannot be empty"),
        );
    }
    let (fine, kind) = match of {
        HostOf::Sidecar => {
            let name = namespace.strip_prefix('~').unwrap_or(namespace);
            (
                matches!(name, "" | "*" | ".") || is_dns_label(name),
                "sidecar",
            )
        }
        HostOf::Gateway { converted } => (
            matches!(namespace, "*" | ".")
                || converted && namespace == "~"
                || is_dns_label(namespace),
            "gateway",
        ),
    };
    if !fine {
        join(
            &mut errors,
            one(format!(
                "invalid namespace value {} in {kind}",
                quote(namespace)
            )),
        );
    }
    join(&mut errors, host_part(host, of));
    errors
}

fn host_part(host: &str, of: HostOf) -> Found {
    let mut errors = None;
    if host != "*" && !host.contains('.') {
        join(&mut errors, one("short names (non FQDN) are not allowed"));
    }
    if let Some(problem) = wildcard_domain(host) {
        // A Sidecar hears of it twice when the host is no address either.
        if of == HostOf::Sidecar {
            join(&mut errors, Some(problem.clone()));
        }
        if !is_ip(host) {
            join(&mut errors, Some(problem));
        }
    }
    join(&mut errors, partial_wildcard(host));
    errors
}

/// Labels of pods.
pub(crate) fn labels(message: Message<'_>, field: &str) -> Found {
    let mut texts = Vec::new();
    for (key, value) in message.entries(field) {
        if let Some(text) = label_key(key) {
            texts.push(text);
        }
        let value = value.own_text();
        if !value.is_empty() && !is_qualified_name(value) {
            texts.push(format!("invalid tag value: {}", quote(value)));
        }
    }
    (!texts.is_empty()).then_some(Problem::Many(texts))
}

fn label_key(key: &str) -> Option<String> {
    let invalid = || format!("invalid tag key: {}", quote(key));
    let (prefix, name) = match key.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fine = prefix.is_none_or(|p| {
        p.split('.').all(|label| {
            let bytes = label.as_bytes();
            let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            ends(bytes.first())
                && ends(bytes.last())
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
    });
    if !prefix_fine || !is_qualified_name(name) {
        return Some(invalid());
    }
    if prefix.is_some_and(|p| p.len() > 253) {
        return Some(format!("{} (DNS prefix is too long)", invalid()));
    }
    (name.len() > 63).then(|| format!("{} (name is too long)", invalid()))
}

fn is_qualified_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// A regular expression of at most 1024 bytes.
pub(crate) fn regex(expression: &str, place: &str) -> Found {
    let place = quote(place);
    if expression.len() > 1024 {
        return one(format!(
            "{place}: regex is too large, max length allowed is 1024"
        ));
    }
    let why = regexp::check(expression).err()?;
    one(format!(
        "{place}: {why}; Istio uses RE2 style regex-based match (https://github.com/google/re2/wiki/Syntax)"
    ))
}

/// Whether one host stands for hosts that the other stands for.
pub(crate) fn hosts_overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(x), Some(y)) if a.len() < b.len() => y.ends_with(x),
        (Some(x), Some(y)) => x.ends_with(y),
        (Some(x), None) => b.ends_with(x),
        (None, Some(y)) => a.ends_with(y),
        (None, None) => a == b,
    }
}

/// Whether the second host stands for all hosts of the first.
pub(crate) fn host_is_subset(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(x), Some(y)) => a.len() >= b.len() && x.ends_with(y),
        (Some(_), None) => false,
        (None, Some(y)) => a.ends_with(y),
        (None, None) => a == b,
    }
}

/// Namespaces that see an object: no duplicates, names or `.` or `*`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExportTo {
    /// A ServiceEntry may be visible to nobody.
    pub service_entry: bool,
    /// A DestinationRule with a selector is for its own namespace.
    pub with_selector: bool,
}

impl ExportTo {
    pub(crate) fn check(self, namespace: &str, values: &[&str]) -> Found {
        let mut errors = None;
        let mut seen: Vec<&str> = Vec::new();
        for value in values {
            let key = if *value == "." { namespace } else { value };
            if seen.contains(&key) {
                let text = if key == *value {
                    format!("duplicate entries in exportTo for entry {value}")
                } else {
                    format!("duplicate entries in exportTo: . and current namespace {namespace}")
                };
                join(&mut errors, one(text));
            } else if self.service_entry && *value == "~" {
                seen.push(key);
            } else if key == "~" {
                join(
                    &mut errors,
                    one("exportTo ~ (none) is not allowed for Istio configuration objects"),
                );
            } else if key == "*" || key == "." || is_dns_label(key) {
                seen.push(key);
            } else {
                join(
                    &mut errors,
                    one("only .,*, or a valid DNS 1123 label is allowed as exportTo entry"),
                );
            }
        }
        if self.with_selector && !seen.is_empty() {
            if !seen.contains(&namespace) {
                join(
                    &mut errors,
                    one(
                        "destination rule with workload selector cannot have exportTo beyond current namespace",
                    ),
                );
            } else if seen.len() > 1 {
                join(
                    &mut errors,
                    one(
                        "destination rule with workload selector cannot have multiple entries in exportTo",
                    ),
                );
            }
        }
        if seen.contains(&"*") && values.len() > 1 {
            join(
                &mut errors,
                one("cannot have both public (*) and non-public exportTo values for a resource"),
            );
        }
        if seen.contains(&"~") && values.len() > 1 {
            join(
                &mut errors,
                one("cannot export service entry to no one (~) and someone"),
            );
        }
        errors
    }
}

/// Protocols of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tls,
    Mongo,
    Redis,
    MySql,
    Unknown,
}

impl Protocol {
    pub(crate) fn of(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http" => Self::Http,
            "http_proxy" => Self::HttpProxy,
            "http2" => Self::Http2,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn is_http(self) -> bool {
        matches!(
            self,
            Self::Http | Self::Http2 | Self::HttpProxy | Self::Grpc | Self::GrpcWeb
        )
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    pub(crate) fn is_tcp(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql
        )
    }
}

/// A known protocol, or none.
pub(crate) fn protocol(name: &str) -> Found {
    if !name.is_empty() && Protocol::of(name) == Protocol::Unknown {
        one(format!("unsupported protocol: {name}"))
    } else {
        None
    }
}

/// The name of a port.
pub(crate) fn port_name(name: &str) -> Found {
    (!is_dns_label(name)).then(|| Problem::One(format!("invalid port name: {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        assert_eq!(wildcard_domain("*.example.com"), None);
        assert_eq!(wildcard_domain("*-a.example.com"), None);
        assert_eq!(
            wildcard_domain("a.*.com").unwrap().to_string(),
            r#"domain name "*.com" invalid (label "*" invalid)"#
        );
        assert_eq!(
            fqdn("1.2.3.4").unwrap().to_string(),
            r#"domain name "1.2.3.4" invalid (top level domain "4" cannot be all-numeric)"#
        );
        assert_eq!(gateway_bound_domain(true, "outbound_.80_._.e2e.mesh"), None);
        assert!(gateway_bound_domain(true, "outbound_.x_._.e2e").is_some());
    }

    #[test]
    fn hosts_that_overlap() {
        assert!(hosts_overlap("*.com", "a.com") && hosts_overlap("a.com", "*.com"));
        assert!(hosts_overlap("*", "*.com") && !hosts_overlap("*.a.com", "a.com"));
        assert!(host_is_subset("a.com", "*.com") && !host_is_subset("*.com", "a.com"));
    }

    #[test]
    fn label_keys_may_have_a_prefix() {
        assert_eq!(label_key("example.com/a_b.c"), None);
        assert!(label_key("-a").is_some() && label_key("a//b").is_some());
    }
}
