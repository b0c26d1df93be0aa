//! `sidecar.SelectorAnalyzer`: Sidecars for no pod, or several for one (IST0101, IST0110, IST0111, IST0167).

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::{namespace_in_ambient_mode, pod_in_ambient_mode};
use crate::kind::Kind;
use crate::labels;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut of_pods: BTreeMap<(&str, &str), (&Object, Vec<&Object>)> = BTreeMap::new();
    let mut of_namespaces: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for sidecar in context.each(Kind::Sidecar) {
        let selector = sidecar
            .spec
            .field("workloadSelector")
            .texts_by_key("labels");
        if selector.is_empty() {
            of_namespaces
                .entry(sidecar.namespace())
                .or_default()
                .push(sidecar);
            continue;
        }
        let mut found = false;
        for pod in context.each(Kind::Pod) {
            if pod.namespace() == sidecar.namespace() && labels::selects(&selector, &pod.labels) {
                found = true;
                let (_, sidecars) = of_pods
                    .entry((pod.namespace(), pod.name()))
                    .or_insert((pod, Vec::new()));
                sidecars.push(sidecar);
            }
        }
        if !found {
            context.report(
                messages::referenced_resource_not_found(
                    sidecar,
                    "selector",
                    &labels::text(&selector),
                )
                .at(&format!(
                    "spec.workloadSelector.labels.{}",
                    labels::first(&selector)
                )),
            );
        }
    }
    // Without effect is told once.
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (pod, sidecars) in of_pods.into_values() {
        let all = names(&sidecars);
        for sidecar in &sidecars {
            if pod_in_ambient_mode(pod) {
                if told.insert(sidecar.full_name()) {
                    context.report(messages::ineffective_policy(
                        sidecar,
                        "selected workload is in ambient mode, the policy has no impact",
                    ));
                }
            } else if sidecars.len() > 1 {
                context.report(
                    messages::conflicting_sidecar_workload_selectors(
                        sidecar,
                        &all,
                        pod.namespace(),
                        pod.name(),
                    )
                    .at("metadata.name"),
                );
            }
        }
    }
    for (namespace, sidecars) in of_namespaces {
        let ambient = context
            .store
            .find(Kind::Namespace, "", namespace)
            .is_some_and(namespace_in_ambient_mode);
        let all = names(&sidecars);
        for sidecar in &sidecars {
            if ambient {
                if told.insert(sidecar.full_name()) {
                    context.report(messages::ineffective_policy(
                        sidecar,
                        "namespace is in ambient mode, the policy has no impact",
                    ));
                }
            } else if sidecars.len() > 1 {
                context.report(messages::multiple_sidecars_without_workload_selectors(
                    sidecar, &all, namespace,
                ));
            }
        }
    }
}
