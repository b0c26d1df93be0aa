//! Controllers and scheduler against the real API server, driven by the real kubectl.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_client::{
    Auth, CONFIG_MAPS, Client, Config, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, JOBS,
    NAMESPACES, PERSISTENT_VOLUME_CLAIMS, PODS, REPLICA_SETS, Resource, SECRETS, SERVICE_ACCOUNTS,
};
use serde_json::{Value, json};
use support::{Cluster, deployment};

fn names(objects: &[Value]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_scale_and_undo() {
    let cluster = Cluster::start().await;
    cluster.apply(&deployment("web", 2, "v1")).await;
    let text = cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    assert!(text.contains("successfully rolled out"), "{text}");
    let web = cluster.get(&DEPLOYMENTS, "default", "web").await;
    assert_eq!(web["metadata"]["generation"], 1);
    assert_eq!(
        web["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "1"
    );
    assert_eq!(
        condition(&web, "Progressing")["reason"],
        "NewReplicaSetAvailable"
    );
    assert_eq!(
        condition(&web, "Available")["reason"],
        "MinimumReplicasAvailable"
    );

    cluster.kubectl("set image deployment/web c=v2").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let history = cluster.kubectl("rollout history deployment/web").await;
    assert!(
        history.contains("\n1 ") && history.contains("\n2 "),
        "{history}"
    );

    cluster.kubectl("rollout undo deployment/web").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let web = cluster.get(&DEPLOYMENTS, "default", "web").await;
    assert_eq!(
        web["spec"]["template"]["spec"]["containers"][0]["image"],
        "v1"
    );
    assert_eq!(
        web["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
    assert_eq!(cluster.list(&REPLICA_SETS, "default").await.len(), 2);

    cluster.kubectl("scale deployment/web --replicas=4").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let web = cluster.get(&DEPLOYMENTS, "default", "web").await;
    assert_eq!(web["status"]["availableReplicas"], 4);
    cluster.kubectl("scale deployment/web --replicas=0").await;
    cluster
        .until(&PODS, "default", "the end of all pods", <[_]>::is_empty)
        .await;
    // Events are written after what they tell of.
    cluster
        .until(&EVENTS, "default", "the last event", |events| {
            events.iter().any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["involvedObject"]["name"] == "web" && message.ends_with(" from 4 to 0")
            })
        })
        .await;
    let events = cluster.kubectl("events --for deployment/web").await;
    assert!(
        events.contains("from 0 to 2") && events.contains("Scaled down"),
        "{events}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_keeps_the_old_pods_serving() {
    let cluster = Cluster::start().await;
    cluster.apply(&deployment("web", 3, "v1")).await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    cluster.kubectl("set image deployment/web c=broken").await;
    cluster
        .until(&DEPLOYMENTS, "default", "a fourth pod", |found| {
            found[0]["status"]["replicas"] == 4
        })
        .await;
    let web = cluster.get(&DEPLOYMENTS, "default", "web").await;
    assert_eq!(web["status"]["availableReplicas"], 3);
    cluster.kubectl("rollout undo deployment/web").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_the_pods() {
    let cluster = Cluster::start().await;
    cluster.apply(&deployment("web", 2, "v1")).await;
    cluster
        .apply("{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}}")
        .await;
    let ready = |count: usize| {
        move |slices: &[Value]| {
            slices
                .iter()
                .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
                .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
                .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                .count()
                == count
        }
    };
    let slices = cluster
        .until(&ENDPOINT_SLICES, "default", "two endpoints", ready(2))
        .await;
    let slice = slices
        .iter()
        .find(|slice| slice["metadata"]["generateName"] == "web-")
        .unwrap();
    assert_eq!(slice["ports"][0]["port"], 8080);
    cluster
        .until(&ENDPOINTS, "default", "two addresses", |found| {
            found.iter().any(|endpoints| {
                endpoints["metadata"]["name"] == "web"
                    && endpoints["subsets"][0]["addresses"]
                        .as_array()
                        .is_some_and(|list| list.len() == 2)
            })
        })
        .await;
    cluster.kubectl("scale deployment/web --replicas=0").await;
    cluster
        .until(&ENDPOINT_SLICES, "default", "no endpoint", ready(0))
        .await;
    cluster.kubectl("delete service web").await;
    let of_web = |found: &[Value]| !names(found).iter().any(|name| name.starts_with("web"));
    cluster
        .until(&ENDPOINT_SLICES, "default", "the end of the slices", of_web)
        .await;
    cluster
        .until(&ENDPOINTS, "default", "the end of the endpoints", of_web)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_deployment_takes_its_pods_along() {
    let cluster = Cluster::start().await;
    for cascade in ["background", "foreground"] {
        cluster.apply(&deployment("web", 2, "v1")).await;
        cluster
            .kubectl("rollout status deployment/web --timeout=170s")
            .await;
        cluster
            .kubectl(&format!(
                "delete deployment web --cascade={cascade} --timeout=170s"
            ))
            .await;
        if cascade == "foreground" {
            // Its dependents went first.
            assert!(cluster.list(&REPLICA_SETS, "default").await.is_empty());
        }
        cluster
            .until(
                &REPLICA_SETS,
                "default",
                "the end of the set",
                <[_]>::is_empty,
            )
            .await;
        cluster
            .until(&PODS, "default", "the end of the pods", <[_]>::is_empty)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = Cluster::start().await;
    cluster.apply(&deployment("web", 2, "v1")).await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let before = cluster.list(&PODS, "default").await;
    cluster
        .kubectl("delete deployment web --cascade=orphan --timeout=170s")
        .await;
    cluster
        .until(&REPLICA_SETS, "default", "an orphan", |sets| {
            sets[0]["metadata"]["ownerReferences"]
                .as_array()
                .is_none_or(Vec::is_empty)
        })
        .await;
    cluster.apply(&deployment("web", 2, "v1")).await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let web = cluster.get(&DEPLOYMENTS, "default", "web").await;
    let sets = cluster.list(&REPLICA_SETS, "default").await;
    assert_eq!(sets.len(), 1);
    assert_eq!(
        sets[0]["metadata"]["ownerReferences"][0]["uid"],
        web["metadata"]["uid"]
    );
    assert_eq!(names(&cluster.list(&PODS, "default").await), names(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.apply(&deployment("web", 1, "v1")).await;
    cluster
        .kubectl("rollout status deployment/web --timeout=170s")
        .await;
    let old = names(&cluster.list(&PODS, "default").await)[0].to_owned();
    cluster.kubectl(&format!("delete pod {old}")).await;
    cluster
        .until(&PODS, "default", "a new pod", |pods| {
            pods.len() == 1 && names(pods)[0] != old && pods[0]["status"]["phase"] == "Running"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_furnished_and_goes_with_everything_in_it() {
    let cluster = Cluster::start().await;
    cluster.kubectl("create namespace shop").await;
    cluster
        .until(&SERVICE_ACCOUNTS, "shop", "the default account", |found| {
            names(found) == ["default"]
        })
        .await;
    let maps = cluster
        .until(&CONFIG_MAPS, "shop", "the authority", |found| {
            !found.is_empty()
        })
        .await;
    assert!(
        maps[0]["data"]["ca.crt"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    cluster
        .apply(&deployment("web", 2, "v1").replace("namespace: default", "namespace: shop"))
        .await;
    cluster
        .kubectl("rollout status deployment/web -n shop --timeout=170s")
        .await;
    cluster.kubectl("create configmap own -n shop").await;
    cluster
        .kubectl("delete namespace shop --timeout=170s")
        .await;
    let error = cluster
        .client
        .get(&NAMESPACES, None, "shop")
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert!(cluster.list(&PODS, "shop").await.is_empty());
    assert!(cluster.list(&CONFIG_MAPS, "shop").await.is_empty());
    assert!(cluster.list(&EVENTS, "shop").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_in_a_secret_is_its_accounts_and_dies_with_it() {
    let secret = |name: &str, account: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: {name}\n  annotations:\n    kubernetes.io/service-account.name: {account}"
        )
    };
    let text = |object: &Value, key: &str| {
        let bytes = STANDARD.decode(object["data"][key].as_str().unwrap());
        String::from_utf8(bytes.unwrap()).unwrap()
    };
    let cluster = Cluster::start().await;
    cluster.kubectl("create serviceaccount reader").await;
    cluster.apply(&secret("reader-token", "reader")).await;
    let found = cluster
        .until(&SECRETS, "default", "a token", |found| {
            found.iter().any(|s| s["data"]["token"].is_string())
        })
        .await;
    let account = cluster.get(&SERVICE_ACCOUNTS, "default", "reader").await;
    assert_eq!(
        found[0]["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    assert_eq!(text(&found[0], "namespace"), "default");

    let client = |token: String| {
        let ca = text(&found[0], "ca.crt");
        let server = cluster.client.server();
        Client::new(Config::new(server, ca, Auth::Token(token))).unwrap()
    };
    let bearer = client(text(&found[0], "token"));
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let whoami = Resource::fixed(
        "authentication.k8s.io",
        "v1",
        "selfsubjectreviews",
        "SelfSubjectReview",
    );
    let me = bearer.create(&whoami, None, &review).await.unwrap();
    assert_eq!(
        me["status"]["userInfo"]["username"],
        "system:serviceaccount:default:reader"
    );
    cluster
        .until(&SECRETS, "default", "a note of its use", |found| {
            found[0]["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string()
        })
        .await;

    // A Secret of nobody is of no use; one whose account goes, goes.
    cluster.apply(&secret("of-nobody", "nobody")).await;
    cluster.kubectl("delete serviceaccount reader").await;
    cluster
        .until(
            &SECRETS,
            "default",
            "the end of the Secrets",
            <[_]>::is_empty,
        )
        .await;
    let error = bearer.create(&whoami, None, &review).await.unwrap_err();
    assert!(
        matches!(&error, kube_client::Error::Status { code: 401, .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_waits_and_says_why() {
    let cluster = Cluster::start().await;
    cluster
        .until(
            &SERVICE_ACCOUNTS,
            "default",
            "the default account",
            |found| !found.is_empty(),
        )
        .await;
    cluster
        .apply("{apiVersion: v1, kind: Pod, metadata: {name: picky, namespace: default}, spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: v1}]}}")
        .await;
    let message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let pods = cluster
        .until(&PODS, "default", "the condition", |pods| {
            pods[0]["status"]["conditions"].is_array()
        })
        .await;
    assert_eq!(pods[0]["status"]["phase"], "Pending");
    let scheduled = condition(&pods[0], "PodScheduled");
    assert_eq!(
        (
            &scheduled["status"],
            &scheduled["reason"],
            &scheduled["message"]
        ),
        (&json!("False"), &json!("Unschedulable"), &json!(message))
    );
    cluster
        .until(&EVENTS, "default", "the event", |events| {
            events
                .iter()
                .any(|event| event["reason"] == "FailedScheduling" && event["message"] == message)
        })
        .await;
    cluster.kubectl("label node node-1 disk=ssd").await;
    cluster
        .until(&PODS, "default", "the pod running", |pods| {
            pods[0]["status"]["phase"] == "Running"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes() {
    let cluster = Cluster::start().await;
    cluster
        .apply("{apiVersion: batch/v1, kind: Job, metadata: {name: sums, namespace: default}, spec: {completions: 3, parallelism: 2, template: {spec: {restartPolicy: Never, containers: [{name: c, image: once}]}}}}")
        .await;
    cluster
        .kubectl("wait --for=condition=complete job/sums --timeout=170s")
        .await;
    let job = cluster.get(&JOBS, "default", "sums").await;
    assert_eq!(job["status"]["succeeded"], 3);
    cluster.kubectl("delete job sums").await;
    cluster
        .until(
            &PODS,
            "default",
            "the end of the job's pods",
            <[_]>::is_empty,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_of_custom_objects_are_collected() {
    let cluster = Cluster::start().await;
    cluster
        .apply("{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: shows.example.com}, spec: {group: example.com, scope: Namespaced, names: {kind: Show, plural: shows, singular: show}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}")
        .await;
    cluster
        .kubectl("wait --for=condition=established crd/shows.example.com --timeout=170s")
        .await;
    cluster.apply("{apiVersion: example.com/v1, kind: Show, metadata: {name: hamlet, namespace: default}}").await;
    let show = kube_client::Resource::new("example.com", "v1", "shows", "Show");
    let owner = cluster.get(&show, "default", "hamlet").await;
    let map = |name: &str, uid: &Value| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "example.com/v1", "kind": "Show", "name": "hamlet", "uid": uid}]}})
    };
    let client = &cluster.client;
    client
        .create(
            &CONFIG_MAPS,
            Some("default"),
            &map("owned", &owner["metadata"]["uid"]),
        )
        .await
        .unwrap();
    // Its owner never existed.
    client
        .create(
            &CONFIG_MAPS,
            Some("default"),
            &map("stray", &json!("nobody")),
        )
        .await
        .unwrap();
    cluster
        .until(&CONFIG_MAPS, "default", "the end of the stray", |maps| {
            !names(maps).contains(&"stray")
        })
        .await;
    assert!(
        client
            .get(&CONFIG_MAPS, Some("default"), "owned")
            .await
            .is_ok()
    );
    cluster.kubectl("delete show hamlet").await;
    cluster
        .until(
            &CONFIG_MAPS,
            "default",
            "the end of the dependent",
            |maps| !names(maps).contains(&"owned"),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_gets_volumes_that_outlive_it() {
    let cluster = Cluster::start().await;
    cluster
        .until(
            &SERVICE_ACCOUNTS,
            "default",
            "the default account",
            |found| !found.is_empty(),
        )
        .await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {"serviceName": "web", "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "v1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]},
    });
    cluster.apply(&set.to_string()).await;
    // The class is the default one and waits for the pod, the pod for its claim.
    cluster
        .until(&PODS, "default", "the binding", |pods| {
            pods.iter().any(|pod| {
                pod["metadata"]["name"] == "web-0" && pod["spec"]["nodeName"] == "node-1"
            })
        })
        .await;
    let claim = cluster
        .get(&PERSISTENT_VOLUME_CLAIMS, "default", "data-web-0")
        .await;
    assert_eq!(
        (
            &claim["status"]["phase"],
            &claim["spec"]["storageClassName"]
        ),
        (&json!("Bound"), &json!("standard"))
    );
    cluster
        .kubectl("wait pv --all --for=jsonpath={.status.phase}=Bound --timeout=170s")
        .await;
    let table = cluster.kubectl("get pvc,pv --no-headers").await;
    assert_eq!(table.matches(" Bound ").count(), 2, "{table}");
    cluster.kubectl("delete statefulset web").await;
    cluster
        .until(&PODS, "default", "the end of the pod", <[Value]>::is_empty)
        .await;
    let kept = cluster
        .get(&PERSISTENT_VOLUME_CLAIMS, "default", "data-web-0")
        .await;
    assert_eq!(kept["metadata"]["uid"], claim["metadata"]["uid"]);
    cluster
        .kubectl("delete pvc data-web-0 --timeout=170s")
        .await;
    // The node agent would remove the directory and let the volume go.
    cluster
        .kubectl("wait pv --all --for=jsonpath={.metadata.deletionTimestamp} --timeout=170s")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_request_is_signed() {
    let cluster = Cluster::start().await;
    let key = pki::KeyPair::generate().unwrap();
    let request = pki::csr::create(&key, &[]).unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(request);
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "jane"},
        "spec": {"request": encoded, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "expirationSeconds": 3600},
    });
    cluster.apply(&object.to_string()).await;
    let before = cluster.kubectl("get csr jane --no-headers").await;
    assert!(before.contains(" Pending"), "{before}");
    cluster.kubectl("certificate approve jane").await;
    cluster
        .kubectl("wait csr/jane --for=jsonpath={.status.certificate} --timeout=170s")
        .await;
    let after = cluster.kubectl("get csr jane --no-headers").await;
    assert!(after.contains(" Approved,Issued"), "{after}");
}
