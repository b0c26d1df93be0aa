use serde_json::{Value, json};

use super::*;
use crate::catalog::Image;

pub(super) const T0: Millis = 1_700_000_000_000;

pub(super) struct Scene {
    pub(super) machine: PodMachine,
    pub(super) now: Millis,
    /// Every action since the last look, events apart.
    pub(super) actions: Vec<Action>,
    pub(super) events: Vec<String>,
}

pub(super) fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": spec})
}

impl Scene {
    pub(super) fn new(pod: Value) -> Self {
        let catalog = ImageCatalog {
            images: vec![Image {
                names: vec!["app".into()],
                ..Image::default()
            }],
        };
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let machine = PodMachine::new(Arc::new(pod), Arc::new(catalog), "10.10.0.1", T0);
        let mut scene = Self {
            machine,
            now: T0,
            actions: Vec::new(),
            events: Vec::new(),
        };
        scene.feed(Input::Tick);
        scene
    }
    pub(super) fn feed(&mut self, input: Input) {
        for action in self.machine.handle(input, self.now) {
            match action {
                Action::Event(event) => self
                    .events
                    .push(format!("{} {}", event.reason, event.message)),
                other => self.actions.push(other),
            }
        }
    }
    /// Sandbox and volumes succeed.
    pub(super) fn up(spec: Value) -> Self {
        let mut scene = Self::new(pod(spec));
        scene.feed(Input::SandboxCreated(Ok("10.10.0.5".parse().unwrap())));
        scene.feed(Input::VolumesMounted(Ok(())));
        scene
    }
    pub(super) fn started(&mut self, name: &str) {
        let instance = self
            .machine
            .live_instance(name)
            .unwrap_or_else(|| panic!("{name} is not starting"));
        self.feed(Input::Started {
            name: name.into(),
            instance,
            id: format!("id-{name}-{instance}"),
        });
    }
    pub(super) fn exited(&mut self, name: &str, code: i32) {
        let instance = self
            .machine
            .live_instance(name)
            .unwrap_or_else(|| panic!("{name} does not run"));
        self.feed(Input::Exited {
            name: name.into(),
            instance,
            exit: Exit {
                code,
                ..Exit::default()
            },
        });
    }
    pub(super) fn after(&mut self, millis: Millis) {
        self.now += millis;
        self.feed(Input::Tick);
    }
    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
    pub(super) fn starts(&mut self) -> Vec<(String, u32)> {
        self.take()
            .into_iter()
            .filter_map(|action| match action {
                Action::StartContainer { name, instance } => Some((name, instance)),
                _ => None,
            })
            .collect()
    }
    pub(super) fn condition(&self, kind: &str) -> String {
        let status = self.machine.status();
        let found = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == kind)
            .unwrap()
            .clone();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("status"), text("reason"), text("message"))
            .trim()
            .to_owned()
    }
    pub(super) fn main(&self, index: usize) -> Value {
        self.machine.status()["containerStatuses"][index].clone()
    }
}

fn one(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "harbor/app:v1"});
    for (key, value) in extra.as_object().unwrap() {
        container[key.as_str()] = value.clone();
    }
    json!({"containers": [container]})
}

