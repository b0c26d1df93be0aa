use serde_json::json;

use super::*;
use crate::object::items;

fn pod(name: &str, ip: &str, ready: bool) -> Arc<Value> {
    Arc::new(json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
}

fn change(pod: &Arc<Value>, pointer: &str, value: Value) -> Arc<Value> {
    let mut changed = pod.as_ref().clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[field] = value;
    Arc::new(changed)
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "a", "uid": "svc", "labels": {"team": "x"}},
        "spec": {"clusterIP": "10.97.0.5", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "adm", "port": 81, "targetPort": 9000, "protocol": "TCP", "appProtocol": "grpc"}]},
    })
}

fn observed(service: Value, pods: Vec<Arc<Value>>) -> Observed {
    Observed {
        service: Some(Arc::new(service)),
        pods,
        endpoints: None,
        slices: Vec::new(),
        zones: BTreeMap::from([("n1".to_owned(), "kr-1".to_owned())]),
    }
}

/// Carries out the actions in memory.
fn carry_out(observed: &mut Observed, actions: Vec<Action>) {
    for action in actions {
        let slices = action.target.resource == kube_client::ENDPOINT_SLICES;
        match action.verb {
            Verb::Create(mut object) if slices => {
                let name = format!("s{}", observed.slices.len());
                object["metadata"]["name"] = name.clone().into();
                object["metadata"]["uid"] = name.into();
                observed.slices.push(Arc::new(object));
            }
            Verb::Create(object) => observed.endpoints = Some(Arc::new(object)),
            Verb::Patch(patch, _) => {
                let merge = |target: &Arc<Value>| {
                    let mut object = target.as_ref().clone();
                    for (key, value) in patch.as_object().unwrap() {
                        if key == "metadata" {
                            if !value["labels"].is_null() {
                                object["metadata"]["labels"] = value["labels"].clone();
                            }
                        } else {
                            object[key] = value.clone();
                        }
                    }
                    Arc::new(object)
                };
                if slices {
                    for slice in &mut observed.slices {
                        if api::meta::name(slice) == action.target.name {
                            *slice = merge(slice);
                        }
                    }
                } else {
                    observed.endpoints = observed.endpoints.as_ref().map(merge);
                }
            }
            Verb::Delete(_) if slices => {
                observed
                    .slices
                    .retain(|slice| api::meta::name(slice) != action.target.name);
            }
            Verb::Delete(_) => observed.endpoints = None,
        }
    }
}

fn settle(observed: &mut Observed) {
    let actions = reconcile(observed);
    carry_out(observed, actions);
    assert_eq!(
        reconcile(observed),
        [],
        "a second look must find nothing to do"
    );
}

#[test]
fn slices_have_the_shape_and_labels_of_the_real_ones() {
    let mut observed = observed(service(), vec![pod("p1", "10.10.0.5", true)]);
    settle(&mut observed);
    let mut slice = observed.slices[0].as_ref().clone();
    slice["metadata"]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| key != "name" && key != "uid");
    assert_eq!(
        slice,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-", "namespace": "a",
                "labels": {"team": "x", "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc",
                    "controller": true, "blockOwnerDeletion": true}],
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.10.0.5"],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "n1", "zone": "kr-1",
                "targetRef": {"kind": "Pod", "namespace": "a", "name": "p1", "uid": "p1"},
            }],
            "ports": [
                {"name": "adm", "port": 9000, "protocol": "TCP", "appProtocol": "grpc"},
                {"name": "http", "port": 8080, "protocol": "TCP"},
            ],
        })
    );
    assert_eq!(
        observed.endpoints.unwrap()["subsets"],
        json!([{
            "addresses": [{"ip": "10.10.0.5", "nodeName": "n1",
                "targetRef": {"kind": "Pod", "namespace": "a", "name": "p1", "uid": "p1"}}],
            "ports": [
                {"name": "adm", "port": 9000, "protocol": "TCP", "appProtocol": "grpc"},
                {"name": "http", "port": 8080, "protocol": "TCP"},
            ],
        }])
    );
}

#[test]
fn unready_terminating_and_finished_pods() {
    let leaving = change(
        &pod("leaving", "10.10.0.3", true),
        "/metadata/deletionTimestamp",
        json!("2025-01-01T00:00:00Z"),
    );
    let finished = change(
        &pod("finished", "10.10.0.4", false),
        "/status/phase",
        json!("Succeeded"),
    );
    let without_ip = change(
        &change(
            &pod("new", "10.10.0.9", false),
            "/status/podIP",
            Value::Null,
        ),
        "/status/podIPs",
        Value::Null,
    );
    let pods = vec![
        pod("ready", "10.10.0.1", true),
        pod("unready", "10.10.0.2", false),
        leaving,
        finished,
        without_ip,
    ];
    let mut seen = observed(service(), pods.clone());
    settle(&mut seen);
    let conditions: Vec<(String, String)> = items(&seen.slices[0]["endpoints"])
        .iter()
        .map(|endpoint| {
            (
                endpoint["targetRef"]["name"].as_str().unwrap().to_owned(),
                endpoint["conditions"].to_string(),
            )
        })
        .collect();
    assert_eq!(
        conditions,
        [
            (
                "ready".to_owned(),
                r#"{"ready":true,"serving":true,"terminating":false}"#.to_owned()
            ),
            (
                "unready".to_owned(),
                r#"{"ready":false,"serving":false,"terminating":false}"#.to_owned()
            ),
            (
                "leaving".to_owned(),
                r#"{"ready":false,"serving":true,"terminating":true}"#.to_owned()
            ),
        ]
    );
    let subset = &seen.endpoints.as_ref().unwrap()["subsets"][0];
    assert_eq!(items(&subset["addresses"]).len(), 1);
    assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.10.0.2");

    let mut publishing = service();
    publishing["spec"]["publishNotReadyAddresses"] = json!(true);
    let mut seen = observed(publishing, pods);
    settle(&mut seen);
    assert!(
        items(&seen.slices[0]["endpoints"])
            .iter()
            .all(|endpoint| endpoint["conditions"]["ready"] == true)
    );
    assert_eq!(
        items(&seen.endpoints.unwrap()["subsets"][0]["addresses"]).len(),
        3
    );
}

