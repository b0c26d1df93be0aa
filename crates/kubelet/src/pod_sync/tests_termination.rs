use serde_json::{Value, json};

use super::tests::{Scene, T0, pod};
use super::*;

fn two() -> Value {
    json!({"terminationGracePeriodSeconds": 7, "containers": [
        {"name": "a", "image": "app"}, {"name": "proxy", "image": "app"}]})
}

fn deleted(spec: Value, grace: u64, now: Millis) -> Input {
    let mut object = pod(spec);
    object["metadata"]["deletionTimestamp"] = json!(crate::clock::rfc3339(now + grace * 1000));
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    Input::Desired(Arc::new(serde_json::from_value(object).unwrap()))
}

fn running() -> Scene {
    let mut scene = Scene::up(two());
    scene.started("a");
    scene.started("proxy");
    scene.take();
    scene.events.clear();
    scene
}

#[test]
fn deletion_stops_all_containers_at_once_then_clears_away_then_deletes() {
    let mut scene = running();
    scene.feed(deleted(two(), 7, T0));
    let stop = |name: &str| Action::StopContainer {
        name: name.into(),
        instance: 0,
        grace: 7_000,
    };
    assert_eq!(scene.take(), [stop("a"), stop("proxy")]);
    assert_eq!(
        scene.events,
        [
            "Killing Stopping container a",
            "Killing Stopping container proxy"
        ]
    );
    scene.after(1_500);
    scene.feed(deleted(two(), 7, T0));
    assert!(scene.take().is_empty(), "asking again does not stop again");
    scene.exited("a", 0);
    assert!(
        scene.take().is_empty(),
        "no restart, and the other still runs"
    );
    scene.exited("proxy", 143);
    assert_eq!(scene.take(), [Action::TearDown]);
    scene.feed(Input::TornDown);
    assert_eq!(scene.take(), [Action::DeletePod]);
    assert!(scene.machine.is_done());
    assert_eq!(scene.machine.phase(), "Failed");
}

#[test]
fn a_shorter_grace_period_takes_effect() {
    let mut scene = running();
    scene.feed(deleted(two(), 7, T0));
    scene.take();
    scene.feed(deleted(two(), 0, T0));
    let stop = |name: &str| Action::StopContainer {
        name: name.into(),
        instance: 0,
        grace: 0,
    };
    assert_eq!(scene.take(), [stop("a"), stop("proxy")]);
}

#[test]
fn a_forced_deletion_leaves_nothing_running() {
    let mut scene = running();
    scene.feed(Input::Removed);
    let stop = |name: &str| Action::StopContainer {
        name: name.into(),
        instance: 0,
        grace: 1_000,
    };
    assert_eq!(scene.take(), [stop("a"), stop("proxy")]);
    scene.exited("a", 143);
    scene.exited("proxy", 143);
    scene.feed(Input::TornDown);
    assert_eq!(scene.take(), [Action::TearDown, Action::Forget]);
}

#[test]
fn a_pod_deleted_while_it_starts_waits_for_what_is_on_its_way() {
    let mut scene = Scene::new(pod(two()));
    scene.take();
    scene.feed(deleted(two(), 7, T0));
    assert!(scene.take().is_empty());
    scene.feed(Input::SandboxCreated(Ok("10.10.0.5".parse().unwrap())));
    scene.feed(Input::VolumesMounted(Ok(())));
    assert_eq!(scene.take(), [Action::TearDown]);
    scene.feed(Input::TornDown);
    assert_eq!(scene.take(), [Action::DeletePod]);
}

#[test]
fn a_deadline_fails_the_pod() {
    let mut spec = two();
    spec["activeDeadlineSeconds"] = json!(60);
    let mut scene = Scene::up(spec);
    scene.started("a");
    scene.started("proxy");
    assert_eq!(scene.machine.wake_at(), Some(T0 + 60_000));
    scene.take();
    scene.after(60_000);
    assert_eq!(scene.take().len(), 2);
    let status = scene.machine.status();
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("DeadlineExceeded"))
    );
}

