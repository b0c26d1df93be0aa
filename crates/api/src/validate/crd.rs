//! CustomResourceDefinitions.

use super::{Errors, immutable, list, names, text};
use crate::field::FieldError;
use serde_json::Value;

/// A definition, new or changed.
pub fn create(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    if text(&obj["metadata"]["name"]) != format!("{plural}.{group}") {
        out.push(FieldError::invalid(
            "metadata.name",
            &obj["metadata"]["name"],
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if group.is_empty() {
        out.push(FieldError::required("spec.group", ""));
    } else {
        out.extend(super::invalid_each(
            "spec.group",
            &spec["group"],
            names::dns_subdomain(group),
        ));
        if !group.contains('.') {
            out.push(FieldError::invalid(
                "spec.group",
                &spec["group"],
                "should be a domain with at least one dot",
            ));
        }
    }
    match text(&spec["scope"]) {
        "" => out.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => out.push(FieldError::not_supported(
            "spec.scope",
            &other.into(),
            &["Cluster", "Namespaced"],
        )),
    }
    let versions = list(&spec["versions"]);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        // Go prints the whole list as structs here; the names are what helps.
        let shown: Vec<&str> = versions.iter().map(|v| text(&v["name"])).collect();
        let shown = format!("[{}]", shown.join(", "));
        out.push(FieldError::invalid_go(
            "spec.versions",
            shown,
            "must have exactly one version marked as storage version",
        ));
    }
    out.extend(crd_names(&spec["names"]));
    let single = versions.len() == 1;
    for (i, v) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        out.extend(super::invalid_each(
            &format!("{path}.name"),
            &v["name"],
            names::dns_1035_label(text(&v["name"])),
        ));
        // What there is one version of is reported where it used to be in the old API.
        let place = if single { "spec" } else { path.as_str() };
        for (i, c) in list(&v["additionalPrinterColumns"]).iter().enumerate() {
            out.extend(column(&format!("{place}.additionalPrinterColumns[{i}]"), c));
        }
        let at = format!("{place}.subresources.scale");
        out.extend(scale(&at, &v["subresources"]["scale"]));
        let schema = &v["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            out.push(FieldError::required(
                format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            ));
            continue;
        }
        let at = if single {
            "spec.validation.openAPIV3Schema".to_string()
        } else {
            format!("{path}.schema.openAPIV3Schema")
        };
        if spec["preserveUnknownFields"] != true {
            out.extend(structural(&at, schema, true));
            out.extend(super::rules::of_definition(&at, schema));
        }
    }
    if list(&obj["status"]["storedVersions"]).is_empty()
        && !versions.iter().any(|v| v["storage"] == true)
    {
        out.push(FieldError::invalid_go(
            "status.storedVersions",
            "[]string(nil)",
            "must have at least one stored version",
        ));
    }
    out
}

/// A column of tables.
fn column(path: &str, column: &Value) -> Errors {
    const TYPES: &str = "boolean,date,integer,number,string";
    const FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
    let mut out = Vec::new();
    if text(&column["name"]).is_empty() {
        out.push(FieldError::required(format!("{path}.name"), ""));
    }
    for (key, known, required) in [("type", TYPES, true), ("format", FORMATS, false)] {
        let (at, value) = (format!("{path}.{key}"), text(&column[key]));
        let why = format!("must be one of {known}");
        if value.is_empty() && required {
            out.push(FieldError::required(at, why));
        } else if !value.is_empty() && !known.split(',').any(|k| k == value) {
            out.push(FieldError::invalid(at, &column[key], why));
        }
    }
    let at = format!("{path}.JSONPath");
    out.extend(simple_path(at, &column["jsonPath"], &[""], ""));
    out
}

/// A path to a field below one of `within`.
fn simple_path(at: String, path: &Value, within: &[&str], outside: &str) -> Option<FieldError> {
    let why = match text(path) {
        "" => return Some(FieldError::required(at, "")),
        path if !path.starts_with('.') => "must be a simple json path starting with .",
        path if !within.iter().any(|prefix| path.starts_with(prefix)) => outside,
        _ => return None,
    };
    Some(FieldError::invalid(at, path, why))
}

