//! Requests of our own: filters and reporters that ask a service in a cluster.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dataplane::circuit::Priority;
use dataplane::cluster::{Discovery, UpstreamProtocol};
use dataplane::lb::PickContext;
use dataplane::outlier::HostResult;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use xds::Wire;
use xds::envoy::config::core::v3::grpc_service::TargetSpecifier;
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::config::core::v3::{GrpcService, HttpService};

use super::message::Informational;
use super::record::Head;
use super::{mirror, router};
use crate::body::{Body, Frame, Replay, SharedReplay};
use crate::config::Shared;
use crate::worker::Worker;

/// Longer answers are refused.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no such cluster.
    #[error("there is no cluster {0:?}")]
    NoCluster(String),
    /// The cluster has no healthy host.
    #[error("the cluster {0:?} has no healthy host")]
    NoHost(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The connection or the stream failed.
    #[error("{0}")]
    Failed(String),
    /// A gRPC status other than 0.
    #[error("gRPC status {0}: {1}")]
    Status(u32, String),
}

/// Sends one request to a host of the cluster and reads the whole answer.
///
/// # Errors
/// Why there is no answer.
pub async fn http(
    worker: &Worker,
    shared: &Shared,
    cluster: &str,
    head: &Head,
    body: Bytes,
    timeout: Duration,
) -> Result<Reply, CallError> {
    call(
        worker,
        shared,
        cluster,
        head,
        whole(body),
        Some(timeout),
        None,
    )
    .await
}

/// A body that is there already.
fn whole(body: Bytes) -> Option<SharedReplay> {
    (!body.is_empty()).then(|| Replay::new(Body::full(body), 0))
}

async fn call(
    worker: &Worker,
    shared: &Shared,
    name: &str,
    head: &Head,
    body: Option<SharedReplay>,
    timeout: Option<Duration>,
    http2: Option<bool>,
) -> Result<Reply, CallError> {
    let cluster = shared
        .cluster(name)
        .ok_or_else(|| CallError::NoCluster(name.to_owned()))?;
    if matches!(
        cluster.config.discovery,
        Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy
    ) {
        return Err(CallError::Failed(format!(
            "the cluster {name:?} has no hosts of its own"
        )));
    }
    let Some((_, host)) = cluster.pick(&PickContext::default(), &mut || worker.random()) else {
        cluster.stats.upstream_cx_none_healthy.inc();
        router::count_local(&cluster, 503);
        return Err(CallError::NoHost(name.to_owned()));
    };
    let http2 = http2.unwrap_or(cluster.config.protocol == UpstreamProtocol::Http2);
    let info = Informational::default();
    let exchange = async {
        let sent = router::send_to(
            worker,
            head,
            body,
            &cluster,
            &host,
            Priority::Default,
            http2,
            None,
            None,
            None,
            &info,
            &OnceCell::new(),
        )
        .await;
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(why) => {
                host.stats.rq_error.inc();
                cluster.record(&host, HostResult::LocalOriginFailure, &mut || {
                    worker.random()
                });
                router::count_local(&cluster, 503);
                return Err(CallError::Failed(why.to_string()));
            }
        };
        let status = answer.status();
        router::count_local(&cluster, status.as_u16());
        cluster.record(&host, HostResult::Http(status.as_u16()), &mut || {
            worker.random()
        });
        if status.is_server_error() {
            host.stats.rq_error.inc();
        } else {
            host.stats.rq_success.inc();
        }
        let headers = answer.take_headers();
        let mut bytes = BytesMut::new();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = answer.body().frame().await {
            match frame.map_err(|error| CallError::Failed(format!("{error:?}")))? {
                Frame::Data(data) => {
                    if bytes.len() + data.len() > MAX_ANSWER {
                        return Err(CallError::Failed("the answer is too long".to_owned()));
                    }
                    bytes.extend_from_slice(&data);
                }
                Frame::Trailers(found) => trailers = found,
            }
        }
        Ok(Reply {
            status,
            headers,
            body: bytes.freeze(),
            trailers,
        })
    };
    let Some(timeout) = timeout else {
        return exchange.await;
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(reply) => reply,
        Err(_) => {
            cluster.stats.upstream_rq_timeout.inc();
            host.stats.rq_timeout.inc();
            cluster.record(&host, HostResult::LocalOriginTimeout, &mut || {
                worker.random()
            });
            router::count_local(&cluster, 504);
            Err(CallError::Timeout)
        }
    }
}

fn content_type(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
}

