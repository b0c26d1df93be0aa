//! Going from one moment to the next gives the same resources as building them from nothing, whatever changed.

mod random;

use random::Random;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use theater_translate::{
    Built, Change, ClusterObjects, Locality, Output, ProxyInfo, Snapshot, SnapshotInput, build,
};

fn scene(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/data/xds/scenes")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn input(scene: &Value) -> SnapshotInput {
    let yaml = |key: &str| scene[key].as_str().unwrap_or_default().to_owned();
    SnapshotInput {
        config_cluster: "ctx1".to_owned(),
        clusters: scene["k8s"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(id, objects)| ClusterObjects {
                id: id.clone(),
                network: None,
                objects: objects
                    .as_array()
                    .unwrap()
                    .iter()
                    .cloned()
                    .map(Arc::new)
                    .collect(),
            })
            .collect(),
        mesh: yaml_serde::from_str(&yaml("mesh")).unwrap_or_default(),
        networks: yaml_serde::from_str(&yaml("networks")).unwrap_or_default(),
        ..SnapshotInput::default()
    }
}

fn proxies(scene: &Value) -> Vec<ProxyInfo> {
    scene["proxies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|proxy| {
            let part = |key: &str| {
                proxy["locality"][key]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let locality = Locality {
                region: part("region"),
                zone: part("zone"),
                subzone: part("sub_zone"),
            };
            ProxyInfo::from_node(proxy["id"].as_str().unwrap(), &proxy["metadata"], locality)
                .unwrap()
        })
        .collect()
}

