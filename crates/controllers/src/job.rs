//! Job: pods that run until enough of them have succeeded.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::time::{Time, rfc3339};
use kube_client::{JOBS, PODS, Propagation};
use serde_json::{Value, json};

use crate::action::{Action, Event, Verb};
use crate::claim::claim;
use crate::object::{
    condition, controller_uid, int, is_terminating, items, omit_empty, status_patch, text, time_at,
};
use crate::pods;
use crate::replicaset::pod_from_template;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Wait before a failed pod is replaced; doubled with every further failure.
const FIRST_BACKOFF: i64 = 10;
const LONGEST_BACKOFF: i64 = 600;

/// What a Job is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The Job.
    pub job: Arc<Value>,
    /// Pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// How a Job ends.
struct End {
    condition: &'static str,
    early: &'static str,
    reason: &'static str,
    message: Cow<'static, str>,
}

const COMPLETE: End = End {
    condition: "Complete",
    early: "SuccessCriteriaMet",
    reason: "CompletionsReached",
    message: Cow::Borrowed("Reached expected number of succeeded pods"),
};
const TOO_MANY_FAILURES: End = End {
    condition: "Failed",
    early: "FailureTarget",
    reason: "BackoffLimitExceeded",
    message: Cow::Borrowed("Job has reached the specified backoff limit"),
};
const TOO_LATE: End = End {
    condition: "Failed",
    early: "FailureTarget",
    reason: "DeadlineExceeded",
    message: Cow::Borrowed("Job was active longer than specified deadline"),
};

/// Counts of a Job's pods.
struct Count {
    active: Vec<Arc<Value>>,
    succeeded: i64,
    /// Indexes that are done (completion mode Indexed).
    done: BTreeSet<i64>,
    failed: i64,
    restarts: i64,
    last_failure: Option<Time>,
    /// A failure after which the policy wants no other attempt.
    fatal: Option<String>,
}

/// What is to be done, and when to look again.
pub fn reconcile(observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let job = &observed.job;
    if is_terminating(job) {
        return (Vec::new(), None);
    }
    if let Some(finished) = finished_at(job) {
        return expire(observed, finished);
    }
    let claimed = claim(job, &PODS, &observed.pods);
    if !claimed.actions.is_empty() {
        return (claimed.actions, None);
    }
    let count = count(observed);
    let suspended = job["spec"]["suspend"] == true;
    let started = time_at(&job["status"]["startTime"]).unwrap_or(observed.now);
    let mut again = None;
    let mut actions = Vec::new();
    let end = end(observed, &count, started, &mut again);
    if end.is_some() || suspended {
        actions.extend(count.active.iter().map(|pod| delete_pod(job, pod)));
    } else {
        manage(observed, &count, &mut actions, &mut again);
    }
    let status = status(observed, &count, suspended, end.as_ref(), started);
    if let Some(patch) = status_patch(job, &status) {
        let event = end.map(|end| match end.condition {
            "Complete" => Event::normal(job, "Completed", "Job completed"),
            _ => Event::warning(job, end.reason, end.message.clone()),
        });
        actions.push(Action {
            on_success: event,
            ..Action::status(JOBS, job, patch)
        });
    }
    (actions, again)
}

fn finished_at(job: &Value) -> Option<Time> {
    let conditions = &job["status"]["conditions"];
    ["Complete", "Failed"]
        .iter()
        .filter_map(|kind| condition(conditions, kind))
        .find(|condition| condition["status"] == "True")
        .map(|condition| time_at(&condition["lastTransitionTime"]).unwrap_or(Time::UNIX_EPOCH))
}

fn expire(observed: &Observed, finished: Time) -> (Vec<Action>, Option<Duration>) {
    let Some(seconds) = observed.job["spec"]["ttlSecondsAfterFinished"].as_i64() else {
        return (Vec::new(), None);
    };
    let left = finished.saturating_add(time::Duration::seconds(seconds)) - observed.now;
    if left > time::Duration::ZERO {
        return (Vec::new(), Some(left.unsigned_abs()));
    }
    let mut action = Action::delete(JOBS, &observed.job);
    if let Verb::Delete(options) = &mut action.verb {
        options.propagation_policy = Some(Propagation::Background);
    }
    (vec![action], None)
}

