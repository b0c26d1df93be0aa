//! What istiod watches: Kubernetes objects of its own and of the remote clusters, and the Istio
//! configuration of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use kube_client::{Client, ListParams, Resource, Store};
use parking_lot::Mutex;
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::sync::watch;
use translate::{ClusterObjects, SnapshotInput};

use crate::jwks::KeySets;

/// Kinds that are read from every cluster.
const REGISTRY: [Resource; 5] = [
    kube_client::NAMESPACES,
    kube_client::NODES,
    kube_client::PODS,
    kube_client::SERVICES,
    kube_client::ENDPOINT_SLICES,
];

/// Kinds of Istio configuration, read from the own cluster.
const CONFIGURATION: [Resource; 13] = [
    kube_client::VIRTUAL_SERVICES,
    kube_client::DESTINATION_RULES,
    kube_client::GATEWAYS,
    kube_client::SERVICE_ENTRIES,
    kube_client::SIDECARS,
    kube_client::WORKLOAD_ENTRIES,
    kube_client::WORKLOAD_GROUPS,
    kube_client::ENVOY_FILTERS,
    kube_client::PROXY_CONFIGS,
    kube_client::PEER_AUTHENTICATIONS,
    kube_client::REQUEST_AUTHENTICATIONS,
    kube_client::AUTHORIZATION_POLICIES,
    kube_client::TELEMETRIES,
];

/// Kinds of Kubernetes' own ingress, read from the own cluster.
const INGRESS: [Resource; 2] = [kube_client::INGRESSES, kube_client::INGRESS_CLASSES];

/// Secrets with this label hold the kubeconfig of another cluster of the mesh, under the cluster's id.
const REMOTE_SELECTOR: &str = "istio/multiCluster=true";

/// How long the first configuration waits for remote clusters: a mesh whose other half is away
/// must start all the same.
const REMOTE_SYNC_LIMIT: Duration = Duration::from_secs(2);

struct Registry {
    stores: Vec<Store>,
}

impl Registry {
    fn start(client: &Client, token: &CancellationToken, dirty: &Dirty) -> Self {
        let stores = REGISTRY
            .iter()
            .map(|kind| {
                follow(
                    client,
                    kind.clone(),
                    None,
                    ListParams::default(),
                    token,
                    dirty,
                )
            })
            .collect();
        Self { stores }
    }

    fn objects(&self) -> Vec<Arc<Value>> {
        self.stores.iter().flat_map(Store::list).collect()
    }

    fn is_synced(&self) -> bool {
        self.stores.iter().all(Store::is_synced)
    }

    async fn wait_synced(&self) {
        for store in &self.stores {
            store.wait_synced().await;
        }
    }
}

struct Remote {
    /// The kubeconfig it was made from: another one means another cluster.
    kubeconfig: Vec<u8>,
    client: Client,
    registry: Registry,
    token: CancellationToken,
}

/// Counts changes of everything that is watched.
#[derive(Clone)]
struct Dirty(Arc<watch::Sender<u64>>);

/// Everything that is watched.
pub struct Clusters {
    id: String,
    client: Client,
    namespace: String,
    local: Registry,
    configuration: Vec<Store>,
    ingresses: Vec<Store>,
    secrets: Store,
    remote_secrets: Store,
    mesh: Store,
    remotes: Mutex<BTreeMap<String, Remote>>,
    dirty: Dirty,
    token: CancellationToken,
    key_sets: Arc<KeySets>,
}

impl Clusters {
    /// The key sets that were fetched for RequestAuthentications.
    pub fn key_sets(&self) -> Arc<KeySets> {
        self.key_sets.clone()
    }

    /// The RequestAuthentications of the own cluster.
    pub fn request_authentications(&self) -> Vec<Arc<Value>> {
        self.configuration
            .iter()
            .find(|store| *store.resource() == kube_client::REQUEST_AUTHENTICATIONS)
            .map(Store::list)
            .unwrap_or_default()
    }

    /// Something beside the watched objects has changed.
    pub fn touch(&self) {
        self.dirty.0.send_modify(|count| *count += 1);
    }

