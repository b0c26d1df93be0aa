//! HorizontalPodAutoscalers in their two versions.
//!
//! They are kept as `autoscaling/v2`. `autoscaling/v1` knows one metric, the share of the requested CPU; what else an object
//! says travels in annotations, so that a client of v1 loses nothing when it writes back what it read.

use crate::meta;
use serde_json::{Map, Value, json};

/// The group.
pub const GROUP: &str = "autoscaling";
/// Annotation of a v1 object: metrics that it has no field for.
pub(crate) const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Share of the requested CPU, in percent, that is aimed at when nothing is said.
pub const DEFAULT_UTILIZATION: i64 = 80;

/// Where each part of a metric is in v2, and its name in v1. `T` stands for `target` (wanted) or `current` (seen).
type Names = &'static [(&'static [&'static str], &'static str, &'static str)];

/// Parts of each source: path in v2, name in v1 of a wanted metric, name in v1 of a seen one.
fn names(source: &str) -> Names {
    match source {
        "object" => &[
            (&["describedObject"], "target", "target"),
            (&["metric", "name"], "metricName", "metricName"),
            (&["metric", "selector"], "selector", "selector"),
            (&["T", "value"], "targetValue", "currentValue"),
            (&["T", "averageValue"], "averageValue", "averageValue"),
        ],
        "pods" => &[
            (&["metric", "name"], "metricName", "metricName"),
            (&["metric", "selector"], "selector", "selector"),
            (
                &["T", "averageValue"],
                "targetAverageValue",
                "currentAverageValue",
            ),
        ],
        "external" => &[
            (&["metric", "name"], "metricName", "metricName"),
            (&["metric", "selector"], "metricSelector", "metricSelector"),
            (&["T", "value"], "targetValue", "currentValue"),
            (
                &["T", "averageValue"],
                "targetAverageValue",
                "currentAverageValue",
            ),
        ],
        _ => &[
            (&["name"], "name", "name"),
            (&["container"], "container", "container"),
            (
                &["T", "averageUtilization"],
                "targetAverageUtilization",
                "currentAverageUtilization",
            ),
            (
                &["T", "averageValue"],
                "targetAverageValue",
                "currentAverageValue",
            ),
        ],
    }
}

/// The member of a metric that holds its source: `Resource` → `resource`.
pub fn source_of(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn first_upper(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// A metric in the other version. `seen`: of the status.
fn metric(value: &Value, seen: bool, to_v1: bool) -> Value {
    let kind = value["type"].as_str().unwrap_or("");
    let source = source_of(kind);
    let half = if seen { "current" } else { "target" };
    let body = &value[&source];
    let mut out = json!({});
    for (path, wanted, current) in names(&source) {
        let name = if seen { current } else { wanted };
        let path: Vec<&str> = path
            .iter()
            .map(|p| if *p == "T" { half } else { p })
            .collect();
        if to_v1 {
            let part = path.iter().fold(body, |at, key| &at[*key]);
            if !part.is_null() {
                out[*name] = part.clone();
            }
        } else if !body[*name].is_null() {
            let mut slot = &mut out;
            for key in path {
                slot = &mut slot[key];
            }
            *slot = body[*name].clone();
        }
    }
    if !to_v1 && !seen {
        let target = &out["target"];
        let type_ = if !target["averageUtilization"].is_null() {
            "Utilization"
        } else if !target["value"].is_null() && target["averageValue"].is_null() {
            "Value"
        } else {
            "AverageValue"
        };
        out["target"]["type"] = type_.into();
    }
    let mut metric = json!({"type": kind});
    metric[source] = out;
    metric
}

/// Members under other names, all the way down: the annotation has the behavior in the spelling of Go's fields.
fn respell(value: &Value, spell: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (spell(k), respell(v, spell)))
                .collect(),
        ),
        Value::Array(list) => list.iter().map(|v| respell(v, spell)).collect(),
        other => other.clone(),
    }
}

/// Is it the one metric that v1 has a field for?
fn is_cpu_share(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && !metric["resource"]["target"]["averageUtilization"].is_null()
}

