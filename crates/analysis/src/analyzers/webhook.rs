//! `webhook.Analyzer`: injectors that overlap or whose service is missing (IST0139).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::go;
use crate::in_mesh::{INJECT, INJECTION_LABEL, REVISION_LABEL};
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::messages;
use crate::object::{Object, full_name};

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut webhooks: Vec<(&Object, &Value)> = Vec::new();
    let mut revisions: BTreeSet<String> = BTreeSet::new();
    for configuration in context.each(Kind::MutatingWebhookConfiguration) {
        let own = revisions_of(configuration);
        let hooks = configuration.spec.items("webhooks");
        let of_istio = hooks
            .iter()
            .any(|webhook| webhook.text("name").ends_with("istio.io"));
        if own.is_empty() && !of_istio {
            continue;
        }
        revisions.extend(own);
        webhooks.extend(hooks.iter().map(|webhook| (configuration, webhook)));
    }
    overlaps(context, &webhooks, &revisions);
    for (configuration, webhook) in &webhooks {
        let service = webhook.field("clientConfig").field("service");
        let (namespace, name) = (service.text("namespace"), service.text("name"));
        let missing =
            service.is_object() && context.store.find(Kind::Service, namespace, name).is_none();
        if missing {
            context.report(messages::invalid_webhook(
                configuration,
                &format!(
                    "Injector refers to a control plane service that does not exist: {}.",
                    full_name(namespace, name)
                ),
            ));
        }
    }
}

/// For every combination of labels, at most one webhook may select it.
fn overlaps(
    context: &mut Context<'_>,
    webhooks: &[(&Object, &Value)],
    revisions: &BTreeSet<String>,
) {
    let namespaces = combinations(INJECTION_LABEL, ["enabled", "disabled"], revisions);
    let pods = combinations(INJECT, ["true", "false"], revisions);
    for namespace in &namespaces {
        for pod in &pods {
            let selected: Vec<_> = webhooks
                .iter()
                .filter(|(_, webhook)| {
                    labels::kubernetes_selects(webhook.field("namespaceSelector"), namespace)
                        && labels::kubernetes_selects(webhook.field("objectSelector"), pod)
                })
                .map(|(configuration, webhook)| {
                    let name = format!("{}/{}", configuration.full_name(), webhook.text("name"));
                    (*configuration, name)
                })
                .collect();
            for (configuration, name) in &selected {
                let others: BTreeSet<&str> = selected
                    .iter()
                    .map(|(_, other)| other.as_str())
                    .filter(|other| other != name)
                    .collect();
                if !others.is_empty() {
                    let others: Vec<&str> = others.into_iter().collect();
                    context.report(messages::invalid_webhook(
                        configuration,
                        &format!(
                            "Webhook overlaps with others: {}. This may cause injection to occur twice.",
                            go::slice(&others)
                        ),
                    ));
                }
            }
        }
    }
}

/// No label, one of two values of `label`, and the same with each revision.
fn combinations(label: &str, values: [&str; 2], revisions: &BTreeSet<String>) -> Vec<Labels> {
    let mut plain = vec![Labels::new()];
    plain.extend(values.map(|value| Labels::from([(label.to_owned(), value.to_owned())])));
    let mut all = plain.clone();
    for revision in revisions {
        for labels in &plain {
            let mut labels = labels.clone();
            labels.insert(REVISION_LABEL.to_owned(), revision.clone());
            all.push(labels);
        }
    }
    all
}

/// The revisions that a configuration names, in its labels or in its selectors.
fn revisions_of(configuration: &Object) -> BTreeSet<String> {
    let mut revisions: BTreeSet<String> = configuration
        .labels
        .get(REVISION_LABEL)
        .cloned()
        .into_iter()
        .collect();
    for webhook in configuration.spec.items("webhooks") {
        for selector in ["namespaceSelector", "objectSelector"] {
            let selector = webhook.field(selector);
            let labels = selector.texts_by_key("matchLabels");
            revisions.extend(labels.get(REVISION_LABEL).cloned());
            for expression in selector.items("matchExpressions") {
                if expression.text("key") == REVISION_LABEL {
                    revisions.extend(expression.texts("values").into_iter().map(str::to_owned));
                }
            }
        }
    }
    revisions
}
