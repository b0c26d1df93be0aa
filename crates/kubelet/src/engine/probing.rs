//! Runs the probes of container instances.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::{Engine, Live, PodHandle};
use crate::clock;
use crate::pod_sync::{Input, PodEvent, ProbeKind};
use crate::probes::{Outcome, Schedule, Verdict, probe_of, target};

/// Starts what the container asks for: the startup probe first, the others after its success.
pub(super) fn start(
    engine: &Arc<Engine>,
    handle: &Arc<PodHandle>,
    container: &Container,
    live: &Arc<Live>,
) {
    let kinds = [
        ProbeKind::Startup,
        ProbeKind::Readiness,
        ProbeKind::Liveness,
    ];
    if kinds
        .iter()
        .all(|kind| probe_of(container, *kind).is_none())
    {
        return;
    }
    let (engine, handle, container, live) = (
        engine.clone(),
        handle.clone(),
        container.clone(),
        live.clone(),
    );
    tokio::spawn(async move {
        let all = async {
            run(&engine, &handle, &container, &live, ProbeKind::Startup).await;
            tokio::join!(
                run(&engine, &handle, &container, &live, ProbeKind::Readiness),
                run(&engine, &handle, &container, &live, ProbeKind::Liveness),
            );
        };
        tokio::select! {
            () = live.stopping.cancelled() => {}
            () = handle.token.cancelled() => {}
            () = all => {}
        }
    });
}

/// Probes until the instance stops; a startup probe until its first success.
async fn run(
    engine: &Engine,
    handle: &PodHandle,
    container: &Container,
    live: &Live,
    kind: ProbeKind,
) {
    let Some(probe) = probe_of(container, kind) else {
        return;
    };
    let Some(ip) = *handle.ip.read() else {
        return;
    };
    let resolved = target(probe, container, ip);
    let mut schedule = Schedule::new(probe, kind, live.started_at);
    let timeout = Duration::from_millis(schedule.timeout);
    let mut at = schedule.first();
    loop {
        tokio::time::sleep(Duration::from_millis(at.saturating_sub(clock::now()))).await;
        let outcome = match &resolved {
            Ok(target) => {
                engine
                    .checker
                    .check(target, timeout, live.process.as_ref())
                    .await
            }
            Err(problem) => Outcome::Failure(problem.clone()),
        };
        let next = schedule.record(outcome == Outcome::Success, clock::now());
        if let Outcome::Failure(message) = outcome
            && next.counted_failure
        {
            engine.event(
                handle,
                PodEvent {
                    warning: true,
                    reason: "Unhealthy",
                    message: format!("{} probe failed: {message}", kind.title()),
                    container: Some(container.name.clone()),
                },
            );
        }
        if let Some(verdict) = next.verdict {
            let healthy = verdict == Verdict::Healthy;
            handle.tell(Input::Probed {
                name: container.name.clone(),
                instance: live.instance,
                kind,
                healthy,
            });
            if kind == ProbeKind::Startup && healthy {
                return;
            }
        }
        at = next.at;
    }
}
