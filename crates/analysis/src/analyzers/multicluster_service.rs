//! `services.MultiClusterServiceAnalyzer`: services that are not the same in all clusters (IST0170).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::multi_service::target_port;
use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut services: BTreeMap<(&str, &str), BTreeMap<&str, &Object>> = BTreeMap::new();
    for service in context.each(Kind::Service) {
        services
            .entry((service.namespace(), service.name()))
            .or_default()
            .insert(&service.origin.cluster, service);
    }
    for ((namespace, name), clusters) in services {
        let Some((first, service)) = clusters.first_key_value() else {
            continue;
        };
        let mut inconsistent: BTreeSet<String> = BTreeSet::new();
        let mut reasons: BTreeSet<&str> = BTreeSet::new();
        for (cluster, other) in &clusters {
            if is_headless(&service.spec) != is_headless(&other.spec) {
                inconsistent.extend(clusters.keys().map(|cluster| (*cluster).to_owned()));
                reasons.insert("service has mixed mode like headless and clusterIP");
            }
            if service.spec.text("type") != other.spec.text("type") {
                inconsistent.insert((*cluster).to_owned());
                reasons.insert("service type is inconsistent");
            }
            if ports(&service.spec) != ports(&other.spec) {
                inconsistent.insert((*cluster).to_owned());
                reasons.insert("service ports are inconsistent");
            }
        }
        if !inconsistent.is_empty() {
            inconsistent.insert((*first).to_owned());
            let inconsistent: Vec<String> = inconsistent.into_iter().collect();
            let reasons: Vec<&str> = reasons.into_iter().collect();
            context.report(messages::multi_cluster_inconsistent_service(
                service,
                name,
                namespace,
                &inconsistent,
                &reasons.join("; "),
            ));
        }
    }
}

fn is_headless(spec: &Value) -> bool {
    spec.text("clusterIP") == "None"
}

/// Everything that two services must have in common, in the order of the names.
fn ports(spec: &Value) -> Vec<(&str, &str, &str, i64, String, i64)> {
    let mut ports: Vec<_> = spec
        .items("ports")
        .iter()
        .map(|port| {
            (
                port.text("name"),
                port.text("protocol"),
                port.text("appProtocol"),
                port.number("port"),
                target_port(port),
                port.number("nodePort"),
            )
        })
        .collect();
    ports.sort_by_key(|port| port.0);
    ports
}