#[test]
fn a_plain_pod_comes_up() {
    let mut scene = Scene::new(pod(one(json!({}))));
    assert_eq!(scene.take(), [Action::MountVolumes, Action::CreateSandbox]);
    assert_eq!(scene.machine.phase(), "Pending");
    assert_eq!(
        scene.main(0)["state"],
        json!({"waiting": {"reason": "ContainerCreating"}})
    );
    assert_eq!(
        scene.condition("Ready"),
        "False ContainersNotReady containers with unready status: [c]"
    );
    assert_eq!(scene.condition("PodReadyToStartContainers"), "False");
    scene.feed(Input::VolumesMounted(Ok(())));
    assert!(
        scene.take().is_empty(),
        "nothing starts before the sandbox is there"
    );
    scene.feed(Input::SandboxCreated(Ok("10.10.0.5".parse().unwrap())));
    assert_eq!(scene.starts(), [("c".to_owned(), 0)]);
    scene.started("c");
    let status = scene.machine.status();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.10.0.5");
    assert_eq!(status["hostIP"], "10.10.0.1");
    let container = scene.main(0);
    assert_eq!(container["ready"], true);
    assert_eq!(container["started"], true);
    assert_eq!(container["containerID"], "theater://id-c-0");
    assert_eq!(
        container["state"]["running"]["startedAt"],
        "2023-11-14T22:13:20Z"
    );
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(scene.condition(kind), "True", "{kind}");
    }
    assert_eq!(
        scene.events,
        [
            "Pulled Container image \"harbor/app:v1\" already present on machine",
            "Started Started container c"
        ]
    );
}

#[test]
fn crash_loop_back_off_waits_longer_each_time() {
    let mut scene = Scene::up(one(json!({})));
    scene.started("c");
    scene.take();
    scene.exited("c", 1);
    assert_eq!(
        scene.starts(),
        [("c".to_owned(), 1)],
        "the first restart is immediate"
    );
    scene.started("c");
    assert_eq!(scene.main(0)["lastState"]["terminated"]["reason"], "Error");
    for (wait, text) in [
        (10_000, "10s"),
        (20_000, "20s"),
        (40_000, "40s"),
        (80_000, "1m20s"),
        (160_000, "2m40s"),
        (300_000, "5m0s"),
        (300_000, "5m0s"),
    ] {
        scene.events.clear();
        scene.exited("c", 1);
        assert!(scene.starts().is_empty(), "{text}");
        let container = scene.main(0);
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(
            container["state"]["waiting"]["message"],
            format!("back-off {text} restarting failed container=c pod=p_ns(u1)")
        );
        assert_eq!(scene.machine.phase(), "Running");
        assert_eq!(
            scene.events,
            ["BackOff Back-off restarting failed container c in pod p_ns(u1)"]
        );
        assert_eq!(scene.machine.wake_at(), Some(scene.now + wait));
        scene.after(wait - 1);
        assert!(scene.starts().is_empty(), "too early after {text}");
        scene.after(1);
        assert_eq!(scene.starts().len(), 1);
        scene.started("c");
    }
    assert_eq!(scene.main(0)["restartCount"], 8);
    scene.now += 700_000;
    scene.exited("c", 1);
    assert_eq!(scene.starts().len(), 1, "ten quiet minutes forgive");
}

#[test]
fn restart_policies() {
    for (policy, code, restarted, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 3, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 3, false, "Failed"),
    ] {
        let mut spec = one(json!({}));
        spec["restartPolicy"] = json!(policy);
        let mut scene = Scene::up(spec);
        scene.started("c");
        scene.take();
        scene.exited("c", code);
        let restart = scene
            .actions
            .iter()
            .any(|action| matches!(action, Action::StartContainer { .. }));
        assert_eq!(restart, restarted, "{policy} {code}");
        if !restarted {
            assert_eq!(scene.take(), [Action::TearDown], "{policy} {code}");
            scene.feed(Input::TornDown);
        }
        assert_eq!(scene.machine.phase(), phase, "{policy} {code}");
        if phase == "Succeeded" {
            assert_eq!(scene.condition("Ready"), "False PodCompleted");
            assert_eq!(scene.condition("Initialized"), "True PodCompleted");
            assert_eq!(scene.main(0)["state"]["terminated"]["reason"], "Completed");
        }
    }
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let mut scene = Scene::up(json!({
        "initContainers": [{"name": "i1", "image": "app"}, {"name": "i2", "image": "app"}],
        "containers": [{"name": "a", "image": "app"}, {"name": "b", "image": "app"}]
    }));
    assert_eq!(scene.starts(), [("i1".to_owned(), 0)]);
    assert_eq!(
        scene.condition("Initialized"),
        "False ContainersNotInitialized containers with incomplete status: [i1 i2]"
    );
    assert_eq!(
        scene.main(0)["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    scene.started("i1");
    scene.exited("i1", 1);
    assert_eq!(scene.starts(), [("i1".to_owned(), 1)]);
    scene.started("i1");
    scene.exited("i1", 0);
    assert_eq!(scene.starts(), [("i2".to_owned(), 0)]);
    scene.started("i2");
    scene.exited("i2", 0);
    assert_eq!(scene.starts(), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    scene.started("b");
    assert_eq!(scene.condition("Initialized"), "True");
    assert_eq!(
        scene.condition("Ready"),
        "False ContainersNotReady containers with unready status: [a]"
    );
    assert_eq!(scene.machine.phase(), "Pending");
    scene.started("a");
    assert_eq!(scene.machine.phase(), "Running");
    assert_eq!(scene.condition("Ready"), "True");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut scene = Scene::up(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "app"}],
        "containers": [{"name": "a", "image": "app"}]
    }));
    scene.started("i");
    scene.take();
    scene.exited("i", 2);
    assert_eq!(scene.take(), [Action::TearDown]);
    assert_eq!(scene.machine.phase(), "Failed");
    assert_eq!(scene.condition("Ready"), "False PodFailed");
}

