//! Starts all controllers of a cluster.

mod certificates;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoints;
mod garbage;
mod hpa;
mod job;
mod namespace;
mod namespace_defaults;
mod node;
mod quota;
mod replicaset;
mod replication_controller;
mod service_account_tokens;
mod stateful_set;
mod volumes;

use std::sync::Arc;

use kube_client::events::Recorder;
use kube_client::{
    CLUSTER_ROLES, CONFIG_MAPS, CRON_JOBS, Client, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES,
    ENDPOINTS, HORIZONTAL_POD_AUTOSCALERS, JOBS, LEASES, ListParams, NAMESPACES, NODES,
    PERSISTENT_VOLUME_CLAIMS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, Resource, SECRETS,
    SERVICE_ACCOUNTS, SERVICES, STATEFUL_SETS, Store,
};
use runtime::CancellationToken;
use serde_json::Value;

use crate::action::Executor;

/// What the controllers of one cluster need.
#[derive(Debug, Clone)]
pub struct Config {
    /// A client as `system:kube-controller-manager`.
    pub controller_manager: Client,
    /// A client as `system:kube-scheduler`.
    pub scheduler: Client,
    /// The authority of the API server's certificate, PEM: published to every namespace.
    pub root_ca_pem: String,
    /// The key (PEM, PKCS#8, ECDSA P-256) that signs the tokens in Secrets of type `kubernetes.io/service-account-token`; without it
    /// such Secrets stay empty.
    pub service_account_key_pem: Option<String>,
    /// Signs the certificate requests of the cluster's own signers; without it they stay unsigned.
    pub signer: Option<Arc<pki::Authority>>,
}

/// Namespace and name.
pub(crate) type Key = (String, String);

const REPLICATION_CONTROLLERS: Resource =
    Resource::fixed("", "v1", "replicationcontrollers", "ReplicationController");
const QUOTAS: Resource = Resource::fixed("", "v1", "resourcequotas", "ResourceQuota");

/// The local copies all controllers share, and what they do things with.
#[derive(Clone)]
struct Context {
    client: Client,
    pods: Store,
    replica_sets: Store,
    deployments: Store,
    services: Store,
    endpoints: Store,
    slices: Store,
    nodes: Store,
    namespaces: Store,
    service_accounts: Store,
    root_cas: Store,
    token_secrets: Store,
    leases: Store,
    jobs: Store,
    replication_controllers: Store,
    stateful_sets: Store,
    daemon_sets: Store,
    revisions: Store,
    cron_jobs: Store,
    budgets: Store,
    quotas: Store,
    cluster_roles: Store,
    autoscalers: Store,
    claims: Store,
    volumes: Store,
    storage_classes: Store,
    certificate_requests: Store,
    token: CancellationToken,
}

/// Runs controllers and scheduler until `token` is cancelled.
pub async fn run(config: Config, token: CancellationToken) {
    let context = Context::start(&config.controller_manager, &token);
    // The scheduler keeps its own copies: it is another component with other rights.
    let scheduler = crate::scheduler::run(config.scheduler, token.clone());
    let controllers = async {
        context.synced().await;
        futures::join!(
            deployment::run(&context),
            replicaset::run(&context),
            endpoints::run(&context),
            namespace::run(&context),
            namespace_defaults::run(&context, &config.root_ca_pem),
            service_account_tokens::run(
                &context,
                &config.root_ca_pem,
                config.service_account_key_pem.as_deref(),
            ),
            node::run(&context),
            job::run(&context),
            cron_job::run(&context),
            daemon_set::run(&context),
            stateful_set::run(&context),
            replication_controller::run(&context),
            disruption::run(&context),
            quota::run(&context),
            hpa::run(&context),
            volumes::run(&context),
            async {
                if let Some(signer) = config.signer.clone() {
                    certificates::run(&context, signer).await;
                }
            },
            garbage::run(&context),
            cluster_role_aggregation::run(&context),
        );
    };
    tokio::select! {
        () = token.cancelled() => {}
        _ = futures::future::join(scheduler, controllers) => {}
    }
}