/// Where the numbers of replicas are.
fn scale(path: &str, scale: &Value) -> Errors {
    if !scale.is_object() {
        return Vec::new();
    }
    let at = |key: &str| format!("{path}.{key}");
    let spec = "should be a json path under .spec";
    let status = "should be a json path under .status";
    let either = "should be a json path under either .spec or .status";
    let mut out = Vec::new();
    for (key, within, why) in [
        ("specReplicasPath", &[".spec."][..], spec),
        ("statusReplicasPath", &[".status."], status),
        ("labelSelectorPath", &[".spec.", ".status."], either),
    ] {
        let optional = key == "labelSelectorPath" && text(&scale[key]).is_empty();
        if !optional {
            out.extend(simple_path(at(key), &scale[key], within, why));
        }
    }
    out
}

fn crd_names(names_: &Value) -> Errors {
    let mut out = Vec::new();
    for key in ["plural", "singular"] {
        out.extend(super::invalid_each(
            &format!("spec.names.{key}"),
            &names_[key],
            names::dns_1035_label(text(&names_[key])),
        ));
    }
    for (i, s) in list(&names_["shortNames"]).iter().enumerate() {
        out.extend(super::invalid_each(
            &format!("spec.names.shortNames[{i}]"),
            s,
            names::dns_1035_label(text(s)),
        ));
    }
    for key in ["kind", "listKind"] {
        for m in names::dns_1035_label(&text(&names_[key]).to_lowercase()) {
            out.push(FieldError::invalid(
                format!("spec.names.{key}"),
                &names_[key],
                format!("may have mixed case, but should otherwise match: {m}"),
            ));
        }
    }
    if names_["kind"] == names_["listKind"] && names_["kind"].is_string() {
        out.push(FieldError::invalid(
            "spec.names.listKind",
            &names_["listKind"],
            "kind and listKind may not be the same",
        ));
    }
    out
}

/// Every field of a structural schema says its type.
/// What a field of a custom resource can be.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

fn structural(path: &str, schema: &Value, root: bool) -> Errors {
    let mut out = Vec::new();
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if text(&schema["type"]).is_empty() && (root || !free) {
        let what = if root {
            "must not be empty at the root"
        } else {
            "must not be empty for specified object fields"
        };
        out.push(FieldError::required(format!("{path}.type"), what));
    } else if root && text(&schema["type"]) != "object" {
        out.push(FieldError::invalid(
            format!("{path}.type"),
            &schema["type"],
            "must be object at the root",
        ));
    } else if !text(&schema["type"]).is_empty() && !TYPES.contains(&text(&schema["type"])) {
        let at = format!("{path}.type");
        out.push(FieldError::not_supported(at, &schema["type"], &TYPES));
    }
    for (k, v) in schema["properties"].as_object().into_iter().flatten() {
        out.extend(structural(&format!("{path}.properties[{k}]"), v, false));
    }
    if schema["items"].is_object() {
        out.extend(structural(
            &format!("{path}.items"),
            &schema["items"],
            false,
        ));
    }
    if schema["additionalProperties"].is_object() {
        out.extend(structural(
            &format!("{path}.additionalProperties"),
            &schema["additionalProperties"],
            false,
        ));
    }
    out
}

/// What an established definition may not change.
pub fn update(obj: &Value, old: &Value) -> Errors {
    let established = list(&old["status"]["conditions"])
        .iter()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    let mut out = Vec::new();
    if established {
        out.extend(immutable(
            "spec.scope",
            &obj["spec"]["scope"],
            &old["spec"]["scope"],
        ));
        out.extend(immutable(
            "spec.names.kind",
            &obj["spec"]["names"]["kind"],
            &old["spec"]["names"]["kind"],
        ));
    }
    out.extend(immutable(
        "spec.group",
        &obj["spec"]["group"],
        &old["spec"]["group"],
    ));
    out.extend(immutable(
        "spec.names.plural",
        &obj["spec"]["names"]["plural"],
        &old["spec"]["names"]["plural"],
    ));
    out
}
