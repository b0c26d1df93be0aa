//! Telemetry: metrics, traces and access logs.

use super::{Duration, LabelSelector, PolicyTargetReference};
use std::collections::BTreeMap;

message! {
    /// Telemetry of workloads.
    pub struct Telemetry {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// An object the policy is attached to.
        pub target_ref: Option<PolicyTargetReference>,
        /// Objects the policy is attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Traces.
        pub tracing: Vec<Tracing>,
        /// Metrics.
        pub metrics: Vec<Metrics>,
        /// Access logs.
        pub access_logging: Vec<AccessLogging>,
    }

    /// A provider of the mesh configuration.
    pub struct TelemetryProviderRef {
        /// Its name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
    }

    /// Traces.
    pub struct Tracing {
        /// Which side.
        #[serde(rename = "match")]
        pub selector: Option<TracingSelector>,
        /// Where to; only the first counts.
        pub providers: Vec<TelemetryProviderRef>,
        /// Share of the requests, in percent.
        pub random_sampling_percentage: Option<f64>,
        /// Report nothing.
        pub disable_span_reporting: Option<bool>,
        /// Further tags.
        pub custom_tags: BTreeMap<String, CustomTag>,
        /// Let the request id carry the decision.
        pub use_request_id_for_trace_sampling: Option<bool>,
        /// Istio's own tags.
        pub enable_istio_tags: Option<bool>,
        /// Do not propagate the context upstream.
        pub disable_context_propagation: Option<bool>,
    }

    /// Which side.
    pub struct TracingSelector {
        /// Client, server or both.
        pub mode: WorkloadMode,
    }

    /// A tag: exactly one source.
    pub struct CustomTag {
        /// A fixed value.
        pub literal: Option<LiteralTag>,
        /// From an environment variable of the proxy.
        pub environment: Option<EnvironmentTag>,
        /// From a request header.
        pub header: Option<HeaderTag>,
        /// From a format string.
        pub formatter: Option<FormatterTag>,
    }

    /// A fixed value.
    pub struct LiteralTag {
        /// The value.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub value: String,
    }

    /// From an environment variable.
    pub struct EnvironmentTag {
        /// The variable.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// The value if it is not set.
        pub default_value: String,
    }

    /// From a request header.
    pub struct HeaderTag {
        /// The header.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// The value if it is not there.
        pub default_value: String,
    }

    /// From a format string.
    pub struct FormatterTag {
        /// The format.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub value: String,
    }

    /// Metrics.
    pub struct Metrics {
        /// Where to.
        pub providers: Vec<TelemetryProviderRef>,
        /// Changes of single metrics.
        pub overrides: Vec<MetricsOverrides>,
        /// Time between reports of TCP metrics.
        pub reporting_interval: Option<Duration>,
    }

    /// A change of metrics.
    pub struct MetricsOverrides {
        /// Which metrics.
        #[serde(rename = "match")]
        pub selector: Option<MetricSelector>,
        /// Do not emit.
        pub disabled: Option<bool>,
        /// Changes of tags.
        pub tag_overrides: BTreeMap<String, TagOverride>,
    }

    /// Which metrics.
    pub struct MetricSelector {
        /// One of the standard ones.
        pub metric: Option<IstioMetric>,
        /// Any other by name.
        pub custom_metric: Option<String>,
        /// Client, server or both.
        pub mode: WorkloadMode,
    }

    /// A change of a tag.
    pub struct TagOverride {
        /// What to do.
        pub operation: TagOperation,
        /// An expression.
        pub value: String,
    }

    /// Access logs.
    pub struct AccessLogging {
        /// Which side.
        #[serde(rename = "match")]
        pub selector: Option<AccessLogSelector>,
        /// Where to.
        pub providers: Vec<TelemetryProviderRef>,
        /// Do not log.
        pub disabled: Option<bool>,
        /// What to log.
        pub filter: Option<AccessLogFilter>,
    }

    /// Which side.
    pub struct AccessLogSelector {
        /// Client, server or both.
        pub mode: WorkloadMode,
    }

    /// What to log.
    pub struct AccessLogFilter {
        /// A CEL expression.
        pub expression: String,
    }
}

proto_enum! {
    /// Client, server or both.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer,
        /// Outbound traffic and gateways.
        Client,
        /// Inbound traffic.
        Server,
    }

    /// The standard metrics.
    pub enum IstioMetric {
        /// All of them.
        AllMetrics,
        /// Requests.
        RequestCount,
        /// Durations of requests.
        RequestDuration,
        /// Sizes of requests.
        RequestSize,
        /// Sizes of answers.
        ResponseSize,
        /// Opened connections.
        TcpOpenedConnections,
        /// Closed connections.
        TcpClosedConnections,
        /// Bytes sent.
        TcpSentBytes,
        /// Bytes received.
        TcpReceivedBytes,
        /// gRPC messages received.
        GrpcRequestMessages,
        /// gRPC messages sent.
        GrpcResponseMessages,
    }

    /// What to do with a tag.
    pub enum TagOperation {
        /// Add or change it.
        Upsert,
        /// Remove it.
        Remove,
    }
}
