//! Events: what people read under "Events:" in `kubectl describe`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Client, EVENTS, Error, PatchType, Result};

/// How many different events are remembered for counting repetitions.
const REMEMBERED: usize = 4096;

/// News that follow each other this closely are written when they pause, so that what others wait for (the next pod's start) goes first …
const QUIET: Duration = Duration::from_millis(100);
/// … or when the oldest has waited this long. Warnings, and what came before them, do not wait.
const LATEST: Duration = Duration::from_secs(2);

/// Whether an event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something is wrong.
    Warning,
}

/// Something worth telling about an object.
#[derive(Debug, Clone)]
pub struct Note {
    /// The object, or at least its kind, apiVersion and metadata.
    pub regarding: Arc<Value>,
    /// Which part of it, for instance `spec.containers{app}`.
    pub field_path: Option<String>,
    /// Normal or warning.
    pub kind: EventType,
    /// One word in upper camel case.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// What was being done (`Binding`); makes it an event of the newer form that schedulers
    /// write.
    pub action: Option<&'static str>,
}

/// Writes events in the background; repetitions become a count. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::UnboundedSender<(Note, OffsetDateTime)>,
}

impl Recorder {
    /// A recorder for `component` (shown as the event's source) on `host` (a node name; empty
    /// for control plane components).
    pub fn start(client: Client, component: &str, host: &str, token: &CancellationToken) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            known: HashMap::new(),
        };
        let token = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = writer.run(receiver) => {}
            }
        });
        Self { sender }
    }

    /// Records an event of the classic form.
    pub fn record(
        &self,
        regarding: &Arc<Value>,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.note(Note {
            regarding: regarding.clone(),
            field_path: None,
            kind,
            reason: reason.into(),
            message: message.into(),
            action: None,
        });
    }

    /// Records an event.
    pub fn note(&self, note: Note) {
        // After shutdown nobody reads events any more.
        let _ = self.sender.send((note, OffsetDateTime::now_utc()));
    }
}

/// What makes two events the same.
type Key = (String, Cow<'static, str>, bool, String, Option<String>);

struct Writer {
    client: Client,
    component: String,
    host: String,
    /// Name and count of events that were written.
    known: HashMap<Key, (String, u64)>,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::UnboundedReceiver<(Note, OffsetDateTime)>) {
        while let Some(first) = notes.recv().await {
            for (note, now) in gather(first, &mut notes).await {
                if let Err(error) = self.write(&note, now).await {
                    // The namespace may be on its way out; an event is never worth a failure.
                    tracing::debug!(reason = %note.reason, message = %note.message, %error, "event not written");
                }
            }
        }
    }

    async fn write(&mut self, note: &Note, now: OffsetDateTime) -> Result<()> {
        let metadata = &note.regarding["metadata"];
        let key: Key = (
            metadata["uid"].as_str().unwrap_or_default().to_owned(),
            note.reason.clone(),
            note.kind == EventType::Warning,
            note.message.clone(),
            note.field_path.clone(),
        );
        let ns = namespace_of(&note.regarding);
        if let Some((name, count)) = self.known.get_mut(&key) {
            let patch = repetition(note, *count + 1, now);
            let (name, merge) = (name.clone(), PatchType::Merge);
            match self
                .client
                .patch_only(&EVENTS, Some(ns), &name, &merge, &patch, None)
                .await
            {
                Ok(()) => {
                    *count += 1;
                    return Ok(());
                }
                Err(Error::Status { code: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let event = new_event(note, &self.component, &self.host, now);
        let name = event["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.client.create_only(&EVENTS, Some(ns), &event).await?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, (name, 1));
        Ok(())
    }
}

/// What is written together with `first`: all that comes before a pause, a warning, or the end of the first one's patience.
async fn gather<T>(
    first: (Note, T),
    notes: &mut mpsc::UnboundedReceiver<(Note, T)>,
) -> Vec<(Note, T)> {
    let latest = Instant::now() + LATEST;
    let mut gathered = vec![first];
    while gathered
        .last()
        .is_some_and(|(note, _)| note.kind == EventType::Normal)
    {
        let until = latest.min(Instant::now() + QUIET);
        match tokio::time::timeout_at(until, notes.recv()).await {
            Ok(Some(next)) => gathered.push(next),
            Ok(None) | Err(_) => break,
        }
    }
    gathered
}

/// Events about cluster-scoped objects live in `default`.
fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"]
        .as_str()
        .filter(|ns| !ns.is_empty())
        .unwrap_or("default")
}

fn new_event(note: &Note, component: &str, host: &str, now: OffsetDateTime) -> Value {
    let object = &note.regarding;
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut involved = json!({"apiVersion": object["apiVersion"], "kind": object["kind"]});
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(text) = metadata[field].as_str() {
            involved[field] = text.into();
        }
    }
    if let Some(path) = &note.field_path {
        involved["fieldPath"] = path.as_str().into();
    }
    let mut event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name}.{:x}", now.unix_timestamp_nanos()),
            "namespace": namespace_of(object),
        },
        "involvedObject": involved,
        "reason": note.reason,
        "message": note.message,
        "type": match note.kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        },
        "reportingComponent": component,
        "reportingInstance": host,
    });
    match note.action {
        Some(action) => {
            event["action"] = action.into();
            event["eventTime"] = micros(now).into();
            event["source"] = json!({});
            event["reportingInstance"] = if host.is_empty() {
                component.to_owned()
            } else {
                format!("{component}-{host}")
            }
            .into();
        }
        None => {
            event["count"] = 1.into();
            event["firstTimestamp"] = seconds(now).into();
            event["lastTimestamp"] = seconds(now).into();
            event["source"] = json!({"component": component});
            if !host.is_empty() {
                event["source"]["host"] = host.into();
            }
        }
    }
    event
}

