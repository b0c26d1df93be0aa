//! Addresses and ports of Services.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::field::FieldError;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::state::Server;
use crate::storage::Storage;

/// A prefix of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cidr {
    first: u32,
    bits: u8,
}

impl Cidr {
    /// Reads `10.97.0.0/16`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = text.split_once('/')?;
        let bits: u8 = bits.parse().ok().filter(|b| (8..=30).contains(b))?;
        let ip = u32::from(ip.parse::<Ipv4Addr>().ok()?);
        let mask = u32::MAX << (32 - bits);
        Some(Self {
            first: ip & mask,
            bits,
        })
    }

    /// The `n`th address.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + n)
    }

    fn size(self) -> u32 {
        1 << (32 - self.bits)
    }

    fn contains(self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        ip > self.first && ip < self.first + self.size() - 1
    }

    /// Addresses below are for those who ask by number (`kubernetes`, `kube-dns`).
    fn dynamic_start(self) -> u32 {
        (self.size() / 16).clamp(16, 256)
    }
}

/// What Services are given from.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    pub cluster: Cidr,
    pub load_balancer: RangeInclusive<Ipv4Addr>,
    pub node_ports: RangeInclusive<u16>,
}

/// What is in use or promised.
#[derive(Debug, Default, Clone)]
pub(crate) struct Used {
    pub ips: HashSet<Ipv4Addr>,
    pub ports: HashSet<u16>,
    pub external: HashSet<Ipv4Addr>,
}

/// Gives out addresses and ports.
pub(crate) struct Allocator {
    pub pools: Pools,
    promised: Arc<Mutex<Vec<Used>>>,
}

/// What was promised to an object that is not stored yet; given back when dropped.
#[derive(Default)]
pub(crate) struct Reserved(Option<(Arc<Mutex<Vec<Used>>>, Used)>);

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some((all, mine)) = self.0.take() {
            let mut all = all.lock();
            if let Some(i) = all.iter().position(|u| {
                u.ips == mine.ips && u.ports == mine.ports && u.external == mine.external
            }) {
                all.swap_remove(i);
            }
        }
    }
}

impl Allocator {
    pub fn new(pools: Pools) -> Self {
        Self {
            pools,
            promised: Arc::default(),
        }
    }
}

fn ip(v: &Value) -> Option<Ipv4Addr> {
    v.as_str()?.parse().ok()
}

fn port(v: &Value) -> Option<u16> {
    v.as_u64()
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
}

/// Everything one Service holds.
fn held(service: &Value) -> Used {
    let mut out = Used::default();
    out.ips.extend(ip(&service["spec"]["clusterIP"]));
    for p in service["spec"]["ports"].as_array().into_iter().flatten() {
        out.ports.extend(port(&p["nodePort"]));
    }
    out.ports
        .extend(port(&service["spec"]["healthCheckNodePort"]));
    for i in service["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
    {
        out.external.extend(ip(&i["ip"]));
    }
    out
}

fn in_use(storage: &Storage, except: &str) -> Used {
    let (services, _) = storage.cache().list("core/services", "");
    let mut out = Used::default();
    for (key, service) in services {
        if *key != *except {
            let h = held(service.value());
            out.ips.extend(h.ips);
            out.ports.extend(h.ports);
            out.external.extend(h.external);
        }
    }
    out
}

/// Gives a Service its addresses.
pub(crate) fn admit(
    server: &Server,
    a: &Attributes<'_>,
    service: &mut Value,
) -> ApiResult<Reserved> {
    let allocator = &server.allocator;
    let mut promised = allocator.promised.lock();
    let mut used = in_use(&server.storage, &format!("{}/{}", a.namespace, a.name));
    for p in promised.iter() {
        used.ips.extend(&p.ips);
        used.ports.extend(&p.ports);
        used.external.extend(&p.external);
    }
    let old = a.old.filter(|_| a.operation == Operation::Update);
    allocate(&allocator.pools, &mut used, service, old, rand::random())
        .map_err(|e| ApiError::invalid("", "Service", a.name, &[e]))?;
    let mine = held(service);
    promised.push(mine.clone());
    drop(promised);
    Ok(Reserved(Some((allocator.promised.clone(), mine))))
}

/// Fills in cluster IP, node ports and load-balancer address, avoiding `used`.
pub(crate) fn allocate(
    pools: &Pools,
    used: &mut Used,
    service: &mut Value,
    old: Option<&Value>,
    seed: u32,
) -> Result<(), FieldError> {
    let kind = service["spec"]["type"]
        .as_str()
        .unwrap_or("ClusterIP")
        .to_owned();
    if !service["spec"].is_object() {
        return Ok(());
    }
    if kind == "ExternalName" {
        if let Some(spec) = service["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.shift_remove(field);
            }
        }
    } else {
        cluster_ip(pools, used, service, old, seed)?;
    }
    if let Some(old) = old {
        drop_what_no_longer_fits(service, old, &kind);
    }
    node_ports(pools, used, service, old, &kind, seed)?;
    load_balancer(pools, used, service, old, &kind)
}

