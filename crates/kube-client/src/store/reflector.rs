//! Keeps a store in step with the API server: list, watch, and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Shared, content};
use crate::{Backoff, Client, Error, Event, ListParams, WatchParams};

/// Servers end watches after this many seconds (and up to half as many more), which spreads
/// reconnects.
const WATCH_SECONDS: u32 = 300;
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
    loop {
        match client.list(&shared.resource, ns.as_deref(), &params).await {
            Ok(list) => {
                shared.replace(list.items, &list.resource_version);
                *shared.problem.write() = None;
                let version = list.resource_version;
                let error = watch(
                    &client,
                    ns.as_deref(),
                    &params,
                    &shared,
                    version,
                    &mut backoff,
                )
                .await;
                tracing::debug!(resource = %shared.resource.plural, %error, "listing again");
            }
            Err(error) => note(&shared, &error),
        }
        pause(&mut backoff).await;
    }
}

/// Watches from `version` on until the version is too old.
async fn watch(
    client: &Client,
    ns: Option<&str>,
    params: &ListParams,
    shared: &Shared,
    mut version: String,
    backoff: &mut Backoff,
) -> Error {
    loop {
        let started = Instant::now();
        let ended = watch_once(client, ns, params, shared, &mut version).await;
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

async fn watch_once(
    client: &Client,
    ns: Option<&str>,
    params: &ListParams,
    shared: &Shared,
    version: &mut String,
) -> Ended {
    let seconds = WATCH_SECONDS + (rand::random::<f64>() * f64::from(WATCH_SECONDS) / 2.0) as u32;
    let watch = WatchParams {
        label_selector: params.label_selector.clone(),
        field_selector: params.field_selector.clone(),
        resource_version: Some(version.clone()),
        timeout_seconds: Some(seconds),
        bookmarks: true,
    };
    let mut connection = match client.open_watch(&shared.resource, ns, &watch).await {
        Ok(connection) => connection,
        Err(error) => return classify(error),
    };
    *shared.problem.write() = None;
    // The server ends the watch; if it does not, it is not there any more.
    let deadline = tokio::time::sleep(Duration::from_secs(u64::from(seconds) + 30));
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
