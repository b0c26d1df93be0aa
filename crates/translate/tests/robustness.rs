//! No input makes the translator panic: objects with missing, empty, huge and wrongly typed fields are left out or taken as they are.

mod random;

use random::Random;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use theater_translate::{ClusterObjects, Locality, ProxyInfo, Snapshot, SnapshotInput, build};

fn recorded() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/xds")
}

/// The configuration of the committed cases.
fn configuration() -> Vec<Value> {
    let mut cases: Vec<_> = std::fs::read_dir(recorded().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    let mut out = Vec::new();
    for case in cases {
        let text = std::fs::read_to_string(case.join("case.yaml")).unwrap();
        for document in text.split("\n---\n") {
            let object = yaml_serde::from_str::<Value>(document).unwrap_or_default();
            if object["kind"].is_string() {
                out.push(object);
            }
        }
    }
    assert!(out.len() > 20, "only {} objects", out.len());
    out
}

/// Changes one place somewhere below a value.
fn spoil(value: &mut Value, random: &mut Random) {
    const ODD: [&str; 12] = [
        "",
        "*",
        "*.",
        ".",
        "..",
        "/",
        "~",
        "a/b/c",
        "[::1",
        "10.0.0.0/99",
        "9999999999s",
        "한글",
    ];
    let deeper = random.below(8) != 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let key = map.keys().nth(random.below(map.len())).cloned().unwrap();
            if random.below(12) == 0 {
                map.remove(&key);
            } else {
                spoil(&mut map[&key], random);
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let index = random.below(list.len());
            match random.below(10) {
                0 => list.clear(),
                1 => list.push(list[index].clone()),
                _ => spoil(&mut list[index], random),
            }
        }
        place => {
            *place = match random.below(9) {
                0 => Value::Null,
                1 => json!(u64::MAX),
                2 => json!(-1),
                3 => json!(i32::MAX),
                4 => json!({}),
                5 => json!([]),
                6 => json!([{}, null, ""]),
                7 => json!(true),
                _ => json!(ODD[random.below(ODD.len())]),
            }
        }
    }
}

#[test]
fn spoiled_objects_do_no_harm() {
    let text = std::fs::read_to_string(recorded().join("scenes/mini.json")).unwrap();
    let scene: Value = serde_json::from_str(&text).unwrap();
    let kubernetes: Vec<Value> = scene["k8s"]["ctx1"].as_array().unwrap().clone();
    let config = configuration();
    let proxies: Vec<ProxyInfo> = scene["proxies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|proxy| proxy["name"] != "ratings")
        .map(|proxy| {
            let id = proxy["id"].as_str().unwrap();
            ProxyInfo::from_node(id, &proxy["metadata"], Locality::default()).unwrap()
        })
        .collect();
    let mut random = Random(7);
    for round in 0..60 {
        let mut objects = kubernetes.clone();
        let mut configuration: Vec<Value> = (0..4)
            .map(|_| config[random.below(config.len())].clone())
            .collect();
        for _ in 0..3 {
            let index = random.below(objects.len());
            spoil(&mut objects[index], &mut random);
        }
        for object in &mut configuration {
            for _ in 0..=random.below(3) {
                spoil(object, &mut random);
            }
        }
        let input = SnapshotInput {
            config_cluster: "ctx1".to_owned(),
            clusters: vec![ClusterObjects {
                id: "ctx1".to_owned(),
                network: None,
                objects: objects.into_iter().map(Arc::new).collect(),
            }],
            config: configuration.iter().cloned().map(Arc::new).collect(),
            ..SnapshotInput::default()
        };
        let proxy = &proxies[round % proxies.len()];
        let built = catch_unwind(AssertUnwindSafe(|| {
            build(&Snapshot::from_objects(input), proxy);
        }));
        let shown = || serde_json::to_string_pretty(&configuration).unwrap();
        assert!(built.is_ok(), "round {round}, {}: {}", proxy.id, shown());
    }
}

#[test]
fn nodes_of_any_form_are_understood_or_refused() {
    let mut random = Random(11);
    let metadata = json!({"NAMESPACE": "a", "LABELS": {"app": "a"}, "CLUSTER_ID": "ctx1", "INSTANCE_IPS": "10.0.0.1",
                          "PROXY_CONFIG": {"concurrency": 1}, "NETWORK": "n"});
    for id in [
        "",
        "sidecar",
        "sidecar~10.0.0.1~a.b~c",
        "router~x~a~b",
        "sidecar~~~",
        "waypoint~1.2.3.4~a.b~c",
    ] {
        for _ in 0..20 {
            let mut metadata = metadata.clone();
            spoil(&mut metadata, &mut random);
            if let Ok(proxy) = ProxyInfo::from_node(id, &metadata, Locality::default()) {
                build(&Snapshot::from_objects(SnapshotInput::default()), &proxy);
            }
        }
    }
}
