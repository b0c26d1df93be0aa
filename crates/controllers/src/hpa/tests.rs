use std::sync::Arc;

use api::time::Time;
use serde_json::{Value, json};
use time::Duration;

use super::{Decision, History, Observed, decide, finish};

const NOW: Time = time::macros::datetime!(2026-01-01 12:00:00 UTC);

fn at(seconds_ago: i64) -> Value {
    api::time::rfc3339(NOW - Duration::seconds(seconds_ago)).into()
}

fn pod(name: &str, ready: bool, age: i64) -> Arc<Value> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        json!({"metadata": {"name": name, "namespace": "n", "labels": {"app": "w"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"phase": "Running", "startTime": at(age),
            "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": at(age - 1)}]}}),
    )
}

fn usage(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n"}, "timestamp": at(0), "window": "15s",
        "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "1Mi"}}]})
}

fn observed(replicas: i64, spec: Value, pods: Vec<Arc<Value>>, metrics: Vec<Value>) -> Observed {
    let mut whole = json!({"minReplicas": 1, "maxReplicas": 10,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Observed {
        autoscaler: Arc::new(json!({"metadata": {"name": "h", "namespace": "n"}, "spec": whole})),
        scale: Ok(
            json!({"spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=w"}}),
        ),
        pods,
        metrics: Ok(metrics),
        rivals: Vec::new(),
        now: NOW,
    }
}

/// `n` pods of ten minutes that each use so much CPU.
fn steady(replicas: i64, cpu: &str, spec: Value) -> Observed {
    let names: Vec<String> = (0..replicas).map(|i| format!("p{i}")).collect();
    let pods = names.iter().map(|name| pod(name, true, 600)).collect();
    observed(
        replicas,
        spec,
        pods,
        names.iter().map(|name| usage(name, cpu)).collect(),
    )
}

fn condition(decision: &Decision, kind: &str) -> (String, String) {
    let all = decision.status["conditions"].as_array().unwrap();
    let found = all
        .iter()
        .find(|c| c["type"] == kind)
        .unwrap_or(&Value::Null);
    let text = |key: &str| found[key].as_str().unwrap_or("").to_owned();
    (text("status"), text("reason"))
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn wanted(observed: &Observed) -> Option<i64> {
    decide(observed, &mut History::default())
        .rescale
        .map(|(n, _)| n)
}

#[test]
fn replicas_follow_the_ratio_and_small_differences_are_left() {
    // 90 % of the request where 50 % is aimed at: ceil(2 * 1.8).
    assert_eq!(wanted(&steady(2, "90m", json!({}))), Some(4));
    assert_eq!(wanted(&steady(2, "54m", json!({}))), None, "within a tenth");
    assert_eq!(wanted(&steady(2, "56m", json!({}))), Some(3));
}

#[test]
fn a_decision_names_its_reason_in_conditions_and_event() {
    let seen = steady(2, "90m", json!({}));
    let mut history = History::default();
    let decision = decide(&seen, &mut history);
    assert_eq!(
        condition(&decision, "ScalingActive"),
        pair("True", "ValidMetricFound")
    );
    assert_eq!(
        condition(&decision, "ScalingLimited"),
        pair("False", "DesiredWithinRange")
    );
    assert_eq!(
        decision.status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 90, "averageValue": "90m"})
    );
    let (patch, events) = finish(&seen, decision, Ok(()), &mut history);
    let status = match patch.unwrap().verb {
        crate::action::Verb::Patch(patch, Some("status")) => patch["status"].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (&status["desiredReplicas"], &status["lastScaleTime"]),
        (&json!(4), &at(0))
    );
    assert_eq!(
        events[0].message,
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    );
}

#[test]
fn bounds_win_over_metrics() {
    assert_eq!(wanted(&steady(4, "1m", json!({"maxReplicas": 3}))), Some(3));
    assert_eq!(wanted(&steady(1, "1m", json!({"minReplicas": 2}))), Some(2));
    let decision = decide(
        &steady(3, "500m", json!({"maxReplicas": 5})),
        &mut History::default(),
    );
    assert_eq!(decision.rescale.as_ref().unwrap().0, 5);
    assert_eq!(
        condition(&decision, "ScalingLimited"),
        pair("True", "TooManyReplicas")
    );
    let decision = decide(
        &steady(3, "500m", json!({"maxReplicas": 50})),
        &mut History::default(),
    );
    assert_eq!(
        decision.rescale.as_ref().unwrap().0,
        6,
        "at most twice as many at once"
    );
    assert_eq!(
        condition(&decision, "ScalingLimited"),
        pair("True", "ScaleUpLimit")
    );
    let decision = decide(&steady(0, "1m", json!({})), &mut History::default());
    assert_eq!(
        condition(&decision, "ScalingActive"),
        pair("False", "ScalingDisabled")
    );
    assert!(decision.rescale.is_none());
}

