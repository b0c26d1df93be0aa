use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Volume;
use serde_json::{Value, json};

use super::*;
use crate::env::{FieldContext, Objects, RefKind};

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}], "volumes": volumes}
    }))
    .unwrap()
}

/// Path → content and mode.
type Shown = BTreeMap<String, (String, u32)>;

fn content(volume: Value) -> Result<Option<Shown>, String> {
    let pod = pod(json!([volume]));
    let mut objects = Objects::new();
    objects.insert(
        (RefKind::ConfigMap, "cfg".into()),
        Arc::new(json!({"data": {"a": "1", "b": "2"}})),
    );
    objects.insert(
        (RefKind::Secret, "sec".into()),
        Arc::new(json!({"data": {"key": "AAH/"}})),
    );
    let fields = FieldContext::default();
    let tokens: BTreeMap<TokenKey, String> = token_requests(&pod)
        .into_iter()
        .map(|key| {
            (
                key.clone(),
                format!("token-{}-{}", key.audience, key.expiration_seconds),
            )
        })
        .collect();
    let context = VolumeContext {
        pod: &pod,
        fields: &fields,
        objects: &objects,
        tokens: &tokens,
    };
    let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    Ok(payload(volume, &context)?.map(|files| {
        files
            .into_iter()
            .map(|(path, file)| {
                (
                    path,
                    (
                        String::from_utf8_lossy(&file.content).into_owned(),
                        file.mode,
                    ),
                )
            })
            .collect()
    }))
}

#[test]
fn contents_of_each_kind_of_volume() {
    for (volume, expected) in [
        (
            json!({"name": "v", "configMap": {"name": "cfg"}}),
            vec![("a", "1", 0o644), ("b", "2", 0o644)],
        ),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "defaultMode": 256, "items": [{"key": "a", "path": "d/x"}, {"key": "b", "path": "y", "mode": 511}]}}),
            vec![("d/x", "1", 0o400), ("y", "2", 0o777)],
        ),
        (
            json!({"name": "v", "configMap": {"name": "gone", "optional": true}}),
            vec![],
        ),
        (
            json!({"name": "v", "secret": {"secretName": "sec"}}),
            vec![("key", "\u{0}\u{1}\u{fffd}", 0o644)],
        ),
        (
            json!({"name": "v", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}}),
            vec![("cpu", "2", 0o644), ("labels", "app=\"x\"", 0o644)],
        ),
        (
            json!({"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 43200}},
                {"serviceAccountToken": {"path": "api"}},
                {"configMap": {"name": "cfg", "items": [{"key": "a", "path": "ca.crt"}]}}]}}),
            vec![
                ("api", "token--3600", 0o644),
                ("ca.crt", "1", 0o644),
                ("token", "token-istio-ca-43200", 0o644),
            ],
        ),
    ] {
        let seen = content(volume.clone()).unwrap().unwrap();
        let seen: Vec<(&str, &str, u32)> = seen
            .iter()
            .map(|(path, (text, mode))| (path.as_str(), text.as_str(), *mode))
            .collect();
        assert_eq!(seen, expected, "{volume}");
    }
    assert_eq!(content(json!({"name": "v", "emptyDir": {}})), Ok(None));
}

#[test]
fn what_cannot_be_mounted_is_said() {
    for (volume, expected) in [
        (
            json!({"name": "v", "configMap": {"name": "gone"}}),
            "configmap \"gone\" not found",
        ),
        (
            json!({"name": "v", "secret": {"secretName": "gone"}}),
            "secret \"gone\" not found",
        ),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "z", "path": "z"}]}}),
            "references non-existent configmap key: z",
        ),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "a", "path": "../z"}]}}),
            "invalid path \"../z\": must be relative and must not contain '..'",
        ),
        (
            json!({"name": "v", "hostPath": {"path": "/"}}),
            "hostPath volumes are refused on this node: pods must not see the machine's files; use emptyDir, configMap, secret, projected or a persistentVolumeClaim",
        ),
        (
            json!({"name": "v", "nfs": {"server": "x", "path": "/"}}),
            "volume type nfs is not offered on this node; use emptyDir, configMap, secret, downwardAPI, projected or persistentVolumeClaim",
        ),
    ] {
        assert_eq!(content(volume).unwrap_err(), expected);
    }
}

fn files(entries: &[(&str, &str)]) -> Payload {
    let file = |text: &str| File {
        content: text.as_bytes().to_vec(),
        mode: 0o600,
    };
    entries
        .iter()
        .map(|(path, text)| ((*path).to_owned(), file(text)))
        .collect()
}

