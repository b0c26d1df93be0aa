//! One cluster: the only place where its parts are put together. They meet at the API server, over
//! HTTPS and each with credentials of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use kube_client::{Auth, Client, Config};
use kubelet::catalog::ImageCatalog;
use runtime::CancellationToken;
use sandbox::Cidr;
use sandbox::node::NodeNetwork;
use tokio::net::TcpListener;

use crate::catalog;
use crate::state::{StateDir, make_private_dir};
use crate::supervisor::authorities::{self, ClusterKeys};
use crate::topology::{API_PORT, CLUSTER_PREFIX, ClusterFacts, WAN_PREFIX};

/// The bridge the pods are on.
const BRIDGE: &str = "cni0";

/// Where the node agent answers the API server (Kubernetes' own port for it).
const KUBELET_PORT: u16 = 10250;

/// Size at which a container's log is rotated.
const LOG_BYTES: u64 = 10 * 1024 * 1024;

/// Runs the cluster `name` until it is told to end, with the image of this Envoy if there is one. The process is alone in its namespaces already.
///
/// # Errors
/// When a part cannot start.
pub fn main(state: &StateDir, name: &str, envoy: Option<&Path>) -> Result<()> {
    let facts =
        ClusterFacts::named(name).with_context(|| format!("there is no cluster {name:?}"))?;
    runtime::log::init(runtime::log::Level::INFO);
    let network = NodeNetwork {
        bridge: BRIDGE.into(),
        node_ip: facts.node_ip(),
        pod_cidr: Cidr::new(facts.pod_network(), CLUSTER_PREFIX),
        service_cidr: Cidr::new(facts.service_network(), CLUSTER_PREFIX),
        wan_ip: facts.wan_ip(),
        wan_subnet: Cidr::new(facts.wan_network(), WAN_PREFIX),
        wan_ports: vec![API_PORT],
    };
    sandbox::node::setup(&network).context("cannot set up the node's network")?;
    let runner = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runner.block_on(run(state, facts, catalog::images(envoy)))
}

async fn run(state: &StateDir, facts: &'static ClusterFacts, images: ImageCatalog) -> Result<()> {
    let now = SystemTime::now();
    let directory = state.cluster(facts.name);
    let authorities = authorities::load_or_create(&state.authorities(), now)?;
    let keys = authorities
        .clusters
        .get(facts.name)
        .with_context(|| format!("no keys for {}", facts.name))?;
    let token = runtime::shutdown::on_signal()?;
    let server = start_api_server(&directory, facts, keys, now, &token).await?;
    tracing::info!(cluster = facts.name, "API server ready");
    tokio::spawn(crate::memory::give_back());

    let client = |user: &str, groups: &[&str]| component_client(keys, user, groups, now);
    let manager = controllers::Config {
        controller_manager: client("system:kube-controller-manager", &[])?,
        scheduler: client("system:kube-scheduler", &[])?,
        root_ca_pem: keys.api.cert.clone(),
        service_account_key_pem: Some(keys.service_accounts.clone()),
        signer: Some(std::sync::Arc::new(keys.api.authority()?)),
    };
    let node_user = format!("system:node:{}", facts.node_name());
    let node_client = client(&node_user, &["system:nodes"])?;
    let agent = node_agent(&directory, facts, keys, now, node_client, images)?;
    tokio::select! {
        () = controllers::run(manager, token.clone()) => {}
        result = kubelet::run(agent, token.clone()) => result.context("node agent")?,
    }
    // Whatever ended first, the others end in order too.
    token.cancel();
    server.stopped().await;
    Ok(())
}

