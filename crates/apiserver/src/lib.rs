//! A Kubernetes API server: durable objects, watches, authentication, role-based access
//! control, admission and dynamic kinds, spoken over HTTPS as kubectl and client libraries
//! expect it.
//!
//! The way of a request: [`serve`](crate) accepts a connection and authenticates, `target` takes
//! the path apart, `flow` lets it in when there is room, `authz` decides, `rest` does the verb, `admission` changes or refuses,
//! `storage` makes it durable and tells the watchers.

mod admission;
mod aggregation;
mod api_services;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod condition;
mod conversion;
mod convert;
mod crd;
mod error;
mod flow;
mod http_types;
mod machinery;
mod metrics_api;
mod negotiate;
mod other;
mod outbound;
pub mod parsers;
mod policy;
mod protobuf;
mod proxy;
mod proxy_links;
mod registry;
mod rest;
mod review;
mod serve;
mod shape;
mod state;
mod storage;
mod strategy;
mod streaming;
mod target;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use runtime::CancellationToken;
use tokio::net::TcpListener;

pub use storage::StorageError;

/// The issuer of service-account tokens when nothing else is configured.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What the server shows node agents when it fetches logs or opens streams.
#[derive(Debug, Clone)]
pub struct KubeletAccess {
    /// Client certificate chain (PEM) and its key; node agents accept its subject.
    pub cert_pem: String,
    /// Key of the certificate (PEM).
    pub key_pem: String,
    /// Authority (PEM bundle) that signs the serving certificates of node agents.
    pub ca_pem: String,
    /// Port where a node names none.
    pub port: u16,
}

/// How a server is set up.
#[derive(Debug)]
pub struct Config {
    /// Name of the cluster, for logs.
    pub cluster: String,
    /// Directory of the object store; created when missing.
    pub data_dir: PathBuf,
    /// Where to listen; bound by the caller.
    pub listener: TcpListener,
    /// Serving certificate chain (PEM), leaf first.
    pub serving_cert_pem: String,
    /// Key of the serving certificate (PEM).
    pub serving_key_pem: String,
    /// Authority (PEM bundle) whose client certificates are users (CN) and groups (O).
    pub client_ca_pem: String,
    /// Key (PEM, PKCS#8, ECDSA P-256) that signs service-account tokens.
    pub service_account_key_pem: String,
    /// Issuer, and default audience, of service-account tokens.
    pub issuer: String,
    /// How the cluster reaches this server (node address and port): goes into the endpoints
    /// of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// Addresses of Services, for instance `10.97.0.0/16`.
    pub service_cidr: String,
    /// Addresses of LoadBalancer Services, first and last.
    pub load_balancer_pool: RangeInclusive<Ipv4Addr>,
    /// Ports of NodePort Services.
    pub node_ports: RangeInclusive<u16>,
    /// Access to node agents; without it logs and streams are answered with an error.
    pub kubelet: Option<KubeletAccess>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A certificate, key or authority.
    #[error("{what}: {source}")]
    Credentials {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        source: pki::Error,
    },
    /// A setting that cannot be used.
    #[error("{field} {value:?} {why}")]
    Setting {
        /// Field of [`Config`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// The objects of a fresh cluster could not be written.
    #[error("the initial objects could not be created: {0}")]
    Bootstrap(String),
}

/// A running server.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped: connections are closed and the store is synced and closed.
    pub async fn stopped(self) {
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "the API server ended badly");
        }
    }
}

