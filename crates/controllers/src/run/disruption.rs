//! The loop that keeps PodDisruptionBudgets up to date.

use std::time::Duration;

use api::time::Time;

use super::{Context, Key, key_of, states};
use crate::action::Executor;
use crate::disruption::{Observed, reconcile};
use crate::work::{WorkQueue, Worked};

/// A granted eviction that did not happen is forgotten some time after two minutes.
const RECHECK: Duration = Duration::from_secs(125);

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.budgets, token, |event| [key_of(event.object())]);
    let budgets = context.budgets.clone();
    queue.feed(&context.pods, token, move |event| {
        states(event)
            .flat_map(|pod| {
                let labels = pod["metadata"]["labels"].clone();
                budgets
                    .list_namespace(api::meta::namespace(pod))
                    .into_iter()
                    .filter(move |b| crate::selector::matches(&b["spec"]["selector"], &labels))
                    .map(|b| key_of(&b))
            })
            .collect::<Vec<_>>()
    });
    let executor = context.executor("controllermanager");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("poddisruptionbudget", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(budget) = context.budgets.get(&ns, &name) else {
        return Ok(None);
    };
    let waits = budget["status"]["disruptedPods"]
        .as_object()
        .is_some_and(|pods| !pods.is_empty());
    let owners = [
        &context.deployments,
        &context.replica_sets,
        &context.stateful_sets,
        &context.replication_controllers,
    ]
    .into_iter()
    .flat_map(|store| store.list_namespace(&ns))
    .collect();
    let action = reconcile(&Observed {
        budget,
        pods: context.pods.list_namespace(&ns),
        owners,
        now: Time::now_utc(),
    });
    executor.run(action.into_iter().collect()).await?;
    Ok(waits.then_some(RECHECK))
}
