//! postStart and preStop.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::{Engine, Live, PodHandle};
use crate::cri::run_to_end;
use crate::pod_sync::{Input, PodEvent};
use crate::probes;

/// A hook that is given no time of its own still ends.
const LONGEST: Duration = Duration::from_secs(3600);

async fn run(
    engine: &Engine,
    handle: &PodHandle,
    container: &Container,
    live: &Live,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match run_to_end(live.process.as_ref(), &command, LONGEST).await {
            Ok((0, _)) => Ok(()),
            Ok((code, output)) => Err(format!(
                "command '{}' exited with {code}: {output}",
                command.join(" ")
            )),
            Err(problem) => Err(problem.to_string()),
        };
    }
    if let Some(get) = &hook.http_get {
        let ip = (*handle.ip.read()).ok_or("the pod has no address")?;
        let target = probes::http_target(get, container, ip)?;
        let status = engine.checker.get(&target, Duration::from_secs(30)).await?;
        return if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(format!("HTTP lifecycle hook answered {status}"))
        };
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            () = live.ended.cancelled() => {}
        }
        return Ok(());
    }
    Err("the hook names no handler (exec, httpGet or sleep)".into())
}

pub(super) async fn post_start(
    engine: Arc<Engine>,
    handle: Arc<PodHandle>,
    container: Container,
    live: Arc<Live>,
    hook: LifecycleHandler,
) {
    let result = tokio::select! {
        result = run(&engine, &handle, &container, &live, &hook) => result,
        () = live.ended.cancelled() => return,
    };
    let result = result.map_err(|problem| format!("PostStartHook failed: {problem}"));
    handle.tell(Input::PostStartDone {
        name: container.name,
        instance: live.instance,
        result,
    });
}

pub(super) async fn pre_stop(
    engine: &Engine,
    handle: &PodHandle,
    container: &Container,
    live: &Live,
    hook: LifecycleHandler,
) {
    let result = tokio::select! {
        result = run(engine, handle, container, live, &hook) => result,
        () = live.ended.cancelled() => return,
    };
    if let Err(problem) = result {
        let message = format!("PreStopHook failed: {problem}");
        let container = Some(container.name.clone());
        engine.event(
            handle,
            PodEvent {
                warning: true,
                reason: "FailedPreStopHook",
                message,
                container,
            },
        );
    }
}
