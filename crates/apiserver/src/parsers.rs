//! The parsers of what arrives in requests, for those who give them anything (fuzz targets): what each makes of it, in plain values.

use serde_json::Value;

use crate::admission::webhook;
use crate::authz::{self, Action};
use crate::rest::read::Continue;
use crate::target::{self, Query, Route};
use crate::{body, negotiate};

/// A body by its media type.
///
/// # Errors
/// The message of the Status.
pub fn body(content_type: &str, bytes: &[u8]) -> Result<Value, String> {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    body::parse(content_type, &bytes, "Thing").map_err(|e| e.message)
}

/// The parts of a resource path: group, version, namespace, resource, name, subresource, what follows. `None` where the path is malformed
/// or leads to no object.
pub fn path(path: &str) -> Option<[String; 7]> {
    match target::route(path)? {
        Route::Resource(t) => Some([
            t.group,
            t.version,
            t.namespace,
            t.plural,
            t.name,
            t.subresource,
            t.rest,
        ]),
        Route::Other => None,
    }
}

/// The pairs of a query.
pub fn query(text: &str) -> Vec<(String, String)> {
    Query::parse(text).0
}

/// The shape and the encoding that an `Accept` header gets.
///
/// # Errors
/// The status code.
pub fn accept(header: &str) -> Result<(String, String), u16> {
    let form = negotiate::form(header).map_err(|e| e.code)?;
    Ok((format!("{:?}", form.shape), format!("{:?}", form.encoding)))
}

/// A `continue` token, written again.
pub fn continue_token(text: &str) -> Option<String> {
    Continue::decode(text).ok().map(|token| token.encode())
}

/// Who acts as whom by the headers of a request: the bearer token, and the user who is impersonated.
pub fn identity(headers: &http::HeaderMap) -> (Option<String>, Option<Value>) {
    let impersonated = crate::authn::impersonation(headers).ok().flatten();
    (
        crate::authn::bearer(headers),
        impersonated.map(|i| i.user.to_value()),
    )
}

/// What a mutating webhook that answers so makes of an object; its review has the uid `u`.
///
/// # Errors
/// The code of the Status, and its message or what is wrong with the answer.
pub fn webhook_answer(object: &Value, answer: &[u8]) -> Result<Value, (u16, String)> {
    let wrong = |why: String| (500, why);
    let response = webhook::response("AdmissionReview", "u", answer).map_err(wrong)?;
    if response["allowed"] != true {
        let denied = webhook::denied("hook", &response["status"]);
        return Err((denied.code, denied.message));
    }
    let mut object = object.clone();
    webhook::patched(&mut object, &response).map_err(wrong)?;
    Ok(object)
}

/// Whether a rule of a role covers an action on a resource.
pub fn rule_allows(
    rule: &Value,
    verb: &str,
    group: &str,
    (resource, subresource): (&str, &str),
    name: &str,
) -> bool {
    let action = Action::Resource {
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: "default".into(),
        name: name.into(),
    };
    authz::rule_allows(rule, &action)
}

/// Whether a rule of a role covers a request for a path.
pub fn rule_allows_path(rule: &Value, verb: &str, path: &str) -> bool {
    let action = Action::Path {
        verb: verb.into(),
        path: path.into(),
    };
    authz::rule_allows(rule, &action)
}
