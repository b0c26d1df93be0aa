//! Quotas, limits, budgets, priority and runtime classes.

use super::workload::count_or_percent;
use super::{Errors, gostring, immutable, invalid_each, label_selector, labels, list, names, text};
use crate::field::{FieldError, key};
use crate::meta;
use crate::quantity::Quantity;
use serde_json::Value;

/// The greatest priority people may give; above are the system's own classes.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;

/// Scopes of a quota that are about the pod alone; the other one is about its class.
const POD_SCOPES: [&str; 5] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "CrossNamespacePodAffinity",
];

/// The classes that every cluster has, with their values.
pub const SYSTEM_PRIORITIES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

pub(super) fn quantity(v: &Value) -> Option<Quantity> {
    match v {
        Value::String(s) => Quantity::parse(s).ok(),
        Value::Number(n) => Quantity::parse(&n.to_string()).ok(),
        _ => None,
    }
}

/// Amounts that count things: whole numbers.
fn is_count(resource: &str) -> bool {
    resource.starts_with("count/")
        || matches!(
            resource,
            "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        )
}

/// A ResourceQuota.
pub fn resource_quota(obj: &Value) -> Errors {
    let mut out = Vec::new();
    for (resource, amount) in obj["spec"]["hard"].as_object().into_iter().flatten() {
        let path = key("spec.hard", resource);
        let known = is_count(resource)
            || resource.contains('/')
            || matches!(
                resource
                    .trim_start_matches("requests.")
                    .trim_start_matches("limits."),
                "cpu" | "memory" | "ephemeral-storage" | "storage"
            );
        if !known {
            for why in [
                "must be a standard resource type or fully qualified",
                "must be a standard resource for quota",
            ] {
                out.push(FieldError::invalid_go(
                    path.as_str(),
                    resource.as_str(),
                    why,
                ));
            }
        }
        let Some(amount_read) = quantity(amount) else {
            continue;
        };
        if amount_read.is_negative() {
            out.push(FieldError::invalid_go(
                path.as_str(),
                crate::field::quote(&amount_read.to_string()),
                "must be greater than or equal to 0",
            ));
        }
        if is_count(resource) && !amount_read.is_integer() {
            out.push(FieldError::invalid_go(
                path,
                gostring::quantity(amount),
                "must be an integer",
            ));
        }
    }
    let scopes: Vec<&str> = list(&obj["spec"]["scopes"]).iter().map(text).collect();
    let shown = scopes_shown(&obj["spec"]["scopes"]);
    for scope in &scopes {
        let mut wrong = |why: &str| {
            out.push(FieldError::invalid_go("spec.scopes", shown.as_str(), why));
        };
        if !is_scope(scope) {
            wrong("unsupported scope");
        }
        for (resource, _) in obj["spec"]["hard"].as_object().into_iter().flatten() {
            if !fits(scope, resource) {
                wrong("unsupported scope applied to resource");
            }
        }
    }
    let requirements = list(&obj["spec"]["scopeSelector"]["matchExpressions"]);
    out.extend(requirements.iter().flat_map(scope_requirement));
    for pair in [
        ["BestEffort", "NotBestEffort"],
        ["Terminating", "NotTerminating"],
    ] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            out.push(FieldError::invalid_go(
                "spec.scopes",
                shown.as_str(),
                "conflicting scopes",
            ));
        }
    }
    out
}

fn is_scope(scope: &str) -> bool {
    POD_SCOPES.contains(&scope) || scope == "PriorityClass"
}

/// Whether a quota of that scope may count the resource. What has a group is let pass.
fn fits(scope: &str, resource: &str) -> bool {
    if !is_scope(scope) || resource.contains('/') {
        return true;
    }
    match resource {
        "pods" => true,
        "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory" => {
            scope != "BestEffort"
        }
        _ => false,
    }
}

