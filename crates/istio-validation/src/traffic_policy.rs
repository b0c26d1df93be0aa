//! Traffic policies: connection pools, load balancing, outlier detection, tunnels.

use crate::message::Message;
use crate::names;
use crate::problem::{Found, Validation, join, one};
use crate::tls;

/// The policy of a DestinationRule or of a subset.
pub(crate) fn policy(namespace: &str, policy: Option<Message<'_>>) -> Validation {
    let mut v = Validation::default();
    let Some(policy) = policy else { return v };
    let fields = [
        "outlierDetection",
        "connectionPool",
        "loadBalancer",
        "tls",
        "tunnel",
        "proxyProtocol",
        "retryBudget",
    ];
    let ports = !policy.list("portLevelSettings").is_empty();
    if !ports && !fields.into_iter().any(|field| policy.has(field)) {
        v.fail("traffic policy must have at least one field");
        return v;
    }
    if policy.has("tunnel") && policy.has("proxyProtocol") {
        v.fail("tunnel and proxyProtocol must not be set together");
        return v;
    }
    let outlier = policy.get("outlierDetection");
    v.add(outlier_detection(outlier));
    v.errors(connection_pool(policy.get("connectionPool")));
    v.add(load_balancer(policy.get("loadBalancer"), outlier.is_some()));
    v.errors(tls::client(namespace, policy.get("tls")));
    v.errors(port_policies(namespace, policy));
    v.errors(tunnel(policy.get("tunnel")));
    v
}

/// Of single ports. Their warnings are not heard.
fn port_policies(namespace: &str, policy: Message<'_>) -> Found {
    let mut errors = None;
    for port in policy.messages("portLevelSettings") {
        if !port.has("port") {
            join(&mut errors, one("portTrafficPolicy must have valid port"));
        }
        let outlier = port.get("outlierDetection");
        if outlier.is_none()
            && !["connectionPool", "loadBalancer", "tls"]
                .into_iter()
                .any(|field| port.has(field))
        {
            join(
                &mut errors,
                one("port traffic policy must have at least one field"),
            );
            continue;
        }
        join(&mut errors, outlier_detection(outlier).error);
        join(&mut errors, connection_pool(port.get("connectionPool")));
        join(
            &mut errors,
            load_balancer(port.get("loadBalancer"), outlier.is_some()).error,
        );
        join(&mut errors, tls::client(namespace, port.get("tls")));
    }
    errors
}

fn tunnel(tunnel: Option<Message<'_>>) -> Found {
    let tunnel = tunnel?;
    let mut errors = None;
    if !matches!(tunnel.text("protocol"), "" | "CONNECT" | "POST") {
        join(
            &mut errors,
            one("tunnel protocol must be \"CONNECT\" or \"POST\""),
        );
    }
    let host = tunnel.text("targetHost");
    if let (Some(fqdn), Some(ip)) = (names::fqdn(host), names::ip_address(host)) {
        join(
            &mut errors,
            one(format!(
                "tunnel target host must be valid FQDN or IP address: {fqdn}; {ip}"
            )),
        );
    }
    if let Some(why) = names::port(tunnel.int("targetPort")) {
        join(
            &mut errors,
            one(format!("tunnel target port is invalid: {why}")),
        );
    }
    errors
}

fn percent(value: i64) -> Found {
    if (0..=100).contains(&value) {
        None
    } else {
        one(format!("percentage {value} is not in range 0..100"))
    }
}

fn outlier_detection(outlier: Option<Message<'_>>) -> Validation {
    let mut v = Validation::default();
    let Some(outlier) = outlier else { return v };
    v.errors(names::duration(outlier, "baseEjectionTime"));
    if outlier.int("consecutiveErrors") != 0 {
        v.warn("outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead");
    }
    if !outlier.flag("splitExternalLocalOriginErrors")
        && outlier.int("consecutiveLocalOriginFailures") > 0
    {
        v.fail("outlier detection consecutive local origin failures is specified, but split external local origin errors is set to false");
    }
    v.errors(names::duration(outlier, "interval"));
    v.errors(percent(outlier.int("maxEjectionPercent")));
    v.errors(percent(outlier.int("minHealthPercent")));
    v
}

