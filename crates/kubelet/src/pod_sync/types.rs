//! What goes into a pod's state machine and what comes out.

use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::clock::Millis;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The pod object changed (also: was marked for deletion).
    Desired(Arc<Pod>),
    /// The pod object is gone although its containers still run (forced deletion).
    Removed,
    /// The sandbox exists and has an address, or could not be made.
    SandboxCreated(Result<Ipv4Addr, String>),
    /// The sandbox died under its containers.
    SandboxDied,
    /// The dead sandbox has been cleared away.
    SandboxGone,
    /// All volumes are in place, or one is not: (volume, message).
    VolumesMounted(Result<(), (String, String)>),
    /// A container's process runs.
    Started {
        /// Container name.
        name: String,
        /// Which instance of it.
        instance: u32,
        /// Container ID, hex.
        id: String,
    },
    /// A container could not be configured or started.
    StartFailed {
        /// Container name.
        name: String,
        /// Which instance of it.
        instance: u32,
        /// Why, as a container state.
        failure: StartFailure,
    },
    /// The postStart hook ended.
    PostStartDone {
        /// Container name.
        name: String,
        /// Which instance of it.
        instance: u32,
        /// Whether it succeeded, or why not.
        result: Result<(), String>,
    },
    /// A container's process ended.
    Exited {
        /// Container name.
        name: String,
        /// Which instance of it.
        instance: u32,
        /// How.
        exit: Exit,
    },
    /// A probe crossed its threshold.
    Probed {
        /// Container name.
        name: String,
        /// Which instance of it.
        instance: u32,
        /// Which probe.
        kind: ProbeKind,
        /// Past the success threshold (`true`) or the failure threshold (`false`).
        healthy: bool,
    },
    /// Sandbox and volumes of an ended pod are cleared away.
    TornDown,
    /// Time has passed.
    Tick,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The configuration refers to something missing: tried again until it exists.
    Config(String),
    /// The process could not be made: counts as an exit with code 128.
    Run(String),
}

/// How a container's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for lack of memory.
    pub oom: bool,
    /// The termination message.
    pub message: String,
}

/// The three probes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// `startupProbe`: gates the other two.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
}

impl ProbeKind {
    /// The word that starts event messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's namespaces and address; report [`Input::SandboxCreated`].
    CreateSandbox,
    /// Put all volumes in place; report [`Input::VolumesMounted`].
    MountVolumes,
    /// Start a container; report [`Input::Started`] or [`Input::StartFailed`], later [`Input::Exited`];
    /// run its probes and, when it has one, its postStart hook.
    StartContainer {
        /// Container name.
        name: String,
        /// Number of this instance, from 0.
        instance: u32,
    },
    /// preStop, SIGTERM, SIGKILL after the grace period. Replaces an earlier stop of the same instance.
    StopContainer {
        /// Container name.
        name: String,
        /// Which instance.
        instance: u32,
        /// Grace period from now.
        grace: Millis,
    },
    /// Clear away a dead sandbox, keep the volumes; report [`Input::SandboxGone`].
    DestroySandbox,
    /// Clear away sandbox and volumes; report [`Input::TornDown`].
    TearDown,
    /// Write the last status, then delete the object with grace period 0.
    DeletePod,
    /// Nothing is left to do for a pod whose object is gone.
    Forget,
    /// Record an event.
    Event(PodEvent),
}

/// An event about the pod or one of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Sentence for people.
    pub message: String,
    /// Container the event is about, for `involvedObject.fieldPath`.
    pub container: Option<String>,
}

/// The role of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the next one.
    Init,
    /// Init container with `restartPolicy: Always`: starts in order and stays (native sidecar).
    Sidecar,
    /// Regular container.
    Main,
    /// Container that was added to a running pod to look at it: runs once, counts for nothing.
    Ephemeral,
}

/// A finished instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Container ID, hex; empty when it never ran.
    pub id: String,
    /// Exit code as shown.
    pub exit_code: i32,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
    pub reason: &'static str,
    /// Termination message.
    pub message: String,
    /// When it started (0 when it never did).
    pub started_at: Millis,
    /// When it ended.
    pub finished_at: Millis,
}
