//! What a starting theater waits for: API servers, istiod, pods, and routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kube_client::{DEPLOYMENTS, ENDPOINTS, ListParams, Store};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{API_LIMIT, POLL, READY_LIMIT, Running, Supervisor};
use crate::language;
use crate::supervisor::progress::{Pods, Progress};

/// How long requests may go unanswered after that before `up` says it is ready all the same; on a slow machine longer by
/// [`SLOWNESS`] times what everything before took.
const ROUTED_LIMIT: Duration = Duration::from_secs(10);
const SLOWNESS: u32 = 3;

/// How long one of these requests may take: longer than a delay that one of our own scenarios may have left.
const WITHIN: Duration = Duration::from_secs(5);

/// How many requests in a row must be answered for each service: they go to pods of both clusters.
const ROUTED_TRIES: usize = 4;

impl Supervisor {
    /// Waits until the API server says that it is ready.
    pub(super) async fn wait_api(&self, cluster: &Running) -> Result<()> {
        let deadline = Instant::now() + API_LIMIT;
        let mut last = String::new();
        while Instant::now() < deadline {
            match cluster
                .client
                .raw(http::Method::GET, "/readyz", None, None)
                .await
            {
                Ok((status, _)) if status.is_success() => return Ok(()),
                Ok((status, _)) => last = format!("status {status}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(POLL).await;
        }
        bail!(language::not_ready_in_time(
            format!("cluster {}", cluster.facts.name),
            API_LIMIT.as_secs(),
            format!("{last}; see {}", self.log_path(cluster).display()),
        ))
    }

    /// Waits until istiod can inject sidecars: its Service has an endpoint.
    pub(super) async fn wait_istiod(&self, cluster: &Running) -> Result<()> {
        let endpoints = Store::start(
            cluster.client.clone(),
            ENDPOINTS,
            Some("istio-system"),
            ListParams::fields("metadata.name=istiod"),
            &self.token,
        );
        let reachable = |object: &Value| object["subsets"][0]["addresses"][0]["ip"].is_string();
        let mut changed = endpoints.changed();
        let found = async {
            while !endpoints.list().iter().any(|object| reachable(object)) {
                changed.changed().await.expect("the store is held here");
            }
        };
        if tokio::time::timeout(READY_LIMIT, found).await.is_ok() {
            return Ok(());
        }
        bail!(language::not_ready_in_time(
            format!("istiod ({})", cluster.facts.name),
            READY_LIMIT.as_secs(),
            format!(
                "kubectl --kubeconfig {} --context {} -n istio-system describe pods",
                self.state.kubeconfig().display(),
                cluster.facts.name
            ),
        ))
    }

    /// Waits until all pods are ready, and shows how many are.
    pub(super) async fn wait_ready(&self, started: Instant) {
        let deployments: Vec<(String, Store)> = self
            .clusters
            .iter()
            .map(|cluster| {
                let client = cluster.client.clone();
                let params = ListParams::default();
                let store = Store::start(client, DEPLOYMENTS, None, params, &self.token);
                (cluster.facts.name.to_owned(), store)
            })
            .collect();
        let mut changes: Vec<_> = deployments
            .iter()
            .map(|(_, store)| store.changed())
            .collect();
        let mut progress = Progress::new();
        let all_ready = async {
            for (_, store) in &deployments {
                store.wait_synced().await;
            }
            loop {
                let counts: Vec<(String, Pods)> = deployments
                    .iter()
                    .map(|(name, store)| (name.clone(), Pods::of(&store.list())))
                    .collect();
                progress.show(&counts);
                if counts.iter().all(|(_, pods)| pods.all_ready()) {
                    return;
                }
                let next = changes
                    .iter_mut()
                    .map(|changes| Box::pin(changes.changed()));
                let (changed, ..) = futures::future::select_all(next).await;
                changed.expect("the stores are held here");
            }
        };
        let left = READY_LIMIT.saturating_sub(started.elapsed());
        if tokio::time::timeout(left, all_ready).await.is_err() {
            println!(
                "{}",
                language::not_ready_in_time(
                    "the theater",
                    READY_LIMIT.as_secs(),
                    "kubectl get pods -A"
                )
            );
        }
    }

    /// Waits until requests through the public gateway find the services. The pods' states are those
    /// of the last run until the node agents have looked, and routes come a moment after the pods.
    /// Faults that somebody configured and kept are no reason to wait for ever.
    pub(super) async fn wait_routed(&self, gateway: std::net::IpAddr, started: Instant) {
        let deadline = Instant::now() + ROUTED_LIMIT + started.elapsed() * SLOWNESS;
        let host = format!("theater.{}", self.run.domain);
        let trust = pki::tls::ServerTrust::Name {
            roots_pem: self.authorities.host.cert.clone(),
        };
        let tls = pki::tls::client_config(runtime::tls::provider(), &trust, None, &[]);
        let tls = tls.map(|config| TlsConnector::from(Arc::new(config)));
        // Nothing to look with is no reason to wait.
        let mut secured = tls.is_err();
        let mut answered = 0;
        while answered < ROUTED_TRIES && Instant::now() < deadline && !self.token.is_cancelled() {
            let tries = ["/", "/users/", "/movies/", "/bookings/"]
                .map(|path| is_routed((gateway, 80).into(), &host, path));
            // One handshake is enough: it does not depend on which pod answers.
            let secure = async {
                match &tls {
                    Ok(tls) if !secured => is_secured(tls, (gateway, 443).into(), &host).await,
                    _ => secured,
                }
            };
            let (routed, secure) = futures::join!(futures::future::join_all(tries), secure);
            secured = secure;
            if routed.contains(&false) || !secured {
                answered = 0;
                tokio::time::sleep(POLL * 3).await;
            } else {
                answered += 1;
            }
        }
    }
}

/// Whether TLS is spoken for a host: with whose certificate is up to those who configure the gateway.
async fn is_secured(tls: &TlsConnector, gateway: SocketAddr, host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default().to_owned();
    let Ok(name) = ServerName::try_from(name) else {
        return true;
    };
    let shaken = async {
        let stream = tokio::net::TcpStream::connect(gateway).await?;
        tls.connect(name, stream).await
    };
    match tokio::time::timeout(WITHIN, shaken).await {
        Ok(Ok(_)) => true,
        // A certificate came, and is not trusted.
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::InvalidData,
        Err(_) => false,
    }
}

/// Whether a GET reaches a service: answered by anything but what a proxy says that finds none.
async fn is_routed(gateway: SocketAddr, host: &str, path: &str) -> bool {
    const STATUS: std::ops::Range<usize> = "HTTP/1.1 ".len().."HTTP/1.1 200".len();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(gateway).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; STATUS.end];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start)
    };
    match tokio::time::timeout(WITHIN, answer).await {
        Ok(Ok(start)) => !matches!(&start[STATUS], b"404" | b"502" | b"503" | b"504"),
        _ => false,
    }
}
