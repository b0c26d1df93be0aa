//! `annotations.K8sAnalyzer`: misplaced, unknown, deprecated and wrong annotations of Istio (IST0107, IST0108, IST0125, IST0135).

mod known;
mod values;

use known::{KNOWN, Known};

use crate::context::Context;
use crate::in_mesh::INJECT;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;

/// Set by Istio itself, so nothing to tell.
const ALWAYS_IGNORED: [&str; 3] = [
    "sidecar.istio.io/status",
    "gateway.istio.io/controller-version",
    "istio.io/rev",
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for kind in [Kind::Namespace, Kind::Service, Kind::Pod, Kind::Deployment] {
        for object in context.each(kind) {
            for (name, value) in &object.annotations {
                if of_istio(name) && !ALWAYS_IGNORED.contains(&name.as_str()) {
                    annotation(context, object, name, value);
                }
            }
        }
    }
}

fn annotation(context: &mut Context<'_>, object: &Object, name: &str, value: &str) {
    let Some(Known {
        deprecated, kinds, ..
    }) = KNOWN.iter().find(|known| known.name == name)
    else {
        context.report(messages::unknown_annotation(object, name));
        return;
    };
    // Whoever has the label too knows about it.
    if *deprecated && !(name == INJECT && object.labels.contains_key(INJECT)) {
        let extra = if name == INJECT {
            " in favor of the \"sidecar.istio.io/inject\" label"
        } else {
            ""
        };
        context.report(messages::deprecated_annotation(object, name, extra));
    }
    if *kinds == "Any" {
        return;
    }
    let kind = object.origin.kind.info().name;
    if !kinds.split(", ").any(|allowed| allowed == kind) {
        context.report(messages::misplaced_annotation(object, name, kinds));
        return;
    }
    if let Err(problem) = values::check(name, value) {
        context.report(messages::invalid_annotation(object, name, &problem));
    }
}

fn of_istio(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    name == "kubernetes.io/ingress.class" || domain.ends_with("istio.io")
}
