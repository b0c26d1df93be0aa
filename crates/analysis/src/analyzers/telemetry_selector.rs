//! `telemetry.SelectorAnalyzer`: Telemetries for no pod, or several for one (IST0101, IST0159).

use std::collections::BTreeMap;

use super::names;
use crate::context::Context;
use crate::kind::Kind;
use crate::labels;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut of_pods: BTreeMap<(&str, &str), Vec<&Object>> = BTreeMap::new();
    for telemetry in context.each(Kind::Telemetry) {
        let selector = labels::match_labels(&telemetry.spec).unwrap_or_default();
        if selector.is_empty() {
            continue;
        }
        let mut found = false;
        for pod in context.each(Kind::Pod) {
            if pod.namespace() == telemetry.namespace() && labels::selects(&selector, &pod.labels) {
                found = true;
                of_pods
                    .entry((pod.namespace(), pod.name()))
                    .or_default()
                    .push(telemetry);
            }
        }
        if !found {
            context.report(
                messages::referenced_resource_not_found(
                    telemetry,
                    "selector",
                    &labels::text(&selector),
                )
                .at(&format!(
                    "spec.selector.matchLabels.{}",
                    labels::first(&selector)
                )),
            );
        }
    }
    for ((namespace, pod), telemetries) in of_pods {
        if telemetries.len() > 1 {
            let all = names(&telemetries);
            for telemetry in telemetries {
                context.report(
                    messages::conflicting_telemetry_workload_selectors(
                        telemetry, &all, namespace, pod,
                    )
                    .at("metadata.name"),
                );
            }
        }
    }
}
