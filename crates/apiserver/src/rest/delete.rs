//! Deletion: at once, or step by step where finalizers, grace or dependents ask for it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::write::Writer;
use crate::admission::{self, Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::registry::Resource;
use crate::storage::{Expect, Stored};
use crate::target::Query;

/// `DeleteOptions`, from body and query together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub policy: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    pub fn read(body: &Value, query: &Query) -> ApiResult<Self> {
        let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        let mut out = Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            policy: text(&body["propagationPolicy"]),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: false,
        };
        if let Some(g) = query.get("gracePeriodSeconds") {
            out.grace = Some(g.parse().map_err(|_| {
                ApiError::bad_request(format!("gracePeriodSeconds: Invalid value: {g:?}"))
            })?);
        }
        if let Some(p) = query.get("propagationPolicy") {
            out.policy = Some(p.to_owned());
        }
        match (
            &out.policy,
            body["orphanDependents"]
                .as_bool()
                .or(query.get("orphanDependents").map(|v| v == "true")),
        ) {
            (None, Some(true)) => out.policy = Some("Orphan".into()),
            (None, Some(false)) => out.policy = Some("Background".into()),
            _ => {}
        }
        if let Some(p) = &out.policy
            && !matches!(p.as_str(), "Orphan" | "Background" | "Foreground")
        {
            return Err(ApiError::new(
                422,
                "Invalid",
                format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {p:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
            ));
        }
        let dry = body["dryRun"]
            .as_array()
            .and_then(|a| a.first())
            .and_then(Value::as_str);
        out.dry_run = super::write::dry_run(dry.unwrap_or_else(|| query.text("dryRun")))?;
        Ok(out)
    }
}

/// Nothing holds a dying object any more.
pub(crate) fn is_over(object: &Value) -> bool {
    let meta = &object["metadata"];
    api::meta::deletion_timestamp(object).is_some()
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && api::meta::finalizers(object).next().is_none()
        && object["spec"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty)
}

/// What a deletion does to an object now.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It goes.
    Remove(Value),
    /// It is marked and stays.
    Mark(Value),
    /// It is dying already and nothing changes.
    Nothing,
}

/// Seconds a pod may take to die.
fn pod_grace(object: &Value, asked: Option<i64>) -> i64 {
    let scheduled = object["spec"]["nodeName"]
        .as_str()
        .is_some_and(|n| !n.is_empty());
    let ended = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !scheduled || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    asked.unwrap_or(own).max(0)
}

