//! The StatefulSet controller's loop.

use api::time::Time;

use super::{Context, Key, key_of, owner_key, owners_of};
use crate::action::Executor;
use crate::stateful_set::{Observed, reconcile};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.stateful_sets, token, |event| {
        [key_of(event.object())]
    });
    let sets = context.stateful_sets.clone();
    queue.feed(&context.pods, token, move |event| {
        owners_of(event, "StatefulSet", &sets)
    });
    queue.feed(&context.revisions, token, |event| {
        owner_key(event.object(), "StatefulSet")
    });
    let executor = context.executor("statefulset-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("statefulset", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(set) = context.stateful_sets.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        set,
        pods: context.pods.list_namespace(&ns),
        revisions: context.revisions.list_namespace(&ns),
        claims: context.claims.list_namespace(&ns),
        now: Time::now_utc(),
    };
    let (actions, again) = reconcile(&observed);
    executor.run(actions).await?;
    Ok(again)
}
