//! The Telemetry API: which metrics, traces and logs a proxy has, from the mesh, its namespace and itself.

use crate::context::ListenerClass;
use crate::names;
use crate::objects::{Config, selects};
use crate::proto::duration;
use crate::sidecar_scope::Scope;
use crate::{ProxyInfo, Snapshot};
use api::istio::{self, CustomTag, ExtensionProvider, IstioMetric, TagOperation, WorkloadMode};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use xds::stats::{MetricConfig, PluginConfig};

/// Providers that exist without being configured.
static BUILT_IN: LazyLock<Vec<ExtensionProvider>> = LazyLock::new(|| {
    vec![
        ExtensionProvider {
            name: "prometheus".to_owned(),
            prometheus: Some(istio::EmptyProvider {}),
            ..ExtensionProvider::default()
        },
        ExtensionProvider {
            name: "envoy".to_owned(),
            envoy_file_access_log: Some(istio::FileAccessLogProvider {
                path: "/dev/stdout".to_owned(),
                ..Default::default()
            }),
            ..ExtensionProvider::default()
        },
    ]
});

/// What a proxy reports.
pub(crate) struct Telemetry<'a> {
    snapshot: &'a Snapshot,
    /// Mesh, namespace, workload; those that exist.
    layers: Vec<&'a Config<istio::Telemetry>>,
}

/// One access log.
pub(crate) struct AccessLogSpec<'a> {
    pub(crate) provider: &'a ExtensionProvider,
    pub(crate) filter: Option<&'a str>,
}

/// How requests are traced.
#[derive(Default, Clone)]
pub(crate) struct TracingSpec<'a> {
    pub(crate) provider: Option<&'a ExtensionProvider>,
    pub(crate) disabled: bool,
    pub(crate) sampling: Option<f64>,
    pub(crate) tags: Option<&'a BTreeMap<String, CustomTag>>,
    pub(crate) use_request_id: Option<bool>,
    pub(crate) istio_tags: Option<bool>,
    pub(crate) no_context_propagation: Option<bool>,
    /// Whether some stanza or default names a provider or sampling at all.
    pub(crate) configured: bool,
}

