//! What a server must bear: garbage, floods, and clients that do not listen.
#![allow(missing_docs)]

mod support;

use std::collections::HashSet;

use serde_json::{Value, json};
use support::{PATIENCE, World};

const CMS: &str = "/api/v1/namespaces/default/configmaps";

/// Always the same numbers (xorshift): a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// A valid body with some bytes changed, removed or doubled.
fn spoiled(random: &mut Random, valid: &str) -> Vec<u8> {
    let mut bytes = valid.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => {
                bytes.remove(at);
            }
            2 => bytes.truncate(at),
            _ => {
                let copy = bytes[..at].to_vec();
                bytes.extend(copy);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn garbage_is_answered_with_a_status_and_harms_nobody() {
    let w = World::new().await;
    let c = w.admin();
    let mut random = Random(0x5eed_cafe_f00d_1234);
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]}})
        .to_string();
    let targets = [
        ("POST", "/api/v1/namespaces/default/pods"),
        ("PUT", "/api/v1/namespaces/default/pods/p"),
        ("PATCH", "/api/v1/namespaces/default/pods/p"),
        ("DELETE", "/api/v1/namespaces/default/pods/p"),
        ("POST", "/apis/apps/v1/namespaces/default/deployments"),
        (
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token",
        ),
        ("POST", "/api/v1/namespaces/default/pods/p/eviction"),
    ];
    let types = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "text/plain",
    ];
    for round in 0..400 {
        let (method, path) = targets[random.below(targets.len())];
        let kind = types[random.below(types.len())];
        let body = spoiled(&mut random, &pod);
        let (code, answer) = c.send(method, path, kind, &body).await;
        assert!(
            code < 500,
            "round {round}: {method} {path} {kind} {:?} was answered {code} {answer}",
            String::from_utf8_lossy(&body)
        );
        if code >= 400 {
            assert_eq!(answer["kind"], "Status", "round {round}: {answer}");
            assert_eq!(answer["code"], code, "round {round}: {answer}");
        }
    }
    let (code, _) = c.post(CMS, &json!({"metadata": {"name": "alive"}})).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn queries_that_mean_nothing_are_no_errors_of_the_server() {
    let w = World::new().await;
    let c = w.admin();
    for query in [
        "limit=-1",
        "limit=x",
        "continue=%00%ff",
        "continue=e30",
        "resourceVersion=-5",
        "resourceVersion=99999999999999999999999",
        "labelSelector=a%20in%20(",
        "labelSelector=%ff%fe",
        "fieldSelector=metadata.name%3D%3D%3D",
        "watch=true&resourceVersion=abc",
        "watch=true&timeoutSeconds=-1&resourceVersion=999999999",
        "fieldValidation=Sometimes",
        "dryRun=Some",
        "%zz=%zz&&&===",
    ] {
        let (code, answer) = c.get(&format!("{CMS}?{query}")).await;
        assert!(code < 500 || code == 504, "{query}: {code} {answer}");
    }
    for path in [
        "/api/v1/namespaces/default/configmaps/%2e%2e",
        "/api/v1/namespaces/..%2f..%2f/configmaps/x",
        "/api/v1/namespaces/default/configmaps/a%00b",
        "/api/v1/namespaces/%ff/configmaps",
        "/api/v1/namespaces/default/pods/p/log/../../x",
        "/api/v1//namespaces//default//pods",
        "/apis/a/b/c/d/e/f/g/h/i/j/k",
    ] {
        let (code, answer) = c.get(path).await;
        assert!((200..500).contains(&code), "{path}: {code} {answer}");
    }
}

