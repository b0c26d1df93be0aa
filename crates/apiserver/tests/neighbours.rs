//! What the server asks of others: admission webhooks and node agents.
#![allow(missing_docs)]

mod support;

use std::net::SocketAddr;

use base64::Engine as _;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use support::{World, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn configuration(w: &World, kind: &str, address: SocketAddr, plural: &str, policy: &str) -> Value {
    let ca = base64::engine::general_purpose::STANDARD.encode(w.credentials.ca.root_pem());
    json!({
        "kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": format!("test-{plural}")},
        "webhooks": [{
            "name": format!("{plural}.test.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": policy, "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://127.0.0.1:{}/hook", address.port()), "caBundle": ca},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [plural], "scope": "*"}],
        }],
    })
}

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

#[tokio::test]
async fn webhooks_change_refuse_and_warn() {
    let w = World::new().await;
    let c = w.admin();
    let hook = serve(&w, w.credentials.acceptor(), |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let name = review["request"]["object"]["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let mut response = json!({"uid": review["request"]["uid"], "allowed": name != "evil", "warnings": ["mind the gap"]});
        if name == "evil" {
            response["status"] = json!({"message": "no evil here", "code": 403, "reason": "Forbidden"});
        } else {
            let patch = json!([{"op": "add", "path": "/data", "value": {"by": review["request"]["userInfo"]["username"]}}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch.to_string()).into();
        }
        let out = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        Response::new(Full::new(out.to_string().into()))
    })
    .await;
    let m = configuration(
        &w,
        "MutatingWebhookConfiguration",
        hook,
        "configmaps",
        "Fail",
    );
    let (code, made) = c
        .post(&format!("{HOOKS}/mutatingwebhookconfigurations"), &m)
        .await;
    assert_eq!(code, 201, "{made}");
    let (code, made) = c.post(CMS, &json!({"metadata": {"name": "good"}})).await;
    assert_eq!(
        (code, &made["data"]["by"]),
        (201, &json!("admin")),
        "{made}"
    );
    let (code, refused) = c.post(CMS, &json!({"metadata": {"name": "evil"}})).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            403,
            Some(r#"admission webhook "configmaps.test.io" denied the request: no evil here"#)
        )
    );
    let body = json!({"metadata": {"name": "warned"}})
        .to_string()
        .into_bytes();
    let answer = c
        .open("POST", CMS, &[("content-type", "application/json")], body)
        .await;
    assert_eq!(answer.headers()["warning"], r#"299 - "mind the gap""#);
}

#[tokio::test]
async fn a_webhook_is_asked_over_one_connection_until_that_has_ended() {
    let w = World::new().await;
    let c = w.admin();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = w.credentials.acceptor();
    // Each connection is a task; the test ends the first one as a webhook that goes away does.
    let (connections, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            let connection = tokio::spawn(async move {
                let tls = acceptor.accept(stream).await.unwrap();
                let service = hyper::service::service_fn(|request: Request<Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    let out = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                        "response": {"uid": review["request"]["uid"], "allowed": true}});
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::new(
                        out.to_string().into(),
                    )))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            });
            if connections.send(connection).is_err() {
                return;
            }
        }
    });
    let kind = "ValidatingWebhookConfiguration";
    let hook = configuration(&w, kind, address, "configmaps", "Fail");
    let (code, made) = c
        .post(&format!("{HOOKS}/validatingwebhookconfigurations"), &hook)
        .await;
    assert_eq!(code, 201, "{made}");
    for name in ["a", "b"] {
        let (code, made) = c.post(CMS, &json!({"metadata": {"name": name}})).await;
        assert_eq!(code, 201, "{made}");
    }
    let first = accepted.recv().await.unwrap();
    assert!(
        accepted.is_empty(),
        "a second call over a second connection"
    );
    first.abort();
    let (code, made) = c.post(CMS, &json!({"metadata": {"name": "c"}})).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(accepted.len(), 1, "the ended connection is replaced by one");
}

