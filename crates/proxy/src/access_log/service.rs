//! Services that take access logs: entries are gathered and handed over together, beside the traffic.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use xds::Wire as _;
use xds::envoy::config::core::v3::{ApiVersion, GrpcService};
use xds::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::envoy::service::accesslog::v3::stream_access_logs_message::Identifier;
use xds::opentelemetry::proto::resource::v1::Resource;
use xds::wire::put_bytes;

use super::otlp;
use crate::body::{Body, BodyError, Frame, Source};
use crate::config::Shared;
use crate::http::callout::{self, CallError, GrpcTarget, HttpTarget, OTLP};
use crate::stats::groups::AccessLogStats;
use crate::tracer::otlp::{attribute, detected};
use crate::worker::Worker;

/// The method that takes streams of entries.
const STREAM: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
/// How long entries wait for others, if nothing else is said.
const INTERVAL: Duration = Duration::from_secs(1);
/// So many bytes do not wait.
const ENOUGH: usize = 16 * 1024;

/// A service that takes entries.
pub struct Service {
    /// The settings: logs with the same ones share a service.
    key: Vec<u8>,
    to: Collector,
    interval: Duration,
    enough: usize,
    waiting: Mutex<Vec<u8>>,
    some: Arc<Notify>,
    full: Notify,
    running: AtomicBool,
    stats: Arc<AccessLogStats>,
}

enum Collector {
    /// Envoy's own service: one stream for all entries, which stand in this field of its messages.
    Stream {
        to: GrpcTarget,
        log_name: String,
        field: u32,
    },
    Grpc {
        to: GrpcTarget,
        resource: Resource,
    },
    Http {
        to: HttpTarget,
        resource: Resource,
    },
}

impl Service {
    /// A service that takes entries of requests, or of TCP connections, over gRPC.
    ///
    /// # Errors
    /// What of the settings cannot be followed.
    pub fn grpc(
        config: Option<&CommonGrpcAccessLogConfig>,
        http: bool,
        shared: &Shared,
    ) -> Result<Arc<Self>, String> {
        let config = config.ok_or("common_config: is missing")?;
        let at = |error: String| format!("common_config.{error}");
        version(config).map_err(at)?;
        if config.log_name.is_empty() {
            return Err("common_config.log_name: is missing".into());
        }
        if !config.custom_tags.is_empty() {
            return Err("common_config.custom_tags: is not supported".into());
        }
        if config.grpc_stream_retry_policy.is_some() {
            return Err("common_config.grpc_stream_retry_policy: is not supported".into());
        }
        let to = GrpcTarget::compile(config.grpc_service.as_ref(), Duration::from_secs(5));
        let collector = Collector::Stream {
            to: to.map_err(at)?,
            log_name: config.log_name.clone(),
            field: if http { 2 } else { 3 },
        };
        let mut key = config.to_wire();
        key.push(u8::from(http));
        Ok(Self::shared(
            key,
            collector,
            (
                config.buffer_flush_interval.as_ref(),
                config.buffer_size_bytes,
            ),
            "access_logs.grpc_access_log",
            shared,
        ))
    }

