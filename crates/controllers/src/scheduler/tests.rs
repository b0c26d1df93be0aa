use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn node(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": "kr-1", "cores": "8"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    })
}

fn snapshot(nodes: Vec<Value>) -> Snapshot {
    Snapshot {
        nodes: nodes
            .into_iter()
            .map(|node| NodeInfo {
                node: Arc::new(node),
                pods: vec![],
            })
            .collect(),
        namespaces: BTreeMap::from([("a".to_owned(), json!({"team": "x"}))]),
        ..Snapshot::default()
    }
}

fn pod(name: &str, spec: Value) -> Arc<Value> {
    Arc::new(
        json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": name}}, "spec": spec}),
    )
}

fn message(pod: &Value, snapshot: &Snapshot) -> String {
    decide(pod, snapshot).unwrap_err().message
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"resources": {"requests": {"cpu": amount}}}]})
}

#[test]
fn messages_are_those_of_kube_scheduler() {
    let mut cordoned = node("n2");
    cordoned["spec"]["unschedulable"] = json!(true);
    let two = snapshot(vec![node("n1"), node("n2")]);
    let one_cordoned = snapshot(vec![node("n1"), cordoned]);
    let selected = pod("p", json!({"nodeSelector": {"x": "y"}}));
    let big = pod("p", cpu("5000"));
    let named = pod(
        "p",
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["nope"]}]}]}}}}),
    );
    // Taken from a real kube-scheduler 1.32 given the same objects.
    let table = [
        (
            &selected,
            &two,
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
        (
            &selected,
            &one_cordoned,
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
        (
            &big,
            &two,
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
        ),
        (
            &big,
            &one_cordoned,
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
        ),
        (
            &named,
            &two,
            "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
    ];
    for (pod, snapshot, expected) in table {
        assert_eq!(message(pod, snapshot), expected);
    }
    assert_eq!(
        message(&big, &Snapshot::default()),
        "no nodes available to schedule pods"
    );
}

#[test]
fn taints_need_tolerations() {
    let mut tainted = node("n1");
    tainted["spec"]["taints"] =
        json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    let snapshot = snapshot(vec![tainted]);
    let text = message(&pod("p", json!({})), &snapshot);
    assert!(
        text.contains("1 node(s) had untolerated taint {dedicated: db}"),
        "{text}"
    );
    for (toleration, fits) in [
        (
            json!({"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}),
            true,
        ),
        (json!({"key": "dedicated", "value": "db"}), true),
        (json!({"key": "dedicated", "operator": "Exists"}), true),
        (json!({"operator": "Exists"}), true),
        (json!({"key": "dedicated", "value": "web"}), false),
        (
            json!({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}),
            false,
        ),
        (json!({"value": "db"}), false),
    ] {
        let pod = pod("p", json!({"tolerations": [toleration]}));
        assert_eq!(decide(&pod, &snapshot).is_ok(), fits, "{toleration}");
    }
}

#[test]
fn node_affinity_operators() {
    let snapshot = snapshot(vec![node("n1")]);
    for (requirement, fits) in [
        (
            json!({"key": "zone", "operator": "In", "values": ["kr-1", "kr-2"]}),
            true,
        ),
        (
            json!({"key": "zone", "operator": "In", "values": ["kr-2"]}),
            false,
        ),
        (
            json!({"key": "zone", "operator": "NotIn", "values": ["kr-2"]}),
            true,
        ),
        (
            json!({"key": "none", "operator": "NotIn", "values": ["kr-2"]}),
            true,
        ),
        (json!({"key": "zone", "operator": "Exists"}), true),
        (json!({"key": "none", "operator": "Exists"}), false),
        (json!({"key": "none", "operator": "DoesNotExist"}), true),
        (
            json!({"key": "cores", "operator": "Gt", "values": ["4"]}),
            true,
        ),
        (
            json!({"key": "cores", "operator": "Gt", "values": ["8"]}),
            false,
        ),
        (
            json!({"key": "cores", "operator": "Lt", "values": ["9"]}),
            true,
        ),
        (
            json!({"key": "zone", "operator": "Lt", "values": ["9"]}),
            false,
        ),
    ] {
        let terms = |terms: Value| {
            pod(
                "p",
                json!({"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
            )
        };
        let alone = terms(json!([{"matchExpressions": [requirement]}]));
        assert_eq!(decide(&alone, &snapshot).is_ok(), fits, "{requirement}");
        // Terms are alternatives; an empty one fits nothing.
        let with_empty = terms(json!([{}, {"matchExpressions": [requirement]}]));
        assert_eq!(
            decide(&with_empty, &snapshot).is_ok(),
            fits,
            "{requirement}"
        );
    }
}

#[test]
fn resources_of_running_pods_count() {
    let mut snapshot = snapshot(vec![node("n1"), node("n2")]);
    snapshot.nodes[0].pods.push(pod("a", cpu("3")));
    assert_eq!(decide(&pod("p", cpu("2")), &snapshot), Ok("n2"));
    snapshot.nodes[1].pods.push(pod("b", cpu("2500m")));
    let text = message(&pod("p", cpu("2")), &snapshot);
    assert!(
        text.starts_with("0/2 nodes are available: 2 Insufficient cpu."),
        "{text}"
    );
    assert_eq!(decide(&pod("p", cpu("1500m")), &snapshot), Ok("n2"));
    let mut full = node("n1");
    full["status"]["allocatable"]["pods"] = json!("0");
    let text = message(
        &pod("p", cpu("100")),
        &Snapshot {
            nodes: vec![NodeInfo {
                node: Arc::new(full),
                pods: vec![],
            }],
            ..Snapshot::default()
        },
    );
    assert!(
        text.contains("1 Insufficient cpu, 1 Too many pods"),
        "{text}"
    );
}

#[test]
fn the_emptier_node_is_chosen_and_preferences_weigh() {
    let mut snapshot = snapshot(vec![node("n1"), node("n2")]);
    assert_eq!(decide(&pod("p", cpu("1")), &snapshot), Ok("n1"));
    snapshot.nodes[0].pods.push(pod("a", cpu("1")));
    assert_eq!(decide(&pod("p", cpu("1")), &snapshot), Ok("n2"));
    let mut spec = cpu("1");
    spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}}]}});
    assert_eq!(decide(&pod("p", spec), &snapshot), Ok("n1"));
}

