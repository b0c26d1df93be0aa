//! Priority and fairness: requests that find no seat wait or are sent away.
#![allow(missing_docs)]

mod support;

use std::sync::Arc;

use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{Answer, World, eventually, serve};
use tokio::sync::Semaphore;

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

/// An admission webhook for ConfigMaps: who asks it waits at the gate.
#[derive(Clone)]
struct Gate {
    /// A permit for everybody who may go on.
    open: Arc<Semaphore>,
    /// A permit for everybody who has arrived.
    arrived: Arc<Semaphore>,
}

async fn gate(w: &World) -> Gate {
    let made = Gate {
        open: Arc::new(Semaphore::new(0)),
        arrived: Arc::new(Semaphore::new(0)),
    };
    let gate = made.clone();
    let address = serve(w, w.credentials.acceptor(), move |request| {
        let gate = gate.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            gate.arrived.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
            let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                "response": {"uid": review["request"]["uid"], "allowed": true}});
            Answer::new(Full::new(answer.to_string().into()))
        }
    })
    .await;
    let ca = base64::engine::general_purpose::STANDARD.encode(w.credentials.ca.root_pem());
    let hook = json!({
        "kind": "ValidatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": "gate"},
        "webhooks": [{"name": "gate.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "timeoutSeconds": 30, "clientConfig": {"url": format!("https://localhost:{}/", address.port()), "caBundle": ca},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(w.admin().post(path, &hook).await.0, 201);
    made
}

/// How many requests of the level `narrow` wait, and how many run.
async fn narrow_ones(w: &World) -> (u32, u32) {
    let path = "/debug/api_priority_and_fairness/dump_priority_levels";
    let dump = w.admin().get(path).await.1;
    let mut lines = dump.as_str().unwrap().lines();
    let line = lines.find(|l| l.starts_with("narrow,")).unwrap();
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    (fields[4].parse().unwrap(), fields[5].parse().unwrap())
}

fn header(answer: &http::Response<hyper::body::Incoming>, name: &str) -> String {
    let value = answer.headers().get(name).map(|v| v.to_str().unwrap());
    value.unwrap_or("").to_owned()
}

/// Whose uids an answer carries: (FlowSchema, PriorityLevelConfiguration).
async fn class(w: &World, client: &support::Client, path: &str) -> (String, String) {
    let answer = client.open("GET", path, &[], Vec::new()).await;
    let uids = [
        (SCHEMAS, header(&answer, "x-kubernetes-pf-flowschema-uid")),
        (LEVELS, header(&answer, "x-kubernetes-pf-prioritylevel-uid")),
    ];
    let mut names = Vec::new();
    for (path, uid) in uids {
        let all = w.admin().get(path).await.1;
        let mut items = all["items"].as_array().unwrap().iter();
        let found = items.find(|o| o["metadata"]["uid"] == uid.as_str());
        names.push(found.map_or(format!("no object of uid {uid:?}"), |o| {
            o["metadata"]["name"].as_str().unwrap().to_owned()
        }));
    }
    (names.remove(0), names.remove(0))
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// A level for the user `slow` alone, and rights for it. Without shares one request at a time is let in, and none is queued.
async fn narrow(w: &World, shares: u32, response: Value) {
    let admin = w.admin();
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "borrowingLimitPercent": 0, "limitResponse": response}}});
    assert_eq!(admin.post(LEVELS, &level).await.0, 201);
    let schema = json!({"metadata": {"name": "narrow"}, "spec": {
        "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "narrow"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "slow"}}], "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    assert_eq!(admin.post(SCHEMAS, &schema).await.0, 201);
    let binding = json!({"metadata": {"name": "slow"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "slow", "apiGroup": "rbac.authorization.k8s.io"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(admin.post(path, &binding).await.0, 201);
    let slow = w.user("slow");
    eventually("the schema is in force", async || {
        class(w, &slow, "/api/v1/nodes").await == pair("narrow", "narrow")
    })
    .await;
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn every_answer_says_how_the_request_was_classified() {
    let w = World::new().await;
    let admin = w.admin();
    assert_eq!(
        class(&w, &admin, "/api/v1/pods").await,
        pair("exempt", "exempt")
    );
    let bob = w.user("bob");
    // Refused for other reasons, and classified before.
    assert_eq!(
        class(&w, &bob, "/api/v1/pods").await,
        pair("global-default", "global-default")
    );
    assert_eq!(class(&w, &bob, "/healthz").await, pair("probes", "exempt"));
    let node = w
        .credentials
        .client(w.address, "system:node:n", &["system:nodes"]);
    assert_eq!(
        class(&w, &node, "/api/v1/nodes/n").await,
        pair("system-node-high", "node-high")
    );
    eventually("conditions are written", async || {
        let all = admin.get(SCHEMAS).await.1;
        let items = all["items"].as_array().unwrap();
        items.len() == 13
            && items
                .iter()
                .all(|s| s["status"]["conditions"][0]["reason"] == "Found")
    })
    .await;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",priority_level=\"exempt\"} 1",
    ] {
        // Whoever has its answer may still be counted for a moment.
        eventually(line, async || {
            let (code, metrics) = admin.get("/metrics").await;
            code == 200 && metrics.as_str().unwrap().contains(line)
        })
        .await;
    }
}

#[tokio::test]
async fn a_level_without_queues_sends_away_what_it_has_no_seat_for() {
    let w = World::new().await;
    let gate = gate(&w).await;
    narrow(&w, 0, json!({"type": "Reject"})).await;
    eventually("the only seat is free", async || {
        narrow_ones(&w).await == (0, 0)
    })
    .await;
    let slow = w.user("slow");
    let held = {
        let slow = slow.clone();
        tokio::spawn(async move { slow.post(MAPS, &config_map("a")).await.0 })
    };
    gate.arrived.acquire().await.unwrap().forget();
    let answer = slow.open("GET", MAPS, &[], Vec::new()).await;
    assert_eq!(answer.status(), 429, "the only seat is taken");
    assert_eq!(header(&answer, "retry-after"), "1");
    assert!(!header(&answer, "x-kubernetes-pf-flowschema-uid").is_empty());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"Too many requests, please try again later.\n");
    // Others have seats of their own.
    assert_eq!(w.admin().get(MAPS).await.0, 200);
    gate.open.add_permits(1);
    assert_eq!(held.await.unwrap(), 201);
    eventually("the seat is free again", async || {
        slow.get(MAPS).await.0 == 200
    })
    .await;
    let metrics = w.admin().get("/metrics").await.1;
    let line = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"concurrency-limit\"}";
    assert!(metrics.as_str().unwrap().contains(line), "{line}");
}

#[tokio::test]
async fn a_level_with_queues_lets_requests_wait_for_their_turn() {
    let w = World::new().await;
    let gate = gate(&w).await;
    let queue =
        json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}});
    narrow(&w, 1, queue).await;
    // Who watches what is written keeps seats busy after the answer.
    let mut watches = Vec::new();
    for _ in 0..10 {
        let path = format!("{MAPS}?watch=true");
        watches.push(w.admin().open("GET", &path, &[], Vec::new()).await);
    }
    let slow = w.user("slow");
    // As many as there are seats (1 of 246 shares of 600 are three), and two more.
    let held: Vec<_> = (0..5)
        .map(|i| {
            let slow = slow.clone();
            tokio::spawn(async move { slow.post(MAPS, &config_map(&format!("m{i}"))).await.0 })
        })
        .collect();
    eventually("three run and two wait", async || {
        narrow_ones(&w).await == (2, 3)
    })
    .await;
    assert_eq!(slow.get(MAPS).await.0, 429, "the queue is full");
    let path = "/debug/api_priority_and_fairness/dump_requests";
    let dump = w.admin().get(path).await.1;
    let head = dump.as_str().unwrap().lines().next().unwrap().to_owned();
    assert!(head.ends_with(", StartTime"), "{head}");
    let path = format!("{path}?includeRequestDetails=1");
    let dump = w.admin().get(&path).await.1;
    let rows: Vec<Vec<&str>> = dump
        .as_str()
        .unwrap()
        .lines()
        .map(|line| line.split(',').map(str::trim).collect())
        .collect();
    let narrow: Vec<_> = rows.iter().filter(|row| row[0] == "narrow").collect();
    let of = |row: &[&str]| [row[1], row[2], row[4], row[6], row[7], row[8]].join(" ");
    for row in &narrow {
        assert_eq!(of(row), "narrow 0  1 1 5ms", "{row:?}");
        let details = "slow create /api/v1/namespaces/default/configmaps default  v1 configmaps ";
        assert_eq!(row[10..].join(" "), details);
        assert_eq!(row[9].starts_with("0001-"), row[3] != "-1", "{row:?}");
    }
    let places: Vec<&str> = narrow.iter().map(|row| row[3]).collect();
    assert_eq!(places, ["0", "1", "-1", "-1", "-1"]);
    let own = rows.iter().find(|row| row[0] == "exempt").unwrap();
    assert_eq!(
        [own[1], own[2], own[3], own[11]],
        ["exempt", "-1", "-1", "get"]
    );
    drop(watches);
    // Whoever does not wait any longer makes room.
    held[4].abort();
    held[3].abort();
    eventually("there is room", async || narrow_ones(&w).await.0 < 2).await;
    gate.open.add_permits(5);
    let mut codes = Vec::new();
    for one in held {
        codes.extend(one.await.ok());
    }
    assert!(
        codes.len() >= 3 && codes.iter().all(|c| *c == 201),
        "{codes:?}"
    );
    eventually("all seats are free", async || {
        narrow_ones(&w).await == (0, 0)
    })
    .await;
    assert_eq!(slow.get(MAPS).await.0, 200);
}

#[tokio::test]
async fn what_must_be_there_comes_back_and_cannot_be_changed() {
    let w = World::new().await;
    let admin = w.admin();
    let catch_all = format!("{SCHEMAS}/catch-all");
    assert_eq!(
        admin
            .merge(&catch_all, &json!({"spec": {"matchingPrecedence": 9999}}))
            .await
            .0,
        422
    );
    let before = admin.get(&catch_all).await.1["metadata"]["uid"].clone();
    assert_eq!(admin.delete(&catch_all).await.0, 200);
    eventually("it is there again", async || {
        let (code, now) = admin.get(&catch_all).await;
        code == 200 && now["metadata"]["uid"] != before
    })
    .await;
    let lost = json!({"metadata": {"name": "lost"}, "spec": {"priorityLevelConfiguration": {"name": "nobody"}}});
    assert_eq!(admin.post(SCHEMAS, &lost).await.0, 201);
    eventually("a schema without a level says so", async || {
        let schema = admin.get(&format!("{SCHEMAS}/lost")).await.1;
        schema["status"]["conditions"][0]["status"] == "True"
    })
    .await;
}
