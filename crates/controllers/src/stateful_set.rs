//! StatefulSets: pods with a number and a name that stays, made, changed and removed in order.

use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use serde_json::{Value, json};

use crate::action::{Action, Event};
use crate::claim::claim;
use crate::object::{int, is_terminating, items, omit_empty, status_patch, text};
use crate::pods::{self, Availability};
use crate::replicaset::pod_from_template;
use crate::revision::{self, HASH_LABEL, REVISIONS};

/// What a StatefulSet is judged by.
#[derive(Debug)]
pub struct Observed {
    /// The StatefulSet.
    pub set: Arc<Value>,
    /// All pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// All ControllerRevisions of its namespace.
    pub revisions: Vec<Arc<Value>>,
    /// All PersistentVolumeClaims of its namespace.
    pub claims: Vec<Arc<Value>>,
    /// The present moment.
    pub now: Time,
}

/// The number at the end of a pod's name, when the pod is called as this set's pods are.
fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    api::meta::name(pod)
        .strip_prefix(api::meta::name(set))?
        .strip_prefix('-')?
        .parse()
        .ok()
        .filter(|n| *n >= 0)
}

struct Plan<'a> {
    observed: &'a Observed,
    set: &'a Arc<Value>,
    current: Arc<Value>,
    update: Arc<Value>,
    mine: Vec<(i64, Arc<Value>)>,
    again: Option<Duration>,
}

