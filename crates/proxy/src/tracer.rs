//! Spans on their way to a collector: gathered in memory, sent together, beside the traffic.

mod otlp;
mod zipkin;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dataplane::tracing::{Context, Propagation};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use parking_lot::Mutex;
use xds::envoy::config::core::v3::HttpService;
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::config::trace::v3::tracing::Http as Provider;
use xds::envoy::config::trace::v3::tracing::http::ConfigType;
use xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig};

use crate::config::Shared;
use crate::http::callout::{self, GrpcTarget};
use crate::http::record::Head;
use crate::stats::groups::TracerStats;
use crate::worker::Worker;

/// Which side of a call a span tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request was received.
    Server,
    /// It was sent.
    Client,
}

/// A finished span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its place in the trace.
    pub context: Context,
    /// Its name.
    pub name: String,
    /// Its side.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The address of this proxy.
    pub local: IpAddr,
    /// What it says.
    pub tags: Vec<(String, String)>,
}

/// Who collects spans.
pub struct Tracer {
    collector: Collector,
    /// How traces are carried on.
    pub propagation: Propagation,
    /// Traces have 128 bits.
    pub wide: bool,
    /// So many spans are sent at once, without waiting.
    enough: usize,
    waiting: Mutex<Vec<Span>>,
    timer: AtomicBool,
    stats: Arc<TracerStats>,
}

enum Collector {
    Zipkin {
        to: Post,
        service: String,
    },
    OtlpHttp {
        to: Post,
        resource: otlp::Resource,
    },
    OtlpGrpc {
        to: GrpcTarget,
        resource: otlp::Resource,
    },
}

/// Where to post.
struct Post {
    cluster: String,
    authority: String,
    path: String,
    headers: HeaderMap,
    timeout: Duration,
}

/// Spans wait so long for others.
const GATHER: Duration = Duration::from_secs(5);
/// More are not kept when the collector is away.
const MAX_WAITING: usize = 4096;

