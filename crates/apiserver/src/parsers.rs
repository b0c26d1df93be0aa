//! The parsers of what arrives in requests, for those who give them anything (fuzz targets): what each makes of it, in plain values.

use serde_json::Value;

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
