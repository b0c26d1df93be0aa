//! Services without a selector: what a person wrote into an Endpoints object is mirrored
//! into EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::slices::{Wanted, family_of};
use super::{HEADLESS, Observed};
use crate::action::Action;
use crate::object::{items, text};

const OWN_NAME: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints that take care of their own slices.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are used as a lock, not as addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

pub(super) fn reconcile(service: &Value, observed: &Observed) -> Vec<Action> {
    let Some(endpoints) = &observed.endpoints else {
        return Vec::new();
    };
    if api::meta::label(endpoints, SKIP) == Some("true")
        || api::meta::annotation(endpoints, LEADER).is_some()
    {
        return Vec::new();
    }
    let labels: Map<String, Value> = api::meta::labels(endpoints)
        .filter(|(key, _)| *key != HEADLESS)
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    ["IPv4", "IPv6"]
        .into_iter()
        .flat_map(|family| {
            let mut wanted = Wanted {
                owner: endpoints,
                service: api::meta::name(service),
                managed_by: OWN_NAME,
                labels: labels.clone(),
                family,
                groups: BTreeMap::new(),
            };
            for subset in items(&endpoints["subsets"]) {
                let mut ports = items(&subset["ports"]).to_vec();
                for port in &mut ports {
                    if port["name"].is_null() {
                        port["name"] = "".into();
                    }
                }
                for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                    for address in items(&subset[field]) {
                        let ip: Option<IpAddr> = text(&address["ip"]).parse().ok();
                        if ip.is_some_and(|ip| family_of(&ip) == family) {
                            wanted.add(ports.clone(), endpoint(address, ready));
                        }
                    }
                }
            }
            // No placeholder here: an empty family needs no slice.
            let empty = wanted.groups.is_empty();
            let mut actions = wanted.actions(&observed.slices);
            if empty {
                actions.retain(|action| !matches!(action.verb, crate::action::Verb::Create(_)));
            }
            actions
        })
        .collect()
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}
