//! The four kinds of patches.

mod last_applied;
mod managed;
mod ownership;
mod strategic;

pub use managed::{Writer, apply, track_update};
pub use strategic::strategic;

use crate::field::FieldError;
use crate::go;
use crate::prune::json_type;
use crate::status::StatusError;
use serde_json::{Map, Value};

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

impl PatchKind {
    /// The kind of a `Content-Type` header (parameters ignored); custom resources know no strategic merge.
    /// An unknown type is the 415 of the real server.
    pub fn from_content_type(content_type: &str, builtin: bool) -> Result<Self, StatusError> {
        match content_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if builtin => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => {
                let mut accepted = vec![
                    "application/json-patch+json",
                    "application/merge-patch+json",
                ];
                if builtin {
                    accepted.push("application/strategic-merge-patch+json");
                }
                accepted.push("application/apply-patch+yaml");
                Err(StatusError::unsupported_media_type(other, &accepted))
            }
        }
    }
}

/// A patched object that does not decode: 422 on the pseudo field `patch`, with the object and the reason.
pub(crate) fn undecodable(patched: &Value, patch: &Value, why: &str) -> StatusError {
    let shown = as_patched(patched, patch);
    undecodable_value(shown.to_string().into(), why)
}

/// An object as it leaves the real server's patching: what a merge patch has looked into is a map, whose keys are sorted; all else is as
/// it was written, which for metadata is the order of the struct.
fn as_patched(object: &Value, patch: &Value) -> Value {
    let Some(fields) = object.as_object() else {
        return object.clone();
    };
    let mut out: Map<String, Value> = fields
        .iter()
        .map(|(key, value)| {
            let shown = match patch.get(key) {
                Some(inner) => as_patched(value, inner),
                None if key == "metadata" => in_order(value),
                None => value.clone(),
            };
            (key.clone(), shown)
        })
        .collect();
    out.sort_keys();
    Value::Object(out)
}

/// Metadata in the order of ObjectMeta.
fn in_order(metadata: &Value) -> Value {
    const ORDER: [&str; 14] = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let known = ORDER
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), metadata.get(key)?.clone())));
    Value::Object(known.collect())
}

fn undecodable_value(shown: Value, why: &str) -> StatusError {
    let mut e = StatusError::invalid("", "", "", &[FieldError::invalid("patch", &shown, why)]);
    if let Some(d) = e.details.as_object_mut() {
        d.retain(|k, _| k == "causes");
    }
    e
}

/// [`undecodable`] for a strategic merge patch: the real server converts its outcome without going through JSON, so it shows
/// the patch, as Go prints it, and words the reason another way. `why` is the reason of the JSON decoder.
pub(crate) fn unconvertible(patch: &Value, why: &str) -> StatusError {
    undecodable_value(go::fmt::value(patch).into(), &conversion_error(why))
}

/// What Kubernetes' converter says where Go's JSON decoder says `why`.
fn conversion_error(why: &str) -> String {
    if why.starts_with("illegal base64 data") {
        return format!("error decoding from json: {why}");
    }
    let parts = why
        .strip_prefix("json: cannot unmarshal ")
        .and_then(|rest| Some((rest.split_once(' ')?.0, rest.rsplit_once(" of type ")?.1)));
    let Some((from, to)) = parts else {
        return why.to_owned();
    };
    // The kinds of what JSON decodes to.
    let from = match from {
        "array" => "slice",
        "object" => "map",
        "number" => "int64",
        other => other,
    };
    match to {
        "string" if from == "int64" => "cannot convert int64 to string".to_owned(),
        _ if to.starts_with("[]") => format!("cannot restore slice from {from}"),
        _ if to.starts_with("map[") => format!("cannot restore map from {from}"),
        _ if to.contains('.') => format!("cannot restore struct from: {from}"),
        _ => format!("unrecognized type: {to}"),
    }
}