#[test]
fn an_update_replaces_all_files_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    assert!(publish(&volume, &files(&[("a", "1"), ("d/b", "2")]), 1, None).unwrap());
    assert_eq!(std::fs::read_to_string(volume.join("d/b")).unwrap(), "2");
    assert_eq!(
        std::fs::metadata(volume.join("a"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let before = std::fs::read_link(volume.join("..data")).unwrap();
    assert!(
        !publish(&volume, &files(&[("a", "1"), ("d/b", "2")]), 2, None).unwrap(),
        "nothing changed"
    );
    assert_eq!(std::fs::read_link(volume.join("..data")).unwrap(), before);
    assert!(publish(&volume, &files(&[("a", "3"), ("c", "4")]), 3, None).unwrap());
    let read = |name: &str| std::fs::read_to_string(volume.join(name)).ok();
    assert_eq!(
        (read("a"), read("c"), read("d/b")),
        (Some("3".into()), Some("4".into()), None)
    );
    let mut names: Vec<String> = std::fs::read_dir(&volume)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["..3", "..data", "a", "c"]);
    assert!(publish(&volume, &files(&[]), 4, None).unwrap());
    assert!(publish(&volume, &files(&[("x", "1")]), 5, Some(0)).unwrap());
    assert_eq!(
        std::fs::metadata(volume.join("x"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o660
    );
}

#[test]
fn container_mounts_resolve_sub_paths_inside_the_volume() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = VolumeDirs {
        persistent: dir.path().join("disk"),
        ephemeral: dir.path().join("mem"),
        disk: dir.path().join("node"),
    };
    let pod = pod(
        json!([{"name": "cfg", "configMap": {"name": "cfg"}}, {"name": "data", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}}]),
    );
    let volume =
        |index: usize| -> &Volume { &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[index] };
    publish(
        &dirs.volume(&pod, volume(0)),
        &files(&[("a.conf", "1")]),
        1,
        None,
    )
    .unwrap();
    make_empty_dir(&dirs.volume(&pod, volume(1)), false, None, None).unwrap();
    assert_eq!(
        dirs.volume(&pod, volume(1)),
        dir.path().join("disk/u1/data")
    );
    assert_eq!(dirs.volume(&pod, volume(2)), dir.path().join("mem/u1/shm"));
    let container = |mounts: Value| -> Container {
        serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).unwrap()
    };
    let env = [("POD".to_owned(), "p".to_owned())];
    let seen = mounts(
        &pod,
        &container(json!([{"name": "cfg", "mountPath": "/etc/app"}, {"name": "cfg", "mountPath": "/a.conf", "subPath": "a.conf"},
            {"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/own", "subPathExpr": "logs/$(POD)", "readOnly": true}])),
        &dirs,
        &env,
    )
    .unwrap();
    let shown: Vec<(String, &str, bool)> = seen
        .iter()
        .map(|mount| {
            let source = mount
                .source
                .strip_prefix(dir.path())
                .unwrap_or(&mount.source);
            (
                source.display().to_string(),
                mount.target.as_str(),
                mount.read_only,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("mem/u1/cfg/..1/a.conf".to_owned(), "/a.conf", true),
            ("disk/u1/data".to_owned(), "/data", false),
            ("disk/u1/data/logs/p".to_owned(), "/own", true),
            // Deeper targets come later, so that a mount inside another one stays visible.
            ("mem/u1/cfg".to_owned(), "/etc/app", true),
        ]
    );
    for (mount, expected) in [
        (
            json!([{"name": "data", "mountPath": "/x", "subPath": "../y"}]),
            "container c: subPath \"../y\" leaves volume \"data\"",
        ),
        (
            json!([{"name": "no", "mountPath": "/x"}]),
            "container c: volumeMounts names unknown volume \"no\"",
        ),
    ] {
        assert_eq!(mounts_error(&pod, &container(mount), &dirs), expected);
    }
    remove(&dir.path().join("disk/u1"));
    assert!(!dir.path().join("disk/u1").exists());
}

#[test]
fn a_mount_inside_another_one_gets_its_point_in_the_volume_and_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |source: &str, target: &str| {
        let source = dir.path().join(source);
        std::fs::create_dir_all(&source).unwrap();
        Mount {
            source,
            target: target.into(),
            read_only: true,
        }
    };
    let mounts = [
        mount("outer", "/secrets/istio"),
        mount("inner", "/secrets/istio/crl"),
    ];
    make_nested_points(&mounts).unwrap();
    assert!(dir.path().join("outer/crl").is_dir());
    assert!(!dir.path().join("inner/crl").exists());
}

fn mounts_error(pod: &Pod, container: &Container, dirs: &VolumeDirs) -> String {
    mounts(pod, container, dirs, &[]).unwrap_err()
}
