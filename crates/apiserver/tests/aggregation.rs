//! An extension API server behind an APIService: a small one of our own.
#![allow(missing_docs)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use futures::StreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use serde_json::{Value, json};
use support::{World, eventually, serve};

const APIS: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";

/// What the extension server answers: resources, and what it was asked, as an object. A watch is answered without end, and
/// objects that are not for trial are never made.
async fn answer(
    request: http::Request<Incoming>,
) -> http::Response<UnsyncBoxBody<Bytes, Infallible>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    if query.contains("watch=true") {
        let first = futures::stream::once(async { Ok(Frame::data(Bytes::from("{}\n"))) });
        let body = StreamBody::new(first.chain(futures::stream::pending()));
        return http::Response::new(body.boxed_unsync());
    }
    if request.method() == "POST" && !query.contains("dryRun") {
        std::future::pending::<()>().await;
    }
    let mut code = 200;
    let body = match path.as_str() {
        "/apis/wardle.example.com/v1alpha1" => {
            json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                    "verbs": ["create", "get", "list"], "shortNames": ["fl"]},
                {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
        }
        p if p.starts_with("/openapi/") => {
            code = 404;
            json!({})
        }
        _ => {
            let all = |name: &str| -> Vec<String> {
                let values = request.headers().get_all(name).iter();
                values.map(|v| v.to_str().unwrap().to_owned()).collect()
            };
            let seen = json!({"user": all("x-remote-user"), "groups": all("x-remote-group"),
                "authorization": all("authorization"), "method": request.method().as_str(),
                "uri": request.uri().to_string()});
            let body = request.into_body().collect().await.unwrap().to_bytes();
            json!({"kind": "Flunder", "apiVersion": "wardle.example.com/v1alpha1",
                "metadata": {"name": "seen"}, "seen": seen, "body": String::from_utf8_lossy(&body)})
        }
    };
    let mut out = http::Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *out.status_mut() = http::StatusCode::from_u16(code).unwrap();
    out.headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    out
}

/// Starts it; it lets in only who shows a certificate of the authority that the ConfigMap names. Returns its port.
async fn extension(w: &World, host: &str) -> u16 {
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let config = w.admin().get(path).await.1;
    assert_eq!(
        config["data"]["requestheader-allowed-names"],
        "[\"front-proxy-client\"]"
    );
    let roots_pem = config["data"]["requestheader-client-ca-file"]
        .as_str()
        .unwrap()
        .to_owned();
    let life = pki::Validity::starting(SystemTime::now(), Duration::from_secs(3600))
        .backdated(Duration::from_secs(60));
    let issued = w
        .credentials
        .ca
        .issue(&pki::CertRequest::server("ext", &[host], &[], life))
        .unwrap();
    let identity = pki::tls::Identity::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
    let auth = pki::tls::ClientAuth::Required { roots_pem };
    let tls = pki::tls::server_config(
        runtime::tls::provider(),
        identity,
        &auth,
        &[pki::tls::HTTP1],
    )
    .unwrap();
    serve(w, Arc::new(tls).into(), answer).await.port()
}

