//! Puts the parts of a node together.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use kube_client::events::Recorder;
use kube_client::{
    CONFIG_MAPS, Client, ENDPOINT_SLICES, ListParams, PODS, Resource, SECRETS, SERVICES, Store,
};
use parking_lot::{Mutex, RwLock};
use runtime::CancellationToken;
use sandbox::service_nat::{NatRule, Protocol};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::catalog::ImageCatalog;
use crate::cri::Runtime;
use crate::dns;
use crate::engine::claims::{PERSISTENT_VOLUMES, reclaim};
use crate::engine::{Engine, EngineConfig, Stores, manage};
use crate::ipam::{Ipam, IpamError, parse_cidr};
use crate::logs::Logs;
use crate::node::{self, NodeInfo};
use crate::probes::Checker;
use crate::sandbox_runtime::{Cgroups, SandboxRuntime};
use crate::server::{self, ServerTls};
use crate::service_proxy;
use crate::volumes::VolumeDirs;

/// The port of the kubelet's server.
pub const PORT: u16 = 10250;

/// A node.
#[derive(Clone)]
pub struct Config {
    /// Client of the API server, as `system:node:<name>` of group `system:nodes`.
    pub client: Client,
    /// Name of the node.
    pub node_name: String,
    /// The node's address on the pod bridge: InternalIP, gateway of the pods.
    pub node_ip: Ipv4Addr,
    /// Further addresses on which node ports answer (the WAN address).
    pub node_port_ips: Vec<Ipv4Addr>,
    /// Bridge of the pods, made by `sandbox::node::setup`.
    pub bridge: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Pod addresses, `10.10.0.0/16`.
    pub pod_cidr: String,
    /// Built-in images.
    pub catalog: ImageCatalog,
    /// Directory for logs and emptyDir volumes; survives restarts.
    pub data_dir: PathBuf,
    /// Directory for secrets, tokens and configuration files; best a tmpfs. Emptied at start.
    pub volumes_dir: PathBuf,
    /// Address pods ask for names, `10.97.0.10`; translated to the DNS server on `node_ip`.
    pub dns_ip: Ipv4Addr,
    /// Zone of the cluster DNS, `cluster.local`.
    pub zone: String,
    /// Where names outside the zone are asked for; `None`: they do not exist.
    pub dns_forward: dns::Forward,
    /// Certificates of the server on [`PORT`].
    pub tls: ServerTls,
    /// Size at which a container log is rotated, in bytes.
    pub log_max_bytes: u64,
    /// Version of this program.
    pub version: String,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod CIDR is unusable.
    #[error(transparent)]
    PodCidr(#[from] IpamError),
    /// A directory cannot be made.
    #[error("cannot make directory {path}: {problem}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        problem: std::io::Error,
    },
    /// A port cannot be opened.
    #[error("cannot listen on {address} ({what}): {problem}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// What the system said.
        problem: std::io::Error,
    },
    /// The server's certificates are unusable.
    #[error("certificates of the kubelet server: {0}")]
    Tls(#[from] pki::Error),
}

/// Runs the node until `token` is cancelled. Containers are not stopped then: they end with the
/// process that owns their namespaces.
///
/// # Errors
/// When a directory, port or certificate is unusable. An API server that does not answer yet is no error.
pub async fn run(config: Config, token: CancellationToken) -> Result<(), Error> {
    let (_, prefix) = parse_cidr(&config.pod_cidr)?;
    let runtime = SandboxRuntime {
        bridge: config.bridge.clone(),
        gateway: config.node_ip,
        prefix,
        cgroups: Arc::new(Cgroups::of(&config.data_dir)),
    };
    let proxied = true;
    run_with(config, Arc::new(runtime), proxied, token).await
}

