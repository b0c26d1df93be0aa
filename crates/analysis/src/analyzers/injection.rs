//! `injection.Analyzer`: namespaces without a decision about sidecars, and pods without the sidecar they should have (IST0102, IST0103,
//! IST0123, IST0148).

use std::collections::BTreeSet;

use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::{
    DATAPLANE_MODE_LABEL, INJECT, INJECTION_LABEL, PROXY, REVISION_LABEL, all_containers,
};
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    // Stays as the last injector that was found says, as in Istio.
    let mut by_default = false;
    let mut injected: BTreeSet<&str> = BTreeSet::new();
    for namespace in context.each(Kind::Namespace) {
        if namespace.name() == "istio-system" {
            continue;
        }
        let labels = injection_labels(namespace);
        if labels.len() > 1 {
            context.report(messages::namespace_multiple_injection_labels(
                namespace, &labels,
            ));
        }
        if namespace.label(DATAPLANE_MODE_LABEL) == "ambient" {
            continue;
        }
        let injector = injector_name(namespace.label(REVISION_LABEL));
        if let Some(found) = context
            .each(Kind::ConfigMap)
            .find(|config| config.name() == injector)
        {
            by_default = injects_by_default(found);
        }
        let injection = namespace.label(INJECTION_LABEL);
        if injection.is_empty() && !namespace.labels.contains_key(REVISION_LABEL) {
            context.report(if by_default {
                messages::namespace_injection_enabled_by_default(namespace)
            } else {
                messages::namespace_not_injected(namespace, namespace.name(), namespace.name())
                    .at("metadata.name")
            });
        } else if injection == "enabled" {
            injected.insert(namespace.name());
        }
    }
    for pod in context.each(Kind::Pod) {
        if injected.contains(pod.namespace()) && lacks_proxy(pod) {
            context.report(messages::pod_missing_proxy(pod, &pod.full_name()));
        }
    }
}

/// The labels of a namespace that ask for a data plane; those after a refusal of sidecars are no contradiction.
fn injection_labels(namespace: &Object) -> Vec<String> {
    let injection = namespace.labels.get(INJECTION_LABEL);
    let mut labels = Vec::new();
    if let Some(value) = injection {
        labels.push(format!("{INJECTION_LABEL}={value}"));
    }
    for name in [REVISION_LABEL, DATAPLANE_MODE_LABEL] {
        if let Some(value) = namespace.labels.get(name)
            && injection.is_none_or(|injection| injection == "enabled")
        {
            labels.push(format!("{name}={value}"));
        }
    }
    labels
}

/// The ConfigMap of the injector of a revision.
pub fn injector_name(revision: &str) -> String {
    match revision {
        "" | "default" => "istio-sidecar-injector".to_owned(),
        revision => format!("istio-sidecar-injector-{revision}"),
    }
}

fn injects_by_default(config: &Object) -> bool {
    let values = config.spec.field("data").text("values");
    serde_json::from_str::<serde_json::Value>(values)
        .is_ok_and(|values| values["sidecarInjectorWebhook"]["enableNamespacesByDefault"] == true)
}

fn lacks_proxy(pod: &Object) -> bool {
    let refused = pod
        .labels
        .get(INJECT)
        .or_else(|| pod.annotations.get(INJECT))
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let proxy = all_containers(&pod.spec).find(|container| container.text("name") == PROXY);
    !refused
        && pod.spec.field("hostNetwork") != true
        && proxy.is_none_or(|proxy| proxy.text("image").is_empty())
}
