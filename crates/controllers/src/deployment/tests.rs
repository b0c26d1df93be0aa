use serde_json::json;

use super::*;
use crate::action::Verb;
use crate::object::{items, merge_patch};

fn now(seconds: i64) -> Time {
    Time::UNIX_EPOCH + time::Duration::seconds(seconds)
}

/// A Deployment with its ReplicaSets, carried forward in memory.
struct World {
    observed: Observed,
    log: Vec<String>,
}

impl World {
    fn new(replicas: i64, strategy: Value) -> Self {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1,
                "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": strategy,
                "template": template("v1"),
            },
        });
        Self {
            observed: Observed {
                deployment: Arc::new(deployment),
                replica_sets: vec![],
                pods: vec![],
                now: now(1_000),
            },
            log: vec![],
        }
    }

    fn rolling(replicas: i64, surge: Value, unavailable: Value) -> Self {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        Self::new(
            replicas,
            json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
        )
    }

    fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let mut deployment = self.observed.deployment.as_ref().clone();
        change(&mut deployment);
        let generation = int(&deployment["metadata"]["generation"]) + 1;
        deployment["metadata"]["generation"] = generation.into();
        self.observed.deployment = Arc::new(deployment);
    }

    fn set_image(&mut self, image: &str) {
        self.change(|deployment| deployment["spec"]["template"] = template(image));
    }

    /// One look at the world; returns whether anything was done.
    fn step(&mut self) -> bool {
        let decision = reconcile(&self.observed);
        let busy = !decision.actions.is_empty();
        for action in decision.actions {
            if let Some(event) = &action.on_success {
                self.log.push(event.message.clone());
            }
            self.carry_out(action);
        }
        busy
    }

    fn carry_out(&mut self, action: Action) {
        if action.target.resource == DEPLOYMENTS {
            let Verb::Patch(patch, _) = action.verb else {
                panic!()
            };
            let mut deployment = self.observed.deployment.as_ref().clone();
            merge(&mut deployment, &patch);
            self.observed.deployment = Arc::new(deployment);
            return;
        }
        match action.verb {
            Verb::Create(mut set) => {
                let age = 100 + i64::try_from(self.observed.replica_sets.len()).unwrap();
                set["metadata"]["uid"] = set["metadata"]["name"].clone();
                set["metadata"]["generation"] = json!(1);
                set["metadata"]["creationTimestamp"] = api::time::rfc3339(now(age)).into();
                self.observed.replica_sets.push(Arc::new(set));
            }
            Verb::Patch(patch, None) => {
                for set in &mut self.observed.replica_sets {
                    if api::meta::name(set) == action.target.name {
                        let mut changed = set.as_ref().clone();
                        merge(&mut changed, &patch);
                        *set = Arc::new(changed);
                    }
                }
            }
            Verb::Delete(_) => {
                self.log.push(format!("deleted {}", action.target.name));
                self.observed
                    .replica_sets
                    .retain(|set| api::meta::name(set) != action.target.name);
            }
            Verb::Patch(..) => panic!("{:?}", action.target),
        }
    }

    /// The ReplicaSets' pods appear, and become available unless the image is broken.
    fn pods_follow(&mut self) {
        for set in &mut self.observed.replica_sets {
            let mut changed = set.as_ref().clone();
            let wanted = int(&changed["spec"]["replicas"]);
            let broken = changed["spec"]["template"]["spec"]["containers"][0]["image"] == "broken";
            let ready = if broken { 0 } else { wanted };
            changed["status"] = json!({
                "replicas": wanted, "readyReplicas": ready, "availableReplicas": ready,
                "observedGeneration": changed["metadata"]["generation"],
            });
            *set = Arc::new(changed);
        }
    }

    /// Steps until nothing changes any more. Checks the promises of the strategy all along.
    fn settle(&mut self) {
        for _ in 0..100 {
            let busy = self.step();
            self.check();
            let before = self.observed.replica_sets.clone();
            self.pods_follow();
            if !busy && before == self.observed.replica_sets {
                return;
            }
        }
        panic!("never comes to rest: {:?}", self.log);
    }

    fn check(&self) {
        let deployment = &self.observed.deployment;
        if strategy::is_recreate(deployment) || deployment["spec"]["paused"] == true {
            return;
        }
        let total: i64 = self.sizes().iter().map(|(_, size)| size).sum();
        let most = strategy::replicas(deployment) + strategy::max_surge(deployment);
        assert!(
            total <= most,
            "{total} pods, at most {most} allowed: {:?}",
            self.log
        );
    }

    fn sizes(&self) -> Vec<(String, i64)> {
        self.observed
            .replica_sets
            .iter()
            .map(|set| {
                let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
                (image.unwrap().to_owned(), int(&set["spec"]["replicas"]))
            })
            .collect()
    }

    fn status(&self) -> &Value {
        &self.observed.deployment["status"]
    }

    fn progressing(&self) -> (&str, &str) {
        let condition =
            crate::object::condition(&self.status()["conditions"], "Progressing").unwrap();
        (
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap(),
        )
    }

    fn revision(&self) -> Option<&str> {
        api::meta::annotation(&self.observed.deployment, REVISION)
    }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}})
}