#[test]
fn scaling_down_waits_for_five_minutes_of_low_recommendations() {
    let mut history = History::default();
    let mut seen = steady(4, "5m", json!({}));
    let decision = decide(&seen, &mut history);
    assert!(decision.rescale.is_none(), "{decision:?}");
    assert_eq!(
        condition(&decision, "AbleToScale"),
        pair("True", "ScaleDownStabilized")
    );
    seen.now = NOW + Duration::seconds(301);
    let decision = decide(&seen, &mut history);
    assert_eq!(
        decision.rescale,
        Some((1, "All metrics below target".to_owned()))
    );
}

#[test]
fn a_window_of_zero_and_policies_rule_scaling_down() {
    let behavior = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}});
    let mut history = History::default();
    let mut seen = steady(4, "5m", behavior.clone());
    let decision = decide(&seen, &mut history);
    assert_eq!(decision.rescale.as_ref().unwrap().0, 3, "one pod a minute");
    assert_eq!(
        condition(&decision, "ScalingLimited"),
        pair("True", "ScaleDownLimit")
    );
    finish(&seen, decision, Ok(()), &mut history);
    seen = steady(3, "5m", behavior.clone());
    seen.now = NOW + Duration::seconds(15);
    assert!(
        decide(&seen, &mut history).rescale.is_none(),
        "the minute is not over"
    );
    seen.now = NOW + Duration::seconds(61);
    assert_eq!(decide(&seen, &mut history).rescale.unwrap().0, 2);
    let mut off = behavior;
    off["behavior"]["scaleUp"]["selectPolicy"] = "Disabled".into();
    assert_eq!(wanted(&steady(4, "500m", off)), None);
}

#[test]
fn pods_without_a_metric_and_starting_pods_do_not_exaggerate() {
    // One of two has no metric: it counts as idle when growing, as busy when shrinking.
    let pods = vec![pod("p0", true, 600), pod("p1", true, 600)];
    assert_eq!(
        wanted(&observed(
            2,
            json!({}),
            pods.clone(),
            vec![usage("p0", "200m")]
        )),
        Some(4)
    );
    assert_eq!(
        wanted(&observed(
            2,
            json!({}),
            pods.clone(),
            vec![usage("p0", "120m")]
        )),
        Some(3)
    );
    let mut history = History::default();
    let decision = decide(
        &observed(2, json!({}), pods, vec![usage("p0", "1m")]),
        &mut history,
    );
    assert!(decision.rescale.is_none(), "{decision:?}");
    // A pod that just started burns CPU to start: it is not counted.
    let pods = vec![pod("p0", true, 600), pod("p1", false, 10)];
    let busy = vec![usage("p0", "50m"), usage("p1", "900m")];
    assert_eq!(wanted(&observed(2, json!({}), pods, busy)), None);
    let young = vec![pod("p0", true, 10)];
    let decision = decide(
        &observed(1, json!({}), young, vec![usage("p0", "900m")]),
        &mut History::default(),
    );
    assert_eq!(
        condition(&decision, "ScalingActive"),
        pair("False", "FailedGetResourceMetric")
    );
    assert_eq!(
        decision.events[0].message,
        "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)"
    );
}

#[test]
fn what_cannot_be_read_is_said_and_changes_nothing() {
    let mut seen = steady(2, "90m", json!({}));
    seen.scale = Err("deployments.apps \"w\" not found".to_owned());
    let decision = decide(&seen, &mut History::default());
    assert_eq!(
        condition(&decision, "AbleToScale"),
        pair("False", "FailedGetScale")
    );
    let mut seen = steady(2, "90m", json!({}));
    let mut bare = seen.pods[0].as_ref().clone();
    bare["spec"]["containers"][0]["resources"] = json!({});
    seen.pods[0] = Arc::new(bare);
    let decision = decide(&seen, &mut History::default());
    assert!(decision.rescale.is_none());
    assert_eq!(
        decision.events[0].message,
        "failed to get cpu utilization: missing request for cpu in container c of Pod p0"
    );
    assert_eq!(
        decision.events[1].message,
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: missing request for cpu in container c of Pod p0"
    );
    let mut seen = steady(2, "90m", json!({}));
    seen.rivals = vec!["other".to_owned()];
    assert_eq!(
        condition(&decide(&seen, &mut History::default()), "ScalingActive"),
        pair("False", "AmbiguousSelector")
    );
}

#[test]
fn one_broken_metric_does_not_stop_another_from_growing() {
    let metrics = json!({"metrics": [
        {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}},
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "50m"}}}]});
    assert_eq!(wanted(&steady(2, "90m", metrics.clone())), Some(4));
    assert_eq!(wanted(&steady(2, "1m", metrics)), None);
}