#[test]
fn pods_that_want_to_be_apart_or_together() {
    let term = |app: &str| json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]);
    let rule = |kind: &str, app: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(app)}}});
    let mut snapshot = snapshot(vec![node("n1"), node("n2")]);
    snapshot.nodes[0].pods.push(pod("web", json!({})));
    assert_eq!(
        decide(&pod("p", rule("podAntiAffinity", "web")), &snapshot),
        Ok("n2")
    );
    assert_eq!(
        decide(&pod("p", rule("podAffinity", "web")), &snapshot),
        Ok("n1")
    );
    let text = message(&pod("p", rule("podAffinity", "db")), &snapshot);
    assert!(
        text.contains("2 node(s) didn't match pod affinity rules"),
        "{text}"
    );
    // The first of a group may start it.
    assert!(decide(&pod("db", rule("podAffinity", "db")), &snapshot).is_ok());
    snapshot.nodes[1]
        .pods
        .push(pod("shy", rule("podAntiAffinity", "p")));
    snapshot.nodes[0]
        .pods
        .push(pod("shy", rule("podAntiAffinity", "p")));
    let text = message(&pod("p", json!({})), &snapshot);
    assert_eq!(
        text,
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
}

#[test]
fn host_ports_collide() {
    let with_port = |ip: &str| json!({"containers": [{"ports": [{"hostPort": 80, "hostIP": ip}]}]});
    let mut snapshot = snapshot(vec![node("n1")]);
    snapshot.nodes[0].pods.push(pod("a", with_port("10.0.0.1")));
    assert!(decide(&pod("p", with_port("10.0.0.2")), &snapshot).is_ok());
    let text = message(&pod("p", with_port("")), &snapshot);
    assert!(
        text.contains("1 node(s) didn't have free ports for the requested pod ports"),
        "{text}"
    );
}

#[test]
fn the_condition_keeps_its_time_while_it_stays_false() {
    let now = api::time::Time::UNIX_EPOCH + time::Duration::seconds(100);
    let mut pod = json!({"metadata": {"resourceVersion": "9"}, "status": {"conditions": [{"type": "Other"}]}});
    let patch = run::unschedulable_patch(&pod, "no", now);
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 2);
    assert_eq!(conditions[1]["lastTransitionTime"], "1970-01-01T00:01:40Z");
    pod["status"] = patch["status"].clone();
    let later = run::unschedulable_patch(&pod, "still no", now + time::Duration::seconds(50));
    assert_eq!(
        later["status"]["conditions"][1]["lastTransitionTime"],
        "1970-01-01T00:01:40Z"
    );
    assert_eq!(later["status"]["conditions"][1]["message"], "still no");
}
