//! How many replicas the metrics ask for.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::time::Time;
use serde_json::{Value, json};
use time::Duration;

use super::{Decision, Observed, set_condition};
use crate::action::Event;
use crate::object::{condition, int, is_terminating, items, text, time_at};

/// Ratios this close to 1 change nothing.
const TOLERANCE: f64 = 0.1;
/// While a pod is younger, its CPU counts only when it is ready and was measured since.
const CPU_INITIALIZATION: Duration = Duration::minutes(5);
/// A pod that was unready from so long after its start on is taken for one that never was ready.
const INITIAL_READINESS: Duration = Duration::seconds(30);

/// What all metrics together ask for.
pub(super) struct Proposal {
    /// Replicas and the metric that asks for most; none when the metrics cannot be relied on.
    pub wanted: Option<(i64, String)>,
    /// What was seen, one entry a metric, for the status; null where it could not be read.
    pub seen: Vec<Value>,
    /// What went wrong, for an event.
    pub error: Option<String>,
}

/// Why a metric cannot be used: the reason of the condition, what is wrong, and what was being tried.
struct Unusable {
    reason: &'static str,
    error: String,
    context: String,
}

/// Asks every metric; the highest answer counts. A metric that cannot be read must not shrink the target.
pub(super) fn propose(
    observed: &Observed,
    scale: &Value,
    current: i64,
    out: &mut Decision,
) -> Proposal {
    let (autoscaler, now) = (&observed.autoscaler, observed.now);
    let none = |error: &str| Proposal {
        wanted: None,
        seen: Vec::new(),
        error: Some(error.to_owned()),
    };
    let selector = text(&scale["status"]["selector"]);
    if selector.is_empty() {
        let error = "selector is required";
        out.events
            .push(Event::warning(autoscaler, "SelectorRequired", error));
        let message = "the HPA target's scale is missing a selector";
        set_condition(
            &mut out.status,
            "ScalingActive",
            false,
            "InvalidSelector",
            message,
            now,
        );
        return none(error);
    }
    let Ok(parsed) = LabelSelector::parse(selector) else {
        let error = format!(
            "couldn't convert selector into a corresponding internal selector object: {selector}"
        );
        out.events
            .push(Event::warning(autoscaler, "InvalidSelector", error.clone()));
        set_condition(
            &mut out.status,
            "ScalingActive",
            false,
            "InvalidSelector",
            &error,
            now,
        );
        return none(&error);
    };
    if !observed.rivals.is_empty() {
        let ns = api::meta::namespace(autoscaler);
        let all: Vec<String> = std::iter::once(api::meta::name(autoscaler))
            .chain(observed.rivals.iter().map(String::as_str))
            .map(|name| format!("{ns}/{name}"))
            .collect();
        let error = format!(
            "pods by selector {selector} are controlled by multiple HPAs: [{}]",
            all.join(" ")
        );
        out.events.push(Event::warning(
            autoscaler,
            "AmbiguousSelector",
            error.clone(),
        ));
        set_condition(
            &mut out.status,
            "ScalingActive",
            false,
            "AmbiguousSelector",
            &error,
            now,
        );
        return none(&error);
    }
    let pods: Vec<&Value> = observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| parsed.matches(pod))
        .collect();
    let wanted_metrics = items(&autoscaler["spec"]["metrics"]);
    let mut best: Option<(i64, String)> = None;
    let mut seen = Vec::new();
    let mut broken: Vec<Unusable> = Vec::new();
    for metric in wanted_metrics {
        match one(metric, observed, &pods, current) {
            Ok((replicas, name, status)) => {
                seen.push(status);
                if best.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    best = Some((replicas, name));
                }
            }
            Err(unusable) => {
                seen.push(json!({"type": ""}));
                out.events.push(Event::warning(
                    autoscaler,
                    unusable.reason,
                    unusable.error.clone(),
                ));
                broken.push(unusable);
            }
        }
    }
    let error = broken.first().map(|first| {
        format!(
            "invalid metrics ({} invalid out of {}), first error is: {}{}",
            broken.len(),
            wanted_metrics.len(),
            first.context,
            first.error
        )
    });
    let shrinks = best
        .as_ref()
        .is_none_or(|(replicas, _)| *replicas < current);
    if let Some(first) = broken.first()
        && shrinks
    {
        let message = format!(
            "the HPA was unable to compute the replica count: {}",
            first.error
        );
        set_condition(
            &mut out.status,
            "ScalingActive",
            false,
            first.reason,
            &message,
            now,
        );
        best = None;
    } else if let Some((_, metric)) = &best {
        let message =
            format!("the HPA was able to successfully calculate a replica count from {metric}");
        set_condition(
            &mut out.status,
            "ScalingActive",
            true,
            "ValidMetricFound",
            &message,
            now,
        );
    }
    Proposal {
        wanted: best,
        seen,
        error,
    }
}

