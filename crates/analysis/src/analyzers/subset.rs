//! `destinationrule.SubsetSelectPodAnalyzer`: rules for unknown hosts (IST0174) and subsets without pods (IST0173).

use std::collections::BTreeMap;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::messages;
use crate::object::Object;
use crate::services::Hosts;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let hosts = Hosts::of(context);
    let nodes: BTreeMap<&str, &Labels> = context
        .each(Kind::Node)
        .map(|node| (node.name(), &node.labels))
        .collect();
    let pods: Vec<Labels> = context
        .each(Kind::Pod)
        .map(|pod| with_locality(pod, &nodes))
        .collect();
    for rule in context.each(Kind::DestinationRule) {
        let host = rule.spec.text("host");
        let Some(target) = hosts.find(rule.namespace(), &rule.spec.texts("exportTo"), host) else {
            context.report(messages::unknown_destination_rule_host(rule, host));
            continue;
        };
        // Of two subsets with one name the later counts.
        let subsets: BTreeMap<&str, Labels> = rule
            .spec
            .items("subsets")
            .iter()
            .map(|subset| {
                let mut selector = target.selector.clone();
                selector.extend(subset.texts_by_key("labels"));
                (subset.text("name"), selector)
            })
            .collect();
        for (name, selector) in subsets {
            if !pods.iter().any(|pod| labels::selects(&selector, pod)) {
                context.report(messages::destination_rule_subset_not_select_pods(
                    rule, name,
                ));
            }
        }
    }
}

/// The labels of a pod with those of its place that the mesh adds.
fn with_locality(pod: &Object, nodes: &BTreeMap<&str, &Labels>) -> Labels {
    let mut labels = pod.labels.clone();
    let node = pod.spec.text("nodeName");
    if node.is_empty() {
        return labels;
    }
    labels.insert(HOSTNAME.to_owned(), node.to_owned());
    if let Some(of_node) = nodes.get(node) {
        // A zone without region, or a part of a zone without zone, is no locality.
        for name in [REGION, ZONE, SUBZONE] {
            match of_node.get(name) {
                Some(value) if !value.is_empty() => {
                    labels.insert(name.to_owned(), value.clone());
                }
                _ if name == REGION => {}
                _ => break,
            }
        }
    }
    labels
}
