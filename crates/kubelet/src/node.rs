//! The Node object: registration, heartbeat, status.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_client::{Client, LEASES, NODES, PatchType};
use runtime::CancellationToken;
use serde_json::{Value, json};

use crate::catalog::ImageCatalog;
use crate::clock::{self, Millis, rfc3339, rfc3339_micro};

/// The Kubernetes version whose behaviour this node follows.
pub const KUBELET_VERSION: &str = "v1.32.4";
/// Namespace of node leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: u32 = 40;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The status is written this often even when nothing changed.
const REFRESH: Duration = Duration::from_secs(300);

/// What a node says about itself.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// InternalIP.
    pub ip: Ipv4Addr,
    /// Labels besides the well-known ones, which are added where absent.
    pub labels: BTreeMap<String, String>,
    /// `spec.podCIDR`.
    pub pod_cidr: String,
    /// Port of the kubelet's server.
    pub port: u16,
    /// Capacity; all of it is allocatable.
    pub capacity: BTreeMap<String, Quantity>,
    /// Version of this program, for `containerRuntimeVersion`.
    pub version: String,
}

/// What this machine has: cpu, memory, ephemeral-storage of `data_dir`, room for 250 pods.
pub fn capacity(data_dir: &Path) -> BTreeMap<String, Quantity> {
    let cpu = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo_kib(&meminfo).unwrap_or(1024 * 1024);
    let mut capacity = BTreeMap::new();
    let mut set = |name: &str, value: String| capacity.insert(name.to_owned(), Quantity(value));
    set("cpu", cpu.to_string());
    set("memory", format!("{memory}Ki"));
    set("pods", "250".into());
    if let Ok(stat) = nix::sys::statvfs::statvfs(data_dir) {
        let kib = stat.blocks() * stat.fragment_size() / 1024;
        set("ephemeral-storage", format!("{kib}Ki"));
    }
    capacity
}

fn meminfo_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn os_image() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