/// What is to be done, and when to look again.
pub fn reconcile(observed: &Observed) -> (Vec<Action>, Option<Duration>) {
    let set = &observed.set;
    let named: Vec<Arc<Value>> = observed
        .pods
        .iter()
        .filter(|pod| ordinal(set, pod).is_some())
        .cloned()
        .collect();
    let claimed = claim(set, &PODS, &named);
    if !claimed.actions.is_empty() {
        return (claimed.actions, None);
    }
    if is_terminating(set) {
        return (Vec::new(), None);
    }
    let history = revision::history(set, &observed.revisions);
    let update = match revision::settled(set, &history) {
        Ok(revision) => revision,
        Err(first) => return (first, None),
    };
    let current = history
        .iter()
        .find(|r| api::meta::name(r) == text(&set["status"]["currentRevision"]))
        .cloned()
        .unwrap_or_else(|| update.clone());
    let mut mine: Vec<(i64, Arc<Value>)> = claimed
        .mine
        .iter()
        .filter_map(|pod| Some((ordinal(set, pod)?, pod.clone())))
        .collect();
    mine.sort_by_key(|(number, _)| *number);
    let mut plan = Plan {
        observed,
        set,
        current,
        update,
        mine,
        again: None,
    };
    let mut actions = plan.retention();
    actions.extend(plan.pods());
    let (status, completes) = plan.status();
    if let Some(patch) = status_patch(set, &status) {
        actions.insert(0, Action::status(STATEFUL_SETS, set, patch));
    } else if completes || actions.is_empty() {
        let limit = set["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
        let (update, current) = (
            api::meta::name(&plan.update),
            api::meta::name(&plan.current),
        );
        let live = |r: &Value| {
            let name = api::meta::name(r);
            name == update
                || name == current
                || plan.mine.iter().any(|(_, pod)| made_from(pod) == name)
        };
        actions.extend(
            revision::surplus(&history, limit, &live)
                .iter()
                .map(|r| Action::delete(REVISIONS, r)),
        );
    }
    (actions, plan.again)
}

/// The name of the revision a pod was made from.
fn made_from(pod: &Value) -> &str {
    text(&pod["metadata"]["labels"][HASH_LABEL])
}

impl Plan<'_> {
    fn start(&self) -> i64 {
        int(&self.set["spec"]["ordinals"]["start"])
    }

    fn wanted(&self) -> i64 {
        self.set["spec"]["replicas"].as_i64().unwrap_or(1)
    }

    fn partition(&self) -> i64 {
        int(&self.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"])
    }

    fn rolls(&self) -> bool {
        self.set["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    }

    fn healthy(&mut self, pod: &Value) -> bool {
        if is_terminating(pod) || pod["status"]["phase"] != "Running" {
            return false;
        }
        let min_ready = int(&self.set["spec"]["minReadySeconds"]);
        match pods::availability(pod, min_ready, self.observed.now) {
            Availability::Yes => true,
            Availability::In(wait) => {
                self.again = Some(self.again.map_or(wait, |known| known.min(wait)));
                false
            }
            Availability::No => false,
        }
    }

    /// Makes, removes and replaces pods: one at a time and in order, unless the set is managed in parallel.
    fn pods(&mut self) -> Vec<Action> {
        let in_order = self.set["spec"]["podManagementPolicy"] != "Parallel";
        let range = self.start()..self.start() + self.wanted();
        let mut actions = Vec::new();
        for number in range.clone() {
            let pod = self.mine.iter().find(|(n, _)| *n == number);
            match pod.map(|(_, pod)| pod.clone()) {
                None => {
                    actions.extend(self.claims_of(number));
                    actions.push(self.create(number));
                    if in_order {
                        return actions;
                    }
                }
                Some(pod) if pods::is_finished(&pod) && !is_terminating(&pod) => {
                    // It is made again under the same name when it is gone.
                    actions.push(self.delete(&pod, "RecreatingFailedPod"));
                    if in_order {
                        return actions;
                    }
                }
                Some(pod) => {
                    if !self.healthy(&pod) && in_order {
                        return actions;
                    }
                }
            }
        }
        let surplus: Vec<Arc<Value>> = self
            .mine
            .iter()
            .rev()
            .filter(|(n, _)| !range.contains(n))
            .map(|(_, pod)| pod.clone())
            .collect();
        // A pod that is not well halts the shrinking, unless it is the first of those: then it goes itself.
        let unhealthy = surplus.iter().rev().find(|pod| !self.healthy(pod)).cloned();
        for pod in &surplus {
            let first = unhealthy
                .as_ref()
                .is_some_and(|u| api::meta::uid(u) == api::meta::uid(pod));
            if in_order && !first && !self.healthy(pod) {
                return actions;
            }
            if !is_terminating(pod) {
                actions.push(self.delete(pod, "SuccessfulDelete"));
            }
            if in_order {
                return actions;
            }
        }
        if !self.rolls() || !actions.is_empty() {
            return actions;
        }
        let update = api::meta::name(&self.update).to_owned();
        let replicas: Vec<(i64, Arc<Value>)> = self
            .mine
            .iter()
            .filter(|(n, _)| range.contains(n) && *n >= self.start() + self.partition())
            .cloned()
            .collect();
        for (_, pod) in replicas.iter().rev() {
            if made_from(pod) != update && !is_terminating(pod) {
                actions.push(self.delete(pod, "SuccessfulDelete"));
                return actions;
            }
            if !self.healthy(pod) {
                return actions;
            }
        }
        actions
    }

    fn create(&self, number: i64) -> Action {
        let set = self.set;
        let old = self.rolls() && number < self.start() + self.partition();
        let revision = if old { &self.current } else { &self.update };
        let mut shape = (**set).clone();
        shape["spec"]["template"] = revision::template(revision);
        let mut pod = pod_from_template(&shape);
        let name = format!("{}-{number}", api::meta::name(set));
        api::meta::unset(&mut pod, "generateName");
        api::meta::set(&mut pod, "name", name.clone());
        let labels = api::meta::map_mut(&mut pod["metadata"], "labels");
        labels.insert(
            "statefulset.kubernetes.io/pod-name".into(),
            name.clone().into(),
        );
        labels.insert(
            "apps.kubernetes.io/pod-index".into(),
            number.to_string().into(),
        );
        labels.insert(HASH_LABEL.into(), api::meta::name(revision).into());
        pod["spec"]["hostname"] = name.clone().into();
        let subdomain = text(&set["spec"]["serviceName"]);
        if !subdomain.is_empty() {
            pod["spec"]["subdomain"] = subdomain.into();
        }
        for claim in set["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let volume = api::meta::name(claim);
            let volumes = pod["spec"]["volumes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let mut volumes: Vec<Value> = volumes
                .into_iter()
                .filter(|v| v["name"] != volume)
                .collect();
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}")}}));
            pod["spec"]["volumes"] = volumes.into();
        }
        let set_name = api::meta::name(set);
        Action {
            on_success: Some(Event::normal(
                set,
                "SuccessfulCreate",
                format!("create Pod {name} in StatefulSet {set_name} successful"),
            )),
            on_failure: Some(Event::warning(
                set,
                "FailedCreate",
                format!("create Pod {name} in StatefulSet {set_name} failed error: {{error}}"),
            )),
            ..Action::create(PODS, pod)
        }
    }

    /// Templates of claims with the name of this pod's claim of each.
    fn claim_names(&self, number: i64) -> impl Iterator<Item = (&Value, String)> {
        let pod = format!("{}-{number}", api::meta::name(self.set));
        items(&self.set["spec"]["volumeClaimTemplates"])
            .iter()
            .map(move |template| (template, format!("{}-{pod}", api::meta::name(template))))
    }

    /// Makes the claims of a pod that are not there: they outlive pods, and are there when a pod comes again.
    fn claims_of(&self, number: i64) -> Vec<Action> {
        let (set, set_name) = (self.set, api::meta::name(self.set));
        let missing = |name: &str| {
            let known = &self.observed.claims;
            !known.iter().any(|claim| api::meta::name(claim) == name)
        };
        self.claim_names(number)
            .filter(|(_, name)| missing(name))
            .map(|(template, name)| {
                let mut claim = template.clone();
                claim["apiVersion"] = "v1".into();
                claim["kind"] = "PersistentVolumeClaim".into();
                if let Some(map) = claim.as_object_mut() {
                    map.shift_remove("status");
                }
                api::meta::unset(&mut claim, "creationTimestamp");
                api::meta::set(&mut claim, "name", name.clone());
                api::meta::set(&mut claim, "namespace", api::meta::namespace(set));
                let labels = api::meta::map_mut(&mut claim["metadata"], "labels");
                for (key, value) in api::meta::pairs(&set["spec"]["selector"]["matchLabels"]) {
                    labels.insert(key.to_owned(), value.into());
                }
                if self.keeps("whenDeleted") == "Delete" {
                    api::meta::set(&mut claim, "ownerReferences", json!([self.owner(None)]));
                }
                let told = |how: &str| format!("create Claim {name} Pod {set_name}-{number} in StatefulSet {set_name} {how}");
                Action {
                    on_success: Some(Event::normal(set, "SuccessfulCreate", told("success"))),
                    on_failure: Some(Event::warning(set, "FailedCreate", told("failed error: {error}"))),
                    ..Action::create(PERSISTENT_VOLUME_CLAIMS, claim)
                }
            })
            .collect()
    }

    /// What becomes of claims `whenDeleted` or `whenScaled`: `Retain` or `Delete`.
    fn keeps(&self, when: &str) -> &str {
        text(&self.set["spec"]["persistentVolumeClaimRetentionPolicy"][when])
    }

    /// The owner that a claim goes with: the set, or one of its pods.
    fn owner(&self, pod: Option<&Value>) -> Value {
        let (api_version, kind, object) = match pod {
            Some(pod) => ("v1", "Pod", pod),
            None => ("apps/v1", "StatefulSet", self.set.as_ref()),
        };
        json!({"apiVersion": api_version, "kind": kind, "name": api::meta::name(object), "uid": api::meta::uid(object)})
    }

    /// Keeps the owners of claims as the set's policy says: what is owned goes with its owner.
    fn retention(&self) -> Vec<Action> {
        let (deleted, scaled) = (
            self.keeps("whenDeleted") == "Delete",
            self.keeps("whenScaled") == "Delete",
        );
        let range = self.start()..self.start() + self.wanted();
        let mut actions = Vec::new();
        for (number, pod) in &self.mine {
            let surplus = !range.contains(number);
            let wanted = match surplus && scaled {
                true => Some(self.owner(Some(pod))),
                false => deleted.then(|| self.owner(None)),
            };
            for (_, name) in self.claim_names(*number) {
                let claim = self
                    .observed
                    .claims
                    .iter()
                    .find(|claim| api::meta::name(claim) == name);
                let Some(claim) = claim.filter(|claim| !is_terminating(claim)) else {
                    continue;
                };
                let is_ours = |owner: &Value| {
                    owner["uid"] == api::meta::uid(self.set)
                        || (owner["kind"] == "Pod" && owner["name"] == api::meta::name(pod))
                };
                let before = items(&claim["metadata"]["ownerReferences"]);
                let mut after: Vec<Value> = before
                    .iter()
                    .filter(|owner| !is_ours(owner))
                    .cloned()
                    .collect();
                after.extend(wanted.clone());
                if after != before {
                    let patch = json!({"metadata": {"ownerReferences": after, "resourceVersion": api::meta::resource_version(claim)}});
                    actions.push(Action::patch(PERSISTENT_VOLUME_CLAIMS, claim, patch));
                }
            }
        }
        actions
    }

    fn delete(&self, pod: &Value, reason: &'static str) -> Action {
        let (set, name) = (self.set, api::meta::name(pod));
        let set_name = api::meta::name(set);
        let event = if reason == "SuccessfulDelete" {
            Event::normal(
                set,
                reason,
                format!("delete Pod {name} in StatefulSet {set_name} successful"),
            )
        } else {
            Event::warning(
                set,
                reason,
                format!(
                    "StatefulSet {}/{set_name} is recreating failed Pod {name}",
                    api::meta::namespace(set)
                ),
            )
        };
        Action {
            on_success: Some(event),
            ..Action::delete(PODS, pod)
        }
    }

    /// The status, and whether an update is complete with it.
    fn status(&mut self) -> (Value, bool) {
        let (update, mut current) = (
            api::meta::name(&self.update).to_owned(),
            api::meta::name(&self.current).to_owned(),
        );
        let all: Vec<Arc<Value>> = self.mine.iter().map(|(_, pod)| pod.clone()).collect();
        let ready = all
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running" && pods::is_ready(pod))
            .count();
        let min_ready = int(&self.set["spec"]["minReadySeconds"]);
        let available = all
            .iter()
            .filter(|pod| {
                pods::availability(pod, min_ready, self.observed.now) == Availability::Yes
            })
            .count();
        let of = |name: &str| {
            all.iter()
                .filter(|pod| !is_terminating(pod) && made_from(pod) == name)
                .count()
        };
        let updated = of(&update);
        let complete = self.rolls() && updated == all.len() && ready == all.len();
        if complete && self.partition() == 0 {
            current.clone_from(&update);
        }
        let kept = of(&current);
        let mut status = omit_empty(json!({
            "observedGeneration": api::meta::generation(self.set),
            "readyReplicas": ready,
            "currentReplicas": kept,
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": update,
        }));
        status["replicas"] = all.len().into();
        status["availableReplicas"] = available.into();
        status["collisionCount"] = int(&self.set["status"]["collisionCount"]).into();
        if self.set["status"]["conditions"].is_array() {
            status["conditions"] = self.set["status"]["conditions"].clone();
        }
        (status, complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn set(replicas: i64) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}})
    }

    fn pod(number: i64, revision: &str, ready: bool) -> Arc<Value> {
        Arc::new(
            json!({"metadata": {"name": format!("web-{number}"), "namespace": "n", "uid": number.to_string(),
            "labels": {"a": "b", HASH_LABEL: revision},
            "ownerReferences": [{"uid": "u", "controller": true, "kind": "StatefulSet", "name": "web"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                "lastTransitionTime": "2025-01-01T00:00:00Z"}]}}),
        )
    }

    fn run(set: &Value, pods: Vec<Arc<Value>>, revisions: &[Arc<Value>]) -> Vec<String> {
        let observed = Observed {
            set: Arc::new(set.clone()),
            pods,
            revisions: revisions.to_vec(),
            claims: Vec::new(),
            now: Time::UNIX_EPOCH + time::Duration::days(30_000),
        };
        reconcile(&observed)
            .0
            .iter()
            .filter(|a| a.target.resource == PODS)
            .map(|a| match &a.verb {
                Verb::Create(o) => format!("create {}", api::meta::name(o)),
                Verb::Delete(_) => format!("delete {}", a.target.name),
                Verb::Patch(..) => format!("patch {}", a.target.name),
            })
            .collect()
    }

    fn revision_of(set: &Value, history: &[Arc<Value>]) -> Arc<Value> {
        match revision::current(set, history, 0) {
            revision::Current::Missing(r) => Arc::new(r),
            _ => panic!("not missing"),
        }
    }

    #[test]
    fn pods_come_one_after_another() {
        let set = set(2);
        let r = [revision_of(&set, &[])];
        let name = api::meta::name(&r[0]).to_owned();
        assert_eq!(run(&set, vec![], &r), ["create web-0"]);
        assert!(run(&set, vec![pod(0, &name, false)], &r).is_empty());
        assert_eq!(run(&set, vec![pod(0, &name, true)], &r), ["create web-1"]);
    }

    #[test]
    fn the_highest_number_goes_first() {
        let set = set(1);
        let r = [revision_of(&set, &[])];
        let name = api::meta::name(&r[0]).to_owned();
        let pods = (0..3).map(|n| pod(n, &name, true)).collect();
        assert_eq!(run(&set, pods, &r), ["delete web-2"]);
    }

    #[test]
    fn scaling_down_halts_at_a_pod_that_is_not_well() {
        let set = set(0);
        let r = [revision_of(&set, &[])];
        let name = api::meta::name(&r[0]).to_owned();
        let pods = |ready: [bool; 3]| (0..3).map(|n| pod(n, &name, ready[n as usize])).collect();
        assert!(run(&set, pods([false, false, false]), &r).is_empty());
        assert_eq!(run(&set, pods([false, true, true]), &r), ["delete web-2"]);
        assert_eq!(run(&set, pods([true, true, false]), &r), ["delete web-2"]);
        assert!(run(&set, pods([true, false, false]), &r).is_empty());
    }

    #[test]
    fn an_update_rolls_down_to_the_partition() {
        let mut set = set(3);
        let old = revision_of(&set, &[]);
        let name = api::meta::name(&old).to_owned();
        set["spec"]["template"]["spec"]["x"] = 1.into();
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2.into();
        set["status"]["currentRevision"] = name.clone().into();
        let new = revision_of(&set, std::slice::from_ref(&old));
        let new_name = api::meta::name(&new).to_owned();
        let r = [old, new];
        let pods: Vec<_> = (0..3).map(|n| pod(n, &name, true)).collect();
        assert_eq!(run(&set, pods.clone(), &r), ["delete web-2"]);
        let mut done = pods;
        done[2] = pod(2, &new_name, true);
        assert!(run(&set, done, &r).is_empty());
    }

    #[test]
    fn claims_come_before_their_pod_and_outlive_it_unless_the_policy_says_so() {
        let mut set = set(1);
        set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "www"}, "spec": {"x": 1}, "status": {"phase": "Pending"}}]);
        let r = [revision_of(&set, &[])];
        let name = api::meta::name(&r[0]).to_owned();
        let judge = |set: &Value, pods: Vec<Arc<Value>>, claims: Vec<Value>| {
            reconcile(&Observed {
                set: Arc::new(set.clone()),
                pods,
                revisions: r.to_vec(),
                claims: claims.into_iter().map(Arc::new).collect(),
                now: Time::UNIX_EPOCH + time::Duration::days(30_000),
            })
            .0
            .into_iter()
            .filter(|a| a.target.resource == PERSISTENT_VOLUME_CLAIMS)
            .map(|a| a.verb)
            .collect::<Vec<_>>()
        };
        let made = judge(&set, vec![], vec![]);
        let [Verb::Create(claim)] = made.as_slice() else {
            panic!("{made:?}")
        };
        assert_eq!(claim["metadata"]["name"], "www-web-0");
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert!(
            claim.get("status").is_none() && claim["metadata"].get("ownerReferences").is_none()
        );
        let there = json!({"metadata": {"name": "www-web-0"}});
        assert!(judge(&set, vec![], vec![there.clone()]).is_empty());
        let owners = |verbs: &[Verb]| match verbs {
            [Verb::Patch(patch, None)] => patch["metadata"]["ownerReferences"].clone(),
            other => panic!("{other:?}"),
        };
        set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
        let seen = judge(&set, vec![pod(0, &name, true)], vec![there.clone()]);
        assert_eq!(owners(&seen)[0]["kind"], "StatefulSet");
        set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": "Retain", "whenScaled": "Delete"});
        set["spec"]["replicas"] = 0.into();
        let seen = judge(&set, vec![pod(0, &name, true)], vec![there]);
        assert_eq!(owners(&seen)[0]["kind"], "Pod");
    }

    #[test]
    fn a_parallel_set_waits_for_nobody() {
        let mut set = set(2);
        set["spec"]["podManagementPolicy"] = "Parallel".into();
        let r = [revision_of(&set, &[])];
        assert_eq!(run(&set, vec![], &r), ["create web-0", "create web-1"]);
    }
}