fn merge(target: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        if value.is_null() {
            target.as_object_mut().unwrap().shift_remove(key);
        } else if value.is_object() {
            if !target[key].is_object() {
                target[key] = json!({});
            }
            merge(&mut target[key], value);
        } else {
            target[key] = value.clone();
        }
    }
}

fn sizes(world: &World) -> Vec<(&'static str, i64)> {
    let known = ["v1", "v2", "v3", "broken"];
    world
        .sizes()
        .into_iter()
        .map(|(image, size)| (*known.iter().find(|name| **name == image).unwrap(), size))
        .collect()
}

#[test]
fn the_first_rollout_makes_a_set_with_the_marks_of_the_real_one() {
    let mut world = World::rolling(2, json!("25%"), json!("25%"));
    assert!(world.step());
    let set = world.observed.replica_sets[0].clone();
    let hash = api::meta::label(&set, TEMPLATE_HASH).unwrap().to_owned();
    assert_eq!(api::meta::name(&set), format!("web-{hash}"));
    assert_eq!(
        set["metadata"]["annotations"],
        json!({"note": "x", REVISION: "1", DESIRED: "2", MAX: "3"})
    );
    assert_eq!(
        set["spec"]["selector"]["matchLabels"],
        json!({"app": "web", TEMPLATE_HASH: hash})
    );
    assert_eq!(
        set["spec"]["template"]["metadata"]["labels"],
        json!({"app": "web", TEMPLATE_HASH: hash})
    );
    assert_eq!(
        world.log,
        [format!("Scaled up replica set web-{hash} from 0 to 2")]
    );
    assert_eq!(world.progressing(), ("True", "NewReplicaSetCreated"));
    assert_eq!(world.revision(), Some("1"));
    world.settle();
    assert_eq!(world.progressing(), ("True", "NewReplicaSetAvailable"));
    let mut status = world.status().clone();
    status.as_object_mut().unwrap().shift_remove("conditions");
    assert_eq!(
        status,
        json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2})
    );
}

#[test]
fn a_rolling_update_step_by_step() {
    let mut world = World::rolling(4, json!(1), json!(1));
    world.settle();
    world.set_image("v2");
    // Surge of one and one that may be missing: both move at once.
    world.step();
    assert_eq!(sizes(&world), [("v1", 3), ("v2", 1)]);
    assert_eq!(world.revision(), Some("2"));
    // The fifth pod may come, as one has gone.
    world.step();
    assert_eq!(sizes(&world), [("v1", 3), ("v2", 2)]);
    // Nothing more until a new pod is available.
    world.step();
    assert_eq!(sizes(&world), [("v1", 3), ("v2", 2)]);
    world.pods_follow();
    world.step();
    assert_eq!(sizes(&world), [("v1", 1), ("v2", 2)]);
    world.settle();
    assert_eq!(sizes(&world), [("v1", 0), ("v2", 4)]);
    assert_eq!(world.progressing(), ("True", "NewReplicaSetAvailable"));
    assert_eq!(int(&world.status()["updatedReplicas"]), 4);
}