    /// A service that takes OpenTelemetry's records, over gRPC or HTTP.
    ///
    /// # Errors
    /// What of the settings cannot be followed.
    // Istio writes the deprecated common_config.
    #[allow(deprecated)]
    pub fn open_telemetry(
        config: &OpenTelemetryAccessLogConfig,
        shared: &Shared,
    ) -> Result<Arc<Self>, String> {
        let common = config.common_config.clone().unwrap_or_default();
        if config.common_config.is_some() {
            version(&common).map_err(|error| format!("common_config.{error}"))?;
        }
        if !common.custom_tags.is_empty() {
            return Err("common_config.custom_tags: is not supported".into());
        }
        let resource = resource(config, &common.log_name, shared)?;
        let grpc: Option<&GrpcService> = config
            .grpc_service
            .as_ref()
            .or(common.grpc_service.as_ref());
        let collector = match (grpc, &config.http_service) {
            (Some(grpc), None) => Collector::Grpc {
                to: GrpcTarget::compile(Some(grpc), Duration::from_secs(5))?,
                resource,
            },
            (None, Some(http)) => Collector::Http {
                to: HttpTarget::compile(http, "http_service", OTLP)?,
                resource,
            },
            _ => return Err("either grpc_service or http_service is needed".into()),
        };
        let settings = OpenTelemetryAccessLogConfig {
            // What is in the records is the log's own.
            body: None,
            attributes: None,
            ..config.clone()
        };
        let interval = config.buffer_flush_interval.as_ref();
        let size = config.buffer_size_bytes.or(common.buffer_size_bytes);
        let prefix = match config.stat_prefix.as_str() {
            "" => "access_logs.open_telemetry_access_log".to_owned(),
            own => format!(
                "access_logs.open_telemetry_access_log.{}",
                own.trim_end_matches('.')
            ),
        };
        Ok(Self::shared(
            settings.to_wire(),
            collector,
            (interval.or(common.buffer_flush_interval.as_ref()), size),
            &prefix,
            shared,
        ))
    }

    fn shared(
        key: Vec<u8>,
        to: Collector,
        (interval, enough): (Option<&xds::prost_types::Duration>, Option<u32>),
        prefix: &str,
        shared: &Shared,
    ) -> Arc<Self> {
        let mut services = shared.sinks.services.lock();
        services.retain(|service| service.strong_count() > 0);
        let known = services.iter().filter_map(Weak::upgrade);
        if let Some(same) = known.into_iter().find(|service| service.key == key) {
            return same;
        }
        let service = Arc::new(Self {
            key,
            to,
            interval: crate::config::listener::duration(interval)
                .filter(|interval| !interval.is_zero())
                .unwrap_or(INTERVAL),
            enough: enough.map_or(ENOUGH, |bytes| bytes as usize),
            waiting: Mutex::default(),
            some: Arc::default(),
            full: Notify::new(),
            running: AtomicBool::new(false),
            stats: shared.stats.group(prefix),
        });
        services.push(Arc::downgrade(&service));
        service
    }

    /// Takes an encoded entry; on a worker, which then hands it over.
    pub fn take(self: &Arc<Self>, entry: &[u8], worker: &Rc<Worker>, shared: &Arc<Shared>) {
        {
            let mut waiting = self.waiting.lock();
            if self.enough > 0 && waiting.len() >= self.enough {
                // Nobody takes them.
                self.full.notify_one();
                self.stats.logs_dropped.inc();
                return;
            }
            if waiting.is_empty() {
                self.some.notify_one();
            }
            // The number of the field that entries have in the message they are sent in.
            let field = match self.to {
                Collector::Stream { .. } => 1,
                Collector::Grpc { .. } | Collector::Http { .. } => 2,
            };
            put_bytes(&mut waiting, field, entry);
            if waiting.len() >= self.enough {
                self.full.notify_one();
            }
        }
        self.stats.logs_written.inc();
        if !self.running.swap(true, Ordering::Relaxed) {
            tokio::task::spawn_local(hand_over(
                Arc::downgrade(self),
                worker.clone(),
                shared.clone(),
            ));
        }
    }

    async fn send(
        &self,
        entries: Vec<u8>,
        stream: &mut Option<OpenStream>,
        worker: &Rc<Worker>,
        shared: &Arc<Shared>,
    ) -> Result<(), CallError> {
        match &self.to {
            Collector::Stream {
                to,
                log_name,
                field,
            } => {
                let mut message = Vec::with_capacity(entries.len() + 16);
                let open = match stream.take() {
                    Some(open) if !open.closed.get() => open,
                    _ => {
                        if shared.cluster(&to.cluster).is_none() {
                            return Err(CallError::NoCluster(to.cluster.to_string()));
                        }
                        // Only the first message of a stream tells whose it is.
                        let identifier = Identifier {
                            node: Some(shared.node.clone()),
                            log_name: log_name.clone(),
                        };
                        put_bytes(&mut message, 1, &identifier.to_wire());
                        OpenStream::start(to.clone(), worker.clone(), shared.clone())
                    }
                };
                put_bytes(&mut message, *field, &entries);
                let sent = open.messages.send(callout::frame(&message));
                *stream = Some(open);
                sent.map_err(|_| CallError::Failed("the stream has ended".into()))
            }
            Collector::Grpc { to, resource } => {
                let request = request(&entries, resource);
                to.call(worker, shared, otlp::EXPORT, &request)
                    .await
                    .map(drop)
            }
            Collector::Http { to, resource } => {
                to.post(worker, shared, request(&entries, resource)).await
            }
        }
    }
}

