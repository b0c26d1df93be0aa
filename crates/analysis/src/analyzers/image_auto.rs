//! `injection.ImageAutoAnalyzer`: `image: auto` that no injector replaces (IST0146, IST0147).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::PROXY;
use crate::kind::Kind;
use crate::labels;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let webhooks: Vec<&Value> = context
        .each(Kind::MutatingWebhookConfiguration)
        .flat_map(|configuration| configuration.spec.items("webhooks"))
        .filter(|webhook| webhook.text("name").ends_with("istio.io"))
        .collect();
    for pod in context.each(Kind::Pod) {
        // It runs, so nothing will replace it any more.
        if has_auto_image(&pod.spec) {
            context.report(messages::image_auto_without_injection_error(
                pod,
                "Pod",
                pod.name(),
            ));
        }
    }
    for deployment in context.each(Kind::Deployment) {
        let template = deployment.spec.field("template");
        if !has_auto_image(template.field("spec")) {
            continue;
        }
        let name = match deployment.namespace() {
            "" => "default",
            name => name,
        };
        let namespace = context
            .store
            .find(Kind::Namespace, "", name)
            .map(|namespace| namespace.labels.clone())
            .unwrap_or_default();
        let pod = template.field("metadata").texts_by_key("labels");
        let injected = webhooks.iter().any(|webhook| {
            labels::kubernetes_selects(webhook.field("namespaceSelector"), &namespace)
                && labels::kubernetes_selects(webhook.field("objectSelector"), &pod)
        });
        if !injected {
            context.report(messages::image_auto_without_injection_warning(
                deployment,
                "Deployment",
                deployment.name(),
            ));
        }
    }
}

fn has_auto_image(spec: &Value) -> bool {
    spec.items("containers")
        .iter()
        .any(|container| container.text("name") == PROXY && container.text("image") == "auto")
}