#[test]
fn a_broken_image_never_takes_away_more_than_allowed() {
    let mut world = World::rolling(4, json!("25%"), json!("25%"));
    world.settle();
    world.set_image("broken");
    world.settle();
    assert_eq!(sizes(&world), [("v1", 3), ("broken", 2)]);
    assert_eq!(int(&world.status()["availableReplicas"]), 3);
    assert_eq!(int(&world.status()["unavailableReplicas"]), 2);
    assert_eq!(
        crate::object::condition(&world.status()["conditions"], "Available").unwrap()["status"],
        "True"
    );
    // After the deadline it is said so.
    world.observed.now = now(1_000 + 700);
    world.settle();
    assert_eq!(world.progressing(), ("False", "ProgressDeadlineExceeded"));
    // Going back to the old image ends it: its set is taken up again.
    world.set_image("v1");
    world.settle();
    assert_eq!(sizes(&world), [("v1", 4), ("broken", 0)]);
    assert_eq!(world.revision(), Some("3"));
    let annotations = &world.observed.replica_sets[0]["metadata"]["annotations"];
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations[REVISION_HISTORY], "1");
    assert_eq!(world.progressing(), ("True", "NewReplicaSetAvailable"));
}

#[test]
fn a_deadline_asks_to_be_looked_at_again() {
    let mut world = World::rolling(1, json!(1), json!(0));
    world.step();
    world.observed.now = now(1_100);
    assert_eq!(
        reconcile(&world.observed).again,
        Some(Duration::from_secs(501))
    );
    world.settle();
    assert_eq!(reconcile(&world.observed), Decision::default());
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(2, json!({"type": "Recreate"}));
    world.settle();
    let old = world.observed.replica_sets[0].clone();
    let pod = |phase: &str| {
        Arc::new(json!({
            "metadata": {"name": "p", "ownerReferences": [{"uid": old["metadata"]["uid"], "controller": true}]},
            "status": {"phase": phase},
        }))
    };
    world.observed.pods = vec![pod("Running")];
    world.set_image("v2");
    world.settle();
    assert_eq!(sizes(&world), [("v1", 0)]);
    world.observed.pods = vec![pod("Succeeded")];
    world.settle();
    assert_eq!(sizes(&world), [("v1", 0), ("v2", 2)]);
}

