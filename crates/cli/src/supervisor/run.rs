//! The running supervisor.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use kube_client::{Auth, Client, Config, SERVICES};
use runtime::CancellationToken;
use sandbox::Cidr;
use sandbox::world::{ClusterCommand, ClusterProcess, LinkState, WanSubnet, World};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::apply::{self, IfExists};
use super::authorities::{self, Authorities};
use super::control::{self, Answer, ClusterStatus, Request};
use super::kubeconfig::{self, User};
use super::ports::{self, Wishes};
use super::relay::{self, Target};
use super::scene;
use crate::applets;
use crate::language;
use crate::state::{StateDir, StateLock, make_private_dir, write_private};
use crate::topology::{CLUSTERS, ClusterFacts, WAN_PREFIX};

mod reset;
mod secrets;
mod wait;

/// How long a cluster's API server may take to answer.
const API_LIMIT: Duration = Duration::from_secs(20);

/// How long everything may take to become ready before `up` says what is missing. It goes on running.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long clusters get to end in order.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How often things that cannot be watched are looked at while starting.
const POLL: Duration = Duration::from_millis(10);

/// Options of `theater up`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Ports.
    pub wishes: Wishes,
    /// The Envoy of the image `proxyv2-envoy`.
    pub envoy: Option<PathBuf>,
}

/// The program at this path, as a path that is true wherever it is used.
///
/// # Errors
/// When there is no file that can be executed.
pub fn program(path: PathBuf) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = path.canonicalize().and_then(|real| {
        let about = std::fs::metadata(&real)?;
        if about.is_file() && about.permissions().mode() & 0o111 != 0 {
            Ok(real)
        } else {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
    });
    found.map_err(|error| anyhow::anyhow!(language::no_program(path.display(), error)))
}

/// What a run tells the commands that come after it (`theater env`, `status`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// The supervisor's process.
    pub pid: u32,
    /// `localhost`, with a port where needed.
    pub domain: String,
    /// API servers by cluster name.
    pub apis: BTreeMap<String, String>,
}

impl RunFile {
    /// Address of the page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://theater.{}", self.domain)
    }
}

/// The host's side, opened before the process left the host's network.
pub struct Doors {
    entry: ports::Entry,
    apis: Vec<Vec<TcpListener>>,
    world: World,
    envoy: Option<PathBuf>,
    _lock: StateLock,
}

/// Opens the host-facing ports, then leaves the host's network. Must run while the process has one
/// thread.
///
/// # Errors
/// When a port is taken or the machine forbids namespaces; the message says what to do.
pub fn open_and_enter(options: &Options, lock: StateLock) -> Result<Doors> {
    let entry = ports::open_entry(options.wishes)?;
    let count = u16::try_from(CLUSTERS.len()).unwrap_or(u16::MAX);
    let apis = ports::open_apis(options.wishes, count)?;
    let world = sandbox::world::enter()?;
    Ok(Doors {
        entry,
        apis,
        world,
        envoy: options.envoy.clone(),
        _lock: lock,
    })
}

/// A cluster as the supervisor holds it.
struct Running {
    facts: &'static ClusterFacts,
    api: String,
    process: Mutex<Option<Arc<ClusterProcess>>>,
    client: Client,
}

struct Supervisor {
    state: StateDir,
    world: World,
    /// The Envoy of the image `proxyv2-envoy`.
    envoy: Option<PathBuf>,
    authorities: Authorities,
    clusters: Vec<Running>,
    run: RunFile,
    token: CancellationToken,
    /// Names of clusters that ended by themselves.
    ended: mpsc::UnboundedSender<(usize, String)>,
    stopped: tokio::sync::watch::Sender<bool>,
    /// Address of the public gateway, once the relay leads there.
    entry: std::sync::OnceLock<std::net::IpAddr>,
}

