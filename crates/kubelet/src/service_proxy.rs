//! The role of kube-proxy: Services and EndpointSlices to address translation rules.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use kube_client::Store;
use runtime::CancellationToken;
use sandbox::service_nat::{NatRule, Protocol};
use serde_json::Value;

/// Changes within this time are applied together.
const DEBOUNCE: Duration = Duration::from_millis(3);

fn protocol(value: &Value) -> Option<Protocol> {
    match value.as_str().unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        // SCTP is not offered by this network.
        _ => None,
    }
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0)
}

type TargetKey<'a> = (&'a str, &'a str, &'a str, Protocol);

#[derive(Default)]
struct Targets {
    ready: Vec<SocketAddrV4>,
    /// Ending but still serving: used when nothing is ready, so that a rollout loses no connection.
    serving: Vec<SocketAddrV4>,
}

/// All rules, in a fixed order: for each service port its cluster IP, its load-balancer and external
/// addresses, and its node port on each of `node_ips`. A port without endpoints is a rule without
/// targets: connections are refused. Headless and external-name services have none.
/// `externalTrafficPolicy` has no effect: there is one node.
pub fn rules<'a>(
    services: impl IntoIterator<Item = &'a Value>,
    slices: impl IntoIterator<Item = &'a Value>,
    node_ips: &[Ipv4Addr],
) -> Vec<NatRule> {
    let mut targets: HashMap<TargetKey<'_>, Targets> = HashMap::new();
    for slice in slices {
        collect(slice, &mut targets);
    }
    let mut rules = Vec::new();
    for service in services {
        let (meta, spec) = (&service["metadata"], &service["spec"]);
        let (Some(namespace), Some(name)) = (meta["namespace"].as_str(), meta["name"].as_str())
        else {
            continue;
        };
        let cluster_ip: Option<Ipv4Addr> =
            spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        if spec["type"] == "ExternalName" || cluster_ip.is_none() {
            continue;
        }
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        let balancers = ingress
            .into_iter()
            .flatten()
            .filter_map(|ingress| ingress["ip"].as_str());
        let external = spec["externalIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let addresses: Vec<Ipv4Addr> = cluster_ip
            .into_iter()
            .chain(balancers.chain(external).filter_map(|ip| ip.parse().ok()))
            .collect();
        for service_port in spec["ports"].as_array().into_iter().flatten() {
            let (Some(number), Some(protocol)) = (
                port(&service_port["port"]),
                protocol(&service_port["protocol"]),
            ) else {
                continue;
            };
            let port_name = service_port["name"].as_str().unwrap_or_default();
            let found = targets.get(&(namespace, name, port_name, protocol));
            let mut chosen = found.map_or_else(Vec::new, |found| {
                if found.ready.is_empty() {
                    found.serving.clone()
                } else {
                    found.ready.clone()
                }
            });
            chosen.sort_unstable();
            chosen.dedup();
            let rule = |ip, port| NatRule {
                ip,
                port,
                protocol,
                targets: chosen.clone(),
                sticky: spec["sessionAffinity"] == "ClientIP",
            };
            rules.extend(addresses.iter().map(|ip| rule(*ip, number)));
            if let Some(node_port) = port(&service_port["nodePort"]) {
                rules.extend(node_ips.iter().map(|ip| rule(*ip, node_port)));
            }
        }
    }
    rules.sort_by_key(|rule| (rule.ip, rule.port, rule.protocol));
    rules
}

/// Rules for the ports of this node that its pods ask for (`hostPort`): at `hostIP`, or at each of `node_ips`.
pub fn host_ports<'a>(
    pods: impl IntoIterator<Item = &'a Value>,
    node_ips: &[Ipv4Addr],
) -> Vec<NatRule> {
    let mut rules = Vec::new();
    for pod in pods {
        let ip: Option<Ipv4Addr> = pod["status"]["podIP"]
            .as_str()
            .and_then(|ip| ip.parse().ok());
        let ended = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        let Some(ip) = ip.filter(|_| !ended && pod["spec"]["hostNetwork"] != true) else {
            continue;
        };
        let containers = pod["spec"]["containers"].as_array();
        for wanted in containers
            .into_iter()
            .flatten()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        {
            let (Some(number), Some(target), Some(protocol)) = (
                port(&wanted["hostPort"]),
                port(&wanted["containerPort"]),
                protocol(&wanted["protocol"]),
            ) else {
                continue;
            };
            let at: Option<Ipv4Addr> = wanted["hostIP"].as_str().and_then(|ip| ip.parse().ok());
            let rule = |ip_of_node: &Ipv4Addr| NatRule {
                ip: *ip_of_node,
                port: number,
                protocol,
                targets: vec![SocketAddrV4::new(ip, target)],
                sticky: false,
            };
            match at.filter(|at| !at.is_unspecified()) {
                Some(at) => rules.push(rule(&at)),
                None => {
                    rules.push(rule(&Ipv4Addr::LOCALHOST));
                    rules.extend(node_ips.iter().map(rule));
                }
            }
        }
    }
    rules.sort_by_key(|rule| (rule.ip, rule.port, rule.protocol));
    rules
}

