//! `auth.AuthorizationPoliciesAnalyzer`: policies for no workload (IST0127) and callers from unknown namespaces (IST0101).

use std::collections::BTreeMap;

use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::{pod_in_ambient_mode, pod_in_mesh};
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut pods: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
    for pod in context.each(Kind::Pod) {
        if pod_in_mesh(pod, context) || pod_in_ambient_mode(pod) {
            pods.entry(pod.namespace()).or_default().push(&pod.labels);
        }
    }
    for policy in context.each(Kind::AuthorizationPolicy) {
        workloads(context, policy, &pods);
        namespaces(context, policy);
    }
}

fn workloads(context: &mut Context<'_>, policy: &Object, pods: &BTreeMap<&str, Vec<&Labels>>) {
    let selector = labels::match_labels(&policy.spec);
    let mesh_wide = policy.namespace() == context.mesh().text("rootNamespace");
    let in_namespace = pods.get(policy.namespace()).map_or(&[][..], Vec::as_slice);
    let found = match &selector {
        None => mesh_wide || !in_namespace.is_empty(),
        Some(selector) if mesh_wide => pods
            .values()
            .flatten()
            .any(|labels| labels::selects(selector, labels)),
        Some(selector) => in_namespace
            .iter()
            .any(|labels| labels::selects(selector, labels)),
    };
    if !found {
        let text = labels::text(&selector.unwrap_or_default());
        context.report(messages::no_matching_workloads_found(policy, &text));
    }
}

fn namespaces(context: &mut Context<'_>, policy: &Object) {
    for (rule_index, rule) in policy.spec.items("rules").iter().enumerate() {
        for (from_index, from) in rule.items("from").iter().enumerate() {
            let source = from.field("source");
            for field in ["namespaces", "notNamespaces"] {
                for (index, pattern) in source.texts(field).into_iter().enumerate() {
                    let known = context
                        .each(Kind::Namespace)
                        .any(|namespace| matches(namespace.name(), pattern));
                    if !known {
                        // The line of `notNamespaces` is looked for among `namespaces`, as in Istio.
                        context.report(
                            messages::referenced_resource_not_found(policy, "namespace", pattern)
                                .at(&format!(
                                    "spec.rules[{rule_index}].from[{from_index}].source.namespaces[{index}]"
                                )),
                        );
                    }
                }
            }
        }
    }
}

fn matches(namespace: &str, pattern: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix('*') {
        return namespace.ends_with(suffix);
    }
    if let Some(prefix) = pattern.strip_suffix('*') {
        return namespace.starts_with(prefix);
    }
    namespace.eq_ignore_ascii_case(pattern)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_at_one_end_stands_for_anything() {
        assert!(matches("shop", "*"));
        assert!(matches("shop", "sh*"));
        assert!(matches("shop", "*op"));
        assert!(matches("shop", "Shop"));
        assert!(!matches("shop", "s*p"));
    }
}
