//! Pods behind a Service, and the ports they offer.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::object::{is_terminating, items, text};
use crate::pods;
use crate::selector::map_matches;

/// Pods that fit the selector, have an address and have not ended.
pub(super) fn members<'a>(
    service: &'a Value,
    pods: &'a [Arc<Value>],
) -> impl Iterator<Item = &'a Arc<Value>> {
    let selector = &service["spec"]["selector"];
    pods.iter().filter(move |pod| {
        map_matches(selector, &pod["metadata"]["labels"])
            && !pods::is_finished(pod)
            && addresses(pod).next().is_some()
    })
}

/// The addresses of a pod.
pub(super) fn addresses(pod: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    let listed = items(&pod["status"]["podIPs"])
        .iter()
        .map(|entry| &entry["ip"]);
    let single = [&pod["status"]["podIP"]]
        .into_iter()
        .filter(|_| items(&pod["status"]["podIPs"]).is_empty());
    listed
        .chain(single)
        .filter_map(|ip| ip.as_str()?.parse().ok())
}

/// The ports of a Service as this pod offers them. A named target port the pod does not have
/// is left out. Sorted by name.
pub(super) fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let mut ports: Vec<Value> = items(&service["spec"]["ports"])
        .iter()
        .filter_map(|port| {
            let number = port_number(port, pod)?;
            let mut found = json!({
                "name": text(&port["name"]),
                "port": number,
                "protocol": port["protocol"].as_str().unwrap_or("TCP"),
            });
            if let Some(protocol) = port["appProtocol"].as_str() {
                found["appProtocol"] = protocol.into();
            }
            Some(found)
        })
        .collect();
    ports.sort_by(|one, other| text(&one["name"]).cmp(text(&other["name"])));
    ports
}

fn port_number(port: &Value, pod: &Value) -> Option<i64> {
    let target = &port["targetPort"];
    let Some(name) = target.as_str() else {
        return target
            .as_i64()
            .filter(|&number| number != 0)
            .or_else(|| port["port"].as_i64());
    };
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    // Init containers that keep running (sidecars) may serve too.
    let sidecars = items(&pod["spec"]["initContainers"])
        .iter()
        .filter(|container| container["restartPolicy"] == "Always");
    items(&pod["spec"]["containers"])
        .iter()
        .chain(sidecars)
        .flat_map(|container| items(&container["ports"]))
        .find(|entry| {
            entry["name"] == name && entry["protocol"].as_str().unwrap_or("TCP") == protocol
        })
        .and_then(|entry| entry["containerPort"].as_i64())
}

/// Whether unready pods count as ready for this Service.
pub(super) fn publishes_unready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// The host name of a pod within the Service's domain.
pub(super) fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let hostname = pod["spec"]["hostname"]
        .as_str()
        .filter(|name| !name.is_empty())?;
    let fits = pod["spec"]["subdomain"] == service["metadata"]["name"];
    fits.then_some(hostname)
}

pub(super) fn target_ref(pod: &Value) -> Value {
    json!({
        "kind": "Pod",
        "namespace": api::meta::namespace(pod),
        "name": api::meta::name(pod),
        "uid": api::meta::uid(pod),
    })
}

/// (ready, serving, terminating)
pub(super) fn conditions(service: &Value, pod: &Value) -> (bool, bool, bool) {
    let serving = pods::is_ready(pod);
    let terminating = is_terminating(pod);
    let ready = publishes_unready(service) || serving && !terminating;
    (ready, serving, terminating)
}