/// Starts a server; when it returns, the initial objects exist and requests are answered.
///
/// It stops when `token` is cancelled.
///
/// # Errors
/// When the store, a credential or a setting cannot be used.
pub async fn run(config: Config, token: CancellationToken) -> Result<Handle, Error> {
    let address = config.listener.local_addr().map_err(|_| Error::Setting {
        field: "listener",
        value: String::new(),
        why: "has no local address: bind it first",
    })?;
    let credentials =
        |what: &'static str| move |source: pki::Error| Error::Credentials { what, source };
    let cluster_cidr =
        admission::service::Cidr::parse(&config.service_cidr).ok_or(Error::Setting {
            field: "service_cidr",
            value: config.service_cidr.clone(),
            why: "is no IPv4 prefix of 8 to 30 bits, such as 10.97.0.0/16",
        })?;
    let identity = pki::tls::Identity::from_pem(&config.serving_cert_pem, &config.serving_key_pem)
        .map_err(credentials("serving certificate"))?;
    let tls = pki::tls::server_config(
        runtime::tls::provider(),
        identity,
        &pki::tls::ClientAuth::Optional {
            roots_pem: config.client_ca_pem.clone(),
        },
        &[pki::tls::HTTP2, pki::tls::HTTP1],
    )
    .map_err(credentials("serving certificate or client authority"))?;
    let key = pki::KeyPair::from_pem(&config.service_account_key_pem)
        .map_err(credentials("service account key"))?;
    let kubelet_tls = match &config.kubelet {
        None => None,
        Some(access) => {
            let identity = pki::tls::Identity::from_pem(&access.cert_pem, &access.key_pem)
                .map_err(credentials("kubelet client certificate"))?;
            let trust = pki::tls::ServerTrust::Name {
                roots_pem: access.ca_pem.clone(),
            };
            let tls = pki::tls::client_config(
                runtime::tls::provider(),
                &trust,
                Some(identity),
                &[pki::tls::HTTP1],
            )
            .map_err(credentials("kubelet authority"))?;
            Some(Arc::new(tls))
        }
    };
    let (storage, writer) = storage::Storage::open(&config.data_dir)?;
    let server = Arc::new(state::Server {
        storage,
        rbac: authz::Rbac::default(),
        registry: RwLock::default(),
        tokens: authn::Tokens {
            signer: pki::jwt::Signer::new(&key).map_err(credentials("service account key"))?,
            verifier: pki::jwt::Verifier::new([&key]),
            issuer: config.issuer,
        },
        allocator: admission::service::Allocator::new(admission::service::Pools {
            cluster: cluster_cidr,
            load_balancer: config.load_balancer_pool,
            node_ports: config.node_ports,
        }),
        kubelet: state::KubeletClient {
            tls: kubelet_tls,
            port: config.kubelet.map_or(10250, |k| k.port),
        },
        counters: Arc::default(),
        shutdown: token,
        turns: state::Turns::default(),
        readings: metrics_api::Readings::default(),
        webhooks: outbound::Pool::default(),
        flow: Arc::default(),
        aggregator: aggregation::Aggregator::new(
            aggregation::FrontProxy::new(std::time::SystemTime::now())
                .map_err(credentials("front proxy certificate"))?,
        ),
        client_ca_pem: config.client_ca_pem,
        advertise: config.advertise,
    });
    server.rebuild_registry();
    bootstrap::run(&server)
        .await
        .map_err(|e| Error::Bootstrap(e.to_string()))?;
    server.flow.rebuild(&server);
    tracing::info!(cluster = config.cluster, %address, "API server ready");
    let task = tokio::spawn(async move {
        let background = [
            tokio::spawn(crd::run(server.clone())),
            tokio::spawn(flow::run(server.clone())),
            tokio::spawn(aggregation::run(server.clone())),
            tokio::spawn(bootstrap::expire_events(server.clone())),
            tokio::spawn(bootstrap::compact(server.clone())),
            tokio::spawn(bootstrap::cool(server.clone())),
        ];
        serve::accept(server.clone(), config.listener, Arc::new(tls)).await;
        for task in background {
            let _ = task.await;
        }
        drop(server);
        // The writer ends when nobody can write any more; then the file is closed.
        let _ = tokio::time::timeout(
            std::time::Duration::from_secs(2),
            tokio::task::spawn_blocking(move || writer.join()),
        )
        .await;
    });
    Ok(Handle { address, task })
}
