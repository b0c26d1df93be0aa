//! What to do next for one pod: a pure state machine.
//!
//! [`PodMachine::handle`] takes one thing that happened and the present time and answers with the
//! actions to carry out; [`PodMachine::status`] renders `v1/PodStatus`. The machine never performs
//! I/O: a pod's worker does what it says and reports back.

mod backoff;
mod plan;
mod status;
mod types;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_termination;

pub use backoff::{BackOff, go_duration};
pub use status::is_own;
pub use types::{Action, Exit, Input, PodEvent, ProbeKind, Role, StartFailure, Terminated};

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::catalog::ImageCatalog;
use crate::clock::Millis;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started; `None` means ContainerCreating or PodInitializing.
    Waiting(Option<(&'static str, String)>),
    Starting,
    Running {
        id: String,
        since: Millis,
        post_start_pending: bool,
        /// When the stop that has been asked for ends with SIGKILL.
        stop_by: Option<Millis>,
    },
    Exited(Terminated),
}

#[derive(Clone, Debug)]
struct Tracked {
    role: Role,
    phase: Phase,
    instance: u32,
    restart_count: u32,
    last: Option<Terminated>,
    crash: BackOff,
    pull: BackOff,
    config: BackOff,
    /// Not before this time again (image, configuration or crash back-off).
    retry_at: Option<Millis>,
    /// The startup probe succeeded (or there is none) since the instance runs.
    started: bool,
    /// The readiness probe's verdict.
    ready: bool,
}

impl Tracked {
    fn running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }
    fn active(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Starting)
    }
    fn exited(&self) -> Option<&Terminated> {
        match &self.phase {
            Phase::Exited(terminated) => Some(terminated),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sandbox {
    None,
    Creating,
    Ready(Ipv4Addr),
    /// Died; containers are being stopped.
    Lost,
    Destroying,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Volumes {
    None,
    Mounting,
    Ready,
}

/// Why the pod ends before or beside its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// The object is being deleted.
    Deleted,
    /// The object is gone.
    Removed,
    /// All containers finished for good, or the deadline passed.
    Finished,
}

/// The state machine of one pod.
#[derive(Clone, Debug)]
pub struct PodMachine {
    pod: Arc<Pod>,
    catalog: Arc<ImageCatalog>,
    host_ip: String,
    sandbox: Sandbox,
    /// Stays in the status after the sandbox is gone.
    pod_ip: Option<Ipv4Addr>,
    sandbox_failures: BackOff,
    sandbox_retry_at: Option<Millis>,
    volumes: Volumes,
    volume_failures: BackOff,
    volume_retry_at: Option<Millis>,
    containers: BTreeMap<String, Tracked>,
    ending: Option<Ending>,
    /// `status.reason` and `status.message` of a pod that was ended by the node.
    verdict: Option<(&'static str, String)>,
    torn_down: bool,
    tearing_down: bool,
    done: bool,
    start_time: Millis,
    /// Condition type → (status, since).
    transitions: BTreeMap<&'static str, (bool, Millis)>,
    /// Init containers have all finished once; a later restart of the sandbox resets it.
    initialized: bool,
}

impl PodMachine {
    /// A machine for a pod that has just been bound to this node, or that this node ran before it
    /// was restarted: then its containers are dead and their counts go on.
    pub fn new(pod: Arc<Pod>, catalog: Arc<ImageCatalog>, host_ip: &str, now: Millis) -> Self {
        let mut machine = Self {
            pod: pod.clone(),
            catalog,
            host_ip: host_ip.to_owned(),
            sandbox: Sandbox::None,
            pod_ip: None,
            sandbox_failures: BackOff::new(1_000, 30_000),
            sandbox_retry_at: None,
            volumes: Volumes::None,
            volume_failures: BackOff::new(250, 8_000),
            volume_retry_at: None,
            containers: BTreeMap::new(),
            ending: None,
            verdict: None,
            torn_down: false,
            tearing_down: false,
            done: false,
            start_time: now,
            transitions: BTreeMap::new(),
            initialized: false,
        };
        for (role, container) in roles(&pod) {
            machine
                .containers
                .insert(container.name.clone(), Tracked::new(role));
        }
        machine.adopt(now);
        machine
    }

    /// Takes over start time, transition times and restart counts from the pod's stored status.
    fn adopt(&mut self, now: Millis) {
        let Some(status) = self.pod.status.clone() else {
            return;
        };
        if let Some(start) = status.start_time.as_ref() {
            self.start_time = start.0.as_millisecond().try_into().unwrap_or(now);
        }
        for condition in status.conditions.iter().flatten() {
            let kind = status::CONDITIONS
                .iter()
                .find(|kind| **kind == condition.type_);
            if let (Some(kind), Some(at)) = (kind, &condition.last_transition_time) {
                let at = at.0.as_millisecond().try_into().unwrap_or(now);
                self.transitions
                    .insert(kind, (condition.status == "True", at));
            }
        }
        let known = status.container_statuses.iter().flatten();
        for old in known.chain(status.init_container_statuses.iter().flatten()) {
            let Some(tracked) = self.containers.get_mut(&old.name) else {
                continue;
            };
            let ran = old.container_id.as_deref().unwrap_or_default();
            if ran.is_empty() {
                continue;
            }
            // The instance died with the node: its exit code is unknown.
            let millis = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                time.as_ref()
                    .and_then(|time| Millis::try_from(time.0.as_millisecond()).ok())
                    .unwrap_or(0)
            };
            let state = old.state.as_ref();
            let running = state.and_then(|state| state.running.as_ref());
            let ended = state
                .and_then(|state| state.terminated.as_ref())
                .or_else(|| {
                    old.last_state
                        .as_ref()
                        .and_then(|last| last.terminated.as_ref())
                });
            let id = ran.rsplit('/').next().unwrap_or_default().to_owned();
            tracked.last = Some(match (running, ended) {
                (None, Some(ended)) => Terminated {
                    id,
                    exit_code: ended.exit_code,
                    signal: ended.signal,
                    reason: if ended.exit_code == 0 {
                        "Completed"
                    } else {
                        "Error"
                    },
                    message: ended.message.clone().unwrap_or_default(),
                    started_at: millis(&ended.started_at),
                    finished_at: millis(&ended.finished_at),
                },
                (running, _) => Terminated {
                    id,
                    exit_code: 255,
                    signal: None,
                    reason: "Unknown",
                    message: String::new(),
                    started_at: running.map_or(0, |running| millis(&running.started_at)),
                    finished_at: now,
                },
            });
            tracked.restart_count = u32::try_from(old.restart_count).unwrap_or(0) + 1;
            tracked.instance = tracked.restart_count;
        }
    }

    /// The pod as last seen.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's address, once it has one.
    pub fn pod_ip(&self) -> Option<Ipv4Addr> {
        self.pod_ip
    }

    /// The instance number of a running or starting container.
    pub fn live_instance(&self, name: &str) -> Option<u32> {
        self.containers
            .get(name)
            .filter(|tracked| tracked.active())
            .map(|tracked| tracked.instance)
    }

    /// Whether the pod is being ended.
    pub fn ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Takes in one thing that happened and says what to do.
    pub fn handle(&mut self, input: Input, now: Millis) -> Vec<Action> {
        let mut actions = Vec::new();
        self.observe(input, now, &mut actions);
        self.plan(now, &mut actions);
        self.note_transitions(now);
        actions
    }

    fn observe(&mut self, input: Input, now: Millis, actions: &mut Vec<Action>) {
        match input {
            Input::Desired(pod) => {
                for (role, container) in roles(&pod) {
                    if role == Role::Ephemeral {
                        self.containers
                            .entry(container.name.clone())
                            .or_insert_with(|| Tracked::new(role));
                    }
                }
                self.pod = pod;
            }
            Input::Removed => self.ending = Some(Ending::Removed),
            Input::Tick => {}
            Input::SandboxCreated(Ok(ip)) => {
                self.sandbox = Sandbox::Ready(ip);
                self.pod_ip = Some(ip);
                self.sandbox_retry_at = None;
            }
            Input::SandboxCreated(Err(message)) => {
                self.sandbox = Sandbox::None;
                self.sandbox_retry_at = Some(now + self.sandbox_failures.next(now));
                actions.push(warning(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {message}"),
                    None,
                ));
            }
            Input::SandboxDied => {
                if matches!(self.sandbox, Sandbox::Ready(_)) && self.ending.is_none() {
                    self.sandbox = Sandbox::Lost;
                    actions.push(normal(
                        "SandboxChanged",
                        "Pod sandbox changed, it will be killed and re-created.".into(),
                        None,
                    ));
                }
            }
            Input::SandboxGone => {
                self.sandbox = Sandbox::None;
                self.initialized = false;
                for tracked in self.containers.values_mut() {
                    if tracked.role == Role::Init
                        && let Phase::Exited(ended) = &tracked.phase
                    {
                        tracked.last = Some(ended.clone());
                        tracked.phase = Phase::Waiting(None);
                        tracked.instance += 1;
                        tracked.restart_count += 1;
                    }
                }
            }
            Input::VolumesMounted(Ok(())) => {
                self.volumes = Volumes::Ready;
                self.volume_retry_at = None;
            }
            Input::VolumesMounted(Err((volume, message))) => {
                self.volumes = Volumes::None;
                self.volume_retry_at = Some(now + self.volume_failures.next(now));
                actions.push(warning(
                    "FailedMount",
                    format!("MountVolume.SetUp failed for volume {volume:?} : {message}"),
                    None,
                ));
            }
            Input::TornDown => {
                self.torn_down = true;
                self.tearing_down = false;
            }
            Input::Started { name, instance, id } => {
                let post_start = self.has_post_start(&name);
                let probes = self.probes_of(&name);
                if let Some(tracked) = self.current(&name, instance) {
                    tracked.phase = Phase::Running {
                        id,
                        since: now,
                        post_start_pending: post_start,
                        stop_by: None,
                    };
                    tracked.started = !probes.0;
                    tracked.ready = !probes.1;
                    tracked.retry_at = None;
                    actions.push(normal(
                        "Started",
                        format!("Started container {name}"),
                        Some(name),
                    ));
                }
            }
            Input::StartFailed {
                name,
                instance,
                failure,
            } => self.start_failed(name, instance, failure, now, actions),
            Input::PostStartDone {
                name,
                instance,
                result,
            } => {
                if let Some(tracked) = self.current(&name, instance)
                    && let Phase::Running {
                        post_start_pending,
                        stop_by,
                        ..
                    } = &mut tracked.phase
                {
                    *post_start_pending = false;
                    if let Err(message) = result {
                        *stop_by = Some(now);
                        actions.push(warning("FailedPostStartHook", message, Some(name.clone())));
                        actions.push(normal(
                            "Killing",
                            "FailedPostStartHook".into(),
                            Some(name.clone()),
                        ));
                        let grace = self.spec_grace();
                        actions.push(Action::StopContainer {
                            name,
                            instance,
                            grace,
                        });
                    }
                }
            }
            Input::Exited {
                name,
                instance,
                exit,
            } => {
                if let Some(tracked) = self.current(&name, instance)
                    && let Phase::Running { id, since, .. } = &tracked.phase
                {
                    let reason = match (exit.oom, exit.code) {
                        (true, _) => "OOMKilled",
                        (_, 0) => "Completed",
                        _ => "Error",
                    };
                    tracked.phase = Phase::Exited(Terminated {
                        id: id.clone(),
                        exit_code: exit.code,
                        signal: exit.signal,
                        reason,
                        message: exit.message,
                        started_at: *since,
                        finished_at: now,
                    });
                    tracked.ready = false;
                    tracked.started = false;
                }
            }
            Input::Probed {
                name,
                instance,
                kind,
                healthy,
            } => self.probed(name, instance, kind, healthy, now, actions),
        }
    }

    fn probed(
        &mut self,
        name: String,
        instance: u32,
        kind: ProbeKind,
        healthy: bool,
        now: Millis,
        actions: &mut Vec<Action>,
    ) {
        let grace = self.probe_grace(&name, kind);
        let ending = self.ending.is_some();
        let Some(tracked) = self.current(&name, instance) else {
            return;
        };
        let Phase::Running { stop_by, .. } = &mut tracked.phase else {
            return;
        };
        match (kind, healthy) {
            (ProbeKind::Startup, true) => tracked.started = true,
            (ProbeKind::Readiness, healthy) => tracked.ready = healthy,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                if stop_by.is_none() && !ending {
                    *stop_by = Some(now + grace);
                    let word = kind.title().to_lowercase();
                    actions.push(normal(
                        "Killing",
                        format!("Container {name} failed {word} probe, will be restarted"),
                        Some(name.clone()),
                    ));
                    actions.push(Action::StopContainer {
                        name,
                        instance,
                        grace,
                    });
                }
            }
        }
    }

    fn start_failed(
        &mut self,
        name: String,
        instance: u32,
        failure: StartFailure,
        now: Millis,
        actions: &mut Vec<Action>,
    ) {
        let Some(tracked) = self.current(&name, instance) else {
            return;
        };
        let message = match failure {
            StartFailure::Config(message) => {
                tracked.phase =
                    Phase::Waiting(Some(("CreateContainerConfigError", message.clone())));
                tracked.retry_at = Some(now + tracked.config.next(now));
                message
            }
            StartFailure::Run(message) => {
                tracked.phase = Phase::Exited(Terminated {
                    id: String::new(),
                    exit_code: 128,
                    signal: None,
                    reason: "StartError",
                    message: message.clone(),
                    started_at: 0,
                    finished_at: now,
                });
                message
            }
        };
        actions.push(warning("Failed", format!("Error: {message}"), Some(name)));
    }

    fn current(&mut self, name: &str, instance: u32) -> Option<&mut Tracked> {
        self.containers
            .get_mut(name)
            .filter(|tracked| tracked.instance == instance)
    }

    fn container(&self, name: &str) -> Option<&Container> {
        roles(&self.pod)
            .map(|(_, container)| container)
            .find(|container| container.name == name)
    }

    fn has_post_start(&self, name: &str) -> bool {
        self.container(name)
            .and_then(|container| container.lifecycle.as_ref())
            .is_some_and(|lifecycle| lifecycle.post_start.is_some())
    }

    /// Whether the container has a startup and a readiness probe.
    fn probes_of(&self, name: &str) -> (bool, bool) {
        let plain_init = self
            .containers
            .get(name)
            .is_some_and(|tracked| matches!(tracked.role, Role::Init | Role::Ephemeral));
        match self.container(name) {
            Some(container) if !plain_init => (
                container.startup_probe.is_some(),
                container.readiness_probe.is_some(),
            ),
            _ => (false, false),
        }
    }

    /// `spec.terminationGracePeriodSeconds`, in milliseconds.
    fn spec_grace(&self) -> Millis {
        let seconds = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        Millis::try_from(seconds.unwrap_or(30)).unwrap_or(0) * 1000
    }

    fn probe_grace(&self, name: &str, kind: ProbeKind) -> Millis {
        let container = self.container(name);
        let probe = container.and_then(|container| match kind {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => None,
        });
        probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .and_then(|seconds| Millis::try_from(seconds).ok())
            .map_or_else(|| self.spec_grace(), |seconds| seconds * 1000)
    }

    /// `name_namespace(uid)`: how messages name a pod.
    fn long_name(&self) -> String {
        let meta = &self.pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}_{}({})",
            part(&meta.name),
            part(&meta.namespace),
            part(&meta.uid)
        )
    }
}

