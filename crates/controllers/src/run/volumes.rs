//! The loop that brings claims and volumes together.

use api::time::Time;
use kube_client::StoreEvent;

use super::{Context, key_of, states};
use crate::action::Executor;
use crate::volumes::{Observed, claim, volume};
use crate::work::{WorkQueue, Worked};

/// A claim (namespace and name) or, without a namespace, a volume.
type Key = (String, String);

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::<Key>::new();
    let token = &context.token;
    let claims = context.claims.clone();
    let all_waiting = move || {
        let unbound = |c: &std::sync::Arc<serde_json::Value>| !api::storage::is_bound(c);
        claims
            .list()
            .iter()
            .filter(|c| unbound(c))
            .map(|c| key_of(c))
            .collect::<Vec<_>>()
    };
    queue.feed(&context.claims, token, |event| {
        let object = event.object();
        let name = object["spec"]["volumeName"].as_str().unwrap_or("");
        let made = format!("pvc-{}", api::meta::uid(object));
        let volumes = [name.to_owned(), made]
            .into_iter()
            .filter(|v| !v.is_empty());
        std::iter::once(key_of(object))
            .chain(volumes.map(|v| (String::new(), v)))
            .collect::<Vec<_>>()
    });
    {
        let all_waiting = all_waiting.clone();
        queue.feed(&context.volumes, token, move |event| {
            let object = event.object();
            let reference = &object["spec"]["claimRef"];
            let mut keys = vec![key_of(object)];
            let text = |field: &str| reference[field].as_str().unwrap_or("").to_owned();
            if reference.is_object() {
                keys.push((text("namespace"), text("name")));
            }
            let news = match event {
                StoreEvent::Modified { old, new } => {
                    old["spec"] != new["spec"] || old["status"]["phase"] != new["status"]["phase"]
                }
                _ => true,
            };
            if news && reference.is_null() {
                keys.extend(all_waiting());
            }
            keys
        });
    }
    queue.feed(&context.storage_classes, token, move |_| all_waiting());
    // A claim that is being deleted goes when its last pod has.
    let claims = context.claims.clone();
    queue.feed(&context.pods, token, move |event| {
        let over = match event {
            StoreEvent::Deleted(_) => true,
            _ => crate::pods::is_finished(event.object()),
        };
        states(event)
            .filter(|_| over)
            .flat_map(|pod| {
                let ns = api::meta::namespace(pod).to_owned();
                crate::object::items(&pod["spec"]["volumes"])
                    .iter()
                    .filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str())
                    .map(|name| (ns.clone(), name.to_owned()))
                    .collect::<Vec<_>>()
            })
            .filter(|(ns, name)| claims.get(ns, name).is_some())
            .collect::<Vec<_>>()
    });
    let executor = context.executor("persistentvolume-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("persistentvolume", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let mut observed = Observed {
        volumes: context.volumes.list(),
        claims: context.claims.list(),
        classes: context.storage_classes.list(),
        nodes: context.nodes.list(),
        pods: Vec::new(),
    };
    let step = if ns.is_empty() {
        let Some(object) = context.volumes.get("", &name) else {
            return Ok(None);
        };
        volume(&object, &observed, Time::now_utc())
    } else {
        let Some(object) = context.claims.get(&ns, &name) else {
            return Ok(None);
        };
        if crate::object::is_terminating(&object) {
            // The local copy of pods may be behind: a claim must not go while a pod that nobody here has seen yet mounts it.
            let pods = context
                .client
                .list(
                    &kube_client::PODS,
                    Some(&ns),
                    &kube_client::ListParams::default(),
                )
                .await?;
            observed.pods = pods.items.into_iter().map(std::sync::Arc::new).collect();
        }
        claim(&object, &observed)
    };
    step.events
        .into_iter()
        .for_each(|event| executor.record(event));
    executor.run(step.actions).await?;
    Ok(None)
}