impl<'a> Telemetry<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &ProxyInfo) -> Self {
        let root = snapshot.mesh.root_namespace();
        let plain = |namespace: &str| {
            snapshot.telemetries.iter().find(|config| {
                config.namespace == namespace
                    && config.spec.selector.is_none()
                    && config.spec.target_refs.is_empty()
                    && config.spec.target_ref.is_none()
            })
        };
        let mut layers: Vec<&Config<istio::Telemetry>> = plain(root).into_iter().collect();
        if proxy.namespace != root {
            layers.extend(plain(&proxy.namespace));
        }
        layers.extend(snapshot.telemetries.iter().find(|config| {
            config.namespace == proxy.namespace
                && config
                    .spec
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selects(&selector.match_labels, &proxy.labels))
        }));
        Self { snapshot, layers }
    }

    fn provider(&self, name: &str) -> Option<&'a ExtensionProvider> {
        self.snapshot
            .provider(name)
            .or_else(|| BUILT_IN.iter().find(|provider| provider.name == name))
    }

    fn defaults(&self, of: fn(&istio::DefaultProviders) -> &Vec<String>) -> &'a [String] {
        self.snapshot
            .mesh
            .default_providers
            .as_ref()
            .map_or(&[], |defaults| of(defaults))
    }

    /// The statistics filter for a class of listener, if there is one.
    pub(crate) fn stats(&self, class: ListenerClass, tcp: bool) -> Option<PluginConfig> {
        let entries = || self.layers.iter().flat_map(|layer| &layer.spec.metrics);
        let own = |metrics: &'a istio::Metrics| -> Vec<&'a str> {
            let names = metrics.providers.iter();
            names.map(|provider| provider.name.as_str()).collect()
        };
        let defaults: Vec<&str> = self
            .defaults(|defaults| &defaults.metrics)
            .iter()
            .map(String::as_str)
            .collect();
        // The providers of the last entry that names some; what was said about others does not count.
        let providers = entries().map(own).rfind(|names| !names.is_empty());
        let providers = providers.unwrap_or_else(|| defaults.clone());
        let provider = providers.into_iter().find(|name| {
            self.provider(name)
                .is_some_and(|provider| provider.prometheus.is_some())
        })?;
        // By metric: what the layers say, the last one wins field by field.
        let mut overrides: BTreeMap<&'static str, Override<'_>> = BTreeMap::new();
        let mut custom: BTreeMap<String, Override<'_>> = BTreeMap::new();
        let mut interval = None;
        let mut off = false;
        let mut inherited = defaults;
        for metrics in entries() {
            let names = own(metrics);
            if !names.is_empty() {
                inherited = names;
            }
            if !inherited.contains(&provider) {
                continue;
            }
            interval = metrics.reporting_interval.or(interval);
            for change in &metrics.overrides {
                let selector = change.selector.as_ref();
                if !applies(
                    selector.map(|selector| selector.mode).unwrap_or_default(),
                    class,
                ) {
                    continue;
                }
                let name = selector.and_then(|selector| selector.custom_metric.as_ref());
                let metric = selector
                    .and_then(|selector| selector.metric)
                    .unwrap_or_default();
                // All metrics off: no filter, until something else is said about some.
                off = change.disabled == Some(true)
                    && name.is_none()
                    && metric == IstioMetric::AllMetrics;
                if off {
                    continue;
                }
                match name {
                    Some(name) => custom.entry(name.clone()).or_default().add(change),
                    None => {
                        for name in metric_names(metric) {
                            overrides.entry(name).or_default().add(change);
                        }
                    }
                }
            }
        }
        if off {
            return None;
        }
        let _ = tcp;
        let mut metrics: Vec<MetricConfig> = Vec::new();
        for (_, name) in ALL_METRICS {
            if let Some(change) = overrides.get(name) {
                metrics.push(change.config(name));
            }
        }
        metrics.extend(custom.iter().map(|(name, change)| change.config(name)));
        Some(PluginConfig {
            disable_host_header_fallback: class != ListenerClass::SidecarOutbound,
            tcp_reporting_duration: interval.map(duration),
            metrics,
            ..Default::default()
        })
    }

    /// Access logs of a class; `None` leaves it to the mesh configuration's log file.
    pub(crate) fn access_logs(&self, class: ListenerClass) -> Option<Vec<AccessLogSpec<'a>>> {
        let mut names: Vec<&'a str> = self
            .defaults(|defaults| &defaults.access_logging)
            .iter()
            .map(String::as_str)
            .collect();
        let mut disabled: BTreeMap<&'a str, bool> = BTreeMap::new();
        let mut filters: BTreeMap<&'a str, Option<&'a str>> = BTreeMap::new();
        let mut named = false;
        for layer in &self.layers {
            let mut scoped: Option<Vec<&'a str>> = None;
            for logging in &layer.spec.access_logging {
                let mode = logging
                    .selector
                    .as_ref()
                    .map(|selector| selector.mode)
                    .unwrap_or_default();
                if !applies(mode, class) {
                    continue;
                }
                let own: Vec<&'a str> = if logging.providers.is_empty() {
                    names.clone()
                } else {
                    logging
                        .providers
                        .iter()
                        .map(|provider| provider.name.as_str())
                        .collect()
                };
                for name in &own {
                    disabled.insert(name, logging.disabled == Some(true));
                    // A filter does not reach the default providers of the mesh.
                    if !logging.providers.is_empty() || named {
                        filters.insert(
                            name,
                            logging
                                .filter
                                .as_ref()
                                .map(|filter| filter.expression.as_str()),
                        );
                    }
                }
                if !logging.providers.is_empty() {
                    scoped.get_or_insert_default().extend(own);
                }
            }
            if let Some(scoped) = scoped {
                names = scoped;
                named = true;
            }
        }
        names.sort_unstable();
        names.dedup();
        let known: Vec<(&str, &ExtensionProvider)> = names
            .iter()
            .filter_map(|name| Some((*name, self.provider(name)?)))
            .filter(|(_, provider)| is_log_provider(provider))
            .collect();
        if known.is_empty() {
            return None;
        }
        Some(
            known
                .into_iter()
                .filter(|(name, _)| !disabled.get(name).copied().unwrap_or(false))
                .map(|(name, provider)| AccessLogSpec {
                    provider,
                    filter: filters.get(name).copied().flatten(),
                })
                .collect(),
        )
    }

    /// Tracing of a class of listener.
    pub(crate) fn tracing(&self, class: ListenerClass) -> TracingSpec<'a> {
        let mut out = TracingSpec::default();
        let mut names: Option<&'a str> = self
            .defaults(|defaults| &defaults.tracing)
            .first()
            .map(String::as_str);
        out.configured = names.is_some();
        for tracing in self.layers.iter().flat_map(|layer| &layer.spec.tracing) {
            let mode = tracing
                .selector
                .as_ref()
                .map(|selector| selector.mode)
                .unwrap_or_default();
            if !applies(mode, class) {
                continue;
            }
            out.configured = true;
            if let Some(provider) = tracing.providers.first() {
                names = Some(&provider.name);
            }
            if let Some(flag) = tracing.disable_span_reporting {
                out.disabled = flag;
            }
            out.sampling = tracing.random_sampling_percentage.or(out.sampling);
            if !tracing.custom_tags.is_empty() {
                out.tags = Some(&tracing.custom_tags);
            }
            out.use_request_id = tracing
                .use_request_id_for_trace_sampling
                .or(out.use_request_id);
            out.istio_tags = tracing.enable_istio_tags.or(out.istio_tags);
            out.no_context_propagation = tracing
                .disable_context_propagation
                .or(out.no_context_propagation);
        }
        out.provider = names.and_then(|name| self.provider(name));
        out
    }
}

