//! Requests, errors and credentials against an in-process server.

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::{Server, events, stream};
use theater_kube_client::{
    Auth, Client, Config, DEPLOYMENTS, DeleteOptions, Event, ListParams, PODS, PatchType,
    WatchParams,
};

fn plain(server: &Server, auth: Auth) -> Client {
    Client::new(Config::new(&server.url, "", auth)).unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> http::Response<support::Body> {
    support::json(
        code,
        &json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}

#[tokio::test]
async fn client_certificate_and_http2_over_tls() {
    let now = SystemTime::now() - Duration::from_secs(60);
    let ca = pki::Authority::new_root("test", "", now, 1).unwrap();
    let validity = pki::Validity::starting(now, Duration::from_secs(3600));
    let localhost = "127.0.0.1".parse().unwrap();
    let issued = ca
        .issue(&pki::CertRequest::server(
            "api",
            &[],
            &[localhost],
            validity,
        ))
        .unwrap();
    let identity = pki::tls::Identity::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
    let auth = pki::tls::ClientAuth::Required {
        roots_pem: ca.root_pem().to_owned(),
    };
    let tls = pki::tls::server_config(
        runtime::tls::provider(),
        identity,
        &auth,
        &[pki::tls::HTTP2, pki::tls::HTTP1],
    )
    .unwrap();
    let server = Server::start(
        Some(tls),
        Arc::new(|_| support::json(200, &json!({"metadata": {"name": "p"}}))),
    )
    .await;
    let user = ca
        .issue(&pki::CertRequest::client(
            "me",
            &["system:masters"],
            validity,
        ))
        .unwrap();
    let auth = Auth::ClientCert {
        cert_pem: user.chain_pem,
        key_pem: user.key_pem,
    };
    let client = Client::new(Config::new(&server.url, ca.root_pem(), auth)).unwrap();
    client.get(&PODS, Some("a"), "p").await.unwrap();
    assert_eq!(
        server.seen.lock().unwrap()[0].version,
        http::Version::HTTP_2
    );

    let nobody = Client::new(Config::new(&server.url, ca.root_pem(), Auth::None)).unwrap();
    let error = nobody.get(&PODS, Some("a"), "p").await.unwrap_err();
    assert!(
        error.to_string().contains("cannot reach https://127.0.0.1"),
        "{error}"
    );

    let other_ca = pki::Authority::new_root("other", "", now, 1).unwrap();
    let stranger = Client::new(Config::new(&server.url, other_ca.root_pem(), Auth::None)).unwrap();
    let error = stranger.get(&PODS, Some("a"), "p").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn verbs_paths_and_bodies() {
    let server = Server::start(
        None,
        Arc::new(|_| support::json(200, &json!({"items": []}))),
    )
    .await;
    let client = plain(&server, Auth::Token("secret".into()));
    let deployment = json!({"metadata": {"name": "d"}});
    client
        .create(&DEPLOYMENTS, Some("a"), &deployment)
        .await
        .unwrap();
    client
        .update(&DEPLOYMENTS, Some("a"), &deployment)
        .await
        .unwrap();
    client
        .update_status(&DEPLOYMENTS, Some("a"), &deployment)
        .await
        .unwrap();
    client
        .delete(&DEPLOYMENTS, Some("a"), "d", &DeleteOptions::uid("u"))
        .await
        .unwrap();
    client
        .list(&PODS, None, &ListParams::labels("app=x"))
        .await
        .unwrap();
    client
        .create_sub(&PODS, Some("a"), "p", "binding", &json!({"target": {}}))
        .await
        .unwrap();
    let apply = PatchType::Apply {
        manager: "me".into(),
        force: true,
    };
    client
        .patch(&DEPLOYMENTS, Some("a"), "d", &apply, &deployment, None)
        .await
        .unwrap();
    client
        .patch(
            &DEPLOYMENTS,
            Some("a"),
            "d",
            &PatchType::Merge,
            &json!({"spec": {}}),
            Some("scale"),
        )
        .await
        .unwrap();
    let base = "/apis/apps/v1/namespaces/a/deployments";
    assert_eq!(
        server.targets(),
        [
            format!("POST {base}"),
            format!("PUT {base}/d"),
            format!("PUT {base}/d/status"),
            format!("DELETE {base}/d"),
            "GET /api/v1/pods?labelSelector=app%3Dx".to_owned(),
            "POST /api/v1/namespaces/a/pods/p/binding".to_owned(),
            format!("PATCH {base}/d?fieldManager=me&force=true"),
            format!("PATCH {base}/d/scale"),
        ]
    );
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen[3].body, json!({"preconditions": {"uid": "u"}}));
    assert_eq!(
        seen[6].content_type.as_deref(),
        Some("application/apply-patch+yaml")
    );
    assert_eq!(
        seen[7].content_type.as_deref(),
        Some("application/merge-patch+json")
    );
    assert!(
        seen.iter()
            .all(|seen| seen.authorization.as_deref() == Some("Bearer secret"))
    );
}

#[tokio::test]
async fn an_empty_name_never_becomes_the_collection() {
    let server = Server::start(None, Arc::new(|_| support::json(200, &json!({})))).await;
    let client = plain(&server, Auth::None);
    let error = client
        .delete(&PODS, Some("a"), "", &DeleteOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("name"), "{error}");
    assert!(server.targets().is_empty());
}

#[tokio::test]
async fn failures_are_typed() {
    let server = Server::scripted(vec![
        status(404, "NotFound", "pods \"p\" not found"),
        status(409, "Conflict", "changed"),
        status(409, "AlreadyExists", "exists"),
        status(410, "Expired", "too old"),
        status(422, "Invalid", "spec: bad"),
        support::json(502, &json!("proxy says no")),
    ])
    .await;
    let client = plain(&server, Auth::None);
    let mut errors = Vec::new();
    for _ in 0..6 {
        errors.push(client.get(&PODS, Some("a"), "p").await.unwrap_err());
    }
    assert!(errors[0].is_not_found());
    assert_eq!(errors[0].to_string(), "pods \"p\" not found");
    assert!(errors[1].is_conflict() && !errors[1].is_already_exists());
    assert!(errors[2].is_already_exists() && !errors[2].is_conflict());
    assert!(errors[3].is_gone());
    assert!(errors[4].is_invalid());
    assert_eq!((errors[5].code(), errors[5].reason()), (Some(502), ""));
    assert!(errors[5].to_string().contains("proxy says no"));
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    // A port that is nobody else's, and on which nobody listens.
    let kept = tokio::net::TcpSocket::new_v4().unwrap();
    kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", kept.local_addr().unwrap());
    let client = Client::new(Config::new(&url, "", Auth::None)).unwrap();
    let error = client
        .get(&PODS, Some("a"), "p")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&url) && error.to_lowercase().contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_token_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let server = Server::start(
        None,
        Arc::new(|seen| match seen.authorization.as_deref() {
            Some("Bearer new") => support::json(200, &json!({})),
            _ => status(401, "Unauthorized", "Unauthorized"),
        }),
    )
    .await;
    let client = plain(&server, Auth::TokenFile(path.clone()));
    assert!(
        client
            .get(&PODS, Some("a"), "p")
            .await
            .unwrap_err()
            .is_unauthorized()
    );
    // The failed attempt left the old token in memory; the next one finds the new file.
    std::fs::write(&path, "new").unwrap();
    client.get(&PODS, Some("a"), "p").await.unwrap();
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let mut busy = status(429, "TooManyRequests", "later");
    busy.headers_mut()
        .insert("retry-after", "0".parse().unwrap());
    let server = Server::scripted(vec![busy, support::json(200, &json!({}))]).await;
    plain(&server, Auth::None)
        .get(&PODS, Some("a"), "p")
        .await
        .unwrap();
    assert_eq!(server.targets().len(), 2);
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let (_keep, silent) = stream();
    let server = Server::scripted(vec![silent]).await;
    let mut config = Config::new(&server.url, "", Auth::None);
    config.timeout = Duration::from_millis(50);
    let error = Client::new(config)
        .unwrap()
        .get(&PODS, Some("a"), "p")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[tokio::test]
async fn a_watch_yields_events_and_ends_with_the_servers_error() {
    use futures::StreamExt as _;
    let object = json!({"metadata": {"name": "p", "resourceVersion": "5"}});
    let server = Server::scripted(vec![events(&[
        json!({"type": "ADDED", "object": object}),
        json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}),
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}}),
    ])])
    .await;
    let params = WatchParams {
        resource_version: Some("4".into()),
        bookmarks: true,
        ..WatchParams::default()
    };
    let found: Vec<_> = plain(&server, Auth::None)
        .watch(&PODS, Some("a"), params)
        .collect()
        .await;
    assert_eq!(found.len(), 3);
    assert_eq!(*found[0].as_ref().unwrap(), Event::Added(object));
    assert!(matches!(found[1], Ok(Event::Bookmark(_))));
    assert!(found[2].as_ref().unwrap_err().is_gone());
    assert_eq!(
        server.targets(),
        ["GET /api/v1/namespaces/a/pods?watch=true&resourceVersion=4&allowWatchBookmarks=true"]
    );
}