/// Limits of connections; also used by Sidecar.
pub(crate) fn connection_pool(pool: Option<Message<'_>>) -> Found {
    let pool = pool?;
    let (http, tcp) = (pool.get("http"), pool.get("tcp"));
    if http.is_none() && tcp.is_none() {
        return one("connection pool must have at least one field");
    }
    let mut errors = None;
    if let Some(http) = http {
        for (field, what) in [
            ("http1MaxPendingRequests", "http1 max pending requests"),
            ("http2MaxRequests", "http2 max requests"),
            ("maxRequestsPerConnection", "max requests per connection"),
            ("maxRetries", "max retries"),
        ] {
            join(&mut errors, non_negative(http, field, what));
        }
        join(&mut errors, names::duration(http, "idleTimeout"));
        if http.text("h2UpgradePolicy") == "UPGRADE" && http.flag("useClientProtocol") {
            join(
                &mut errors,
                one("use client protocol must not be true when H2UpgradePolicy is UPGRADE"),
            );
        }
        join(
            &mut errors,
            non_negative(http, "maxConcurrentStreams", "max concurrent streams"),
        );
        if let Some(ping) = http.get("http2KeepAlive") {
            for field in ["interval", "timeout"] {
                if ping.has(field) {
                    join(&mut errors, names::duration(ping, field));
                } else {
                    join(
                        &mut errors,
                        one(format!("http2 keepalive {field} is required")),
                    );
                }
            }
        }
    }
    if let Some(tcp) = tcp {
        join(
            &mut errors,
            non_negative(tcp, "maxConnections", "max connections"),
        );
        join(&mut errors, names::duration(tcp, "connectTimeout"));
        join(&mut errors, names::duration(tcp, "maxConnectionDuration"));
        // Less than a millisecond switches the timeout off.
        if tcp
            .duration("idleTimeout")
            .is_some_and(|nanos| nanos / 1_000_000 != 0)
        {
            join(&mut errors, names::duration(tcp, "idleTimeout"));
        }
        if let Some(keepalive) = tcp.get("tcpKeepalive") {
            join(&mut errors, names::duration(keepalive, "time"));
            join(&mut errors, names::duration(keepalive, "interval"));
        }
    }
    errors
}

fn non_negative(message: Message<'_>, field: &str, what: &str) -> Found {
    if message.int(field) < 0 {
        one(format!("{what} must be non-negative"))
    } else {
        None
    }
}

fn load_balancer(settings: Option<Message<'_>>, with_outlier: bool) -> Validation {
    let mut v = Validation::default();
    let Some(settings) = settings else { return v };
    if let Some(hash) = settings.get("consistentHash") {
        consistent_hash(hash, &mut v);
    }
    let (locality, zones) = (
        settings.get("localityLbSetting"),
        settings.get("zoneAwareLbSetting"),
    );
    if locality.is_some() && zones.is_some() {
        v.fail("only one of localityLbSetting and zoneAwareLbSetting can be set");
    }
    if let Some(locality) = locality {
        v.add(locality_lb(locality, with_outlier));
    }
    if let Some(zones) = zones {
        v.add(zone_aware_lb(zones, with_outlier));
    }
    if let Some(warmup) = settings.get("warmup") {
        if warmup.has("duration") {
            v.errors(names::duration(warmup, "duration"));
        } else {
            v.fail("duration is required");
        }
        if warmup.number("minimumPercent") > 100.0 {
            v.fail("minimumPercent value should be less than or equal to 100");
        }
        if warmup.maybe_number("aggression").is_some_and(|a| a <= 0.0) {
            v.fail("aggression should be greater than 0");
        }
    }
    v
}

fn consistent_hash(hash: Message<'_>, v: &mut Validation) {
    if let Some(cookie) = hash.get("httpCookie") {
        if cookie.text("name").is_empty() {
            v.fail("name required for HttpCookie");
        }
        let mut seen = Vec::new();
        for attribute in cookie.messages("attributes") {
            let name = attribute.text("name");
            if name.is_empty() {
                v.fail("cookie attribute name cannot be empty");
            } else if seen.contains(&name) {
                v.fail(format!("duplicate cookie attribute name: {name}"));
            } else {
                seen.push(name);
            }
        }
    }
    if hash.int("minimumRingSize") != 0 {
        v.warn("consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead");
        if hash.has("ringHash") || hash.has("maglev") {
            v.fail("only one of MinimumRingSize or Maglev/Ringhash can be specified");
        }
    }
    if let Some(maglev) = hash.get("maglev") {
        let size = maglev.raw("tableSize").as_u64().unwrap_or(0);
        if size == 0 {
            v.fail("tableSize must be set for maglev");
        }
        if size >= 5_000_011 {
            v.fail("tableSize must be less than 5000011 for maglev");
        }
        if !is_prime(size) {
            v.fail("tableSize must be a prime number for maglev");
        }
    }
}

