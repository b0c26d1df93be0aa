//! The older Endpoints objects: one per Service, addresses grouped by ports.

use std::collections::{BTreeMap, BTreeSet};

use kube_client::ENDPOINTS;
use serde_json::{Map, Value, json};

use super::{HEADLESS, Observed, create, is_headless, members};
use crate::action::Action;
use crate::object::{is_terminating, merge_patch, text};

/// An address in the order it is listed: by address, then by pod.
type Member = (std::net::IpAddr, String);

#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Members {
    ready: BTreeSet<Member>,
    unready: BTreeSet<Member>,
}

pub(super) fn reconcile(service: &Value, observed: &Observed) -> Option<Action> {
    let subsets = subsets(service, observed);
    let labels = labels(service);
    let Some(present) = &observed.endpoints else {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": api::meta::name(service),
                "namespace": api::meta::namespace(service),
                "labels": labels,
            },
        });
        if !subsets.is_empty() {
            object["subsets"] = subsets.into();
        }
        return Some(create(ENDPOINTS, object));
    };
    let mut patch = Map::new();
    if crate::object::items(&present["subsets"]) != subsets {
        let value = if subsets.is_empty() {
            Value::Null
        } else {
            subsets.into()
        };
        patch.insert("subsets".to_owned(), value);
    }
    let mut metadata = Map::new();
    if let Some(change) = merge_patch(&present["metadata"]["labels"], &labels)
        && !(present["metadata"]["labels"].is_null()
            && labels.as_object().is_some_and(Map::is_empty))
    {
        metadata.insert("labels".to_owned(), change);
    }
    if patch.is_empty() && metadata.is_empty() {
        return None;
    }
    metadata.insert(
        "resourceVersion".to_owned(),
        api::meta::resource_version(present).into(),
    );
    patch.insert("metadata".to_owned(), metadata.into());
    Some(Action::patch(ENDPOINTS, present, patch.into()))
}

fn labels(service: &Value) -> Value {
    let mut labels: Map<String, Value> = api::meta::labels(service)
        .filter(|(key, _)| *key != HEADLESS)
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), "".into());
    }
    labels.into()
}

fn subsets(service: &Value, observed: &Observed) -> Vec<Value> {
    let unready_too = members::publishes_unready(service);
    let mut addresses: BTreeMap<Member, Value> = BTreeMap::new();
    // Port (as text, ordered by name) to members.
    let mut by_port: BTreeMap<(String, String), (Option<Value>, Members)> = BTreeMap::new();
    for pod in members::members(service, &observed.pods) {
        if is_terminating(pod) && !unready_too {
            continue;
        }
        let Some(ip) = members::addresses(pod).next() else {
            continue;
        };
        let member = (ip, api::meta::uid(pod).to_owned());
        let mut ports: Vec<Option<Value>> =
            members::ports(service, pod).into_iter().map(Some).collect();
        if crate::object::items(&service["spec"]["ports"]).is_empty() && is_headless(service) {
            ports.push(None);
        }
        let ready = unready_too || crate::pods::is_ready(pod);
        for port in ports {
            let key = port.as_ref().map_or_else(Default::default, |port| {
                (text(&port["name"]).to_owned(), port.to_string())
            });
            let (_, members) = by_port
                .entry(key)
                .or_insert_with(|| (port, Members::default()));
            if ready {
                &mut members.ready
            } else {
                &mut members.unready
            }
            .insert(member.clone());
        }
        addresses.insert(member, address(service, pod, ip));
    }
    // Ports with the same members share a subset.
    let mut subsets: Vec<(Members, Vec<Value>)> = Vec::new();
    for (port, members) in by_port.into_values() {
        match subsets.iter_mut().find(|(known, _)| *known == members) {
            Some((_, ports)) => ports.extend(port),
            None => subsets.push((members, port.into_iter().collect())),
        }
    }
    subsets
        .into_iter()
        .map(|(members, ports)| subset(&addresses, &members, ports))
        .collect()
}

fn subset(addresses: &BTreeMap<Member, Value>, members: &Members, ports: Vec<Value>) -> Value {
    let list = |members: &BTreeSet<Member>| -> Vec<Value> {
        members
            .iter()
            .filter_map(|member| addresses.get(member).cloned())
            .collect()
    };
    let mut subset = Map::new();
    for (field, found) in [
        ("addresses", list(&members.ready)),
        ("notReadyAddresses", list(&members.unready)),
    ] {
        if !found.is_empty() {
            subset.insert(field.to_owned(), found.into());
        }
    }
    if !ports.is_empty() {
        let ports: Vec<Value> = ports.into_iter().map(crate::object::omit_empty).collect();
        subset.insert("ports".to_owned(), ports.into());
    }
    subset.into()
}

fn address(service: &Value, pod: &Value, ip: std::net::IpAddr) -> Value {
    let mut address = json!({"ip": ip.to_string(), "targetRef": members::target_ref(pod)});
    if let Some(hostname) = members::hostname(service, pod) {
        address["hostname"] = hostname.into();
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str() {
        address["nodeName"] = node.into();
    }
    address
}