#[test]
fn scaling_is_not_a_rollout() {
    let mut world = World::rolling(2, json!("25%"), json!("25%"));
    world.settle();
    world.change(|deployment| deployment["spec"]["replicas"] = json!(5));
    world.settle();
    assert_eq!(sizes(&world), [("v1", 5)]);
    assert_eq!(world.revision(), Some("1"));
    let annotations = &world.observed.replica_sets[0]["metadata"]["annotations"];
    assert_eq!(
        (&annotations[DESIRED], &annotations[MAX]),
        (&json!("5"), &json!("7"))
    );
    world.change(|deployment| deployment["spec"]["replicas"] = json!(0));
    world.settle();
    assert_eq!(sizes(&world), [("v1", 0)]);
    assert_eq!(int(&world.status()["observedGeneration"]), 3);
    world.change(|deployment| deployment["spec"]["replicas"] = json!(1));
    world.settle();
    assert_eq!(sizes(&world), [("v1", 1)]);
    assert!(
        world.log.last().unwrap().ends_with("from 0 to 1"),
        "{:?}",
        world.log
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared() {
    let mut world = World::rolling(10, json!(2), json!(0));
    world.settle();
    world.set_image("broken");
    world.settle();
    assert_eq!(sizes(&world), [("v1", 10), ("broken", 2)]);
    world.change(|deployment| deployment["spec"]["replicas"] = json!(20));
    world.step();
    // 22 in all: 10 more, shared 10 to 2.
    assert_eq!(sizes(&world), [("v1", 18), ("broken", 4)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::rolling(2, json!(1), json!(0));
    world.settle();
    world.change(|deployment| {
        deployment["spec"]["paused"] = json!(true);
        deployment["spec"]["template"] = template("v2");
        deployment["spec"]["replicas"] = json!(3);
    });
    world.settle();
    assert_eq!(sizes(&world), [("v1", 3)]);
    assert_eq!(world.progressing(), ("Unknown", "DeploymentPaused"));
    world.change(|deployment| deployment["spec"]["paused"] = json!(false));
    world.step();
    assert_eq!(sizes(&world)[1], ("v2", 1));
    world.settle();
    assert_eq!(sizes(&world), [("v1", 0), ("v2", 3)]);
}

#[test]
fn only_so_much_history_is_kept() {
    let mut world = World::rolling(1, json!(1), json!(0));
    world.change(|deployment| deployment["spec"]["revisionHistoryLimit"] = json!(1));
    for image in ["v1", "v2", "v3"] {
        world.set_image(image);
        world.settle();
    }
    assert_eq!(sizes(&world), [("v2", 0), ("v3", 1)]);
    assert_eq!(world.revision(), Some("3"));
}

#[test]
fn failures_of_sets_are_told() {
    let mut world = World::rolling(1, json!(1), json!(0));
    world.settle();
    let mut set = world.observed.replica_sets[0].as_ref().clone();
    set["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
    world.observed.replica_sets[0] = Arc::new(set.clone());
    world.step();
    let conditions = &world.status()["conditions"];
    assert_eq!(
        crate::object::condition(conditions, "ReplicaFailure").unwrap()["message"],
        "quota"
    );
    set["status"]["conditions"] = Value::Null;
    world.observed.replica_sets[0] = Arc::new(set);
    world.step();
    assert!(crate::object::condition(&world.status()["conditions"], "ReplicaFailure").is_none());
}

#[test]
fn a_set_that_cannot_be_made_is_told_and_collisions_change_the_name() {
    let mut world = World::rolling(1, json!(1), json!(0));
    let action = creation_failed(&world.observed, "web-1", "no").unwrap();
    let Verb::Patch(patch, Some("status")) = action.verb else {
        panic!()
    };
    assert_eq!(
        patch["status"]["conditions"][0]["message"],
        "Failed to create new replica set \"web-1\": no"
    );
    let Verb::Patch(patch, _) = collision(&world.observed.deployment).verb else {
        panic!()
    };
    world.step();
    let first = api::meta::name(&world.observed.replica_sets[0]).to_owned();
    world.observed.replica_sets.clear();
    world.change(|deployment| merge(deployment, &patch));
    world.step();
    assert_ne!(first, api::meta::name(&world.observed.replica_sets[0]));
}

#[test]
fn selecting_everything_is_refused_and_deletion_stops_everything() {
    let mut world = World::rolling(1, json!(1), json!(0));
    world.change(|deployment| deployment["spec"]["selector"] = json!({}));
    let decision = reconcile(&world.observed);
    assert_eq!(
        (decision.events[0].reason, decision.actions.len()),
        ("SelectingAll", 0)
    );
    let mut world = World::rolling(1, json!(1), json!(0));
    world.change(|deployment| {
        deployment["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z")
    });
    world.settle();
    assert!(world.observed.replica_sets.is_empty());
}

#[test]
fn every_rollout_keeps_its_promises() {
    for replicas in 1..8 {
        for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (2, 1), (0, 3), (5, 0)] {
            let mut world = World::rolling(replicas, json!(surge), json!(unavailable));
            world.settle();
            world.set_image("v2");
            let least = replicas - strategy::max_unavailable(&world.observed.deployment);
            for _ in 0..60 {
                world.step();
                world.check();
                // Pods of shrunk sets are gone at once, new ones are not yet available.
                let available: i64 = world
                    .observed
                    .replica_sets
                    .iter()
                    .map(|set| {
                        int(&set["spec"]["replicas"]).min(int(&set["status"]["availableReplicas"]))
                    })
                    .sum();
                assert!(available >= least, "{available} < {least}: {:?}", world.log);
                world.pods_follow();
            }
            assert_eq!(
                sizes(&world),
                [("v1", 0), ("v2", replicas)],
                "{replicas} {surge} {unavailable}"
            );
            let set = &world.observed.replica_sets[0];
            assert_eq!(merge_patch(&set["spec"]["replicas"], &json!(0)), None);
            assert!(items(&world.status()["conditions"]).len() == 2);
        }
    }
}