fn cpu_share(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn entries(v: &Value) -> &[Value] {
    v.as_array().map_or(&[], Vec::as_slice)
}

fn drop_annotations(object: &mut Value) {
    let Some(all) = object["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for name in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        all.shift_remove(name);
    }
    if all.is_empty() {
        meta::unset(object, "annotations");
    }
}

fn annotate(object: &mut Value, name: &str, value: &Value) {
    let metadata = meta::metadata_mut(object);
    let all = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    all[name] = value.to_string().into();
}

/// An `autoscaling/v2` object as `autoscaling/v1` shows it.
pub fn to_v1(object: &Value) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = "autoscaling/v1".into();
    drop_annotations(&mut out);
    let (spec, status) = (&object["spec"], &object["status"]);
    let metrics = entries(&spec["metrics"]);
    let others: Value = metrics
        .iter()
        .filter(|m| !is_cpu_share(m))
        .map(|m| metric(m, false, true))
        .collect();
    if others != json!([]) {
        annotate(&mut out, METRICS, &others);
    }
    let seen = entries(&status["currentMetrics"]);
    if !seen.is_empty() {
        let seen: Value = seen.iter().map(|m| metric(m, true, true)).collect();
        annotate(&mut out, CURRENT_METRICS, &seen);
    }
    if spec["behavior"].is_object() {
        annotate(&mut out, BEHAVIOR, &respell(&spec["behavior"], first_upper));
    }
    if !entries(&status["conditions"]).is_empty() {
        annotate(&mut out, CONDITIONS, &status["conditions"]);
    }
    if let Some(spec) = out["spec"].as_object_mut() {
        spec.shift_remove("metrics");
        spec.shift_remove("behavior");
        if let Some(share) = metrics.iter().find(|m| is_cpu_share(m)) {
            let percent = share["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
    }
    if let Some(shown) = out.get_mut("status").and_then(Value::as_object_mut) {
        shown.shift_remove("conditions");
        shown.shift_remove("currentMetrics");
        let percent = seen
            .iter()
            .filter(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu")
            .map(|m| &m["resource"]["current"]["averageUtilization"])
            .find(|percent| !percent.is_null());
        if let Some(percent) = percent {
            shown.insert("currentCPUUtilizationPercentage".into(), percent.clone());
        }
    }
    out
}

/// An `autoscaling/v1` object in the version that is kept.
pub fn to_v2(object: &Value) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = "autoscaling/v2".into();
    let annotation = |name: &str| -> Option<Value> {
        serde_json::from_str(meta::annotation(object, name)?).ok()
    };
    drop_annotations(&mut out);
    let mut metrics: Vec<Value> = annotation(METRICS)
        .map(|m| {
            entries(&m)
                .iter()
                .map(|m| metric(m, false, false))
                .collect()
        })
        .unwrap_or_default();
    let percent = &object["spec"]["targetCPUUtilizationPercentage"];
    if !percent.is_null() {
        metrics.push(cpu_share(percent));
    } else if metrics.is_empty() {
        metrics.push(cpu_share(&DEFAULT_UTILIZATION.into()));
    }
    let spec = meta::map_mut(&mut out, "spec");
    spec.shift_remove("targetCPUUtilizationPercentage");
    spec.insert("metrics".into(), metrics.into());
    if let Some(behavior) = annotation(BEHAVIOR).filter(Value::is_object) {
        spec.insert("behavior".into(), respell(&behavior, source_of));
    }
    let percent = object["status"]["currentCPUUtilizationPercentage"].clone();
    let seen = annotation(CURRENT_METRICS)
        .map(|m| entries(&m).iter().map(|m| metric(m, true, false)).collect::<Value>())
        .or_else(|| {
            (!percent.is_null()).then(|| {
                json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}])
            })
        });
    let conditions = annotation(CONDITIONS);
    if let Some(status) = out.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("currentCPUUtilizationPercentage");
        status.insert("currentMetrics".into(), seen.unwrap_or_default());
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"mine": "1"}},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "w"},
                "behavior": {"scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"currentReplicas": 1, "desiredReplicas": 1,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "14m"}}}]}})
    }

    #[test]
    fn a_client_of_v1_loses_nothing() {
        let v1 = to_v1(&whole());
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 7);
        let notes = &v1["metadata"]["annotations"];
        assert_eq!(
            notes[METRICS],
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1k"}}]"#
        );
        assert!(
            notes[BEHAVIOR]
                .as_str()
                .unwrap()
                .starts_with(r#"{"ScaleUp":{"SelectPolicy":"#)
        );
        let back = to_v2(&v1);
        assert_eq!(back["metadata"], whole()["metadata"]);
        assert_eq!(back["spec"]["metrics"], whole()["spec"]["metrics"]);
        assert_eq!(back["spec"]["behavior"], whole()["spec"]["behavior"]);
        assert_eq!(back["status"], whole()["status"]);
    }

    #[test]
    fn v1_without_a_metric_aims_at_80_percent_of_the_cpu() {
        let v2 = to_v2(&json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3}}));
        assert_eq!(v2["spec"]["metrics"], json!([cpu_share(&80.into())]));
        assert!(v2.get("status").is_none());
    }
}
