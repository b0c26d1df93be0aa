//! HorizontalPodAutoscalers.

use super::{Errors, container, gostring, invalid_each, list, names, text};
use crate::autoscaling::{source_of, to_v2};
use crate::field::FieldError;
use crate::quantity::Quantity;
use serde_json::Value;

const SOURCES: [&str; 5] = [
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
/// Longest period of a scaling policy, in seconds.
const LONGEST_PERIOD: i64 = 1800;
/// Longest stabilization window, in seconds.
const LONGEST_WINDOW: i64 = 3600;

/// A HorizontalPodAutoscaler of either version.
pub fn horizontal_pod_autoscaler(obj: &Value) -> Errors {
    if obj["apiVersion"] == "autoscaling/v1" {
        return v2(&to_v2(obj));
    }
    v2(obj)
}

fn v2(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let min = spec["minReplicas"].as_i64();
    let max = spec["maxReplicas"].as_i64().unwrap_or(0);
    let shown = Value::from(max);
    if let Some(n) = min.filter(|n| *n < 1) {
        out.push(FieldError::invalid(
            "spec.minReplicas",
            &n.into(),
            "must be greater than or equal to 1",
        ));
    }
    if max < 1 {
        out.push(FieldError::invalid(
            "spec.maxReplicas",
            &shown,
            "must be greater than 0",
        ));
    }
    if min.is_some_and(|min| max < min) {
        out.push(FieldError::invalid(
            "spec.maxReplicas",
            &shown,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    out.extend(reference("spec.scaleTargetRef", &spec["scaleTargetRef"]));
    for (i, m) in list(&spec["metrics"]).iter().enumerate() {
        out.extend(metric(&format!("spec.metrics[{i}]"), m));
    }
    if min == Some(0)
        && !list(&spec["metrics"])
            .iter()
            .any(|m| m["type"] == "Object" || m["type"] == "External")
    {
        out.push(FieldError::forbidden(
            "spec.metrics",
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            out.extend(scaling_rules(&format!("spec.behavior.{direction}"), rules));
        }
    }
    out
}

fn reference(path: &str, r: &Value) -> Errors {
    let mut out = Vec::new();
    for part in ["kind", "name"] {
        let at = format!("{path}.{part}");
        if text(&r[part]).is_empty() {
            out.push(FieldError::required(at, ""));
        } else {
            out.extend(invalid_each(
                &at,
                &r[part],
                names::path_segment(text(&r[part])),
            ));
        }
    }
    out
}

fn metric(path: &str, m: &Value) -> Errors {
    let mut out = Vec::new();
    let kind = text(&m["type"]);
    if kind.is_empty() {
        out.push(FieldError::required(
            format!("{path}.type"),
            "must specify a metric source type",
        ));
    }
    let unknown = || FieldError::not_supported(format!("{path}.type"), &kind.into(), &SOURCES);
    if !SOURCES.contains(&kind) {
        out.push(unknown());
    }
    let present: Vec<&str> = [
        "object",
        "external",
        "pods",
        "resource",
        "containerResource",
    ]
    .into_iter()
    .filter(|s| m[*s].is_object())
    .collect();
    if let Some(first) = present.first() {
        out.extend(source(first, &format!("{path}.{first}"), &m[*first]));
    }
    let expected = source_of(kind);
    if !SOURCES.contains(&kind) {
        out.push(unknown());
    } else if !m[&expected].is_object() {
        out.push(FieldError::required(
            format!("{path}.{expected}"),
            "must populate information for the given metric source",
        ));
    }
    if present.len() != 1 {
        out.extend(present.iter().filter(|s| **s != expected).map(|s| {
            FieldError::forbidden(
                format!("{path}.{s}"),
                "must populate the given metric source only",
            )
        }));
    }
    out
}

fn source(kind: &str, path: &str, s: &Value) -> Errors {
    let mut out = Vec::new();
    let goal = &s["target"];
    let has = |field: &str| !goal[field].is_null();
    let missing =
        |field: &str, why: &str| FieldError::required(format!("{path}.target.{field}"), why);
    match kind {
        "object" => {
            out.extend(reference(
                &format!("{path}.describedObject"),
                &s["describedObject"],
            ));
            out.extend(identifier(&format!("{path}.metric"), &s["metric"]));
            out.extend(target(&format!("{path}.target"), goal));
            if !has("value") && !has("averageValue") {
                out.push(missing(
                    "averageValue",
                    "must set either a target value or averageValue",
                ));
            }
        }
        "external" => {
            out.extend(identifier(&format!("{path}.metric"), &s["metric"]));
            out.extend(target(&format!("{path}.target"), goal));
            if !has("value") && !has("averageValue") {
                out.push(missing(
                    "averageValue",
                    "must set either a target value for metric or a per-pod target",
                ));
            }
            if has("value") && has("averageValue") {
                out.push(FieldError::forbidden(
                    format!("{path}.target.value"),
                    "may not set both a target value for metric and a per-pod target",
                ));
            }
        }
        "pods" => {
            out.extend(identifier(&format!("{path}.metric"), &s["metric"]));
            out.extend(target(&format!("{path}.target"), goal));
            if !has("averageValue") {
                out.push(missing(
                    "averageValue",
                    "must specify a positive target averageValue",
                ));
            }
        }
        _ => {
            if text(&s["name"]).is_empty() {
                out.push(FieldError::required(
                    format!("{path}.name"),
                    "must specify a resource name",
                ));
            }
            if kind == "containerResource" {
                let (at, name) = (format!("{path}.name"), text(&s["name"]));
                if !name.is_empty() {
                    // A wrong name is shown in quotes here, and nowhere else.
                    let unqualified = names::qualified_name(name);
                    let all = container::resource_name(&at, name);
                    let rest = all.into_iter().skip(unqualified.len());
                    out.extend(invalid_each(&at, &s["name"], unqualified).chain(rest));
                }
                let at = format!("{path}.container");
                if text(&s["container"]).is_empty() {
                    out.push(FieldError::required(at, "must specify a container"));
                } else {
                    out.extend(invalid_each(
                        &at,
                        &s["container"],
                        names::dns_label(text(&s["container"])),
                    ));
                }
            }
            out.extend(target(&format!("{path}.target"), goal));
            if !has("averageUtilization") && !has("averageValue") {
                out.push(missing(
                    "averageUtilization",
                    "must set either a target raw value or a target utilization",
                ));
            }
            if has("averageUtilization") && has("averageValue") {
                out.push(FieldError::forbidden(
                    format!("{path}.target.averageValue"),
                    "may not set both a target raw value and a target utilization",
                ));
            }
        }
    }
    out
}

fn identifier(path: &str, id: &Value) -> Errors {
    let at = format!("{path}.name");
    if text(&id["name"]).is_empty() {
        return vec![FieldError::required(at, "must specify a metric name")];
    }
    invalid_each(&at, &id["name"], names::path_segment(text(&id["name"]))).collect()
}

fn target(path: &str, t: &Value) -> Errors {
    let mut out = Vec::new();
    let kind = text(&t["type"]);
    if kind.is_empty() {
        out.push(FieldError::required(
            format!("{path}.type"),
            "must specify a metric target type",
        ));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        out.push(FieldError::invalid(
            format!("{path}.type"),
            &kind.into(),
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for field in ["value", "averageValue"] {
        let Some(amount) = super::policy::quantity(&t[field]) else {
            continue;
        };
        if amount <= Quantity::from_units(0) {
            out.push(FieldError::invalid_go(
                format!("{path}.{field}"),
                gostring::quantity(&t[field]),
                "must be positive",
            ));
        }
    }
    if t["averageUtilization"].as_i64().is_some_and(|n| n < 1) {
        out.push(FieldError::invalid(
            format!("{path}.averageUtilization"),
            &t["averageUtilization"],
            "must be greater than 0",
        ));
    }
    out
}

fn scaling_rules(path: &str, rules: &Value) -> Errors {
    let mut out = Vec::new();
    let window = &rules["stabilizationWindowSeconds"];
    let at = format!("{path}.stabilizationWindowSeconds");
    match window.as_i64() {
        Some(n) if n < 0 => out.push(FieldError::invalid(
            at,
            window,
            "must be greater than or equal to zero",
        )),
        Some(n) if n > LONGEST_WINDOW => out.push(FieldError::invalid(
            at,
            window,
            format!("must be less than or equal to {LONGEST_WINDOW}"),
        )),
        _ => {}
    }
    let select = &rules["selectPolicy"];
    if select
        .as_str()
        .is_some_and(|s| !["Disabled", "Max", "Min"].contains(&s))
    {
        out.push(FieldError::not_supported(
            format!("{path}.selectPolicy"),
            select,
            &["Disabled", "Max", "Min"],
        ));
    }
    let policies = list(&rules["policies"]);
    if policies.is_empty() {
        out.push(FieldError::required(
            format!("{path}.policies"),
            "must specify at least one Policy",
        ));
    }
    for (i, p) in policies.iter().enumerate() {
        let at = format!("{path}.policies[{i}]");
        if !["Percent", "Pods"].contains(&text(&p["type"])) {
            out.push(FieldError::not_supported(
                format!("{at}.type"),
                &text(&p["type"]).into(),
                &["Percent", "Pods"],
            ));
        }
        for field in ["value", "periodSeconds"] {
            let n = p[field].as_i64().unwrap_or(0);
            if n <= 0 {
                out.push(FieldError::invalid(
                    format!("{at}.{field}"),
                    &n.into(),
                    "must be greater than zero",
                ));
            }
            if field == "periodSeconds" && n > LONGEST_PERIOD {
                out.push(FieldError::invalid(
                    format!("{at}.{field}"),
                    &n.into(),
                    format!("must be less than or equal to {LONGEST_PERIOD}"),
                ));
            }
        }
    }
    out
}
