//! The Job controller's loop.

use api::time::Time;

use super::{Context, Key, key_of, owners_of};
use crate::action::Executor;
use crate::job::{Observed, reconcile};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.jobs, token, |event| [key_of(event.object())]);
    let jobs = context.jobs.clone();
    queue.feed(&context.pods, token, move |event| {
        owners_of(event, "Job", &jobs)
    });
    let executor = context.executor("job-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("job", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(job) = context.jobs.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        job,
        pods: context.pods.list_namespace(&ns),
        now: Time::now_utc(),
    };
    let (actions, again) = reconcile(&observed);
    executor.run(actions).await?;
    Ok(again)
}
