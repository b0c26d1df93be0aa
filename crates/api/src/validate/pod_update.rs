//! What may change of a pod that exists: little.

use super::{Errors, list};
use crate::field::FieldError;
use serde_json::Value;

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Errors of a changed pod.
pub fn update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    let (new, before) = (&obj["spec"], &old["spec"]);
    for (key, what) in [
        ("containers", "containers"),
        ("initContainers", "init containers"),
    ] {
        if list(&new[key]).len() != list(&before[key]).len() {
            // Nothing else can be compared then.
            return vec![FieldError::forbidden(
                format!("spec.{key}"),
                format!("pod updates may not add or remove {what}"),
            )];
        }
    }
    for key in ["containers", "initContainers"] {
        for (i, c) in list(&new[key]).iter().enumerate() {
            let image = c["image"].as_str().unwrap_or("");
            if image.is_empty() {
                out.push(FieldError::required(format!("spec.{key}[{i}].image"), ""));
            } else if image.trim() != image {
                out.push(FieldError::invalid(
                    format!("spec.{key}[{i}].image"),
                    &c["image"],
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    let (a, b) = (
        &new["activeDeadlineSeconds"],
        &before["activeDeadlineSeconds"],
    );
    match (a.as_i64(), b.as_i64()) {
        (Some(n), Some(o)) if n > o => {
            out.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                a,
                "must be less than or equal to previous value",
            ));
        }
        (None, Some(_)) => {
            out.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                a,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
    let tolerations = list(&new["tolerations"]);
    if !list(&before["tolerations"])
        .iter()
        .all(|t| tolerations.iter().any(|n| same_toleration(n, t)))
    {
        out.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    if !out.is_empty() {
        return out;
    }
    // Everything else must be as it was.
    let (mut a, mut b) = (new.clone(), before.clone());
    for spec in [&mut a, &mut b] {
        for key in ["containers", "initContainers"] {
            for c in spec
                .get_mut(key)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(m) = c.as_object_mut() {
                    m.shift_remove("image");
                }
            }
        }
        if let Some(m) = spec.as_object_mut() {
            m.shift_remove("activeDeadlineSeconds");
            m.shift_remove("tolerations");
        }
    }
    let gated = !list(&before["schedulingGates"]).is_empty();
    for spec in [&mut a, &mut b] {
        if let Some(m) = spec.as_object_mut() {
            m.shift_remove("schedulingGates");
            if gated {
                m.shift_remove("nodeSelector");
                m.shift_remove("affinity");
            }
        }
    }
    if before["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|n| n < 0)
        && new["terminationGracePeriodSeconds"] == 1
    {
        b["terminationGracePeriodSeconds"] = 1.into();
    }
    if a != b {
        let mut lines = Vec::new();
        difference("spec", &b, &a, &mut lines);
        out.push(FieldError::forbidden(
            "spec",
            format!("{UPDATABLE}\n{}\n", lines.join("\n")),
        ));
    }
    out
}

fn same_toleration(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"]
        .iter()
        .all(|k| a[*k] == b[*k])
}

/// The fields that differ, old and new, one a line.
fn difference(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(o), Value::Object(n)) => {
            for k in o.keys().chain(n.keys().filter(|k| !o.contains_key(*k))) {
                difference(&format!("{path}.{k}"), &old[k], &new[k], out);
            }
        }
        (Value::Array(o), Value::Array(n)) if o.len() == n.len() => {
            for (i, (o, n)) in o.iter().zip(n).enumerate() {
                difference(&format!("{path}[{i}]"), o, n, out);
            }
        }
        (o, n) if o != n => {
            if !o.is_null() {
                out.push(format!("- {path}: {o}"));
            }
            if !n.is_null() {
                out.push(format!("+ {path}: {n}"));
            }
        }
        _ => {}
    }
}
