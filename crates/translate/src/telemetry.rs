//! The Telemetry API: which metrics, traces and logs a proxy has, from the mesh, its namespace and itself.

use crate::context::ListenerClass;
use crate::names;
use crate::objects::{Config, selects};
use crate::proto::duration;
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
    /// The last word about the provider is that it does not log.
    pub(crate) disabled: bool,
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
    /// Whether there is a stanza for any class, or a default provider.
    pub(crate) configured: bool,
}

impl<'a> Telemetry<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &ProxyInfo) -> Self {
        let root = snapshot.mesh.root_namespace();
        let selector = |config: &'a Config<istio::Telemetry>| {
            let selector = config.spec.selector.as_ref();
            selector.filter(|selector| !selector.match_labels.is_empty())
        };
        let targeted = |config: &Config<istio::Telemetry>| {
            !config.spec.target_refs.is_empty() || config.spec.target_ref.is_some()
        };
        let plain = |namespace: &str| {
            snapshot.telemetries.iter().find(|config| {
                config.namespace == namespace && selector(config).is_none() && !targeted(config)
            })
        };
        let mut layers: Vec<&Config<istio::Telemetry>> = plain(root).into_iter().collect();
        if proxy.namespace != root {
            layers.extend(plain(&proxy.namespace));
        }
        layers.extend(snapshot.telemetries.iter().filter(|config| {
            config.namespace == proxy.namespace
                && !targeted(config)
                && selector(config)
                    .is_some_and(|selector| selects(&selector.match_labels, &proxy.labels))
        }));
        Self { snapshot, layers }
    }

    fn provider(&self, name: &str) -> Option<&'a ExtensionProvider> {
        self.snapshot
            .mesh
            .extension_providers
            .iter()
            .chain(BUILT_IN.iter())
            .find(|provider| provider.name.eq_ignore_ascii_case(name))
    }

    fn defaults(&self, of: fn(&istio::DefaultProviders) -> &Vec<String>) -> &'a [String] {
        self.snapshot
            .mesh
            .default_providers
            .as_ref()
            .map_or(&[], |defaults| of(defaults))
    }

    /// The statistics filters for a class of listener: one for each provider of metrics, by name.
    pub(crate) fn stats(&self, class: ListenerClass) -> Vec<PluginConfig> {
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
        let in_scope = entries().map(own).rfind(|names| !names.is_empty());
        let in_scope = in_scope.unwrap_or_else(|| defaults.clone());
        let mut found: BTreeMap<&str, Metrics<'_>> = BTreeMap::new();
        if entries().next().is_none() {
            found.extend(defaults.iter().map(|name| (*name, Metrics::default())));
        }
        let mut inherited = defaults;
        for metrics in entries() {
            let names = own(metrics);
            if !names.is_empty() {
                inherited = names;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(name)) {
                found.entry(name).or_default().add(metrics, class);
            }
        }
        found
            .into_iter()
            .filter(|(name, metrics)| {
                let provider = self.provider(name);
                !metrics.off && provider.is_some_and(|provider| provider.prometheus.is_some())
            })
            .map(|(_, metrics)| metrics.config(class))
            .collect()
    }

    /// What is said about the providers of access logs of a class, by name; some may be providers of other things. Without
    /// any that logs, the log file of the mesh configuration counts.
    pub(crate) fn access_logs(&self, class: ListenerClass) -> Vec<AccessLogSpec<'a>> {
        let defaults: Vec<&'a str> = self
            .defaults(|defaults| &defaults.access_logging)
            .iter()
            .map(String::as_str)
            .collect();
        let layers: Vec<&'a Vec<istio::AccessLogging>> = self
            .layers
            .iter()
            .map(|layer| &layer.spec.access_logging)
            .filter(|logging| !logging.is_empty())
            .collect();
        let applies = |logging: &istio::AccessLogging| {
            let selector = logging.selector.as_ref();
            applies(
                selector.map(|selector| selector.mode).unwrap_or_default(),
                class,
            )
        };
        let own = |logging: &'a istio::AccessLogging| -> Vec<&'a str> {
            let names = logging.providers.iter();
            names.map(|provider| provider.name.as_str()).collect()
        };
        // Of the layers that name providers for this class, the last one says which count at all. A filter belongs to the
        // names beside it.
        let mut in_scope = defaults.clone();
        let mut filters: BTreeMap<&'a str, Option<&'a str>> = BTreeMap::new();
        for layer in &layers {
            let mut names = Vec::new();
            for logging in layer.iter().filter(|logging| applies(logging)) {
                let filter = logging.filter.as_ref();
                for name in own(logging) {
                    filters.insert(name, filter.map(|filter| filter.expression.as_str()));
                    names.push(name);
                }
            }
            if !names.is_empty() {
                in_scope = names;
            }
        }
        // By provider: its filter, or nothing where the last word is that it is off.
        let mut specs: BTreeMap<&'a str, Option<Option<&'a str>>> = BTreeMap::new();
        if layers.is_empty() {
            specs.extend(defaults.iter().map(|name| (*name, Some(None))));
        }
        let mut inherited = defaults;
        for logging in layers.into_iter().flatten() {
            let names = own(logging);
            if !names.is_empty() {
                inherited = names;
            }
            if !applies(logging) {
                continue;
            }
            for name in inherited.iter().filter(|name| in_scope.contains(name)) {
                let filter = filters.get(name).copied().flatten();
                specs.insert(name, (logging.disabled != Some(true)).then_some(filter));
            }
        }
        let mut out: Vec<AccessLogSpec<'a>> = specs
            .into_iter()
            .filter_map(|(name, spec)| {
                Some(AccessLogSpec {
                    provider: self.provider(name)?,
                    filter: spec.flatten(),
                    disabled: spec.is_none(),
                })
            })
            .collect();
        out.sort_by(|a, b| a.provider.name.cmp(&b.provider.name));
        out
    }

    /// Tracing of a class of listener.
    pub(crate) fn tracing(&self, class: ListenerClass) -> TracingSpec<'a> {
        let mut out = TracingSpec::default();
        let mut names: Option<&'a str> = self
            .defaults(|defaults| &defaults.tracing)
            .first()
            .map(String::as_str);
        let entries = || self.layers.iter().flat_map(|layer| &layer.spec.tracing);
        out.configured = names.is_some() || entries().next().is_some();
        for tracing in entries() {
            let mode = tracing
                .selector
                .as_ref()
                .map(|selector| selector.mode)
                .unwrap_or_default();
            if !applies(mode, class) {
                continue;
            }
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

/// Whether a mode covers a class of listener.
fn applies(mode: WorkloadMode, class: ListenerClass) -> bool {
    match mode {
        WorkloadMode::ClientAndServer => true,
        WorkloadMode::Client => class != ListenerClass::SidecarInbound,
        WorkloadMode::Server => class == ListenerClass::SidecarInbound,
    }
}

/// Each metric with the name of its enum and the name under which it is reported.
const ALL_METRICS: [(IstioMetric, &str, &str); 10] = [
    (
        IstioMetric::GrpcRequestMessages,
        "GRPC_REQUEST_MESSAGES",
        "request_messages_total",
    ),
    (
        IstioMetric::GrpcResponseMessages,
        "GRPC_RESPONSE_MESSAGES",
        "response_messages_total",
    ),
    (IstioMetric::RequestCount, "REQUEST_COUNT", "requests_total"),
    (
        IstioMetric::RequestDuration,
        "REQUEST_DURATION",
        "request_duration_milliseconds",
    ),
    (IstioMetric::RequestSize, "REQUEST_SIZE", "request_bytes"),
    (IstioMetric::ResponseSize, "RESPONSE_SIZE", "response_bytes"),
    (
        IstioMetric::TcpClosedConnections,
        "TCP_CLOSED_CONNECTIONS",
        "tcp_connections_closed_total",
    ),
    (
        IstioMetric::TcpOpenedConnections,
        "TCP_OPENED_CONNECTIONS",
        "tcp_connections_opened_total",
    ),
    (
        IstioMetric::TcpReceivedBytes,
        "TCP_RECEIVED_BYTES",
        "tcp_received_bytes_total",
    ),
    (
        IstioMetric::TcpSentBytes,
        "TCP_SENT_BYTES",
        "tcp_sent_bytes_total",
    ),
];

/// What the layers say to one provider of metrics.
#[derive(Default)]
struct Metrics<'a> {
    /// By the name of the enum or of the custom metric: what the layers say, the last one wins field by field.
    overrides: BTreeMap<&'a str, Override<'a>>,
    interval: Option<istio::Duration>,
    /// All metrics are off, and nothing else was said about some since.
    off: bool,
}