/// [`run`] with another runtime; without `network` there is no service translation and no DNS
/// (nothing of the machine's network is touched).
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    runtime: Arc<dyn Runtime>,
    network: bool,
    token: CancellationToken,
) -> Result<(), Error> {
    for path in [&config.data_dir, &config.volumes_dir] {
        std::fs::create_dir_all(path).map_err(|problem| Error::Directory {
            path: path.clone(),
            problem,
        })?;
    }
    let capacity = node::capacity(&config.data_dir);
    let follow = |resource: Resource| {
        Store::start(
            config.client.clone(),
            resource,
            None,
            ListParams::default(),
            &token,
        )
    };
    let stores = Stores {
        config_maps: follow(CONFIG_MAPS),
        secrets: follow(SECRETS),
        services: follow(SERVICES),
    };
    let slices = follow(ENDPOINT_SLICES);
    let own = ListParams::fields(format!("spec.nodeName={}", config.node_name));
    let volumes = follow(PERSISTENT_VOLUMES);
    let pods = Store::start(config.client.clone(), PODS, None, own, &token);
    let catalog = Arc::new(config.catalog);
    let listener = listen((config.node_ip, PORT).into(), network).await?;
    let port = listener.local_addr().map_or(PORT, |address| address.port());
    let engine = Arc::new(Engine {
        config: EngineConfig {
            node_name: config.node_name.clone(),
            node_ip: config.node_ip,
            dns_ip: config.dns_ip,
            zone: config.zone.clone(),
            allocatable: capacity.clone(),
        },
        client: config.client.clone(),
        runtime,
        catalog: catalog.clone(),
        logs: Logs::new(config.data_dir.join("logs"), config.log_max_bytes),
        dirs: VolumeDirs {
            persistent: config.data_dir.join("volumes"),
            ephemeral: config.volumes_dir.clone(),
            disk: config.data_dir.join("disk"),
        },
        ipam: Mutex::new(Ipam::new(&config.pod_cidr)?),
        stores: stores.clone(),
        recorder: Recorder::start(config.client.clone(), "kubelet", &config.node_name, &token),
        checker: Checker::default(),
        refused: Mutex::default(),
        pods: RwLock::default(),
    });
    let info = NodeInfo {
        name: config.node_name,
        ip: config.node_ip,
        labels: config.labels,
        pod_cidr: config.pod_cidr,
        port,
        capacity,
        version: config.version,
    };
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    if network {
        let address: SocketAddr = (config.node_ip, 53).into();
        let (udp, tcp) = dns::bind(address).await.map_err(|problem| Error::Listen {
            address,
            what: "cluster DNS",
            problem,
        })?;
        let table: dns::SharedTable =
            Arc::new(RwLock::new(Arc::new(dns::Table::new(&config.zone))));
        tasks.spawn(done(dns::serve(
            udp,
            tcp,
            table.clone(),
            config.dns_forward,
            token.clone(),
        )));
        tasks.spawn(done(keep_table(
            table,
            config.zone,
            stores.services.clone(),
            slices.clone(),
            token.clone(),
        )));
        let mut node_ips = vec![config.node_ip];
        node_ips.extend(config.node_port_ips);
        let target = SocketAddrV4::new(config.node_ip, 53);
        let fixed = [Protocol::Udp, Protocol::Tcp].map(|protocol| NatRule {
            ip: config.dns_ip,
            port: 53,
            protocol,
            targets: vec![target],
            sticky: false,
        });
        tasks.spawn(done(service_proxy::run(
            stores.services.clone(),
            slices,
            pods.clone(),
            node_ips,
            fixed.to_vec(),
            token.clone(),
        )));
    }
    let (serving, serving_token) = (engine.clone(), token.clone());
    let tls = config.tls;
    tasks.spawn(async move {
        server::serve(listener, &tls, serving, serving_token)
            .await
            .map_err(Error::from)
    });
    tasks.spawn(done(node::run(config.client, info, catalog, token.clone())));
    tasks.spawn(done(reclaim(engine.clone(), volumes, token.clone())));
    tasks.spawn(done(manage(engine, pods, token.clone())));
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                token.cancel();
                return Err(problem);
            }
            Err(problem) => tracing::error!(%problem, "a part of the node agent ended"),
        }
    }
    Ok(())
}

async fn done(work: impl Future<Output = ()>) -> Result<(), Error> {
    work.await;
    Ok(())
}

/// Opens the server's port. Without a network of its own (tests) any free port on the loopback does.
async fn listen(address: SocketAddr, network: bool) -> Result<TcpListener, Error> {
    let address = if network {
        address
    } else {
        (Ipv4Addr::LOCALHOST, 0).into()
    };
    TcpListener::bind(address)
        .await
        .map_err(|problem| Error::Listen {
            address,
            what: "kubelet server",
            problem,
        })
}

/// Rebuilds the DNS table when services or endpoints change.
async fn keep_table(
    table: dns::SharedTable,
    zone: String,
    services: Store,
    slices: Store,
    token: CancellationToken,
) {
    let (mut service_changes, mut slice_changes) = (services.changed(), slices.changed());
    loop {
        service_changes.mark_unchanged();
        slice_changes.mark_unchanged();
        let (all_services, all_slices) = (services.list(), slices.list());
        let fresh = dns::Table::build(
            &zone,
            all_services.iter().map(AsRef::as_ref),
            all_slices.iter().map(AsRef::as_ref),
        );
        *table.write() = Arc::new(fresh);
        tokio::select! {
            () = token.cancelled() => return,
            changed = service_changes.changed() => if changed.is_err() { return },
            changed = slice_changes.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
