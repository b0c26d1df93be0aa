//! Objects live only in namespaces that exist and are not going away.

use serde_json::json;

use super::{Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::storage::{Key, Storage};

/// Refuses what would be created where it cannot live.
pub(crate) fn check(storage: &Storage, a: &Attributes<'_>) -> ApiResult<()> {
    if !a.resource.namespaced || a.operation != Operation::Create || a.resource.is_virtual() {
        return Ok(());
    }
    let key = Key::new(&"core/namespaces".into(), "", a.namespace);
    let Some(namespace) = storage.cache().get(&key) else {
        return Err(ApiError::not_found("", "namespaces", a.namespace));
    };
    let dying = api::meta::deletion_timestamp(namespace.value()).is_some();
    // What is part of an existing object (a token, an eviction) may still happen.
    if dying && a.subresource.is_empty() {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            a.namespace
        );
        let mut e = ApiError::forbidden(&a.resource.group, &a.resource.plural, a.name, &why);
        e.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {} is being terminated", a.namespace),
            "field": "metadata.namespace",
        }]);
        return Err(e);
    }
    Ok(())
}
