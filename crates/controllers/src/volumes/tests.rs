use super::*;
use crate::action::Verb;

fn made(value: Value) -> Arc<Value> {
    Arc::new(value)
}

fn a_claim(class: &str, size: &str) -> Value {
    json!({"metadata": {"name": "c", "namespace": "n", "uid": "u1", "resourceVersion": "5"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": size}}}, "status": {"phase": "Pending"}})
}

fn a_volume(name: &str, class: &str, size: &str) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": "7"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "volumeMode": "Filesystem",
            "capacity": {"storage": size}, "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/d"}},
        "status": {"phase": "Available"}})
}

fn a_class(name: &str, provisioner: &str, mode: &str) -> Arc<Value> {
    made(
        json!({"metadata": {"name": name}, "provisioner": provisioner, "reclaimPolicy": "Delete", "volumeBindingMode": mode}),
    )
}

fn patches(step: &Step) -> Vec<(String, Value)> {
    step.actions
        .iter()
        .map(|a| match &a.verb {
            Verb::Patch(patch, _) => (a.target.name.clone(), patch.clone()),
            Verb::Create(object) => ("create".to_owned(), object.clone()),
            Verb::Delete(_) => ("delete".to_owned(), Value::Null),
        })
        .collect()
}

#[test]
fn a_claim_gets_the_smallest_volume_that_will_do() {
    let volumes = vec![
        made(a_volume("big", "manual", "20Gi")),
        made(a_volume("right", "manual", "10Gi")),
        made(a_volume("small", "manual", "1Gi")),
        made(a_volume("other", "fast", "5Gi")),
    ];
    let observed = Observed {
        volumes,
        ..Observed::default()
    };
    let step = claim(&made(a_claim("manual", "5Gi")), &observed);
    let done = patches(&step);
    assert_eq!(done[0].0, "right");
    assert_eq!(done[0].1["spec"]["claimRef"]["uid"], "u1");
    assert_eq!(done[1].1["spec"]["volumeName"], "right");
    assert_eq!(done[2].1["status"]["capacity"]["storage"], "10Gi");
    let mut wants_many = a_claim("manual", "1Gi");
    wants_many["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    let step = claim(&made(wants_many), &observed);
    assert_eq!(
        step.events[0].message,
        "storageclass.storage.k8s.io \"manual\" not found"
    );
    let step = claim(&made(a_claim("", "1Gi")), &observed);
    assert_eq!(step.events[0].reason, "FailedBinding");
}

#[test]
fn a_class_that_waits_makes_a_volume_on_the_node_of_the_first_pod() {
    let observed = Observed {
        classes: vec![a_class("standard", PROVISIONER, "WaitForFirstConsumer")],
        nodes: vec![made(
            json!({"metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "node-1"}}}),
        )],
        ..Observed::default()
    };
    let mut wanted = a_claim("standard", "1Gi");
    assert_eq!(
        claim(&made(wanted.clone()), &observed).events[0].reason,
        "WaitForFirstConsumer"
    );
    wanted["metadata"]["annotations"] = json!({SELECTED_NODE: "node-1"});
    let step = claim(&made(wanted), &observed);
    let (_, volume) = &patches(&step)[0];
    assert_eq!(volume["metadata"]["name"], "pvc-u1");
    assert_eq!(volume["spec"]["claimRef"]["name"], "c");
    assert_eq!(
        volume["metadata"]["finalizers"],
        json!([VOLUME_IN_USE, DIRECTORY_FINALIZER])
    );
    // Without waiting it is made at once; by somebody else's provisioner, not here.
    let classes = |class| Observed {
        classes: vec![class],
        nodes: vec![made(json!({"metadata": {"name": "node-1", "labels": {}}}))],
        ..Observed::default()
    };
    let at_once = claim(
        &made(a_claim("now", "1Gi")),
        &classes(a_class("now", PROVISIONER, "Immediate")),
    );
    assert_eq!(patches(&at_once)[0].0, "create");
    let other = claim(
        &made(a_claim("ebs", "1Gi")),
        &classes(a_class("ebs", "ebs.csi.aws.com", "Immediate")),
    );
    assert_eq!(other.events[0].reason, "ExternalProvisioning");
}

#[test]
fn a_volume_follows_its_claim() {
    let now = Time::UNIX_EPOCH;
    let phase = |v: Value, claims: Vec<Arc<Value>>| {
        let step = volume(
            &made(v),
            &Observed {
                claims,
                ..Observed::default()
            },
            now,
        );
        patches(&step)
            .first()
            .map(|(name, patch)| match name.as_str() {
                "delete" => "deleted".to_owned(),
                _ => text(&patch["status"]["phase"]).to_owned(),
            })
    };
    let mut fresh = a_volume("v", "manual", "1Gi");
    fresh["status"]["phase"] = "Pending".into();
    assert_eq!(phase(fresh, vec![]).as_deref(), Some("Available"));
    let mut given = a_volume("v", "manual", "1Gi");
    given["spec"]["claimRef"] = json!({"namespace": "n", "name": "c", "uid": "u1"});
    let mut bound = a_claim("manual", "1Gi");
    bound["spec"]["volumeName"] = "v".into();
    bound["status"]["phase"] = "Bound".into();
    assert_eq!(
        phase(given.clone(), vec![made(bound)]).as_deref(),
        Some("Bound")
    );
    given["status"]["phase"] = "Bound".into();
    assert_eq!(phase(given.clone(), vec![]).as_deref(), Some("Released"));
    given["status"]["phase"] = "Released".into();
    assert_eq!(phase(given.clone(), vec![]), None, "kept for its owner");
    given["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
    assert_eq!(phase(given.clone(), vec![]).as_deref(), Some("Failed"));
    given["metadata"]["annotations"] = json!({PROVISIONED_BY: PROVISIONER});
    assert_eq!(phase(given, vec![]).as_deref(), Some("deleted"));
}

#[test]
fn nothing_in_use_goes_away() {
    let mut going = a_claim("manual", "1Gi");
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    going["metadata"]["finalizers"] = json!([CLAIM_IN_USE]);
    let pod = |phase: &str| {
        made(
            json!({"metadata": {"name": "p"}, "status": {"phase": phase},
            "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}),
        )
    };
    let with = |pods| Observed {
        pods,
        ..Observed::default()
    };
    assert!(
        claim(&made(going.clone()), &with(vec![pod("Running")]))
            .actions
            .is_empty()
    );
    assert_eq!(
        claim(&made(going), &with(vec![pod("Succeeded")]))
            .actions
            .len(),
        1
    );
    let mut volume_going = a_volume("v", "manual", "1Gi");
    volume_going["spec"]["claimRef"] = json!({"namespace": "n", "name": "c", "uid": "u1"});
    volume_going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    volume_going["metadata"]["finalizers"] = json!([VOLUME_IN_USE]);
    let mut bound = a_claim("manual", "1Gi");
    bound["spec"]["volumeName"] = "v".into();
    let used = Observed {
        claims: vec![made(bound)],
        ..Observed::default()
    };
    assert!(
        volume(&made(volume_going.clone()), &used, Time::UNIX_EPOCH)
            .actions
            .is_empty()
    );
    assert_eq!(
        volume(&made(volume_going), &Observed::default(), Time::UNIX_EPOCH)
            .actions
            .len(),
        1
    );
}

#[test]
fn a_bound_claim_without_its_volume_is_lost() {
    let mut bound = a_claim("manual", "1Gi");
    bound["spec"]["volumeName"] = "gone".into();
    assert!(
        claim(&made(bound.clone()), &Observed::default())
            .actions
            .is_empty(),
        "it may still come"
    );
    bound["status"]["phase"] = "Bound".into();
    let step = claim(&made(bound), &Observed::default());
    assert_eq!(patches(&step)[0].1["status"]["phase"], "Lost");
}

#[test]
fn a_volume_that_was_made_for_a_claim_grows_with_it() {
    let mut bound = a_claim("standard", "3Gi");
    bound["spec"]["volumeName"] = "v".into();
    bound["metadata"]["annotations"] = json!({COMPLETED: "yes"});
    bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
    let mut volume = a_volume("v", "standard", "1Gi");
    volume["spec"]["claimRef"] = json!({"namespace": "n", "name": "c", "uid": "u1"});
    let judged = |volume: &Value| {
        let observed = Observed {
            volumes: vec![made(volume.clone())],
            ..Observed::default()
        };
        claim(&made(bound.clone()), &observed)
    };
    assert!(
        patches(&judged(&volume)).is_empty(),
        "a volume somebody made stays as it is"
    );
    volume["metadata"]["annotations"] = json!({PROVISIONED_BY: PROVISIONER});
    let step = judged(&volume);
    let grown = json!({"spec": {"capacity": {"storage": "3Gi"}}});
    assert_eq!(patches(&step), [("v".to_owned(), grown)]);
    assert_eq!(step.events[0].reason, "VolumeResizeSuccessful");
    volume["spec"]["capacity"]["storage"] = "3Gi".into();
    let done = patches(&judged(&volume));
    assert_eq!(done[0].1["status"]["capacity"]["storage"], "3Gi");
}
