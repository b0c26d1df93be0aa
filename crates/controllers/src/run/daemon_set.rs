//! The DaemonSet controller's loop.

use api::time::Time;

use super::{Context, Key, key_of, owner_key, owners_of};
use crate::action::Executor;
use crate::daemon_set::{Observed, reconcile};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.daemon_sets, token, |event| {
        [key_of(event.object())]
    });
    let sets = context.daemon_sets.clone();
    queue.feed(&context.pods, token, move |event| {
        owners_of(event, "DaemonSet", &sets)
    });
    queue.feed(&context.revisions, token, |event| {
        owner_key(event.object(), "DaemonSet")
    });
    // A node that changes may want another pod, or none.
    let sets = context.daemon_sets.clone();
    queue.feed(&context.nodes, token, move |_| {
        sets.list()
            .iter()
            .map(|set| key_of(set))
            .collect::<Vec<_>>()
    });
    let executor = context.executor("daemonset-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("daemonset", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(set) = context.daemon_sets.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        set,
        pods: context.pods.list_namespace(&ns),
        nodes: context.nodes.list(),
        revisions: context.revisions.list_namespace(&ns),
        now: Time::now_utc(),
    };
    let (actions, again) = reconcile(&observed);
    executor.run(actions).await?;
    Ok(again)
}