/// Runs the theater until it is told to end.
///
/// # Errors
/// When it cannot be started; whatever was started has ended then.
pub async fn run(state: StateDir, doors: Doors) -> Result<()> {
    let started = Instant::now();
    println!("{}", language::starting());
    for (port, error) in &doors.entry.skipped {
        println!("{}", language::port_skipped(port, error));
    }
    let authorities = authorities::load_or_create(&state.authorities(), SystemTime::now())?;
    let token = runtime::shutdown::on_signal()?;
    let apis: Vec<String> = doors
        .apis
        .iter()
        .map(|listeners| {
            let port = listeners.first().and_then(ports::port_of).unwrap_or(0);
            format!("https://127.0.0.1:{port}")
        })
        .collect();
    let run = RunFile {
        pid: std::process::id(),
        domain: doors.entry.domain.clone(),
        apis: CLUSTERS
            .iter()
            .zip(&apis)
            .map(|(cluster, api)| (cluster.name.to_owned(), api.clone()))
            .collect(),
    };
    let admins = CLUSTERS
        .iter()
        .map(|facts| admin(&authorities, facts))
        .collect::<Result<Vec<_>>>()?;
    write_client_files(&state, &authorities, &admins, &run)?;

    let (ended, mut endings) = mpsc::unbounded_channel();
    let clusters = CLUSTERS
        .iter()
        .zip(&apis)
        .zip(admins)
        .map(|((facts, api), admin)| {
            Ok(Running {
                facts,
                api: api.clone(),
                process: Mutex::new(None),
                client: admin_client(&authorities, facts, admin)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let supervisor = Arc::new(Supervisor {
        state,
        world: doors.world,
        envoy: doors.envoy,
        authorities,
        clusters,
        run,
        token: token.clone(),
        ended,
        stopped: tokio::sync::watch::Sender::new(false),
        entry: std::sync::OnceLock::new(),
    });
    control::serve(
        &supervisor.state.control_socket(),
        Arc::new(Control(supervisor.clone())),
    )
    .context("cannot open the control socket")?;
    for (cluster, listeners) in CLUSTERS.iter().zip(doors.apis) {
        serve_all(listeners, Target::Fixed(cluster.api_address()), &token);
    }
    for index in 0..supervisor.clusters.len() {
        supervisor.start_cluster(index)?;
    }
    let outcome = tokio::select! {
        () = token.cancelled() => Ok(()),
        outcome = supervisor.bring_up(doors.entry.listeners, started) => outcome,
        Some((index, _)) = endings.recv() => {
            let cluster = &supervisor.clusters[index];
            Err(anyhow!(
                "cluster {} ended while starting; see {}",
                cluster.facts.name,
                supervisor.log_path(cluster).display()
            ))
        }
    };
    if outcome.is_ok() && !token.is_cancelled() {
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                Some((index, status)) = endings.recv() => {
                    let name = supervisor.clusters[index].facts.name;
                    println!("{}", language::cluster_died(name, status));
                }
            }
        }
    }
    println!("{}", language::stopping());
    supervisor.stop().await;
    supervisor.stopped.send_replace(true);
    // The answer to `theater down` is on its way.
    tokio::task::yield_now().await;
    println!("{}", language::stopped());
    outcome
}

/// Who a person at the keyboard is in a cluster, and the supervisor too.
fn admin(authorities: &Authorities, facts: &ClusterFacts) -> Result<pki::Issued> {
    authorities::client(
        &authorities.clusters[facts.name],
        "theater-admin",
        &["system:masters"],
        SystemTime::now(),
    )
}

/// A cluster's API server as everybody but this machine's own programs reaches it: over the WAN.
fn api_url(facts: &ClusterFacts) -> String {
    format!("https://{}", facts.api_address())
}

fn admin_client(
    authorities: &Authorities,
    facts: &ClusterFacts,
    admin: pki::Issued,
) -> Result<Client> {
    let auth = Auth::ClientCert {
        cert_pem: admin.chain_pem,
        key_pem: admin.key_pem,
    };
    Ok(Client::new(Config::new(
        api_url(facts),
        authorities.clusters[facts.name].api.cert.clone(),
        auth,
    ))?)
}

/// Writes the kubeconfig, the CA bundle and the run file.
fn write_client_files(
    state: &StateDir,
    authorities: &Authorities,
    admins: &[pki::Issued],
    run: &RunFile,
) -> Result<()> {
    let mut contexts = Vec::new();
    for (cluster, admin) in CLUSTERS.iter().zip(admins) {
        contexts.push(kubeconfig::Context {
            name: cluster.name.to_owned(),
            server: run.apis[cluster.name].clone(),
            ca: authorities.clusters[cluster.name].api.cert.clone(),
            user: User::Certificate {
                cert: admin.chain_pem.clone(),
                key: admin.key_pem.clone(),
            },
        });
    }
    let text = yaml_serde::to_string(&kubeconfig::render(&contexts))?;
    let write = |path: &Path, text: &str| {
        write_private(path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    };
    write(&state.kubeconfig(), &text)?;
    write(&state.ca_bundle(), &ca_bundle(&authorities.host.cert))?;
    write(&state.run_file(), &serde_json::to_string_pretty(run)?)?;
    make_private_dir(&state.bin())?;
    let executable = std::env::current_exe()?;
    for name in applets::ON_PATH {
        let program = state.bin().join(name);
        // A link that is there already may point to an older program.
        let _ = std::fs::remove_file(&program);
        std::os::unix::fs::symlink(&executable, &program)
            .with_context(|| format!("cannot link {}", program.display()))?;
    }
    Ok(())
}

/// The theater's authority together with those the machine trusts: a bundle replaces the machine's.
fn ca_bundle(own: &str) -> String {
    let system = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ]
    .iter()
    .find_map(|path| std::fs::read_to_string(path).ok())
    .unwrap_or_default();
    format!("{own}{system}")
}

fn serve_all(listeners: Vec<TcpListener>, target: Target, token: &CancellationToken) {
    for listener in listeners {
        let token = token.clone();
        tokio::spawn(async move {
            if let Err(error) = relay::serve(listener, target, token).await {
                tracing::error!(%error, "a host-facing port is lost");
            }
        });
    }
}

impl Supervisor {
    /// Starts a cluster's process and connects it to the WAN.
    fn start_cluster(self: &Arc<Self>, index: usize) -> Result<()> {
        let cluster = &self.clusters[index];
        let facts = cluster.facts;
        let directory = self.state.cluster(facts.name);
        make_private_dir(&directory)?;
        self.remove_limits(facts);
        let log_path = directory.join("cluster.log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot open {}", log_path.display()))?;
        let mut args = vec![
            "cluster".into(),
            facts.name.into(),
            "--state-dir".into(),
            self.state.root().into(),
        ];
        if let Some(envoy) = &self.envoy {
            args.extend(["--envoy".into(), envoy.into()]);
        }
        let process = self.world.spawn_cluster(ClusterCommand {
            name: facts.name.to_owned(),
            args,
            env: Vec::new(),
            stdin: None,
            stdout: Some(OwnedFd::from(log.try_clone()?)),
            stderr: Some(OwnedFd::from(log)),
        })?;
        self.world.connect_wan(
            &process,
            &WanSubnet {
                subnet: Cidr::new(facts.wan_network(), WAN_PREFIX),
                node: facts.wan_ip(),
                supervisor: facts.wan_gateway(),
            },
        )?;
        let process = Arc::new(process);
        *lock(&cluster.process) = Some(process.clone());
        let supervisor = self.clone();
        tokio::spawn(async move {
            let status = process.wait().await;
            if supervisor.token.is_cancelled() {
                return;
            }
            *lock(&supervisor.clusters[index].process) = None;
            supervisor.remove_limits(supervisor.clusters[index].facts);
            // Nobody listens any more when the supervisor ends.
            let _ = supervisor.ended.send((index, format!("{status:?}")));
        });
        Ok(())
    }

    /// Waits for the clusters, applies the scene the first time, and shows how it gets ready.
    async fn bring_up(&self, entry: Vec<TcpListener>, started: Instant) -> Result<()> {
        let fresh = !self.state.scene_marker().exists();
        // The schemas of Istio's kinds are made while the clusters start.
        let crds = tokio::task::spawn_blocking(move || match fresh {
            true => api::istio::crds(),
            false => Vec::new(),
        });
        futures::future::try_join_all(self.clusters.iter().map(async |cluster| {
            self.wait_api(cluster).await?;
            let seconds = format!("{:.2}", started.elapsed().as_secs_f64());
            println!(
                "{}",
                language::cluster_ready(cluster.facts.name, cluster.facts.provider, seconds)
            );
            Ok::<_, anyhow::Error>(())
        }))
        .await?;
        let crds = crds.await?;
        if fresh {
            let each = self.clusters.iter();
            futures::future::try_join_all(each.map(|cluster| self.apply_scene(cluster, &crds)))
                .await?;
            write_private(&self.state.scene_marker(), b"")?;
        }
        let address = self.ingress_address().await?;
        let _ = self.entry.set(address);
        let target = Target::ByFirstByte {
            tls: (address, 443).into(),
            plain: (address, 80).into(),
        };
        serve_all(entry, target, &self.token);
        self.wait_ready(started).await;
        self.wait_routed(address, started).await;
        self.print_screen(started);
        Ok(())
    }

    fn log_path(&self, cluster: &Running) -> std::path::PathBuf {
        self.state.cluster(cluster.facts.name).join("cluster.log")
    }

    /// The root certificate of the mesh as webhook configurations hold it.
    fn mesh_ca(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.authorities.mesh_root.cert)
    }

    /// Applies the mesh, with the definitions of Istio's kinds, and the theater to one cluster.
    async fn apply_scene(&self, cluster: &Running, crds: &[Value]) -> Result<()> {
        let mut mesh = scene::mesh(cluster.facts, &self.mesh_ca())?;
        if let Some(address) = self.entry.get()
            && cluster.facts.name == self.clusters[0].facts.name
        {
            // The relay of the entry goes on to lead there.
            for object in &mut mesh {
                if object["kind"] == "Service"
                    && object["metadata"]["name"] == "istio-ingressgateway"
                {
                    object["spec"]["loadBalancerIP"] = address.to_string().into();
                }
            }
        }
        let theater = scene::theater(cluster.facts)?;
        let theater: Vec<Value> = theater
            .iter()
            .map(|object| apply::as_applied(&object.object, &object.applied))
            .collect();
        let (late, early): (Vec<Value>, Vec<Value>) =
            theater.into_iter().partition(apply::makes_pods);
        // Secrets need their namespaces; everything else may come in any order.
        let (namespaces, mesh): (Vec<Value>, Vec<Value>) = mesh
            .into_iter()
            .partition(|object| object["kind"] == "Namespace");
        futures::try_join!(
            apply::all(&cluster.client, crds, IfExists::Replace),
            apply::all(&cluster.client, &namespaces, IfExists::Replace),
        )?;
        let mut first = self.key_secrets(cluster)?;
        let ca = &self.authorities.clusters[cluster.facts.name].api.cert;
        first.push(kubeconfig::cluster_info(&api_url(cluster.facts), ca)?);
        apply::all(&cluster.client, &first, IfExists::Replace).await?;
        apply::all(&cluster.client, &mesh, IfExists::Replace).await?;
        apply::all(&cluster.client, &early, IfExists::Replace).await?;
        let remotes = self.remote_secrets(cluster).await?;
        apply::all(&cluster.client, &remotes, IfExists::Replace).await?;
        self.wait_istiod(cluster).await?;
        apply::all(&cluster.client, &late, IfExists::Replace).await
    }

    /// Address of the public gateway of the first cluster.
    async fn ingress_address(&self) -> Result<std::net::IpAddr> {
        let service = self.clusters[0]
            .client
            .get(&SERVICES, Some("istio-system"), "istio-ingressgateway")
            .await
            .context("the cluster has no Service istio-system/istio-ingressgateway; `theater reset` makes it again")?;
        service["status"]["loadBalancer"]["ingress"][0]["ip"]
            .as_str()
            .and_then(|ip| ip.parse().ok())
            .context("Service istio-system/istio-ingressgateway has no load-balancer address")
    }

    fn print_screen(&self, started: Instant) {
        println!(
            "{}",
            language::all_ready(format!("{:.2}", started.elapsed().as_secs_f64()))
        );
        println!();
        println!("{}", language::url_page(self.run.url()));
        for cluster in &self.clusters {
            println!("{}", language::url_api(cluster.facts.name, &cluster.api));
        }
        println!();
        println!("{}", language::what_next());
        let default = self.state.root() == StateDir::default_path().unwrap_or_default();
        let option = if default {
            String::new()
        } else {
            format!(" --state-dir {}", self.state.root().display())
        };
        let program = std::env::current_exe().unwrap_or_else(|_| "theater".into());
        println!("  eval \"$({} env{option})\"", program.display());
        println!("  kubectl get pods -n theater-msa --context=ctx1 -o wide");
        println!("  curl https://theater.$DOMAIN/users/");
        println!();
        println!("{}", language::how_to_stop());
    }

    fn status(&self) -> Answer {
        Answer::Status {
            pid: self.run.pid,
            url: self.run.url(),
            clusters: self
                .clusters
                .iter()
                .map(|cluster| ClusterStatus {
                    name: cluster.facts.name.to_owned(),
                    pid: lock(&cluster.process).as_ref().map(|process| process.pid()),
                    api: cluster.api.clone(),
                })
                .collect(),
        }
    }

    fn set_link(&self, cluster: &str, link: LinkState) -> Result<()> {
        if ClusterFacts::named(cluster).is_none() {
            let known = CLUSTERS.map(|facts| facts.name).join(", ");
            bail!(language::no_such_cluster(cluster, known));
        }
        Ok(self.world.set_link(cluster, link)?)
    }

    fn revive(self: &Arc<Self>) -> Result<Vec<String>> {
        let mut revived = Vec::new();
        for index in 0..self.clusters.len() {
            if lock(&self.clusters[index].process).is_none() {
                self.start_cluster(index)?;
                revived.push(self.clusters[index].facts.name.to_owned());
            }
        }
        Ok(revived)
    }

    /// Ends the clusters: in order first, then by force.
    async fn stop(&self) {
        let processes: Vec<Arc<ClusterProcess>> = self
            .clusters
            .iter()
            .filter_map(|cluster| lock(&cluster.process).clone())
            .collect();
        for process in &processes {
            if let Err(error) = process.kill(libc::SIGTERM) {
                tracing::warn!(%error, "cannot stop cluster {}", process.name());
            }
        }
        let all = futures::future::join_all(processes.iter().map(|process| process.wait()));
        if tokio::time::timeout(STOP_LIMIT, all).await.is_err() {
            for process in &processes {
                // The namespace goes with its first process, whatever is still in it.
                let _ = process.kill(libc::SIGKILL);
            }
        }
        for cluster in &self.clusters {
            self.remove_limits(cluster.facts);
        }
        // Leftovers of a run that has ended mislead the next command.
        let _ = std::fs::remove_file(self.state.control_socket());
        let _ = std::fs::remove_file(self.state.run_file());
    }

    /// Removes the control groups of a cluster that has ended, or was killed with its supervisor: nothing else takes them away.
    fn remove_limits(&self, facts: &ClusterFacts) {
        let data = crate::cluster::node_dir(&self.state.cluster(facts.name));
        sandbox::cgroup::remove(&data);
    }
}

/// A lock that a panic elsewhere does not take away.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Control(Arc<Supervisor>);

impl control::Handler for Control {
    async fn handle(&self, request: Request) -> Answer {
        match request {
            Request::Status => self.0.status(),
            Request::Revive => match self.0.revive() {
                Ok(clusters) => Answer::Revived { clusters },
                Err(error) => Answer::Failed {
                    message: format!("{error:#}"),
                },
            },
            Request::Reset => match self.0.reset().await {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed {
                    message: format!("{error:#}"),
                },
            },
            Request::Wan {
                cluster,
                up,
                latency_ms,
                loss_percent,
            } => {
                let link = LinkState {
                    up,
                    latency: Duration::from_millis(latency_ms.into()),
                    loss: loss_percent / 100.0,
                    ..LinkState::default()
                };
                match self.0.set_link(&cluster, link) {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Failed {
                        message: format!("{error:#}"),
                    },
                }
            }
            Request::Stop => {
                let mut stopped = self.0.stopped.subscribe();
                self.0.token.cancel();
                let _ = stopped.wait_for(|stopped| *stopped).await;
                Answer::Done
            }
        }
    }
}