async fn start_api_server(
    directory: &Path,
    facts: &ClusterFacts,
    keys: &ClusterKeys,
    now: SystemTime,
    token: &CancellationToken,
) -> Result<apiserver::Handle> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API_PORT))
        .await
        .with_context(|| format!("cannot listen on port {API_PORT}"))?;
    let serving = authorities::api_server(keys, facts, now)?;
    let kubelet_client = authorities::client(
        keys,
        "kube-apiserver-kubelet-client",
        &["system:masters"],
        now,
    )?;
    let (first, last) = facts.load_balancer_pool();
    let config = apiserver::Config {
        cluster: facts.name.into(),
        data_dir: directory.join("objects"),
        listener,
        serving_cert_pem: serving.chain_pem,
        serving_key_pem: serving.key_pem,
        client_ca_pem: keys.api.cert.clone(),
        service_account_key_pem: keys.service_accounts.clone(),
        issuer: apiserver::DEFAULT_ISSUER.into(),
        advertise: SocketAddr::from((facts.node_ip(), API_PORT)),
        service_cidr: format!("{}/{CLUSTER_PREFIX}", facts.service_network()),
        load_balancer_pool: first..=last,
        node_ports: 30000..=32767,
        kubelet: Some(apiserver::KubeletAccess {
            cert_pem: kubelet_client.chain_pem,
            key_pem: kubelet_client.key_pem,
            ca_pem: keys.api.cert.clone(),
            port: KUBELET_PORT,
        }),
    };
    Ok(apiserver::run(config, token.clone()).await?)
}

/// A client with a certificate of its own for a part of this process.
fn component_client(
    keys: &ClusterKeys,
    user: &str,
    groups: &[&str],
    now: SystemTime,
) -> Result<Client> {
    let issued = authorities::client(keys, user, groups, now)?;
    let auth = Auth::ClientCert {
        cert_pem: issued.chain_pem,
        key_pem: issued.key_pem,
    };
    let server = format!("https://127.0.0.1:{API_PORT}");
    // The name under which managedFields show it: that of the program whose part it plays.
    let name = user.rsplit(':').next().unwrap_or(user);
    let name = if user.starts_with("system:node:") {
        "kubelet"
    } else {
        name
    };
    let config = Config::new(server, keys.api.cert.clone(), auth)
        .user_agent(format!("{name}/v{}", env!("CARGO_PKG_VERSION")));
    Ok(Client::new(config)?)
}

/// Where a cluster's node keeps its data.
pub fn node_dir(directory: &Path) -> PathBuf {
    directory.join("node")
}

fn node_agent(
    directory: &Path,
    facts: &ClusterFacts,
    keys: &ClusterKeys,
    now: SystemTime,
    client: Client,
    catalog: ImageCatalog,
) -> Result<kubelet::Config> {
    let serving = authorities::kubelet_server(keys, facts, now)?;
    let labels = [
        ("cluster-name", facts.name),
        ("cloud-provider", facts.cloud_provider),
        ("topology.kubernetes.io/region", facts.region),
        ("topology.kubernetes.io/zone", facts.zone),
    ];
    // Secrets of pods live in memory only; the mount is this process's own and goes with it.
    let volumes_dir = directory.join("volumes");
    make_private_dir(&volumes_dir)?;
    nix::mount::mount(
        Some("tmpfs"),
        &volumes_dir,
        Some("tmpfs"),
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV,
        Some("mode=0700"),
    )
    .context("cannot mount the pods' volumes")?;
    Ok(kubelet::Config {
        client,
        node_name: facts.node_name(),
        node_ip: facts.node_ip(),
        node_port_ips: vec![facts.wan_ip()],
        bridge: BRIDGE.into(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        pod_cidr: format!("{}/{CLUSTER_PREFIX}", facts.pod_network()),
        catalog,
        data_dir: node_dir(directory),
        volumes_dir,
        dns_ip: facts.dns_ip(),
        zone: "cluster.local".into(),
        dns_forward: None,
        tls: kubelet::ServerTls {
            cert_pem: serving.chain_pem,
            key_pem: serving.key_pem,
            client_ca_pem: keys.api.cert.clone(),
        },
        log_max_bytes: LOG_BYTES,
        version: env!("CARGO_PKG_VERSION").into(),
    })
}