/// A change of type alone takes along what only the old type had, unless its author changed that too.
fn drop_what_no_longer_fits(service: &mut Value, old: &Value, kind: &str) {
    let external = service["spec"]["externalIPs"]
        .as_array()
        .is_some_and(|ips| !ips.is_empty());
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external;
    let Some(spec) = service["spec"].as_object_mut() else {
        return;
    };
    for (field, fits) in [
        ("externalTrafficPolicy", outside),
        ("allocateLoadBalancerNodePorts", kind == "LoadBalancer"),
        ("loadBalancerClass", kind == "LoadBalancer"),
    ] {
        if !fits && spec.get(field) == old["spec"].get(field) {
            spec.shift_remove(field);
        }
    }
}

fn cluster_ip(
    pools: &Pools,
    used: &mut Used,
    service: &mut Value,
    old: Option<&Value>,
    seed: u32,
) -> Result<(), FieldError> {
    let mut asked = service["spec"]["clusterIP"]
        .as_str()
        .unwrap_or("")
        .to_owned();
    if asked.is_empty() {
        asked = service["spec"]["clusterIPs"][0]
            .as_str()
            .unwrap_or("")
            .to_owned();
    }
    let before = old
        .and_then(|o| o["spec"]["clusterIP"].as_str())
        .unwrap_or("")
        .to_owned();
    if asked.is_empty() && !before.is_empty() {
        // An update that leaves it out keeps it.
        asked.clone_from(&before);
    }
    if !before.is_empty() && asked != before {
        // Validation refuses it; no address is looked for.
        service["spec"]["clusterIPs"] = json!([asked]);
        service["spec"]["clusterIP"] = asked.into();
        return Ok(());
    }
    let value = if asked == "None" {
        asked
    } else if asked.is_empty() {
        let size = pools.cluster.size();
        let start = pools.cluster.dynamic_start();
        let span = size - 1 - start;
        let free = (0..span)
            .map(|i| pools.cluster.nth(start + (seed.wrapping_add(i)) % span))
            .find(|ip| !used.ips.contains(ip))
            .ok_or_else(|| {
                FieldError::internal(
                    "spec.clusterIPs",
                    "failed to allocate a serviceIP: range is full",
                )
            })?;
        free.to_string()
    } else {
        // Go's words for a list of texts.
        let shown = format!("[]string{{{}}}", api::field::quote(&asked));
        let parsed: Ipv4Addr = asked.parse().map_err(|_| {
            FieldError::invalid(
                "spec.clusterIPs[0]",
                &json!(asked),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )
        })?;
        if !pools.cluster.contains(parsed) && asked != before {
            return Err(FieldError::invalid_go(
                "spec.clusterIPs",
                shown,
                format!(
                    "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}/{}",
                    Ipv4Addr::from(pools.cluster.first),
                    pools.cluster.bits
                ),
            ));
        }
        if used.ips.contains(&parsed) {
            return Err(FieldError::invalid_go(
                "spec.clusterIPs",
                shown,
                format!("failed to allocate IP {asked}: provided IP is already allocated"),
            ));
        }
        asked
    };
    let spec = &mut service["spec"];
    spec["clusterIPs"] = json!([value]);
    spec["clusterIP"] = value.into();
    // Headless Services without a selector may have any family; ours are all IPv4.
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].as_str().is_none_or(str::is_empty) {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

fn node_ports(
    pools: &Pools,
    used: &mut Used,
    service: &mut Value,
    old: Option<&Value>,
    kind: &str,
    seed: u32,
) -> Result<(), FieldError> {
    let needs = kind == "NodePort"
        || (kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] != false);
    let before: Vec<(Value, Value, Value)> = old
        .and_then(|o| o["spec"]["ports"].as_array())
        .into_iter()
        .flatten()
        .map(|p| {
            (
                p["port"].clone(),
                p["protocol"].clone(),
                p["nodePort"].clone(),
            )
        })
        .collect();
    let mut own: Vec<(u16, Value)> = Vec::new();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else {
        return Ok(());
    };
    for (i, entry) in ports.iter_mut().enumerate() {
        if !needs {
            if kind != "LoadBalancer"
                && let Some(map) = entry.as_object_mut()
            {
                map.shift_remove("nodePort");
            }
            continue;
        }
        let field = format!("spec.ports[{i}].nodePort");
        if let Some(asked) = port(&entry["nodePort"]) {
            let known = before.iter().any(|(.., n)| *n == entry["nodePort"]);
            if !pools.node_ports.contains(&asked) && !known {
                return Err(FieldError::invalid(
                    field,
                    &json!(asked),
                    format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        pools.node_ports.start(),
                        pools.node_ports.end()
                    ),
                ));
            }
            // One number may serve TCP and UDP of one Service.
            let again = own
                .iter()
                .any(|(p, proto)| *p == asked && *proto != entry["protocol"]);
            if used.ports.contains(&asked) && !again {
                return Err(FieldError::invalid(
                    field,
                    &json!(asked),
                    "provided port is already allocated",
                ));
            }
            used.ports.insert(asked);
            own.push((asked, entry["protocol"].clone()));
            continue;
        }
        let kept = before
            .iter()
            .find(|(p, proto, _)| *p == entry["port"] && *proto == entry["protocol"])
            .and_then(|(.., n)| port(n))
            .filter(|n| !used.ports.contains(n));
        let (low, high) = (
            u32::from(*pools.node_ports.start()),
            u32::from(*pools.node_ports.end()),
        );
        let span = high - low + 1;
        // The first ports are for those who ask for one by number (KEP-3668, static band): they
        // are given away by chance only when no other is left.
        let band = (span / 32).clamp(16, 128).min(span - 1);
        let by_chance = span - band;
        let picked = kept.or_else(|| {
            (0..by_chance)
                .map(|k| low + band + seed.wrapping_add(k) % by_chance)
                .chain(low..low + band)
                .filter_map(|p| u16::try_from(p).ok())
                .find(|p| !used.ports.contains(p))
        });
        let picked = picked.ok_or_else(|| {
            FieldError::internal(field, "failed to allocate a nodePort: range is full")
        })?;
        used.ports.insert(picked);
        own.push((picked, entry["protocol"].clone()));
        entry["nodePort"] = picked.into();
    }
    Ok(())
}