fn index_of(pod: &Value) -> Option<i64> {
    api::meta::annotation(pod, INDEX)?.parse().ok()
}

fn is_indexed(job: &Value) -> bool {
    job["spec"]["completionMode"] == "Indexed"
}

fn count(observed: &Observed) -> Count {
    let job = &observed.job;
    let uid = api::meta::uid(job);
    let mine: Vec<&Arc<Value>> = observed
        .pods
        .iter()
        .filter(|pod| controller_uid(pod) == uid)
        .collect();
    let in_phase = |phase: &'static str| {
        mine.iter()
            .filter(move |pod| pod["status"]["phase"] == phase)
    };
    let done: BTreeSet<i64> = in_phase("Succeeded")
        .filter_map(|pod| index_of(pod))
        .collect();
    let succeeded = if is_indexed(job) {
        done.len()
    } else {
        in_phase("Succeeded").count()
    };
    let restarts = mine
        .iter()
        .flat_map(|pod| items(&pod["status"]["containerStatuses"]))
        .map(|status| int(&status["restartCount"]))
        .sum();
    let counted = |found: usize, field: &str| {
        // Finished pods may be removed by people; what was counted stays counted.
        i64::try_from(found)
            .unwrap_or(i64::MAX)
            .max(int(&job["status"][field]))
    };
    Count {
        active: mine
            .iter()
            .filter(|pod| pods::is_active(pod))
            .map(|&pod| pod.clone())
            .collect(),
        succeeded: counted(succeeded, "succeeded"),
        done,
        failed: counted(
            in_phase("Failed")
                .filter(|pod| verdict(job, pod) != Verdict::Ignore)
                .count(),
            "failed",
        ),
        restarts,
        last_failure: in_phase("Failed")
            .filter(|pod| verdict(job, pod) == Verdict::Count)
            .filter_map(|pod| ended_at(pod))
            .max(),
        fatal: in_phase("Failed").find_map(|pod| match verdict(job, pod) {
            Verdict::FailJob(why) => Some(why),
            _ => None,
        }),
    }
}

/// What a failed pod means by the job's `podFailurePolicy`.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It counts against the back-off limit.
    Count,
    /// It does not count.
    Ignore,
    /// The job has failed; why.
    FailJob(String),
}