#[test]
fn a_service_with_nobody_keeps_one_empty_slice_that_is_filled_later() {
    let mut headless = service();
    headless["spec"]["clusterIP"] = json!("None");
    let mut observed = observed(headless, vec![]);
    settle(&mut observed);
    assert_eq!(observed.slices.len(), 1);
    assert_eq!(observed.slices[0]["endpoints"], json!([]));
    assert_eq!(
        observed.slices[0]["metadata"]["labels"]["service.kubernetes.io/headless"],
        ""
    );
    assert_eq!(observed.endpoints.as_ref().unwrap()["subsets"], Value::Null);
    observed.pods = vec![pod("p1", "10.10.0.5", true)];
    settle(&mut observed);
    assert_eq!(observed.slices.len(), 1);
    assert_eq!(items(&observed.slices[0]["endpoints"]).len(), 1);
    observed.pods.clear();
    settle(&mut observed);
    assert_eq!(observed.slices.len(), 1);
    assert_eq!(observed.slices[0]["endpoints"], json!([]));
}

#[test]
fn pods_with_other_numbers_for_a_named_port_get_their_own_slice() {
    let mut observed = observed(service(), vec![pod("p1", "10.10.0.1", true)]);
    settle(&mut observed);
    let other = change(
        &pod("p2", "10.10.0.2", true),
        "/spec/containers",
        json!([{"ports": [{"name": "http", "containerPort": 7070}]}]),
    );
    observed.pods.push(other);
    settle(&mut observed);
    let mut ports: Vec<i64> = observed
        .slices
        .iter()
        .map(|slice| slice["ports"][1]["port"].as_i64().unwrap())
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [7070, 8080]);
    assert_eq!(
        observed.endpoints.as_ref().unwrap()["subsets"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn a_hundred_endpoints_fill_a_slice() {
    let pods = (0..250)
        .map(|n| {
            pod(
                &format!("p{n}"),
                &format!("10.10.{}.{}", n / 200, n % 200 + 1),
                true,
            )
        })
        .collect();
    let mut observed = observed(service(), pods);
    settle(&mut observed);
    let sizes: Vec<usize> = observed
        .slices
        .iter()
        .map(|slice| items(&slice["endpoints"]).len())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
    // One leaves: only its slice changes.
    observed.pods.remove(10);
    let slices = reconcile(&observed)
        .into_iter()
        .filter(|action| action.target.resource == kube_client::ENDPOINT_SLICES)
        .count();
    assert_eq!(slices, 1);
}

#[test]
fn headless_services_without_ports_and_host_names() {
    let mut headless = service();
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["ports"] = json!([]);
    let named = change(
        &change(
            &pod("p1", "10.10.0.1", true),
            "/spec/hostname",
            json!("db-0"),
        ),
        "/spec/subdomain",
        json!("web"),
    );
    let mut observed = observed(headless, vec![named]);
    settle(&mut observed);
    assert_eq!(observed.slices[0]["endpoints"][0]["hostname"], "db-0");
    assert_eq!(observed.slices[0]["ports"], json!([]));
    let subset = &observed.endpoints.as_ref().unwrap()["subsets"][0];
    assert_eq!(subset["addresses"][0]["hostname"], "db-0");
    assert_eq!(subset["ports"], Value::Null);
}

#[test]
fn endpoints_written_by_hand_are_mirrored() {
    let mut by_hand = service();
    by_hand["spec"]["selector"] = Value::Null;
    let mut observed = observed(by_hand, vec![pod("p1", "10.10.0.1", true)]);
    assert_eq!(reconcile(&observed), []);
    observed.endpoints = Some(Arc::new(json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "a", "uid": "ep"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}],
    })));
    settle(&mut observed);
    assert_eq!(observed.slices.len(), 1);
    assert_eq!(
        observed.slices[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    assert_eq!(
        observed.slices[0]["endpoints"][0]["addresses"],
        json!(["192.0.2.1"])
    );
}

#[test]
fn endpoints_go_with_their_service() {
    let mut observed = observed(service(), vec![]);
    settle(&mut observed);
    observed.service = None;
    let actions = reconcile(&observed);
    assert_eq!(actions.len(), 1);
    assert!(matches!(actions[0].verb, Verb::Delete(_)));
}
