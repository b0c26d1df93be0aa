//! How much a pod asks for, and how much a node has left.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use serde_json::Value;

use crate::object::items;

/// Amounts by resource name: CPU in thousandths, everything else in units (bytes).
pub(super) type Amounts = BTreeMap<String, i64>;

/// What scheduling counts for a container that asks for nothing.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

fn amount(name: &str, value: &Value) -> i64 {
    let written = match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    };
    written.map_or(0, |quantity| {
        if name == "cpu" {
            quantity.millis()
        } else {
            quantity.value()
        }
    })
}

pub(super) fn amounts(map: &Value) -> Amounts {
    map.as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), amount(name, value)))
        .collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = most.entry(name.clone()).or_default();
        *known = (*known).max(*amount);
    }
}

/// What a pod asks for: all its containers together, or an init container if that asks for more
/// while the sidecars started before it run, plus overhead. `of` reads one container.
fn pod_amounts(pod: &Value, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let mut running = Amounts::new();
    for container in items(&pod["spec"]["containers"]) {
        add(&mut running, &of(container));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in items(&pod["spec"]["initContainers"]) {
        let mut while_starting = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut running, &while_starting);
            add(&mut sidecars, &while_starting);
            while_starting = sidecars.clone();
        } else {
            add(&mut while_starting, &sidecars);
        }
        raise(&mut starting, &while_starting);
    }
    raise(&mut running, &starting);
    add(&mut running, &amounts(&pod["spec"]["overhead"]));
    running
}

/// What a pod asks for.
pub(super) fn requests(pod: &Value) -> Amounts {
    pod_amounts(pod, |container| {
        amounts(&container["resources"]["requests"])
    })
}

/// What a pod is taken to need when nodes are compared: containers that ask for nothing count
/// with a small default.
pub(super) fn assumed_requests(pod: &Value) -> Amounts {
    pod_amounts(pod, |container| {
        let mut asked = amounts(&container["resources"]["requests"]);
        asked.entry("cpu".to_owned()).or_insert(DEFAULT_CPU);
        asked.entry("memory".to_owned()).or_insert(DEFAULT_MEMORY);
        asked
    })
}

/// Why a pod does not fit beside those already there; empty when it does.
pub(super) fn shortages(node: &Value, running: &[impl AsRef<Value>], pod: &Value) -> Vec<String> {
    let allocatable = amounts(&node["status"]["allocatable"]);
    let mut reasons = Vec::new();
    let places = allocatable.get("pods").copied().unwrap_or(0);
    if i64::try_from(running.len()).unwrap_or(i64::MAX) >= places {
        reasons.push("Too many pods".to_owned());
    }
    let wanted: Amounts = requests(pod)
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .collect();
    if wanted.is_empty() {
        return reasons;
    }
    let mut used = Amounts::new();
    for other in running {
        add(&mut used, &requests(other.as_ref()));
    }
    for (name, amount) in &wanted {
        let get = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(0);
        if *amount > get(&allocatable) - get(&used) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_and_sidecars() {
        let cpu = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Mi"}});
        let pod = json!({"spec": {
            "initContainers": [
                {"resources": cpu("100m"), "restartPolicy": "Always"},
                {"resources": cpu("2")},
            ],
            "containers": [{"resources": cpu("500m")}, {"resources": cpu("0.25")}],
            "overhead": {"cpu": "10m"},
        }});
        let found = requests(&pod);
        assert_eq!(found["cpu"], 2_110);
        assert_eq!(found["memory"], 3 << 20);
    }
}
