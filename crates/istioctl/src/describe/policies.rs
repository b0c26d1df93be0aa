//! Mutual TLS and access rules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Report, contains};
use crate::dump::{Dump, list, text};

/// The mode of mutual TLS that is in force for a pod, and from where. `all`: of the root namespace, then of the pod's.
pub(super) fn peer_authentication(report: &mut Report, all: &[Value], labels: &Value, root: &str) {
    let applied: Vec<&Value> = all
        .iter()
        .filter(|policy| contains(labels, &policy["spec"]["selector"]["matchLabels"]))
        .collect();
    fn mode(policy: &Value) -> Option<&str> {
        policy["spec"]["mtls"]["mode"]
            .as_str()
            .filter(|mode| *mode != "UNSET")
    }
    let selects = |policy: &Value| {
        policy["spec"]["selector"]["matchLabels"]
            .as_object()
            .is_some_and(|labels| !labels.is_empty())
    };
    // The oldest of each level counts; a level that leaves the mode open has that of the one above.
    let oldest = |level: &dyn Fn(&Value) -> bool| {
        applied
            .iter()
            .filter(|policy| level(policy))
            .min_by_key(|policy| {
                policy["metadata"]["creationTimestamp"]
                    .as_str()
                    .unwrap_or_default()
            })
    };
    let in_root = |policy: &Value| api::meta::namespace(policy) == root;
    let mesh = oldest(&|policy| !selects(policy) && in_root(policy));
    let namespace = oldest(&|policy| !selects(policy) && !in_root(policy));
    let workload = oldest(&|policy| selects(policy) && !in_root(policy));
    let levels = [workload, namespace, mesh];
    let effective = levels
        .iter()
        .flatten()
        .find_map(|policy| mode(policy))
        .unwrap_or("PERMISSIVE");
    report.line(0, "Effective PeerAuthentication:");
    report.line(3, &format!("Workload mTLS mode: {effective}"));
    let ports: BTreeMap<u64, &str> = workload
        .into_iter()
        .flat_map(|policy| policy["spec"]["portLevelMtls"].as_object())
        .flatten()
        .filter_map(|(port, setting)| {
            let mode = setting["mode"]
                .as_str()
                .filter(|mode| *mode != "UNSET")
                .unwrap_or(effective);
            Some((port.parse().ok()?, mode))
        })
        .collect();
    if !ports.is_empty() {
        report.line(3, "Port Level mTLS mode:");
        for (port, mode) in ports {
            report.line(6, &format!("{port}: {mode}"));
        }
    }
    if !applied.is_empty() {
        report.line(0, "Applied PeerAuthentication:");
        let names: Vec<String> = applied
            .iter()
            .map(|policy| {
                format!(
                    "{}.{}",
                    api::meta::name(policy),
                    api::meta::namespace(policy)
                )
            })
            .collect();
        report.line(3, &names.join(", "));
    }
}

/// Names of the access rules for requests that come in.
pub(super) fn rbac(dump: &Dump) -> Vec<String> {
    let Ok(section) = dump.section("ListenersConfigDump") else {
        return Vec::new();
    };
    let manager = list(section, "dynamic_listeners")
        .iter()
        .map(|entry| &entry["active_state"]["listener"])
        .filter(|listener| listener["name"] == "virtualInbound")
        .flat_map(|listener| list(listener, "filter_chains"))
        .flat_map(|chain| list(chain, "filters"))
        .map(|filter| &filter["typed_config"])
        .find(|config| text(config, "@type").ends_with(".HttpConnectionManager"));
    manager
        .into_iter()
        .flat_map(|manager| list(manager, "http_filters"))
        .find(|filter| filter["name"] == "envoy.filters.http.rbac")
        .and_then(|filter| filter["typed_config"]["rules"]["policies"].as_object())
        .map(|policies| policies.keys().cloned().collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_nearest_mode_is_in_force() {
        let policy = |name: &str, namespace: &str, spec: Value| json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        let seen = |policies: &[Value]| {
            let mut report = Report {
                text: String::new(),
                namespace: "n".into(),
            };
            peer_authentication(&mut report, policies, &json!({"app": "a"}), "root");
            report.text
        };
        assert_eq!(
            seen(&[]),
            "Effective PeerAuthentication:\n   Workload mTLS mode: PERMISSIVE\n"
        );
        let mesh = policy("m", "root", json!({"mtls": {"mode": "STRICT"}}));
        let other = policy(
            "o",
            "n",
            json!({"selector": {"matchLabels": {"app": "b"}}, "mtls": {"mode": "DISABLE"}}),
        );
        let own = policy(
            "w",
            "n",
            json!({"selector": {"matchLabels": {"app": "a"}},
            "portLevelMtls": {"80": {"mode": "DISABLE"}}}),
        );
        assert_eq!(
            seen(&[mesh, other, own]),
            "Effective PeerAuthentication:\n   Workload mTLS mode: STRICT\n   Port Level mTLS mode:\n      80: DISABLE\n\
             Applied PeerAuthentication:\n   m.root, w.n\n"
        );
    }
}
