//! CronJobs: Jobs at their time.

use std::sync::Arc;
use std::time::Duration;

use api::cron::Schedule;
use api::time::Time;
use kube_client::{CRON_JOBS, JOBS};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::object::{
    condition, controller_uid, created, is_terminating, items, status_patch, text, time_at,
};

/// More missed times than this are a sign of a wrong clock; they are said.
const TOO_MANY_MISSED: usize = 100;

/// What a CronJob is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The CronJob.
    pub cron_job: Arc<Value>,
    /// All Jobs of its namespace.
    pub jobs: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

fn ended(job: &Value) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|kind| {
        condition(&job["status"]["conditions"], kind).is_some_and(|c| c["status"] == "True")
    })
}

/// The last time that is due since the last start, and how many were missed with it.
fn due(schedule: &Schedule, since: Time, now: Time) -> (Option<Time>, usize) {
    let (mut last, mut missed, mut at) = (None, 0, since);
    while let Some(next) = schedule.next(at) {
        if next > now {
            break;
        }
        missed += 1;
        last = Some(next);
        at = next;
        if missed == 10_000 {
            // Nobody waits for all of them.
            at = at.max(now - time::Duration::days(1));
        }
    }
    (last, missed)
}

/// What is to be done, and when to look again.
pub fn reconcile(observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let cron = &observed.cron_job;
    let now = observed.now;
    let mine: Vec<&Arc<Value>> = observed
        .jobs
        .iter()
        .filter(|job| controller_uid(job) == api::meta::uid(cron))
        .collect();
    let mut actions = Vec::new();
    let mut active: Vec<&Arc<Value>> = mine
        .iter()
        .copied()
        .filter(|j| ended(j).is_none())
        .collect();
    active.sort_by_key(|job| created(job));
    let mut status = cron["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let success = mine
        .iter()
        .filter(|job| ended(job) == Some("Complete"))
        .filter_map(|job| text_time(&job["status"]["completionTime"]))
        .chain(text_time(&cron["status"]["lastSuccessfulTime"]))
        .max();
    if let Some(at) = success {
        status["lastSuccessfulTime"] = at.into();
    }
    actions.extend(history(cron, &mine));
    let references = |jobs: &[&Arc<Value>]| -> Value {
        let list: Vec<Value> = jobs
            .iter()
            .map(|job| {
                json!({"kind": "Job", "namespace": api::meta::namespace(job), "name": api::meta::name(job),
                    "uid": api::meta::uid(job), "apiVersion": "batch/v1",
                    "resourceVersion": api::meta::resource_version(job)})
            })
            .collect();
        if list.is_empty() {
            Value::Null
        } else {
            list.into()
        }
    };
    // A version that only moved is no news.
    let known = |list: &Value| -> Vec<String> {
        items(list)
            .iter()
            .map(|r| text(&r["uid"]).to_owned())
            .collect()
    };
    let fresh = references(&active);
    if known(&fresh) != known(&cron["status"]["active"]) {
        status["active"] = fresh;
    }
    let mut again = None;
    if !is_terminating(cron)
        && cron["spec"]["suspend"] != true
        && let Ok(schedule) = Schedule::parse(text(&cron["spec"]["schedule"]))
    {
        let deadline = cron["spec"]["startingDeadlineSeconds"].as_i64();
        let mut since =
            time_at(&cron["status"]["lastScheduleTime"]).unwrap_or_else(|| created(cron));
        if let Some(seconds) = deadline {
            since = since.max(now.saturating_sub(time::Duration::seconds(seconds)));
        }
        let (last, missed) = due(&schedule, since, now);
        if let Some(at) = last {
            if missed > TOO_MANY_MISSED {
                tracing::warn!(
                    cronjob = api::meta::name(cron),
                    missed,
                    "too many missed start times; set or decrease .spec.startingDeadlineSeconds or check clock skew"
                );
            }
            start(cron, at, &active, &mut status, &mut actions);
        }
        again = schedule
            .next(now)
            .map(|next| (next - now).unsigned_abs() + Duration::from_millis(100));
    }
    let unset = status.as_object_mut();
    if let Some(map) = unset {
        map.retain(|_, v| !v.is_null());
    }
    if let Some(patch) = status_patch(cron, &status) {
        actions.push(Action::status(CRON_JOBS, cron, patch));
    }
    (actions, again)
}

fn text_time(v: &Value) -> Option<String> {
    v.as_str().map(str::to_owned)
}

fn start(
    cron: &Arc<Value>,
    at: Time,
    active: &[&Arc<Value>],
    status: &mut Value,
    actions: &mut Vec<Action>,
) {
    let name = format!("{}-{}", api::meta::name(cron), at.unix_timestamp() / 60);
    match text(&cron["spec"]["concurrencyPolicy"]) {
        "Forbid" if !active.is_empty() => {
            // It stays due, and starts late when the other one has ended.
            return;
        }
        "Replace" => {
            for job in active {
                let target = Action::delete(JOBS, job);
                let deleted = Event::normal(
                    cron,
                    "SuccessfulDelete",
                    format!("Deleted job {}", api::meta::name(job)),
                );
                actions.push(Action {
                    on_success: Some(deleted),
                    ..background(target)
                });
            }
        }
        _ => {}
    }
    let template = &cron["spec"]["jobTemplate"];
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] = api::time::rfc3339(at).into();
    let mut metadata = json!({
        "name": name, "namespace": api::meta::namespace(cron), "annotations": annotations,
        "ownerReferences": [api::meta::controller_ref(cron)],
    });
    if template["metadata"]["labels"].is_object() {
        metadata["labels"] = template["metadata"]["labels"].clone();
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]});
    actions.push(Action {
        on_success: Some(Event::normal(
            cron,
            "SuccessfulCreate",
            format!("Created job {name}"),
        )),
        on_failure: Some(Event::warning(
            cron,
            "FailedCreate",
            "Error creating job: {error}",
        )),
        ..Action::create(JOBS, job)
    });
    status["lastScheduleTime"] = api::time::rfc3339(at).into();
}

