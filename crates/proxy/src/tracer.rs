//! Spans on their way to a collector: gathered in memory, sent together, beside the traffic.

pub(crate) mod otlp;
mod zipkin;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use dataplane::tracing::{Context, Propagation};
use parking_lot::Mutex;
use xds::Wire as _;
use xds::envoy::config::trace::v3::tracing::Http as Provider;
use xds::envoy::config::trace::v3::tracing::http::ConfigType;
use xds::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig};
use xds::opentelemetry::proto::resource::v1::Resource;

use crate::config::Shared;
use crate::http::callout::{self, GrpcTarget, HttpTarget, OTLP};
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
    Zipkin { to: HttpTarget, service: String },
    OtlpHttp { to: HttpTarget, resource: Resource },
    OtlpGrpc { to: GrpcTarget, resource: Resource },
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
            Some(service) => HttpTarget::compile(service, "collector_service", "application/json")?,
            None => HttpTarget::new(
                &config.collector_cluster,
                &config.collector_hostname,
                &config.collector_endpoint,
                "application/json",
            ),
        };
        if !to.is_complete() {
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
        let attributes = otlp::detected(&config.resource_detectors)?;
        let resource = otlp::resource(name, attributes);
        let collector = match (&config.grpc_service, &config.http_service) {
            (Some(grpc), None) => Collector::OtlpGrpc {
                to: GrpcTarget::compile(Some(grpc), Duration::from_secs(5))?,
                resource,
            },
            (None, Some(http)) => Collector::OtlpHttp {
                to: HttpTarget::compile(http, "http_service", OTLP)?,
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
                to.post(worker, shared, zipkin::encode(&spans, service))
                    .await
            }
            Collector::OtlpHttp { to, resource } => {
                let body = otlp::request(&spans, resource).to_wire();
                to.post(worker, shared, body).await
            }
            Collector::OtlpGrpc { to, resource } => {
                let body = otlp::request(&spans, resource).to_wire();
                to.call(worker, shared, otlp::EXPORT, &body).await.map(drop)
            }
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