fn version(config: &CommonGrpcAccessLogConfig) -> Result<(), String> {
    if config.transport_api_version == ApiVersion::V3 as i32 {
        return Ok(());
    }
    Err("transport_api_version: only V3 is supported".into())
}

/// What all records have in common.
fn resource(
    config: &OpenTelemetryAccessLogConfig,
    log_name: &str,
    shared: &Shared,
) -> Result<Resource, String> {
    let mut attributes = Vec::new();
    if !config.disable_builtin_labels {
        let node = &shared.node;
        let zone = node.locality.as_ref();
        let name = match config.log_name.as_str() {
            "" => log_name,
            name => name,
        };
        attributes.extend([
            attribute("log_name", name),
            attribute("zone_name", zone.map_or("", |locality| &locality.zone)),
            attribute("cluster_name", &node.cluster),
            attribute("node_name", &node.id),
        ]);
    }
    let found = detected(&config.resource_detectors)?;
    attributes.extend(found.iter().map(|(key, value)| attribute(key, value)));
    attributes.extend(
        config
            .resource_attributes
            .iter()
            .flat_map(|list| list.values.iter().cloned()),
    );
    Ok(Resource { attributes })
}

/// The task that hands over what is waiting, until nobody logs to the service any more.
async fn hand_over(service: Weak<Service>, worker: Rc<Worker>, shared: Arc<Shared>) {
    let mut stream = None;
    loop {
        let Some(some) = service.upgrade().map(|service| service.some.clone()) else {
            return;
        };
        some.notified().await;
        let Some(service) = service.upgrade() else {
            return;
        };
        tokio::select! {
            () = service.full.notified() => {}
            () = tokio::time::sleep(service.interval) => {}
        }
        let entries = std::mem::take(&mut *service.waiting.lock());
        if entries.is_empty() {
            continue;
        }
        if let Err(error) = service.send(entries, &mut stream, &worker, &shared).await {
            tracing::debug!("access log entries are lost: {error}");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The task sees that it is over.
        self.some.notify_one();
    }
}

/// A stream to the service.
struct OpenStream {
    messages: mpsc::UnboundedSender<Bytes>,
    closed: Rc<Cell<bool>>,
}

impl OpenStream {
    fn start(to: GrpcTarget, worker: Rc<Worker>, shared: Arc<Shared>) -> Self {
        let (messages, receiver) = mpsc::unbounded_channel();
        let closed = Rc::new(Cell::new(false));
        let ended = closed.clone();
        tokio::task::spawn_local(async move {
            let body = Body::Boxed(Box::new(Messages(receiver)));
            if let Err(error) = to.stream(&worker, &shared, STREAM, body).await {
                tracing::debug!("the stream of access log entries ended: {error}");
            }
            ended.set(true);
        });
        Self { messages, closed }
    }
}

struct Messages(mpsc::UnboundedReceiver<Bytes>);

impl Source for Messages {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let message = self.0.poll_recv(cx);
        message.map(|message| message.map(|bytes| Ok(Frame::Data(bytes))))
    }
}

/// `ExportLogsServiceRequest` with records that are encoded already.
fn request(records: &[u8], resource: &Resource) -> Vec<u8> {
    let mut logs = Vec::with_capacity(records.len() + 256);
    put_bytes(&mut logs, 1, &resource.to_wire());
    // ScopeLogs
    put_bytes(&mut logs, 2, records);
    let mut out = Vec::with_capacity(logs.len() + 8);
    put_bytes(&mut out, 1, &logs);
    out
}
