//! How long it takes to build a proxy of the theater. Run with `cargo test --release -- --ignored --nocapture`.

use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use theater_translate::{ClusterObjects, Locality, ProxyInfo, Snapshot, SnapshotInput, build};

#[test]
#[ignore = "a measurement, not a test"]
fn theater() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/data/xds/scenes/theater.json");
    let scene: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let objects = |id: &str| {
        scene["k8s"][id]
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .map(Arc::new)
            .collect()
    };
    let clusters = ["ctx1", "ctx2"].map(|id| ClusterObjects {
        id: id.to_owned(),
        network: None,
        objects: objects(id),
    });
    let input = SnapshotInput {
        config_cluster: "ctx1".to_owned(),
        clusters: clusters.to_vec(),
        mesh: yaml_serde::from_str(scene["mesh"].as_str().unwrap()).unwrap(),
        networks: yaml_serde::from_str(scene["networks"].as_str().unwrap()).unwrap(),
        ..SnapshotInput::default()
    };
    let start = Instant::now();
    let snapshot = Snapshot::from_objects(input);
    println!("snapshot: {:?}", start.elapsed());
    for proxy in scene["proxies"].as_array().unwrap() {
        let locality = Locality {
            region: proxy["locality"]["region"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            zone: proxy["locality"]["zone"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            subzone: String::new(),
        };
        let proxy =
            ProxyInfo::from_node(proxy["id"].as_str().unwrap(), &proxy["metadata"], locality)
                .unwrap();
        let rounds = 100;
        let start = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(build(&snapshot, &proxy));
        }
        println!("{}: {:?} each", proxy.name, start.elapsed() / rounds);
    }
}