fn load_balancer(
    pools: &Pools,
    used: &mut Used,
    service: &mut Value,
    old: Option<&Value>,
    kind: &str,
) -> Result<(), FieldError> {
    let class = service["spec"]["loadBalancerClass"]
        .as_str()
        .is_some_and(|c| !c.is_empty());
    if kind != "LoadBalancer" || class {
        // The address goes with the type that needed it.
        service["status"] = json!({"loadBalancer": {}});
        return Ok(());
    }
    let current = old.and_then(|o| ip(&o["status"]["loadBalancer"]["ingress"][0]["ip"]));
    let asked =
        ip(&service["spec"]["loadBalancerIP"]).filter(|ip| pools.load_balancer.contains(ip));
    let picked = match (asked, current) {
        (Some(asked), _) if !used.external.contains(&asked) => Some(asked),
        (_, Some(current)) => Some(current),
        _ => {
            let (low, high) = (
                u32::from(*pools.load_balancer.start()),
                u32::from(*pools.load_balancer.end()),
            );
            (low..=high)
                .map(Ipv4Addr::from)
                .find(|ip| !used.external.contains(ip))
        }
    };
    // An empty pool leaves the address pending, as a cloud out of addresses does.
    service["status"] = match picked {
        Some(ip) => json!({"loadBalancer": {"ingress": [{"ip": ip.to_string(), "ipMode": "VIP"}]}}),
        None => json!({"loadBalancer": {}}),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Pools {
        Pools {
            cluster: Cidr::parse("10.97.0.0/16").unwrap(),
            load_balancer: "203.0.113.10".parse().unwrap()..="203.0.113.11".parse().unwrap(),
            node_ports: 30000..=32767,
        }
    }

    fn give(used: &mut Used, mut service: Value, old: Option<&Value>) -> Result<Value, FieldError> {
        allocate(&pools(), used, &mut service, old, 7)?;
        let h = held(&service);
        used.ips.extend(h.ips);
        used.ports.extend(h.ports);
        used.external.extend(h.external);
        Ok(service)
    }

    #[test]
    fn a_service_gets_an_address_and_keeps_it() {
        let mut used = Used::default();
        let a = give(&mut used, json!({"spec": {"ports": [{"port": 80}]}}), None).unwrap();
        let b = give(&mut used, json!({"spec": {"ports": [{"port": 80}]}}), None).unwrap();
        assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
        assert_eq!(a["spec"]["ipFamilies"], json!(["IPv4"]));
        let again = give(
            &mut Used::default(),
            json!({"spec": {"ports": [{"port": 81}]}}),
            Some(&a),
        )
        .unwrap();
        assert_eq!(again["spec"]["clusterIP"], a["spec"]["clusterIP"]);
        let none = give(&mut used, json!({"spec": {"clusterIP": "None"}}), None).unwrap();
        assert_eq!(none["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn wished_addresses_are_checked() {
        let mut used = Used::default();
        let wish = |ip: &str| json!({"spec": {"clusterIP": ip, "ports": []}});
        give(&mut used, wish("10.97.0.10"), None).unwrap();
        let twice = give(&mut used, wish("10.97.0.10"), None).unwrap_err();
        assert_eq!(
            twice.to_string(),
            r#"spec.clusterIPs: Invalid value: []string{"10.97.0.10"}: failed to allocate IP 10.97.0.10: provided IP is already allocated"#
        );
        assert!(give(&mut used, wish("10.0.0.1"), None).is_err());
    }

    #[test]
    fn node_ports_and_load_balancer_addresses() {
        let mut used = Used::default();
        let lb = |p: u16| json!({"spec": {"type": "LoadBalancer", "ports": [{"port": p, "protocol": "TCP"}]}});
        let a = give(&mut used, lb(80), None).unwrap();
        assert_eq!(
            a["status"]["loadBalancer"]["ingress"][0],
            json!({"ip": "203.0.113.10", "ipMode": "VIP"})
        );
        assert!(port(&a["spec"]["ports"][0]["nodePort"]).unwrap() >= 30000);
        let b = give(&mut used, lb(80), None).unwrap();
        assert_eq!(
            b["status"]["loadBalancer"]["ingress"][0]["ip"],
            "203.0.113.11"
        );
        let c = give(&mut used, lb(80), None).unwrap();
        assert_eq!(c["status"]["loadBalancer"], json!({}), "the pool is empty");
        let mut kept = lb(80);
        kept["spec"]["clusterIP"] = a["spec"]["clusterIP"].clone();
        let kept = give(&mut Used::default(), kept, Some(&a)).unwrap();
        assert_eq!(kept["spec"]["ports"], a["spec"]["ports"]);
        assert_eq!(kept["status"], a["status"]);
        let plain = give(
            &mut Used::default(),
            json!({"spec": {"type": "ClusterIP", "ports": kept["spec"]["ports"]}}),
            Some(&a),
        )
        .unwrap();
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
        assert_eq!(plain["status"]["loadBalancer"], json!({}));
    }

    #[test]
    fn a_service_of_another_type_loses_what_only_the_old_type_had() {
        let old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}});
        let mut same = old.clone();
        drop_what_no_longer_fits(&mut same, &old, "NodePort");
        assert_eq!(
            same["spec"],
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"})
        );
        let mut changed = old.clone();
        changed["spec"]["externalTrafficPolicy"] = "Local".into();
        drop_what_no_longer_fits(&mut changed, &old, "ExternalName");
        assert_eq!(
            changed["spec"]["externalTrafficPolicy"], "Local",
            "what was changed is left to validation"
        );
    }

    #[test]
    fn a_wished_node_port_outside_the_range_is_refused() {
        let e = give(
            &mut Used::default(),
            json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}),
            None,
        )
        .unwrap_err();
        assert_eq!(
            e.to_string(),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }
}