/// JSON patch. A patch that cannot be read is a 400; one that cannot be applied (a failed `test`, a missing path) a 422.
pub fn json(obj: &Value, patch: &Value) -> Result<Value, StatusError> {
    if !patch.is_array() {
        return Err(StatusError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            json_type(patch)
        )));
    }
    let rejected = || {
        let mut e = StatusError::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        );
        e.details = serde_json::json!({});
        e
    };
    let operations = crate::meta::list(patch).len();
    if operations > MOST_OPERATIONS {
        return Err(StatusError::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {operations}"
        )));
    }
    let mut patch = patch.clone();
    for operation in patch.as_array_mut().into_iter().flatten() {
        for member in ["path", "from"] {
            // To Go's library, what is before the first slash is nothing.
            let at = operation[member].as_str().and_then(|path| path.find('/'));
            if let (Some(at @ 1..), Some(path)) = (at, operation[member].as_str()) {
                operation[member] = path[at..].into();
            }
        }
    }
    let ops: json_patch::Patch = serde_json::from_value(patch).map_err(|_| rejected())?;
    let mut out = obj.clone();
    carry_out(&mut out, ops).map_err(|_| rejected())?;
    Ok(out)
}

/// The most operations of a JSON patch, and how many bytes they may copy together: as the real server has it.
const MOST_OPERATIONS: usize = 10_000;
const MOST_COPIED: usize = 3 << 20;

