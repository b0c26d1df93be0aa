//! What `kubectl apply` remembers in an annotation, where it meets server-side apply. The real server goes by it for kubectl's own
//! field manager: who used to apply on the client's side may go on on the server's, and back.

use serde_json::Value;

use crate::meta;

/// kubectl's field manager of server-side applies.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn text(object: &Value) -> &str {
    object["metadata"]["annotations"][ANNOTATION]
        .as_str()
        .unwrap_or("")
}

/// The configuration that was applied last, when it is of this version.
pub(super) fn of(live: &Value, api_version: &str) -> Option<Value> {
    let last: Value = serde_json::from_str(text(live)).ok()?;
    (meta::api_version(&last) == api_version).then_some(last)
}

/// Writes what is applied now into the annotation of an object that has it, as Go's encoder writes it.
pub(super) fn renew(object: &mut Value, applied: &Value) {
    if text(object).is_empty() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
        annotations.shift_remove(ANNOTATION);
    }
    applied.sort_all_objects();
    let mut line = applied.to_string();
    for (plain, escaped) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")] {
        line = line.replace(plain, escaped);
    }
    line.push('\n');
    object["metadata"]["annotations"][ANNOTATION] = line.into();
}