impl Tracked {
    fn new(role: Role) -> Self {
        Self {
            role,
            phase: Phase::Waiting(None),
            instance: 0,
            restart_count: 0,
            last: None,
            crash: BackOff::new(10_000, 300_000),
            pull: BackOff::new(10_000, 300_000),
            config: BackOff::new(500, 8_000),
            retry_at: None,
            started: false,
            ready: false,
        }
    }
}

/// The containers of a pod in the order they start: init containers and sidecars, then the others.
pub fn roles(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let spec = pod.spec.as_ref();
    let init = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let main = spec.into_iter().flat_map(|spec| spec.containers.iter());
    init.map(|container| match container.restart_policy.as_deref() {
        Some("Always") => (Role::Sidecar, container),
        _ => (Role::Init, container),
    })
    .chain(main.map(move |container| {
        let added = spec
            .into_iter()
            .flat_map(|spec| spec.ephemeral_containers.iter().flatten())
            .any(|ephemeral| ephemeral.name == container.name);
        let role = if added { Role::Ephemeral } else { Role::Main };
        (role, container)
    }))
}

fn normal(reason: &'static str, message: String, container: Option<String>) -> Action {
    Action::Event(PodEvent {
        warning: false,
        reason,
        message,
        container,
    })
}

fn warning(reason: &'static str, message: String, container: Option<String>) -> Action {
    Action::Event(PodEvent {
        warning: true,
        reason,
        message,
        container,
    })
}