#[test]
fn native_sidecars_start_first_stay_and_end_last() {
    let mut scene = Scene::up(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "proxy", "image": "app", "restartPolicy": "Always",
            "startupProbe": {"httpGet": {"port": 1}}, "readinessProbe": {"httpGet": {"port": 1}}}],
        "containers": [{"name": "a", "image": "app"}]
    }));
    assert_eq!(scene.starts(), [("proxy".to_owned(), 0)]);
    scene.started("proxy");
    assert!(
        scene.starts().is_empty(),
        "the app waits for the sidecar's startup probe"
    );
    scene.feed(Input::Probed {
        name: "proxy".into(),
        instance: 0,
        kind: ProbeKind::Startup,
        healthy: true,
    });
    assert_eq!(scene.starts(), [("a".to_owned(), 0)]);
    scene.started("a");
    assert_eq!(
        scene.condition("Ready"),
        "False ContainersNotReady containers with unready status: [proxy]"
    );
    scene.feed(Input::Probed {
        name: "proxy".into(),
        instance: 0,
        kind: ProbeKind::Readiness,
        healthy: true,
    });
    assert_eq!(scene.condition("Ready"), "True");
    scene.take();
    scene.exited("a", 0);
    assert_eq!(
        scene.take(),
        [Action::StopContainer {
            name: "proxy".into(),
            instance: 0,
            grace: 30_000
        }],
        "when the work is done, the sidecar is stopped"
    );
    assert_eq!(scene.machine.phase(), "Running");
    scene.exited("proxy", 0);
    assert_eq!(scene.take(), [Action::TearDown]);
    assert_eq!(scene.machine.phase(), "Succeeded");
}

#[test]
fn an_unknown_image_backs_off_and_the_event_lists_what_is_built_in() {
    let mut scene = Scene::up(json!({"containers": [{"name": "c", "image": "nginx:1.27"}]}));
    assert!(scene.starts().is_empty());
    assert_eq!(scene.main(0)["state"]["waiting"]["reason"], "ErrImagePull");
    assert_eq!(
        scene.events,
        [
            "Pulling Pulling image \"nginx:1.27\"",
            "Failed Failed to pull image \"nginx:1.27\": image \"nginx:1.27\" is not built in and this cluster pulls nothing; built-in images: app",
            "Failed Error: ErrImagePull",
        ]
    );
    scene.events.clear();
    scene.after(1_000);
    assert_eq!(
        scene.main(0)["state"]["waiting"]["reason"],
        "ImagePullBackOff"
    );
    assert_eq!(
        scene.events,
        [
            "BackOff Back-off pulling image \"nginx:1.27\"",
            "Failed Error: ImagePullBackOff"
        ]
    );
    assert_eq!(scene.machine.wake_at(), Some(scene.now + 20_000));
    assert_eq!(scene.machine.phase(), "Pending");
}

