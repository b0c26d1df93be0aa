//! The life of one pod.

use std::sync::Arc;
use std::time::Duration;

use kube_client::{DeleteOptions, PODS, Resource};
use tokio::sync::mpsc;

use super::{Engine, PodHandle, container, volumes};
use crate::clock;
use crate::cri::SandboxSpec;
use crate::pod_sync::{Action, Input, PodMachine};
use crate::status_writer::StatusWriter;

/// Runs a pod to its end.
pub(super) async fn run(
    engine: Arc<Engine>,
    handle: Arc<PodHandle>,
    mut inbox: mpsc::UnboundedReceiver<Input>,
) {
    let pod = handle.pod.read().clone();
    let host_ip = engine.config.node_ip.to_string();
    let mut machine = PodMachine::new(pod, engine.catalog.clone(), &host_ip, clock::now());
    let writer = StatusWriter::start(
        engine.client.clone(),
        handle.namespace.clone(),
        handle.name.clone(),
        handle.uid.clone(),
    );
    let mut worker = Worker {
        engine: &engine,
        handle: &handle,
        began: false,
        delete: false,
    };
    let mut input = Input::Tick;
    loop {
        if let Input::Desired(pod) = &input {
            *handle.pod.write() = pod.clone();
        }
        for action in machine.handle(input, clock::now()) {
            worker.perform(action);
        }
        // A pod that ends before anything of it ran keeps the status it had.
        if worker.began {
            let status = machine.status();
            *handle.status.write() = status.clone();
            writer.set(status);
        }
        if machine.is_done() {
            break;
        }
        let wait = machine
            .wake_at()
            .map(|at| Duration::from_millis(at.saturating_sub(clock::now())));
        input = tokio::select! {
            received = inbox.recv() => match received {
                Some(input) => input,
                None => break,
            },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Input::Tick,
        };
    }
    let delete = worker.delete;
    handle.token.cancel();
    writer.finish().await;
    if delete {
        delete_object(&engine, &handle).await;
    }
    engine.logs.remove_pod(&handle.uid);
    engine.pods.write().remove(&handle.uid);
}

