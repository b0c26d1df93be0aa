//! The loop that watches over nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::time::Time;
use parking_lot::Mutex;
use serde_json::Value;

use super::Context;
use crate::action::Executor;
use crate::node::{Observed, reconcile};
use crate::object::text;
use crate::work::{WorkQueue, Worked};

/// The last sign of life of each node, and when it was seen here. A controller that has just
/// started gives every node its full grace.
type Seen = Arc<Mutex<HashMap<String, (String, Instant)>>>;

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    for store in [&context.nodes, &context.leases] {
        queue.feed(store, token, |event| {
            [api::meta::name(event.object()).to_owned()]
        });
    }
    let executor = context.executor("node-controller");
    let seen = Seen::default();
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |name| work(context.clone(), executor.clone(), seen.clone(), name)
    };
    queue.run("node", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, seen: Seen, name: String) -> Worked {
    let Some(node) = context.nodes.get("", &name) else {
        seen.lock().remove(&name);
        return Ok(None);
    };
    let lease = context.leases.get("kube-node-lease", &name);
    let sign = sign_of_life(&node, lease.as_deref());
    let silent_for = {
        let now = Instant::now();
        let mut seen = seen.lock();
        let known = seen
            .entry(name.clone())
            .or_insert_with(|| (sign.clone(), now));
        if known.0 != sign {
            *known = (sign, now);
        }
        now - known.1
    };
    let pods = context.pods.list();
    let on_node = pods
        .iter()
        .filter(|pod| text(&pod["spec"]["nodeName"]) == name);
    let observed = Observed {
        node,
        silent_for,
        pods: on_node.cloned().collect(),
        now: Time::now_utc(),
    };
    let (actions, again) = reconcile(&observed);
    executor.run(actions).await?;
    Ok(again)
}

/// Something that changes whenever the node's agent reports.
fn sign_of_life(node: &Value, lease: Option<&Value>) -> String {
    let heartbeat = crate::object::condition(&node["status"]["conditions"], "Ready")
        .map_or("", |ready| text(&ready["lastHeartbeatTime"]));
    let renewed = lease.map_or("", |lease| text(&lease["spec"]["renewTime"]));
    format!("{renewed} {heartbeat}")
}
