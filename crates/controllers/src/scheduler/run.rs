//! The scheduler's loop: one decision at a time, bindings beside it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use api::time::Time;
use kube_client::events::{EventType, Note, Recorder};
use kube_client::{
    Client, DeleteOptions, Error, ListParams, NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS, PODS,
    PatchType, Store, StoreEvent, Subscription,
};
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{NodeInfo, Snapshot, Storage, decide, preempt, volumes};
use crate::object::{condition, is_terminating, items, text};
use crate::pods;

/// The scheduler's name in pods.
const NAME: &str = "default-scheduler";
/// How long a pod waits whose binding failed.
const BIND_RETRY: Duration = Duration::from_millis(200);

type Key = (String, String);

struct Scheduler {
    client: Client,
    recorder: Recorder,
    pods: Store,
    nodes: Store,
    namespaces: Store,
    /// Followed from the first pod with a claim on.
    storage: Option<Stores>,
    /// Pods to decide about.
    active: VecDeque<Key>,
    /// Pods that fitted nowhere; they come again when the cluster changes.
    waiting: HashSet<Key>,
    /// Pods that were assigned but are not yet seen so: uid to pod with node.
    assumed: HashMap<String, Arc<Value>>,
    bindings: mpsc::UnboundedSender<(Key, String, Result<(), Error>)>,
    token: CancellationToken,
}

/// Local copies of what the claims of pods are about.
struct Stores {
    claims: Store,
    volumes: Store,
    classes: Store,
    news: Subscription,
}

/// The next change of a claim; never, while no pod has one.
async fn claim_news(stores: &mut Option<Stores>) {
    match stores {
        Some(stores) => {
            if stores.news.recv().await.is_some() {
                return;
            }
            std::future::pending().await
        }
        None => std::future::pending().await,
    }
}

/// Runs until `token` is cancelled.
pub(crate) async fn run(client: Client, token: CancellationToken) {
    let start = |resource| {
        Store::start(
            client.clone(),
            resource,
            None,
            ListParams::default(),
            &token,
        )
    };
    let (pods, nodes, namespaces) = (start(PODS), start(NODES), start(NAMESPACES));
    futures::join!(
        pods.wait_synced(),
        nodes.wait_synced(),
        namespaces.wait_synced()
    );
    let (bindings, mut bound) = mpsc::unbounded_channel();
    let mut pod_events = pods.subscribe();
    let mut node_events = nodes.subscribe();
    let mut scheduler = Scheduler {
        recorder: Recorder::start(client.clone(), NAME, "", &token),
        client,
        pods,
        nodes,
        namespaces,
        storage: None,
        active: VecDeque::new(),
        waiting: HashSet::new(),
        assumed: HashMap::new(),
        bindings,
        token: token.clone(),
    };
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            Some(event) = pod_events.recv() => {
                scheduler.pod_changed(&event);
                while let Some(event) = pod_events.try_recv() {
                    scheduler.pod_changed(&event);
                }
            }
            Some(event) = node_events.recv() => scheduler.node_changed(&event),
            () = claim_news(&mut scheduler.storage) => scheduler.retry_waiting(),
            Some((key, uid, result)) = bound.recv() => scheduler.binding_done(key, &uid, result),
            else => return,
        }
        while let Some(key) = scheduler.next() {
            scheduler.know_storage(&key).await;
            scheduler.schedule(key);
        }
    }
}