/// One requirement of a quota's `scopeSelector`. Which of them it is, the real server does not say.
fn scope_requirement(requirement: &Value) -> Errors {
    let at = |field: &str| format!("spec.scopeSelector.matchExpressions.{field}");
    let (scope, operator) = (&requirement["scopeName"], &requirement["operator"]);
    let values = &requirement["values"];
    let mut out = Vec::new();
    if !is_scope(text(scope)) {
        out.push(FieldError::invalid(
            at("scopeName"),
            scope,
            "unsupported scope",
        ));
    }
    if POD_SCOPES.contains(&text(scope)) && operator != "Exists" {
        out.push(FieldError::invalid(
            at("operator"),
            operator,
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ));
    }
    match text(operator) {
        "In" | "NotIn" if list(values).is_empty() => out.push(FieldError::required(
            at("values"),
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if !list(values).is_empty() => out.push(FieldError::invalid_go(
            at("values"),
            gostring::strings(values),
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => out.push(FieldError::invalid(
            at("operator"),
            operator,
            "not a valid selector operator",
        )),
    }
    out
}

/// Scopes of a quota are fixed.
pub fn resource_quota_update(obj: &Value, old: &Value) -> Option<FieldError> {
    let sorted = |o: &Value| {
        let mut all: Vec<String> = list(&o["spec"]["scopes"])
            .iter()
            .map(|s| text(s).to_owned())
            .collect();
        all.sort();
        all
    };
    (sorted(obj) != sorted(old)).then(|| {
        FieldError::invalid_go(
            "spec.scopes",
            scopes_shown(&obj["spec"]["scopes"]),
            "field is immutable",
        )
    })
}

fn scopes_shown(scopes: &Value) -> String {
    let quoted: Vec<String> = list(scopes)
        .iter()
        .map(|s| crate::field::quote(text(s)))
        .collect();
    if quoted.is_empty() {
        return "[]core.ResourceQuotaScope(nil)".into();
    }
    format!("[]core.ResourceQuotaScope{{{}}}", quoted.join(", "))
}

/// A LimitRange.
pub fn limit_range(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, limit) in list(&obj["spec"]["limits"]).iter().enumerate() {
        let at = format!("spec.limits[{i}]");
        let kind = text(&limit["type"]);
        let unknown = match names::qualified_name(kind) {
            wrong if !wrong.is_empty() => wrong,
            _ if kind.contains('/')
                || matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") =>
            {
                Vec::new()
            }
            _ => vec!["must be a standard limit type or fully qualified".to_owned()],
        };
        out.extend(invalid_each(&format!("{at}.type"), &kind.into(), unknown));
        if seen.contains(&kind) {
            out.push(FieldError::duplicate(format!("{at}.type"), &limit["type"]));
        }
        seen.push(kind);
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if limit[field].as_object().is_some_and(|m| !m.is_empty()) {
                    out.push(FieldError::forbidden(
                        format!("{at}.{field}"),
                        "may not be specified when `type` is 'Pod'",
                    ));
                }
            }
        }
        if matches!(kind, "Pod" | "Container") {
            for field in [
                "max",
                "min",
                "default",
                "defaultRequest",
                "maxLimitRequestRatio",
            ] {
                for (resource, _) in limit[field].as_object().into_iter().flatten() {
                    out.extend(super::container::resource_name(
                        &key(&format!("{at}.{field}"), resource),
                        resource,
                    ));
                }
            }
        }
        let bounded = |field: &str| !limit[field]["storage"].is_null();
        if kind == "PersistentVolumeClaim" && !bounded("min") && !bounded("max") {
            out.push(FieldError::required(
                format!("{at}.limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        for (resource, ratio) in limit["maxLimitRequestRatio"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if quantity(ratio).is_some_and(|r| r < Quantity::from_units(1)) {
                out.push(FieldError::invalid_go(
                    key(&format!("{at}.maxLimitRequestRatio"), resource),
                    gostring::quantity(ratio),
                    format!("ratio {} is less than 1", text(ratio)),
                ));
            }
        }
        let mut resources: Vec<&String> = ["max", "min", "default", "defaultRequest"]
            .iter()
            .flat_map(|field| limit[*field].as_object().into_iter().flat_map(|m| m.keys()))
            .collect();
        resources.sort();
        resources.dedup();
        for resource in resources {
            out.extend(bounds(&at, limit, resource));
        }
    }
    out
}

/// The order in which the amounts of one resource must be.
fn bounds(at: &str, limit: &Value, resource: &str) -> Errors {
    const RULES: [(&str, &str, &str, &str, &str, bool); 6] = [
        ("min", "max", "min", "min value", "max value", false),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            "min value",
            "default request value",
            true,
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            "default request value",
            "max value",
            false,
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request value",
            "default limit value",
            false,
        ),
        (
            "min",
            "default",
            "default",
            "min value",
            "default value",
            false,
        ),
        // The real server shows the maximum here.
        (
            "default",
            "max",
            "default",
            "default value",
            "max value",
            true,
        ),
    ];
    let mut out = Vec::new();
    for (small, large, field, small_name, large_name, shows_large) in RULES {
        let (a, b) = (&limit[small][resource], &limit[large][resource]);
        if let (Some(x), Some(y)) = (quantity(a), quantity(b))
            && x > y
        {
            let shown = if shows_large { b } else { a };
            out.push(FieldError::invalid_go(
                key(&format!("{at}.{field}"), resource),
                gostring::quantity(shown),
                format!("{small_name} {x} is greater than {large_name} {y}"),
            ));
        }
    }
    out
}

/// A PodDisruptionBudget.
pub fn disruption_budget(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        out.push(FieldError::invalid(
            "spec",
            spec,
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let v = &spec[field];
        if v.is_null() {
            continue;
        }
        let path = format!("spec.{field}");
        out.extend(count_or_percent(&path, v));
        if v.as_str()
            .and_then(|s| s.strip_suffix('%')?.parse::<i64>().ok())
            .is_some_and(|percent| percent > 100)
        {
            out.push(FieldError::invalid_go(
                path,
                gostring::int_or_string(v),
                "must not be greater than 100%",
            ));
        }
    }
    out.extend(label_selector("spec.selector", &spec["selector"]));
    let policy = &spec["unhealthyPodEvictionPolicy"];
    if policy.is_string() && !matches!(text(policy), "AlwaysAllow" | "IfHealthyBudget") {
        out.push(FieldError::not_supported(
            "spec.unhealthyPodEvictionPolicy",
            policy,
            &["AlwaysAllow", "IfHealthyBudget"],
        ));
    }
    out
}

/// A PriorityClass.
pub fn priority_class(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let name = meta::name(obj);
    let value = obj["value"].as_i64().unwrap_or(0);
    if name.starts_with("system-") {
        let why = match SYSTEM_PRIORITIES.iter().find(|(known, _)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if *known != value => {
                Some(format!("value of {name} PriorityClass must be {known}"))
            }
            Some(_) if obj["globalDefault"] == true => Some(format!(
                "globalDefault of {name} PriorityClass must be false"
            )),
            Some(_) => None,
        };
        if let Some(why) = why {
            out.push(FieldError::forbidden(
                "metadata.name",
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
            ));
        }
    } else if value > HIGHEST_PRIORITY {
        out.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"),
        ));
    }
    let policy = &obj["preemptionPolicy"];
    if policy.is_string() && !matches!(text(policy), "Never" | "PreemptLowerPriority") {
        out.push(FieldError::not_supported(
            "preemptionPolicy",
            policy,
            &["PreemptLowerPriority", "Never"],
        ));
    }
    out
}

/// Value and policy of a PriorityClass are fixed.
pub fn priority_class_update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    if obj["value"].as_i64().unwrap_or(0) != old["value"].as_i64().unwrap_or(0) {
        out.push(FieldError::forbidden(
            "value",
            "may not be changed in an update.",
        ));
    }
    out.extend(immutable(
        "preemptionPolicy",
        &obj["preemptionPolicy"],
        &old["preemptionPolicy"],
    ));
    out
}