/// Carries out a JSON patch as Go's library does: to it, a member that an object does not have is one that is null, which can be
/// replaced, copied and compared. After an error some of the operations have been carried out.
///
/// # Errors
/// When an operation does not fit the document, or a `test` fails; when copies make the document too large, or anything makes it too
/// deep.
pub fn carry_out(document: &mut Value, patch: json_patch::Patch) -> Result<(), String> {
    use json_patch::{AddOperation, PatchOperation::*};
    let mut copied = 0;
    for operation in patch.0 {
        let there = |at: &str| document.pointer(at).unwrap_or(&Value::Null);
        let (at, brought) = match &operation {
            Add(o) => (o.path.as_str(), &o.value),
            Replace(o) => (o.path.as_str(), &o.value),
            Move(o) => (o.path.as_str(), there(o.from.as_str())),
            Copy(o) => {
                let from = there(o.from.as_str());
                copied += from.to_string().len();
                (o.path.as_str(), from)
            }
            Remove(_) | Test(_) => ("", &Value::Null),
        };
        if copied > MOST_COPIED {
            return Err(format!(
                "the copied parts are {copied} bytes, more than the {MOST_COPIED} allowed"
            ));
        }
        let room = crate::meta::DEEPEST.checked_sub(at.matches('/').count());
        if room.is_none_or(|room| crate::meta::nests_deeper(brought, room)) {
            return Err(format!(
                "{} nests deeper than {} levels",
                at,
                crate::meta::DEEPEST
            ));
        }
        let operation = match operation {
            Replace(o) if is_absent(document, o.path.as_str()) => Add(AddOperation {
                path: o.path,
                value: o.value,
            }),
            Copy(o) if is_absent(document, o.from.as_str()) => Add(AddOperation {
                path: o.path,
                value: Value::Null,
            }),
            Test(o) if o.value.is_null() && is_absent(document, o.path.as_str()) => continue,
            other => other,
        };
        json_patch::patch(document, &json_patch::Patch(vec![operation]))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Whether a JSON pointer names a member that its object does not have.
fn is_absent(document: &Value, at: &str) -> bool {
    let Some((object, _)) = at.rsplit_once('/') else {
        return false;
    };
    document.pointer(at).is_none() && document.pointer(object).is_some_and(Value::is_object)
}

/// JSON merge patch.
pub fn merge(obj: &Value, patch: &Value) -> Value {
    let mut out = obj.clone();
    json_patch::merge(&mut out, patch);
    out
}

/// Refuses a merge or strategic merge patch that is no object, as the real server words it.
pub fn must_be_object(kind: PatchKind, patch: &Value) -> Result<(), StatusError> {
    if patch.is_object() {
        return Ok(());
    }
    let prefix = match kind {
        PatchKind::Strategic => "",
        _ => "error decoding patch: ",
    };
    Err(StatusError::bad_request(format!(
        "{prefix}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
        json_type(patch)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_merge_patch_has_looked_into_is_shown_sorted() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"namespace": "n", "name": "c", "resourceVersion": "3", "uid": "u"},
            "data": {"size": 3, "a": "b"}, "spec": {"b": 1, "a": 2}});
        assert_eq!(
            as_patched(&object, &json!({"data": {"size": 3}})).to_string(),
            r#"{"apiVersion":"v1","data":{"a":"b","size":3},"kind":"ConfigMap","metadata":{"name":"c","namespace":"n","uid":"u","resourceVersion":"3"},"spec":{"b":1,"a":2}}"#
        );
    }

    #[test]
    fn json_patches_apply_or_are_refused() {
        let o = json!({"data": {"a": "b"}});
        let out = json(
            &o,
            &json!([{"op": "test", "path": "/data/a", "value": "b"}, {"op": "add", "path": "/data/c", "value": "d"}]),
        );
        assert_eq!(out.unwrap(), json!({"data": {"a": "b", "c": "d"}}));
        for (operation, expected) in [
            (
                json!({"op": "replace", "path": "/data/c", "value": "d"}),
                Some(json!({"data": {"a": "b", "c": "d"}})),
            ),
            (
                json!({"op": "copy", "from": "/x", "path": "/data/c"}),
                Some(json!({"data": {"a": "b", "c": null}})),
            ),
            (
                json!({"op": "test", "path": "/data/c", "value": null}),
                Some(o.clone()),
            ),
            (json!({"op": "test", "path": "/data/c", "value": "d"}), None),
            (json!({"op": "replace", "path": "/x/c", "value": "d"}), None),
            (
                json!({"op": "move", "from": "/data/c", "path": "/data/d"}),
                None,
            ),
        ] {
            let seen = json(&o, &json!([operation])).ok();
            assert_eq!(seen, expected, "{operation}");
        }
        let e = json(&o, &json!([{"op": "remove", "path": "/data/zz"}])).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str()),
            (
                422,
                "the server rejected our request due to an error in our request"
            )
        );
        assert_eq!(
            json(&o, &json!({"op": "foo"})).unwrap_err().message,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
    }

    #[test]
    fn a_strategic_patch_of_a_wrong_type_is_shown_as_go_prints_it() {
        for (patch, why, expected) in [
            (
                json!({"spec": {"replicas": "two"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                r#"patch: Invalid value: "map[spec:map[replicas:two]]": unrecognized type: int32"#,
            ),
            (
                json!({"data": {"user": "not base64!"}}),
                "illegal base64 data at input byte 3",
                r#"patch: Invalid value: "map[data:map[user:not base64!]]": error decoding from json: illegal base64 data at input byte 3"#,
            ),
            (
                json!({"spec": {"template": [1, null]}}),
                "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
                r#"patch: Invalid value: "map[spec:map[template:[1 <nil>]]]": cannot restore struct from: slice"#,
            ),
        ] {
            let message = unconvertible(&patch, why).message;
            assert!(
                message.ends_with(expected),
                "seen {message}, expected {expected}"
            );
        }
    }

    #[test]
    fn json_patches_make_no_object_that_nobody_could_read() {
        let code =
            |ops: Vec<Value>| json(&json!({"a": {"b": "c"}}), &ops.into()).map_err(|e| e.code);
        let copy = |n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")});
        let doubled = (1..40).map(copy).collect();
        assert_eq!(code(doubled), Err(422), "each doubles the object");
        let inward = (1..200).map(|n| json!({"op": "add", "path": "/a".repeat(n), "value": {}}));
        assert_eq!(code(inward.collect()), Err(422), "each goes a level deeper");
        let many = vec![json!({"op": "test", "path": "/a/b", "value": "c"}); MOST_OPERATIONS + 1];
        assert_eq!(code(many.clone()), Err(413));
        assert!(code(many[1..].to_vec()).is_ok());
    }

    #[test]
    fn merge_patches_remove_with_null() {
        let out = merge(
            &json!({"a": {"b": 1, "c": 2}}),
            &json!({"a": {"b": null, "d": 3}}),
        );
        assert_eq!(out, json!({"a": {"c": 2, "d": 3}}));
        assert_eq!(
            must_be_object(PatchKind::Merge, &json!([1]))
                .unwrap_err()
                .message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert_eq!(
            must_be_object(PatchKind::Strategic, &json!("a"))
                .unwrap_err()
                .message,
            "json: cannot unmarshal string into Go value of type map[string]interface {}"
        );
    }
}
