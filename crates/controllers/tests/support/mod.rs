//! A cluster without containers: the real API server, the controllers, and a pretended node
//! agent that calls every pod running.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kube_client::{
    Auth, Client, Config, DeleteOptions, ListParams, NODES, PODS, PatchType, Resource, Store,
    StoreEvent,
};
use runtime::CancellationToken;
use serde_json::{Value, json};

/// Longest wait for anything in a test: each test has a cluster, and a busy machine runs them all at once.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Cluster {
    pub client: Client,
    pub directory: tempfile::TempDir,
    token: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Cluster {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = CancellationToken::new();
        let now = SystemTime::now() - Duration::from_secs(60);
        let ca = pki::Authority::new_root("kubernetes", "test", now, 10).unwrap();
        let day = pki::Validity::starting(now, Duration::from_secs(86_400));
        let local = "127.0.0.1".parse().unwrap();
        let serving = ca
            .issue(&pki::CertRequest::server(
                "api",
                &["localhost"],
                &[local],
                day,
            ))
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let signing_key = pki::KeyPair::generate().unwrap().to_pem();
        let config = apiserver::Config {
            cluster: "test".into(),
            data_dir: directory.path().join("objects"),
            listener,
            serving_cert_pem: serving.chain_pem,
            serving_key_pem: serving.key_pem,
            client_ca_pem: ca.root_pem().to_owned(),
            service_account_key_pem: signing_key.clone(),
            issuer: apiserver::DEFAULT_ISSUER.into(),
            advertise: address,
            service_cidr: "10.97.0.0/16".into(),
            load_balancer_pool: "203.0.113.10".parse().unwrap()..="203.0.113.60".parse().unwrap(),
            node_ports: 30_000..=32_767,
            kubelet: None,
        };
        apiserver::run(config, token.clone()).await.unwrap();
        let client = |user: &str, groups: &[&str]| {
            let issued = ca
                .issue(&pki::CertRequest::client(user, groups, day))
                .unwrap();
            let auth = Auth::ClientCert {
                cert_pem: issued.chain_pem,
                key_pem: issued.key_pem,
            };
            Client::new(Config::new(
                format!("https://{address}"),
                ca.root_pem(),
                auth,
            ))
            .unwrap()
        };
        let admin = ca
            .issue(&pki::CertRequest::client("admin", &["system:masters"], day))
            .unwrap();
        write_kubeconfig(directory.path(), &address.to_string(), &ca, &admin);
        let controllers = theater_controllers::Config {
            controller_manager: client("system:kube-controller-manager", &[]),
            scheduler: client("system:kube-scheduler", &[]),
            root_ca_pem: ca.root_pem().to_owned(),
            service_account_key_pem: Some(signing_key),
            signer: Some(Arc::new(
                pki::Authority::from_pem(ca.cert_pem(), ca.key_pem(), "").unwrap(),
            )),
        };
        tokio::spawn(theater_controllers::run(controllers, token.clone()));
        let client = client("test", &["system:masters"]);
        tokio::spawn(pretend_node_agent(client.clone(), token.clone()));
        let cluster = Self {
            client,
            directory,
            token,
        };
        cluster.add_node("node-1").await;
        cluster
    }

    pub async fn add_node(&self, name: &str) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        });
        self.client.create(&NODES, None, &node).await.unwrap();
        let status = json!({"status": {
            "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }});
        self.client
            .patch(
                &NODES,
                None,
                name,
                &PatchType::Merge,
                &status,
                Some("status"),
            )
            .await
            .unwrap();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Runs the real kubectl and returns what it prints; it must succeed.
    pub async fn kubectl(&self, arguments: &str) -> String {
        let output = self.try_kubectl(arguments, "").await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kubectl {arguments}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    pub async fn apply(&self, yaml: &str) {
        // A leading brace would make it JSON.
        let output = self
            .try_kubectl("apply -f -", &format!("---\n{yaml}\n"))
            .await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    async fn try_kubectl(&self, arguments: &str, input: &str) -> Output {
        use tokio::io::AsyncWriteExt as _;
        let mut child = tokio::process::Command::new("kubectl")
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.directory.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("these tests drive the real kubectl: put it on the PATH (https://kubernetes.io/docs/tasks/tools/)");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        output
            .unwrap_or_else(|_| panic!("kubectl {arguments} does not end"))
            .unwrap()
    }

    pub async fn get(&self, resource: &Resource, ns: &str, name: &str) -> Value {
        let ns = Some(ns).filter(|ns| !ns.is_empty());
        self.client.get(resource, ns, name).await.unwrap()
    }

    pub async fn list(&self, resource: &Resource, ns: &str) -> Vec<Value> {
        self.client
            .list(resource, Some(ns), &ListParams::default())
            .await
            .unwrap()
            .items
    }

    /// Waits until the objects of a namespace are as wanted.
    pub async fn until(
        &self,
        resource: &Resource,
        ns: &str,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let store = Store::start(
            self.client.clone(),
            resource.clone(),
            Some(ns),
            ListParams::default(),
            &self.token,
        );
        store.wait_synced().await;
        let mut changed = store.changed();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changed.mark_unchanged();
            let objects: Vec<Value> = store
                .list()
                .iter()
                .map(|object| object.as_ref().clone())
                .collect();
            if wanted(&objects) {
                return objects;
            }
            let wait = tokio::time::timeout_at(deadline.into(), changed.changed()).await;
            assert!(
                wait.is_ok(),
                "{what} does not happen; there is: {objects:#?}"
            );
        }
    }
}

fn write_kubeconfig(directory: &Path, address: &str, ca: &pki::Authority, user: &pki::Issued) {
    use std::io::Write as _;
    for (name, text) in [
        ("ca.pem", ca.root_pem()),
        ("user.pem", user.chain_pem.as_str()),
        ("key.pem", user.key_pem.as_str()),
    ] {
        std::fs::File::create(directory.join(name))
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://{address}', certificate-authority: ca.pem}}}}]\n\
         users: [{{name: test, user: {{client-certificate: user.pem, client-key: key.pem}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    );
    std::fs::write(directory.join("kubeconfig"), text).unwrap();
}

/// Calls assigned pods running and ready, and ends those that are deleted. Images called
/// `broken` never become ready; images called `once` succeed at once.
async fn pretend_node_agent(client: Client, token: CancellationToken) {
    let store = Store::start(client.clone(), PODS, None, ListParams::default(), &token);
    let mut events = store.subscribe();
    let mut next_ip = 0u32;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = token.cancelled() => None,
        };
        let Some(event) = event else { return };
        let pod = event.object().clone();
        if matches!(event, StoreEvent::Deleted(_)) || pod["spec"]["nodeName"].is_null() {
            continue;
        }
        let (client, name) = (
            client.clone(),
            pod["metadata"]["name"].as_str().unwrap().to_owned(),
        );
        let ns = pod["metadata"]["namespace"].as_str().unwrap().to_owned();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let now = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::default()
            };
            tokio::spawn(async move {
                let _ = client.delete(&PODS, Some(&ns), &name, &now).await;
            });
            continue;
        }
        if pod["status"]["phase"] != "Pending" {
            continue;
        }
        next_ip += 1;
        let image = pod["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap()
            .to_owned();
        tokio::spawn(async move {
            let status = running(&image, next_ip);
            let _ = client
                .patch(
                    &PODS,
                    Some(&ns),
                    &name,
                    &PatchType::Merge,
                    &status,
                    Some("status"),
                )
                .await;
        });
    }
}

fn running(image: &str, number: u32) -> Value {
    let now = api::time::rfc3339(api::time::Time::now_utc());
    let ready = if image == "broken" || image == "once" {
        "False"
    } else {
        "True"
    };
    let phase = if image == "once" {
        "Succeeded"
    } else {
        "Running"
    };
    let ip = format!("10.10.{}.{}", number / 250, number % 250 + 1);
    json!({"status": {
        "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": ready, "lastTransitionTime": now},
        ],
    }})
}

pub fn deployment(name: &str, replicas: u32, image: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: default}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, \
         spec: {{containers: [{{name: c, image: {image}, ports: [{{name: http, containerPort: 8080}}]}}]}}}}}}}}"
    )
}