impl Tracer {
    /// Compiles a provider.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(provider: &Provider, shared: &Shared) -> Result<Arc<Self>, String> {
        let Some(ConfigType::TypedConfig(any)) = &provider.config_type else {
            return Err("provider.typed_config: is missing".into());
        };
        match xds::any::message_name(any) {
            "envoy.config.trace.v3.ZipkinConfig" => {
                let config = xds::any::unpack::<ZipkinConfig>(any)
                    .map_err(|error| error.to_string())?
                    .unwrap_or_default();
                Self::zipkin(&config, shared).map_err(|error| format!("provider (zipkin): {error}"))
            }
            "envoy.config.trace.v3.OpenTelemetryConfig" => {
                let config = xds::any::unpack::<OpenTelemetryConfig>(any)
                    .map_err(|error| error.to_string())?
                    .unwrap_or_default();
                Self::opentelemetry(&config, shared)
                    .map_err(|error| format!("provider (opentelemetry): {error}"))
            }
            other => Err(format!("provider: {other} is not supported")),
        }
    }

    fn zipkin(config: &ZipkinConfig, shared: &Shared) -> Result<Arc<Self>, String> {
        use xds::envoy::config::trace::v3::zipkin_config::CollectorEndpointVersion;
        if CollectorEndpointVersion::try_from(config.collector_endpoint_version)
            == Ok(CollectorEndpointVersion::HttpProto)
        {
            return Err("collector_endpoint_version: only HTTP_JSON is supported".into());
        }
        if config.trace_context_option != 0 {
            return Err("trace_context_option: is not supported".into());
        }
        let to = match &config.collector_service {
            Some(service) => Post::compile(service, "collector_service", "application/json")?,
            None => Post {
                cluster: config.collector_cluster.clone(),
                authority: if config.collector_hostname.is_empty() {
                    config.collector_cluster.clone()
                } else {
                    config.collector_hostname.clone()
                },
                path: config.collector_endpoint.clone(),
                headers: content_type("application/json"),
                timeout: Duration::from_secs(5),
            },
        };
        if to.cluster.is_empty() || to.path.is_empty() {
            return Err("collector_cluster and collector_endpoint are needed".into());
        }
        Ok(Arc::new(Self {
            collector: Collector::Zipkin {
                to,
                service: shared.node.cluster.clone(),
            },
            propagation: Propagation::B3,
            wide: config.trace_id_128bit,
            enough: 5,
            waiting: Mutex::default(),
            timer: AtomicBool::new(false),
            stats: shared.stats.group("tracing.zipkin"),
        }))
    }

    fn opentelemetry(config: &OpenTelemetryConfig, shared: &Shared) -> Result<Arc<Self>, String> {
        if config.sampler.is_some() {
            return Err("sampler: is not supported".into());
        }
        if config.exporter.is_some() {
            return Err("exporter: is not supported".into());
        }
        let name = if config.service_name.is_empty() {
            "unknown_service:envoy"
        } else {
            &config.service_name
        };
        let mut attributes = Vec::new();
        for (index, detector) in config.resource_detectors.iter().enumerate() {
            let known = detector.typed_config.as_ref().is_some_and(|any| {
                xds::any::message_name(any).ends_with(".EnvironmentResourceDetectorConfig")
            });
            if !known {
                return Err(format!(
                    "resource_detectors[{index}]: {} is not supported",
                    detector.name
                ));
            }
            let variable = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
            attributes.extend(otlp::attributes_of(&variable));
        }
        let resource = otlp::Resource::new(name, attributes);
        let collector = match (&config.grpc_service, &config.http_service) {
            (Some(grpc), None) => Collector::OtlpGrpc {
                to: GrpcTarget::compile(Some(grpc), Duration::from_secs(5))?,
                resource,
            },
            (None, Some(http)) => Collector::OtlpHttp {
                to: Post::compile(http, "http_service", "application/x-protobuf")?,
                resource,
            },
            _ => return Err("either grpc_service or http_service is needed".into()),
        };
        Ok(Arc::new(Self {
            collector,
            propagation: Propagation::W3c,
            wide: true,
            enough: 5,
            waiting: Mutex::default(),
            timer: AtomicBool::new(false),
            stats: shared.stats.group("tracing.opentelemetry"),
        }))
    }

    /// Takes a span; on a worker.
    pub fn report(self: &Arc<Self>, worker: &Rc<Worker>, shared: &Arc<Shared>, span: Span) {
        let count = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MAX_WAITING {
                self.stats.reports_dropped.inc();
                return;
            }
            waiting.push(span);
            waiting.len()
        };
        let now = count >= self.enough;
        if !now && self.timer.swap(true, Ordering::Relaxed) {
            return;
        }
        let (this, worker, shared) = (self.clone(), worker.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            if !now {
                tokio::time::sleep(GATHER).await;
                this.timer.store(false, Ordering::Relaxed);
                this.stats.timer_flushed.inc();
            }
            this.flush(&worker, &shared).await;
        });
    }

    async fn flush(&self, worker: &Worker, shared: &Shared) {
        let spans = std::mem::take(&mut *self.waiting.lock());
        if spans.is_empty() {
            return;
        }
        self.stats.spans_sent.add(spans.len() as u64);
        let sent = match &self.collector {
            Collector::Zipkin { to, service } => {
                to.send(worker, shared, zipkin::encode(&spans, service))
                    .await
            }
            Collector::OtlpHttp { to, resource } => {
                let body = prost::Message::encode_to_vec(&otlp::request(&spans, resource));
                to.send(worker, shared, body).await
            }
            Collector::OtlpGrpc { to, resource } => to
                .unary::<otlp::Exported>(
                    worker,
                    shared,
                    otlp::EXPORT,
                    &otlp::request(&spans, resource),
                )
                .await
                .map(|_| ()),
        };
        match sent {
            Ok(()) => self.stats.reports_sent.inc(),
            Err(callout::CallError::NoCluster(_)) => self.stats.reports_skipped_no_cluster.inc(),
            Err(error) => {
                self.stats.reports_dropped.inc();
                tracing::debug!("spans are lost: {error}");
            }
        }
    }
}

fn content_type(value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
}

impl Post {
    fn compile(service: &HttpService, field: &str, kind: &'static str) -> Result<Self, String> {
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

    async fn send(
        &self,
        worker: &Worker,
        shared: &Shared,
        body: Vec<u8>,
    ) -> Result<(), callout::CallError> {
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        let head = Head {
            method: Method::POST,
            scheme: "http",
            authority: self.authority.clone(),
            path: self.path.clone(),
            headers,
        };
        let reply = callout::http(
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
            Err(callout::CallError::Failed(format!(
                "HTTP status {}",
                reply.status
            )))
        }
    }
}