fn repetition(note: &Note, count: u64, now: OffsetDateTime) -> Value {
    match note.action {
        Some(_) => json!({"series": {"count": count, "lastObservedTime": micros(now)}}),
        None => json!({"count": count, "lastTimestamp": seconds(now)}),
    }
}

fn seconds(now: OffsetDateTime) -> String {
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

fn micros(now: OffsetDateTime) -> String {
    let form =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    now.format(&form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(action: Option<&'static str>) -> Note {
        Note {
            regarding: Arc::new(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            })),
            field_path: None,
            kind: EventType::Warning,
            reason: "FailedScheduling".into(),
            message: "no".to_owned(),
            action,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_wait_for_a_pause_and_warnings_for_nothing() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let began = Instant::now();
        sender.send((normal(), 1)).unwrap();
        sender.send((note(None), 2)).unwrap();
        sender.send((normal(), 3)).unwrap();
        let numbers =
            |gathered: Vec<(Note, i32)>| gathered.iter().map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(
            numbers(gather((normal(), 0), &mut receiver).await),
            [0, 1, 2]
        );
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(numbers(gather((normal(), 4), &mut receiver).await), [4, 3]);
        assert!(began.elapsed() >= QUIET && began.elapsed() < LATEST);

        // Where there is no pause, patience ends.
        let began = Instant::now();
        let steady = tokio::spawn(async move {
            while sender.send((normal(), 5)).is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let gathered = gather((normal(), 5), &mut receiver).await;
        assert!(gathered.len() > 10);
        assert!(began.elapsed() >= LATEST && began.elapsed() < LATEST + QUIET);
        drop(receiver);
        steady.await.unwrap();
    }

    fn normal() -> Note {
        Note {
            kind: EventType::Normal,
            ..note(None)
        }
    }

    #[test]
    fn classic_events_count() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_760_000_000_123_456_789).unwrap();
        let event = new_event(&note(None), "deployment-controller", "", now);
        assert_eq!(event["metadata"]["name"], "p.186cc6acdc0bcd15");
        assert_eq!(event["firstTimestamp"], "2025-10-09T08:53:20Z");
        assert_eq!(
            event["source"],
            json!({"component": "deployment-controller"})
        );
        assert_eq!(
            event["involvedObject"],
            json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "a", "uid": "u", "resourceVersion": "7"})
        );
        assert_eq!(repetition(&note(None), 3, now)["count"], 3);
    }

    #[test]
    fn events_with_an_action_have_a_series() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_760_000_000_123_456_789).unwrap();
        let event = new_event(&note(Some("Scheduling")), "default-scheduler", "", now);
        assert_eq!(event["eventTime"], "2025-10-09T08:53:20.123456Z");
        assert_eq!(event["reportingInstance"], "default-scheduler");
        assert_eq!(event["action"], "Scheduling");
        assert!(event.get("count").is_none());
        assert_eq!(repetition(&note(Some("x")), 2, now)["series"]["count"], 2);
    }
}
