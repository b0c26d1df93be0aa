//! What reconcilers decide, and the one place that carries it out.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube_client::events::{EventType, Note, Recorder};
use kube_client::{Client, DeleteOptions, Error, PatchType, Resource, Store};
use serde_json::Value;

use crate::object::text;

/// Longest wait until one's own writes are seen in the local copies.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace; empty for cluster-scoped ones.
    pub ns: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// The target for an object.
    pub fn of(resource: Resource, object: &Value) -> Self {
        Self {
            resource,
            ns: api::meta::namespace(object).to_owned(),
            name: api::meta::name(object).to_owned(),
        }
    }

    fn ns(&self) -> Option<&str> {
        Some(self.ns.as_str()).filter(|ns| !ns.is_empty())
    }
}

/// An event to record. `{name}` in the message stands for the name of the object that was
/// made, `{error}` for what went wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it is about.
    pub regarding: Arc<Value>,
    /// Normal or warning.
    pub kind: EventType,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Event {
    /// A normal event.
    pub fn normal(
        regarding: &Arc<Value>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            regarding: regarding.clone(),
            kind: EventType::Normal,
            reason,
            message: message.into(),
        }
    }

    /// A warning.
    pub fn warning(
        regarding: &Arc<Value>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind: EventType::Warning,
            ..Self::normal(regarding, reason, message)
        }
    }
}

/// What is done to the API.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Create the object in the target's namespace.
    Create(Value),
    /// Merge patch of the object or (second) one of its subresources.
    Patch(Value, Option<&'static str>),
    /// Delete.
    Delete(DeleteOptions),
}

/// A decision of a reconciler.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The object it is about; the name is empty when the server makes it up.
    pub target: Target,
    /// What to do.
    pub verb: Verb,
    /// Recorded when it succeeded.
    pub on_success: Option<Event>,
    /// Recorded when it failed.
    pub on_failure: Option<Event>,
}

impl Action {
    /// An action without events.
    pub fn new(target: Target, verb: Verb) -> Self {
        Self {
            target,
            verb,
            on_success: None,
            on_failure: None,
        }
    }

    /// A merge patch.
    pub fn patch(resource: Resource, object: &Value, patch: Value) -> Self {
        Self::new(Target::of(resource, object), Verb::Patch(patch, None))
    }

    /// A merge patch of the status.
    pub fn status(resource: Resource, object: &Value, patch: Value) -> Self {
        Self::new(
            Target::of(resource, object),
            Verb::Patch(patch, Some("status")),
        )
    }

    /// Deletes exactly this object, not a successor of the same name.
    pub fn delete(resource: Resource, object: &Value) -> Self {
        let options = DeleteOptions::uid(api::meta::uid(object));
        Self::new(Target::of(resource, object), Verb::Delete(options))
    }

    /// Creates an object.
    pub fn create(resource: Resource, object: Value) -> Self {
        let target = Target::of(resource, &object);
        Self::new(target, Verb::Create(object))
    }
}

/// An action that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) action: Action,
    pub(crate) error: Error,
}

impl From<Box<Failed>> for Error {
    fn from(failed: Box<Failed>) -> Self {
        failed.error
    }
}

/// Carries out actions as one component.
#[derive(Clone)]
pub(crate) struct Executor {
    client: Client,
    recorder: Recorder,
    stores: Arc<Vec<Store>>,
}

impl Executor {
    /// `stores` are the local copies the component reads; writes are waited for in them.
    pub(crate) fn new(client: Client, recorder: Recorder, stores: Arc<Vec<Store>>) -> Self {
        Self {
            client,
            recorder,
            stores,
        }
    }

    pub(crate) fn record(&self, event: Event) {
        self.recorder
            .record(&event.regarding, event.kind, event.reason, event.message);
    }