impl Scheduler {
    fn pod_changed(&mut self, event: &StoreEvent) {
        let pod = event.object();
        let key = (
            api::meta::namespace(pod).to_owned(),
            api::meta::name(pod).to_owned(),
        );
        let assigned = !text(&pod["spec"]["nodeName"]).is_empty();
        match event {
            StoreEvent::Deleted(_) => {
                self.assumed.remove(api::meta::uid(pod));
                self.waiting.remove(&key);
                // Room may have become free, or someone unwelcome has gone.
                self.retry_waiting();
            }
            StoreEvent::Added(_) | StoreEvent::Modified { .. } if assigned => {
                self.waiting.remove(&key);
                self.assumed.remove(api::meta::uid(pod));
                let news = match event {
                    StoreEvent::Modified { old, new } => {
                        pods::is_finished(old) != pods::is_finished(new)
                            || text(&old["spec"]["nodeName"]).is_empty()
                            || old["metadata"]["labels"] != new["metadata"]["labels"]
                    }
                    _ => true,
                };
                if news {
                    self.retry_waiting();
                }
            }
            StoreEvent::Added(_) => self.active.push_back(key),
            StoreEvent::Modified { old, new } => {
                // Its own status tells nothing new.
                let relevant = old["spec"] != new["spec"]
                    || old["metadata"]["labels"] != new["metadata"]["labels"]
                    || !self.waiting.contains(&key);
                if relevant && !self.active.contains(&key) {
                    self.waiting.remove(&key);
                    self.active.push_back(key);
                }
            }
        }
    }

    fn node_changed(&mut self, event: &StoreEvent) {
        let news = match event {
            StoreEvent::Modified { old, new } => {
                old["spec"] != new["spec"]
                    || old["metadata"]["labels"] != new["metadata"]["labels"]
                    || old["status"]["allocatable"] != new["status"]["allocatable"]
            }
            _ => true,
        };
        if news {
            self.retry_waiting();
        }
    }

    fn retry_waiting(&mut self) {
        self.active.extend(self.waiting.drain());
    }

    fn binding_done(&mut self, key: Key, uid: &str, result: Result<(), Error>) {
        if let Err(error) = result {
            self.assumed.remove(uid);
            // Gone, or assigned by someone else: the pod's own events tell.
            if !error.is_not_found() && !error.is_conflict() {
                tracing::warn!(pod = ?key, %error, "binding failed, will retry");
            }
            self.active.push_back(key);
        }
    }

    /// The most important pod to decide about, among equals the one that waits longest.
    fn next(&mut self) -> Option<Key> {
        let priority = |(ns, name): &Key| {
            let pod = self.pods.get(ns, name);
            pod.map_or(0, |pod| preempt::priority(&pod))
        };
        let at = (0..self.active.len())
            .max_by_key(|&at| (priority(&self.active[at]), std::cmp::Reverse(at)))?;
        self.active.remove(at)
    }

    /// Begins to follow claims and volumes when this pod is the first that has some.
    async fn know_storage(&mut self, (ns, name): &Key) {
        let has_claims = |pod: &Value| volumes::claim_names(pod).next().is_some();
        if self.storage.is_some() || !self.pods.get(ns, name).is_some_and(|pod| has_claims(&pod)) {
            return;
        }
        let start = |resource| {
            let params = ListParams::default();
            Store::start(self.client.clone(), resource, None, params, &self.token)
        };
        let claims = start(PERSISTENT_VOLUME_CLAIMS);
        let stores = Stores {
            news: claims.subscribe(),
            claims,
            volumes: start(crate::volumes::PERSISTENT_VOLUMES),
            classes: start(crate::volumes::STORAGE_CLASSES),
        };
        futures::join!(
            stores.claims.wait_synced(),
            stores.volumes.wait_synced(),
            stores.classes.wait_synced()
        );
        self.storage = Some(stores);
    }

