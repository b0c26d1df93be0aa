//! Istio configuration, from people and from other control planes.

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[Target {
    name: "istio-object",
    run: istio_object,
    also: &[],
}];

fn istio_object(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(object) = yaml_serde::from_str::<serde_json::Value>(text) else {
        return;
    };
    let _ = istio_validation::validate(&object);
}