impl Context {
    fn start(client: &Client, token: &CancellationToken) -> Self {
        let store = |resource: Resource, ns: Option<&str>, params: ListParams| {
            Store::start(client.clone(), resource, ns, params, token)
        };
        let all = |resource: Resource| store(resource, None, ListParams::default());
        let by_name = ListParams::fields(format!("metadata.name={}", namespace_defaults::ROOT_CA));
        Self {
            client: client.clone(),
            pods: all(PODS),
            replica_sets: all(REPLICA_SETS),
            deployments: all(DEPLOYMENTS),
            services: all(SERVICES),
            endpoints: all(ENDPOINTS),
            slices: all(ENDPOINT_SLICES),
            nodes: all(NODES),
            namespaces: all(NAMESPACES),
            service_accounts: all(SERVICE_ACCOUNTS),
            root_cas: store(CONFIG_MAPS, None, by_name),
            token_secrets: store(
                SECRETS,
                None,
                ListParams::fields(format!("type={}", service_account_tokens::TYPE)),
            ),
            leases: store(LEASES, Some("kube-node-lease"), ListParams::default()),
            jobs: all(JOBS),
            replication_controllers: all(REPLICATION_CONTROLLERS),
            stateful_sets: all(STATEFUL_SETS),
            daemon_sets: all(DAEMON_SETS),
            revisions: all(crate::revision::REVISIONS),
            cron_jobs: all(CRON_JOBS),
            budgets: all(POD_DISRUPTION_BUDGETS),
            quotas: all(QUOTAS),
            cluster_roles: all(CLUSTER_ROLES),
            autoscalers: all(HORIZONTAL_POD_AUTOSCALERS),
            claims: all(PERSISTENT_VOLUME_CLAIMS),
            volumes: all(crate::volumes::PERSISTENT_VOLUMES),
            storage_classes: all(crate::volumes::STORAGE_CLASSES),
            certificate_requests: all(crate::certificates::REQUESTS),
            token: token.clone(),
        }
    }

    fn stores(&self) -> [&Store; 26] {
        [
            &self.pods,
            &self.replica_sets,
            &self.deployments,
            &self.services,
            &self.endpoints,
            &self.slices,
            &self.nodes,
            &self.namespaces,
            &self.service_accounts,
            &self.root_cas,
            &self.token_secrets,
            &self.leases,
            &self.jobs,
            &self.replication_controllers,
            &self.stateful_sets,
            &self.daemon_sets,
            &self.revisions,
            &self.cron_jobs,
            &self.budgets,
            &self.quotas,
            &self.cluster_roles,
            &self.autoscalers,
            &self.claims,
            &self.volumes,
            &self.storage_classes,
            &self.certificate_requests,
        ]
    }

    async fn synced(&self) {
        futures::future::join_all(self.stores().map(Store::wait_synced)).await;
    }

    /// Carries out actions and records events as one controller.
    fn executor(&self, component: &str) -> Executor {
        let recorder = Recorder::start(self.client.clone(), component, "", &self.token);
        let stores = self.stores().map(Store::clone).to_vec();
        Executor::new(self.client.clone(), recorder, Arc::new(stores))
    }
}

fn key_of(object: &Value) -> Key {
    (
        api::meta::namespace(object).to_owned(),
        api::meta::name(object).to_owned(),
    )
}

/// The managing owner's key, when it is of this kind.
fn owner_key(object: &Value, kind: &str) -> Option<Key> {
    let owner = api::meta::controller_of(object).filter(|owner| owner["kind"] == kind)?;
    let name = owner["name"].as_str()?.to_owned();
    Some((api::meta::namespace(object).to_owned(), name))
}

/// Keys of the owners an object had and has; for an orphan, of all owners in its namespace
/// whose selector fits it.
fn owners_of(event: &kube_client::StoreEvent, kind: &'static str, owners: &Store) -> Vec<Key> {
    let mut keys: Vec<Key> = states(event)
        .filter_map(|state| owner_key(state, kind))
        .collect();
    let object = event.object();
    if api::meta::controller_of(object).is_none() {
        let labels = &object["metadata"]["labels"];
        keys.extend(
            owners
                .list_namespace(api::meta::namespace(object))
                .iter()
                .filter(|owner| crate::selector::matches(&owner["spec"]["selector"], labels))
                .map(|owner| key_of(owner)),
        );
    }
    keys.dedup();
    keys
}

/// The state before, if there was one, and the state now.
fn states(event: &kube_client::StoreEvent) -> impl Iterator<Item = &Arc<Value>> {
    let old = match event {
        kube_client::StoreEvent::Modified { old, .. } => Some(old),
        _ => None,
    };
    old.into_iter().chain([event.object()])
}
