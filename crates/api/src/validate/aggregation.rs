//! APIServices.

use super::{Errors, invalid_each, names, text};
use crate::field::FieldError;
use crate::meta;
use serde_json::Value;

/// An APIService.
pub fn api_service(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let spec = &obj["spec"];
    let (group, version) = (text(&spec["group"]), text(&spec["version"]));
    let wanted = format!("{version}.{group}");
    if meta::name(obj) != wanted {
        out.push(FieldError::invalid(
            "metadata.name",
            &meta::name(obj).into(),
            format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"),
        ));
    }
    if group.is_empty() {
        if version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            out.push(FieldError::required("spec.group", why));
        }
    } else {
        let wrong = names::dns_subdomain(group);
        out.extend(invalid_each("spec.group", &spec["group"], wrong));
    }
    let wrong = names::dns_1035_label(version);
    out.extend(invalid_each("spec.version", &version.into(), wrong));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let n = spec[field].as_i64().unwrap_or(0);
        if n <= 0 || n > most {
            let why = format!("must be positive and less than {most}");
            out.push(FieldError::invalid(format!("spec.{field}"), &n.into(), why));
        }
    }
    let bundle = text(&spec["caBundle"]);
    let insecure = spec["insecureSkipTLSVerify"] == true;
    let service = &spec["service"];
    if service.is_null() {
        if !bundle.is_empty() {
            let bytes =
                bundle.len() / 4 * 3 - bundle.chars().rev().take_while(|c| *c == '=').count();
            out.push(FieldError::invalid(
                "spec.caBundle",
                &format!("{bytes} bytes").into(),
                "local APIServices may not have a caBundle",
            ));
        }
        if insecure {
            out.push(FieldError::invalid(
                "spec.insecureSkipTLSVerify",
                &true.into(),
                "local APIServices may not have insecureSkipTLSVerify",
            ));
        }
        return out;
    }
    for field in ["namespace", "name"] {
        if text(&service[field]).is_empty() {
            out.push(FieldError::required(format!("spec.service.{field}"), ""));
        }
    }
    let port = &service["port"];
    for why in names::port_number(port.as_i64().unwrap_or(0)) {
        let why = format!("port is not valid: {why}");
        out.push(FieldError::invalid("spec.service.port", port, why));
    }
    if insecure && !bundle.is_empty() {
        out.push(FieldError::invalid(
            "spec.insecureSkipTLSVerify",
            &true.into(),
            "may not be true if caBundle is present",
        ));
    }
    out
}
