//! Injection against what the real injector makes of the same workloads.

use std::path::Path;

use serde_json::{Value, json};
use theater_istiod::webhook::inject::{Injection, Skipped, inject, skip};

fn read(case: &str, which: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/inject/{case}.{which}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap();
    // kube-inject ends every document with a separator.
    yaml_serde::from_str(text.trim_end().trim_end_matches("---")).unwrap()
}

/// The pod a Deployment's controller would make.
fn pod(deployment: &Value) -> Value {
    let name = deployment["metadata"]["name"].as_str().unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-abc12"),
        "controller": true, "uid": "u",
    }]);
    pod["metadata"]["labels"]["pod-template-hash"] = "abc12".into();
    pod
}

/// Takes out what only comes from how a pod passed through typed structs.
fn normalised(mut pod: Value) -> Value {
    pod["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("ownerReferences");
    pod["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("creationTimestamp");
    pod["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .remove("pod-template-hash");
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        if container["resources"] == json!({}) {
            container.as_object_mut().unwrap().remove("resources");
        }
    }
    for container in pod["spec"]["initContainers"].as_array_mut().unwrap() {
        if container["resources"] == json!({}) {
            container.as_object_mut().unwrap().remove("resources");
        }
    }
    for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
        if volume["emptyDir"] == json!({}) {
            volume.as_object_mut().unwrap().remove("emptyDir");
        }
    }
    pod
}

fn injection(case: &str) -> Injection {
    let multicluster = case == "multicluster-values";
    Injection {
        image: "registry.istio.io/testing/proxyv2:latest".into(),
        cluster: multicluster.then(|| "ctx1".into()),
        network: multicluster.then(|| "network1".into()),
        mesh_id: if multicluster {
            "theater-mesh"
        } else {
            "cluster.local"
        }
        .into(),
        trust_domain: "cluster.local".into(),
        revision: "default".into(),
    }
}

/// The first place where two values differ.
fn difference(seen: &Value, expected: &Value, path: &str) -> Option<String> {
    match (seen, expected) {
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys())
            .find_map(|key| difference(&seen[key], &expected[key], &format!("{path}.{key}"))),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| difference(a, b, &format!("{path}[{i}]"))),
        _ if seen == expected => None,
        _ => Some(format!("{path}: seen {seen}, expected {expected}")),
    }
}

#[test]
fn pods_are_what_the_real_injector_makes_of_them() {
    let mut wrong = Vec::new();
    for case in [
        "multicluster-values",
        "probes-http",
        "traffic",
        "prometheus",
        "two-containers",
        "resources",
    ] {
        let expected = normalised(read(case, "out")["spec"]["template"].clone());
        let given = read(case, "in");
        let namespace = given["metadata"]["namespace"].as_str().unwrap_or("default");
        let seen = inject(&pod(&given), namespace, &injection(case));
        if let Some(difference) = difference(&normalised(seen), &expected, "pod") {
            wrong.push(format!("{case}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pods_that_must_not_get_a_sidecar_get_none() {
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(skip(&plain, "default"), None);
    assert_eq!(skip(&plain, "kube-system"), Some(Skipped::SystemNamespace));
    let mut disabled = plain.clone();
    disabled["metadata"] = json!({"labels": {"sidecar.istio.io/inject": "false"},
        "annotations": {"sidecar.istio.io/inject": "true"}});
    assert_eq!(skip(&disabled, "default"), Some(Skipped::Disabled));
    let mut host = plain.clone();
    host["spec"]["hostNetwork"] = true.into();
    assert_eq!(skip(&host, "default"), Some(Skipped::HostNetwork));
    let injected = inject(&plain, "default", &injection(""));
    assert_eq!(skip(&injected, "default"), Some(Skipped::Injected));
}