/// Replicas one metric asks for, its name, and what was seen of it.
fn one(
    metric: &Value,
    observed: &Observed,
    pods: &[&Value],
    current: i64,
) -> Result<(i64, String, Value), Unusable> {
    let kind = text(&metric["type"]);
    let ns = api::meta::namespace(&observed.autoscaler);
    match kind {
        "Resource" => {
            let source = &metric["resource"];
            let resource = text(&source["name"]);
            let (replicas, current_value) = resource_replicas(source, "", observed, pods, current)
                .map_err(|error| Unusable {
                    reason: "FailedGetResourceMetric",
                    error,
                    context: format!("failed to get {resource} resource metric value: "),
                })?;
            let name = match current_value["averageUtilization"].is_null() {
                true => format!("{resource} resource"),
                false => format!("{resource} resource utilization (percentage of request)"),
            };
            Ok((
                replicas,
                name,
                json!({"type": kind, "resource": {"name": resource, "current": current_value}}),
            ))
        }
        "ContainerResource" => {
            let source = &metric["containerResource"];
            let (resource, container) = (text(&source["name"]), text(&source["container"]));
            let (replicas, current_value) =
                resource_replicas(source, container, observed, pods, current).map_err(|error| {
                    Unusable {
                        reason: "FailedGetContainerResourceMetric",
                        error,
                        context: format!("failed to get {container} container metric value: "),
                    }
                })?;
            let name = match current_value["averageUtilization"].is_null() {
                true => format!("{resource} resource"),
                false => {
                    format!("{resource} container resource utilization (percentage of request)")
                }
            };
            let status = json!({"type": kind, "containerResource":
                {"name": resource, "container": container, "current": current_value}});
            Ok((replicas, name, status))
        }
        // No adapter for other metrics runs in this cluster: what a cluster without one says.
        "Pods" => Err(Unusable {
            reason: "FailedGetPodsMetric",
            error: format!(
                "unable to get metric {}: unable to fetch metrics from custom metrics API: {NO_CUSTOM_METRICS}",
                text(&metric["pods"]["metric"]["name"])
            ),
            context: "failed to get pods metric value: ".to_owned(),
        }),
        "Object" => {
            let object = &metric["object"];
            let described = &object["describedObject"];
            Err(Unusable {
                reason: "FailedGetObjectMetric",
                error: format!(
                    "unable to get metric {}: {} on {ns} {}/unable to fetch metrics from custom metrics API: {NO_CUSTOM_METRICS}",
                    text(&object["metric"]["name"]),
                    text(&described["kind"]),
                    text(&described["name"]),
                ),
                context: "failed to get object metric value: ".to_owned(),
            })
        }
        _ => {
            let name = text(&metric["external"]["metric"]["name"]);
            Err(Unusable {
                reason: "FailedGetExternalMetric",
                error: format!(
                    "unable to get external metric {ns}/{name}/nil: unable to fetch metrics from external metrics API: the server could not find the requested resource (get {name}.external.metrics.k8s.io)"
                ),
                context: format!("failed to get external metric {name}: "),
            })
        }
    }
}

const NO_CUSTOM_METRICS: &str = "no custom metrics API (custom.metrics.k8s.io) registered";

/// A measured value of one pod.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Thousandths.
    value: i64,
    at: Time,
    window: Duration,
}

/// Pods by what their metrics are worth.
#[derive(Default)]
struct Groups<'a> {
    ready: i64,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
    ignored: Vec<&'a str>,
}

