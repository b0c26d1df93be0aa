//! The Deployment controller's loop.

use api::time::Time;
use kube_client::{Error, REPLICA_SETS, StoreEvent};

use super::{Context, Key, key_of, owner_key, owners_of};
use crate::action::{Executor, Failed};
use crate::deployment::{Observed, collision, creation_failed, reconcile, same_template};
use crate::object::controller_uid;
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.deployments, token, |event| {
        [key_of(event.object())]
    });
    let deployments = context.deployments.clone();
    queue.feed(&context.replica_sets, token, move |event| {
        owners_of(event, "Deployment", &deployments)
    });
    // The strategy Recreate waits for the end of old pods.
    let (sets, deployments) = (context.replica_sets.clone(), context.deployments.clone());
    queue.feed(&context.pods, token, move |event| {
        let StoreEvent::Deleted(pod) = event else {
            return None;
        };
        let (ns, name) = owner_key(pod, "ReplicaSet")?;
        let key = owner_key(sets.get(&ns, &name)?.as_ref(), "Deployment")?;
        let deployment = deployments.get(&key.0, &key.1)?;
        (deployment["spec"]["strategy"]["type"] == "Recreate").then_some(key)
    });
    let executor = context.executor("deployment-controller");
    let context = context.clone();
    queue
        .run("deployment", token, {
            let context = context.clone();
            move |key| work(context.clone(), executor.clone(), key)
        })
        .await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(deployment) = context.deployments.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        deployment,
        replica_sets: context.replica_sets.list_namespace(&ns),
        pods: context.pods.list_namespace(&ns),
        now: Time::now_utc(),
    };
    let decision = reconcile(&observed);
    for event in decision.events {
        executor.record(event);
    }
    match executor.run(decision.actions).await {
        Ok(()) => Ok(decision.again),
        Err(failed) => {
            set_not_created(&context, &executor, &observed, &failed).await?;
            Err(failed.error)
        }
    }
}

/// A new ReplicaSet that could not be created: its name is taken by another template, or the
/// API server refused it.
async fn set_not_created(
    context: &Context,
    executor: &Executor,
    observed: &Observed,
    failed: &Failed,
) -> Result<(), Error> {
    let is_creation = matches!(failed.action.verb, crate::action::Verb::Create(_));
    if !is_creation || crate::action::is_terminating_namespace(&failed.error) {
        return Ok(());
    }
    let target = &failed.action.target;
    let deployment = &observed.deployment;
    if failed.error.is_already_exists() {
        let there = context
            .client
            .get(&REPLICA_SETS, Some(&target.ns), &target.name)
            .await?;
        let ours = controller_uid(&there) == api::meta::uid(deployment)
            && same_template(&there["spec"]["template"], &deployment["spec"]["template"]);
        if !ours {
            executor.run(vec![collision(deployment)]).await?;
        }
    } else if let Some(action) = creation_failed(observed, &target.name, &failed.error.to_string())
    {
        executor.run(vec![action]).await?;
    }
    Ok(())
}
