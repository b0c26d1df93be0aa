//! What the gateway tells about the clusters: what their Kubernetes APIs say, and nothing else (spec A07, A08).

use serde_json::json;

use crate::harness::http::get;
use crate::harness::kube::{KubeApi, PODS, VIRTUAL_SERVICES, pod, virtual_service};
use crate::harness::process::Process;

#[tokio::test]
async fn without_a_kubernetes_api_everything_says_so() {
    let gateway = Process::service(
        "api-gateway",
        &[("REMOTE_KUBECONFIG", "/nowhere/kubeconfig")],
    );
    let weights = get(&gateway.url("/traffic-weights")).await.json();
    assert!(
        weights["error"]
            .as_str()
            .unwrap()
            .contains("not running in a cluster"),
        "seen {weights}"
    );
    // The theater's first weights, and the answer says that they are only that.
    assert_eq!(weights["source"], "initial");
    assert_eq!(weights["UserServiceCtx1Weight"], 70);
    let status = get(&gateway.url("/deployment-status")).await.json();
    for (index, name, why) in [
        (0, "ctx1", "KUBERNETES_SERVICE_HOST"),
        (1, "ctx2", "/nowhere/kubeconfig"),
    ] {
        let cluster = &status["clusters"][index];
        assert_eq!(cluster["name"], name);
        assert!(
            cluster["error"].as_str().unwrap().contains(why),
            "seen {cluster}"
        );
        assert!(cluster.get("pods").is_none(), "seen {cluster}");
    }
    let topology = get(&gateway.url("/topology")).await.json();
    assert!(
        topology["error"].is_string() && topology["flows"] == json!([]),
        "seen {topology}"
    );
    assert!(topology["clusters"][1]["error"].is_string());
}

#[tokio::test]
async fn both_clusters_are_read_live() {
    let (one, two) = (KubeApi::start().await, KubeApi::start().await);
    one.put(
        VIRTUAL_SERVICES,
        json!([
            virtual_service("user-service", 70, 30),
            virtual_service("booking-service", 100, 0)
        ]),
    );
    one.put(PODS, json!([pod("user-service", "ctx1-node-1", true)]));
    two.put(
        PODS,
        json!([
            pod("user-service", "ctx2-node-1", false),
            pod("redis", "ctx2-node-1", true)
        ]),
    );
    for api in [&one, &two] {
        api.put("/api/v1/nodes", json!([{"metadata": {"name": "n", "labels": {"cloud-provider": "nhn", "topology.kubernetes.io/region": "kr"}}}]));
        api.put("/api/v1/namespaces/theater-msa/services", json!([{"metadata": {"name": "user-service"}, "spec": {"clusterIP": "10.97.0.5", "ports": [{"port": 8081}]}}]));
        api.put("/api/v1/namespaces/istio-system/services", json!([
            {"metadata": {"name": "istiod"}, "spec": {"type": "ClusterIP"}},
            {"metadata": {"name": "istio-eastwestgateway", "labels": {"istio": "eastwestgateway"}}, "spec": {"type": "LoadBalancer"},
             "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.74"}]}}},
        ]));
    }
    let (own, other) = (one.kubeconfig(None), two.kubeconfig(None));
    let gateway = Process::service(
        "api-gateway",
        &[
            ("KUBECONFIG", own.to_str().unwrap()),
            ("REMOTE_KUBECONFIG", other.to_str().unwrap()),
        ],
    );
    let weights = get(&gateway.url("/traffic-weights")).await.json();
    // A service without a VirtualService has no weights, and none are invented.
    assert_eq!(
        weights,
        json!({"UserServiceCtx1Weight": 70, "UserServiceCtx2Weight": 30,
        "BookingServiceCtx1Weight": 100, "BookingServiceCtx2Weight": 0, "source": "virtualservices"})
    );
    one.put(
        VIRTUAL_SERVICES,
        json!([virtual_service("user-service", 90, 10)]),
    );
    let weights = get(&gateway.url("/traffic-weights")).await.json();
    assert_eq!(weights["UserServiceCtx1Weight"], 90);

    let status = get(&gateway.url("/deployment-status")).await.json();
    let pods = status["clusters"][1]["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 2, "seen {status}");
    for (field, value) in [
        ("service", json!("user-service")),
        ("podName", json!("user-service-ctx2-node-1-x")),
        ("nodeName", json!("ctx2-node-1")),
        ("status", json!("Running")),
        ("ready", json!(1)),
        ("containers", json!(2)),
        ("restarts", json!(2)),
        ("port", json!(8081)),
    ] {
        assert_eq!(pods[0][field], value, "{field} in {status}");
    }

    let topology = get(&gateway.url("/topology")).await.json();
    assert_eq!(topology["clusters"][0]["nodes"][0]["provider"], "nhn");
    assert_eq!(
        topology["clusters"][1]["services"][0]["address"],
        "10.97.0.5"
    );
    assert_eq!(
        topology["clusters"][1]["gateways"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        topology["flows"][1],
        json!({"from": {"cluster": "ctx1", "service": "api-gateway"},
        "to": {"cluster": "ctx2", "service": "user-service"}, "weight": 10,
        "via": {"gateway": "istio-eastwestgateway", "address": "203.0.113.74"}})
    );
}

#[tokio::test]
async fn a_refusal_of_the_api_is_passed_on_in_its_words() {
    let api = KubeApi::start().await;
    let wrong = api.kubeconfig(Some("wrong"));
    let gateway = Process::service("api-gateway", &[("KUBECONFIG", wrong.to_str().unwrap())]);
    let weights = get(&gateway.url("/traffic-weights")).await.json();
    assert!(
        weights["error"]
            .as_str()
            .unwrap()
            .contains("forbidden: no such user"),
        "seen {weights}"
    );
    let status = get(&gateway.url("/deployment-status")).await.json();
    assert_eq!(status["clusters"].as_array().unwrap().len(), 1);
}