#[tokio::test]
async fn an_absent_webhook_stops_only_those_who_insist() {
    let w = World::new().await;
    let c = w.admin();
    let gone: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let lenient = configuration(
        &w,
        "ValidatingWebhookConfiguration",
        gone,
        "configmaps",
        "Ignore",
    );
    let strict = configuration(
        &w,
        "ValidatingWebhookConfiguration",
        gone,
        "secrets",
        "Fail",
    );
    for hook in [lenient, strict] {
        assert_eq!(
            c.post(&format!("{HOOKS}/validatingwebhookconfigurations"), &hook)
                .await
                .0,
            201
        );
    }
    assert_eq!(
        c.post(CMS, &json!({"metadata": {"name": "a"}})).await.0,
        201
    );
    let (code, refused) = c
        .post(
            "/api/v1/namespaces/default/secrets",
            &json!({"metadata": {"name": "a"}}),
        )
        .await;
    assert_eq!(code, 500);
    let text = refused["message"].as_str().unwrap();
    assert!(text.starts_with(r#"Internal error occurred: failed calling webhook "secrets.test.io": failed to call webhook: Post "https://127.0.0.1:1/hook?timeout=30s":"#), "{text}");
}

/// A pod on a node whose agent is at `agent`.
async fn pod_on_node(w: &World, agent: SocketAddr) {
    let c = w.admin();
    let node = json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port()}}}});
    assert_eq!(c.post("/api/v1/nodes", &node).await.0, 201);
    assert_eq!(
        c.post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}})
        )
        .await
        .0,
        201
    );
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = c.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(code, 201, "{made}");
    let mounted = made["spec"]["volumes"][0]["name"].as_str().unwrap_or("");
    assert!(mounted.starts_with("kube-api-access-"), "{made}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, bound) = c
        .post("/api/v1/namespaces/default/pods/p/binding", &binding)
        .await;
    assert_eq!(code, 201, "{bound}");
    let (code, twice) = c
        .post("/api/v1/namespaces/default/pods/p/binding", &binding)
        .await;
    assert_eq!((code, &twice["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn logs_and_streams_are_the_node_agents() {
    let w = World::new().await;
    let agent = serve(
        &w,
        w.credentials.acceptor(),
        |mut request: Request<Incoming>| async move {
            let target = request.uri().to_string();
            if !request.headers().contains_key("upgrade") {
                return Response::new(Full::new(format!("log of {target}").into()));
            }
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                io.write_all(format!("{target}\n").as_bytes())
                    .await
                    .unwrap();
                let mut buffer = [0; 4];
                io.read_exact(&mut buffer).await.unwrap();
                io.write_all(&buffer).await.unwrap();
            });
            Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .body(Full::default())
                .unwrap()
        },
    )
    .await;
    pod_on_node(&w, agent).await;
    let c = w.admin();
    let (code, log) = c
        .get("/api/v1/namespaces/default/pods/p/log?tailLines=5&follow=true")
        .await;
    assert_eq!(
        (code, log),
        (
            200,
            json!("log of /containerLogs/default/p/c?tailLines=5&follow=true")
        )
    );
    let (code, wrong) = c
        .get("/api/v1/namespaces/default/pods/p/log?container=x")
        .await;
    assert_eq!(
        (code, wrong["message"].as_str()),
        (400, Some("container x is not valid for pod p"))
    );
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&stdin=true&stdout=true&tty=false";
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let answer = c.open("GET", path, &headers, Vec::new()).await;
    assert_eq!(answer.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    assert_eq!(
        text,
        "/exec/default/p/c?command=sh&command=-c&input=1&output=1&tty=0\nping"
    );
    let (code, plain) = c
        .post(
            "/api/v1/namespaces/default/pods/p/exec?command=ls",
            &json!({}),
        )
        .await;
    assert_eq!(
        (code, plain["message"].as_str()),
        (400, Some("Upgrade request required"))
    );
}

#[tokio::test]
async fn a_pods_token_dies_with_the_pod() {
    let w = World::new().await;
    pod_on_node(&w, "127.0.0.1:1".parse().unwrap()).await;
    let c = w.admin();
    let request =
        json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    let (code, issued) = c
        .post(
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            &request,
        )
        .await;
    assert_eq!(code, 201, "{issued}");
    let mut pod = support::Client::new(w.address, w.credentials.ca.root_pem(), None);
    pod.token = issued["status"]["token"].as_str().map(str::to_owned);
    assert_eq!(pod.get("/api").await.0, 200);
    let (code, dying) = c.delete("/api/v1/namespaces/default/pods/p").await;
    assert_eq!(
        (code, &dying["metadata"]["deletionGracePeriodSeconds"]),
        (200, &json!(30))
    );
    assert_eq!(pod.get("/api").await.0, 200, "a dying pod still speaks");
    assert_eq!(
        c.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0")
            .await
            .0,
        200
    );
    assert_eq!(pod.get("/api").await.0, 401);
}

#[tokio::test]
async fn a_token_may_be_bound_to_a_secret_or_a_node() {
    let w = World::new().await;
    pod_on_node(&w, "127.0.0.1:1".parse().unwrap()).await;
    let c = w.admin();
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "s"}});
    assert_eq!(c.post(secrets, &secret).await.0, 201);
    let bound = |kind: &str, version: &str, name: &str, uid: &str| {
        let reference = json!({"kind": kind, "apiVersion": version, "name": name, "uid": uid});
        let request = json!({"spec": {"boundObjectRef": reference}});
        let c = w.admin();
        async move {
            let accounts = "/api/v1/namespaces/default/serviceaccounts/default/token";
            c.post(accounts, &request).await
        }
    };
    let node = format!("/api/v1/nodes/{}", {
        let pod = c.get("/api/v1/namespaces/default/pods/p").await.1;
        pod["spec"]["nodeName"].as_str().unwrap().to_owned()
    });
    for (kind, path) in [("Secret", format!("{secrets}/s")), ("Node", node)] {
        let name = path.rsplit('/').next().unwrap();
        let (code, issued) = bound(kind, "v1", name, "").await;
        assert_eq!(code, 201, "{issued}");
        let mut bearer = support::Client::new(w.address, w.credentials.ca.root_pem(), None);
        bearer.token = issued["status"]["token"].as_str().map(str::to_owned);
        assert_eq!(bearer.get("/api").await.0, 200);
        let (code, refused) = bound(kind, "v1", name, "another").await;
        assert_eq!(
            (code, refused["message"].as_str()),
            (409, Some(format!("Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object reference (another) does not match the UID in record. The object might have been deleted and then recreated").as_str()))
        );
        assert_eq!(c.delete(&path).await.0, 200);
        assert_eq!(bearer.get("/api").await.0, 401, "{kind} is gone");
        assert_eq!(bound(kind, "v1", name, "").await.0, 404);
    }
    let (code, refused) = bound("Deployment", "apps/v1", "d", "").await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            400,
            Some("cannot bind token to object of type apps/v1, Kind=Deployment")
        )
    );
}
