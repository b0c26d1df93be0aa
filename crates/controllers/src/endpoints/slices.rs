//! EndpointSlices: at most a hundred endpoints each, one set of ports each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube_client::ENDPOINT_SLICES;
use serde_json::{Map, Value, json};

use super::{HEADLESS, Observed, SERVICE_NAME, create, is_headless, members};
use crate::action::Action;
use crate::object::{items, merge_patch, text};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OWN_NAME: &str = "endpointslice-controller.k8s.io";
/// Most endpoints in one slice.
const FULL: usize = 100;

/// Slices as they should be, before they are cut to size.
pub(super) struct Wanted<'a> {
    /// The object they belong to and are named after.
    pub(super) owner: &'a Value,
    /// Name of the Service.
    pub(super) service: &'a str,
    /// The component that manages them.
    pub(super) managed_by: &'static str,
    /// Further labels.
    pub(super) labels: Map<String, Value>,
    /// `IPv4` or `IPv6`.
    pub(super) family: &'static str,
    /// Endpoints by their ports (as canonical text).
    pub(super) groups: BTreeMap<String, Group>,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) ports: Vec<Value>,
    pub(super) endpoints: Vec<Value>,
}

/// What a slice (`None`: a new one) shall hold.
type Content<'a> = (Option<&'a Arc<Value>>, &'a Group, Vec<Value>);

impl Wanted<'_> {
    pub(super) fn add(&mut self, ports: Vec<Value>, endpoint: Value) {
        let key = Value::Array(ports.clone()).to_string();
        let group = self.groups.entry(key).or_insert_with(|| Group {
            ports,
            ..Group::default()
        });
        group.endpoints.push(endpoint);
    }
}

pub(super) fn of_service(service: &Value, observed: &Observed) -> Vec<Action> {
    let families = match items(&service["spec"]["ipFamilies"]) {
        [] => vec!["IPv4"],
        list => list
            .iter()
            .map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" })
            .collect(),
    };
    families
        .into_iter()
        .flat_map(|family| {
            let mut wanted = Wanted {
                owner: service,
                service: api::meta::name(service),
                managed_by: OWN_NAME,
                labels: labels(service),
                family,
                groups: BTreeMap::new(),
            };
            for pod in members::members(service, &observed.pods) {
                let Some(address) = members::addresses(pod).find(|ip| family_of(ip) == family)
                else {
                    continue;
                };
                wanted.add(
                    members::ports(service, pod),
                    endpoint(service, pod, address, observed),
                );
            }
            wanted.actions(&observed.slices)
        })
        .collect()
}

pub(super) fn family_of(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn labels(service: &Value) -> Map<String, Value> {
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let mut labels: Map<String, Value> = api::meta::labels(service)
        .filter(|(key, _)| !reserved.contains(key))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), "".into());
    }
    labels
}

fn endpoint(service: &Value, pod: &Value, address: IpAddr, observed: &Observed) -> Value {
    let (ready, serving, terminating) = members::conditions(service, pod);
    let node = text(&pod["spec"]["nodeName"]);
    let mut endpoint = json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": members::target_ref(pod),
    });
    if let Some(hostname) = members::hostname(service, pod) {
        endpoint["hostname"] = hostname.into();
    }
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
    }
    if let Some(zone) = observed.zones.get(node) {
        endpoint["zone"] = zone.as_str().into();
    }
    endpoint
}

