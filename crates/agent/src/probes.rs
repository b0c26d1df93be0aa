//! The application's own probes, which the kubelet sends to the agent instead.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use crate::fetch::{Fetch, connect};
use proxy::web::Answer;
use xds::codec::WireCodec;
use xds::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

/// Where the agent's connections to the application come from: the redirection leaves this source alone.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// A probe as it stood in the pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Clone, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Debug, Clone, Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

/// All probes by the path the kubelet asks for.
pub struct Probes {
    probes: HashMap<String, Probe>,
    ip: IpAddr,
    mark: Option<u32>,
}

impl Probes {
    /// Reads `ISTIO_KUBE_APP_PROBERS`.
    pub fn new(text: &str, ip: IpAddr, mark: Option<u32>) -> Self {
        let probes = if text.is_empty() {
            HashMap::new()
        } else {
            serde_json::from_str(text).unwrap_or_else(|error| {
                tracing::error!("ISTIO_KUBE_APP_PROBERS cannot be read: {error}");
                HashMap::new()
            })
        };
        Self { probes, ip, mark }
    }

    /// Answers a probe by probing the application.
    pub async fn answer(&self, path: &str, headers: &HeaderMap) -> Answer {
        let Some(probe) = self.probes.get(path) else {
            return Answer::text(
                StatusCode::NOT_FOUND,
                format!("app prober config does not exist for {path}"),
            );
        };
        let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1));
        if let Some(get) = &probe.http_get {
            return self.http(get, headers, timeout).await;
        }
        let outcome = if let Some(tcp) = &probe.tcp_socket {
            match tokio::time::timeout(timeout, connect(self.at(tcp.port), Some(SOURCE), self.mark))
                .await
            {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("timed out".to_owned()),
            }
        } else if let Some(grpc) = &probe.grpc {
            match tokio::time::timeout(timeout, self.grpc(grpc)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("timed out".to_owned()),
            }
        } else {
            Err("a probe of unknown kind".to_owned())
        };
        match outcome {
            Ok(()) => Answer::ok(""),
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    async fn http(&self, get: &HttpGet, headers: &HeaderMap, timeout: Duration) -> Answer {
        // What the kubelet said about itself goes on; what the pod's author wrote wins.
        let mut forwarded: Vec<(String, String)> = headers
            .iter()
            .filter(|(name, _)| {
                !matches!(
                    name.as_str(),
                    "host" | "connection" | "content-length" | "transfer-encoding"
                )
            })
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .filter(|(name, _)| {
                !get.http_headers
                    .iter()
                    .any(|header| header.name.eq_ignore_ascii_case(name))
            })
            .collect();
        forwarded.extend(
            get.http_headers
                .iter()
                .map(|header| (header.name.clone(), header.value.clone())),
        );
        let host = if get.host.is_empty() {
            format!("{}:{}", self.ip, get.port)
        } else {
            get.host.clone()
        };
        let path = if get.path.starts_with('/') {
            get.path.clone()
        } else {
            format!("/{}", get.path)
        };
        let fetch = Fetch {
            method: Method::GET,
            address: self.at(get.port),
            host: &host,
            path: &path,
            headers: forwarded,
            tls: get.scheme.eq_ignore_ascii_case("https"),
            source: Some(SOURCE),
            mark: self.mark,
            timeout,
        };
        match fetch.send().await {
            Ok((status, body)) => Answer {
                status,
                content_type: "text/plain; charset=utf-8",
                body: body.slice(..body.len().min(10 * 1024)),
                headers: Vec::new(),
            },
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    async fn grpc(&self, grpc: &Grpc) -> Result<(), String> {
        let (address, mark) = (self.at(grpc.port), self.mark);
        let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}"))
            .map_err(|error| error.to_string())?;
        let channel = endpoint
            .connect_with_connector(tower::service_fn(move |_| async move {
                connect(address, Some(SOURCE), mark)
                    .await
                    .map(hyper_util::rt::TokioIo::new)
            }))
            .await
            .map_err(|error| proxy::xds_client::channel::describe(&error))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let request = HealthCheckRequest {
            service: grpc.service.clone().unwrap_or_default(),
        };
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = WireCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let response = client
            .unary(tonic::Request::new(request), path, codec)
            .await
            .map_err(|status| format!("{}: {}", status.code(), status.message()))?;
        match response.into_inner().status {
            1 => Ok(()),
            other => Err(format!("health status {other}")),
        }
    }
}
