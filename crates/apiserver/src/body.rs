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
            yaml_serde::from_str(text).map_err(|e| unreadable(kind, &format!("yaml: {e}")))
        }
        other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
    }
}

/// Keys that a YAML text has twice in one mapping, with their lines, as Go's decoder complains of them. Mappings in block style are
/// looked at; those in braces are not.
pub(crate) fn yaml_duplicates(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    // Mappings that are open: where their keys begin, and which they have.
    let mut open: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut scalar: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(' ');
        let mut column = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if scalar.is_some_and(|indent| column > indent) {
            continue;
        }
        scalar = None;
        if content.starts_with("---") {
            open.clear();
            continue;
        }
        let mut rest = content;
        while let Some(after) = rest.strip_prefix("- ") {
            // Each entry of a list begins a mapping of its own.
            open.retain(|(indent, _)| *indent <= column);
            let inner = after.trim_start_matches(' ');
            column += rest.len() - inner.len();
            rest = inner;
            open.retain(|(indent, _)| *indent < column);
        }
        let Some((key, value)) = rest
            .split_once(": ")
            .or_else(|| rest.strip_suffix(':').map(|key| (key, "")))
        else {
            continue;
        };
        if key.contains(['"', '\'', '{', '[', '#']) {
            continue;
        }
        open.retain(|(indent, _)| *indent <= column);
        if open.last().is_none_or(|(indent, _)| *indent < column) {
            open.push((column, Vec::new()));
        }
        if let Some((_, keys)) = open.last_mut() {
            if keys.contains(&key) {
                out.push(format!(
                    "line {}: key {key:?} already set in map",
                    number + 1
                ));
            }
            keys.push(key);
        }
        if value.trim_start().starts_with(['|', '>']) {
            scalar = Some(column);
        }
    }
    out
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
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}",
            resource.version, resource.kind
        )));
    }
    if map
        .get("metadata")
        .is_some_and(|m| !m.is_object() && !m.is_null())
    {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal into Go struct field {}.metadata of type v1.ObjectMeta",
            resource.kind, resource.version, resource.kind, resource.kind
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

#[cfg(test)]
mod tests {
    use super::yaml_duplicates;

    #[test]
    fn keys_that_are_there_twice_are_found_by_line() {
        let text = "\na: 1\nspec:\n  foo: x\n  foo: y\n  list:\n  - name: a\n    port: 1\n  - name: b\n    name: c\n  text: |\n    k: 1\n    k: 2\nother:\n  foo: z\n# a: 2\n";
        assert_eq!(
            yaml_duplicates(text),
            [
                "line 5: key \"foo\" already set in map",
                "line 10: key \"name\" already set in map"
            ]
        );
        assert!(yaml_duplicates("a:\n  b:\n    c: 1\n  d: 1\nb: 2\nd: 3\n---\na: 1\n").is_empty());
    }
}
