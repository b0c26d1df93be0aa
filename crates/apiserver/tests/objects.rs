//! The HTTP behaviour of objects: conflicts, watches, pages, durability, refusals.
#![allow(missing_docs)]

mod support;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::World;

const CMS: &str = "/api/v1/namespaces/default/configmaps";

fn cm(name: &str, n: u64) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"n": n.to_string()}})
}

#[tokio::test]
async fn a_stale_update_conflicts_and_a_patch_does_not() {
    let w = World::new().await;
    let c = w.admin();
    let (code, first) = c.post(CMS, &cm("a", 1)).await;
    assert_eq!(code, 201, "{first}");
    let (code, again) = c.post(CMS, &cm("a", 1)).await;
    assert_eq!(
        (code, again["message"].as_str()),
        (409, Some(r#"configmaps "a" already exists"#))
    );
    let path = format!("{CMS}/a");
    let mut second = first.clone();
    second["data"]["n"] = "2".into();
    assert_eq!(c.put(&path, &second).await.0, 200);
    let (code, refused) = c.put(&path, &second).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        refused["message"],
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    // Patches without a version never conflict, however many come together.
    let patches = (0..20).map(|i| {
        let (c, path) = (c.clone(), path.clone());
        async move {
            c.merge(&path, &json!({"data": {format!("k{i}"): "v"}}))
                .await
                .0
        }
    });
    let codes = futures::future::join_all(patches).await;
    assert!(codes.iter().all(|c| *c == 200), "{codes:?}");
    assert_eq!(c.get(&path).await.1["data"].as_object().unwrap().len(), 21);
    let unchanged = c.merge(&path, &json!({"data": {"k0": "v"}})).await.1;
    assert_eq!(
        unchanged["metadata"]["resourceVersion"],
        c.get(&path).await.1["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_watch_tells_every_change_once_in_order() {
    let w = World::new().await;
    let c = w.admin();
    let (_, list) = c.get(CMS).await;
    let from = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut live = c
        .watch(&format!("{CMS}?watch=true&resourceVersion={from}"))
        .await;
    let mut labelled = c
        .watch(&format!(
            "{CMS}?watch=true&labelSelector=x%3Dy&resourceVersion={from}"
        ))
        .await;
    for i in 0..50 {
        c.post(CMS, &cm(&format!("c{i:02}"), i)).await;
    }
    c.merge(
        &format!("{CMS}/c00"),
        &json!({"metadata": {"labels": {"x": "y"}}}),
    )
    .await;
    c.merge(
        &format!("{CMS}/c00"),
        &json!({"metadata": {"labels": null}}),
    )
    .await;
    c.delete(&format!("{CMS}/c01")).await;
    let mut seen = Vec::new();
    for _ in 0..53 {
        seen.push(live.named().await);
    }
    let mut want: Vec<(String, String)> = (0..50)
        .map(|i| ("ADDED".to_owned(), format!("c{i:02}")))
        .collect();
    want.extend([
        ("MODIFIED".into(), "c00".into()),
        ("MODIFIED".into(), "c00".into()),
        ("DELETED".into(), "c01".into()),
    ]);
    assert_eq!(seen, want);
    assert_eq!(labelled.named().await, ("ADDED".into(), "c00".into()));
    assert_eq!(labelled.named().await, ("DELETED".into(), "c00".into()));
    // A later watch from the same revision tells the same story.
    let mut replay = c
        .watch(&format!("{CMS}?watch=true&resourceVersion={from}"))
        .await;
    for expected in want {
        assert_eq!(replay.named().await, expected);
    }
    let mut listed = c.watch(&format!("{CMS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")).await;
    for _ in 0..49 {
        assert_eq!(listed.named().await.0, "ADDED");
    }
    let mark = listed.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn items_of_built_in_lists_do_not_repeat_their_kind() {
    let w = World::new().await;
    let c = w.admin();
    assert_eq!(c.post(CMS, &cm("a", 1)).await.0, 201);
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "as.a.io"}, "spec": {"group": "a.io", "scope": "Cluster", "names": {"plural": "as", "kind": "A"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    assert_eq!(c.post(crds, &definition).await.0, 201);
    let custom = json!({"kind": "A", "apiVersion": "a.io/v1", "metadata": {"name": "a"}});
    assert_eq!(c.post("/apis/a.io/v1/as", &custom).await.0, 201);
    let keys = |object: &Value| -> Vec<String> {
        object
            .as_object()
            .unwrap()
            .keys()
            .take(3)
            .cloned()
            .collect()
    };
    let typed = ["kind", "apiVersion", "metadata"];
    let of = async |path: &str, accept: &str| -> Value {
        let answer = c.open("GET", path, &[("accept", accept)], Vec::new()).await;
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    };
    let json = "application/json";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = of(CMS, json).await;
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(keys(&list["items"][0]), ["metadata", "data"]);
    let custom = of("/apis/a.io/v1/as", json).await;
    assert_eq!(keys(&custom["items"][0]), typed);
    let partial = of(CMS, metadata).await;
    assert_eq!(keys(&partial["items"][0]), typed);
    let rows = of(&format!("{CMS}?includeObject=Object"), table).await;
    assert_eq!(rows["rows"][0]["object"]["kind"], "ConfigMap");
    assert_eq!(keys(&of(&format!("{CMS}/a"), json).await), typed);
    let mut watch = c.watch(&format!("{CMS}?watch=true")).await;
    assert_eq!(keys(&watch.next().await.unwrap()["object"]), typed);
    let (code, gone) = c.delete(CMS).await;
    assert_eq!(
        (code, keys(&gone["items"][0])),
        (200, vec!["metadata".into(), "data".into()])
    );
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let w = World::new().await;
    let c = w.admin();
    for i in 0..10 {
        c.post(CMS, &cm(&format!("p{i}"), i)).await;
    }
    let (_, first) = c.get(&format!("{CMS}?limit=4")).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 4);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    c.delete(&format!("{CMS}/p7")).await;
    c.post(CMS, &cm("p8a", 1)).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = c.get(&format!("{CMS}?continue={token}")).await;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["p4", "p5", "p6", "p7", "p8", "p9"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn objects_survive_a_restart_and_old_watches_expire() {
    let mut w = World::new().await;
    let c = w.admin();
    let (_, made) = c.post(CMS, &cm("kept", 1)).await;
    let old = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    c.post(CMS, &cm("later", 1)).await;
    w.restart().await;
    let c = w.admin();
    assert_eq!(c.get(&format!("{CMS}/kept")).await.1, made);
    let mut watch = c
        .watch(&format!("{CMS}?watch=true&resourceVersion={old}"))
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(event["object"]["reason"], "Expired");
}

#[tokio::test]
async fn strangers_and_the_unentitled_are_refused() {
    let w = World::new().await;
    let nobody = support::Client::new(w.address, w.credentials.ca.root_pem(), None);
    let (code, status) = nobody.get("/api/v1/pods").await;
    assert_eq!((code, &status["reason"]), (401, &json!("Unauthorized")));
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(path).await.0, 200, "{path}");
    }
    let bob = w.user("bob");
    let (code, status) = bob.get("/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        r#"pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let admin = w.admin();
    let rb = json!({"metadata": {"name": "bob"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]});
    let (code, made) = admin
        .post(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            &rb,
        )
        .await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(bob.get("/api/v1/namespaces/default/pods").await.0, 200);
    assert_eq!(bob.get("/api/v1/namespaces/default/secrets").await.0, 403);
    assert_eq!(bob.get("/api/v1/pods").await.0, 403);
    assert_eq!(bob.post(CMS, &cm("x", 1)).await.0, 403);
}

#[tokio::test]
async fn rights_follow_roles_and_bindings_at_once() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let mut w = World::new().await;
    let (admin, bob) = (w.admin(), w.user("bob"));
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let role = |resource: &str| {
        json!({"metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["list"]}]})
    };
    let binding = json!({"metadata": {"name": "bob"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}]});
    let may = async |bob: &support::Client| {
        let (pods, maps) = ("/api/v1/namespaces/default/pods", CMS);
        (bob.get(pods).await.0 == 200, bob.get(maps).await.0 == 200)
    };
    // The binding may come before its role.
    assert_eq!(admin.post(&bindings, &binding).await.0, 201);
    assert_eq!(may(&bob).await, (false, false));
    assert_eq!(admin.post(&roles, &role("pods")).await.0, 201);
    assert_eq!(may(&bob).await, (true, false));
    let path = format!("{roles}/reader");
    assert_eq!(admin.merge(&path, &role("configmaps")).await.0, 200);
    assert_eq!(may(&bob).await, (false, true));
    // Another namespace's role of the same name is another role.
    assert_eq!(
        bob.get("/api/v1/namespaces/kube-system/configmaps").await.0,
        403
    );
    w.restart().await;
    let (admin, bob) = (w.admin(), w.user("bob"));
    assert_eq!(may(&bob).await, (false, true));
    assert_eq!(admin.delete(&format!("{bindings}/bob")).await.0, 200);
    assert_eq!(may(&bob).await, (false, false));
}

#[tokio::test]
async fn service_account_tokens_work_until_the_account_goes() {
    let w = World::new().await;
    let admin = w.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(
        admin
            .post(accounts, &json!({"metadata": {"name": "app"}}))
            .await
            .0,
        201
    );
    let (code, issued) = admin
        .post(
            &format!("{accounts}/app/token"),
            &json!({"spec": {"expirationSeconds": 600}}),
        )
        .await;
    assert_eq!(code, 201, "{issued}");
    let mut app = support::Client::new(w.address, w.credentials.ca.root_pem(), None);
    app.token = Some(issued["status"]["token"].as_str().unwrap().to_owned());
    let (code, me) = app
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &json!({}),
        )
        .await;
    assert_eq!(code, 201, "{me}");
    assert_eq!(
        me["status"]["userInfo"]["username"],
        "system:serviceaccount:default:app"
    );
    let review = json!({"spec": {"token": app.token}});
    let (_, reviewed) = admin
        .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await;
    assert_eq!(reviewed["status"]["authenticated"], true);
    assert_eq!(admin.delete(&format!("{accounts}/app")).await.0, 200);
    assert_eq!(app.get("/api").await.0, 401);
    let (_, short) = admin
        .post(
            &format!("{accounts}/default/token"),
            &json!({"spec": {"expirationSeconds": 5}}),
        )
        .await;
    assert!(short["code"] == 404 || short["code"] == 422, "{short}");
}

#[tokio::test]
async fn bad_input_is_refused_with_the_right_status() {
    let w = World::new().await;
    let c = w.admin();
    let send = |body: Vec<u8>, kind: &'static str| {
        let c = c.clone();
        async move { c.send("POST", CMS, kind, &body).await }
    };
    let (code, s) = send(b"{".to_vec(), "application/json").await;
    assert_eq!((code, &s["reason"]), (400, &json!("BadRequest")), "{s}");
    let (code, s) = send(b"<x/>".to_vec(), "text/xml").await;
    assert_eq!(
        (code, &s["reason"]),
        (415, &json!("UnsupportedMediaType")),
        "{s}"
    );
    let (code, s) = send(vec![b' '; 4 << 20], "application/json").await;
    assert_eq!(
        (code, &s["reason"]),
        (413, &json!("RequestEntityTooLarge")),
        "{s}"
    );
    let yaml = b"metadata:\n  name: from-yaml\ndata:\n  a: b\n".to_vec();
    assert_eq!(send(yaml, "application/yaml").await.0, 201);
    for path in [
        "/api/v1/nonsense",
        "/apis/no.such.group/v1/things",
        "/apis/apps/v9/deployments",
        "/nowhere",
    ] {
        // As the real one, which has no Status for them: clients then say what they asked for.
        let answer = c.open("GET", path, &[], Vec::new()).await;
        assert_eq!(
            (
                answer.status().as_u16(),
                &answer.headers()["content-type"].to_str().unwrap()[..10]
            ),
            (404, "text/plain"),
            "{path}"
        );
    }
    let (code, s) = c.get(&format!("{CMS}/..%2f..%2fsecrets")).await;
    assert_eq!((code, &s["reason"]), (404, &json!("NotFound")));
    let (code, s) = c
        .post("/api/v1/namespaces/void/configmaps", &cm("a", 1))
        .await;
    assert_eq!(
        (code, s["message"].as_str()),
        (404, Some(r#"namespaces "void" not found"#))
    );
    let mut other = cm("a", 1);
    other["metadata"]["namespace"] = "elsewhere".into();
    assert_eq!(c.post(CMS, &other).await.0, 400);
    let (code, made) = c.post(&format!("{CMS}?dryRun=All"), &cm("dry", 1)).await;
    assert_eq!(
        (code, c.get(&format!("{CMS}/dry")).await.0),
        (201, 404),
        "{made}"
    );
    let generated = c
        .post(CMS, &json!({"metadata": {"generateName": "g-"}}))
        .await
        .1;
    assert!(
        generated["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("g-"),
        "{generated}"
    );
}

#[tokio::test]
async fn definitions_bring_kinds_and_take_their_objects_along() {
    let w = World::new().await;
    let c = w.admin();
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({
        "metadata": {"name": "widgets.example.io"},
        "spec": {"group": "example.io", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}}},
                {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ]},
    });
    let (code, made) = c.post(crds, &definition).await;
    assert_eq!(code, 201, "{made}");
    let widgets = "/apis/example.io/v1/namespaces/default/widgets";
    let widget = json!({"kind": "Widget", "apiVersion": "example.io/v1", "metadata": {"name": "a"}, "spec": {"size": 1}, "status": {"ready": true}});
    let (code, made) = c.post(widgets, &widget).await;
    assert_eq!(code, 201, "{made}");
    assert!(
        made.get("status").is_none(),
        "status is set through its subresource only"
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let (_, s) = c
        .merge(
            &format!("{widgets}/a/status"),
            &json!({"status": {"ready": true}}),
        )
        .await;
    assert_eq!(
        (&s["status"]["ready"], &s["metadata"]["generation"]),
        (&json!(true), &json!(1))
    );
    let (_, changed) = c
        .merge(&format!("{widgets}/a"), &json!({"spec": {"size": 2}}))
        .await;
    assert_eq!(
        (
            &changed["metadata"]["generation"],
            &changed["status"]["ready"]
        ),
        (&json!(2), &json!(true))
    );
    let (_, beta) = c
        .get("/apis/example.io/v1beta1/namespaces/default/widgets/a")
        .await;
    assert_eq!(
        (&beta["apiVersion"], &beta["spec"]["size"]),
        (&json!("example.io/v1beta1"), &json!(2))
    );
    let (_, found) = c.get("/apis/example.io/v1").await;
    assert_eq!(found["resources"][0]["name"], "widgets");
    assert_eq!(c.delete(&format!("{crds}/widgets.example.io")).await.0, 200);
    support::eventually("the kind is gone", || async {
        c.get(widgets).await.0 == 404
    })
    .await;
    assert_eq!(c.post(crds, &definition).await.0, 201);
    assert_eq!(
        c.get(widgets).await.1["items"],
        json!([]),
        "the objects went with it"
    );
}
