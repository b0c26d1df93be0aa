//! DestinationRule.

use crate::Object;
use crate::message::Message;
use crate::names::{self, ExportTo};
use crate::problem::{Found, Validation, join, one};
use crate::{selector, traffic_policy};

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    v.errors(names::wildcard_domain(spec.text("host")));
    v.add(traffic_policy::policy(
        object.namespace,
        spec.get("trafficPolicy"),
    ));
    let mut seen = Vec::new();
    for subset in spec.messages("subsets") {
        let name = subset.text("name");
        if seen.contains(&name) {
            v.fail(format!("duplicate subset names: {name}"));
        }
        seen.push(name);
        v.errors(subset_errors(object.namespace, subset));
    }
    let export = ExportTo {
        with_selector: spec.has("workloadSelector"),
        ..ExportTo::default()
    };
    v.errors(export.check(object.namespace, &spec.texts("exportTo")));
    v.add(selector::by_match_labels(spec.get("workloadSelector")));
    v
}

/// Warnings of a subset's policy are not heard.
fn subset_errors(namespace: &str, subset: Message<'_>) -> Found {
    let mut errors = subset_name(subset.text("name"));
    join(&mut errors, names::labels(subset, "labels"));
    join(
        &mut errors,
        traffic_policy::policy(namespace, subset.get("trafficPolicy")).error,
    );
    errors
}

/// The name of a subset, here and in destinations.
pub(crate) fn subset_name(name: &str) -> Found {
    if name.is_empty() {
        one("subset name cannot be empty")
    } else if names::is_dns_label(name) {
        None
    } else {
        one(format!("subset name is invalid: {name}"))
    }
}
