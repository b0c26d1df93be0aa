//! Keeps a store in step with the API server: its present state, the changes from there, and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Shared, content};
use crate::{Backoff, Client, Error, Event, ListParams, WatchConnection, WatchParams, lean};

/// Annotation of the bookmark behind the present state.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Servers end watches after this many seconds (and up to half as many more), which spreads
/// reconnects.
const WATCH_SECONDS: u32 = 300;
/// A server that has not told the present state by then does not know how to in a watch.
const STATE_WITHIN: Duration = Duration::from_secs(30);
/// A watch that lasted this long was a success: the next failure starts with a short delay.
const HEALTHY: Duration = Duration::from_secs(5);

enum Ended {
    /// The server ended the watch in an orderly way, or the connection broke: go on watching.
    Resume(Option<Error>),
    /// The version is too old: list again.
    Relist(Error),
}

pub(super) async fn follow(
    client: Client,
    ns: Option<String>,
    params: ListParams,
    shared: Arc<Shared>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    // One watch that begins with the present state instead of a list and a watch; servers before 1.32 refuse it.
    let mut in_one = true;
    loop {
        let ns = ns.as_deref();
        let state = if in_one {
            let state = streamed(&client, ns, &params, &shared);
            match tokio::time::timeout(STATE_WITHIN, state).await {
                Ok(state) => state,
                Err(_) => {
                    in_one = false;
                    continue;
                }
            }
        } else {
            let list = client.list(&shared.resource, ns, &params).await;
            list.map(|list| {
                let items = list.items.into_iter().map(lean::object).collect();
                (items, list.resource_version, None)
            })
        };
        match state {
            Ok((items, version, watching)) => {
                shared.replace(items, &version);
                *shared.problem.write() = None;
                let error = watch(
                    &client,
                    ns,
                    &params,
                    &shared,
                    version,
                    watching,
                    &mut backoff,
                )
                .await;
                tracing::debug!(resource = %shared.resource.plural, %error, "listing again");
            }
            Err(error) if in_one && matches!(error.code(), Some(400 | 422)) => {
                in_one = false;
                continue;
            }
            Err(error) => note(&shared, &error),
        }
        pause(&mut backoff).await;
    }
}

/// An open watch, and when it must have ended.
struct Watching {
    connection: WatchConnection,
    deadline: Instant,
}

/// Opens a watch that lasts a while: from a version on, or with the present state first.
async fn open(
    client: &Client,
    ns: Option<&str>,
    params: &ListParams,
    shared: &Shared,
    version: Option<&str>,
) -> Result<Watching, Error> {
    let seconds = WATCH_SECONDS + (rand::random::<f64>() * f64::from(WATCH_SECONDS) / 2.0) as u32;
    let watch = WatchParams {
        label_selector: params.label_selector.clone(),
        field_selector: params.field_selector.clone(),
        resource_version: version.map(str::to_owned),
        timeout_seconds: Some(seconds),
        bookmarks: true,
        initial_events: version.is_none(),
        metadata_only: params.metadata_only,
    };
    let connection = client.open_watch(&shared.resource, ns, &watch).await?;
    Ok(Watching {
        connection,
        // The server ends the watch; if it does not, it is not there any more.
        deadline: Instant::now() + Duration::from_secs(u64::from(seconds) + 30),
    })
}

/// The present state, its version, and the watch that goes on from there.
async fn streamed(
    client: &Client,
    ns: Option<&str>,
    params: &ListParams,
    shared: &Shared,
) -> Result<(Vec<Value>, String, Option<Watching>), Error> {
    let mut watching = open(client, ns, params, shared, None).await?;
    let mut items: Vec<Value> = Vec::new();
    let same = |a: &Value, b: &Value| {
        let (a, b) = (&a["metadata"], &b["metadata"]);
        a["name"] == b["name"] && a["namespace"] == b["namespace"]
    };
    loop {
        let Some(event) = watching.connection.next().await else {
            return Err(watching.connection.cut_short());
        };
        match event? {
            Event::Added(object) => items.push(object),
            Event::Modified(object) => {
                items.retain(|item| !same(item, &object));
                items.push(object);
            }
            Event::Deleted(object) => items.retain(|item| !same(item, &object)),
            Event::Bookmark(object) => {
                if object["metadata"]["annotations"][INITIAL_EVENTS_END] == "true" {
                    return Ok((items, content::version_of(&object), Some(watching)));
                }
            }
        }
    }
}

/// Watches from `version` on, where a watch is open with that one, until the version is too old.
async fn watch(
    client: &Client,
    ns: Option<&str>,
    params: &ListParams,
    shared: &Shared,
    mut version: String,
    mut watching: Option<Watching>,
    backoff: &mut Backoff,
) -> Error {
    loop {
        let started = Instant::now();
        let opened = match watching.take() {
            Some(watching) => Ok(watching),
            None => open(client, ns, params, shared, Some(&version)).await,
        };
        let ended = match opened {
            Ok(watching) => read(watching, shared, &mut version).await,
            Err(error) => classify(error),
        };
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        match ended {
            Ended::Relist(error) => return error,
            Ended::Resume(None) if started.elapsed() > HEALTHY => {}
            Ended::Resume(error) => {
                if let Some(error) = error {
                    note(shared, &error);
                }
                pause(backoff).await;
            }
        }
    }
}

/// Takes over the events of a watch until it ends.
async fn read(watching: Watching, shared: &Shared, version: &mut String) -> Ended {
    let mut connection = watching.connection;
    *shared.problem.write() = None;
    let deadline = tokio::time::sleep_until(watching.deadline.into());
    tokio::pin!(deadline);
    loop {
        let next = tokio::select! {
            next = connection.next() => next,
            () = &mut deadline => None,
        };
        match next {
            None => return Ended::Resume(None),
            Some(Err(error)) => return classify(error),
            Some(Ok(event)) => {
                let (Event::Added(object)
                | Event::Modified(object)
                | Event::Deleted(object)
                | Event::Bookmark(object)) = &event;
                let newer = content::version_of(object);
                if !newer.is_empty() {
                    *version = newer;
                }
                shared.apply(event);
            }
        }
    }
}

fn classify(error: Error) -> Ended {
    // 404: the kind itself is gone (its definition was deleted); the list finds out.
    if error.is_gone() || error.reason() == "Expired" || error.is_not_found() {
        Ended::Relist(error)
    } else {
        Ended::Resume(Some(error))
    }
}

fn note(shared: &Shared, error: &Error) {
    let text = error.to_string();
    let mut problem = shared.problem.write();
    if problem.as_deref() != Some(&text) {
        tracing::debug!(resource = %shared.resource.plural, %error, "not following, will retry");
        *problem = Some(text);
    }
}

async fn pause(backoff: &mut Backoff) {
    tokio::time::sleep(backoff.next(rand::random())).await;
}