/// As Envoy counts primes: 1 is one.
fn is_prime(n: u64) -> bool {
    if (1..4).contains(&n) {
        return true;
    }
    n % 2 == 1
        && (3..)
            .step_by(2)
            .take_while(|f| *f <= n / *f)
            .all(|f| !n.is_multiple_of(f))
}

const TOPOLOGY: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

fn locality_lb(lb: Message<'_>, with_outlier: bool) -> Validation {
    let mut v = Validation::default();
    let some = |field: &str| !lb.list(field).is_empty();
    if some("distribute") && some("failover") {
        v.fail("can not simultaneously specify 'distribute' and 'failover'");
        return v;
    }
    if some("failover")
        && let Some(label) = lb
            .texts("failoverPriority")
            .into_iter()
            .find(|label| TOPOLOGY.contains(label))
    {
        v.fail(format!(
            "can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'"
        ));
        return v;
    }
    let mut sources = Vec::new();
    for distribute in lb.messages("distribute") {
        sources.push(distribute.text("from"));
        let mut total = 0;
        let mut targets = Vec::new();
        for (locality, weight) in distribute.entries("to") {
            targets.push(locality);
            let weight = weight.own_int();
            if !(1..=100).contains(&weight) {
                v.fail("locality weight must be in range [1, 100]");
                return v;
            }
            total += weight;
        }
        if total != 100 {
            v.fail(format!("total locality weight {total} != 100"));
            return v;
        }
        v.errors(localities(&targets));
    }
    v.errors(localities(&sources));
    failover(
        lb,
        with_outlier,
        "locality lb",
        "only specify region",
        &mut v,
    );
    v
}

fn zone_aware_lb(lb: Message<'_>, with_outlier: bool) -> Validation {
    let mut v = Validation::default();
    for label in lb.texts("failoverPriority") {
        if TOPOLOGY.contains(&label) {
            v.fail(format!(
                "'failover_priority' for zone aware lb must not use topology label '{label}'; region- and zone-level routing are handled automatically"
            ));
        }
    }
    failover(
        lb,
        with_outlier,
        "zone aware lb",
        "only specifies region; zone and subzone failover are handled automatically",
        &mut v,
    );
    v
}

fn failover(
    lb: Message<'_>,
    with_outlier: bool,
    what: &str,
    only_region: &str,
    v: &mut Validation,
) {
    let wanted = !lb.list("failover").is_empty() || !lb.list("failoverPriority").is_empty();
    if wanted && !with_outlier {
        v.warn("outlier detection policy must be provided for failover");
    }
    for failover in lb.messages("failover") {
        let (from, to) = (failover.text("from"), failover.text("to"));
        if from == to {
            v.fail(format!(
                "{what} failover settings must specify different regions"
            ));
        }
        if from.contains('/') || to.contains('/') {
            v.fail(format!("{what} failover {only_region}"));
        }
        if from.contains('*') || to.contains('*') {
            v.fail(format!(
                "{what} failover region should not contain '*' wildcard"
            ));
        }
    }
}

/// `region/zone/subzone`, which may not overlap.
fn localities(all: &[&str]) -> Found {
    let mut seen: Vec<Vec<&str>> = Vec::new();
    for locality in all {
        let stars = locality.matches('*').count();
        if stars > 1 || stars == 1 && !locality.ends_with('*') {
            return one(format!(
                "locality {locality} wildcard '*' number can not exceed 1 and must be in the end"
            ));
        }
        let overlap = || {
            one(format!(
                "locality {locality} overlap with previous specified ones"
            ))
        };
        if seen.iter().any(|parts| parts[0] == "*") {
            return overlap();
        }
        let parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.contains(&"") {
            return one(format!(
                "locality {locality} must not contain empty region/zone/subzone info"
            ));
        }
        // A longer one is inside of a shorter one; a shorter one after a longer one contains it.
        let clash = seen.iter().any(|other| {
            let shared = other.len().min(parts.len());
            let covered = |n: usize| {
                (0..n).all(|i| other[i] == parts[i] || other[i] == "*" && other.len() == i + 1)
            };
            covered(shared)
        });
        if clash {
            return overlap();
        }
        seen.push(parts);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities_may_not_overlap() {
        assert_eq!(localities(&["a/b", "a/c", "d"]), None);
        assert!(localities(&["a", "a/b"]).is_some());
        assert!(localities(&["a/b/c", "a/b"]).is_some());
        assert!(localities(&["a/*", "a/b"]).is_some());
        assert!(localities(&["*", "a"]).is_some());
        assert!(localities(&["a//b"]).is_some());
    }

    #[test]
    fn primes() {
        assert!(is_prime(65537) && is_prime(1) && !is_prime(0) && !is_prime(65536) && !is_prime(9));
    }
}