    /// Carries out actions in order and waits until the local copies show them. Neighbouring
    /// creations and neighbouring deletions run together in growing groups, so that a failure
    /// that would hit all of them is met by the first. Stops at the first failure.
    pub(crate) async fn run(&self, actions: Vec<Action>) -> Result<(), Box<Failed>> {
        let mut group_size = 1;
        let mut rest = actions.as_slice();
        while let Some(first) = rest.first() {
            let same = rest
                .iter()
                .take_while(|action| together(first, action))
                .count()
                .max(1);
            let (group, later) = rest.split_at(same.min(group_size));
            let results = join_all(group.iter().map(|action| self.one(action))).await;
            for (action, result) in group.iter().zip(results) {
                result.map_err(|error| {
                    Box::new(Failed {
                        action: action.clone(),
                        error,
                    })
                })?;
            }
            let more = later.first().is_some_and(|next| together(first, next));
            group_size = if more { group_size * 2 } else { 1 };
            rest = later;
        }
        Ok(())
    }

    async fn one(&self, action: &Action) -> Result<(), Error> {
        let target = &action.target;
        let (resource, ns, name) = (&target.resource, target.ns(), target.name.as_str());
        let result = match &action.verb {
            Verb::Create(object) => self.client.create(resource, ns, object).await,
            Verb::Patch(patch, sub) => {
                self.client
                    .patch(resource, ns, name, &PatchType::Merge, patch, *sub)
                    .await
            }
            Verb::Delete(options) => match self.client.delete(resource, ns, name, options).await {
                // Gone already, or replaced by another of the same name: as wanted.
                Err(error) if error.is_not_found() || error.is_conflict() => Ok(Value::Null),
                other => other,
            },
        };
        match result {
            Ok(answer) => {
                let made = match api::meta::name(&answer) {
                    "" => name,
                    made => made,
                };
                self.tell(&action.on_success, made, "");
                self.wait_visible(action, &answer).await;
                Ok(())
            }
            Err(error) => {
                if !is_terminating_namespace(&error) {
                    self.tell(&action.on_failure, name, &error.to_string());
                }
                Err(error)
            }
        }
    }

    fn tell(&self, event: &Option<Event>, name: &str, error: &str) {
        if let Some(event) = event {
            self.recorder.note(Note {
                regarding: event.regarding.clone(),
                field_path: None,
                kind: event.kind,
                reason: event.reason.into(),
                message: event
                    .message
                    .replace("{name}", name)
                    .replace("{error}", error),
                action: None,
            });
        }
    }

    /// Otherwise the next look at the local copy would decide the same once more.
    async fn wait_visible(&self, action: &Action, answer: &Value) {
        let target = &action.target;
        let Some(store) = self
            .stores
            .iter()
            .find(|store| *store.resource() == target.resource)
        else {
            return;
        };
        let version = api::meta::resource_version(answer);
        // A deletion that is already complete answers with a status instead of the object.
        let seen = if version.is_empty() {
            match &action.verb {
                Verb::Delete(options) => {
                    let uid = options
                        .preconditions
                        .as_ref()
                        .and_then(|wanted| wanted.uid.as_deref());
                    wait_gone(store, target, uid.unwrap_or_default()).await
                }
                _ => true,
            }
        } else {
            store.wait_for_version(version, VISIBLE_WITHIN).await
        };
        if !seen {
            tracing::debug!(?target, "a write is not visible yet");
        }
    }
}

async fn wait_gone(store: &Store, target: &Target, uid: &str) -> bool {
    let mut changed = store.changed();
    let gone = async {
        loop {
            changed.mark_unchanged();
            let there = store.get(&target.ns, &target.name);
            if there.is_none_or(|object| !uid.is_empty() && api::meta::uid(&object) != uid) {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(VISIBLE_WITHIN, gone).await.is_ok()
}

fn together(one: &Action, other: &Action) -> bool {
    one.target.resource == other.target.resource
        && matches!(
            (&one.verb, &other.verb),
            (Verb::Create(_), Verb::Create(_)) | (Verb::Delete(_), Verb::Delete(_))
        )
}

/// Nothing can be created in a namespace that is going away; that is no failure worth telling.
pub(crate) fn is_terminating_namespace(error: &Error) -> bool {
    match error {
        Error::Status { details, .. } => crate::object::items(&details["causes"])
            .iter()
            .any(|cause| text(&cause["reason"]) == "NamespaceTerminating"),
        _ => false,
    }
}