/// Decides the next step of a deletion. `later` is the moment `grace` seconds from now.
pub(crate) fn step(
    resource: &Resource,
    object: &Value,
    options: &DeleteOptions,
    later: &dyn Fn(i64) -> String,
) -> Step {
    let mut new = object.clone();
    let dying = api::meta::deletion_timestamp(object).is_some();
    let is_pod = resource.is("", "pods");
    let mut grace = if is_pod {
        pod_grace(object, options.grace)
    } else {
        0
    };
    if dying && is_pod {
        let left = object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        // Only shorter is possible; without a wish nothing changes.
        grace = options.grace.map_or(left, |g| g.max(0).min(left));
    }
    let mut finalizers: Vec<String> = api::meta::finalizers(object).map(str::to_owned).collect();
    let has_policy = |list: &[String], f: &str| list.iter().any(|x| x == f);
    if let Some(policy) = options.policy.as_deref() {
        let wanted = match policy {
            "Orphan" => Some("orphan"),
            "Foreground" => Some("foregroundDeletion"),
            _ => None,
        };
        finalizers.retain(|f| f != "orphan" && f != "foregroundDeletion");
        if let Some(f) = wanted
            && !has_policy(&finalizers, f)
        {
            finalizers.push(f.to_owned());
        }
    }
    let meta = api::meta::metadata_mut(&mut new);
    if finalizers.is_empty() {
        meta.shift_remove("finalizers");
    } else {
        meta.insert("finalizers".into(), json!(finalizers));
    }
    if !dying {
        meta.insert("deletionTimestamp".into(), later(grace).into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        if let Some(g) = meta.get("generation").and_then(Value::as_i64) {
            meta.insert("generation".into(), (g + 1).into());
        }
    } else if is_pod
        && meta
            .get("deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            != Some(grace)
    {
        meta.insert("deletionTimestamp".into(), later(grace).into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    if resource.is("", "namespaces") {
        new["status"]["phase"] = "Terminating".into();
    }
    if crate::crd::is_definition(resource) && !dying {
        crate::crd::terminate(&mut new, &later(0));
    }
    if is_over(&new) {
        Step::Remove(new)
    } else if new == *object {
        Step::Nothing
    } else {
        Step::Mark(new)
    }
}

/// What the deletion answers.
pub(crate) struct Deleted {
    pub object: Arc<Stored>,
    /// It is gone, not only marked.
    pub gone: bool,
}

impl Writer<'_> {
    /// Deletes one object.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> ApiResult<Deleted> {
        let key = resource.key(namespace, name);
        for _ in 0..12 {
            let current = self
                .server
                .storage
                .cache()
                .get(&key)
                .ok_or_else(|| resource.not_found(name))?;
            crate::conversion::prepare(self.server, resource, [current.as_ref()]).await?;
            let old = crate::shape::value_of(resource, &current);
            let differs = |what: &str, wanted: &str, have: &str| {
                ApiError::conflict(
                    &resource.group,
                    &resource.plural,
                    name,
                    &format!(
                        "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}"
                    ),
                )
            };
            if let Some(uid) = &options.uid
                && uid != api::meta::uid(&old)
            {
                return Err(differs("UID", uid, api::meta::uid(&old)));
            }
            if let Some(rv) = &options.resource_version
                && rv != api::meta::resource_version(&old)
            {
                return Err(differs(
                    "ResourceVersion",
                    rv,
                    api::meta::resource_version(&old),
                ));
            }
            if resource.is("", "namespaces")
                && matches!(name, "default" | "kube-system" | "kube-public")
            {
                return Err(ApiError::forbidden(
                    "",
                    "namespaces",
                    name,
                    "this namespace may not be deleted",
                ));
            }
            let attributes = Attributes {
                operation: Operation::Delete,
                resource,
                namespace,
                name,
                subresource: "",
                old: Some(&old),
                user: &self.user,
                dry_run: options.dry_run,
                warnings: self.warnings,
            };
            let mut none = Value::Null;
            admission::mutate(self.server, &attributes, &mut none).await?;
            admission::validate(self.server, &attributes, &none).await?;
            let later = |seconds: i64| {
                api::time::rfc3339(
                    api::time::Time::now_utc()
                        + std::time::Duration::from_secs(seconds.max(0).unsigned_abs()),
                )
            };
            let expect = Expect::Revision(current.revision);
            let (result, gone) = match step(resource, &old, options, &later) {
                Step::Nothing => {
                    return Ok(Deleted {
                        object: crate::shape::shown(resource, &current),
                        gone: false,
                    });
                }
                Step::Remove(last) if options.dry_run => {
                    return Ok(Deleted {
                        object: Arc::new(Stored::of(last, 0)),
                        gone: true,
                    });
                }
                Step::Mark(new) if options.dry_run => {
                    return Ok(Deleted {
                        object: Arc::new(Stored::of(new, 0)),
                        gone: false,
                    });
                }
                Step::Remove(last) => (
                    self.remove(resource, namespace, name, expect, Some(last))
                        .await,
                    true,
                ),
                Step::Mark(new) => (
                    self.put(resource, namespace, name, expect, new).await,
                    false,
                ),
            };
            match result {
                Ok(stored) => {
                    return Ok(Deleted {
                        object: crate::shape::shown(resource, &stored),
                        gone,
                    });
                }
                Err(e) if e.reason == "Conflict" => {}
                Err(e) => return Err(e),
            }
        }
        Err(ApiError::modified(&resource.group, &resource.plural, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn decide(plural: &str, object: Value, options: &DeleteOptions) -> Step {
        let registry = Registry::build(std::iter::empty());
        let r = registry.find("", "v1", plural).unwrap();
        step(r, &object, options, &|s| format!("+{s}"))
    }

    #[test]
    fn a_plain_object_goes_at_once() {
        let step = decide(
            "configmaps",
            json!({"metadata": {"name": "a"}}),
            &DeleteOptions::default(),
        );
        assert!(matches!(step, Step::Remove(_)), "{step:?}");
    }

    #[test]
    fn finalizers_hold_an_object() {
        let object = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        let Step::Mark(marked) = decide("configmaps", object, &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "+0");
        assert_eq!(
            decide("configmaps", marked, &DeleteOptions::default()),
            Step::Nothing
        );
    }

    #[test]
    fn foreground_deletion_waits_for_dependents() {
        let options = DeleteOptions {
            policy: Some("Foreground".into()),
            ..Default::default()
        };
        let Step::Mark(marked) = decide("configmaps", json!({"metadata": {"name": "a"}}), &options)
        else {
            panic!("not marked")
        };
        assert_eq!(
            marked["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
    }

    #[test]
    fn pods_die_gracefully_and_a_second_wish_can_only_shorten_it() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let Step::Mark(dying) = decide("pods", pod.clone(), &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(dying["metadata"]["deletionTimestamp"], "+30");
        assert_eq!(
            decide("pods", dying.clone(), &DeleteOptions::default()),
            Step::Nothing
        );
        let longer = DeleteOptions {
            grace: Some(90),
            ..Default::default()
        };
        assert_eq!(decide("pods", dying.clone(), &longer), Step::Nothing);
        let now = DeleteOptions {
            grace: Some(0),
            ..Default::default()
        };
        assert!(matches!(decide("pods", dying, &now), Step::Remove(_)));
        let unscheduled = json!({"metadata": {"name": "a"}, "spec": {}});
        assert!(matches!(
            decide("pods", unscheduled, &DeleteOptions::default()),
            Step::Remove(_)
        ));
    }

    #[test]
    fn a_namespace_waits_for_its_contents() {
        let ns = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Step::Mark(dying) = decide("namespaces", ns, &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(dying["status"]["phase"], "Terminating");
    }

    #[test]
    fn options_come_from_body_or_query() {
        let o = DeleteOptions::read(
            &json!({"propagationPolicy": "Orphan", "preconditions": {"uid": "u"}}),
            &Query::parse("gracePeriodSeconds=5"),
        )
        .unwrap();
        assert_eq!(
            (o.grace, o.policy.as_deref(), o.uid.as_deref()),
            (Some(5), Some("Orphan"), Some("u"))
        );
        assert!(
            DeleteOptions::read(&json!({"propagationPolicy": "Maybe"}), &Query::default()).is_err()
        );
    }
}