    /// Starts to watch the own cluster; `namespace` is istiod's own, `id` the cluster's id in the mesh.
    pub fn start(
        client: Client,
        id: &str,
        namespace: &str,
        token: &CancellationToken,
    ) -> Arc<Self> {
        let dirty = Dirty(Arc::new(watch::Sender::new(0)));
        let all = ListParams::default;
        let everywhere = |kinds: &[Resource]| {
            kinds
                .iter()
                .map(|kind| follow(&client, kind.clone(), None, all(), token, &dirty))
                .collect()
        };
        let system = Some(namespace);
        Arc::new(Self {
            id: id.to_owned(),
            key_sets: Arc::default(),
            namespace: namespace.to_owned(),
            local: Registry::start(&client, token, &dirty),
            configuration: everywhere(&CONFIGURATION),
            ingresses: everywhere(&INGRESS),
            secrets: follow(&client, kube_client::SECRETS, None, all(), token, &dirty),
            remote_secrets: follow(
                &client,
                kube_client::SECRETS,
                system,
                ListParams::labels(REMOTE_SELECTOR),
                token,
                &dirty,
            ),
            mesh: follow(
                &client,
                kube_client::CONFIG_MAPS,
                system,
                ListParams::fields("metadata.name=istio"),
                token,
                &dirty,
            ),
            client,
            remotes: Mutex::new(BTreeMap::new()),
            dirty,
            token: token.clone(),
        })
    }

    /// Waits until everything of the own cluster has been read, and the remote clusters for a while.
    pub async fn wait_synced(&self) {
        self.local.wait_synced().await;
        for store in self.configuration.iter().chain(&self.ingresses) {
            store.wait_synced().await;
        }
        for store in [&self.secrets, &self.remote_secrets, &self.mesh] {
            store.wait_synced().await;
        }
        self.follow_remotes();
        let stores: Vec<Store> = self
            .remotes
            .lock()
            .values()
            .flat_map(|remote| remote.registry.stores.clone())
            .collect();
        let synced = async {
            for store in &stores {
                store.wait_synced().await;
            }
        };
        if tokio::time::timeout(REMOTE_SYNC_LIMIT, synced)
            .await
            .is_err()
        {
            tracing::warn!("starting without a remote cluster that does not answer yet");
        }
    }