/// Objects of Istio that come and go.
fn configuration(hosts: &[String], random: &mut Random) -> Value {
    let host = &hosts[random.below(hosts.len())];
    let number = random.below(3);
    let namespace = host.split('.').nth(1).unwrap();
    let mode = ["STRICT", "DISABLE"][random.below(2)];
    let (kind, group, spec) = match random.below(10) {
        0 => (
            "VirtualService",
            "networking.istio.io/v1",
            json!({"hosts": [host], "http": [{"timeout": "1s", "route": [{"destination": {"host": host}}]}]}),
        ),
        1 => (
            "DestinationRule",
            "networking.istio.io/v1",
            json!({"host": host, "trafficPolicy": {"outlierDetection": {}},
                   "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}),
        ),
        2 => (
            "PeerAuthentication",
            "security.istio.io/v1",
            match random.below(2) {
                0 => json!({"mtls": {"mode": mode}}),
                _ => {
                    json!({"mtls": {"mode": mode}, "selector": {"matchLabels": {"version": "later"}}})
                }
            },
        ),
        3 => (
            "ServiceEntry",
            "networking.istio.io/v1",
            json!({"hosts": ["vm.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                   "location": "MESH_INTERNAL", "resolution": "STATIC", "workloadSelector": {"labels": {"version": "v1"}}}),
        ),
        4 => (
            "Sidecar",
            "networking.istio.io/v1",
            json!({"egress": [{"hosts": ["./*", "istio-system/*"]}]}),
        ),
        8 => (
            "VirtualService",
            "networking.istio.io/v1",
            json!({"hosts": [host], "tcp": [{"match": [{"port": 6379}], "route": [{"destination": {"host": host}}]}],
                   "http": [{"timeout": "2s", "route": [{"destination": {"host": host}}]}]}),
        ),
        5 => (
            "AuthorizationPolicy",
            "security.istio.io/v1",
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]}),
        ),
        6 => (
            "DestinationRule",
            "networking.istio.io/v1",
            json!({"host": host, "trafficPolicy": {"loadBalancer": {"consistentHash": {"useSourceIp": true}},
                   "connectionPool": {"tcp": {"maxConnections": 7}}}}),
        ),
        7 => (
            "EnvoyFilter",
            "networking.istio.io/v1alpha3",
            json!({"configPatches": [{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND"},
                   "patch": {"operation": "MERGE", "value": {"connect_timeout": "3s"}}}]}),
        ),
        _ => (
            "Gateway",
            "networking.istio.io/v1",
            json!({"selector": {"istio": "eastwestgateway"}, "servers": [{"hosts": ["*.local"],
                   "port": {"number": 15443, "name": "tls", "protocol": "TLS"}, "tls": {"mode": "AUTO_PASSTHROUGH"}}]}),
        ),
    };
    json!({
        "apiVersion": group,
        "kind": kind,
        "metadata": {"name": format!("{}-{number}", kind.to_lowercase()), "namespace": namespace,
                     "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", random.below(60))},
        "spec": spec,
    })
}

/// Changes something, most often pods and endpoints.
fn change(input: &mut SnapshotInput, original: &SnapshotInput, random: &mut Random) -> String {
    let place = random.below(input.clusters.len());
    let indexes = |objects: &[Arc<Value>], kind: &str| -> Vec<usize> {
        (0..objects.len())
            .filter(|index| objects[*index]["kind"] == kind)
            .collect()
    };
    let objects = &mut input.clusters[place].objects;
    let pick = |objects: &[Arc<Value>], kind: &str, random: &mut Random| -> Option<usize> {
        let found = indexes(objects, kind);
        (!found.is_empty()).then(|| found[random.below(found.len())])
    };
    match random.below(15) {
        0..=3 => {
            let Some(index) = pick(objects, "EndpointSlice", random) else {
                return "nothing".to_owned();
            };
            let mut slice = Value::clone(&objects[index]);
            let mut endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
            match random.below(4) {
                0 => drop(endpoints.pop()),
                1 => endpoints.push(
                    json!({"addresses": [format!("10.99.0.{}", random.below(9))],
                                           "conditions": {"ready": true}}),
                ),
                2 => {
                    for endpoint in &mut endpoints {
                        endpoint["conditions"]["ready"] = json!(random.below(2) == 0);
                    }
                }
                _ => {
                    // The slice as it was at first.
                    let name = &slice["metadata"]["name"];
                    let first = original.clusters[place].objects.iter().find(|object| {
                        object["kind"] == "EndpointSlice" && object["metadata"]["name"] == *name
                    });
                    if let Some(first) = first {
                        objects[index] = first.clone();
                        return format!("slice {name} as at first");
                    }
                }
            }
            slice["endpoints"] = endpoints.into();
            let what = format!("slice {}", slice["metadata"]["name"]);
            objects[index] = Arc::new(slice);
            what
        }
        4..=6 => {
            let Some(index) = pick(objects, "Pod", random) else {
                return "nothing".to_owned();
            };
            let mut pod = Value::clone(&objects[index]);
            let what = format!("pod {}", pod["metadata"]["name"]);
            match random.below(4) {
                0 => {
                    objects.remove(index);
                    return format!("{what} is gone");
                }
                1 => pod["status"]["conditions"][0]["status"] = json!("False"),
                2 => pod["spec"]["serviceAccountName"] = json!("another"),
                _ => {
                    pod["metadata"]["labels"]["version"] = json!(["v1", "later"][random.below(2)]);
                }
            }
            objects[index] = Arc::new(pod);
            what
        }
        7 => {
            let Some(index) = pick(objects, "Service", random) else {
                return "nothing".to_owned();
            };
            let mut service = Value::clone(&objects[index]);
            let number = 9000 + random.below(3);
            service["spec"]["ports"][0]["port"] = json!(number);
            objects[index] = Arc::new(service);
            "a service".to_owned()
        }
        8 => {
            let Some(index) = pick(objects, "Node", random) else {
                return "nothing".to_owned();
            };
            let mut node = Value::clone(&objects[index]);
            node["metadata"]["labels"]["topology.kubernetes.io/zone"] =
                json!(format!("z{}", random.below(3)));
            objects[index] = Arc::new(node);
            "a node".to_owned()
        }
        9 => {
            input.clusters.clone_from(&original.clusters);
            "everything as at first".to_owned()
        }
        _ => {
            let hosts: Vec<String> = indexes(objects, "Service")
                .iter()
                .map(|index| {
                    let metadata = &objects[*index]["metadata"];
                    let part = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
                    format!("{}.{}.svc.cluster.local", part("name"), part("namespace"))
                })
                .collect();
            if hosts.is_empty() {
                return "nothing".to_owned();
            }
            let object = configuration(&hosts, random);
            let same = |other: &Arc<Value>| {
                other["kind"] == object["kind"]
                    && other["metadata"]["name"] == object["metadata"]["name"]
            };
            let before = input.config.len();
            input.config.retain(|other| !same(other));
            let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
            if before == input.config.len() {
                input.config.push(Arc::new(object));
            }
            what
        }
    }
}

fn differing(left: &Output, right: &Output) -> Option<&'static str> {
    [
        ("clusters", left.clusters == right.clusters),
        ("endpoints", left.endpoints == right.endpoints),
        ("listeners", left.listeners == right.listeners),
        ("routes", left.routes == right.routes),
        (
            "extension configs",
            left.extension_configs == right.extension_configs,
        ),
        ("secrets", left.secrets == right.secrets),
        ("problems", left.problems == right.problems),
    ]
    .into_iter()
    .find_map(|(name, same)| (!same).then_some(name))
}

