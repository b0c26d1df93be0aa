//! `metav1.Status`: how the API says that something went wrong (or that a deletion went well).

use crate::field::FieldError;
use serde_json::{Map, Value, json};
use std::fmt;

/// An error of the API: what the response body says, and its HTTP code.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason (`NotFound`, `Conflict`, ...); empty when Kubernetes gives none.
    pub reason: &'static str,
    /// The message for people.
    pub message: String,
    /// `details`, or null.
    pub details: Value,
}

impl std::error::Error for StatusError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `resource.group`, or `resource` in the core group: how messages name a resource or kind.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_string()
    } else {
        format!("{resource}.{group}")
    }
}

fn details(name: &str, group: &str, kind: &str) -> Value {
    let mut m = Map::new();
    for (k, v) in [("name", name), ("group", group), ("kind", kind)] {
        if !v.is_empty() {
            m.insert(k.into(), v.into());
        }
    }
    Value::Object(m)
}

impl StatusError {
    /// Any error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }
    /// 404 for an object: `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {} not found",
            qualified(group, resource),
            crate::field::quote(name)
        );
        Self {
            details: details(name, group, resource),
            ..Self::new(404, "NotFound", message)
        }
    }
    /// 404 for a path nothing is served at.
    pub fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }
    /// 404 for a subresource that a kind does not have.
    pub fn no_such_subresource() -> Self {
        Self {
            details: json!({}),
            ..Self::no_such_path()
        }
    }
    /// 409: `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {} already exists",
            qualified(group, resource),
            crate::field::quote(name)
        );
        Self {
            details: details(name, group, resource),
            ..Self::new(409, "AlreadyExists", message)
        }
    }
    /// 409: `Operation cannot be fulfilled on pods "x": <why>`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            qualified(group, resource),
            crate::field::quote(name)
        );
        Self {
            details: details(name, group, resource),
            ..Self::new(409, "Conflict", message)
        }
    }
    /// The conflict of a write with a stale `resourceVersion`.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    /// 422 with one cause per field error. `kind` is the kind, not the resource. Equal texts are said once in the message.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for e in errors {
            let t = e.to_string();
            if !texts.contains(&t) {
                texts.push(t);
            }
        }
        let body = if texts.len() == 1 {
            texts.remove(0)
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!(
            "{} {} is invalid: {body}",
            qualified(group, kind),
            crate::field::quote(name)
        );
        let mut d = details(name, group, kind);
        d["causes"] = Value::Array(errors.iter().map(FieldError::cause).collect());
        Self {
            details: d,
            ..Self::new(422, "Invalid", message)
        }
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    /// 403: `pods "x" is forbidden: <why>`; without a name `pods is forbidden: <why>`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let res = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{res} is forbidden: {why}")
        } else {
            format!("{res} {} is forbidden: {why}", crate::field::quote(name))
        };
        Self {
            details: details(name, group, resource),
            ..Self::new(403, "Forbidden", message)
        }
    }
    /// 405 on a resource.
    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            crate::field::quote(&qualified(group, resource))
        );
        Self {
            details: details("", group, resource),
            ..Self::new(405, "MethodNotAllowed", message)
        }
    }
    /// 410 for a watch or continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    /// 406 with what the client may ask for instead.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!(
                "only the following media types are accepted: {}",
                accepted.join(", ")
            ),
        )
    }
    /// 415 with the body types that are understood.
    pub fn unsupported_media_type(got: &str, accepted: &[&str]) -> Self {
        let _ = got;
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }
    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }
    /// 429 with the seconds after which to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self {
            details: json!({"retryAfterSeconds": retry_after_seconds}),
            ..Self::new(429, "TooManyRequests", message)
        }
    }
    /// 500: `Internal error occurred: <why>`.
    pub fn internal(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self {
            details: json!({"causes": [{"message": why}]}),
            ..Self::new(
                500,
                "InternalError",
                format!("Internal error occurred: {why}"),
            )
        }
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }
    /// 504: `Timeout: <why>`.
    pub fn timeout(why: &str, retry_after_seconds: u64) -> Self {
        Self {
            details: json!({"retryAfterSeconds": retry_after_seconds}),
            ..Self::new(504, "Timeout", format!("Timeout: {why}"))
        }
    }

    /// The response body.
    pub fn to_value(&self) -> Value {
        let mut m = Map::new();
        m.insert("kind".into(), "Status".into());
        m.insert("apiVersion".into(), "v1".into());
        m.insert("metadata".into(), json!({}));
        m.insert("status".into(), "Failure".into());
        m.insert("message".into(), self.message.clone().into());
        if !self.reason.is_empty() {
            m.insert("reason".into(), self.reason.into());
        }
        if !self.details.is_null() {
            m.insert("details".into(), self.details.clone());
        }
        m.insert("code".into(), self.code.into());
        Value::Object(m)
    }
}

/// The body of a successful deletion that leaves nothing to show.
pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut d = details(name, group, resource);
    if !uid.is_empty() {
        d["uid"] = uid.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": d})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_lists_every_cause() {
        let e = StatusError::invalid(
            "apps",
            "Deployment",
            "x",
            &[
                FieldError::required("spec.selector", ""),
                FieldError::required("spec.template", ""),
            ],
        );
        assert_eq!(
            e.message,
            r#"Deployment.apps "x" is invalid: [spec.selector: Required value, spec.template: Required value]"#
        );
        assert_eq!(
            e.to_value()["details"]["causes"][1]["field"],
            "spec.template"
        );
        assert_eq!(e.to_value()["details"]["kind"], "Deployment");
    }

    #[test]
    fn not_found_names_resource_and_group() {
        assert_eq!(
            StatusError::not_found("apps", "deployments", "x").message,
            r#"deployments.apps "x" not found"#
        );
        assert_eq!(
            StatusError::not_found("", "pods", "x").to_value(),
            json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found",
                   "reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404})
        );
    }
}