impl<'a> Metrics<'a> {
    fn add(&mut self, metrics: &'a istio::Metrics, class: ListenerClass) {
        self.interval = metrics.reporting_interval.or(self.interval);
        for change in &metrics.overrides {
            let selector = change.selector.as_ref();
            let mode = selector.map(|selector| selector.mode).unwrap_or_default();
            if !applies(mode, class) {
                continue;
            }
            let custom = selector.and_then(|selector| selector.custom_metric.as_deref());
            let metric = selector
                .and_then(|selector| selector.metric)
                .unwrap_or_default();
            let all = custom.is_none() && metric == IstioMetric::AllMetrics;
            self.off = all && change.disabled == Some(true);
            if self.off {
                continue;
            }
            match custom {
                Some(name) => self.overrides.entry(name).or_default().add(change),
                None => {
                    for (_, name, _) in ALL_METRICS.iter().filter(|(own, ..)| all || *own == metric)
                    {
                        self.overrides.entry(name).or_default().add(change);
                    }
                }
            }
        }
    }

    fn config(&self, class: ListenerClass) -> PluginConfig {
        let metric = |(name, change): (&&str, &Override<'_>)| {
            let known = ALL_METRICS.iter().find(|(_, own, _)| own == name);
            change.config(known.map_or(*name, |(.., reported)| reported))
        };
        PluginConfig {
            disable_host_header_fallback: class != ListenerClass::SidecarOutbound,
            tcp_reporting_duration: self.interval.map(duration),
            metrics: self.overrides.iter().map(metric).collect(),
            ..Default::default()
        }
    }
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

/// The cluster of a provider's service and its host, whoever may see it. `None` if the service is unknown, or if there are
/// several of the name and the provider does not say the namespace.
pub(crate) fn provider_cluster(
    snapshot: &Snapshot,
    service: &str,
    port: u32,
) -> Option<(String, String)> {
    let (namespace, name) = match service.split_once('/') {
        Some((namespace, name)) if !name.contains('/') => (Some(namespace), name),
        _ => (None, service),
    };
    let named = snapshot.registry.services_of(name);
    let mut found = named.filter(|own| {
        own.host == name && namespace.is_none_or(|namespace| own.namespace == namespace)
    });
    let first = found.next()?;
    if found.any(|other| other.namespace != first.namespace) {
        return None;
    }
    Some((names::outbound(port, "", &first.host), first.host.clone()))
}