/// The pods of a job go with it.
fn background(mut action: Action) -> Action {
    if let crate::action::Verb::Delete(options) = &mut action.verb {
        options.propagation_policy = Some(kube_client::Propagation::Background);
    }
    action
}

/// Ended jobs beyond the limits, oldest first.
fn history(cron: &Arc<Value>, mine: &[&Arc<Value>]) -> Vec<Action> {
    let mut actions = Vec::new();
    for (kind, field, default) in [
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ] {
        let keep = cron["spec"][field].as_i64().unwrap_or(default);
        let mut done: Vec<_> = mine
            .iter()
            .filter(|job| ended(job) == Some(kind) && !is_terminating(job))
            .collect();
        done.sort_by_key(|job| {
            (
                time_at(&job["status"]["startTime"]),
                api::meta::name(job).to_owned(),
            )
        });
        let over = done
            .len()
            .saturating_sub(usize::try_from(keep).unwrap_or(0));
        for job in done.into_iter().take(over) {
            actions.push(Action {
                on_success: Some(Event::normal(
                    cron,
                    "SuccessfulDelete",
                    format!("Deleted job {}", api::meta::name(job)),
                )),
                ..background(Action::delete(JOBS, job))
            });
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn at(text: &str) -> Time {
        api::time::parse(text).unwrap()
    }

    fn cron(policy: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": "2025-01-01T00:00:30Z"},
            "spec": {"schedule": "*/1 * * * *", "concurrencyPolicy": policy, "suspend": false,
                "jobTemplate": {"spec": {"template": {}}}}})
    }

    fn job(name: &str, done: bool) -> Arc<Value> {
        let conditions = if done {
            json!([{"type": "Complete", "status": "True"}])
        } else {
            json!([])
        };
        Arc::new(
            json!({"metadata": {"name": name, "namespace": "n", "uid": name,
            "ownerReferences": [{"uid": "u", "controller": true}]}, "status": {"conditions": conditions}}),
        )
    }

    fn run(cron: Value, jobs: Vec<Arc<Value>>, now: &str) -> Vec<String> {
        let observed = Observed {
            cron_job: Arc::new(cron),
            jobs,
            now: at(now),
        };
        reconcile(&observed)
            .0
            .iter()
            .filter(|a| a.target.resource == JOBS)
            .map(|a| match &a.verb {
                Verb::Create(o) => format!("create {}", api::meta::name(o)),
                _ => format!("delete {}", a.target.name),
            })
            .collect()
    }

    #[test]
    fn a_schedule_that_rested_for_years_starts_the_last_job_it_missed() {
        let rested = run(cron("Allow"), Vec::new(), "2029-03-04T05:06:30Z");
        assert_eq!(rested.len(), 1, "{rested:?}");
        let minute = api::time::parse("2029-03-04T05:06:00Z").unwrap();
        let name = format!("create c-{}", minute.unix_timestamp() / 60);
        assert_eq!(rested[0], name);
        let mut eager = cron("Allow");
        eager["spec"]["startingDeadlineSeconds"] = i64::MAX.into();
        eager["status"] = json!({"lastScheduleTime": "0001-01-01T00:00:00Z"});
        assert_eq!(run(eager, Vec::new(), "2029-03-04T05:06:30Z"), [name]);
    }

    #[test]
    fn a_job_starts_at_its_minute() {
        assert!(run(cron("Allow"), vec![], "2025-01-01T00:00:59Z").is_empty());
        assert_eq!(
            run(cron("Allow"), vec![], "2025-01-01T00:01:00Z"),
            ["create c-28928161"]
        );
    }

    #[test]
    fn the_policy_says_what_happens_to_a_running_one() {
        let now = "2025-01-01T00:02:00Z";
        assert!(run(cron("Forbid"), vec![job("old", false)], now).is_empty());
        assert_eq!(
            run(cron("Replace"), vec![job("old", false)], now),
            ["delete old", "create c-28928162"]
        );
        let mut suspended = cron("Allow");
        suspended["spec"]["suspend"] = true.into();
        assert!(run(suspended, vec![], now).is_empty());
    }

    #[test]
    fn only_some_ended_jobs_are_kept() {
        let mut c = cron("Allow");
        c["spec"]["suspend"] = true.into();
        let jobs = (0..5).map(|n| job(&format!("j{n}"), true)).collect();
        assert_eq!(
            run(c, jobs, "2025-01-01T00:02:00Z"),
            ["delete j0", "delete j1"]
        );
    }
}