fn is_log_provider(provider: &ExtensionProvider) -> bool {
    provider.envoy_file_access_log.is_some()
        || provider.envoy_http_als.is_some()
        || provider.envoy_tcp_als.is_some()
        || provider.envoy_otel_als.is_some()
}

/// Whether a mode covers a class of listener.
fn applies(mode: WorkloadMode, class: ListenerClass) -> bool {
    match mode {
        WorkloadMode::ClientAndServer => true,
        WorkloadMode::Client => class != ListenerClass::SidecarInbound,
        WorkloadMode::Server => class == ListenerClass::SidecarInbound,
    }
}

/// In the order of their enum names.
const ALL_METRICS: [(IstioMetric, &str); 10] = [
    (IstioMetric::GrpcRequestMessages, "request_messages_total"),
    (IstioMetric::GrpcResponseMessages, "response_messages_total"),
    (IstioMetric::RequestCount, "requests_total"),
    (
        IstioMetric::RequestDuration,
        "request_duration_milliseconds",
    ),
    (IstioMetric::RequestSize, "request_bytes"),
    (IstioMetric::ResponseSize, "response_bytes"),
    (
        IstioMetric::TcpClosedConnections,
        "tcp_connections_closed_total",
    ),
    (
        IstioMetric::TcpOpenedConnections,
        "tcp_connections_opened_total",
    ),
    (IstioMetric::TcpReceivedBytes, "tcp_received_bytes_total"),
    (IstioMetric::TcpSentBytes, "tcp_sent_bytes_total"),
];

fn metric_names(metric: IstioMetric) -> Vec<&'static str> {
    ALL_METRICS
        .iter()
        .filter(|(own, _)| metric == IstioMetric::AllMetrics || *own == metric)
        .map(|(_, name)| *name)
        .collect()
}

#[derive(Default)]
struct Override<'a> {
    disabled: Option<bool>,
    tags: BTreeMap<&'a str, &'a istio::TagOverride>,
}

impl<'a> Override<'a> {
    fn add(&mut self, change: &'a istio::MetricsOverrides) {
        self.disabled = change.disabled.or(self.disabled);
        for (name, tag) in &change.tag_overrides {
            self.tags.insert(name, tag);
        }
    }

    fn config(&self, name: &str) -> MetricConfig {
        let mut out = MetricConfig {
            name: name.to_owned(),
            drop: self.disabled == Some(true),
            ..Default::default()
        };
        if out.drop {
            return out;
        }
        for (tag, change) in &self.tags {
            match change.operation {
                TagOperation::Upsert => {
                    out.dimensions
                        .insert((*tag).to_owned(), change.value.clone());
                }
                TagOperation::Remove => out.tags_to_remove.push((*tag).to_owned()),
            }
        }
        out
    }
}

/// The cluster of a provider's service and its host; `None` if the service is unknown.
pub(crate) fn provider_cluster(
    scope: &Scope<'_>,
    service: &str,
    port: u32,
) -> Option<(String, String)> {
    let name = service.split_once('/').map_or(service, |(_, name)| name);
    let found = scope.service(name)?;
    Some((names::outbound(port, "", &found.host), found.host.clone()))
}
