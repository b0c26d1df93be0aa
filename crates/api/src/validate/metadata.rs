//! `metadata`: names, labels, annotations, owners, finalizers, and what may not change.

use super::{Errors, gostring, invalid_each, labels, list, names, text};
use crate::field::FieldError;
use crate::meta;
use crate::scheme::ResourceInfo;
use serde_json::Value;

/// All annotations together, keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// How names of a kind are checked. For a prefix (`generateName`) a trailing dash is as good as a letter.
fn check_name(resource: &ResourceInfo, name: &str, prefix: bool) -> Vec<String> {
    let trimmed;
    let name = if prefix && name.ends_with('-') {
        trimmed = format!("{}a", &name[..name.len() - 1]);
        &trimmed
    } else {
        name
    };
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => names::dns_label(name),
        ("", "Service") => names::dns_1035_label(name),
        (
            "rbac.authorization.k8s.io"
            | "apiregistration.k8s.io"
            | "certificates.k8s.io"
            | "policy",
            _,
        )
        | ("", "Event") => names::path_segment(name),
        _ => names::dns_subdomain(name),
    }
}

/// Errors of new metadata.
pub fn create(resource: &ResourceInfo, obj: &Value) -> Errors {
    let mut out = Vec::new();
    let m = &obj["metadata"];
    let generate = meta::generate_name(obj);
    if !generate.is_empty() {
        out.extend(invalid_each(
            "metadata.generateName",
            &m["generateName"],
            check_name(resource, generate, true),
        ));
    }
    let name = meta::name(obj);
    if name.is_empty() {
        out.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        out.extend(invalid_each(
            "metadata.name",
            &m["name"],
            check_name(resource, name, false),
        ));
    }
    if resource.namespaced {
        let ns = meta::namespace(obj);
        if ns.is_empty() {
            out.push(FieldError::required("metadata.namespace", ""));
        } else {
            out.extend(invalid_each(
                "metadata.namespace",
                &m["namespace"],
                names::dns_label(ns),
            ));
        }
    } else if !meta::namespace(obj).is_empty() {
        out.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    out.extend(common(obj));
    out
}

/// What holds for new and changed metadata alike.
pub fn common(obj: &Value) -> Errors {
    let m = &obj["metadata"];
    let mut out = labels("metadata.labels", &m["labels"]);
    let mut size = 0;
    for (k, v) in meta::annotations(obj) {
        out.extend(invalid_each(
            "metadata.annotations",
            &k.into(),
            names::qualified_name(&k.to_lowercase()),
        ));
        size += k.len() + v.len();
    }
    if size > MAX_ANNOTATIONS {
        out.push(FieldError::too_long(
            "metadata.annotations",
            MAX_ANNOTATIONS,
        ));
    }
    out.extend(owners(list(&m["ownerReferences"]), &m["ownerReferences"]));
    out.extend(finalizers(list(&m["finalizers"]), has_core_metadata(obj)));
    out
}

/// Whether an object's metadata is validated by the rules of the core types. Definitions of custom
/// resources and their objects follow the general rules, which accept any qualified finalizer.
fn has_core_metadata(obj: &Value) -> bool {
    let api_version = text(&obj["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    group != "apiextensions.k8s.io"
        && crate::scheme::find_kind(group, version, text(&obj["kind"])).is_some()
}

fn owners(refs: &[Value], all: &Value) -> Errors {
    let mut out = Vec::new();
    let path = "metadata.ownerReferences";
    for r in refs {
        let (group, version) = meta::group_version(text(&r["apiVersion"]));
        if version.is_empty() {
            out.push(FieldError::invalid(
                format!("{path}.apiVersion"),
                &r["apiVersion"],
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if text(&r[key]).is_empty() {
                out.push(FieldError::invalid(
                    format!("{path}.{key}"),
                    &text(&r[key]).into(),
                    format!("{key} must not be empty"),
                ));
            }
        }
        if group.is_empty() && version == "v1" && r["kind"] == "Event" {
            let gvk = format!("{group}/{version}, Kind=Event");
            out.push(FieldError::invalid_go(
                path,
                gostring::owner_reference(r),
                format!("{gvk} is disallowed from being an owner"),
            ));
        }
    }
    let controllers: Vec<&Value> = refs.iter().filter(|r| r["controller"] == true).collect();
    if let [a, b, ..] = controllers.as_slice() {
        let shown: Vec<String> = list(all).iter().map(gostring::owner_reference).collect();
        let name = |r: &Value| format!("{}/{}", text(&r["kind"]), text(&r["name"]));
        out.push(FieldError::invalid_go(
            path,
            format!("[]v1.OwnerReference{{{}}}", shown.join(", ")),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                name(a),
                name(b)
            ),
        ));
    }
    out
}

/// Finalizers that Kubernetes itself does not know and that name no domain, and that `old` does not have.
pub fn doubtful_finalizers<'a>(
    obj: &'a Value,
    old: Option<&'a Value>,
) -> impl Iterator<Item = &'a str> {
    let before = old.map_or(&[] as &[Value], |old| list(&old["metadata"]["finalizers"]));
    list(&obj["metadata"]["finalizers"])
        .iter()
        .filter(|f| !before.contains(f))
        .map(text)
        .filter(|f| !is_standard_or_qualified(f))
}

fn is_standard_or_qualified(finalizer: &str) -> bool {
    finalizer.contains('/') || ["kubernetes", "foregroundDeletion", "orphan"].contains(&finalizer)
}

fn finalizers(all: &[Value], core: bool) -> Errors {
    let mut out = Vec::new();
    for f in all {
        out.extend(invalid_each(
            "metadata.finalizers",
            f,
            names::qualified_name(text(f)),
        ));
    }
    for (i, f) in all.iter().enumerate() {
        let s = text(f);
        if core && !is_standard_or_qualified(s) {
            out.push(FieldError::invalid(
                format!("metadata.finalizers[{i}]"),
                f,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    let has = |n: &str| all.iter().any(|f| f == n);
    if has("orphan") && has("foregroundDeletion") {
        let shown = gostring::strings(&Value::Array(all.to_vec()));
        out.push(FieldError::invalid_go(
            "metadata.finalizers",
            shown,
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    out
}

/// What may not change.
pub fn update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    let (m, o) = (&obj["metadata"], &old["metadata"]);
    if !o["deletionTimestamp"].is_null() {
        let known = list(&o["finalizers"]);
        let mut new: Vec<&str> = list(&m["finalizers"])
            .iter()
            .filter(|f| !known.contains(f))
            .map(text)
            .collect();
        new.sort_unstable();
        if !new.is_empty() {
            out.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                    gostring::strings(&new.into())
                ),
            ));
        }
    }
    if meta::generation(obj) < meta::generation(old) {
        out.push(FieldError::invalid(
            "metadata.generation",
            &m["generation"],
            "must not be decremented",
        ));
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        // Times show in Go's own format.
        let changed = m.get(key).filter(|v| !v.is_null()) != o.get(key).filter(|v| !v.is_null());
        if !changed {
            continue;
        }
        let path = format!("metadata.{key}");
        match m[key]
            .as_str()
            .and_then(crate::time::parse)
            .filter(|_| key.ends_with("Timestamp"))
        {
            Some(t) => {
                let shown = crate::time::rfc3339(t)
                    .replace('T', " ")
                    .replace('Z', " +0000 UTC");
                out.push(FieldError::invalid_go(path, shown, "field is immutable"));
            }
            None => out.push(FieldError::invalid(path, &m[key], "field is immutable")),
        }
    }
    out
}