/// What OpenTelemetry's collectors are sent over HTTP, and who says that he sends it.
pub const OTLP: &str = "application/x-protobuf";
const OTLP_AGENT: &str = "OTel-OTLP-Exporter-Envoy/0000000000000000000000000000000000000000/1.40.0/Clean/RELEASE/theater";

/// Where to post something.
#[derive(Debug)]
pub struct HttpTarget {
    cluster: String,
    authority: String,
    path: String,
    headers: HeaderMap,
    timeout: Duration,
}

impl HttpTarget {
    /// A path in a cluster; an empty authority is the name of the cluster.
    pub fn new(cluster: &str, authority: &str, path: &str, kind: &'static str) -> Self {
        let authority = match authority {
            "" => cluster,
            authority => authority,
        };
        Self {
            cluster: cluster.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: content_type(kind),
            timeout: Duration::from_secs(5),
        }
    }

    /// Whether there is a cluster and a path.
    pub fn is_complete(&self) -> bool {
        !self.cluster.is_empty() && !self.path.is_empty()
    }

    /// Compiles a service in a cluster that is sent something of this `kind`; `field` is its name for errors.
    ///
    /// # Errors
    /// What of it cannot be followed.
    pub fn compile(service: &HttpService, field: &str, kind: &'static str) -> Result<Self, String> {
        let uri = service
            .http_uri
            .as_ref()
            .ok_or_else(|| format!("{field}.http_uri: is missing"))?;
        let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
            return Err(format!("{field}.http_uri.cluster: is missing"));
        };
        // Istio leaves the scheme out for OpenTelemetry.
        let text = if uri.uri.contains("://") {
            uri.uri.clone()
        } else {
            format!("http://{}", uri.uri)
        };
        let target: Uri = text
            .parse()
            .map_err(|_| format!("{field}.http_uri.uri: {:?} is no URI", uri.uri))?;
        let mut headers = content_type(kind);
        if kind == OTLP {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(OTLP_AGENT));
        }
        for option in &service.request_headers_to_add {
            let header = option.header.clone().unwrap_or_default();
            let (Ok(name), Ok(value)) = (
                HeaderName::try_from(header.key.as_str()),
                HeaderValue::try_from(header.value.as_str()),
            ) else {
                return Err(format!(
                    "{field}.request_headers_to_add: {:?} is not a header",
                    header.key
                ));
            };
            headers.insert(name, value);
        }
        Ok(Self {
            cluster: cluster.clone(),
            authority: target
                .authority()
                .map_or_else(|| cluster.clone(), ToString::to_string),
            path: target
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            headers,
            timeout: crate::config::listener::duration(uri.timeout.as_ref())
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(Duration::from_secs(5)),
        })
    }

    /// Posts a body.
    ///
    /// # Errors
    /// Why it did not arrive, or the status other than a success.
    pub async fn post(
        &self,
        worker: &Worker,
        shared: &Shared,
        body: Vec<u8>,
    ) -> Result<(), CallError> {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        mirror::of_our_own(&mut headers, Some(self.timeout));
        mirror::from_address(crate::io::node_address(), &mut headers);
        let head = Head {
            method: Method::POST,
            scheme: "http",
            authority: self.authority.clone(),
            path: self.path.clone(),
            headers,
        };
        let reply = http(
            worker,
            shared,
            &self.cluster,
            &head,
            Bytes::from(body),
            self.timeout,
        )
        .await?;
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(CallError::Failed(format!("HTTP status {}", reply.status)))
        }
    }
}