impl Wanted<'_> {
    /// What turns the present slices into the wanted ones. Endpoints stay in the slice they are
    /// in; slices that are no longer needed are filled anew before any is created.
    pub(super) fn actions(mut self, all: &[Arc<Value>]) -> Vec<Action> {
        let mut present: Vec<&Arc<Value>> = all
            .iter()
            .filter(|slice| {
                api::meta::label(slice, SERVICE_NAME) == Some(self.service)
                    && api::meta::label(slice, MANAGED_BY) == Some(self.managed_by)
                    && slice["addressType"] == self.family
                    && !crate::object::is_terminating(slice)
            })
            .collect();
        if self.groups.is_empty() {
            // One empty slice says that the Service is known and has nobody.
            self.groups.insert(String::new(), Group::default());
        }
        let mut contents: Vec<Content<'_>> = Vec::new();
        let mut unplaced: Vec<(&Group, Vec<Value>)> = Vec::new();
        for group in self.groups.values() {
            let mut left = group.endpoints.clone();
            let (same, other): (Vec<_>, Vec<_>) = present
                .iter()
                .copied()
                .partition(|slice| same_ports(&slice["ports"], &group.ports));
            present = other;
            let first = contents.len();
            for slice in same {
                let kept = take_known(&mut left, items(&slice["endpoints"]));
                contents.push((Some(slice), group, kept));
            }
            for (_, _, endpoints) in &mut contents[first..] {
                let room = FULL.saturating_sub(endpoints.len()).min(left.len());
                endpoints.extend(left.drain(..room));
            }
            if !left.is_empty() || contents.len() == first {
                unplaced.push((group, left));
            }
        }
        for (group, left) in unplaced {
            let mut chunks: Vec<Vec<Value>> = left.chunks(FULL).map(<[Value]>::to_vec).collect();
            if chunks.is_empty() {
                chunks.push(Vec::new());
            }
            for chunk in chunks {
                contents.push((present.pop(), group, chunk));
            }
        }
        let mut actions = Vec::new();
        let mut kept_one = contents
            .iter()
            .any(|(_, _, endpoints)| !endpoints.is_empty());
        for (slice, group, endpoints) in contents {
            match slice {
                Some(slice) if endpoints.is_empty() && kept_one => {
                    actions.push(Action::delete(ENDPOINT_SLICES, slice));
                }
                Some(slice) => {
                    kept_one = true;
                    actions.extend(self.update(slice, group, endpoints));
                }
                None => {
                    kept_one = true;
                    actions.push(create(ENDPOINT_SLICES, self.object(group, endpoints)));
                }
            }
        }
        actions.extend(
            present
                .into_iter()
                .map(|slice| Action::delete(ENDPOINT_SLICES, slice)),
        );
        actions
    }

    fn all_labels(&self) -> Value {
        let mut labels = self.labels.clone();
        labels.insert(SERVICE_NAME.to_owned(), self.service.into());
        labels.insert(MANAGED_BY.to_owned(), self.managed_by.into());
        labels.into()
    }

    fn object(&self, group: &Group, endpoints: Vec<Value>) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{}-", api::meta::name(self.owner)),
                "namespace": api::meta::namespace(self.owner),
                "labels": self.all_labels(),
                "ownerReferences": [api::meta::controller_ref(self.owner)],
            },
            "addressType": self.family,
            "endpoints": endpoints,
            "ports": group.ports,
        })
    }

    fn update(&self, slice: &Value, group: &Group, endpoints: Vec<Value>) -> Option<Action> {
        let mut patch = Map::new();
        if !same_endpoints(items(&slice["endpoints"]), &endpoints) {
            patch.insert("endpoints".to_owned(), endpoints.into());
        }
        if !same_ports(&slice["ports"], &group.ports) {
            patch.insert("ports".to_owned(), group.ports.clone().into());
        }
        let mut metadata = Map::new();
        if let Some(labels) = merge_patch(&slice["metadata"]["labels"], &self.all_labels()) {
            metadata.insert("labels".to_owned(), labels);
        }
        if patch.is_empty() && metadata.is_empty() {
            return None;
        }
        metadata.insert(
            "resourceVersion".to_owned(),
            api::meta::resource_version(slice).into(),
        );
        patch.insert("metadata".to_owned(), metadata.into());
        Some(Action::patch(ENDPOINT_SLICES, slice, patch.into()))
    }
}

/// Takes out of `left` the endpoints that `present` already has, in that order, in their new
/// state.
fn take_known(left: &mut Vec<Value>, present: &[Value]) -> Vec<Value> {
    present
        .iter()
        .filter_map(|known| {
            let at = left.iter().position(|endpoint| {
                endpoint["addresses"] == known["addresses"]
                    && endpoint["targetRef"]["uid"] == known["targetRef"]["uid"]
            })?;
            Some(left.remove(at))
        })
        .collect()
}

fn same_ports(present: &Value, wanted: &[Value]) -> bool {
    let present = items(present);
    present.len() == wanted.len()
        && wanted
            .iter()
            .all(|port| present.iter().any(|known| known == port))
}

fn same_endpoints(present: &[Value], wanted: &[Value]) -> bool {
    present.len() == wanted.len()
        && wanted
            .iter()
            .all(|endpoint| present.iter().any(|known| known == endpoint))
}
