//! Request bodies: JSON or YAML in, one object out.

use bytes::Bytes;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::registry::Resource;

/// Kubernetes' own encoding.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What bodies may be.
pub(crate) const ACCEPTED: &[&str] = &["application/json", "application/yaml", PROTOBUF];

/// Parses a body by its media type. `kind` is what was expected, for the message.
pub(crate) fn parse(content_type: &str, bytes: &Bytes, kind: &str) -> ApiResult<Value> {
    match content_type {
        "" | "application/json" | "*/*" => json(bytes, kind),
        PROTOBUF => crate::protobuf::decode(bytes).map_err(|why| unreadable(kind, &why)),
        "application/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|e| unreadable(kind, &e.to_string()))?;
            let read = api::go::yaml::read(text).map_err(|e| unreadable(kind, &e.to_string()))?;
            Ok(read.0)
        }
        other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
    }
}

/// Parses JSON.
pub(crate) fn json(bytes: &[u8], kind: &str) -> ApiResult<Value> {
    serde_json::from_slice(bytes).map_err(|e| {
        let what = if bytes.is_empty() {
            "unexpected end of JSON input".to_owned()
        } else {
            e.to_string()
        };
        unreadable(
            kind,
            &format!("couldn't get version/kind; json parse error: {what}"),
        )
    })
}

fn unreadable(kind: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why}"
    ))
}

/// Checks that an object is what its path says, and fills in what the path implies.
pub(crate) fn check_type(resource: &Resource, object: &mut Value) -> ApiResult<()> {
    let expected = resource.api_version();
    let Some(map) = object.as_object_mut() else {
        return Err(unreadable(&resource.kind, "the body is not an object"));
    };
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or("").to_owned();
    let version = text(map.get("apiVersion"));
    let kind = text(map.get("kind"));
    let custom = resource.custom.is_some();
    if (custom || !version.is_empty()) && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind && custom {
        let wrong = api::field::FieldError::invalid(
            "kind",
            &map["kind"],
            format!("must be {}", resource.kind),
        );
        let name = text(map.get("metadata").and_then(|m| m.get("name")));
        return Err(ApiError::invalid(&resource.group, &kind, &name, &[wrong]));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}",
            resource.version, resource.kind
        )));
    }
    if let Some(metadata) = map
        .get("metadata")
        .filter(|m| !m.is_object() && !m.is_null())
    {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal {} into Go struct field {}.metadata of type v1.ObjectMeta",
            resource.kind,
            resource.version,
            resource.kind,
            api::prune::json_type(metadata),
            resource.kind
        )));
    }
    // Kind and version first, as people read them.
    let mut ordered = serde_json::Map::new();
    ordered.insert("kind".into(), resource.kind.clone().into());
    ordered.insert("apiVersion".into(), expected.into());
    let meta = map.shift_remove("metadata").filter(Value::is_object);
    ordered.insert(
        "metadata".into(),
        meta.unwrap_or_else(|| Value::Object(Default::default())),
    );
    for (k, v) in std::mem::take(map) {
        if k != "kind" && k != "apiVersion" {
            ordered.insert(k, v);
        }
    }
    *object = Value::Object(ordered);
    Ok(())
}
