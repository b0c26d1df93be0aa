//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers, Jobs, CronJobs.

use super::{Errors, gostring, immutable, label_selector, labels, nonnegative, pod, text};
use crate::field::FieldError;
use crate::meta;
use crate::selector::LabelSelector;
use serde_json::Value;

/// The template of pods that are found by their labels and always started again; `whole`: with everything that is wrong in it.
fn template_of_selected_pods(
    template: &Value,
    whole: bool,
    selected: impl Fn(&Value) -> bool,
) -> Errors {
    let mut out = Vec::new();
    let found = &template["metadata"]["labels"];
    if !selected(found) {
        out.push(FieldError::invalid_go(
            "spec.template.metadata.labels",
            gostring::string_map(found),
            "`selector` does not match template `labels`",
        ));
    }
    if whole {
        out.extend(template_errors(template));
    } else {
        out.extend(labels("spec.template.labels", found));
    }
    let policy = &template["spec"]["restartPolicy"];
    if *policy != "Always" && policy.is_string() {
        out.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
    out
}

/// Selector, template labels and pod template of a workload.
fn selector_and_template(spec: &Value, kind: &str) -> Errors {
    let mut out = Vec::new();
    let selector = &spec["selector"];
    let mut usable = true;
    if selector.is_object() {
        let errors = label_selector("spec.selector", selector);
        usable = errors.is_empty();
        out.extend(errors);
        if LabelSelector::from_value(selector).is_empty() {
            let shown = gostring::label_selector(selector);
            out.push(FieldError::invalid_go(
                "spec.selector",
                shown,
                format!(
                    "empty selector is invalid for {}",
                    // ReplicaSets share the words of Deployments.
                    if kind == "ReplicaSet" {
                        "deployment".into()
                    } else {
                        kind.to_lowercase()
                    }
                ),
            ));
        }
    } else {
        out.push(FieldError::required("spec.selector", ""));
    }
    if !usable {
        out.push(FieldError::invalid_go(
            "spec.selector",
            gostring::label_selector(selector),
            "invalid label selector",
        ));
        return out;
    }
    let template = &spec["template"];
    let wanted = LabelSelector::from_value(selector);
    // A StatefulSet's pods have volumes that the template does not name; what is wrong with them is said when they are made.
    let whole = kind != "StatefulSet";
    out.extend(template_of_selected_pods(template, whole, |labels| {
        wanted.is_empty() || wanted.matches_labels(labels)
    }));
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        out.push(FieldError::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            format!(
                "activeDeadlineSeconds in {} is not Supported",
                if kind == "Deployment" {
                    "ReplicaSet"
                } else {
                    kind
                }
            ),
        ));
    }
    out
}

/// Labels, annotations and pod spec of a template.
fn template_errors(template: &Value) -> Errors {
    let mut out = labels("spec.template.labels", &template["metadata"]["labels"]);
    for (k, _) in meta::annotations(template) {
        out.extend(super::invalid_each(
            "spec.template.annotations",
            &k.into(),
            super::names::qualified_name(&k.to_lowercase()),
        ));
    }
    out.extend(pod::spec("spec.template.spec", &template["spec"]));
    out
}

/// The counts in the status of a Deployment or ReplicaSet: none is negative, and none of a part larger than the whole.
pub fn status(obj: &Value) -> Errors {
    let (first, part) = match text(&obj["kind"]) {
        "Deployment" => (["observedGeneration", "replicas"], "updatedReplicas"),
        "ReplicaSet" => (["observedGeneration", "replicas"], "fullyLabeledReplicas"),
        _ => return Vec::new(),
    };
    let parts = [part, "readyReplicas", "availableReplicas"];
    let status = &obj["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let mut out = Vec::new();
    for key in first
        .into_iter()
        .chain(parts)
        .chain(["unavailableReplicas", "collisionCount"])
    {
        out.extend(nonnegative(format!("status.{key}"), &status[key]));
    }
    let mut larger = |key: &str, than: &str, said: &str| {
        if number(key) > number(than) {
            out.push(FieldError::invalid(
                format!("status.{key}"),
                &number(key).into(),
                format!("cannot be greater than {said}"),
            ));
        }
    };
    for part in parts {
        larger(part, "replicas", "status.replicas");
    }
    larger("availableReplicas", "readyReplicas", "readyReplicas");
    out
}

/// A Deployment.
pub fn deployment(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    out.extend(nonnegative("spec.replicas".into(), &spec["replicas"]));
    out.extend(selector_and_template(spec, "Deployment"));
    out.extend(strategy(&spec["strategy"]));
    for key in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        out.extend(nonnegative(format!("spec.{key}"), &spec[key]));
    }
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0))
    {
        out.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
    out
}