    /// A counter that moves with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.dirty.0.subscribe()
    }

    /// Starts and stops watching remote clusters as their Secrets say.
    pub fn follow_remotes(&self) {
        let wanted = remote_kubeconfigs(&self.remote_secrets.list());
        let mut remotes = self.remotes.lock();
        remotes.retain(|id, remote| {
            let keep = wanted.get(id) == Some(&remote.kubeconfig);
            if !keep {
                tracing::info!(cluster = id, "remote cluster removed");
                remote.token.cancel();
            }
            keep
        });
        for (id, kubeconfig) in wanted {
            if id == self.id || remotes.contains_key(&id) {
                continue;
            }
            let text = String::from_utf8_lossy(&kubeconfig);
            match Client::from_kubeconfig_str(&text, None) {
                Ok(client) => {
                    tracing::info!(cluster = id, "remote cluster added");
                    let token = self.token.child_token();
                    let registry = Registry::start(&client, &token, &self.dirty);
                    let remote = Remote {
                        kubeconfig,
                        client,
                        registry,
                        token,
                    };
                    remotes.insert(id, remote);
                }
                Err(error) => {
                    tracing::error!(cluster = id, %error, "the kubeconfig in the remote secret cannot be used");
                }
            }
        }
    }

    /// Clients of all clusters, the own one first.
    pub fn clients(&self) -> Vec<Client> {
        let remotes = self.remotes.lock();
        std::iter::once(self.client.clone())
            .chain(remotes.values().map(|remote| remote.client.clone()))
            .collect()
    }

    /// The clusters as Istio's control plane tells them: the own one, then each with the Secret that names it.
    pub fn statuses(&self) -> Vec<Value> {
        let status = |synced: bool| if synced { "synced" } else { "syncing" };
        let own = self.configuration.iter().all(Store::is_synced) && self.local.is_synced();
        let mut out = vec![json!({"id": self.id, "secretName": "", "syncStatus": status(own)})];
        let remotes = self.remotes.lock();
        for secret in self.remote_secrets.list() {
            let text = |field: &str| secret["metadata"][field].as_str().unwrap_or_default();
            let name = format!("{}/{}", text("namespace"), text("name"));
            for id in remote_kubeconfigs(std::slice::from_ref(&secret)).into_keys() {
                if let Some(remote) = remotes.get(&id) {
                    let synced = status(remote.registry.is_synced());
                    out.push(json!({"id": id, "secretName": name, "syncStatus": synced}));
                }
            }
        }
        out
    }

    /// All objects of this moment. `domain` is that of Kubernetes services.
    pub fn input(&self, domain: &str) -> SnapshotInput {
        let mut clusters = vec![ClusterObjects {
            id: self.id.clone(),
            network: None,
            objects: self.own_objects(),
        }];
        for (id, remote) in &*self.remotes.lock() {
            clusters.push(ClusterObjects {
                id: id.clone(),
                network: None,
                objects: remote.registry.objects(),
            });
        }
        SnapshotInput {
            config_cluster: self.id.clone(),
            clusters,
            config: self.configuration.iter().flat_map(Store::list).collect(),
            mesh: self.yaml("mesh"),
            networks: self.yaml("meshNetworks"),
            domain: domain.to_owned(),
            jwks: self.key_sets.known(),
        }
    }

    fn own_objects(&self) -> Vec<Arc<Value>> {
        let mut objects = self.local.objects();
        objects.extend(self.ingresses.iter().flat_map(Store::list));
        objects
    }

    /// Namespace, name and new status of each Ingress that shows other addresses than those of the ingress gateway.
    pub fn ingress_statuses(&self) -> Vec<(String, String, Value)> {
        if self.ingresses.iter().all(|store| store.list().is_empty()) {
            return Vec::new();
        }
        translate::ingress::statuses(&self.own_objects(), &self.yaml("mesh"))
    }

    /// One key of the ConfigMap `istio`; its default where it is missing or cannot be read.
    fn yaml<T: serde::de::DeserializeOwned + Default>(&self, key: &str) -> T {
        let Some(map) = self.mesh.get(&self.namespace, "istio") else {
            return T::default();
        };
        let Some(text) = map["data"][key].as_str() else {
            return T::default();
        };
        yaml_serde::from_str(text).unwrap_or_else(|error| {
            tracing::error!(%error, "ConfigMap {}/istio: {key} cannot be read and is ignored", self.namespace);
            T::default()
        })
    }

    /// A Secret of the own cluster.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.secrets.get(namespace, name)
    }

    /// Namespaces of the own cluster.
    pub fn namespaces(&self) -> Vec<Arc<Value>> {
        self.local
            .stores
            .iter()
            .find(|store| store.resource().plural == "namespaces")
            .map(Store::list)
            .unwrap_or_default()
    }
}

fn follow(
    client: &Client,
    kind: Resource,
    namespace: Option<&str>,
    params: ListParams,
    token: &CancellationToken,
    dirty: &Dirty,
) -> Store {
    let store = Store::start(client.clone(), kind, namespace, params, token);
    let mut changed = store.changed();
    let dirty = dirty.clone();
    let token = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                result = changed.changed() => match result {
                    Ok(()) => dirty.0.send_modify(|count| *count += 1),
                    Err(_) => return,
                },
            }
        }
    });
    store
}

/// The kubeconfigs in remote secrets by cluster id.
pub fn remote_kubeconfigs(secrets: &[Arc<Value>]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for secret in secrets {
        let Some(data) = secret["data"].as_object() else {
            continue;
        };
        for (id, value) in data {
            let decoded = value
                .as_str()
                .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
            if let Some(kubeconfig) = decoded {
                found.entry(id.clone()).or_insert(kubeconfig);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_secrets_hold_one_kubeconfig_for_each_cluster() {
        let secret = Arc::new(json!({"data": {"ctx2": "aGVsbG8=", "broken": "%%"}}));
        let found = remote_kubeconfigs(&[secret]);
        assert_eq!(found.len(), 1);
        assert_eq!(found["ctx2"], b"hello");
    }
}
