//! The ReplicaSet controller's loop.

use api::time::Time;

use super::{Context, Key, key_of, owners_of};
use crate::action::Executor;
use crate::replicaset::{Observed, failure_of, reconcile, status};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.replica_sets, token, |event| {
        [key_of(event.object())]
    });
    let sets = context.replica_sets.clone();
    queue.feed(&context.pods, token, move |event| {
        owners_of(event, "ReplicaSet", &sets)
    });
    let executor = context.executor("replicaset-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("replicaset", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(replica_set) = context.replica_sets.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        replica_set,
        pods: context.pods.list_namespace(&ns),
        replica_sets: context.replica_sets.list_namespace(&ns),
        now: Time::now_utc(),
    };
    carry_out(&observed, &executor).await
}

/// Does what is due, then tells it in the status; what could not be done is told there too.
pub(super) async fn carry_out(observed: &Observed, executor: &Executor) -> Worked {
    let actions = reconcile(observed);
    if !actions.is_empty() {
        return match executor.run(actions).await {
            // The pods' changes bring the set back here; then its status is due.
            Ok(()) => Ok(None),
            Err(failed) => {
                let failure = failure_of(&failed.action, failed.error.to_string());
                let (action, _) = status(observed, Some(&failure));
                executor.run(action.into_iter().collect()).await?;
                Err(failed.error)
            }
        };
    }
    let (action, again) = status(observed, None);
    executor.run(action.into_iter().collect()).await?;
    Ok(again)
}