fn strategy(s: &Value) -> Errors {
    let mut out = Vec::new();
    let rolling = &s["rollingUpdate"];
    match text(&s["type"]) {
        "Recreate" => {
            if !rolling.is_null() {
                out.push(FieldError::forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                ));
            }
        }
        "RollingUpdate" => {
            let path = "spec.strategy.rollingUpdate";
            for key in ["maxUnavailable", "maxSurge"] {
                out.extend(count_or_percent(&format!("{path}.{key}"), &rolling[key]));
            }
            let zero = |v: &Value| {
                matches!(v.as_str().map(|s| s.trim_end_matches('%')), Some("0"))
                    || v.as_i64() == Some(0)
            };
            let unavailable = &rolling["maxUnavailable"];
            let path = format!("{path}.maxUnavailable");
            if zero(unavailable) && zero(&rolling["maxSurge"]) {
                out.push(FieldError::invalid_go(
                    path.as_str(),
                    gostring::int_or_string(unavailable),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            if unavailable
                .as_str()
                .and_then(|s| s.strip_suffix('%')?.parse::<i64>().ok())
                .is_some_and(|p| p > 100)
            {
                out.push(FieldError::invalid_go(
                    path,
                    gostring::int_or_string(unavailable),
                    "must not be greater than 100%",
                ));
            }
        }
        other => {
            let mut e = FieldError::not_supported(
                "spec.strategy",
                &Value::Null,
                &["Recreate", "RollingUpdate"],
            );
            let quoted = crate::field::quote(other);
            e.shown = Some(format!(
                "apps.DeploymentStrategy{{Type:{quoted}, RollingUpdate:(*apps.RollingUpdateDeployment)(nil)}}"
            ));
            out.push(e);
        }
    }
    out
}

pub(super) fn count_or_percent(path: &str, v: &Value) -> Option<FieldError> {
    match v {
        Value::String(s) => {
            let percent = s
                .strip_suffix('%')
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            (!percent).then(|| {
                FieldError::invalid_go(
                    path,
                    gostring::int_or_string(v),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                )
            })
        }
        _ => nonnegative(path.into(), v),
    }
}

/// A ReplicaSet.
pub fn replica_set(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    out.extend(nonnegative("spec.replicas".into(), &spec["replicas"]));
    out.extend(nonnegative(
        "spec.minReadySeconds".into(),
        &spec["minReadySeconds"],
    ));
    out.extend(selector_and_template(spec, "ReplicaSet"));
    out
}

/// A StatefulSet.
pub fn stateful_set(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let management = &spec["podManagementPolicy"];
    if !matches!(text(management), "OrderedReady" | "Parallel") {
        out.push(FieldError::invalid(
            "spec.podManagementPolicy",
            management,
            "must be 'OrderedReady' or 'Parallel'",
        ));
    }
    for key in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][key];
        if !matches!(text(policy), "" | "Retain" | "Delete") {
            out.push(FieldError::not_supported(
                format!("spec.persistentVolumeClaimRetentionPolicy.{key}"),
                policy,
                &["Retain", "Delete"],
            ));
        }
    }
    let strategy = &spec["updateStrategy"];
    match text(&strategy["type"]) {
        "RollingUpdate" => out.extend(nonnegative(
            "spec.updateStrategy.rollingUpdate.partition".into(),
            &strategy["rollingUpdate"]["partition"],
        )),
        "OnDelete" if strategy["rollingUpdate"].is_object() => out.push(FieldError::invalid(
            "spec.updateStrategy.rollingUpdate",
            &strategy["rollingUpdate"],
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        "OnDelete" => {}
        _ => out.push(FieldError::invalid(
            "spec.updateStrategy",
            strategy,
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
    for key in ["replicas", "minReadySeconds"] {
        out.extend(nonnegative(format!("spec.{key}"), &spec[key]));
    }
    out.extend(nonnegative(
        "spec.ordinals.start".into(),
        &spec["ordinals"]["start"],
    ));
    out.extend(selector_and_template(spec, "StatefulSet"));
    out
}

/// What of a StatefulSet may change.
pub fn stateful_set_update(obj: &Value, old: &Value) -> Option<FieldError> {
    const FREE: [&str; 6] = [
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
    ];
    let fixed = |o: &Value| {
        let mut spec = o["spec"].as_object().cloned().unwrap_or_default();
        spec.retain(|field, _| !FREE.contains(&field.as_str()));
        spec
    };
    (fixed(obj) != fixed(old)).then(|| {
        FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )
    })
}

/// A DaemonSet.
pub fn daemon_set(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = selector_and_template(spec, "DaemonSet");
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        out.extend(nonnegative(format!("spec.{key}"), &spec[key]));
    }
    let strategy = &spec["updateStrategy"];
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            for key in ["maxUnavailable", "maxSurge"] {
                out.extend(count_or_percent(
                    &format!("spec.updateStrategy.rollingUpdate.{key}"),
                    &strategy["rollingUpdate"][key],
                ));
            }
            let zero = |key: &str| {
                let v = &strategy["rollingUpdate"][key];
                v.as_i64().unwrap_or(0) == 0
                    && v.as_str().is_none_or(|s| s.trim_end_matches('%') == "0")
            };
            if zero("maxUnavailable") && zero("maxSurge") {
                out.push(FieldError::required(
                    "spec.updateStrategy.rollingUpdate.maxUnavailable",
                    "cannot be 0 when maxSurge is 0",
                ));
            }
        }
        other => {
            let mut e = FieldError::not_supported(
                "spec.updateStrategy",
                &Value::Null,
                &["RollingUpdate", "OnDelete"],
            );
            e.shown = Some(format!(
                "apps.DaemonSetUpdateStrategy{{Type:{}, RollingUpdate:(*apps.RollingUpdateDaemonSet)(nil)}}",
                crate::field::quote(other)
            ));
            out.push(e);
        }
    }
    out
}

/// A ReplicationController.
pub fn replication_controller(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    out.extend(nonnegative(
        "spec.minReadySeconds".into(),
        &spec["minReadySeconds"],
    ));
    let selector = &spec["selector"];
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        out.push(FieldError::required("spec.selector", ""));
    }
    out.extend(nonnegative("spec.replicas".into(), &spec["replicas"]));
    let template = &spec["template"];
    if !template.is_object() {
        out.push(FieldError::required("spec.template", ""));
        return out;
    }
    out.extend(template_of_selected_pods(template, true, |labels| {
        meta::pairs(selector).all(|(key, value)| labels[key] == value)
    }));
    out
}

