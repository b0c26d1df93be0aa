//! LimitRanges of the pod's namespace.

use std::sync::Arc;

use serde_json::Value;

use super::Attributes;
use crate::error::{ApiError, ApiResult};
use crate::storage::{Storage, Stored};

fn ranges(storage: &Storage, namespace: &str) -> Vec<Arc<Stored>> {
    let (all, _) = storage
        .cache()
        .list("core/limitranges", &format!("{namespace}/"));
    all.into_iter().map(|(_, range)| range).collect()
}

/// Fills in what the pod does not say.
pub(crate) fn default(storage: &Storage, a: &Attributes<'_>, pod: &mut Value) {
    for range in ranges(storage, a.namespace) {
        api::limits::default(range.value(), pod);
    }
}

/// Refuses what is not within the limits.
pub(crate) fn check(storage: &Storage, a: &Attributes<'_>, pod: &Value) -> ApiResult<()> {
    let why: Vec<String> = ranges(storage, a.namespace)
        .iter()
        .flat_map(|range| api::limits::violations(range.value(), pod))
        .collect();
    let why = match why.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        more => format!("[{}]", more.join(", ")),
    };
    Err(ApiError::forbidden("", "pods", a.name, &why))
}