fn resource_replicas(
    source: &Value,
    container: &str,
    observed: &Observed,
    pods: &[&Value],
    current: i64,
) -> Result<(i64, Value), String> {
    let resource = text(&source["name"]);
    let target = &source["target"];
    let raw = millis(&target["averageValue"]);
    let context = if raw.is_some() {
        "usage"
    } else {
        "utilization"
    };
    let failed = |error: String| format!("failed to get {resource} {context}: {error}");
    let metrics = measured(observed, resource, container).map_err(|error| {
        failed(format!(
            "unable to get metrics for resource {resource}: {error}"
        ))
    })?;
    let measure = match raw {
        Some(goal) => Measure::Raw { goal },
        None => {
            let goal = target["averageUtilization"].as_i64().ok_or(
                "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set",
            )?;
            Measure::Share {
                goal,
                requests: requests(pods, resource, container),
            }
        }
    };
    let (replicas, usage) =
        replicas(metrics, &measure, resource, pods, current, observed.now).map_err(failed)?;
    let average = Quantity::from_millis(usage.average).to_string();
    let seen = match usage.percent {
        Some(percent) => json!({"averageUtilization": percent, "averageValue": average}),
        None => json!({"averageValue": average}),
    };
    Ok((replicas, seen))
}

/// What a value is compared with.
enum Measure {
    /// An average in thousandths.
    Raw { goal: i64 },
    /// A percentage of what the pods request; or why that is not known.
    Share {
        goal: i64,
        requests: Result<BTreeMap<String, i64>, String>,
    },
}

/// What the pods use.
#[derive(Debug, Clone, Copy)]
struct Usage {
    percent: Option<i64>,
    /// Thousandths.
    average: i64,
}

