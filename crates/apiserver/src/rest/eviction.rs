//! `pods/<name>/eviction`: a deletion that PodDisruptionBudgets can refuse.

use http::StatusCode;
use serde_json::{Value, json};

use super::delete::DeleteOptions;
use super::write::WriteOptions;
use super::{Call, scope};
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, json_answer};
use crate::storage::Stored;

/// Seconds after which a refused eviction is worth another try.
const RETRY: u64 = 10;

/// Answers an eviction.
pub(super) async fn evict(call: &Call<'_>) -> ApiResult<Answer> {
    let bytes = call.request.read_body().await?;
    let body = crate::body::parse(call.request.content_type(), &bytes, "Eviction")?;
    let name = &call.target.name;
    let named = api::meta::name(&body);
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let mut options = DeleteOptions::read(&body["deleteOptions"], &call.request.query)?;
    let dry = &call.request.query.text("dryRun");
    options.dry_run |= super::write::dry_run(dry)?;
    let pod = call
        .server
        .storage
        .cache()
        .get(&call.resource.key(&scope(call), name))
        .ok_or_else(|| call.resource.not_found(name))?;
    if needs_budget(pod.value()) {
        take_from_budget(call, &pod, options.dry_run).await?;
    }
    if !options.dry_run {
        mark(call, name).await?;
    }
    call.writer(WriteOptions::default())
        .delete(&call.resource, &scope(call), name, &options)
        .await?;
    Ok(json_answer(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// Says in the pod why it goes: failure policies of Jobs look at it.
async fn mark(call: &Call<'_>, name: &str) -> ApiResult<()> {
    let at = crate::state::now();
    let edit = |old: &Value| {
        let mut new = old.clone();
        let mut conditions = new["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.retain(|c| c["type"] != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": at,
        }));
        new["status"]["conditions"] = conditions.into();
        Ok(new)
    };
    call.writer(WriteOptions::default())
        .update(&call.resource, &scope(call), name, "status", &edit)
        .await?;
    Ok(())
}

/// A pod that ended, never ran or is going away disturbs nothing.
fn needs_budget(pod: &Value) -> bool {
    !matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending") | None
    ) && api::meta::deletion_timestamp(pod).is_none()
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// What a budget says to the eviction of a pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It goes without being counted.
    Free,
    /// It goes and the budget has one less; the new status.
    Counted(Value),
    /// It stays, for this reason.
    Refused(String),
}

fn judge(budget: &Value, pod: &Value, now: &str) -> Verdict {
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let name = api::meta::name(budget);
    if !is_ready(pod) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        let enough =
            number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        if always || enough {
            return Verdict::Free;
        }
    }
    if number("observedGeneration") < api::meta::generation(budget) {
        return Verdict::Refused(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    if number("disruptionsAllowed") <= 0 {
        return Verdict::Refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        ));
    }
    let mut new = status.clone();
    new["disruptionsAllowed"] = (number("disruptionsAllowed") - 1).into();
    if !new["disruptedPods"].is_object() {
        new["disruptedPods"] = json!({});
    }
    new["disruptedPods"][api::meta::name(pod)] = now.into();
    Verdict::Counted(new)
}

async fn take_from_budget(call: &Call<'_>, pod: &Stored, dry_run: bool) -> ApiResult<()> {
    let server = call.server;
    let labels = &pod.value()["metadata"]["labels"];
    let (budgets, _) = server.storage.cache().list(
        "policy/poddisruptionbudgets",
        &format!("{}/", call.target.namespace),
    );
    let about: Vec<_> = budgets
        .into_iter()
        .filter(|(_, b)| {
            let selector = &b.value()["spec"]["selector"];
            selector.is_object() && crate::machinery::selects(selector, labels)
        })
        .collect();
    let [(_, budget)] = about.as_slice() else {
        if about.is_empty() {
            return Ok(());
        }
        return Err(ApiError::new(
            500,
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    };
    let registry = server.registry();
    let Some(resource) = registry.find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let name = api::meta::name(budget.value()).to_owned();
    let at = crate::state::now();
    let edit = |old: &Value| match judge(old, pod.value(), &at) {
        Verdict::Free => Ok(old.clone()),
        Verdict::Counted(status) => {
            let mut new = old.clone();
            new["status"] = status;
            Ok(new)
        }
        Verdict::Refused(why) => {
            let mut e = ApiError::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                RETRY,
            );
            e.details["causes"] = json!([{"reason": "DisruptionBudget", "message": why}]);
            Err(e)
        }
    };
    let options = WriteOptions {
        dry_run,
        ..WriteOptions::default()
    };
    call.writer(options)
        .update(resource, &call.target.namespace, &name, "status", &edit)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "spec": {},
            "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2}})
    }

    #[test]
    fn a_budget_counts_down() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            judge(&budget(0), &pod, "now"),
            Verdict::Refused(
                "The disruption budget b needs 2 healthy pods and has 2 currently".into()
            )
        );
        let Verdict::Counted(status) = judge(&budget(1), &pod, "now") else {
            panic!("not counted")
        };
        assert_eq!(status["disruptionsAllowed"], 0);
        assert_eq!(status["disruptedPods"]["p"], "now");
    }

    #[test]
    fn a_sick_pod_may_go_while_enough_are_well() {
        let pod = json!({"metadata": {"name": "p"}});
        assert_eq!(judge(&budget(0), &pod, "now"), Verdict::Free);
    }
}