#[test]
fn a_post_start_hook_holds_back_the_next_container_and_its_failure_kills() {
    let spec = json!({"containers": [
        {"name": "proxy", "image": "app", "lifecycle": {"postStart": {"exec": {"command": ["wait"]}}}},
        {"name": "a", "image": "app"}]});
    let mut scene = Scene::up(spec);
    assert_eq!(scene.starts(), [("proxy".to_owned(), 0)]);
    scene.started("proxy");
    assert!(scene.starts().is_empty());
    scene.feed(Input::PostStartDone {
        name: "proxy".into(),
        instance: 0,
        result: Ok(()),
    });
    assert_eq!(scene.starts(), [("a".to_owned(), 0)]);
}

#[test]
fn a_failed_post_start_hook_kills_its_container() {
    let spec = json!({"containers": [
        {"name": "c", "image": "app", "lifecycle": {"postStart": {"exec": {"command": ["wait"]}}}}]});
    let mut scene = Scene::up(spec);
    scene.started("c");
    scene.take();
    scene.feed(Input::PostStartDone {
        name: "c".into(),
        instance: 0,
        result: Err("PostStartHook failed".into()),
    });
    assert_eq!(
        scene.take(),
        [Action::StopContainer {
            name: "c".into(),
            instance: 0,
            grace: 30_000
        }]
    );
    scene.exited("c", 143);
    assert_eq!(scene.starts(), [("c".to_owned(), 1)]);
}

#[test]
fn a_restarted_node_counts_on_from_the_stored_status() {
    let mut object = pod(two());
    object["status"] = json!({"phase": "Running", "startTime": "2023-11-14T20:00:00Z",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2023-11-14T20:00:00Z"},
                       {"type": "example.org/gate", "status": "True", "lastTransitionTime": null}],
        "containerStatuses": [{"name": "a", "image": "app", "imageID": "x", "ready": true, "restartCount": 2,
            "containerID": "theater://old", "state": {"running": {"startedAt": "2023-11-14T20:00:01Z"}}, "lastState": {}}]});
    let mut scene = Scene::new(object);
    scene.feed(Input::SandboxCreated(Ok("10.10.0.9".parse().unwrap())));
    scene.feed(Input::VolumesMounted(Ok(())));
    scene.started("a");
    let container = scene.main(0);
    assert_eq!(container["restartCount"], 3);
    let last = &container["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(255), &json!("Unknown"))
    );
    assert_eq!(last["containerID"], "theater://old");
    let status = scene.machine.status();
    assert_eq!(status["startTime"], "2023-11-14T20:00:00Z");
    let types: Vec<&str> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert!(
        types.contains(&"example.org/gate"),
        "others' conditions are kept: {types:?}"
    );
}

#[test]
fn a_dead_sandbox_is_replaced_with_everything_in_it() {
    let mut scene = running();
    scene.feed(Input::SandboxDied);
    assert_eq!(scene.take().len(), 2);
    scene.exited("a", 137);
    scene.exited("proxy", 137);
    assert_eq!(scene.take(), [Action::DestroySandbox]);
    scene.feed(Input::SandboxGone);
    assert_eq!(scene.take(), [Action::CreateSandbox]);
    scene.feed(Input::SandboxCreated(Ok("10.10.0.6".parse().unwrap())));
    assert_eq!(scene.starts().len(), 2);
}

#[test]
fn qos_classes() {
    for (resources, expected) in [
        (json!({}), "BestEffort"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (json!({"requests": {"cpu": "100m"}}), "Burstable"),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        ),
    ] {
        let object =
            pod(json!({"containers": [{"name": "c", "image": "app", "resources": resources}]}));
        let pod: Pod = serde_json::from_value(object).unwrap();
        assert_eq!(status::qos_class(&pod), expected);
    }
}
