//! Which proxies an EnvoyFilter changes, and what people are told about patches that cannot be applied.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use theater_translate::{
    ClusterObjects, Locality, Output, ProxyInfo, Snapshot, SnapshotInput, build,
};

/// The resources of httpbin's sidecar with the patches of one EnvoyFilter.
fn with_spec(spec: Value) -> Output {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/xds/scenes/mini.json");
    let scene: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let clusters = scene["k8s"].as_object().unwrap().iter();
    let clusters = clusters.map(|(id, objects)| ClusterObjects {
        id: id.clone(),
        network: None,
        objects: objects
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .map(Arc::new)
            .collect(),
    });
    let filter = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": spec,
    });
    let snapshot = Snapshot::from_objects(SnapshotInput {
        config_cluster: "ctx1".to_owned(),
        clusters: clusters.collect(),
        config: vec![Arc::new(filter)],
        ..SnapshotInput::default()
    });
    let proxies = scene["proxies"].as_array().unwrap();
    let proxy = proxies
        .iter()
        .find(|proxy| proxy["name"] == "httpbin-v1")
        .unwrap();
    let mut metadata = proxy["metadata"].clone();
    metadata["ISTIO_VERSION"] = "1.31.0".into();
    metadata["TIER"] = "back".into();
    let proxy = ProxyInfo::from_node(
        proxy["id"].as_str().unwrap(),
        &metadata,
        Locality::default(),
    );
    build(&snapshot, &proxy.unwrap())
}

/// A patch that changes the limit of the inbound listener's buffer.
fn buffer_limit(selector: Value) -> Value {
    let mut patch = json!({
        "applyTo": "LISTENER",
        "match": {"context": "SIDECAR_INBOUND"},
        "patch": {"operation": "MERGE", "value": {"per_connection_buffer_limit_bytes": 10000}},
    });
    patch["match"]["proxy"] = selector;
    patch
}

fn is_limited(output: &Output) -> bool {
    output.listeners["virtualInbound"]
        .per_connection_buffer_limit_bytes
        .is_some_and(|limit| limit == 10000)
}

fn limited_by(spec: Value) -> bool {
    let output = with_spec(spec);
    assert_eq!(output.problems, []);
    is_limited(&output)
}

#[test]
fn the_proxy_is_matched_by_version_and_metadata() {
    let limited = |proxy| limited_by(json!({"configPatches": [buffer_limit(proxy)]}));
    assert!(limited(json!({})));
    assert!(limited(json!({"proxyVersion": r"^1\.31.*"})));
    assert!(!limited(json!({"proxyVersion": r"^1\.30.*"})));
    assert!(limited(json!({"metadata": {"TIER": "back"}})));
    assert!(!limited(json!({"metadata": {"TIER": "front"}})));
    assert!(!limited(json!({"metadata": {"NO_SUCH_KEY": ""}})));
}

#[test]
fn the_workload_is_selected_by_labels() {
    let limited = |app: &str| {
        limited_by(json!({
            "workloadSelector": {"labels": {"app": app}},
            "configPatches": [buffer_limit(json!({}))],
        }))
    };
    assert!(limited("httpbin"));
    assert!(!limited("ratings"));
}

#[test]
fn a_patch_of_another_type_is_named_and_left_out_alone() {
    let router = json!({
        "applyTo": "HTTP_FILTER",
        "match": {"context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"},
        }}}},
        "patch": {"operation": "MERGE", "value": {"typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "value": {"suppress_envoy_headers": true},
        }}},
    });
    let patches = json!([router, buffer_limit(json!({}))]);
    let output = with_spec(json!({"configPatches": patches}));
    assert!(is_limited(&output));
    let [problem] = output.problems.as_slice() else {
        panic!("{:?}", output.problems);
    };
    assert_eq!(problem.object, "EnvoyFilter/default/a");
    assert_eq!(
        problem.field,
        "spec.configPatches[0].patch.value.typed_config"
    );
    assert!(
        problem.message.contains("udpa.type.v1.TypedStruct"),
        "{problem}"
    );
}

#[test]
fn names_that_are_taken_are_not_added() {
    let output = with_spec(json!({"configPatches": [
        {"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {"name": "PassthroughCluster"}}},
        {"applyTo": "LISTENER", "match": {"context": "SIDECAR_INBOUND"},
            "patch": {"operation": "ADD", "value": {"name": "virtualInbound"}}},
    ]}));
    assert_eq!(output.problems.len(), 2, "{:?}", output.problems);
    assert!(!output.listeners["virtualInbound"].filter_chains.is_empty());
    assert!(
        output.clusters["PassthroughCluster"]
            .cluster_discovery_type
            .is_some()
    );
}

#[test]
fn attachment_to_objects_is_refused() {
    let output = with_spec(json!({
        "targetRefs": [{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"}],
        "configPatches": [buffer_limit(json!({}))],
    }));
    assert!(!is_limited(&output));
    assert_eq!(output.problems[0].field, "spec.targetRefs");
}
