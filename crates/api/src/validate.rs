//! Validation with the API server's texts.

pub mod names;

use crate::field::FieldError;
use crate::schema::ObjectSchema;
use crate::scheme::ResourceInfo;
use serde_json::Value;

/// Errors of a new object (already defaulted). Turn them into a 422 with [`crate::status::StatusError::invalid`].
pub fn create(resource: &ResourceInfo, schema: &ObjectSchema, obj: &Value) -> Vec<FieldError> {
    let _ = (resource, schema, obj);
    Vec::new()
}

/// Errors of a changed object: those of a new one, and changes of what may not change.
/// `subresource`: the one written to (`status`), if any.
pub fn update(
    resource: &ResourceInfo,
    schema: &ObjectSchema,
    obj: &Value,
    old: &Value,
    subresource: Option<&str>,
) -> Vec<FieldError> {
    let _ = (old, subresource);
    create(resource, schema, obj)
}