/// The first rule that fits a failed pod decides.
fn verdict(job: &Value, pod: &Value) -> Verdict {
    let rules = items(&job["spec"]["podFailurePolicy"]["rules"]);
    for (index, rule) in rules.iter().enumerate() {
        let pod_name = format!("{}/{}", api::meta::namespace(pod), api::meta::name(pod));
        let why = by_exit_code(&rule["onExitCodes"], pod)
            .map(|(container, code)| {
                format!("Container {container} for pod {pod_name} failed with exit code {code}")
            })
            .or_else(|| {
                by_condition(&rule["onPodConditions"], pod)
                    .map(|kind| format!("Pod {pod_name} has condition {kind}"))
            });
        let Some(why) = why else { continue };
        return match text(&rule["action"]) {
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn by_exit_code(requirement: &Value, pod: &Value) -> Option<(String, i64)> {
    if !requirement.is_object() {
        return None;
    }
    let only = requirement["containerName"].as_str();
    let values = items(&requirement["values"]);
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .flat_map(|list| items(&pod["status"][*list]))
        .filter(|status| only.is_none_or(|name| status["name"] == name))
        .filter_map(|status| {
            let code = status["state"]["terminated"]["exitCode"].as_i64()?;
            (code != 0).then(|| (text(&status["name"]).to_owned(), code))
        })
        .find(|(_, code)| {
            let listed = values.iter().any(|v| v.as_i64() == Some(*code));
            match text(&requirement["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
}

fn by_condition(patterns: &Value, pod: &Value) -> Option<String> {
    items(patterns).iter().find_map(|pattern| {
        let wanted = pattern["status"].as_str().unwrap_or("True");
        condition(&pod["status"]["conditions"], text(&pattern["type"]))
            .filter(|found| found["status"] == wanted)
            .map(|found| text(&found["type"]).to_owned())
    })
}

fn ended_at(pod: &Value) -> Option<Time> {
    items(&pod["status"]["containerStatuses"])
        .iter()
        .filter_map(|status| time_at(&status["state"]["terminated"]["finishedAt"]))
        .max()
        .or_else(|| Some(crate::object::created(pod)))
}

fn end(
    observed: &Observed,
    count: &Count,
    started: Time,
    again: &mut Option<Duration>,
) -> Option<End> {
    let spec = &observed.job["spec"];
    let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
    if let Some(why) = &count.fatal {
        return Some(End {
            condition: "Failed",
            early: "FailureTarget",
            reason: "PodFailurePolicy",
            message: why.clone().into(),
        });
    }
    let restarts_count = spec["template"]["spec"]["restartPolicy"] == "OnFailure";
    if count.failed > limit || restarts_count && count.restarts > limit {
        return Some(TOO_MANY_FAILURES);
    }
    let complete = match spec["completions"].as_i64() {
        Some(wanted) => count.succeeded >= wanted,
        None => count.succeeded > 0 && count.active.is_empty(),
    };
    if complete {
        return Some(COMPLETE);
    }
    let suspended = spec["suspend"] == true;
    if let Some(seconds) = spec["activeDeadlineSeconds"]
        .as_i64()
        .filter(|_| !suspended)
    {
        let left = started.saturating_add(time::Duration::seconds(seconds)) - observed.now;
        if left <= time::Duration::ZERO {
            return Some(TOO_LATE);
        }
        *again = Some(left.unsigned_abs());
    }
    None
}

/// Creates missing pods and deletes surplus ones.
fn manage(
    observed: &Observed,
    count: &Count,
    actions: &mut Vec<Action>,
    again: &mut Option<Duration>,
) {
    let job = &observed.job;
    let parallelism = job["spec"]["parallelism"].as_i64().unwrap_or(1);
    let active = i64::try_from(count.active.len()).unwrap_or(i64::MAX);
    let wanted = match job["spec"]["completions"].as_i64() {
        Some(completions) => parallelism.min(completions - count.succeeded),
        None if count.succeeded > 0 => active.min(parallelism),
        None => parallelism,
    };
    if active > wanted {
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let mut victims = count.active.clone();
        pods::sort_for_deletion(
            &mut victims,
            &std::collections::HashMap::new(),
            observed.now,
        );
        actions.extend(victims.iter().take(surplus).map(|pod| delete_pod(job, pod)));
        return;
    }
    if active == wanted {
        return;
    }
    if let Some(wait) = backoff(count, observed.now) {
        *again = Some(again.map_or(wait, |known| known.min(wait)));
        return;
    }
    let taken: BTreeSet<i64> = count
        .active
        .iter()
        .filter_map(|pod| index_of(pod))
        .chain(count.done.iter().copied())
        .collect();
    let mut free = (0..).filter(|index| !taken.contains(index));
    for _ in active..wanted {
        let index = if is_indexed(job) { free.next() } else { None };
        actions.push(create_pod(job, index));
    }
}

fn backoff(count: &Count, now: Time) -> Option<Duration> {
    let failed = u32::try_from(count.failed).unwrap_or(u32::MAX);
    let since = count.last_failure.filter(|_| failed > 0)?;
    let delay = FIRST_BACKOFF
        .saturating_mul(2i64.saturating_pow((failed - 1).min(30)))
        .min(LONGEST_BACKOFF);
    let left = since.saturating_add(time::Duration::seconds(delay)) - now;
    (left > time::Duration::ZERO).then(|| left.unsigned_abs())
}

fn create_pod(job: &Arc<Value>, index: Option<i64>) -> Action {
    let mut pod = pod_from_template(job);
    if let Some(index) = index {
        let number = index.to_string();
        let name = api::meta::name(job);
        pod["metadata"]["generateName"] = format!("{name}-{index}-").into();
        for field in ["annotations", "labels"] {
            api::meta::map_mut(&mut pod["metadata"], field)
                .insert(INDEX.to_owned(), number.as_str().into());
        }
        if text(&pod["spec"]["hostname"]).is_empty() {
            pod["spec"]["hostname"] = format!("{name}-{index}").into();
        }
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                let variable = json!({"name": "JOB_COMPLETION_INDEX", "value": number});
                match container["env"].as_array_mut() {
                    Some(variables) => variables.push(variable),
                    None => container["env"] = json!([variable]),
                }
            }
        }
    }
    pods::create(job, pod)
}

fn delete_pod(job: &Arc<Value>, pod: &Value) -> Action {
    let text = format!("Deleted pod: {}", api::meta::name(pod));
    Action {
        on_success: Some(Event::normal(job, "SuccessfulDelete", text)),
        ..Action::delete(PODS, pod)
    }
}

fn status(
    observed: &Observed,
    count: &Count,
    suspended: bool,
    end: Option<&End>,
    started: Time,
) -> Value {
    let job = &observed.job;
    let at = rfc3339(observed.now);
    let set =
        |conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str| {
            let known = conditions.iter().find(|known| known["type"] == kind);
            if known.is_some_and(|known| known["status"] == status) {
                return;
            }
            conditions.retain(|known| known["type"] != kind);
            conditions.push(json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastProbeTime": at, "lastTransitionTime": at,
            }));
        };
    let mut conditions = items(&job["status"]["conditions"]).to_vec();
    if suspended {
        set(
            &mut conditions,
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
        );
    } else if condition(&job["status"]["conditions"], "Suspended").is_some() {
        set(
            &mut conditions,
            "Suspended",
            "False",
            "JobResumed",
            "Job resumed",
        );
    }
    let active = if end.is_some() || suspended {
        0
    } else {
        count.active.len()
    };
    let ready = count
        .active
        .iter()
        .filter(|pod| active > 0 && pods::is_ready(pod))
        .count();
    let mut status = json!({
        "active": active,
        "succeeded": count.succeeded,
        "failed": count.failed,
        "completedIndexes": is_indexed(job).then(|| ranges(&count.done)),
    });
    if !suspended || !job["status"]["startTime"].is_null() {
        status["startTime"] = rfc3339(started).into();
    }
    if let Some(end) = end {
        set(&mut conditions, end.early, "True", end.reason, &end.message);
        set(
            &mut conditions,
            end.condition,
            "True",
            end.reason,
            &end.message,
        );
        if end.condition == "Complete" {
            status["completionTime"] = at.as_str().into();
        }
    }
    status["conditions"] = conditions.into();
    let mut status = omit_empty(status);
    status["ready"] = ready.into();
    status["terminating"] = 0.into();
    status["uncountedTerminatedPods"] = json!({});
    status
}

/// `0-2,5`
fn ranges(indexes: &BTreeSet<i64>) -> String {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for &index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let text = |&(first, last): &(i64, i64)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_policy_decides_about_failed_pods() {
        let job = json!({"spec": {"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}});
        let failed = |code: i64, conditions: Value| {
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"conditions": conditions,
                "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]}})
        };
        assert_eq!(verdict(&job, &failed(1, json!([]))), Verdict::Count);
        assert_eq!(
            verdict(&job, &failed(42, json!([]))),
            Verdict::FailJob(
                "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1"
                    .into()
            )
        );
        let evicted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(verdict(&job, &failed(42, evicted)), Verdict::Ignore);
    }

    fn job(mut spec: Value) -> Arc<Value> {
        spec["selector"] = json!({"matchLabels": {"job": "j"}});
        Arc::new(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "namespace": "a", "uid": "j"},
            "spec": spec,
        }))
    }

    fn pod(name: &str, phase: &str, index: Option<i64>) -> Arc<Value> {
        let annotations = index.map(|index| json!({INDEX: index.to_string()}));
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"job": "j"}, "annotations": annotations,
                "creationTimestamp": rfc3339(Time::UNIX_EPOCH + time::Duration::seconds(995)),
                "ownerReferences": [{"uid": "j", "controller": true}]},
            "status": {"phase": phase},
        }))
    }

    fn look(spec: Value, pods: Vec<Arc<Value>>) -> (Vec<String>, Value, Option<Duration>) {
        let now = Time::UNIX_EPOCH + time::Duration::seconds(1_000);
        let (actions, again) = reconcile(&Observed {
            job: job(spec),
            pods,
            now,
        });
        let mut status = Value::Null;
        let mut done = Vec::new();
        for action in actions {
            match action.verb {
                Verb::Create(pod) => {
                    done.push(format!("+{}", text(&pod["metadata"]["generateName"])))
                }
                Verb::Delete(_) => done.push(format!("-{}", action.target.name)),
                Verb::Patch(patch, _) => status = patch["status"].clone(),
            }
        }
        (done, status, again)
    }

    #[test]
    fn as_many_run_at_once_as_allowed_and_are_still_needed() {
        let spec = json!({"completions": 3, "parallelism": 2});
        assert_eq!(look(spec.clone(), vec![]).0, ["+j-", "+j-"]);
        let (done, status, _) = look(
            spec.clone(),
            vec![pod("a", "Succeeded", None), pod("b", "Succeeded", None)],
        );
        assert_eq!(done, ["+j-"]);
        assert_eq!(status["succeeded"], 2);
        assert_eq!(status["startTime"], "1970-01-01T00:16:40Z");
        assert!(
            look(
                json!({"completions": 1, "parallelism": 1}),
                vec![pod("a", "Running", None)]
            )
            .0
            .is_empty()
        );
    }

    #[test]
    fn completion_and_failure() {
        let (done, status, _) = look(
            json!({"completions": 1}),
            vec![pod("a", "Succeeded", None), pod("b", "Running", None)],
        );
        assert_eq!(done, ["-b"]);
        let kinds: Vec<&str> = items(&status["conditions"])
            .iter()
            .map(|condition| text(&condition["type"]))
            .collect();
        assert_eq!(kinds, ["SuccessCriteriaMet", "Complete"]);
        assert_eq!(status["completionTime"], "1970-01-01T00:16:40Z");
        let (done, status, _) = look(
            json!({"completions": 1, "backoffLimit": 0}),
            vec![pod("a", "Failed", None)],
        );
        assert!(done.is_empty());
        assert_eq!(status["conditions"][1]["reason"], "BackoffLimitExceeded");
    }

    #[test]
    fn a_failed_pod_is_replaced_after_a_while() {
        let (done, status, again) = look(
            json!({"completions": 1, "backoffLimit": 3}),
            vec![pod("a", "Failed", None)],
        );
        assert!(done.is_empty());
        assert_eq!(status["failed"], 1);
        assert_eq!(again, Some(Duration::from_secs(5)));
    }

    #[test]
    fn indexes_are_given_once() {
        let spec = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
        let pods = vec![pod("a", "Succeeded", Some(0)), pod("b", "Running", Some(1))];
        let (done, status, _) = look(spec, pods);
        assert_eq!(done, ["+j-2-"]);
        assert_eq!(status["completedIndexes"], "0");
        assert_eq!(ranges(&BTreeSet::from([0, 1, 2, 5])), "0-2,5");
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let (done, status, _) = look(json!({"suspend": true}), vec![pod("a", "Running", None)]);
        assert_eq!(done, ["-a"]);
        assert_eq!(status["conditions"][0]["type"], "Suspended");
    }
}