/// A RuntimeClass.
pub fn runtime_class(obj: &Value) -> Errors {
    let mut out: Errors = invalid_each(
        "handler",
        &text(&obj["handler"]).into(),
        names::dns_label(text(&obj["handler"])),
    )
    .collect();
    out.extend(labels(
        "scheduling.nodeSelector",
        &obj["scheduling"]["nodeSelector"],
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn system_priorities_are_the_systems() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert!(priority_class(&class("system-node-critical", 2_000_001_000)).is_empty());
        assert_eq!(
            texts(priority_class(&class("mine", 1_000_000_001))),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert_eq!(priority_class(&class("system-mine", 1)).len(), 1);
    }

    #[test]
    fn a_minimum_is_not_above_a_maximum() {
        let range = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
        assert_eq!(
            texts(limit_range(&range)),
            [
                "spec.limits[0].min[cpu]: Invalid value: resource.Quantity{i:resource.int64Amount{value:2, scale:0}, d:resource.infDecAmount{Dec:(*inf.Dec)(nil)}, s:\"2\", Format:\"DecimalSI\"}: min value 2 is greater than max value 1"
            ]
        );
    }

    #[test]
    fn a_budget_has_one_bound() {
        let both = json!({"spec": {"minAvailable": 1, "maxUnavailable": "10%"}});
        assert_eq!(disruption_budget(&both).len(), 1);
        assert!(disruption_budget(&json!({"spec": {"minAvailable": "50%"}})).is_empty());
        assert_eq!(
            disruption_budget(&json!({"spec": {"minAvailable": "101%"}})).len(),
            1
        );
    }

    #[test]
    fn quotas_count_whole_things() {
        let quota = |hard: Value| resource_quota(&json!({"spec": {"hard": hard}}));
        assert!(quota(json!({"pods": "5", "requests.cpu": "500m", "count/widgets.example.com": "1", "example.com/dongle": "3"})).is_empty());
        assert_eq!(quota(json!({"pods": "1500m"})).len(), 1);
        assert_eq!(quota(json!({"podz": "1"})).len(), 2);
    }
}
