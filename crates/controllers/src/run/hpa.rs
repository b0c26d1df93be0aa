//! The loop that looks at every HorizontalPodAutoscaler again and again. Nothing happens while there is none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::{ListParams, Resource, StoreEvent};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Context, Key, key_of};
use crate::action::Executor;
use crate::hpa::{History, Observed, decide, finish, target, target_resource};
use crate::object::text;
use crate::work::{WorkQueue, Worked};

/// How often an autoscaler is looked at.
const PERIOD: Duration = Duration::from_secs(15);
const POD_METRICS: Resource = Resource::fixed("metrics.k8s.io", "v1beta1", "pods", "PodMetrics");

/// What is remembered of each autoscaler between two looks.
#[derive(Default)]
struct Memory {
    history: History,
    /// The pods its target selects, as the target's scale says it.
    selector: String,
}

type Memories = Arc<Mutex<HashMap<Key, Memory>>>;

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    queue.feed(&context.autoscalers, &context.token, |event| {
        let news = match event {
            StoreEvent::Modified { old, new } => old["spec"] != new["spec"],
            _ => true,
        };
        news.then(|| key_of(event.object()))
    });
    let executor = context.executor("horizontal-pod-autoscaler");
    let memories = Memories::default();
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), memories.clone(), key)
    };
    queue
        .run("horizontalpodautoscaler", &context.token, work)
        .await;
}

async fn work(context: Context, executor: Executor, memories: Memories, key: Key) -> Worked {
    let Some(autoscaler) = context.autoscalers.get(&key.0, &key.1) else {
        memories.lock().remove(&key);
        return Ok(None);
    };
    let ns = Some(key.0.as_str());
    let resource = resource(&context, &autoscaler).await;
    let name = target(&autoscaler).2.to_owned();
    let scale = match &resource {
        Ok(resource) => context
            .client
            .get_sub(resource, ns, &name, "scale")
            .await
            .map_err(|e| e.to_string()),
        Err(why) => Err(why.clone()),
    };
    let selector = scale
        .as_ref()
        .map_or("", |scale| text(&scale["status"]["selector"]))
        .to_owned();
    let metrics = if selector.is_empty() {
        Ok(Vec::new())
    } else {
        let params = ListParams::labels(selector.clone());
        let list = context.client.list(&POD_METRICS, ns, &params).await;
        list.map(|list| list.items)
            .map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))
    };
    let pods = context.pods.list_namespace(&key.0);
    let (rivals, mut history) = {
        let mut all = memories.lock();
        let memory = all.entry(key.clone()).or_default();
        memory.selector.clone_from(&selector);
        let history = memory.history.clone();
        (rivals(&all, &key, &selector, &pods), history)
    };
    let observed = Observed {
        autoscaler,
        scale,
        pods,
        metrics,
        rivals,
        now: Time::now_utc(),
    };
    let decision = decide(&observed, &mut history);
    let changed = match (&decision.rescale, &resource, &observed.scale) {
        (Some((replicas, _)), Ok(resource), Ok(scale)) => {
            let mut scale = scale.clone();
            scale["spec"]["replicas"] = (*replicas).into();
            let updated = context
                .client
                .update_sub(resource, ns, "scale", &scale)
                .await;
            updated.map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    };
    let (patch, events) = finish(&observed, decision, changed, &mut history);
    if let Some(memory) = memories.lock().get_mut(&key) {
        memory.history = history;
    }
    events.into_iter().for_each(|event| executor.record(event));
    executor.run(patch.into_iter().collect()).await?;
    Ok(Some(PERIOD))
}

/// Other autoscalers of the namespace whose target has one of the pods that this one's target has.
fn rivals(
    all: &HashMap<Key, Memory>,
    key: &Key,
    selector: &str,
    pods: &[Arc<Value>],
) -> Vec<String> {
    let parse = |selector: &str| api::selector::LabelSelector::parse(selector).ok();
    let Some(mine) = parse(selector).filter(|_| !selector.is_empty()) else {
        return Vec::new();
    };
    let pods: Vec<&Arc<Value>> = pods.iter().filter(|pod| mine.matches(pod)).collect();
    let mut out: Vec<String> = all
        .iter()
        .filter(|(other, memory)| *other != key && other.0 == key.0 && !memory.selector.is_empty())
        .filter(|(_, memory)| {
            parse(&memory.selector).is_some_and(|s| pods.iter().any(|pod| s.matches(pod)))
        })
        .map(|((_, name), _)| name.clone())
        .collect();
    out.sort();
    out
}

/// The kind an autoscaler scales: a built-in one, or one that a definition adds.
async fn resource(context: &Context, autoscaler: &Value) -> Result<Resource, String> {
    let (api_version, kind, _) = target(autoscaler);
    if let Some(known) = target_resource(api_version, kind) {
        return Ok(known);
    }
    let (group, _) = api::meta::group_version(api_version);
    let served = kube_client::discovery::preferred_resources(&context.client)
        .await
        .map_err(|error| error.to_string())?;
    served
        .into_iter()
        .map(|served| served.resource)
        .find(|resource| resource.group == group && resource.kind == kind)
        .ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
}
