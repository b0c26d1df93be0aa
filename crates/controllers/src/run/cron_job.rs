//! The CronJob controller's loop.

use api::time::Time;

use super::{Context, Key, key_of, owner_key, states};
use crate::action::Executor;
use crate::cron_job::{Observed, reconcile};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.cron_jobs, token, |event| [key_of(event.object())]);
    queue.feed(&context.jobs, token, |event| {
        states(event)
            .filter_map(|job| owner_key(job, "CronJob"))
            .collect::<Vec<_>>()
    });
    let executor = context.executor("cronjob-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue.run("cronjob", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(cron_job) = context.cron_jobs.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        cron_job,
        jobs: context.jobs.list_namespace(&ns),
        now: Time::now_utc(),
    };
    let (actions, again) = reconcile(&observed);
    executor.run(actions).await?;
    Ok(again)
}
