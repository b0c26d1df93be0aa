//! The status server of the agent (15020): readiness, merged metrics, the application's probes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;

use crate::Environment;
use crate::envoy::Envoy;
use crate::fetch::Fetch;
use crate::probes::Probes;
use proxy::server::Proxy;
use proxy::stats::render::{self, Query};
use proxy::web::{self, Answer, Request};

/// Where the application shows its metrics, as its annotations said before injection.
#[derive(Debug, Deserialize, Default)]
struct Scrape {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

/// The proxy the agent looks after.
pub enum Subject {
    /// The built-in one, in this process.
    Here(Arc<Proxy>),
    /// An Envoy.
    Envoy(Arc<Envoy>),
}

impl Subject {
    fn stop(&self) -> &runtime::CancellationToken {
        match self {
            Self::Here(proxy) => &proxy.stop,
            Self::Envoy(envoy) => &envoy.stop,
        }
    }
}

struct Status {
    proxy: Subject,
    environment: Arc<Environment>,
    probes: Probes,
    scrape: Option<Scrape>,
    mark: Option<u32>,
}

/// Serves the status port.
///
/// # Errors
/// When the port is taken.
pub fn serve(
    proxy: Subject,
    environment: Arc<Environment>,
    mark: Option<u32>,
) -> Result<(), String> {
    let port = environment.config_number("statusPort") as u16;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = proxy::listener::bind(address, 128)
        .map_err(|error| format!("status port: cannot bind {address}: {error}"))?;
    let text = |name: &str| environment.variables.get(name).cloned().unwrap_or_default();
    let ip = environment
        .ip
        .parse()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let scrape = serde_json::from_str::<Scrape>(&text("ISTIO_PROMETHEUS_ANNOTATIONS"))
        .ok()
        .filter(|scrape| scrape.scrape == "true");
    let status = Arc::new(Status {
        probes: Probes::new(&text("ISTIO_KUBE_APP_PROBERS"), ip, mark),
        scrape,
        environment,
        mark,
        proxy,
    });
    let stop = status.proxy.stop().clone();
    web::serve(socket, stop, move |request| {
        let status = status.clone();
        async move { status.answer(request).await }
    })
    .map_err(|error| format!("status port: {error}"))
}

impl Status {
    async fn answer(&self, request: Request) -> Answer {
        match request.path.as_str() {
            "/healthz/ready" => self.ready().await,
            "/stats/prometheus" | "/metrics" => self.metrics().await,
            "/quitquitquit" => {
                if !request.peer.ip().is_loopback() {
                    return Answer::text(
                        StatusCode::FORBIDDEN,
                        "Only requests from localhost are allowed",
                    );
                }
                if request.method != Method::POST {
                    return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Only POST is allowed");
                }
                let stop = self.proxy.stop().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stop.cancel();
                });
                Answer::ok("OK")
            }
            "/drain" => {
                if request.method != Method::POST {
                    return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Only POST is allowed");
                }
                match &self.proxy {
                    Subject::Here(proxy) => proxy.terminate(self.environment.role != "router"),
                    Subject::Envoy(envoy) => envoy.drain().await,
                }
                Answer::ok("OK")
            }
            path if path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/") => {
                self.probes.answer(path, &request.headers).await
            }
            _ => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    async fn ready(&self) -> Answer {
        let proxy = match &self.proxy {
            Subject::Here(proxy) => proxy,
            Subject::Envoy(envoy) => {
                return match envoy.ready().await {
                    Ok(()) => Answer::ok(""),
                    Err(why) => Answer::text(
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!("Envoy proxy is NOT ready: {why}\n"),
                    ),
                };
            }
        };
        let state = proxy.shared.state();
        if state == "LIVE" {
            return Answer::ok("");
        }
        let (clusters, listeners) = proxy.manager.with_state(|state| {
            (
                state.warming_clusters.keys().next().cloned(),
                state.warming_listeners.keys().next().cloned(),
            )
        });
        let waits = match (clusters, listeners) {
            (Some(name), _) => format!("cluster {name} waits for its endpoints"),
            (None, Some(name)) => format!("listener {name} waits for routes or certificates"),
            (None, None) => "config not received from istiod (is it running?)".to_owned(),
        };
        Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("Envoy proxy is NOT ready: {waits}; server is {state}\n"),
        )
    }

    async fn metrics(&self) -> Answer {
        let mut out = String::new();
        if let Some(scrape) = &self.scrape {
            let port = scrape.port.parse().unwrap_or(80);
            let path = if scrape.path.is_empty() {
                "/metrics"
            } else {
                &scrape.path
            };
            let ip = self
                .environment
                .ip
                .parse()
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let fetch = Fetch {
                method: Method::GET,
                address: SocketAddr::new(ip, port),
                host: &format!("{ip}:{port}"),
                path,
                headers: vec![("accept".into(), "text/plain".into())],
                tls: false,
                source: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6))),
                mark: self.mark,
                timeout: Duration::from_secs(5),
            };
            match fetch.send().await {
                Ok((StatusCode::OK, body)) => {
                    out.push_str(&String::from_utf8_lossy(&body));
                    if !out.ends_with('\n') {
                        out.push('\n');
                    }
                }
                Ok((status, _)) => tracing::warn!("metrics of the application: {status}"),
                Err(error) => tracing::warn!("metrics of the application: {error}"),
            }
        }
        match &self.proxy {
            Subject::Here(proxy) => out.push_str(&render::prometheus(
                &proxy.shared.stats,
                proxy.tags(),
                &Query::default(),
            )),
            Subject::Envoy(envoy) => match envoy.metrics().await {
                Ok(text) => out.push_str(&String::from_utf8_lossy(&text)),
                Err(error) => tracing::warn!("metrics of Envoy: {error}"),
            },
        }
        out.push_str(&format!(
            "# TYPE istio_build gauge\nistio_build{{component=\"proxy\",tag=\"{}\"}} 1\n",
            super::ISTIO_VERSION
        ));
        Answer {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            ..Answer::ok(out)
        }
    }
}
