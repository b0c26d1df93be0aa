//! Whether a pod may run on a node, and if not, why: in the words of kube-scheduler.

use std::sync::Arc;

use serde_json::Value;

use super::affinity::{self, PodRule};
use super::{NodeInfo, Snapshot, resources, taints, volumes};
use crate::object::{items, text};

/// Why a node cannot take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// One or more reasons of the first rule that is broken.
    pub reasons: Vec<String>,
    /// Whether the pod could run here if others went away.
    pub resolvable: bool,
}

impl Rejection {
    fn for_good(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
            resolvable: false,
        }
    }

    fn for_now(reasons: Vec<String>) -> Self {
        Self {
            reasons,
            resolvable: true,
        }
    }
}

/// Applies the rules in the order of kube-scheduler; the first that is broken counts.
///
/// # Errors
/// Why the node cannot take the pod.
pub fn filter(pod: &Value, info: &NodeInfo, snapshot: &Snapshot) -> Result<(), Rejection> {
    let node = &info.node;
    if let Some(names) = affinity::named_nodes(pod)
        && !names.contains(&api::meta::name(node))
    {
        return Err(Rejection::for_good(
            "node(s) didn't satisfy plugin(s) [NodeAffinity]",
        ));
    }
    unschedulable(pod, node)?;
    let wanted = text(&pod["spec"]["nodeName"]);
    if !wanted.is_empty() && wanted != api::meta::name(node) {
        return Err(Rejection::for_good(
            "node(s) didn't match the requested node name",
        ));
    }
    if let Some(taint) = taints::untolerated(node, pod, &["NoSchedule", "NoExecute"]) {
        let (key, value) = (text(&taint["key"]), text(&taint["value"]));
        return Err(Rejection::for_good(format!(
            "node(s) had untolerated taint {{{key}: {value}}}"
        )));
    }
    if !affinity::fits_node(pod, node) {
        return Err(Rejection::for_good(
            "node(s) didn't match Pod's node affinity/selector",
        ));
    }
    if ports_taken(pod, &info.pods) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::for_now(vec![reason.to_owned()]));
    }
    if let Some(reason) = volumes::conflict(pod, node, &snapshot.storage) {
        return Err(Rejection::for_good(reason));
    }
    let shortages = resources::shortages(node, &info.pods, pod);
    if !shortages.is_empty() {
        return Err(Rejection::for_now(shortages));
    }
    match affinity::forbidden_by(pod, info, snapshot) {
        None => Ok(()),
        Some(PodRule::Affinity) => Err(Rejection::for_good(
            "node(s) didn't match pod affinity rules",
        )),
        Some(PodRule::AntiAffinity) => Err(Rejection::for_now(vec![
            "node(s) didn't match pod anti-affinity rules".to_owned(),
        ])),
        Some(PodRule::ExistingAntiAffinity) => Err(Rejection::for_now(vec![
            "node(s) didn't satisfy existing pods anti-affinity rules".to_owned(),
        ])),
    }
}

fn unschedulable(pod: &Value, node: &Value) -> Result<(), Rejection> {
    let taint =
        serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !taints::tolerates(pod, &taint) {
        return Err(Rejection::for_good("node(s) were unschedulable"));
    }
    Ok(())
}

/// Whether a host port the pod wants is taken. A port on all addresses collides with the same
/// port on any.
fn ports_taken(pod: &Value, running: &[Arc<Value>]) -> bool {
    let wanted: Vec<_> = host_ports(pod).collect();
    !wanted.is_empty()
        && running
            .iter()
            .flat_map(|other| host_ports(other))
            .any(|(ip, protocol, port)| {
                wanted
                    .iter()
                    .any(|&(wanted_ip, wanted_protocol, wanted_port)| {
                        port == wanted_port
                            && protocol == wanted_protocol
                            && (ip == wanted_ip || ip == "0.0.0.0" || wanted_ip == "0.0.0.0")
                    })
            })
}

fn host_ports(pod: &Value) -> impl Iterator<Item = (&str, &str, i64)> {
    items(&pod["spec"]["containers"])
        .iter()
        .flat_map(|container| items(&container["ports"]))
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().filter(|&number| number > 0)?;
            let ip = port["hostIP"]
                .as_str()
                .filter(|ip| !ip.is_empty())
                .unwrap_or("0.0.0.0");
            Some((ip, port["protocol"].as_str().unwrap_or("TCP"), number))
        })
}