#[test]
fn configuration_errors_are_retried_until_they_are_gone() {
    let mut scene = Scene::up(one(json!({})));
    scene.take();
    let failure = StartFailure::Config("configmap \"x\" not found".into());
    scene.feed(Input::StartFailed {
        name: "c".into(),
        instance: 0,
        failure,
    });
    assert_eq!(
        scene.main(0)["state"]["waiting"],
        json!({"reason": "CreateContainerConfigError", "message": "configmap \"x\" not found"})
    );
    assert!(
        scene
            .events
            .contains(&"Failed Error: configmap \"x\" not found".to_owned())
    );
    scene.after(500);
    assert_eq!(scene.starts(), [("c".to_owned(), 0)], "not a restart");
    scene.feed(Input::StartFailed {
        name: "c".into(),
        instance: 0,
        failure: StartFailure::Run("exec: no such file".into()),
    });
    assert_eq!(scene.starts(), [("c".to_owned(), 1)]);
    let last = &scene.main(0)["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(128), &json!("StartError"))
    );
}

#[test]
fn failed_volumes_and_sandboxes_are_tried_again() {
    let mut scene = Scene::new(pod(one(json!({}))));
    scene.take();
    scene.feed(Input::VolumesMounted(Err((
        "cfg".into(),
        "configmap \"cfg\" not found".into(),
    ))));
    scene.feed(Input::SandboxCreated(Err("no bridge".into())));
    assert_eq!(
        scene.events,
        [
            "FailedMount MountVolume.SetUp failed for volume \"cfg\" : configmap \"cfg\" not found",
            "FailedCreatePodSandBox Failed to create pod sandbox: no bridge",
        ]
    );
    scene.after(250);
    assert_eq!(scene.take(), [Action::MountVolumes]);
    scene.after(750);
    assert_eq!(scene.take(), [Action::CreateSandbox]);
}

#[test]
fn probes_decide_readiness_and_restarts() {
    let mut scene = Scene::up(one(json!({
        "startupProbe": {"httpGet": {"port": 1}}, "readinessProbe": {"httpGet": {"port": 1}},
        "livenessProbe": {"httpGet": {"port": 1}, "terminationGracePeriodSeconds": 5}
    })));
    scene.started("c");
    assert_eq!(scene.main(0)["started"], false);
    let probed = |kind, healthy| Input::Probed {
        name: "c".into(),
        instance: 0,
        kind,
        healthy,
    };
    scene.feed(probed(ProbeKind::Startup, true));
    assert_eq!(
        (&scene.main(0)["started"], &scene.main(0)["ready"]),
        (&json!(true), &json!(false))
    );
    scene.feed(probed(ProbeKind::Readiness, true));
    assert_eq!(scene.condition("Ready"), "True");
    scene.feed(probed(ProbeKind::Readiness, false));
    assert_eq!(
        scene.condition("Ready"),
        "False ContainersNotReady containers with unready status: [c]"
    );
    scene.take();
    scene.feed(probed(ProbeKind::Liveness, false));
    scene.feed(probed(ProbeKind::Liveness, false));
    assert_eq!(
        scene.take(),
        [Action::StopContainer {
            name: "c".into(),
            instance: 0,
            grace: 5_000
        }]
    );
    assert_eq!(
        scene.events.last().unwrap(),
        "Killing Container c failed liveness probe, will be restarted"
    );
    scene.exited("c", 137);
    assert_eq!(scene.starts(), [("c".to_owned(), 1)]);
    scene.feed(probed(ProbeKind::Readiness, true));
    scene.started("c");
    assert_eq!(
        scene.main(0)["ready"],
        false,
        "a late verdict about the old instance does not count"
    );
}