/// The Service that the APIService names, which leads to this machine.
async fn sample_service(w: &World) {
    let service = json!({"metadata": {"name": "sample-api"}, "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
    let path = "/api/v1/namespaces/default/services";
    let (code, made) = w.admin().post(path, &service).await;
    assert_eq!(code, 201, "{made}");
}

fn api_service(port: u16, ca: Option<&str>) -> Value {
    let mut spec = json!({"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "service": {"namespace": "default", "name": "sample-api", "port": port}});
    match ca {
        Some(ca) => spec["caBundle"] = base64::engine::general_purpose::STANDARD.encode(ca).into(),
        None => spec["insecureSkipTLSVerify"] = true.into(),
    }
    json!({"metadata": {"name": NAME}, "spec": spec})
}

fn condition(object: &Value) -> String {
    let c = &object["status"]["conditions"][0];
    format!(
        "{} {} {}",
        c["status"].as_str().unwrap_or(""),
        c["reason"].as_str().unwrap_or(""),
        c["message"].as_str().unwrap_or("")
    )
}

#[tokio::test]
async fn a_group_of_an_extension_server_is_served_as_if_it_were_our_own() {
    let w = World::new().await;
    let admin = w.admin();
    let port = extension(&w, "sample-api.default.svc").await;
    let one = format!("{APIS}/{NAME}");
    assert_eq!(
        admin
            .post(APIS, &api_service(port, Some(w.credentials.ca.root_pem())))
            .await
            .0,
        201
    );
    let shown = async |what: &str| {
        let what = what.to_owned();
        eventually(&what, async || {
            condition(&w.admin().get(&one).await.1).starts_with(&what)
        })
        .await;
    };
    shown("False ServiceNotFound service/sample-api in \"default\" is not present").await;
    let (code, text) = admin
        .get("/apis/wardle.example.com/v1alpha1/flunders")
        .await;
    assert_eq!((code, text), (503, json!("service unavailable\n")));
    sample_service(&w).await;
    shown("True Passed all checks passed").await;

    let groups = admin.get("/apis").await.1;
    let group = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["name"] == "wardle.example.com")
        .cloned();
    assert_eq!(group.unwrap()["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(
        admin.get("/apis/wardle.example.com").await.1["kind"],
        "APIGroup"
    );
    let list = admin.get("/apis/wardle.example.com/v1alpha1").await.1;
    assert_eq!(list["resources"][0]["name"], "flunders");
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let all = admin.open("GET", "/apis", &accept, Vec::new()).await;
    let all: Value =
        serde_json::from_slice(&all.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let group = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["metadata"]["name"] == "wardle.example.com")
        .cloned()
        .unwrap();
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(
        (&resource["resource"], &resource["scope"]),
        (&json!("flunders"), &json!("Namespaced"))
    );
    assert_eq!(resource["subresources"][0]["subresource"], "status");

    let path = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
    let forged = [
        ("x-remote-user", "somebody-else"),
        ("content-type", "application/json"),
    ];
    let seen = admin
        .open(
            "POST",
            &format!("{path}?dryRun=All"),
            &forged,
            b"{\"a\":1}".to_vec(),
        )
        .await;
    let seen: Value =
        serde_json::from_slice(&seen.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(seen["seen"]["user"], json!(["admin"]));
    assert_eq!(
        seen["seen"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );
    assert_eq!(seen["seen"]["uri"], format!("{path}?dryRun=All"));
    assert_eq!(seen["seen"]["method"], "POST");
    assert_eq!(seen["body"], "{\"a\":1}");

    // Who may not do it is told so here, and the other side never asked.
    let (code, status) = w.user("bob").get(path).await;
    assert_eq!(code, 403, "{status}");
    assert_eq!(
        status["message"],
        "flunders.wardle.example.com is forbidden: User \"bob\" cannot list resource \"flunders\" in API group \"wardle.example.com\" in the namespace \"default\""
    );

    assert_eq!(admin.delete(&one).await.0, 200);
    eventually("the group is gone", async || {
        w.admin().get("/apis/wardle.example.com").await.0 == 404
    })
    .await;
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_is_not_asked_unless_that_is_wished() {
    let w = World::new().await;
    let admin = w.admin();
    let port = extension(&w, "another.default.svc").await;
    sample_service(&w).await;
    assert_eq!(
        admin
            .post(APIS, &api_service(port, Some(w.credentials.ca.root_pem())))
            .await
            .0,
        201
    );
    let one = format!("{APIS}/{NAME}");
    eventually("the check fails", async || {
        condition(&w.admin().get(&one).await.1)
            .starts_with("False FailedDiscoveryCheck failing or missing response")
    })
    .await;
    let trusting = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    assert_eq!(admin.merge(&one, &trusting).await.0, 200);
    eventually("the check passes", async || {
        condition(&w.admin().get(&one).await.1).starts_with("True Passed")
    })
    .await;
}

#[tokio::test]
async fn watches_of_an_extension_server_keep_seats_for_writes() {
    let w = World::new().await;
    let admin = w.admin();
    let port = extension(&w, "sample-api.default.svc").await;
    sample_service(&w).await;
    let service = api_service(port, Some(w.credentials.ca.root_pem()));
    assert_eq!(admin.post(APIS, &service).await.0, 201);
    let one = format!("{APIS}/{NAME}");
    eventually("the server is available", async || {
        condition(&w.admin().get(&one).await.1).starts_with("True")
    })
    .await;
    let flunders = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
    // What a write that is being answered takes: seats after the answer, and for how long.
    let seats = async || {
        let writer = w.admin();
        let write = tokio::spawn(async move { writer.post(flunders, &json!({})).await });
        let seen = std::cell::RefCell::new(String::new());
        eventually("the write is passed on", async || {
            let path = "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1";
            let dump = w.admin().get(path).await.1;
            let mut rows = dump.as_str().unwrap().lines().filter_map(|line| {
                let row: Vec<&str> = line.split(',').map(str::trim).collect();
                (row[11] == "create" && row[12] == flunders).then(|| row[7..9].join(" "))
            });
            *seen.borrow_mut() = rows.next().unwrap_or_default();
            !seen.borrow().is_empty()
        })
        .await;
        write.abort();
        seen.into_inner()
    };
    let path = format!("{flunders}?watch=true");
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(admin.open("GET", &path, &[], Vec::new()).await);
    }
    assert_eq!(seats().await, "1 5ms");
    drop(watches);
    eventually("watches that have ended count no more", async || {
        seats().await == "0 0s"
    })
    .await;
}

#[tokio::test]
async fn groups_of_this_server_are_local_and_available() {
    let w = World::new().await;
    let admin = w.admin();
    eventually("they are published", async || {
        w.admin().get(&format!("{APIS}/v1.apps")).await.0 == 200
    })
    .await;
    let apps = admin.get(&format!("{APIS}/v1.apps")).await.1;
    assert_eq!(
        condition(&apps),
        "True Local Local APIServices are always available"
    );
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    let made = json!({"metadata": {"name": "v1.nowhere.example.com"}, "spec": {"group": "nowhere.example.com",
        "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10}});
    let (code, made) = admin.post(APIS, &made).await;
    assert_eq!(
        (code, condition(&made)),
        (
            201,
            "True Local Local APIServices are always available".into()
        )
    );
}
