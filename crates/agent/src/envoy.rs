//! A real Envoy in the place of the built-in proxy, where the image has one: the agent writes its bootstrap, hands it certificates
//! over SDS, connects it to istiod, says whether it is ready, and ends it with a drain.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use runtime::CancellationToken;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio_stream::wrappers::UnixListenerStream;
use xds::Wire as _;
use xds::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;

use crate::fetch::Fetch;
use crate::sds::SecretServer;
use crate::{Environment, bootstrap, ca};
use proxy::tls::secrets::Secrets;

/// The variable of an image that says where its Envoy is.
pub const VARIABLE: &str = "THEATER_ENVOY";

/// Where the bootstrap of the agent says the two sockets are.
const SECRETS: &str = "./var/run/secrets/workload-spiffe-uds/socket";
const DISCOVERY: &str = "./etc/istio/proxy/XDS";

/// Whose connections the rules of the pod let pass. (The built-in proxy marks its own instead.)
const USER: u32 = 1337;

/// What tells whether Envoy has got and taken its configuration; Istio's agent asks for the same.
const READY: &str = "/stats?usedonly&filter=^(server.state|listener_manager.workers_started|cluster_manager.cds.update_(success|rejected)|listener_manager.lds.update_(success|rejected))$";

/// An Envoy that runs.
pub struct Envoy {
    admin: SocketAddr,
    drain_path: &'static str,
    /// Cancelled when it shall end.
    pub stop: CancellationToken,
}

/// The Envoy of this container's image.
pub fn program(environment: &Environment) -> Option<PathBuf> {
    let path = environment.variables.get(VARIABLE)?;
    (!path.is_empty()).then(|| path.into())
}

impl Envoy {
    /// Writes the bootstrap, opens the sockets it names and starts the program.
    ///
    /// # Errors
    /// What could not be written, opened or started.
    pub fn start(
        program: &Path,
        environment: &Arc<Environment>,
        secrets: &Arc<Secrets>,
        concurrency: usize,
        level: &str,
        mark: Option<u32>,
    ) -> Result<(Arc<Self>, Child), String> {
        // SAFETY: no memory is involved.
        let user = unsafe { libc::geteuid() };
        if user != USER {
            return Err(format!(
                "Envoy must run as user {USER}, whose connections are not captured, and this is user {user}: \
                 start the theater as root, or use the built-in proxy"
            ));
        }
        let admin = environment.config_number("proxyAdminPort") as u16;
        serve_secrets(secrets.clone())?;
        relay_discovery(environment.clone(), secrets.clone(), mark)?;
        let file = Path::new(environment.config("configPath")).join("envoy-rev.pb");
        std::fs::write(&file, bootstrap::bootstrap(environment).to_wire())
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let drain = environment.config_duration("drainDuration", Duration::from_secs(45));
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .args(["--drain-time-s", &drain.as_secs().to_string()])
            .args(["--drain-strategy", "immediate"])
            .args(["--local-address-ip-version", "v4"])
            .args(["--file-flush-interval-msec", "1000"])
            .args(["--disable-hot-restart", "--allow-unknown-static-fields"])
            .args(["-l", level, "--component-log-level", "misc:error"])
            .args(["--concurrency", &concurrency.max(1).to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let envoy = Self {
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
            drain_path: if environment.role == "router" {
                "/drain_listeners?graceful&skip_exit"
            } else {
                "/drain_listeners?inboundonly&graceful&skip_exit"
            },
            stop: CancellationToken::new(),
        };
        Ok((Arc::new(envoy), child))
    }

    /// Asks the admin interface.
    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        Fetch::local(method, self.admin, path, Duration::from_secs(5))
            .send()
            .await
    }

    /// Whether it serves.
    ///
    /// # Errors
    /// What it waits for, in the words of Istio's agent.
    pub async fn ready(&self) -> Result<(), String> {
        let (_, body) = self.ask(Method::GET, READY).await?;
        readiness(&String::from_utf8_lossy(&body))
    }

    /// Its statistics for Prometheus.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<Bytes, String> {
        let (_, body) = self.ask(Method::GET, "/stats/prometheus").await?;
        Ok(body)
    }

    /// Asks it to close connections after their next answer.
    pub async fn drain(&self) {
        if let Err(error) = self.ask(Method::POST, self.drain_path).await {
            tracing::warn!("Envoy was not asked to drain: {error}");
        }
    }

    /// The number of connections of clients under way, those of the agent's own listeners and of the admin interface apart.
    pub async fn active_connections(&self) -> Option<u64> {
        let path = r"/stats?filter=^listener\..*\.downstream_cx_active$";
        let (_, body) = self.ask(Method::GET, path).await.ok()?;
        Some(active(&String::from_utf8_lossy(&body)))
    }
}