/// Removes the object of a pod that has ended.
pub(super) async fn delete_object(engine: &Engine, handle: &PodHandle) {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::uid(&handle.uid)
    };
    let mut wait = Duration::from_millis(50);
    for _ in 0..10 {
        match engine
            .client
            .delete(&PODS, Some(&handle.namespace), &handle.name, &options)
            .await
        {
            Ok(_) => return,
            Err(problem) if problem.is_not_found() || problem.is_conflict() => return,
            Err(problem) => {
                tracing::warn!(%problem, pod = handle.name, "ended pod not deleted, trying again")
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

struct Worker<'a> {
    engine: &'a Arc<Engine>,
    handle: &'a Arc<PodHandle>,
    /// Something of the pod was made in this run.
    began: bool,
    delete: bool,
}

impl Worker<'_> {
    fn perform(&mut self, action: Action) {
        let (engine, handle) = (self.engine.clone(), self.handle.clone());
        match action {
            Action::Event(event) => engine.event(&handle, event),
            Action::CreateSandbox => {
                self.began = true;
                tokio::spawn(async move {
                    let result = create_sandbox(&engine, &handle).await;
                    handle.tell(Input::SandboxCreated(result));
                });
            }
            Action::MountVolumes => {
                self.began = true;
                tokio::spawn(async move {
                    let mut tokens = volumes::Tokens::default();
                    let sources = volumes::Sources::now(&engine, &handle);
                    let result = volumes::mount(&engine, &handle, &mut tokens).await;
                    let mounted = result.is_ok();
                    handle.tell(Input::VolumesMounted(result));
                    if mounted {
                        volumes::keep_current(engine, handle, tokens, sources).await;
                    }
                });
            }
            Action::StartContainer { name, instance } => {
                tokio::spawn(container::start(engine, handle, name, instance));
            }
            Action::StopContainer {
                name,
                instance,
                grace,
            } => container::stop(&engine, &handle, &name, instance, grace),
            Action::DestroySandbox => {
                tokio::spawn(async move {
                    destroy_sandbox(&engine, &handle).await;
                    handle.tell(Input::SandboxGone);
                });
            }
            Action::TearDown => {
                tokio::spawn(async move {
                    // Volumes must not be refreshed while they are removed.
                    handle.token.cancel();
                    destroy_sandbox(&engine, &handle).await;
                    remove_volumes(&engine, &handle.uid).await;
                    handle.tell(Input::TornDown);
                });
            }
            Action::DeletePod => self.delete = true,
            Action::Forget => {}
        }
    }
}

async fn create_sandbox(engine: &Engine, handle: &PodHandle) -> Result<std::net::Ipv4Addr, String> {
    let pod = handle.pod.read().clone();
    known_runtime(engine, &pod).await?;
    let host_network = container::on_host_network(&pod);
    let ip = if host_network {
        engine.config.node_ip
    } else {
        engine
            .ipam
            .lock()
            .allocate()
            .map_err(|problem| problem.to_string())?
    };
    let hostname = if host_network {
        engine.config.node_name.clone()
    } else {
        container::hostname(&pod)
    };
    let spec = SandboxSpec {
        name: format!("{}/{}", handle.namespace, handle.name),
        ip,
        hostname,
        host_network,
        sysctls: crate::sysctl::wanted(&pod),
    };
    match engine.runtime.create_sandbox(spec).await {
        Ok(sandbox) => {
            *handle.sandbox.write() = Some(sandbox);
            *handle.ip.write() = Some(ip);
            Ok(ip)
        }
        Err(problem) => {
            release(engine, ip);
            Err(problem.to_string())
        }
    }
}

/// Handlers of RuntimeClasses that mean this node's one way to run containers; the second is what Kubernetes' own tests name.
const HANDLERS: [&str; 2] = ["runc", "test-handler"];

/// Refuses a pod whose class asks for another way to run it.
async fn known_runtime(
    engine: &Engine,
    pod: &k8s_openapi::api::core::v1::Pod,
) -> Result<(), String> {
    const RUNTIME_CLASSES: Resource =
        Resource::fixed("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass");
    let class = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.runtime_class_name.as_deref());
    let Some(class) = class.filter(|class| !class.is_empty()) else {
        return Ok(());
    };
    let class = engine
        .client
        .get(&RUNTIME_CLASSES, None, class)
        .await
        .map_err(|problem| format!("failed to get sandbox runtime: {problem}"))?;
    let handler = class["handler"].as_str().unwrap_or_default();
    if HANDLERS.contains(&handler) {
        return Ok(());
    }
    Err(format!(
        "failed to get sandbox runtime: no runtime for {handler:?} is configured; this node has {}",
        HANDLERS[0]
    ))
}

async fn destroy_sandbox(engine: &Engine, handle: &PodHandle) {
    let sandbox = handle.sandbox.write().take();
    if let Some(sandbox) = sandbox
        && let Err(problem) = sandbox.destroy().await
    {
        tracing::warn!(%problem, pod = handle.name, "sandbox not cleared away");
    }
    if let Some(ip) = handle.ip.write().take() {
        release(engine, ip);
    }
}

/// Gives an address back, unless it is the node's own.
fn release(engine: &Engine, ip: std::net::Ipv4Addr) {
    if ip != engine.config.node_ip {
        engine.ipam.lock().release(ip);
    }
}

/// Removes everything the volumes of a pod have on this machine.
pub(super) async fn remove_volumes(engine: &Engine, uid: &str) {
    let dirs = [
        engine.dirs.ephemeral.join(uid),
        engine.dirs.persistent.join(uid),
    ];
    let _ = tokio::task::spawn_blocking(move || {
        for dir in dirs {
            crate::volumes::remove(&dir);
        }
    })
    .await;
}
