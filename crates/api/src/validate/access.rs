//! RBAC objects and webhook configurations.

use super::{Errors, gostring, list, names, text};
use crate::field::FieldError;
use serde_json::Value;

/// Roles and bindings.
pub fn rbac(kind: &str, obj: &Value) -> Errors {
    match kind {
        "Role" | "ClusterRole" => list(&obj["rules"])
            .iter()
            .enumerate()
            .flat_map(|(i, r)| rule(i, r, kind == "Role"))
            .collect(),
        _ => binding(obj, kind == "RoleBinding"),
    }
}

fn rule(i: usize, rule: &Value, namespaced: bool) -> Errors {
    let path = format!("rules[{i}]");
    let mut out = Vec::new();
    let empty = |k: &str| list(&rule[k]).is_empty();
    if empty("verbs") {
        out.push(FieldError::required(
            format!("{path}.verbs"),
            "verbs must contain at least one value",
        ));
    }
    if !empty("nonResourceURLs") {
        if namespaced {
            out.push(FieldError::invalid_go(
                format!("{path}.nonResourceURLs"),
                gostring::strings(&rule["nonResourceURLs"]),
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            out.push(FieldError::invalid_go(
                format!("{path}.nonResourceURLs"),
                gostring::strings(&rule["nonResourceURLs"]),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return out;
    }
    if empty("apiGroups") {
        out.push(FieldError::required(
            format!("{path}.apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if empty("resources") {
        out.push(FieldError::required(
            format!("{path}.resources"),
            "resource rules must supply at least one resource",
        ));
    }
    out
}

const GROUP: &str = "rbac.authorization.k8s.io";

fn binding(obj: &Value, namespaced: bool) -> Errors {
    let mut out = Vec::new();
    let role = &obj["roleRef"];
    if role["apiGroup"] != GROUP {
        out.push(FieldError::not_supported(
            "roleRef.apiGroup",
            &role["apiGroup"],
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&text(&role["kind"])) {
        out.push(FieldError::not_supported(
            "roleRef.kind",
            &text(&role["kind"]).into(),
            kinds,
        ));
    }
    if text(&role["name"]).is_empty() {
        out.push(FieldError::required("roleRef.name", ""));
    } else {
        out.extend(super::invalid_each(
            "roleRef.name",
            &role["name"],
            names::path_segment(text(&role["name"])),
        ));
    }
    for (i, s) in list(&obj["subjects"]).iter().enumerate() {
        let path = format!("subjects[{i}]");
        let group = text(&s["apiGroup"]);
        if text(&s["name"]).is_empty() {
            out.push(FieldError::required(format!("{path}.name"), ""));
        }
        match text(&s["kind"]) {
            "ServiceAccount" => {
                if !text(&s["name"]).is_empty() {
                    out.extend(super::invalid_each(
                        &format!("{path}.name"),
                        &s["name"],
                        names::dns_subdomain(text(&s["name"])),
                    ));
                }
                if !group.is_empty() {
                    out.push(FieldError::not_supported(
                        format!("{path}.apiGroup"),
                        &group.into(),
                        &[""],
                    ));
                }
                if !namespaced && text(&s["namespace"]).is_empty() {
                    out.push(FieldError::required(format!("{path}.namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    out.push(FieldError::not_supported(
                        format!("{path}.apiGroup"),
                        &group.into(),
                        &[GROUP],
                    ));
                }
            }
            other => {
                out.push(FieldError::not_supported(
                    format!("{path}.kind"),
                    &other.into(),
                    &["ServiceAccount", "User", "Group"],
                ));
            }
        }
    }
    out
}

/// A binding's role is fixed.
pub fn role_ref_update(obj: &Value, old: &Value) -> Option<FieldError> {
    let role = &obj["roleRef"];
    if old["roleRef"].is_null() || *role == old["roleRef"] {
        return None;
    }
    let q = |k: &str| crate::field::quote(text(&role[k]));
    let shown = format!(
        "rbac.RoleRef{{APIGroup:{}, Kind:{}, Name:{}}}",
        q("apiGroup"),
        q("kind"),
        q("name")
    );
    Some(FieldError::invalid_go(
        "roleRef",
        shown,
        "cannot change roleRef",
    ))
}

/// Webhook configurations of both kinds.
pub fn webhooks(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, w) in list(&obj["webhooks"]).iter().enumerate() {
        let path = format!("webhooks[{i}]");
        let name = text(&w["name"]);
        out.extend(webhook(&path, w));
        if seen.contains(&name) {
            out.push(FieldError::duplicate(format!("{path}.name"), &w["name"]));
        }
        seen.push(name);
    }
    out
}

fn one_of(out: &mut Errors, path: String, v: &Value, allowed: &[&str]) {
    if !v.is_null() && !allowed.contains(&text(v)) {
        out.push(FieldError::not_supported(path, v, allowed));
    }
}

fn webhook(path: &str, w: &Value) -> Errors {
    let mut out = Vec::new();
    let name = text(&w["name"]);
    if name.is_empty() {
        out.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        let bad = names::dns_subdomain(name);
        if bad.is_empty() && name.split('.').count() < 3 {
            out.push(FieldError::invalid(
                format!("{path}.name"),
                &w["name"],
                "should be a domain with at least three segments separated by dots",
            ));
        }
        out.extend(super::invalid_each(
            &format!("{path}.name"),
            &w["name"],
            bad,
        ));
    }
    for (i, r) in list(&w["rules"]).iter().enumerate() {
        out.extend(resource_rule(&format!("{path}.rules[{i}]"), r));
    }
    one_of(
        &mut out,
        format!("{path}.failurePolicy"),
        &w["failurePolicy"],
        &["Fail", "Ignore"],
    );
    one_of(
        &mut out,
        format!("{path}.matchPolicy"),
        &w["matchPolicy"],
        &["Equivalent", "Exact"],
    );
    one_of(
        &mut out,
        format!("{path}.reinvocationPolicy"),
        &w["reinvocationPolicy"],
        &["IfNeeded", "Never"],
    );
    let side_effects = format!("{path}.sideEffects");
    if w["sideEffects"].is_null() {
        out.push(FieldError::required(
            side_effects,
            "must specify one of None, NoneOnDryRun",
        ));
    } else {
        one_of(
            &mut out,
            side_effects,
            &w["sideEffects"],
            &["None", "NoneOnDryRun"],
        );
    }
    if w["timeoutSeconds"]
        .as_i64()
        .is_some_and(|t| !(1..=30).contains(&t))
    {
        out.push(FieldError::invalid(
            format!("{path}.timeoutSeconds"),
            &w["timeoutSeconds"],
            "the timeout value must be between 1 and 30 seconds",
        ));
    }
    let client = &w["clientConfig"];
    match (client["url"].is_string(), client["service"].is_object()) {
        (true, false) => out.extend(url(&format!("{path}.clientConfig.url"), &client["url"])),
        (false, true) => {
            for key in ["name", "namespace"] {
                if text(&client["service"][key]).is_empty() {
                    let message = format!("service {key} is required");
                    out.push(FieldError::required(
                        format!("{path}.clientConfig.service.{key}"),
                        message,
                    ));
                }
            }
        }
        _ => out.push(FieldError::required(
            format!("{path}.clientConfig"),
            "exactly one of url or service is required",
        )),
    }
    let versions = list(&w["admissionReviewVersions"]);
    if versions.is_empty() {
        out.push(FieldError::required(
            format!("{path}.admissionReviewVersions"),
            "must specify one of v1, v1beta1",
        ));
    } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        out.push(FieldError::invalid_go(
            format!("{path}.admissionReviewVersions"),
            gostring::strings(&w["admissionReviewVersions"]),
            "must include at least one of v1, v1beta1",
        ));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        out.extend(super::label_selector(&format!("{path}.{key}"), &w[key]));
    }
    out.extend(super::admission::match_conditions(
        &format!("{path}.matchConditions"),
        &w["matchConditions"],
        &crate::cel::admission::Scope::default(),
    ));
    out
}

/// Which operations on which resources a webhook or policy is about.
pub(super) fn resource_rule(path: &str, r: &Value) -> Errors {
    let mut out = Vec::new();
    if list(&r["operations"]).is_empty() {
        out.push(FieldError::required(format!("{path}.operations"), ""));
    }
    for (j, o) in list(&r["operations"]).iter().enumerate() {
        one_of(
            &mut out,
            format!("{path}.operations[{j}]"),
            o,
            &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"],
        );
    }
    for key in ["apiGroups", "apiVersions", "resources"] {
        if list(&r[key]).is_empty() {
            out.push(FieldError::required(format!("{path}.{key}"), ""));
        }
    }
    one_of(
        &mut out,
        format!("{path}.scope"),
        &r["scope"],
        &["*", "Cluster", "Namespaced"],
    );
    out
}

fn url(path: &str, v: &Value) -> Errors {
    let form = "desired format: https://host[/path]";
    let rest = match text(v).split_once("://") {
        Some(("https", rest)) => rest,
        other => {
            let scheme = other.map_or("", |o| o.0);
            return vec![FieldError::invalid(
                path,
                &scheme.into(),
                format!("'https' is the only allowed URL scheme; {form}"),
            )];
        }
    };
    if rest.is_empty() || rest.starts_with('/') {
        return vec![FieldError::invalid(
            path,
            &"".into(),
            format!("host must be specified; {form}"),
        )];
    }
    Vec::new()
}