fn collect<'a>(slice: &'a Value, targets: &mut HashMap<TargetKey<'a>, Targets>) {
    let meta = &slice["metadata"];
    let service = meta["labels"]["kubernetes.io/service-name"].as_str();
    let (Some(namespace), Some(service)) = (meta["namespace"].as_str(), service) else {
        return;
    };
    if slice["addressType"]
        .as_str()
        .is_some_and(|kind| kind != "IPv4")
    {
        return;
    }
    for slice_port in slice["ports"].as_array().into_iter().flatten() {
        let (Some(number), Some(protocol)) =
            (port(&slice_port["port"]), protocol(&slice_port["protocol"]))
        else {
            continue;
        };
        let name = slice_port["name"].as_str().unwrap_or_default();
        let entry = targets
            .entry((namespace, service, name, protocol))
            .or_default();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let conditions = &endpoint["conditions"];
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            let sockets = addresses
                .filter_map(|address| address.as_str()?.parse().ok())
                .map(|ip| SocketAddrV4::new(ip, number));
            if conditions["ready"].as_bool() != Some(false) {
                entry.ready.extend(sockets);
            } else if conditions["serving"] == true && conditions["terminating"] == true {
                entry.serving.extend(sockets);
            }
        }
    }
}

/// Keeps the kernel's rules equal to what the stores say, until `token` is cancelled. `fixed` rules
/// are always there (the cluster DNS address) unless a service with endpoints claims the same.
pub async fn run(
    services: Store,
    slices: Store,
    pods: Store,
    node_ips: Vec<Ipv4Addr>,
    fixed: Vec<NatRule>,
    token: CancellationToken,
) {
    tokio::select! {
        () = token.cancelled() => return,
        () = async { services.wait_synced().await; slices.wait_synced().await; pods.wait_synced().await } => {}
    }
    let (mut service_changes, mut slice_changes) = (services.changed(), slices.changed());
    let mut pod_changes = pods.changed();
    let mut applied: Option<Vec<NatRule>> = None;
    loop {
        service_changes.mark_unchanged();
        slice_changes.mark_unchanged();
        pod_changes.mark_unchanged();
        let (all_services, all_slices) = (services.list(), slices.list());
        let mut wanted = rules(
            all_services.iter().map(AsRef::as_ref),
            all_slices.iter().map(AsRef::as_ref),
            &node_ips,
        );
        add_fixed(&mut wanted, &fixed);
        let here = pods.list();
        wanted.extend(host_ports(here.iter().map(AsRef::as_ref), &node_ips));
        let mut retry = false;
        if applied.as_ref() != Some(&wanted) {
            let rules = wanted.clone();
            match tokio::task::spawn_blocking(move || sandbox::service_nat::apply(&rules)).await {
                Ok(Ok(())) => applied = Some(wanted),
                Ok(Err(problem)) => {
                    tracing::error!(%problem, "service rules");
                    retry = true;
                }
                Err(problem) => {
                    tracing::error!(%problem, "service rules");
                    retry = true;
                }
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = service_changes.changed() => if changed.is_err() { return },
            changed = slice_changes.changed() => if changed.is_err() { return },
            changed = pod_changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_millis(500)), if retry => {}
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Adds the fixed rules whose address and port no service with endpoints has.
fn add_fixed(rules: &mut Vec<NatRule>, fixed: &[NatRule]) {
    for rule in fixed {
        let key = |rule: &NatRule| (rule.ip, rule.port, rule.protocol);
        match rules.iter_mut().find(|known| key(known) == key(rule)) {
            Some(known) if known.targets.is_empty() => known.targets.clone_from(&rule.targets),
            Some(_) => {}
            None => rules.push(rule.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(rules: &[NatRule]) -> Vec<String> {
        rules
            .iter()
            .map(|rule| {
                let targets: Vec<String> = rule.targets.iter().map(ToString::to_string).collect();
                format!(
                    "{:?} {}:{} -> {}",
                    rule.protocol,
                    rule.ip,
                    rule.port,
                    targets.join(",")
                )
            })
            .collect()
    }

    fn slice(ports: Value, endpoints: Value) -> Value {
        json!({"metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
    }

    #[test]
    fn every_address_of_a_service_leads_to_its_ready_endpoints() {
        let services = [
            json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.97.0.5",
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
                          {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "sctp", "port": 9, "protocol": "SCTP"}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}}}),
            json!({"metadata": {"namespace": "ns", "name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
            json!({"metadata": {"namespace": "ns", "name": "ext"}, "spec": {"type": "ExternalName", "externalName": "x.y"}}),
            json!({"metadata": {"namespace": "ns", "name": "nobody"}, "spec": {"clusterIP": "10.97.0.6", "ports": [{"port": 81}]}}),
        ];
        let slices = [
            slice(
                json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
                json!([{"addresses": ["10.10.0.9"], "conditions": {"ready": true}},
                       {"addresses": ["10.10.0.8"], "conditions": {}},
                       {"addresses": ["10.10.0.7"], "conditions": {"ready": false}}]),
            ),
            slice(
                json!([{"name": "http", "port": 8081}]),
                json!([{"addresses": ["10.10.0.4"], "conditions": {"ready": true}}]),
            ),
        ];
        let rules = rules(&services, &slices, &["10.10.0.1".parse().unwrap()]);
        assert_eq!(
            show(&rules),
            [
                "Tcp 10.10.0.1:30080 -> 10.10.0.4:8081,10.10.0.8:8080,10.10.0.9:8080",
                "Udp 10.97.0.5:53 -> 10.10.0.8:5353,10.10.0.9:5353",
                "Tcp 10.97.0.5:80 -> 10.10.0.4:8081,10.10.0.8:8080,10.10.0.9:8080",
                "Tcp 10.97.0.6:81 -> ",
                "Udp 203.0.113.10:53 -> 10.10.0.8:5353,10.10.0.9:5353",
                "Tcp 203.0.113.10:80 -> 10.10.0.4:8081,10.10.0.8:8080,10.10.0.9:8080",
            ]
        );
    }

    #[test]
    fn a_pod_is_reached_at_the_ports_of_its_node() {
        let pod = |name: &str, ip: &str, phase: &str, port: Value| {
            json!({"metadata": {"name": name}, "spec": {"containers": [{"ports": [port]}]},
                "status": {"podIP": ip, "phase": phase}})
        };
        let pods = [
            pod(
                "a",
                "10.10.0.4",
                "Running",
                json!({"hostPort": 9000, "containerPort": 80, "hostIP": "127.0.0.1"}),
            ),
            pod(
                "b",
                "10.10.0.5",
                "Running",
                json!({"hostPort": 9000, "containerPort": 80, "protocol": "UDP"}),
            ),
            pod(
                "c",
                "10.10.0.6",
                "Succeeded",
                json!({"hostPort": 9001, "containerPort": 80}),
            ),
            pod("d", "10.10.0.7", "Running", json!({"containerPort": 80})),
        ];
        assert_eq!(
            show(&host_ports(&pods, &["10.10.0.1".parse().unwrap()])),
            [
                "Udp 10.10.0.1:9000 -> 10.10.0.5:80",
                "Tcp 127.0.0.1:9000 -> 10.10.0.4:80",
                "Udp 127.0.0.1:9000 -> 10.10.0.5:80",
            ]
        );
    }

    #[test]
    fn ending_endpoints_serve_when_nothing_else_does() {
        let services = [
            json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"clusterIP": "10.97.0.5", "ports": [{"port": 80}]}}),
        ];
        let ending = json!({"addresses": ["10.10.0.9"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let dead = json!({"addresses": ["10.10.0.8"], "conditions": {"ready": false, "serving": false, "terminating": true}});
        let slices = [slice(json!([{"port": 80}]), json!([ending, dead]))];
        assert_eq!(
            show(&rules(&services, &slices, &[])),
            ["Tcp 10.97.0.5:80 -> 10.10.0.9:80"]
        );
    }

    #[test]
    fn the_dns_rule_is_there_before_its_service_has_endpoints() {
        let fixed = [NatRule {
            ip: "10.97.0.10".parse().unwrap(),
            port: 53,
            protocol: Protocol::Udp,
            targets: vec!["10.10.0.1:53".parse().unwrap()],
            sticky: false,
        }];
        let mut none = Vec::new();
        add_fixed(&mut none, &fixed);
        assert_eq!(show(&none), ["Udp 10.97.0.10:53 -> 10.10.0.1:53"]);
        let mut empty = vec![NatRule {
            targets: Vec::new(),
            ..fixed[0].clone()
        }];
        add_fixed(&mut empty, &fixed);
        assert_eq!(empty, fixed);
    }
}