impl Measure {
    /// Usage as a share of the goal, and the usage.
    #[allow(clippy::cast_precision_loss)] // as the real controller computes
    fn ratio(&self, metrics: &BTreeMap<&str, i64>) -> Result<(f64, Usage), String> {
        match self {
            Self::Raw { goal } => {
                let average = metrics.values().sum::<i64>() / (metrics.len() as i64).max(1);
                let usage = Usage {
                    percent: None,
                    average,
                };
                Ok((average as f64 / *goal as f64, usage))
            }
            Self::Share { goal, requests } => {
                let requests = requests.as_ref().map_err(Clone::clone)?;
                let known = metrics
                    .iter()
                    .filter_map(|(pod, value)| Some((*value, *requests.get(*pod)?)));
                let (mut used, mut requested, mut count) = (0, 0, 0);
                for (value, request) in known {
                    used += value;
                    requested += request;
                    count += 1;
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = used * 100 / requested;
                let usage = Usage {
                    percent: Some(percent),
                    average: used / count,
                };
                Ok((percent as f64 / *goal as f64, usage))
            }
        }
    }

    /// What a pod without a metric is taken to use when the target would shrink: so much that it does not shrink for it.
    fn assumed_when_shrinking(&self, pod: &str) -> i64 {
        match self {
            Self::Raw { goal } => *goal,
            Self::Share { goal, requests } => {
                let request = requests.as_ref().ok().and_then(|all| all.get(pod)).copied();
                request.unwrap_or(0) * (*goal).max(100) / 100
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // replicas are few
fn replicas(
    measured: BTreeMap<String, Measured>,
    measure: &Measure,
    resource: &str,
    pods: &[&Value],
    current: i64,
    now: Time,
) -> Result<(i64, Usage), String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, &measured, resource, now);
    let left_out = |pod: &&str| !groups.ignored.contains(pod) && !groups.unready.contains(pod);
    let mut metrics: BTreeMap<&str, i64> = measured
        .iter()
        .map(|(pod, m)| (pod.as_str(), m.value))
        .filter(|(pod, _)| left_out(pod))
        .collect();
    if metrics.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, usage) = measure.ratio(&metrics)?;
    let count_unready = !groups.unready.is_empty() && ratio > 1.0;
    let near = |ratio: f64| (1.0 - ratio).abs() <= TOLERANCE;
    if !count_unready && groups.missing.is_empty() {
        if near(ratio) {
            return Ok((current, usage));
        }
        return Ok(((ratio * groups.ready as f64).ceil() as i64, usage));
    }
    for pod in &groups.missing {
        if ratio < 1.0 {
            metrics.insert(pod, measure.assumed_when_shrinking(pod));
        } else if ratio > 1.0 {
            metrics.insert(pod, 0);
        }
    }
    if count_unready {
        metrics.extend(groups.unready.iter().map(|pod| (*pod, 0)));
    }
    let (again, _) = measure.ratio(&metrics)?;
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    let wanted = (again * metrics.len() as f64).ceil() as i64;
    let backwards = (again < 1.0 && wanted > current) || (again > 1.0 && wanted < current);
    if near(again) || turned || backwards {
        return Ok((current, usage));
    }
    Ok((wanted, usage))
}

fn group<'a>(
    pods: &[&'a Value],
    metrics: &BTreeMap<String, Measured>,
    resource: &str,
    now: Time,
) -> Groups<'a> {
    let mut groups = Groups::default();
    for &pod in pods {
        let name = api::meta::name(pod);
        let metric = metrics.get(name);
        if is_terminating(pod) || pod["status"]["phase"] == "Failed" {
            groups.ignored.push(name);
        } else if pod["status"]["phase"] == "Pending" {
            groups.unready.push(name);
        } else if let Some(metric) = metric {
            if resource == "cpu" && !cpu_counts(pod, metric, now) {
                groups.unready.push(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.push(name);
        }
    }
    groups
}

/// Whether the CPU a pod was seen using says something about its load, rather than about its start.
fn cpu_counts(pod: &Value, metric: &Measured, now: Time) -> bool {
    let ready = condition(&pod["status"]["conditions"], "Ready");
    let (Some(ready), Some(started)) = (ready, time_at(&pod["status"]["startTime"])) else {
        return false;
    };
    let since = time_at(&ready["lastTransitionTime"]).unwrap_or(Time::UNIX_EPOCH);
    let unready = ready["status"] == "False";
    if started + CPU_INITIALIZATION > now {
        !unready && metric.at >= since + metric.window
    } else {
        !(unready && started + INITIAL_READINESS > since)
    }
}

/// What each pod uses of a resource, all containers together or one of them.
fn measured(
    observed: &Observed,
    resource: &str,
    container: &str,
) -> Result<BTreeMap<String, Measured>, String> {
    let all = observed.metrics.as_ref().map_err(Clone::clone)?;
    if all.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let mut out = BTreeMap::new();
    for pod in all {
        let name = api::meta::name(pod);
        let containers = items(&pod["containers"]);
        let asked: Vec<&Value> = containers
            .iter()
            .filter(|c| container.is_empty() || c["name"] == container)
            .collect();
        if asked.is_empty() && !container.is_empty() {
            return Err(format!(
                "failed to get container metrics: container {container} not present in metrics for pod {}/{name}",
                api::meta::namespace(pod)
            ));
        }
        let values: Option<Vec<i64>> = asked
            .iter()
            .map(|c| millis(&c["usage"][resource]))
            .collect();
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            continue;
        };
        let window = text(&pod["window"])
            .trim_end_matches('s')
            .parse()
            .unwrap_or(0.0);
        let measured = Measured {
            value: values.iter().sum(),
            at: time_at(&pod["timestamp"]).unwrap_or(observed.now),
            window: Duration::seconds_f64(window),
        };
        out.insert(name.to_owned(), measured);
    }
    Ok(out)
}

/// What each pod requests, in thousandths.
fn requests(
    pods: &[&Value],
    resource: &str,
    container: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let mut out = BTreeMap::new();
    for pod in pods {
        let spec = &pod["spec"];
        let sidecars = items(&spec["initContainers"])
            .iter()
            .filter(|c| c["restartPolicy"] == "Always");
        let mut sum = 0;
        for c in items(&spec["containers"]).iter().chain(sidecars) {
            if !container.is_empty() && c["name"] != container {
                continue;
            }
            sum += millis(&c["resources"]["requests"][resource]).ok_or_else(|| {
                format!(
                    "missing request for {resource} in container {} of Pod {}",
                    text(&c["name"]),
                    api::meta::name(pod)
                )
            })?;
        }
        out.insert(api::meta::name(pod).to_owned(), sum);
    }
    Ok(out)
}

fn millis(amount: &Value) -> Option<i64> {
    match amount {
        Value::String(text) => Some(Quantity::parse(text).ok()?.millis()),
        Value::Number(_) => Some(int(amount) * 1000),
        _ => None,
    }
}
