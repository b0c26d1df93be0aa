//! ProxyConfig.

use crate::Object;
use crate::problem::Validation;
use crate::selector;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let mut v = selector::by_match_labels(object.spec.get("selector"));
    if object.spec.int("concurrency") < 0 {
        v.fail("concurrency must be greater than or equal to 0");
    }
    v
}
