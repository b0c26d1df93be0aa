//! Watches: a resource's history as an endless answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Call;
use crate::conversion;
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, BoxError, bytes_answer, stream_body};
use crate::machinery::Filter;
use crate::negotiate::{Form, Shape};
use crate::registry::Resource;
use crate::shape;
use crate::state::Server;
use crate::storage::{Event, Stored, TooOld};

/// How often a watcher that allows bookmarks learns that nothing happened.
const BOOKMARKS: Duration = Duration::from_secs(50);

/// What is put together at once for one watcher: a client that does not read holds no more.
const CHUNK: usize = 32 << 10;

/// Where a watch begins.
#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    /// With the present objects as `ADDED` events.
    Present,
    /// With the present objects and a bookmark that says where they end.
    PresentMarked,
    After(u64),
}

/// Reads where to begin; `current` is the newest revision there is.
pub(crate) fn start(query: &crate::target::Query, current: u64) -> ApiResult<Start> {
    let version = query.text("resourceVersion");
    if query.flag("sendInitialEvents") {
        if !query.flag("allowWatchBookmarks") {
            return Err(ApiError::new(
                422,
                "Invalid",
                "ListOptions.meta.k8s.io \"\" is invalid: allowWatchBookmarks: Forbidden: sendInitialEvents requires allowWatchBookmarks",
            ));
        }
        super::read::revision(version, current)?;
        return Ok(Start::PresentMarked);
    }
    match super::read::revision(version, current)? {
        0 if query.get("sendInitialEvents").is_some() => Ok(Start::After(current)),
        0 => Ok(Start::Present),
        after => Ok(Start::After(after)),
    }
}

/// What an event means for a watcher that sees only some objects.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Added,
    Modified,
    /// It was deleted, or no longer is what the watcher selects; the flag says which.
    Deleted {
        left: bool,
    },
    Nothing,
}

/// Decides what the watcher is told, from whether it saw the object before and sees it now.
pub(crate) fn seen(before: bool, now: bool, deleted: bool) -> Seen {
    match (before, now && !deleted) {
        (false, true) => Seen::Added,
        (true, true) => Seen::Modified,
        (true, false) => Seen::Deleted { left: !deleted },
        (false, false) => Seen::Nothing,
    }
}

/// Which objects a watch is about, by their keys: nothing of the others is looked at.
struct Scope {
    /// `namespace/`, or nothing.
    prefix: String,
    /// The only name.
    name: Option<String>,
}

impl Scope {
    fn new(namespace: &str, name: Option<String>) -> Self {
        let prefix = match namespace {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        Self { prefix, name }
    }

    fn holds(&self, key: &str) -> bool {
        let own = |name: &String| key.rsplit('/').next() == Some(name);
        key.starts_with(&self.prefix) && self.name.as_ref().is_none_or(own)
    }
}

struct Watcher {
    server: Arc<Server>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    resource: Arc<Resource>,
    scope: Scope,
    filter: Filter,
    form: Form,
    include: String,
    headers: bool,
    bookmarks: bool,
    start: Option<Start>,
    cursor: u64,
    changed: tokio::sync::watch::Receiver<u64>,
    /// There may be events after `cursor`.
    behind: bool,
    ends: Instant,
    /// When the client wants a sign of life.
    quiet: Instant,
    /// Rings at the earlier of the two. It lives as long as the watch: setting it anew for each event is most of what an event costs.
    alarm: Pin<Box<Sleep>>,
    over: bool,
}

/// The moment at which a watch has something to do though nothing happens.
fn due(bookmarks: bool, ends: Instant, quiet: Instant) -> Instant {
    if bookmarks { ends.min(quiet) } else { ends }
}

/// Has objects converted that are about to be shown. One that cannot be is shown in the version it is kept in.
async fn converted(server: &Server, resource: &Resource, objects: &[Arc<Stored>]) {
    let objects = objects.iter().map(AsRef::as_ref);
    // Boxed: a watch that waits is not to be as large as one that converts.
    if let Err(e) = Box::pin(conversion::prepare(server, resource, objects)).await {
        tracing::warn!(error = %e, "objects for a watch were not converted");
    }
}

/// What a watcher may be shown of events.
fn shown_of(events: &[Arc<Event>], scope: &Scope) -> Vec<Arc<Stored>> {
    let mut objects = Vec::new();
    for event in events.iter().filter(|event| scope.holds(&event.key)) {
        objects.push(event.object.clone());
        if let Some(previous) = &event.previous {
            objects.push(previous.clone());
        }
    }
    objects
}

impl Watcher {
    fn line(&self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(object);
        out.put_slice(b"}\n");
    }