    fn schedule(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key.0, &key.1) else {
            return;
        };
        if !is_ours(&pod) || self.assumed.contains_key(api::meta::uid(&pod)) {
            return;
        }
        let snapshot = self.snapshot(&pod);
        match decide(&pod, &snapshot) {
            Ok(node) => {
                let waiting = volumes::waiting(&pod, &snapshot.storage);
                if waiting.is_empty() {
                    self.bind(key, &pod, node);
                } else {
                    // It comes again when its claims are bound.
                    self.waiting.insert(key);
                    for claim in waiting {
                        self.select_node(claim, node);
                    }
                }
            }
            Err(unfit) => {
                self.waiting.insert(key);
                let hopeless = volumes::ready(&pod, &snapshot.storage).is_err();
                let found = if hopeless || preempt::is_under_way(&pod, &snapshot) {
                    None
                } else {
                    preempt::victims(&pod, &snapshot)
                };
                let node = found.as_ref().map(|(node, _)| *node);
                self.tell_unschedulable(&pod, unfit.message, node);
                if let Some((node, victims)) = found {
                    for victim in victims {
                        self.displace(&pod, node, victim);
                    }
                }
            }
        }
    }

    /// The cluster as `pod` finds it: room that was made for more important pods is taken.
    fn snapshot(&self, pod: &Value) -> Snapshot {
        let mut by_node: BTreeMap<&str, Vec<Arc<Value>>> = BTreeMap::new();
        let pods = self.pods.list();
        let assumed =
            |pod: &Arc<Value>| self.assumed.get(api::meta::uid(pod)).unwrap_or(pod).clone();
        let pods: Vec<Arc<Value>> = pods
            .iter()
            .filter(|pod| !pods::is_finished(pod))
            .map(assumed)
            .collect();
        for other in &pods {
            let mut node = text(&other["spec"]["nodeName"]);
            let promised = text(&other["status"]["nominatedNodeName"]);
            if node.is_empty()
                && !promised.is_empty()
                && api::meta::uid(other) != api::meta::uid(pod)
                && preempt::priority(other) >= preempt::priority(pod)
            {
                node = promised;
            }
            by_node.entry(node).or_default().push(other.clone());
        }
        let nodes = self.nodes.list();
        Snapshot {
            nodes: nodes
                .iter()
                .map(|node| NodeInfo {
                    node: node.clone(),
                    pods: by_node.remove(api::meta::name(node)).unwrap_or_default(),
                })
                .collect(),
            namespaces: self
                .namespaces
                .list()
                .iter()
                .map(|ns| {
                    (
                        api::meta::name(ns).to_owned(),
                        ns["metadata"]["labels"].clone(),
                    )
                })
                .collect(),
            storage: self
                .storage
                .as_ref()
                .map_or_else(Storage::default, |stores| Storage {
                    claims: stores.claims.list_namespace(api::meta::namespace(pod)),
                    volumes: stores.volumes.list(),
                    classes: stores.classes.list(),
                }),
        }
    }

    /// Tells who makes volumes for which node a claim's first pod is.
    fn select_node(&self, claim: &Arc<Value>, node: &str) {
        if api::meta::annotation(claim, api::storage::SELECTED_NODE) == Some(node) {
            return;
        }
        let patch = json!({"metadata": {"annotations": {api::storage::SELECTED_NODE: node}}});
        let (client, claim) = (self.client.clone(), claim.clone());
        tokio::spawn(async move {
            let (ns, name) = (api::meta::namespace(&claim), api::meta::name(&claim));
            let merge = PatchType::Merge;
            let resource = &PERSISTENT_VOLUME_CLAIMS;
            if let Err(error) = client
                .patch(resource, Some(ns), name, &merge, &patch, None)
                .await
            {
                // It changed or went meanwhile; its event brings the pod back here.
                tracing::debug!(ns, name, %error, "node of a claim not written");
            }
        });
    }

    fn bind(&mut self, key: Key, pod: &Arc<Value>, node: &str) {
        let uid = api::meta::uid(pod).to_owned();
        let mut assumed = pod.as_ref().clone();
        assumed["spec"]["nodeName"] = node.into();
        self.assumed.insert(uid.clone(), Arc::new(assumed));
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key.1, "namespace": key.0, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let note = Note {
            regarding: pod.clone(),
            field_path: None,
            kind: EventType::Normal,
            reason: "Scheduled".into(),
            message: format!("Successfully assigned {}/{} to {node}", key.0, key.1),
            action: Some("Binding"),
        };
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        let (bindings, token) = (self.bindings.clone(), self.token.clone());
        tokio::spawn(async move {
            let result = client
                .create_sub(&PODS, Some(&key.0), &key.1, "binding", &binding)
                .await;
            if result.is_ok() {
                recorder.note(note);
            } else {
                tokio::select! {
                    () = tokio::time::sleep(BIND_RETRY) => {}
                    () = token.cancelled() => {}
                }
            }
            // The loop may have ended.
            let _ = bindings.send((key, uid, result.map(drop)));
        });
    }

    /// Ends a pod so that a more important one gets its place.
    fn displace(&self, pod: &Arc<Value>, node: &str, victim: Arc<Value>) {
        self.recorder.note(Note {
            regarding: victim.clone(),
            field_path: None,
            kind: EventType::Normal,
            reason: "Preempted".into(),
            message: format!("Preempted by pod {} on node {node}", api::meta::uid(pod)),
            action: Some("Preempting"),
        });
        let client = self.client.clone();
        tokio::spawn(async move {
            let (ns, name) = (api::meta::namespace(&victim), api::meta::name(&victim));
            let patch = disruption_patch(&victim, Time::now_utc());
            let merge = PatchType::Merge;
            if let Err(error) = client
                .patch(&PODS, Some(ns), name, &merge, &patch, Some("status"))
                .await
            {
                tracing::debug!(ns, name, %error, "condition DisruptionTarget not written");
            }
            let options = DeleteOptions::uid(api::meta::uid(&victim));
            if let Err(error) = client.delete(&PODS, Some(ns), name, &options).await
                && !error.is_not_found()
            {
                tracing::warn!(ns, name, %error, "a pod that was to make room was not deleted");
            }
        });
    }

    /// Writes why a pod waits, and for which node if room is being made for it.
    fn tell_unschedulable(&self, pod: &Arc<Value>, message: String, node: Option<&str>) {
        let known = condition(&pod["status"]["conditions"], "PodScheduled");
        let promised = text(&pod["status"]["nominatedNodeName"]);
        if known.is_some_and(|known| known["message"] == message.as_str())
            && node.is_none_or(|node| node == promised)
        {
            return;
        }
        let mut patch = unschedulable_patch(pod, &message, Time::now_utc());
        if let Some(node) = node {
            patch["status"]["nominatedNodeName"] = node.into();
        }
        self.recorder.note(Note {
            regarding: pod.clone(),
            field_path: None,
            kind: EventType::Warning,
            reason: "FailedScheduling".into(),
            message,
            action: Some("Scheduling"),
        });
        let (client, pod) = (self.client.clone(), pod.clone());
        tokio::spawn(async move {
            let (ns, name) = (api::meta::namespace(&pod), api::meta::name(&pod));
            let merge = PatchType::Merge;
            if let Err(error) = client
                .patch(&PODS, Some(ns), name, &merge, &patch, Some("status"))
                .await
            {
                // It changed meanwhile; its event brings it back here.
                tracing::debug!(ns, name, %error, "condition PodScheduled not written");
            }
        });
    }
}

