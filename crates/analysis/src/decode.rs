//! Whether an object can be decoded, with the errors of Go's JSON decoder.

use api::prune::{self, FieldValidation};
use api::schema::ObjectSchema;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::validation;

/// What a value is called in errors of Go's JSON decoder.
fn called(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Group, version and kind of an object.
///
/// # Errors
/// It is not an object, or `apiVersion` or `kind` is not a text, or the version has more than one slash.
pub fn type_of(value: &Value) -> Result<(&str, &str, &str), String> {
    const INTO: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let Some(object) = value.as_object() else {
        return Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type {INTO}",
            called(value)
        ));
    };
    let text = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{name} of type string",
            called(other)
        )),
    };
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    let (group, version) = match version.split_once('/') {
        None => ("", version),
        Some((_, rest)) if rest.contains('/') => {
            return Err(format!("unexpected GroupVersion string: {version}"));
        }
        Some(parts) => parts,
    };
    Ok((group, version, kind))
}

/// Whether `value` can be decoded as an object of `kind`.
///
/// # Errors
/// A field has a value of the wrong type.
pub fn check(kind: Kind, value: &Value) -> Result<(), String> {
    let info = kind.info();
    if let Some(schema) = ObjectSchema::builtin(info.group, info.versions[0], info.name) {
        return decode(&schema, value.clone());
    }
    // The metadata of all kinds is decoded alike.
    if let Some(schema) = ObjectSchema::builtin("", "v1", "ConfigMap") {
        let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": value["metadata"]});
        decode(&schema, bare).map_err(|error| {
            error.replacen(
                "Go struct field ConfigMap.",
                &format!("Go struct field {}.", info.name),
                1,
            )
        })?;
    }
    validation::decode(kind, &value["spec"])?;
    if info.group.ends_with(".istio.io") {
        validation::decode_status(kind, &value["status"])?;
    }
    Ok(())
}

fn decode(schema: &ObjectSchema, mut value: Value) -> Result<(), String> {
    prune::decode(
        schema,
        &mut value,
        &prune::Duplicates::default(),
        FieldValidation::Ignore,
    )
    .map(|_| ())
    .map_err(|error| {
        let text = error.message;
        match text.split_once(" cannot be handled as a ") {
            Some((_, rest)) => rest
                .split_once(": ")
                .map_or(rest, |(_, why)| why)
                .to_owned(),
            None => text,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_are_told_as_gos_decoder_does() {
        for (kind, value, expected) in [
            (
                Kind::VirtualService,
                json!({"metadata": {"name": 5}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
            ),
            (
                Kind::VirtualService,
                json!({"metadata": {"name": "a", "annotations": ["b"]}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.annotations of type map[string]string",
            ),
            (
                Kind::VirtualService,
                json!({"metadata": "x"}),
                "json: cannot unmarshal string into Go struct field VirtualService.metadata of type v1.ObjectMeta",
            ),
            (
                Kind::Deployment,
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": "many"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
        ] {
            assert_eq!(check(kind, &value), Err(expected.to_owned()));
        }
    }
}
