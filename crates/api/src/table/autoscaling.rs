//! Rows of HorizontalPodAutoscalers.

use super::{age, list, text_or};
use crate::autoscaling::{source_of, to_v2};
use crate::meta;
use crate::time::Time;
use serde_json::Value;

/// The cells of an autoscaler of either version.
pub(super) fn cells(o: &Value, now: Time) -> Vec<Value> {
    let converted;
    let v2 = if o["apiVersion"] == "autoscaling/v1" {
        converted = to_v2(o);
        &converted
    } else {
        o
    };
    let spec = &v2["spec"];
    let mut wanted = list(&spec["metrics"]).to_vec();
    if !o["spec"]["targetCPUUtilizationPercentage"].is_null() && !wanted.is_empty() {
        // v1 has it in a field of its own, which does not tell its place among the metrics: the first, as people write them.
        wanted.rotate_right(1);
    }
    let target = &spec["scaleTargetRef"];
    let least = spec["minReplicas"]
        .as_i64()
        .map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        meta::name(o).into(),
        format!(
            "{}/{}",
            text_or(&target["kind"], ""),
            text_or(&target["name"], "")
        )
        .into(),
        metrics(&wanted, list(&v2["status"]["currentMetrics"])).into(),
        least.into(),
        spec["maxReplicas"].as_i64().unwrap_or(0).into(),
        v2["status"]["currentReplicas"].as_i64().unwrap_or(0).into(),
        age(o, now),
    ]
}

fn metrics(wanted: &[Value], seen: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".into();
    }
    let all: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(i, w)| metric(w, seen.get(i)))
        .collect();
    match all.len() {
        0..=2 => all.join(", "),
        n => format!("{} + {} more...", all[..2].join(", "), n - 2),
    }
}

/// `cpu: 5%/80%`: what is seen and what is aimed at.
fn metric(wanted: &Value, seen: Option<&Value>) -> String {
    let source = source_of(text_or(&wanted["type"], ""));
    let (w, none) = (&wanted[&source], Value::Null);
    let s = seen.map_or(&none, |s| &s[&source]);
    let amount = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Null => "<unknown>".to_owned(),
        other => other.to_string(),
    };
    let average = !w["target"]["averageValue"].is_null();
    let value = if average { "averageValue" } else { "value" };
    let pair = format!(
        "{}/{}",
        amount(&s["current"][value]),
        amount(&w["target"][value])
    );
    match source.as_str() {
        "external" | "object" if average => format!("{pair} (avg)"),
        "external" | "object" | "pods" => pair,
        "resource" | "containerResource" if average => {
            format!("{}: {pair}", text_or(&w["name"], ""))
        }
        "resource" | "containerResource" => {
            let percent = |v: &Value, none: &str| {
                v.as_i64()
                    .map_or_else(|| none.to_owned(), |n| format!("{n}%"))
            };
            format!(
                "{}: {}/{}",
                text_or(&w["name"], ""),
                percent(&s["current"]["averageUtilization"], "<unknown>"),
                percent(&w["target"]["averageUtilization"], "<auto>"),
            )
        }
        _ => "<unknown type>".into(),
    }
}
