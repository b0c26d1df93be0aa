//! The rules of the webhook, object by object.

pub use istio_validation::Findings;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::object::Object;

/// What the rules say about an object. One whose spec cannot be decoded was refused before it came here, or comes from a cluster, where
/// nobody could store it.
#[must_use]
pub fn findings(object: &Object) -> Findings {
    let kind = object.origin.kind;
    istio_validation::findings(&bare(kind, object.namespace(), object.name(), &object.spec))
        .unwrap_or_default()
}

/// Whether the spec of an object of `kind` can be decoded.
///
/// # Errors
/// A field has a value of the wrong type, in the words of Go's decoder for the whole object.
pub fn decode(kind: Kind, spec: &Value) -> Result<(), String> {
    istio_validation::findings(&bare(kind, "", "", spec))
        .map(|_| ())
        .map_err(|error| of_field(kind, "spec", &error))
}

/// [`decode`] for the status.
///
/// # Errors
/// A field has a value of the wrong type.
pub fn decode_status(kind: Kind, status: &Value) -> Result<(), String> {
    istio_validation::check_status(status).map_err(|error| of_field(kind, "status", &error))
}

fn of_field(kind: Kind, field: &str, error: &str) -> String {
    error.replacen(
        "into Go value of type",
        &format!("into Go struct field {}.{field} of type", kind.info().name),
        1,
    )
}

/// The object with nothing but what rules look at: neither labels nor annotations.
fn bare(kind: Kind, namespace: &str, name: &str, spec: &Value) -> Value {
    let info = kind.info();
    json!({
        "apiVersion": format!("{}/{}", info.group, info.versions[0]),
        "kind": info.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}
