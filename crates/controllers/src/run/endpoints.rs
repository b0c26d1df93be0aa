//! The loop of Endpoints and EndpointSlices.

use std::collections::HashMap;
use std::sync::Arc;

use kube_client::{Store, StoreEvent};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Context, Key, key_of, states};
use crate::action::Executor;
use crate::endpoints::trigger::{self, Seen};
use crate::endpoints::{Observed, SERVICE_NAME, reconcile};
use crate::selector::map_matches;
use crate::work::{WorkQueue, Worked};

const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.services, token, |event| [key_of(event.object())]);
    // Endpoints without a Service are somebody else's.
    let services = context.services.clone();
    queue.feed(&context.endpoints, token, move |event| {
        let (ns, name) = key_of(event.object());
        services.get(&ns, &name).map(|_| (ns, name))
    });
    queue.feed(&context.slices, token, |event| {
        let slice = event.object();
        let service = api::meta::label(slice, SERVICE_NAME)?;
        Some((api::meta::namespace(slice).to_owned(), service.to_owned()))
    });
    let services = context.services.clone();
    queue.feed(&context.pods, token, move |event| {
        services_of(event, &services)
    });
    let services = context.services.clone();
    queue.feed(&context.nodes, token, move |event| {
        let moved = match event {
            StoreEvent::Modified { old, new } => zone(old) != zone(new),
            _ => true,
        };
        let services = if moved { services.list() } else { Vec::new() };
        services
            .iter()
            .map(|service| key_of(service))
            .collect::<Vec<_>>()
    });
    let executor = context.executor("endpoint-controller");
    let context = context.clone();
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), seen.clone(), key)
    };
    queue.run("endpoints", &context.token, work).await;
}

fn zone(node: &Value) -> Option<&str> {
    api::meta::label(node, ZONE)
}

/// Services that select the pod as it was or as it is.
fn services_of(event: &StoreEvent, services: &Store) -> Vec<Key> {
    let pod = event.object();
    services
        .list_namespace(api::meta::namespace(pod))
        .iter()
        .filter(|service| {
            let selector = &service["spec"]["selector"];
            selector.is_object()
                && states(event).any(|state| map_matches(selector, &state["metadata"]["labels"]))
        })
        .map(|service| key_of(service))
        .collect()
}

async fn work(
    context: Context,
    executor: Executor,
    seen: Arc<Mutex<HashMap<Key, Seen>>>,
    (ns, name): Key,
) -> Worked {
    let nodes = context.nodes.list();
    let observed = Observed {
        service: context.services.get(&ns, &name),
        pods: context.pods.list_namespace(&ns),
        endpoints: context.endpoints.get(&ns, &name),
        slices: context.slices.list_namespace(&ns),
        zones: nodes
            .iter()
            .filter_map(|node| Some((api::meta::name(node).to_owned(), zone(node)?.to_owned())))
            .collect(),
    };
    let mut actions = reconcile(&observed);
    match &observed.service {
        Some(service) if service["spec"]["selector"].is_object() => {
            let mut seen = seen.lock();
            let at = seen
                .entry((ns, name))
                .or_default()
                .look(service, &observed.pods);
            trigger::note(&mut actions, at);
        }
        _ => {
            seen.lock().remove(&(ns, name));
        }
    }
    match executor.run(actions).await {
        Ok(()) => Ok(None),
        Err(failed) if crate::action::is_terminating_namespace(&failed.error) => Ok(None),
        Err(failed) => Err(failed.error),
    }
}
