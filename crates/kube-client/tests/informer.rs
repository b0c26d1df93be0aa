//! The informer through broken connections and expired versions.

mod support;

use std::time::Duration;

use runtime::CancellationToken;
use serde_json::{Value, json};
use support::{Server, events, stream};
use theater_kube_client::{
    Auth, Client, Config, ListParams, PODS, Store, StoreEvent, Subscription,
};

/// Longest wait for anything: far more than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn pod(name: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "a", "name": name, "uid": name, "resourceVersion": version.to_string()}})
}

fn list(version: u64, items: &[Value]) -> http::Response<support::Body> {
    support::json(
        200,
        &json!({"metadata": {"resourceVersion": version.to_string()}, "items": items}),
    )
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn follow(server: &Server, token: &CancellationToken) -> Store {
    let client = Client::new(Config::new(&server.url, "", Auth::None)).unwrap();
    Store::start(client, PODS, Some("a"), ListParams::default(), token)
}

async fn next(events: &mut Subscription) -> String {
    let event = tokio::time::timeout(PATIENCE, events.recv())
        .await
        .unwrap()
        .unwrap();
    let kind = match &event {
        StoreEvent::Added(_) => "+",
        StoreEvent::Modified { .. } => "~",
        StoreEvent::Deleted(_) => "-",
    };
    let metadata = &event.object()["metadata"];
    format!(
        "{kind}{}{}",
        metadata["name"].as_str().unwrap(),
        metadata["resourceVersion"].as_str().unwrap()
    )
}

#[tokio::test]
async fn it_lists_then_follows() {
    let (sender, watch) = stream();
    let server = Server::scripted(vec![list(10, &[pod("x", 3)]), watch]).await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    store.wait_synced().await;
    let x = store.get("a", "x").unwrap();
    assert_eq!(
        (x["kind"].as_str(), x["apiVersion"].as_str()),
        (Some("Pod"), Some("v1"))
    );
    let mut events = store.subscribe();
    assert_eq!(next(&mut events).await, "+x3");
    let mut changed = store.changed();
    changed.mark_unchanged();
    // One event cut in two, then two at once.
    let text = line("ADDED", &pod("y", 11));
    sender.send(text[..20].to_owned()).unwrap();
    sender
        .send(
            text[20..].to_owned()
                + &line("MODIFIED", &pod("x", 12))
                + &line("DELETED", &pod("y", 13)),
        )
        .unwrap();
    for expected in ["+y11", "~x12", "-y13"] {
        assert_eq!(next(&mut events).await, expected);
    }
    changed.changed().await.unwrap();
    assert!(store.wait_for_version("13", PATIENCE).await);
    assert_eq!(store.len(), 1);
    sender
        .send(line(
            "BOOKMARK",
            &json!({"metadata": {"resourceVersion": "40"}}),
        ))
        .unwrap();
    assert!(store.wait_for_version("40", PATIENCE).await);
    assert!(!store.wait_for_version("41", Duration::from_millis(1)).await);
}

#[tokio::test]
async fn one_watch_brings_the_present_state_and_what_follows() {
    let (sender, watch) = stream();
    let answer = std::sync::Mutex::new(Some(watch));
    let handler = move |_: &support::Seen| {
        let first = answer.lock().unwrap().take();
        first.unwrap_or_else(|| support::json(500, &json!({"kind": "Status", "code": 500})))
    };
    let server = Server::start(None, std::sync::Arc::new(handler)).await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    let end = json!({"metadata": {"resourceVersion": "10", "annotations": {"k8s.io/initial-events-end": "true"}}});
    sender
        .send(
            line("ADDED", &pod("x", 3))
                + &line("ADDED", &pod("y", 4))
                + &line("MODIFIED", &pod("x", 5))
                + &line("DELETED", &pod("y", 6)),
        )
        .unwrap();
    assert!(!store.is_synced());
    sender.send(line("BOOKMARK", &end)).unwrap();
    store.wait_synced().await;
    let mut events = store.subscribe();
    assert_eq!(next(&mut events).await, "+x5");
    sender.send(line("ADDED", &pod("z", 11))).unwrap();
    assert_eq!(next(&mut events).await, "+z11");
    assert!(store.wait_for_version("11", PATIENCE).await);
    assert_eq!(server.seen.lock().unwrap().len(), 1);
    token.cancel();
}

#[tokio::test]
async fn a_broken_watch_goes_on_where_it_stopped() {
    let (sender, last) = stream();
    let server = Server::scripted(vec![
        list(10, &[]),
        events(&[json!({"type": "ADDED", "object": pod("x", 11)})]),
        support::json(
            503,
            &json!({"kind": "Status", "code": 503, "message": "not now"}),
        ),
        last,
    ])
    .await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    let mut events = store.subscribe();
    assert_eq!(next(&mut events).await, "+x11");
    // The server repeats what is known: that is no event.
    sender
        .send(line("ADDED", &pod("x", 11)) + &line("ADDED", &pod("y", 12)))
        .unwrap();
    assert_eq!(next(&mut events).await, "+y12");
    let targets = server.targets();
    assert_eq!(targets.len(), 4, "{targets:?}");
    for (target, version) in targets[1..].iter().zip(["10", "11", "11"]) {
        assert!(
            target.contains(&format!("resourceVersion={version}&")),
            "{target}"
        );
    }
    assert_eq!(store.problem(), None);
}

#[tokio::test]
async fn an_expired_version_is_listed_again_and_only_differences_are_told() {
    let expired = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
    let (_sender, last) = stream();
    let server = Server::scripted(vec![
        list(10, &[pod("x", 3), pod("y", 4)]),
        events(&[expired]),
        list(50, &[pod("y", 4), pod("z", 45)]),
        last,
    ])
    .await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    store.wait_synced().await;
    assert!(store.wait_for_version("50", PATIENCE).await);
    let mut events = store.subscribe();
    assert_eq!(next(&mut events).await, "+y4");
    assert_eq!(next(&mut events).await, "+z45");
    assert!(events.try_recv().is_none());
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for() {
    let refused = || {
        support::json(
            503,
            &json!({"kind": "Status", "code": 503, "message": "starting"}),
        )
    };
    let (_sender, last) = stream();
    let server = Server::scripted(vec![refused(), refused(), list(1, &[pod("x", 1)]), last]).await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    tokio::time::timeout(PATIENCE, store.wait_synced())
        .await
        .unwrap();
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn following_ends_with_the_token() {
    let (sender, last) = stream();
    let server = Server::scripted(vec![list(1, &[]), last]).await;
    let token = CancellationToken::new();
    let store = follow(&server, &token);
    store.wait_synced().await;
    // Wait until the watch is open, so that its end can be seen.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.targets().len() < 2 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    token.cancel();
    tokio::time::timeout(PATIENCE, sender.closed())
        .await
        .unwrap();
    drop(store);
}