/// Objects go into lists, events and reviews, whose readers stop at some depth; what is stored has to be read again.
#[tokio::test]
async fn objects_that_nobody_could_read_are_refused_in_every_form() {
    let mut w = World::new().await;
    let c = w.admin();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "nests.a.io"},
        "spec": {"group": "a.io", "scope": "Cluster", "names": {"plural": "nests", "kind": "Nest"}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(c.post(crds, &definition).await.0, 201);
    let nests = "/apis/a.io/v1/nests";
    let nest = |depth: usize| {
        format!(
            r#"{{"apiVersion": "a.io/v1", "kind": "Nest", "metadata": {{"name": "n{depth}"}}, "x": {}{}}}"#,
            r#"{"y": "#.repeat(depth) + "1",
            "}".repeat(depth)
        )
    };
    let (code, made) = c
        .send("POST", nests, "application/json", nest(90).as_bytes())
        .await;
    assert_eq!(code, 201, "{made}");
    for media in ["application/json", "application/yaml"] {
        for depth in [118, 124, 500, 5000, 100_000] {
            let body = nest(depth);
            let (code, refused) = c.send("POST", nests, media, body.as_bytes()).await;
            assert_eq!(code, 400, "{media}, {depth} levels: {refused}");
            let path = format!("{nests}/applied?fieldManager=m");
            let body = body.replace(&format!("n{depth}"), "applied");
            let media = "application/apply-patch+yaml";
            let (code, refused) = c.send("PATCH", &path, media, body.as_bytes()).await;
            assert_eq!(code, 400, "{media}, {depth} levels: {refused}");
        }
    }
    let inward =
        |n: usize| json!({"op": "add", "path": format!("/x{}", "/y".repeat(n)), "value": {}});
    let path = format!("{nests}/n90");
    let operations: Value = (80..400).map(inward).collect();
    let json_patch = "application/json-patch+json";
    let (code, refused) = c
        .send(
            "PATCH",
            &path,
            json_patch,
            operations.to_string().as_bytes(),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    let double = |n: usize| json!({"op": "copy", "from": "/x", "path": format!("/x/{n}")});
    let operations: Value = (0..60).map(double).collect();
    let (code, refused) = c
        .send(
            "PATCH",
            &path,
            json_patch,
            operations.to_string().as_bytes(),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    w.restart().await;
    let (code, list) = w.admin().get(nests).await;
    assert_eq!(
        (code, list["items"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{list}"
    );
}

#[tokio::test]
async fn a_few_lines_of_yaml_fill_no_memory() {
    let w = World::new().await;
    let mut body = "data: &a0 {k: v}\n".to_owned();
    for n in 1..40 {
        let items = vec![format!("*a{}", n - 1); 20].join(", ");
        body += &format!("x{n}: &a{n} [{items}]\n");
    }
    let (code, refused) = w
        .admin()
        .send("POST", CMS, "application/yaml", body.as_bytes())
        .await;
    assert_eq!(code, 400, "{refused}");
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("excessive aliasing"), "{message}");
}

#[tokio::test]
async fn a_watch_may_be_asked_for_longer_than_any_clock_runs() {
    let w = World::new().await;
    let path = format!("{CMS}?watch=1&timeoutSeconds={}", i64::MAX);
    let mut events = w.admin().watch(&path).await;
    let object = json!({"metadata": {"name": "a"}});
    assert_eq!(w.admin().post(CMS, &object).await.0, 201);
    while events.named().await != ("ADDED".into(), "a".into()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_neither_skips_nor_repeats_when_it_reconnects() {
    let w = World::new().await;
    let c = w.admin();
    let mut version = c.get(CMS).await.1["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    const WRITES: usize = 200;
    let writer = {
        let c = c.clone();
        tokio::spawn(async move {
            let mut written = Vec::new();
            for i in 0..WRITES {
                let made = c
                    .post(CMS, &json!({"metadata": {"name": format!("r{i:04}")}}))
                    .await
                    .1;
                written.push(
                    made["metadata"]["resourceVersion"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                );
            }
            written
        })
    };
    let mut random = Random(42);
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < WRITES {
        let mut watch = c
            .watch(&format!(
                "{CMS}?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
            ))
            .await;
        for _ in 0..=random.below(9) {
            if seen.len() == WRITES {
                break;
            }
            let event: Value = watch.next().await.expect("an event");
            version = event["object"]["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .to_owned();
            if event["type"] != "BOOKMARK" {
                seen.push(version.clone());
            }
        }
    }
    let written = writer.await.unwrap();
    assert_eq!(seen, written);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), WRITES);
}

/// What comes back on one connection for some requests sent one after the other. An answer that says that the connection ends is the last.
async fn conversation(c: &support::Client, requests: &[(&str, usize)]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut io = c.raw().await;
    let mut all = String::new();
    for (head, body) in requests {
        let text = format!("{head}\r\nHost: x\r\nContent-Length: {body}\r\n\r\n");
        io.write_all(text.as_bytes()).await.unwrap();
        // The body comes later than the answer could.
        io.flush().await.unwrap();
        tokio::task::yield_now().await;
        let _ = io.write_all(&vec![b'x'; *body]).await;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                length.is_some_and(|n| n.parse() == Ok(body.len()))
            });
            if whole && !text.contains("connection: close") {
                break;
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, io.read(&mut buffer));
            match read.await.expect("neither an answer nor an end") {
                Ok(0) | Err(_) => return all + &text,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
        all += &String::from_utf8_lossy(&answer);
    }
    all
}

#[tokio::test]
async fn a_connection_whose_requests_were_answered_unread_serves_on_or_says_that_it_ends() {
    let w = World::new().await;
    let c = w.admin();
    // Answered before the body is looked at: a wrong type of patch, a wrong option, a path that is none, one that is public.
    let early = [
        format!("PATCH {CMS}/a HTTP/1.1\r\nContent-Type: text/plain"),
        format!("POST {CMS}?dryRun=x HTTP/1.1"),
        "POST /nowhere HTTP/1.1".to_owned(),
        "GET /version HTTP/1.1".to_owned(),
    ];
    for head in &early {
        let text = conversation(&c, &[(head, 100_000), ("GET /version HTTP/1.1", 0)]).await;
        assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{head}: {text}");
        let text = conversation(&c, &[(head, 300_000)]).await;
        assert!(text.contains("connection: close"), "{head}: {text}");
    }
    let expects = "POST /nowhere HTTP/1.1\r\nExpect: 100-continue";
    let text = conversation(&c, &[(expects, 5)]).await;
    assert!(
        text.contains("connection: close") && !text.contains("100 Continue"),
        "{text}"
    );
}
