//! `telemetry.DefaultSelectorAnalyzer`: several Telemetries for all workloads of a namespace (IST0160).

use std::collections::BTreeMap;

use super::names;
use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut namespaces: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for telemetry in context.each(Kind::Telemetry) {
        if !telemetry.spec.has("selector") {
            namespaces
                .entry(telemetry.namespace())
                .or_default()
                .push(telemetry);
        }
    }
    for (namespace, telemetries) in namespaces {
        if telemetries.len() > 1 {
            let all = names(&telemetries);
            for telemetry in telemetries {
                context.report(messages::multiple_telemetries_without_workload_selectors(
                    telemetry, &all, namespace,
                ));
            }
        }
    }
}