    fn put(&mut self, out: &mut BytesMut, kind: &str, object: &Arc<Stored>) {
        let object = shape::shown(&self.resource, object);
        let (shape, headers) = (self.form.shape, self.headers);
        self.headers = false;
        let text = shape::text(&self.resource, shape, &self.include, headers, &object);
        self.line(out, kind, &text);
    }

    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        if !self.scope.holds(&event.key) {
            return;
        }
        let before = event
            .previous
            .as_ref()
            .is_some_and(|p| shape::passes(&self.filter, &self.resource, p));
        let now = shape::passes(&self.filter, &self.resource, &event.object);
        match seen(before, now, event.deleted) {
            Seen::Added => self.put(out, "ADDED", &event.object),
            Seen::Modified => self.put(out, "MODIFIED", &event.object),
            Seen::Deleted { left: false } => self.put(out, "DELETED", &event.object),
            Seen::Deleted { left: true } => {
                // The last state the watcher could see, at the revision at which it left.
                if let Some(previous) = &event.previous {
                    let previous = shape::shown(&self.resource, previous);
                    let last = Stored::restamped(&previous, event.revision);
                    self.put(out, "DELETED", &Arc::new(last));
                }
            }
            Seen::Nothing => {}
        }
    }

    fn bookmark(&mut self, out: &mut BytesMut, end_of_initial: bool) {
        let mut meta =
            json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if end_of_initial {
            // The empty list lets a client build its answer from events as if it had listed.
            let (kind, version) = match self.form.shape {
                Shape::Plain => (
                    self.resource.list_kind.as_str(),
                    self.resource.api_version(),
                ),
                Shape::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
                Shape::Table => ("Table", "meta.k8s.io/v1".to_owned()),
            };
            let list = json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": []});
            meta["annotations"] = json!({
                "k8s.io/initial-events-end": "true",
                "kubernetes.io/initial-events-list-blueprint": STANDARD.encode(list.to_string()),
            });
        }
        let object = match self.form.shape {
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.cursor.to_string()},
                "columnDefinitions": null, "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}}],
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}),
            Shape::Plain => json!({
                "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": meta}),
        };
        self.line(out, "BOOKMARK", object.to_string().as_bytes());
    }

    fn failed(&mut self, e: &ApiError) -> Bytes {
        self.over = true;
        let mut out = BytesMut::new();
        self.line(&mut out, "ERROR", e.to_value().to_string().as_bytes());
        out.freeze()
    }

    /// The next bytes of the answer; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if let Some(start) = self.start.take() {
            match start {
                Start::After(revision) => self.cursor = revision,
                with @ (Start::Present | Start::PresentMarked) => {
                    let (mut items, revision) = self
                        .server
                        .storage
                        .cache()
                        .list(&self.resource.table, &self.scope.prefix);
                    items.retain(|(key, _)| self.scope.holds(key));
                    self.cursor = revision;
                    let mut out = BytesMut::new();
                    if conversion::of(&self.resource).is_some() {
                        let all: Vec<Arc<Stored>> =
                            items.iter().map(|(_, item)| item.clone()).collect();
                        converted(&self.server, &self.resource, &all).await;
                    }
                    for (_, item) in items {
                        if shape::passes(&self.filter, &self.resource, &item) {
                            self.put(&mut out, "ADDED", &item);
                        }
                    }
                    if with == Start::PresentMarked {
                        self.bookmark(&mut out, true);
                    }
                    if !out.is_empty() {
                        return Some(out.freeze());
                    }
                }
            }
        }
        loop {
            // After an event that was passed on, mostly nothing more has happened.
            if self.behind || self.changed.has_changed().unwrap_or(true) {
                self.behind = false;
                self.changed.borrow_and_update();
                if let Some(chunk) = self.catch_up().await {
                    return Some(chunk);
                }
            }
            tokio::select! {
                biased;
                change = self.changed.changed() => {
                    if change.is_err() {
                        return None;
                    }
                    self.behind = true;
                }
                () = &mut self.alarm => {
                    let now = Instant::now();
                    let mut out = BytesMut::new();
                    if now >= self.ends {
                        self.over = true;
                        if !self.bookmarks {
                            return None;
                        }
                        self.bookmark(&mut out, false);
                        return Some(out.freeze());
                    }
                    self.quiet = now + BOOKMARKS;
                    let due = due(self.bookmarks, self.ends, self.quiet);
                    self.alarm.as_mut().reset(due);
                    // Nothing of this resource may have happened, but time has passed elsewhere.
                    if let Ok(batch) = self.server.storage.cache().since(&self.resource.table, self.cursor)
                        && batch.events.is_empty()
                    {
                        self.cursor = batch.upto;
                        self.bookmark(&mut out, false);
                        return Some(out.freeze());
                    }
                }
                () = &mut self.stopped => return None,
            }
        }
    }

    /// What the history has after `cursor`; `None`: nothing that the client is to see.
    async fn catch_up(&mut self) -> Option<Bytes> {
        let cache = self.server.storage.cache();
        let batch = match cache.since(&self.resource.table, self.cursor) {
            Ok(batch) => batch,
            Err(TooOld { asked, oldest }) => {
                let e = ApiError::expired(format!("too old resource version: {asked} ({oldest})"));
                return Some(self.failed(&e));
            }
        };
        let mut out = BytesMut::new();
        self.cursor = batch.upto;
        if conversion::of(&self.resource).is_some() {
            let all = shown_of(&batch.events, &self.scope);
            converted(&self.server, &self.resource, &all).await;
        }
        for event in &batch.events {
            self.event(&mut out, event);
            if out.len() > CHUNK {
                // The rest stays in the history, where all watchers share it.
                self.cursor = event.revision;
                self.behind = true;
                break;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }
}

/// Answers a watch.
pub(crate) fn watch(call: &Call<'_>, namespace: &str, filter: Filter) -> ApiResult<Answer> {
    let Call {
        server,
        request,
        target,
        resource,
        form,
    } = call;
    let numbers = super::list_options::check(&request.query, true)?;
    let start = start(&request.query, server.storage.cache().revision())?;
    let seconds = match numbers.timeout {
        // What is longer than a year ends otherwise, and is no moment that a clock could have.
        Some(n) => n.min(365 * 24 * 3600),
        // Spread over an hour, so that clients that came together do not come back together.
        None => 1800 + u64::from(rand::random::<u16>()) % 1800,
    };
    let bookmarks = request.query.flag("allowWatchBookmarks");
    let now = Instant::now();
    let (ends, quiet) = (now + Duration::from_secs(seconds), now + BOOKMARKS);
    let (name, filter) = filter.by_name();
    // Boxed, because it is handed from one piece of the answer to the next.
    let watcher = Box::new(Watcher {
        changed: server.storage.cache().subscribe(&resource.table),
        server: Arc::clone(server),
        resource: resource.clone(),
        scope: Scope::new(namespace, name),
        filter,
        form: *form,
        include: request.query.text("includeObject").to_owned(),
        headers: true,
        bookmarks,
        start: Some(start),
        cursor: 0,
        behind: true,
        ends,
        quiet,
        alarm: Box::pin(tokio::time::sleep_until(due(bookmarks, ends, quiet))),
        stopped: Box::pin(server.shutdown.clone().cancelled_owned()),
        over: false,
    });
    let guard = (
        server.counters.watching(),
        server.flow.watching(target, &request.query),
    );
    let stream = futures::stream::unfold((watcher, guard), |(mut watcher, guard)| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, BoxError>(chunk), (watcher, guard)))
    });
    let mut answer = bytes_answer(StatusCode::OK, "application/json", Bytes::new());
    *answer.body_mut() = stream_body(stream);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Query;

    #[test]
    fn a_selective_watcher_sees_objects_come_and_go() {
        assert_eq!(seen(false, true, false), Seen::Added);
        assert_eq!(seen(true, true, false), Seen::Modified);
        assert_eq!(seen(true, false, false), Seen::Deleted { left: true });
        assert_eq!(seen(true, true, true), Seen::Deleted { left: false });
        assert_eq!(seen(false, true, true), Seen::Nothing);
    }

    #[test]
    fn a_watch_of_one_object_is_not_about_its_neighbours() {
        let all = |namespace: &str, name: Option<&str>| {
            let scope = Scope::new(namespace, name.map(str::to_owned));
            ["a/x", "a/xy", "ab/x", "b/x"].map(|key| scope.holds(key))
        };
        assert_eq!(all("", None), [true; 4]);
        assert_eq!(all("a", None), [true, true, false, false]);
        assert_eq!(all("a", Some("x")), [true, false, false, false]);
        assert_eq!(all("", Some("x")), [true, false, true, true]);
        assert!(
            Scope::new("", Some("n".into())).holds("n"),
            "of no namespace"
        );
    }

    #[test]
    fn watches_begin_where_they_were_told() {
        let at = |q: &str| start(&Query::parse(q), 50);
        assert_eq!(at("").unwrap(), Start::Present);
        assert_eq!(at("resourceVersion=0").unwrap(), Start::Present);
        assert_eq!(at("resourceVersion=7").unwrap(), Start::After(7));
        assert_eq!(at("resourceVersion=x").unwrap_err().code, 400);
        assert_eq!(at("resourceVersion=99").unwrap_err().code, 504);
        assert_eq!(
            at("sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan")
                .unwrap(),
            Start::PresentMarked
        );
        let unmarked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(at(unmarked).unwrap_err().code, 422);
    }
}
