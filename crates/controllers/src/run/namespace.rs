//! Deletion of namespaces: first everything in them, then themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use api::time::Time;
use kube_client::discovery::{ApiResource, preferred_resources};
use kube_client::{
    Client, DeleteOptions, Error, ListParams, NAMESPACES, Propagation, Resource, StoreEvent,
};
use serde_json::{Value, json};

use super::Context;
use crate::action::{Action, Executor};
use crate::object::{condition, is_terminating, items};
use crate::work::{WorkQueue, Worked};

/// The finalizer in a namespace's spec that this controller removes.
const FINALIZER: &str = "kubernetes";
/// How long to wait before looking again what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.namespaces, token, |event| {
        let ns = event.object();
        is_terminating(ns).then(|| api::meta::name(ns).to_owned())
    });
    // Pods take their time to end; with the last one the namespace may go.
    let namespaces = context.namespaces.clone();
    queue.feed(&context.pods, token, move |event| {
        let StoreEvent::Deleted(pod) = event else {
            return None;
        };
        let ns = api::meta::namespace(pod);
        namespaces
            .get("", ns)
            .filter(|ns| is_terminating(ns))
            .map(|_| ns.to_owned())
    });
    let executor = context.executor("namespace-controller");
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |ns| work(context.clone(), executor.clone(), ns)
    };
    queue.run("namespace", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, name: String) -> Worked {
    let Some(namespace) = context.namespaces.get("", &name) else {
        return Ok(None);
    };
    let finalizers = items(&namespace["spec"]["finalizers"]);
    if !is_terminating(&namespace) || !finalizers.iter().any(|known| known == FINALIZER) {
        return Ok(None);
    }
    let (left, problems) = match preferred_resources(&context.client).await {
        Ok(resources) => delete_content(&context.client, &resources, &name).await,
        Err(error) => (
            Remaining::default(),
            vec![Problem::Discovery(error.to_string())],
        ),
    };
    let conditions = conditions(&namespace, &left, &problems, Time::now_utc());
    let patch = json!({"conditions": conditions, "phase": "Terminating"});
    if let Some(patch) = patch_of(&namespace, &patch) {
        executor
            .run(vec![Action::status(NAMESPACES, &namespace, patch)])
            .await?;
    }
    if !left.is_empty() || !problems.is_empty() {
        return Ok(Some(LOOK_AGAIN));
    }
    finalize(&context.client, &name).await
}

async fn finalize(client: &Client, name: &str) -> Worked {
    let mut namespace = match client.get(&NAMESPACES, None, name).await {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    if let Some(list) = namespace["spec"]["finalizers"].as_array_mut() {
        list.retain(|known| known != FINALIZER);
    }
    match client
        .update_sub(&NAMESPACES, None, "finalize", &namespace)
        .await
    {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(None),
    }
}

fn patch_of(namespace: &Value, status: &Value) -> Option<Value> {
    let changed = crate::object::merge_patch(&namespace["status"], status)?;
    Some(json!({"status": changed}))
}

/// What could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// What there is to delete is not known.
    Discovery(String),
    /// Something could not be deleted.
    Content(String),
}

/// What is still there: per kind the number of objects, and per finalizer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remaining {
    kinds: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

async fn delete_content(
    client: &Client,
    resources: &[ApiResource],
    ns: &str,
) -> (Remaining, Vec<Problem>) {
    let kinds = resources
        .iter()
        .filter(|kind| kind.namespaced && kind.can(&["list", "delete"]));
    // Events last: the others' ends still write some.
    let (events, kinds): (Vec<_>, Vec<_>) = kinds.partition(|kind| kind.resource.kind == "Event");
    let mut remaining = Remaining::default();
    let mut problems = Vec::new();
    for group in [kinds, events] {
        let deletions = group.iter().map(|kind| delete_kind(client, kind, ns));
        for (kind, result) in group.iter().zip(futures::future::join_all(deletions).await) {
            match result {
                Ok(objects) => remaining.count(&kind.resource, &objects),
                Err(error) => problems.push(Problem::Content(error.to_string())),
            }
        }
    }
    (remaining, problems)
}