/// A PodTemplate.
pub fn pod_template(obj: &Value) -> Errors {
    let mut out = labels("template.labels", &obj["template"]["metadata"]["labels"]);
    out.extend(pod::spec("template.spec", &obj["template"]["spec"]));
    out
}

/// A ControllerRevision.
pub fn controller_revision(obj: &Value) -> Errors {
    let mut out = Vec::new();
    match &obj["data"] {
        Value::Null => out.push(FieldError::required("data", "data is mandatory")),
        Value::Object(_) => {}
        _ => out.push(FieldError::required(
            "data",
            "data must be a valid JSON object",
        )),
    }
    out.extend(nonnegative("revision".into(), &obj["revision"]));
    out
}

/// What a ControllerRevision holds is fixed.
pub fn controller_revision_update(obj: &Value, old: &Value) -> Option<FieldError> {
    (obj["data"] != old["data"])
        .then(|| FieldError::invalid_go("data", gostring::raw(&obj["data"]), "field is immutable"))
}

/// A CronJob.
pub fn cron_job(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let schedule = &spec["schedule"];
    let written = text(schedule);
    if written.is_empty() {
        out.push(FieldError::required("spec.schedule", ""));
    } else if written.contains("TZ") {
        out.push(FieldError::invalid(
            "spec.schedule",
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    } else if let Err(why) = crate::cron::Schedule::parse(written) {
        out.push(FieldError::invalid("spec.schedule", schedule, why));
    }
    let zone = &spec["timeZone"];
    if zone.is_string() && !matches!(text(zone), "UTC" | "Etc/UTC") {
        // Zones other than UTC need a database that is not built in.
        out.push(FieldError::invalid(
            "spec.timeZone",
            zone,
            format!("unknown time zone {}", text(zone)),
        ));
    }
    let policy = &spec["concurrencyPolicy"];
    if !matches!(text(policy), "Allow" | "Forbid" | "Replace") {
        out.push(FieldError::not_supported(
            "spec.concurrencyPolicy",
            policy,
            &["Allow", "Forbid", "Replace"],
        ));
    }
    for key in [
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
    ] {
        out.extend(nonnegative(format!("spec.{key}"), &spec[key]));
    }
    let jobs = &spec["jobTemplate"]["spec"];
    let path = "spec.jobTemplate.spec.template.spec";
    out.extend(pod::spec(path, &jobs["template"]["spec"]));
    if !matches!(
        text(&jobs["template"]["spec"]["restartPolicy"]),
        "OnFailure" | "Never"
    ) {
        out.push(FieldError::required(
            format!("{path}.restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    out
}

/// Selectors of Deployments and ReplicaSets are fixed.
pub fn selector_update(obj: &Value, old: &Value) -> Option<FieldError> {
    let (new, old) = (&obj["spec"]["selector"], &old["spec"]["selector"]);
    (new != old).then(|| {
        FieldError::invalid_go(
            "spec.selector",
            gostring::label_selector(new),
            "field is immutable",
        )
    })
}

/// A Job.
pub fn job(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        out.extend(nonnegative(format!("spec.{key}"), &spec[key]));
    }
    match text(&spec["completionMode"]) {
        "NonIndexed" | "Indexed" | "" => {}
        _ => out.push(FieldError::not_supported(
            "spec.completionMode",
            &spec["completionMode"],
            &["Indexed", "NonIndexed"],
        )),
    }
    let template = &spec["template"];
    out.extend(template_errors(template));
    if !matches!(
        text(&template["spec"]["restartPolicy"]),
        "OnFailure" | "Never"
    ) {
        out.push(FieldError::required(
            "spec.template.spec.restartPolicy",
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    out
}

/// What a Job refuses to change.
pub fn job_update(obj: &Value, old: &Value) -> Errors {
    let (new, old_spec) = (&obj["spec"], &old["spec"]);
    let mut out = Vec::new();
    let indexed =
        text(&new["completionMode"]) == "Indexed" && new["completions"] == new["parallelism"];
    if !indexed {
        out.extend(immutable(
            "spec.completions",
            &new["completions"],
            &old_spec["completions"],
        ));
    }
    if new["selector"] != old_spec["selector"] {
        out.push(FieldError::invalid_go(
            "spec.selector",
            gostring::label_selector(&new["selector"]),
            "field is immutable",
        ));
    }
    // A suspended job that has not started may be told where to run.
    let (mut a, mut b) = (new["template"].clone(), old_spec["template"].clone());
    let movable = old_spec["suspend"] == true && old["status"]["startTime"].is_null();
    if movable {
        for t in [&mut a, &mut b] {
            for key in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                if let Some(m) = t.get_mut("spec").and_then(Value::as_object_mut) {
                    m.shift_remove(key);
                }
            }
            if let Some(m) = t.get_mut("metadata").and_then(Value::as_object_mut) {
                m.shift_remove("labels");
                m.shift_remove("annotations");
            }
        }
    }
    out.extend(immutable("spec.template", &a, &b));
    out.extend(immutable(
        "spec.completionMode",
        &new["completionMode"],
        &old_spec["completionMode"],
    ));
    out
}
