//! Which pods an object is for: selectors by label and references to other objects.

use crate::message::Message;
use crate::problem::{Found, Validation, join, one};
use api::field::quote;

fn pairs(selector: Message<'_>, field: &str) -> Found {
    let mut errors = None;
    for (key, value) in selector.entries(field) {
        let value = value.own_text();
        let shown = quote(&format!("{key}={value}"));
        if key.is_empty() {
            join(
                &mut errors,
                one(format!("empty key is not supported in selector: {shown}")),
            );
        }
        if key.contains('*') || value.contains('*') {
            join(
                &mut errors,
                one(format!("wildcard is not supported in selector: {shown}")),
            );
        }
    }
    errors
}

const WITHOUT_LABELS: &str = "workload selector specified without labels";

/// `workloadSelector.labels` of Sidecar, ServiceEntry and EnvoyFilter: an error ends everything, a selector without labels is
/// a warning of the kind.
pub(crate) fn by_labels(
    selector: Option<Message<'_>>,
    kind: &str,
    validation: &mut Validation,
) -> Found {
    let selector = selector?;
    if let errors @ Some(_) = pairs(selector, "labels") {
        return errors;
    }
    if selector
        .map("labels")
        .is_none_or(|labels| labels.is_empty())
    {
        validation.warn(format!(
            "{kind}: {WITHOUT_LABELS}, will be applied to all services in namespace"
        ));
    }
    None
}

/// `selector.matchLabels` of the other kinds.
pub(crate) fn by_match_labels(selector: Option<Message<'_>>) -> Validation {
    let mut validation = Validation::default();
    if let Some(selector) = selector {
        validation.errors(pairs(selector, "matchLabels"));
        if selector
            .map("matchLabels")
            .is_none_or(|labels| labels.is_empty())
        {
            validation.warn(WITHOUT_LABELS);
        }
    }
    validation
}

/// Selector and references of a policy, of which one kind may be used.
pub(crate) fn of_policy(spec: Message<'_>) -> Validation {
    let mut validation = Validation::default();
    let used = [
        spec.has("selector"),
        spec.has("targetRef"),
        !spec.list("targetRefs").is_empty(),
    ];
    if used.iter().filter(|used| **used).count() > 1 {
        validation.fail("only one of targetRefs or workloadSelector can be set");
    }
    validation.add(by_match_labels(spec.get("selector")));
    if let Some(target) = spec.get("targetRef") {
        validation.errors(target_ref(target));
    }
    for target in spec.messages("targetRefs") {
        validation.errors(target_ref(target));
    }
    validation
}

/// What a policy may refer to: group as written, group in full, version, kind.
const TARGETS: &[(&str, &str, &str, &str)] = &[
    ("", "core", "v1", "Service"),
    (
        "networking.istio.io",
        "networking.istio.io",
        "v1",
        "ServiceEntry",
    ),
    (
        "gateway.networking.k8s.io",
        "gateway.networking.k8s.io",
        "v1",
        "Gateway",
    ),
    (
        "gateway.networking.k8s.io",
        "gateway.networking.k8s.io",
        "v1",
        "GatewayClass",
    ),
];

fn target_ref(target: Message<'_>) -> Found {
    let mut errors = None;
    if target.text("name").is_empty() {
        join(&mut errors, one("targetRef name must be set"));
    }
    if !target.text("namespace").is_empty() {
        join(
            &mut errors,
            one(
                "targetRef namespace must not be set; cross namespace referencing is not supported",
            ),
        );
    }
    let (group, kind) = (target.text("group"), target.text("kind"));
    let canonical = if group.is_empty() { "core" } else { group };
    if !TARGETS
        .iter()
        .any(|(_, full, _, k)| *full == canonical && *k == kind)
    {
        let all: Vec<String> = TARGETS
            .iter()
            .map(|(_, full, version, kind)| format!("{full}/{version}/{kind}"))
            .collect();
        join(
            &mut errors,
            one(format!(
                "targetRef must be to one of [{}] but was {group}/{kind}",
                all.join(" ")
            )),
        );
    }
    errors
}
