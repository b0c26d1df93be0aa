//! What all pods of a node share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_client::events::{EventType, Note, Recorder};
use kube_client::{CONFIG_MAPS, Client, SECRETS, Store};
use parking_lot::{Mutex, RwLock};
use runtime::CancellationToken;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::AttachHub;
use crate::catalog::ImageCatalog;
use crate::cri::{Process, Runtime, Sandbox};
use crate::env::{FieldContext, Objects, RefKind};
use crate::ipam::Ipam;
use crate::logs::Logs;
use crate::pod_sync::{Input, PodEvent};
use crate::probes::Checker;
use crate::volumes::VolumeDirs;

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Name of the node.
    pub node_name: String,
    /// `status.hostIP` of its pods.
    pub node_ip: Ipv4Addr,
    /// Address of the cluster DNS.
    pub dns_ip: Ipv4Addr,
    /// Zone of the cluster DNS, `cluster.local`.
    pub zone: String,
    /// Allocatable resources of the node, for resource field references.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// Local copies of what pods refer to.
#[derive(Clone)]
pub struct Stores {
    /// All configmaps.
    pub config_maps: Store,
    /// All secrets.
    pub secrets: Store,
    /// All services.
    pub services: Store,
}

/// A running container instance.
pub struct Live {
    /// Which instance.
    pub instance: u32,
    /// Its first process.
    pub process: Arc<dyn Process>,
    /// Its standard streams.
    pub attach: Arc<AttachHub>,
    /// When it started.
    pub started_at: crate::clock::Millis,
    /// Cancelled when it has ended.
    pub ended: CancellationToken,
    /// Cancelled when it is asked to stop: probes end.
    pub stopping: CancellationToken,
    /// The stop in progress.
    pub(super) stop: Mutex<Option<AbortHandle>>,
}

/// A pod of this node, as the server and the worker's tasks see it.
pub struct PodHandle {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// When this node first saw it.
    pub seen_at: std::time::Instant,
    /// The object as last seen.
    pub pod: RwLock<Arc<Pod>>,
    /// The status as last computed.
    pub status: RwLock<serde_json::Value>,
    /// The sandbox, while there is one.
    pub sandbox: RwLock<Option<Arc<dyn Sandbox>>>,
    /// Its address.
    pub ip: RwLock<Option<Ipv4Addr>>,
    /// Running containers by name.
    pub containers: RwLock<HashMap<String, Arc<Live>>>,
    /// Things that happen, for the worker.
    pub inbox: mpsc::UnboundedSender<Input>,
    /// Cancelled when the pod is over.
    pub token: CancellationToken,
}

/// Runs the pods of a node.
pub struct Engine {
    /// Settings.
    pub config: EngineConfig,
    /// The API.
    pub client: Client,
    /// What makes sandboxes.
    pub runtime: Arc<dyn Runtime>,
    /// Built-in images.
    pub catalog: Arc<ImageCatalog>,
    /// Container logs.
    pub logs: Logs,
    /// Where volumes are.
    pub dirs: VolumeDirs,
    /// Pod addresses.
    pub ipam: Mutex<Ipam>,
    /// Local copies of objects.
    pub stores: Stores,
    /// Events.
    pub recorder: Recorder,
    /// Probes.
    pub checker: Checker,
    /// Uids of pods that the node did not take.
    pub refused: Mutex<HashSet<String>>,
    /// Pods by uid.
    pub pods: RwLock<HashMap<String, Arc<PodHandle>>>,
}

impl Engine {
    /// The pod of this name; the newest, when an older one of the same name is still ending.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodHandle>> {
        let pods = self.pods.read();
        let mut found: Vec<&Arc<PodHandle>> = pods
            .values()
            .filter(|pod| pod.namespace == namespace && pod.name == name)
            .collect();
        found.sort_by_key(|pod| pod.pod.read().metadata.deletion_timestamp.is_some());
        found.first().map(|pod| (*pod).clone())
    }

    /// One configmap or secret. The local copy may lag behind a pod that was created right after
    /// the object, so that "not found" is only believed from the API itself.
    pub(super) async fn object(
        &self,
        kind: RefKind,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<serde_json::Value>> {
        let (store, resource) = match kind {
            RefKind::ConfigMap => (&self.stores.config_maps, &CONFIG_MAPS),
            RefKind::Secret => (&self.stores.secrets, &SECRETS),
        };
        if let Some(object) = store.get(namespace, name) {
            return Some(object);
        }
        match self.client.get(resource, Some(namespace), name).await {
            Ok(object) => Some(Arc::new(object)),
            Err(problem) => {
                if !problem.is_not_found() {
                    tracing::warn!(%problem, namespace, name, "reading a {}", kind.lower());
                }
                None
            }
        }
    }

    /// All objects that are referred to and exist.
    pub(super) async fn objects(
        &self,
        namespace: &str,
        references: &[(RefKind, String)],
    ) -> Objects {
        let mut objects = Objects::new();
        for (kind, name) in references {
            if let Some(object) = self.object(*kind, namespace, name).await {
                objects.insert((*kind, name.clone()), object);
            }
        }
        objects
    }

    /// Addresses and figures for field references.
    pub(super) fn fields(&self, ip: Option<Ipv4Addr>) -> FieldContext {
        FieldContext {
            pod_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_ip: self.config.node_ip.to_string(),
            allocatable: self.config.allocatable.clone(),
        }
    }

    /// Records an event about a pod.
    pub(super) fn event(&self, handle: &PodHandle, event: PodEvent) {
        let field_path = event.container.as_deref().map(|name| {
            let pod = handle.pod.read();
            let init = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.init_containers.as_ref());
            let is_init = init
                .into_iter()
                .flatten()
                .any(|container| container.name == name);
            format!(
                "spec.{}{{{name}}}",
                if is_init {
                    "initContainers"
                } else {
                    "containers"
                }
            )
        });
        self.recorder.note(Note {
            regarding: Arc::new(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": handle.namespace, "name": handle.name, "uid": handle.uid},
            })),
            field_path,
            kind: if event.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: event.reason.into(),
            message: event.message,
            action: None,
        });
    }
}

impl PodHandle {
    /// Tells the worker that something happened; a pod that is over does not listen.
    pub(super) fn tell(&self, input: Input) {
        let _ = self.inbox.send(input);
    }
    /// A running container.
    pub fn live(&self, name: &str) -> Option<Arc<Live>> {
        self.containers.read().get(name).cloned()
    }
}