fn walk(name: &str, seed: u64, steps: usize) {
    let scene = scene(name);
    let original = input(&scene);
    let proxies = proxies(&scene);
    let mut random = Random(seed);
    let mut now = original.clone();
    let mut snapshot = Arc::new(Snapshot::from_objects(now.clone()));
    let mut states: Vec<(Built, Output)> = proxies
        .iter()
        .map(|proxy| Built::new(snapshot.clone(), proxy))
        .collect();
    let mut history = Vec::new();
    let mut in_part = 0;
    for _ in 0..steps {
        history.push(change(&mut now, &original, &mut random));
        snapshot = Arc::new(snapshot.next(now.clone()));
        let fresh = Snapshot::from_objects(now.clone());
        assert_eq!(snapshot.problems(), fresh.problems(), "after {history:?}");
        for (proxy, (built, output)) in proxies.iter().zip(&mut states) {
            let change = built.advance(snapshot.clone(), proxy);
            in_part += usize::from(matches!(change, Change::Part { .. }));
            change.apply(output);
            let difference = differing(output, &build(&fresh, proxy));
            assert_eq!(
                difference, None,
                "{}: seed {seed}, after {history:?}",
                proxy.id
            );
        }
    }
    let all = steps * proxies.len();
    println!("{name}: {in_part} of {all} builds were of a part");
    assert!(in_part * 5 > all, "only {in_part} of {all} were partial");
}

#[test]
fn one_cluster_with_services_of_every_kind() {
    walk("mini.json", 1, 16);
}

#[test]
fn two_clusters_and_two_networks() {
    walk("theater.json", 2, 16);
}

/// A cluster of services with one endpoint each.
fn many_services(count: usize) -> SnapshotInput {
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"},
    })];
    for index in 0..count {
        let name = format!("service-{index}");
        let place = format!("{}.{}", index / 200, index % 200 + 1);
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "clusterIP": format!("10.96.{place}"),
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        }));
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [format!("10.10.{place}")], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }));
    }
    SnapshotInput {
        config_cluster: "ctx1".to_owned(),
        clusters: vec![ClusterObjects {
            id: "ctx1".to_owned(),
            network: None,
            objects: objects.into_iter().map(Arc::new).collect(),
        }],
        ..SnapshotInput::default()
    }
}

#[test]
fn an_endpoint_of_one_service_among_a_thousand_rebuilds_that_service_alone() {
    let proxy = &proxies(&scene("mini.json"))[0];
    let mut input = many_services(1_000);
    let before = Arc::new(Snapshot::from_objects(input.clone()));
    let (mut built, everything) = Built::new(before.clone(), proxy);
    assert!(everything.clusters.len() > 1_000);
    let slice = input.clusters[0]
        .objects
        .iter_mut()
        .find(|object| object["metadata"]["name"] == "service-7-1")
        .unwrap();
    let mut moved = Value::clone(slice);
    moved["endpoints"][0]["addresses"][0] = json!("10.10.99.1");
    *slice = Arc::new(moved);
    let Change::Part {
        made,
        clusters_gone,
        endpoints_gone,
        routes: false,
        listeners: false,
    } = built.advance(Arc::new(before.next(input)), proxy)
    else {
        panic!("everything was built again");
    };
    let name = "outbound|80||service-7.shop.svc.cluster.local";
    let clusters: Vec<&str> = made.clusters.keys().map(String::as_str).collect();
    let endpoints: Vec<&str> = made.endpoints.keys().map(String::as_str).collect();
    assert_eq!((clusters, endpoints), (vec![name], vec![name]));
    assert!(made.listeners.is_empty() && made.routes.is_empty());
    assert!(clusters_gone.is_empty() && endpoints_gone.is_empty());
}

#[test]
fn a_rule_of_one_service_among_a_thousand_rebuilds_what_leads_there_and_no_other_clusters() {
    let proxy = &proxies(&scene("mini.json"))[0];
    let mut input = many_services(1_000);
    let before = Arc::new(Snapshot::from_objects(input.clone()));
    let (mut built, everything) = Built::new(before.clone(), proxy);
    let host = "service-7.shop.svc.cluster.local";
    let rule = |kind: &str, spec: Value| {
        Arc::new(json!({"apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": {"name": "seven", "namespace": "shop"}, "spec": spec}))
    };
    input.config.push(rule(
        "VirtualService",
        json!({"hosts": [host], "http": [{"timeout": "1s", "route": [{"destination": {"host": host}}]}]}),
    ));
    let routed = Arc::new(before.next(input.clone()));
    let Change::Part {
        made,
        routes: true,
        listeners: false,
        ..
    } = built.advance(routed.clone(), proxy)
    else {
        panic!("everything was built again");
    };
    let of_services = |made: &Output| {
        let names = made
            .clusters
            .keys()
            .filter(|name| name.starts_with("outbound|"));
        names.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_services(&made), Vec::<String>::new());
    assert_ne!(made.routes, everything.routes);
    input.config.push(rule(
        "DestinationRule",
        json!({"host": host, "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}),
    ));
    let Change::Part {
        made,
        routes: true,
        listeners: true,
        ..
    } = built.advance(Arc::new(routed.next(input)), proxy)
    else {
        panic!("everything was built again");
    };
    let wanted = ["v1", ""].map(|subset| format!("outbound|80|{subset}|{host}"));
    assert_eq!(of_services(&made), wanted);
}
