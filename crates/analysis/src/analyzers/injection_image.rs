//! `injection.ImageAnalyzer`: sidecars of another version than the injector would give (IST0158).

use std::collections::BTreeMap;

use serde_json::Value;

use super::injection::injector_name;
use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::{INJECTION_LABEL, PROXY, REVISION_LABEL, all_containers};
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;
use crate::proxy_config::ImageTypes;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let images: BTreeMap<&str, String> = context
        .each(Kind::ConfigMap)
        .filter(|config| config.name().starts_with("istio-sidecar-injector"))
        .map(|config| (config.name(), proxy_image(config)))
        .collect();
    if images.is_empty() {
        return;
    }
    let mut revisions: BTreeMap<&str, &str> = BTreeMap::new();
    for namespace in context.each(Kind::Namespace) {
        if let Some(revision) = namespace.labels.get(REVISION_LABEL) {
            revisions.insert(namespace.name(), revision);
        } else if namespace.label(INJECTION_LABEL) == "enabled" {
            revisions.insert(namespace.name(), "default");
        }
    }
    let image_types = ImageTypes::of(context);
    let mut other: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for pod in context.each(Kind::Pod) {
        let Some(revision) = revisions.get(pod.namespace()) else {
            continue;
        };
        // Whoever chooses an image is not told that it is another one.
        if !pod.annotation("sidecar.istio.io/proxyImage").is_empty() {
            continue;
        }
        let Some(image) = images.get(injector_name(revision).as_str()) else {
            continue;
        };
        let of_type = format!("{image}-{}", image_types.of_pod(pod));
        for container in all_containers(&pod.spec) {
            let running = container.text("image");
            if container.text("name") == PROXY && running != image && running != of_type {
                other
                    .entry(pod.namespace())
                    .or_default()
                    .push(pod.name().to_owned());
            }
        }
    }
    for (namespace, mut pods) in other {
        pods.sort();
        if let Some(namespace) = context.store.find(Kind::Namespace, "", namespace) {
            context.report(messages::pods_istio_proxy_image_mismatch_in_namespace(
                namespace, &pods,
            ));
        }
    }
}

/// The image that an injector gives; empty where its values cannot be read.
fn proxy_image(config: &Object) -> String {
    let values = config.spec.field("data").text("values");
    let Ok(values) = serde_json::from_str::<Value>(values) else {
        return String::new();
    };
    let global = values.field("global");
    let image = global.field("proxy").text("image");
    if image.contains('/') {
        return image.to_owned();
    }
    format!("{}/{image}:{}", global.text("hub"), global.text("tag"))
}