impl Remaining {
    fn count(&mut self, resource: &Resource, objects: &[Value]) {
        if objects.is_empty() {
            return;
        }
        let name = format!("{}.{}", resource.plural, resource.group);
        self.kinds.insert(name, objects.len());
        for finalizer in objects.iter().flat_map(api::meta::finalizers) {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
}

/// Deletes the objects of one kind and returns those that are still there.
async fn delete_kind(client: &Client, kind: &ApiResource, ns: &str) -> Result<Vec<Value>, Error> {
    let (resource, ns) = (&kind.resource, Some(ns));
    let params = ListParams::default();
    let options = DeleteOptions {
        propagation_policy: Some(Propagation::Background),
        ..DeleteOptions::default()
    };
    let ignore_missing = |result: Result<Value, Error>| match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    let list = async || match client.list(resource, ns, &params).await {
        // The kind itself is gone meanwhile.
        Err(error) if error.is_not_found() || error.code() == Some(405) => Ok(Vec::new()),
        other => other.map(|list| list.items),
    };
    let objects = list().await?;
    if objects.is_empty() {
        return Ok(objects);
    }
    if kind.can(&["deletecollection"]) {
        ignore_missing(
            client
                .delete_collection(resource, ns, &params, &options)
                .await,
        )?;
    } else {
        for object in objects.iter().filter(|object| !is_terminating(object)) {
            ignore_missing(
                client
                    .delete(resource, ns, api::meta::name(object), &options)
                    .await,
            )?;
        }
    }
    list().await
}

fn conditions(ns: &Value, left: &Remaining, problems: &[Problem], now: Time) -> Vec<Value> {
    let discovery: Vec<&str> = problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::Discovery(text) => Some(text.as_str()),
            Problem::Content(_) => None,
        })
        .collect();
    let content: Vec<&str> = problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::Content(text) => Some(text.as_str()),
            Problem::Discovery(_) => None,
        })
        .collect();
    let counted = |counts: &BTreeMap<String, usize>, join: &str| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name} {join} {count} resource instances"))
            .collect();
        parts.join(", ")
    };
    let table = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery.is_empty(),
            (
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            (
                "DiscoveryFailed",
                format!("Discovery failed for some groups: {}", discovery.join(", ")),
            ),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            true,
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            ("", String::new()),
        ),
        (
            "NamespaceDeletionContentFailure",
            content.is_empty(),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
            (
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    content.len(),
                    content.join(", ")
                ),
            ),
        ),
        (
            "NamespaceContentRemaining",
            left.kinds.is_empty(),
            (
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ),
            (
                "SomeResourcesRemain",
                format!(
                    "Some resources are remaining: {}",
                    counted(&left.kinds, "has")
                ),
            ),
        ),
        (
            "NamespaceFinalizersRemaining",
            left.finalizers.is_empty(),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ),
            (
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(&left.finalizers, "in")
                ),
            ),
        ),
    ];
    table
        .into_iter()
        .map(|(kind, fine, good, bad)| {
            let status = if fine { "False" } else { "True" };
            let (reason, message) = if fine { good } else { bad };
            let known = condition(&ns["status"]["conditions"], kind)
                .filter(|known| known["status"] == status);
            let since = known.map_or_else(
                || api::time::rfc3339(now).into(),
                |known| known["lastTransitionTime"].clone(),
            );
            json!({
                "type": kind,
                "status": status,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_is_left() {
        let mut left = Remaining::default();
        left.count(
            &kube_client::PODS,
            &[json!({"metadata": {"finalizers": ["x/y"]}}), json!({})],
        );
        let found = conditions(
            &json!({}),
            &left,
            &[Problem::Content("no".into())],
            Time::UNIX_EPOCH,
        );
        let texts: Vec<String> = found
            .iter()
            .map(|condition| {
                format!(
                    "{} {}",
                    condition["status"].as_str().unwrap(),
                    condition["message"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            texts,
            [
                "False All resources successfully discovered",
                "False All legacy kube types successfully parsed",
                "True Failed to delete all resource types, 1 remaining: no",
                "True Some resources are remaining: pods. has 2 resource instances",
                "True Some content in the namespace has finalizers remaining: x/y in 1 resource instances",
            ]
        );
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let before = conditions(&json!({}), &Remaining::default(), &[], Time::UNIX_EPOCH);
        let ns = json!({"status": {"conditions": before}});
        let later = Time::UNIX_EPOCH + time::Duration::seconds(60);
        assert_eq!(conditions(&ns, &Remaining::default(), &[], later), before);
    }
}