/// What `name: value` lines say about being ready.
fn readiness(text: &str) -> Result<(), String> {
    let value = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value.trim().parse::<u64>().ok())
    };
    let count = |name: &str| value(name).unwrap_or(0);
    let cds = (
        count("cluster_manager.cds.update_success"),
        count("cluster_manager.cds.update_rejected"),
    );
    let lds = (
        count("listener_manager.lds.update_success"),
        count("listener_manager.lds.update_rejected"),
    );
    if cds.0 == 0 || lds.0 == 0 {
        return Err(if cds == (0, 0) && lds == (0, 0) {
            "config not received from XDS server (is Istiod running?)".to_owned()
        } else {
            format!(
                "config received from XDS server, but was rejected or is incomplete: cds updates: {} successful, {} rejected; \
                 lds updates: {} successful, {} rejected",
                cds.0, cds.1, lds.0, lds.1
            )
        });
    }
    match (
        value("server.state"),
        count("listener_manager.workers_started"),
    ) {
        (Some(0), 1) => Ok(()),
        (Some(0), _) => Err("workers have not yet started".to_owned()),
        (Some(state), _) => Err(format!("server is not live, current state is {state}")),
        (None, _) => Err("server state is unknown".to_owned()),
    }
}

/// The sum over the listeners that carry traffic.
fn active(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.rsplit_once(": "))
        .filter(|(name, _)| {
            !["admin", "15090", "15021"]
                .iter()
                .any(|own| name.contains(own))
        })
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// Opens a socket that only this user reaches; what an earlier container left there goes.
fn bind(path: &str) -> Result<UnixListener, String> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).map_err(|error| format!("{path}: {error}"))
}

/// Serves the workload's certificate and what it trusts.
fn serve_secrets(secrets: Arc<Secrets>) -> Result<(), String> {
    let listener = bind(SECRETS)?;
    let service = SecretDiscoveryServiceServer::new(SecretServer { secrets });
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener));
        if let Err(error) = server.await {
            tracing::error!("SDS ends: {error}");
        }
    });
    Ok(())
}

/// Carries Envoy's discovery streams to istiod: HTTP/2 as it comes, in mutual TLS with the workload's certificate.
fn relay_discovery(
    environment: Arc<Environment>,
    secrets: Arc<Secrets>,
    mark: Option<u32>,
) -> Result<(), String> {
    let listener = bind(DISCOVERY)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (environment, secrets) = (environment.clone(), secrets.clone());
                    tokio::spawn(async move {
                        if let Err(error) = carry(stream, &environment, &secrets, mark).await {
                            tracing::warn!("discovery: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!("discovery: {error}");
                    return;
                }
            }
        }
    });
    Ok(())
}

async fn carry(
    mut envoy: UnixStream,
    environment: &Environment,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<(), String> {
    // The certificate is what istiod knows the workload by.
    let mut changed = secrets.changed();
    while secrets.get("default").is_none() {
        changed.changed().await.map_err(|error| error.to_string())?;
    }
    let target = ca::istiod(
        environment,
        environment.config("discoveryAddress"),
        secrets,
        mark,
    )?;
    let mut istiod = target.open().await?;
    // However it ends, Envoy connects again.
    let _ = tokio::io::copy_bidirectional(&mut envoy, &mut istiod).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "cluster_manager.cds.update_rejected: 0\ncluster_manager.cds.update_success: 3\n\
        listener_manager.lds.update_success: 2\nlistener_manager.workers_started: 1\nserver.state: 0\n";

    #[test]
    fn ready_is_an_envoy_with_its_configuration_and_workers() {
        assert_eq!(readiness(LIVE), Ok(()));
        for (from, to, expected) in [
            ("server.state: 0", "server.state: 2", "current state is 2"),
            (
                "workers_started: 1",
                "workers_started: 0",
                "workers have not yet started",
            ),
            (
                "lds.update_success: 2",
                "lds.update_rejected: 2",
                "lds updates: 0 successful, 2 rejected",
            ),
        ] {
            let seen = readiness(&LIVE.replace(from, to)).unwrap_err();
            assert!(seen.contains(expected), "{seen}, expected {expected}");
        }
        let seen = readiness("server.state: 2\n").unwrap_err();
        assert!(seen.contains("is Istiod running?"), "{seen}");
    }

    #[test]
    fn connections_of_the_agent_do_not_hold_up_the_end() {
        let text = "listener.0.0.0.0_15006.downstream_cx_active: 2\nlistener.0.0.0.0_15021.downstream_cx_active: 1\n\
            listener.admin.downstream_cx_active: 1\nlistener.10.0.0.1_8080.downstream_cx_active: 3\n";
        assert_eq!(active(text), 5);
    }
}
