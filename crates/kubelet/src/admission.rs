//! Whether the node takes a pod that was bound to it. Somebody may bind past the scheduler, which would have known better.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use crate::quantity::milli;

/// Why a pod is not taken, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the pod's status and of the event: `OutOfcpu`, `NodePorts`.
    pub reason: String,
    /// Message of the event; the status has it behind `Pod was rejected: `.
    pub message: String,
}

/// What is counted, and of which unit: CPU in thousandths, everything else whole.
const COUNTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn amount(resource: &str, text: &str) -> i128 {
    let milli = milli(text).unwrap_or(0);
    if resource == "cpu" {
        milli
    } else {
        milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)
    }
}

fn asked(container: &Value, resource: &str) -> i128 {
    match &container["resources"]["requests"][resource] {
        Value::String(text) => amount(resource, text),
        Value::Number(number) => amount(resource, &number.to_string()),
        _ => 0,
    }
}

/// What a pod asks for: its containers together, or an init container that asks for more beside the sidecars before it.
fn requests(pod: &Value, resource: &str) -> i128 {
    let spec = &pod["spec"];
    let mut running: i128 = entries(&spec["containers"])
        .map(|c| asked(c, resource))
        .sum();
    let (mut sidecars, mut starting) = (0, 0);
    for container in entries(&spec["initContainers"]) {
        let own = asked(container, resource);
        if container["restartPolicy"] == "Always" {
            running += own;
            sidecars += own;
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(own + sidecars);
        }
    }
    let overhead = spec["overhead"][resource]
        .as_str()
        .map_or(0, |text| amount(resource, text));
    running.max(starting) + overhead
}

/// Ports on the node that a pod wants: address, protocol, number.
fn host_ports(pod: &Value) -> impl Iterator<Item = (&str, &str, i64)> {
    entries(&pod["spec"]["containers"])
        .flat_map(|container| entries(&container["ports"]))
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
            let ip = port["hostIP"]
                .as_str()
                .filter(|ip| !ip.is_empty())
                .unwrap_or("0.0.0.0");
            Some((ip, port["protocol"].as_str().unwrap_or("TCP"), number))
        })
}

fn collide(one: (&str, &str, i64), other: (&str, &str, i64)) -> bool {
    one.1 == other.1
        && one.2 == other.2
        && (one.0 == other.0 || one.0 == "0.0.0.0" || other.0 == "0.0.0.0")
}

/// Judges a pod beside those that were taken before it and have not ended.
///
/// # Errors
/// Why it is not taken.
pub fn admit(
    pod: &Value,
    others: &[&Value],
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<(), Refusal> {
    let short = |resource: &str, requested: i128, used: i128, capacity: i128| Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let capacity = |resource: &str| {
        allocatable
            .get(resource)
            .map(|quantity| amount(resource, &quantity.0))
    };
    let count = i128::try_from(others.len()).unwrap_or(i128::MAX);
    if let Some(places) = capacity("pods").filter(|places| count + 1 > *places) {
        return Err(short("pods", 1, count, places));
    }
    for resource in COUNTED {
        let requested = requests(pod, resource);
        let Some(capacity) = capacity(resource).filter(|_| requested > 0) else {
            continue;
        };
        let used: i128 = others.iter().map(|other| requests(other, resource)).sum();
        if requested + used > capacity {
            return Err(short(resource, requested, used, capacity));
        }
    }
    let taken = |port| {
        others
            .iter()
            .any(|other| host_ports(other).any(|there| collide(port, there)))
    };
    if host_ports(pod).any(taken) {
        return Err(Refusal {
            reason: "NodePorts".to_owned(),
            message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> BTreeMap<String, Quantity> {
        [("cpu", "2"), ("memory", "1Gi"), ("pods", "3")]
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .into()
    }

    fn pod(cpu: &str, port: i64) -> Value {
        json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}, "ports": [{"hostPort": port, "protocol": "TCP"}]}]}})
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_kubelets_words() {
        let (small, big) = (pod("500m", 0), pod("1800m", 0));
        assert_eq!(admit(&small, &[], &node()), Ok(()));
        assert_eq!(
            admit(&big, &[&small], &node()).unwrap_err(),
            Refusal {
                reason: "OutOfcpu".into(),
                message: "Node didn't have enough resource: cpu, requested: 1800, used: 500, capacity: 2000".into(),
            }
        );
        assert_eq!(
            admit(&small, &[&small, &small, &small], &node())
                .unwrap_err()
                .reason,
            "OutOfpods"
        );
        assert_eq!(
            admit(&pod("0", 80), &[&pod("0", 80)], &node())
                .unwrap_err()
                .reason,
            "NodePorts"
        );
        assert_eq!(admit(&pod("0", 80), &[&pod("0", 81)], &node()), Ok(()));
    }

    #[test]
    fn a_pod_that_asks_for_nothing_is_taken_on_a_full_node() {
        assert_eq!(
            admit(
                &json!({"spec": {"containers": [{}]}}),
                &[&pod("2", 0)],
                &node()
            ),
            Ok(())
        );
    }
}
