//! Extension providers of MeshConfig: who authorizes, traces and takes access logs.

use super::Duration;
use serde_json::Value;
use std::collections::BTreeMap;

message! {
    /// A provider of telemetry or authorization; exactly one kind is set.
    pub struct ExtensionProvider {
        /// Its name.
        pub name: String,
        /// HTTP authorization service.
        pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
        /// gRPC authorization service.
        pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
        /// Zipkin.
        pub zipkin: Option<ZipkinProvider>,
        /// OpenTelemetry traces.
        pub opentelemetry: Option<OpenTelemetryProvider>,
        /// Prometheus.
        pub prometheus: Option<EmptyProvider>,
        /// Access log file.
        pub envoy_file_access_log: Option<FileAccessLogProvider>,
        /// Access log service for HTTP.
        pub envoy_http_als: Option<AlsProvider>,
        /// Access log service for TCP.
        pub envoy_tcp_als: Option<AlsProvider>,
        /// OpenTelemetry access logs.
        pub envoy_otel_als: Option<OtelAlsProvider>,
        /// SkyWalking (not supported).
        pub skywalking: Option<Value>,
        /// Stackdriver (not supported).
        pub stackdriver: Option<Value>,
        /// Datadog (not supported).
        pub datadog: Option<Value>,
        /// Lightstep (not supported).
        pub lightstep: Option<Value>,
        /// OpenCensus (not supported).
        pub opencensus: Option<Value>,
    }

    /// A provider without settings.
    pub struct EmptyProvider {}

    /// An HTTP authorization service.
    pub struct ExtAuthzHttp {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Time limit.
        pub timeout: Option<Duration>,
        /// Set before the path.
        pub path_prefix: String,
        /// Allow when the service fails.
        pub fail_open: bool,
        /// Clear the route cache.
        pub clear_route_cache: Option<bool>,
        /// Status when the service fails.
        pub status_on_error: String,
        /// Headers sent to the service (deprecated).
        pub include_headers_in_check: Vec<String>,
        /// Headers sent to the service.
        pub include_request_headers_in_check: Vec<String>,
        /// Headers added for the service.
        pub include_additional_headers_in_check: BTreeMap<String, String>,
        /// Body sent to the service.
        pub include_request_body_in_check: Option<ExtAuthzBody>,
        /// Headers of the service's answer that go upstream.
        pub headers_to_upstream_on_allow: Vec<String>,
        /// Headers of the service's refusal that go downstream.
        pub headers_to_downstream_on_deny: Vec<String>,
        /// Headers of the service's consent that go downstream.
        pub headers_to_downstream_on_allow: Vec<String>,
    }

    /// A gRPC authorization service.
    pub struct ExtAuthzGrpc {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Time limit.
        pub timeout: Option<Duration>,
        /// Allow when the service fails.
        pub fail_open: bool,
        /// Clear the route cache.
        pub clear_route_cache: Option<bool>,
        /// Status when the service fails.
        pub status_on_error: String,
        /// Body sent to the service.
        pub include_request_body_in_check: Option<ExtAuthzBody>,
    }

    /// A body sent to an authorization service.
    pub struct ExtAuthzBody {
        /// Most bytes.
        pub max_request_bytes: u32,
        /// Send what there is when it is longer.
        pub allow_partial_message: bool,
        /// As bytes, not as text.
        pub pack_as_bytes: bool,
    }

    /// Zipkin.
    pub struct ZipkinProvider {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest tag.
        pub max_tag_length: Option<u32>,
        /// 64-bit trace ids.
        pub enable_64bit_trace_id: bool,
        /// The path.
        pub path: String,
        /// Time limit.
        pub timeout: Option<Duration>,
        /// Headers to send.
        pub headers: Vec<ProviderHttpHeader>,
        /// Which trace headers are used.
        pub trace_context_option: String,
    }

    /// A header sent to a provider.
    pub struct ProviderHttpHeader {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: Option<String>,
        /// Environment variable with its value.
        pub env_name: Option<String>,
    }

    /// OpenTelemetry traces.
    pub struct OpenTelemetryProvider {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest tag.
        pub max_tag_length: Option<u32>,
        /// OTLP over HTTP.
        pub http: Option<OtlpHttp>,
        /// OTLP over gRPC.
        pub grpc: Option<OtlpGrpc>,
        /// What describes the proxy.
        pub resource_detectors: Option<ResourceDetectors>,
        /// Who decides on sampling.
        pub dynatrace_sampler: Option<DynatraceSampler>,
        /// Which name the service has in spans: `OTEL_SEMANTIC_CONVENTIONS`, or Istio's own.
        pub service_attribute_enrichment: String,
    }

    /// Dynatrace decides on sampling.
    pub struct DynatraceSampler {
        /// The tenant.
        pub tenant: String,
        /// The cluster of the tenant.
        pub cluster_id: i32,
        /// Root spans a minute.
        pub root_spans_per_minute: u32,
        /// Where it is asked; without, where spans are sent to by HTTP.
        pub http_service: Option<DynatraceApi>,
    }

    /// Where Dynatrace is asked.
    pub struct DynatraceApi {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// How it is asked.
        pub http: Option<OtlpHttp>,
    }

    /// OTLP over HTTP.
    pub struct OtlpHttp {
        /// The path.
        pub path: String,
        /// Time limit.
        pub timeout: Option<Duration>,
        /// Headers to send.
        pub headers: Vec<ProviderHttpHeader>,
    }

    /// OTLP over gRPC.
    pub struct OtlpGrpc {
        /// Time limit.
        pub timeout: Option<Duration>,
        /// Metadata to send.
        pub initial_metadata: Vec<ProviderHttpHeader>,
    }

    /// What describes a proxy in spans.
    pub struct ResourceDetectors {
        /// OTEL_RESOURCE_ATTRIBUTES.
        pub environment: Option<EmptyProvider>,
        /// Dynatrace files.
        pub dynatrace: Option<EmptyProvider>,
    }

    /// An access log file.
    pub struct FileAccessLogProvider {
        /// The path.
        pub path: String,
        /// The format.
        pub log_format: Option<FileLogFormat>,
        /// Leave out what is empty.
        pub omit_empty_values: bool,
    }

    /// A format of access log lines.
    pub struct FileLogFormat {
        /// As text.
        pub text: Option<String>,
        /// As JSON.
        pub labels: Option<serde_json::Map<String, Value>>,
    }

    /// An access log service.
    pub struct AlsProvider {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// The name of the log.
        pub log_name: String,
        /// Filter state to log.
        pub filter_state_objects_to_log: Vec<String>,
        /// Request headers to log.
        pub additional_request_headers_to_log: Vec<String>,
        /// Response headers to log.
        pub additional_response_headers_to_log: Vec<String>,
        /// Response trailers to log.
        pub additional_response_trailers_to_log: Vec<String>,
    }

    /// OpenTelemetry access logs.
    pub struct OtelAlsProvider {
        /// The service, `[namespace/]host`.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// The name of the log.
        pub log_name: String,
        /// The format.
        pub log_format: Option<OtelLogFormat>,
    }

    /// A format of OpenTelemetry access logs.
    pub struct OtelLogFormat {
        /// The body.
        pub text: String,
        /// The attributes.
        pub labels: serde_json::Map<String, Value>,
    }
}
