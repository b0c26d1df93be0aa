//! The node agent with a played runtime against a real API server: no privileges needed.
//!
//! Needs the example program `apiserver`, which `cargo test --workspace` builds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kube_client::{
    CONFIG_MAPS, Client, DeleteOptions, EVENTS, ListParams, PODS, Resource, SERVICE_ACCOUNTS,
};
use kubelet::fake::FakeRuntime;
use serde_json::{Value, json};

/// Longest wait for anything: far more than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    _dir: tempfile::TempDir,
    api: Child,
    admin: Client,
    runtime: FakeRuntime,
    token: runtime::CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.token.cancel();
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

fn example(name: &str) -> Option<PathBuf> {
    let deps = std::env::current_exe().ok()?;
    let path = deps.parent()?.parent()?.join("examples").join(name);
    path.exists().then_some(path)
}

impl Scene {
    async fn start() -> Option<Self> {
        let Some(program) = example("apiserver") else {
            println!(
                "skipped: examples/apiserver is not built (cargo build -p theater-apiserver --examples)"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let api = Command::new(program)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        let deadline = Instant::now() + PATIENCE;
        let (admin, node, ca, key) = loop {
            let files = (
                read("admin.kubeconfig"),
                read("node-1.kubeconfig"),
                read("ca.crt"),
                read("ca.key"),
            );
            if let (Some(admin), Some(node), Some(ca), Some(key)) = files
                && !key.is_empty()
            {
                break (admin, node, ca, key);
            }
            assert!(Instant::now() < deadline, "the API server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let client = |text: &str| Client::from_kubeconfig_str(text, None).unwrap();
        let ca = pki::Authority::from_pem(&ca, &key, "").unwrap();
        let validity = pki::Validity::starting(SystemTime::now(), Duration::from_secs(3600));
        let ip = "127.0.0.1".parse().unwrap();
        let serving = ca
            .issue(&pki::CertRequest::server(
                "node-1",
                &["node-1"],
                &[ip],
                validity,
            ))
            .unwrap();
        let config = kubelet::Config {
            client: client(&node),
            node_name: "node-1".into(),
            node_ip: "127.0.0.1".parse().unwrap(),
            node_port_ips: Vec::new(),
            bridge: "none".into(),
            labels: BTreeMap::new(),
            pod_cidr: "10.10.0.0/16".into(),
            catalog: kubelet::ImageCatalog {
                images: vec![kubelet::Image {
                    names: vec!["play".into()],
                    ..kubelet::Image::default()
                }],
            },
            data_dir: dir.path().join("node"),
            volumes_dir: dir.path().join("node-volumes"),
            dns_ip: "10.97.0.10".parse().unwrap(),
            zone: "cluster.local".into(),
            dns_forward: None,
            tls: kubelet::ServerTls {
                cert_pem: serving.chain_pem,
                key_pem: serving.key_pem,
                client_ca_pem: ca.root_pem().to_owned(),
            },
            log_max_bytes: 1 << 20,
            version: "test".into(),
        };
        let runtime = FakeRuntime::default();
        let token = runtime::CancellationToken::new();
        tokio::spawn(kubelet::run_with(
            config,
            Arc::new(runtime.clone()),
            false,
            token.clone(),
        ));
        let scene = Self {
            _dir: dir,
            admin: client(&admin),
            api,
            runtime,
            token,
        };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
        let _ = scene
            .admin
            .create(&SERVICE_ACCOUNTS, Some("default"), &account)
            .await;
        scene.config_map("kube-root-ca.crt", "ca.crt").await;
        Some(scene)
    }

    async fn config_map(&self, name: &str, key: &str) {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {key: "x"}});
        let _ = self.admin.create(&CONFIG_MAPS, Some("default"), &map).await;
    }

    async fn create(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("node-1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.admin
            .create(&PODS, Some("default"), &pod)
            .await
            .unwrap();
    }

    async fn until(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = self
                .admin
                .get(&PODS, Some("default"), name)
                .await
                .unwrap_or_default();
            if condition(&pod) {
                return pod;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is never {what}: {:#}",
                pod["status"]
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Scene {
    /// Waits for an event with this reason and message.
    async fn until_event(&self, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self
                .admin
                .list(&EVENTS, Some("default"), &ListParams::default())
                .await
                .unwrap();
            let text =
                |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let seen: Vec<String> = events
                .items
                .iter()
                .map(|event| format!("{} {}", text(event, "reason"), text(event, "message")))
                .collect();
            if seen.iter().any(|event| event == expected) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{expected} is not among {seen:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn container(command: &[&str]) -> Value {
    json!({"name": "c", "image": "any/play:1", "command": command})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_run_reported_and_cleared_away() {
    let Some(scene) = Scene::start().await else {
        return;
    };

    // A pod that does its work and ends.
    scene
        .create(
            "job",
            json!({"restartPolicy": "Never", "containers": [container(&["print", "done"])]}),
        )
        .await;
    let pod = scene
        .until("job", "Succeeded", |pod| {
            pod["status"]["phase"] == "Succeeded"
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );

    // One that crashes: restarted at once, then with a back-off.
    scene
        .create("crash", json!({"containers": [container(&["exit", "3"])]}))
        .await;
    let pod = scene
        .until("crash", "in back-off", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    let status = &pod["status"]["containerStatuses"][0];
    // More than one when nobody looked for longer than the first back-off.
    assert!(status["restartCount"].as_u64() >= Some(1), "{status}");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);

    // One whose program does not exist, and one whose configmap comes late.
    scene
        .create("typo", json!({"containers": [container(&["nope"])]}))
        .await;
    let pod = scene
        .until("typo", "failed to start", |pod| {
            pod["status"]["containerStatuses"][0]["lastState"]["terminated"].is_object()
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"],
        "StartError"
    );
    let mut late = container(&["run"]);
    late["envFrom"] = json!([{"configMapRef": {"name": "late"}}]);
    scene
        .create(
            "late",
            json!({"terminationGracePeriodSeconds": 1, "containers": [late]}),
        )
        .await;
    let pod = scene
        .until("late", "waiting for its configmap", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"late\" not found"
    );
    scene.config_map("late", "KEY").await;
    scene
        .until("late", "running", |pod| pod["status"]["phase"] == "Running")
        .await;
    let key = ("KEY".to_owned(), "x".to_owned());
    let started = scene.runtime.started.lock().clone();
    let late = started.iter().find(|spec| spec.env.contains(&key));
    assert!(
        late.expect("a container with the configmap's key")
            .resolv_conf
            .starts_with("search default.svc.cluster.local svc.cluster.local cluster.local\n")
    );

    // One that asks for a way of running containers that this node does not have.
    const CLASSES: Resource =
        Resource::fixed("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass");
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "isolated"}, "handler": "gvisor"});
    scene.admin.create(&CLASSES, None, &class).await.unwrap();
    scene
        .create(
            "isolated",
            json!({"runtimeClassName": "isolated", "containers": [container(&["run"])]}),
        )
        .await;

    // One that ignores SIGTERM is killed when its grace period is over, and its object goes.
    scene
        .create(
            "stubborn",
            json!({"terminationGracePeriodSeconds": 1, "containers": [container(&["stubborn"])]}),
        )
        .await;
    scene
        .until("stubborn", "running", |pod| {
            pod["status"]["phase"] == "Running"
        })
        .await;
    let begin = Instant::now();
    scene
        .admin
        .delete(
            &PODS,
            Some("default"),
            "stubborn",
            &DeleteOptions::default(),
        )
        .await
        .unwrap();
    scene.until("stubborn", "gone", Value::is_null).await;
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        scene
            .runtime
            .calls
            .lock()
            .contains(&"destroy default/stubborn".to_owned())
    );

    let pod = scene.until("isolated", "there", Value::is_object).await;
    assert_eq!(pod["status"]["phase"], "Pending");

    // What people see of it, a moment after it has happened.
    for expected in [
        "Pulled Container image \"any/play:1\" already present on machine",
        "Started Started container c",
        "Failed Error: configmap \"late\" not found",
        "Killing Stopping container c",
        "FailedCreatePodSandBox Failed to create pod sandbox: failed to get sandbox runtime: no runtime for \"gvisor\" is configured; this node has runc",
    ] {
        scene.until_event(expected).await;
    }
}
