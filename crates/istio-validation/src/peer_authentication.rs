//! PeerAuthentication.

use crate::Object;
use crate::problem::{Validation, one};
use crate::selector;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    let ports = spec.map("portLevelMtls");
    let selects = spec
        .sub("selector")
        .map("matchLabels")
        .is_some_and(|labels| !labels.is_empty());
    if !selects && ports.is_some_and(|ports| !ports.is_empty()) {
        v.fail("mesh/namespace peer authentication cannot have port level mTLS");
    }
    if ports.is_some_and(serde_json::Map::is_empty) {
        v.fail("port level mTLS, if defined, must have at least one element");
    }
    for (port, _) in spec.entries("portLevelMtls") {
        if !port
            .parse::<u32>()
            .is_ok_and(|port| (1..=65535).contains(&port))
        {
            v.errors(one("port must be in range 1..65535"));
        }
    }
    v.add(selector::by_match_labels(spec.get("selector")));
    v
}
