//! The ReplicationController's loop: that of a ReplicaSet for objects of the older form.

use std::sync::Arc;

use api::time::Time;

use super::replicaset::carry_out;
use super::{Context, Key, key_of, owner_key, states};
use crate::action::Executor;
use crate::replicaset::{Observed, from_replication_controller};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.replication_controllers, token, |event| {
        [key_of(event.object())]
    });
    let all = context.replication_controllers.clone();
    queue.feed(&context.pods, token, move |event| {
        let mut keys: Vec<Key> = states(event)
            .filter_map(|pod| owner_key(pod, "ReplicationController"))
            .collect();
        let pod = event.object();
        if api::meta::controller_of(pod).is_none() {
            // An orphan may be adopted.
            let labels = &pod["metadata"]["labels"];
            keys.extend(
                all.list_namespace(api::meta::namespace(pod))
                    .iter()
                    .filter(|rc| crate::selector::map_matches(&rc["spec"]["selector"], labels))
                    .map(|rc| key_of(rc)),
            );
        }
        keys.dedup();
        keys
    });
    let executor = context.executor("replication-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |key| work(context.clone(), executor.clone(), key)
    };
    queue
        .run("replicationcontroller", &context.token, work)
        .await;
}

async fn work(context: Context, executor: Executor, (ns, name): Key) -> Worked {
    let Some(controller) = context.replication_controllers.get(&ns, &name) else {
        return Ok(None);
    };
    let observed = Observed {
        replica_set: Arc::new(from_replication_controller(&controller)),
        pods: context.pods.list_namespace(&ns),
        replica_sets: Vec::new(),
        now: Time::now_utc(),
    };
    carry_out(&observed, &executor).await
}