/// A gRPC service in a cluster.
#[derive(Debug, Clone)]
pub struct GrpcTarget {
    /// The cluster.
    pub cluster: Arc<str>,
    authority: String,
    metadata: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

impl GrpcTarget {
    /// Compiles a service; `timeout` is the default.
    ///
    /// # Errors
    /// When it is no service in a cluster, or has metadata that cannot be sent.
    pub fn compile(config: Option<&GrpcService>, timeout: Duration) -> Result<Self, String> {
        let config = config.ok_or("grpc_service: is missing")?;
        let grpc = match &config.target_specifier {
            Some(TargetSpecifier::EnvoyGrpc(grpc)) => grpc,
            Some(TargetSpecifier::GoogleGrpc(_)) => {
                return Err("grpc_service.google_grpc: is not supported, use envoy_grpc".into());
            }
            None => return Err("grpc_service.envoy_grpc: is missing".into()),
        };
        let mut metadata = Vec::new();
        for header in &config.initial_metadata {
            let name = HeaderName::try_from(header.key.as_str());
            let value = HeaderValue::try_from(header.value.as_str());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!(
                    "grpc_service.initial_metadata: {:?} is not a header",
                    header.key
                ));
            };
            metadata.push((name, value));
        }
        Ok(Self {
            cluster: grpc.cluster_name.as_str().into(),
            authority: if grpc.authority.is_empty() {
                grpc.cluster_name.clone()
            } else {
                grpc.authority.clone()
            },
            metadata,
            timeout: crate::config::listener::duration(config.timeout.as_ref())
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(timeout),
        })
    }

    /// Calls a method with one message in each direction. `path` is `/package.Service/Method`.
    ///
    /// # Errors
    /// Why there is no answer, or the status of the service.
    pub async fn unary<A: Wire>(
        &self,
        worker: &Worker,
        shared: &Shared,
        path: &str,
        message: &impl Wire,
    ) -> Result<A, CallError> {
        let message = message.to_wire();
        let answer = self.call(worker, shared, path, &message).await?;
        A::from_wire(&answer).map_err(|error| CallError::Failed(error.to_string()))
    }

    /// The same with messages that are encoded.
    ///
    /// # Errors
    /// As for [`Self::unary`].
    pub async fn call(
        &self,
        worker: &Worker,
        shared: &Shared,
        path: &str,
        message: &[u8],
    ) -> Result<Bytes, CallError> {
        let mut head = self.head(path);
        if let Ok(value) = HeaderValue::try_from(format!("{}m", self.timeout.as_millis())) {
            head.headers.insert("grpc-timeout", value);
        }
        let body = whole(frame(message));
        let timeout = Some(self.timeout);
        let cluster = &self.cluster;
        let reply = call(worker, shared, cluster, &head, body, timeout, Some(true)).await?;
        answer(&reply)
    }

    /// Calls a method that takes many messages, each framed by [`frame`]; ends when the service or the body does.
    ///
    /// # Errors
    /// Why the stream could not be opened, broke off, or the status of the service.
    pub async fn stream(
        &self,
        worker: &Worker,
        shared: &Shared,
        path: &str,
        messages: Body,
    ) -> Result<(), CallError> {
        let body = Some(Replay::new(messages, 0));
        let (cluster, head) = (&self.cluster, self.head(path));
        let reply = call(worker, shared, cluster, &head, body, None, Some(true)).await?;
        status(&reply)
    }

    fn head(&self, path: &str) -> Head {
        let mut headers = HeaderMap::with_capacity(4 + self.metadata.len());
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        for (name, value) in &self.metadata {
            headers.append(name, value.clone());
        }
        Head {
            method: Method::POST,
            scheme: "http",
            authority: self.authority.clone(),
            path: path.to_owned(),
            headers,
        }
    }
}

/// An encoded message as gRPC frames it.
pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// Whether the service said that all is well.
fn status(reply: &Reply) -> Result<(), CallError> {
    if reply.status != StatusCode::OK {
        return Err(CallError::Failed(format!("HTTP status {}", reply.status)));
    }
    let said = |name: &str| {
        [&reply.trailers, &reply.headers]
            .into_iter()
            .find_map(|headers| headers.get(name))
            .and_then(|value| value.to_str().ok())
    };
    match said("grpc-status").and_then(|status| status.parse::<u32>().ok()) {
        Some(0) => Ok(()),
        Some(status) => {
            let message = said("grpc-message").unwrap_or_default().to_owned();
            Err(CallError::Status(status, message))
        }
        None => Err(CallError::Failed(
            "the answer has no grpc-status".to_owned(),
        )),
    }
}

/// The encoded message of a unary answer.
fn answer(reply: &Reply) -> Result<Bytes, CallError> {
    status(reply)?;
    unframe(&reply.body)
        .ok_or_else(|| CallError::Failed("the answer is not one gRPC message".to_owned()))
}

/// The message of a body that is one gRPC message, uncompressed; `None` for any other body.
pub fn unframe(body: &Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (prefix[0] == 0 && message.len() == length).then(|| body.slice(5..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: Bytes, trailers: &[(&'static str, &'static str)]) -> Reply {
        Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body,
            trailers: trailers
                .iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn a_framed_message_is_read_back() {
        let read = answer(&reply(frame(b"hello"), &[("grpc-status", "0")]));
        assert_eq!(read, Ok(Bytes::from_static(b"hello")));
    }

    #[test]
    fn a_status_is_an_error_with_its_message() {
        let failed = answer(&reply(
            Bytes::new(),
            &[("grpc-status", "7"), ("grpc-message", "no")],
        ));
        assert_eq!(failed, Err(CallError::Status(7, "no".to_owned())));
        assert!(answer(&reply(Bytes::from_static(b"\0\0"), &[("grpc-status", "0")])).is_err());
    }
}