fn one_line(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The object to register.
pub fn object(info: &NodeInfo) -> Value {
    let mut labels = info.labels.clone();
    for (name, value) in [
        ("kubernetes.io/hostname", info.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": info.name, "labels": labels,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"podCIDR": info.pod_cidr, "podCIDRs": [info.pod_cidr]},
    })
}

/// The node's status at `now`; `since` is when it became ready.
pub fn status(info: &NodeInfo, catalog: &ImageCatalog, since: Millis, now: Millis) -> Value {
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": if status { "True" } else { "False" },
            "lastHeartbeatTime": rfc3339(now),
            "lastTransitionTime": rfc3339(since),
            "reason": reason,
            "message": message,
        })
    };
    let images: Vec<Value> = catalog
        .images
        .iter()
        .map(|image| json!({"names": [image.id(), image.names.first()], "sizeBytes": image.size_bytes}))
        .collect();
    json!({
        "capacity": info.capacity,
        "allocatable": info.capacity,
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        ],
        "addresses": [
            {"type": "InternalIP", "address": info.ip},
            {"type": "Hostname", "address": info.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": info.port}},
        "nodeInfo": {
            "machineID": one_line("/etc/machine-id"),
            "systemUUID": info.name,
            "bootID": one_line("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": one_line("/proc/sys/kernel/osrelease"),
            "osImage": os_image(),
            "containerRuntimeVersion": format!("theater://{}", info.version),
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
        "images": images,
    })
}

/// Registers the node and keeps saying that it is alive until `token` is cancelled.
pub async fn run(
    client: Client,
    info: NodeInfo,
    catalog: std::sync::Arc<ImageCatalog>,
    token: CancellationToken,
) {
    let work = async {
        let since = clock::now();
        let mut wait = Duration::from_millis(50);
        let uid = loop {
            match register(&client, &info, &catalog, since).await {
                Ok(uid) => break uid,
                Err(problem) => {
                    tracing::warn!(%problem, node = info.name, "node not registered, trying again")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        };
        let mut refreshed = tokio::time::Instant::now();
        loop {
            if let Err(problem) = heartbeat(&client, &info.name, &uid).await {
                tracing::warn!(%problem, node = info.name, "lease not renewed");
            }
            tokio::time::sleep(HEARTBEAT).await;
            if refreshed.elapsed() >= REFRESH {
                match register(&client, &info, &catalog, since).await {
                    Ok(_) => refreshed = tokio::time::Instant::now(),
                    Err(problem) => {
                        tracing::warn!(%problem, node = info.name, "node status not written")
                    }
                }
            }
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = work => {}
    }
}

/// Creates the node or brings labels, pod CIDR and status up to date; returns its uid.
async fn register(
    client: &Client,
    info: &NodeInfo,
    catalog: &ImageCatalog,
    since: Millis,
) -> kube_client::Result<String> {
    let wanted = object(info);
    let known = match client.create(&NODES, None, &wanted).await {
        Ok(node) => node,
        // Labels people added stay; taints and unschedulable too.
        Err(problem) if problem.is_already_exists() => {
            let patch = json!({"metadata": {"labels": wanted["metadata"]["labels"]}});
            client
                .patch(&NODES, None, &info.name, &PatchType::Merge, &patch, None)
                .await?
        }
        Err(problem) => return Err(problem),
    };
    let patch = json!({"status": status(info, catalog, since, clock::now())});
    client
        .patch(
            &NODES,
            None,
            &info.name,
            &PatchType::Merge,
            &patch,
            Some("status"),
        )
        .await?;
    Ok(known["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

async fn heartbeat(client: &Client, name: &str, uid: &str) -> kube_client::Result<()> {
    let now = rfc3339_micro(clock::now());
    let patch = json!({"spec": {"renewTime": now, "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS}});
    match client
        .patch_only(
            &LEASES,
            Some(LEASE_NAMESPACE),
            name,
            &PatchType::Merge,
            &patch,
            None,
        )
        .await
    {
        Err(problem) if problem.is_not_found() => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE,
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
            });
            client
                .create_only(&LEASES, Some(LEASE_NAMESPACE), &lease)
                .await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_carries_its_labels_capacity_and_images() {
        let info = NodeInfo {
            name: "ctx1-node-1".into(),
            ip: "10.10.0.1".parse().unwrap(),
            labels: BTreeMap::from([("cluster-name".to_owned(), "ctx1".to_owned())]),
            pod_cidr: "10.10.0.0/16".into(),
            port: 10250,
            capacity: capacity(Path::new("/")),
            version: "0.1.0".into(),
        };
        let node = object(&info);
        assert_eq!(node["metadata"]["labels"]["cluster-name"], "ctx1");
        assert_eq!(
            node["metadata"]["labels"]["kubernetes.io/hostname"],
            "ctx1-node-1"
        );
        assert_eq!(node["spec"]["podCIDR"], "10.10.0.0/16");
        let catalog = ImageCatalog {
            images: vec![crate::catalog::Image {
                names: vec!["redis".into()],
                ..Default::default()
            }],
        };
        let status = status(&info, &catalog, 1_700_000_000_000, 1_700_000_001_000);
        assert_eq!(
            status["nodeInfo"]["containerRuntimeVersion"],
            "theater://0.1.0"
        );
        assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.32.4");
        assert_eq!(status["conditions"][3]["type"], "Ready");
        assert_eq!(
            status["addresses"][0],
            json!({"type": "InternalIP", "address": "10.10.0.1"})
        );
        assert!(
            status["images"][0]["names"][0]
                .as_str()
                .unwrap()
                .starts_with("theater.local/redis@sha256:")
        );
        assert!(crate::quantity::milli(&info.capacity["memory"].0).unwrap() > 0);
        assert_eq!(
            meminfo_kib("MemTotal:       24000 kB\nMemFree: 1 kB"),
            Some(24000)
        );
    }
}