/// Not assigned, not ending, not gated, and meant for this scheduler.
fn is_ours(pod: &Value) -> bool {
    let scheduler = text(&pod["spec"]["schedulerName"]);
    text(&pod["spec"]["nodeName"]).is_empty()
        && !is_terminating(pod)
        && !pods::is_finished(pod)
        && items(&pod["spec"]["schedulingGates"]).is_empty()
        && (scheduler.is_empty() || scheduler == NAME)
}

/// Says of a pod why it is about to be ended.
fn disruption_patch(victim: &Value, now: Time) -> Value {
    let mut conditions: Vec<Value> = items(&victim["status"]["conditions"])
        .iter()
        .filter(|entry| entry["type"] != "DisruptionTarget")
        .cloned()
        .collect();
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
        "lastProbeTime": null,
        "lastTransitionTime": api::time::rfc3339(now),
    }));
    json!({"status": {"conditions": conditions}})
}

/// Conditions are a list, so the patch names the version it was made for.
pub(super) fn unschedulable_patch(pod: &Value, message: &str, now: Time) -> Value {
    let known = condition(&pod["status"]["conditions"], "PodScheduled");
    let since = known
        .filter(|known| known["status"] == "False")
        .map_or_else(
            || api::time::rfc3339(now).into(),
            |known| known["lastTransitionTime"].clone(),
        );
    let mut conditions: Vec<Value> = items(&pod["status"]["conditions"])
        .iter()
        .filter(|entry| entry["type"] != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since,
    }));
    json!({
        "metadata": {"resourceVersion": api::meta::resource_version(pod)},
        "status": {"conditions": conditions},
    })
}
