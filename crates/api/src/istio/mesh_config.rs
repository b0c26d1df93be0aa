//! MeshConfig: the settings of the whole mesh, and ProxyConfig within it, the defaults of proxies.
//!
//! Only what is read is typed; everything else of the ConfigMap is skipped.

use super::{
    ClientTlsSettings, ConnectionPoolSettings, Duration, EmptyProvider, ExtensionProvider,
    HttpRetry, LocalityLbSetting, OutboundTrafficPolicyMode, OutlierDetection, TcpKeepalive,
    TlsProtocol, ZoneAwareLbSetting,
};
use serde_json::Value;
use std::collections::BTreeMap;

message! {
    /// The settings of the whole mesh. `None` means Istio's default, see the methods.
    pub struct MeshConfig {
        /// Trust domain of identities.
        pub trust_domain: Option<String>,
        /// Other trust domains that mean the same.
        pub trust_domain_aliases: Vec<String>,
        /// Namespace of configuration for all namespaces.
        pub root_namespace: Option<String>,
        /// Time limit for connecting.
        pub connect_timeout: Option<Duration>,
        /// Time limit of protocol detection.
        pub protocol_detection_timeout: Option<Duration>,
        /// TCP keep-alive of all connections.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// File of the access log.
        pub access_log_file: String,
        /// Format of the access log.
        pub access_log_format: String,
        /// Text or JSON.
        pub access_log_encoding: AccessLogEncoding,
        /// No log for connections without a filter chain.
        pub disable_envoy_listener_log: bool,
        /// A log service besides the log file.
        pub enable_envoy_access_log_service: bool,
        /// Whether proxies trace.
        pub enable_tracing: Option<bool>,
        /// Whether mTLS is used wherever both sides can.
        pub enable_auto_mtls: Option<bool>,
        /// What happens to unknown destinations.
        pub outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
        /// How traffic reaches the application.
        pub inbound_traffic_policy: Option<MeshInboundTrafficPolicy>,
        /// Load balancing by locality.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Retries of routes that say nothing.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// Parts of DestinationRules for all services.
        pub default_traffic_policy: Option<MeshTrafficPolicy>,
        /// Settings of services.
        pub service_settings: Vec<ServiceSettings>,
        /// Visibility of services that say nothing.
        pub default_service_export_to: Vec<String>,
        /// Visibility of VirtualServices that say nothing.
        pub default_virtual_service_export_to: Vec<String>,
        /// Visibility of DestinationRules that say nothing.
        pub default_destination_rule_export_to: Vec<String>,
        /// HTTP/2 for clusters that say nothing.
        pub h2_upgrade_policy: MeshH2UpgradePolicy,
        /// Path normalisation.
        pub path_normalization: Option<PathNormalization>,
        /// TLS between proxies.
        #[serde(rename = "meshMTLS")]
        pub mesh_mtls: Option<MeshTlsConfig>,
        /// TLS of everything else.
        pub tls_defaults: Option<MeshTlsConfig>,
        /// Providers of telemetry and authorization.
        pub extension_providers: Vec<ExtensionProvider>,
        /// Which of them are used by default.
        pub default_providers: Option<DefaultProviders>,
        /// Defaults of proxies.
        pub default_config: Option<MeshProxyConfig>,
        /// Time between DNS queries after a failure.
        pub dns_refresh_rate: Option<Duration>,
        /// Port of outbound traffic.
        pub proxy_listen_port: Option<u32>,
        /// Port of inbound traffic.
        pub proxy_inbound_listen_port: Option<u32>,
        /// Port of the HTTP proxy listener.
        pub proxy_http_port: u32,
        /// Whether proxies merge the metrics of the application.
        pub enable_prometheus_merge: Option<bool>,
        /// Pattern of the statistics names of outbound clusters.
        pub outbound_cluster_stat_name: String,
        /// Pattern of the statistics names of inbound clusters.
        pub inbound_cluster_stat_name: String,
        /// Zone-aware routing of services that say nothing.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Label selectors (as of Kubernetes): only objects of namespaces that one of them meets are read. None: all.
        pub discovery_selectors: Vec<Value>,
        /// Who sees ServiceEntries, whatever they say themselves.
        pub service_entry_visibility: Option<ServiceEntryVisibility>,
        /// Which Kubernetes Ingresses are read.
        pub ingress_controller_mode: Option<IngressControllerMode>,
        /// The class of Ingresses that are read.
        pub ingress_class: Option<String>,
        /// The service of the gateway that carries Ingresses out.
        pub ingress_service: Option<String>,
        /// The label `istio` of that gateway's pods; empty: the name of the service.
        pub ingress_selector: String,
    }

    /// Who sees ServiceEntries: what the first policy says whose rules all meet their namespace, else the default.
    pub struct ServiceEntryVisibility {
        /// Where no policy applies.
        pub default_visibility: MeshVisibility,
        /// In the order in which they count.
        pub policies: Vec<VisibilityPolicy>,
        /// Whether it counts for sidecars and gateways, and not only in ambient mode.
        pub apply_to_sidecars: bool,
    }

    /// A visibility for some namespaces.
    pub struct VisibilityPolicy {
        /// All of them have to be met; none means any namespace.
        pub matching_rules: Vec<VisibilityRule>,
        /// Who sees the entries.
        pub visibility: MeshVisibility,
    }

    /// What a policy of visibility asks of a ServiceEntry. A rule without a selector is never met.
    pub struct VisibilityRule {
        /// A label selector (as of Kubernetes) for its namespace.
        pub namespace_selector: Option<Value>,
    }

    /// What happens to unknown destinations.
    pub struct MeshOutboundTrafficPolicy {
        /// Whether they can be reached.
        pub mode: OutboundTrafficPolicyMode,
        /// TLS towards hosts that are resolved by name.
        pub tls: Option<ClientTlsSettings>,
    }

    /// How traffic reaches the application.
    pub struct MeshInboundTrafficPolicy {
        /// By which address.
        pub mode: InboundTrafficPolicyMode,
    }

    /// Parts of a DestinationRule for all services.
    pub struct MeshTrafficPolicy {
        /// Limits and keep-alive of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left alone for a while.
        pub outlier_detection: Option<OutlierDetection>,
    }

    /// Settings of services.
    pub struct ServiceSettings {
        /// The settings.
        pub settings: Option<ServiceSettingsSettings>,
        /// The services, wildcard prefixes allowed.
        pub hosts: Vec<String>,
    }

    /// Settings of a service.
    pub struct ServiceSettingsSettings {
        /// Endpoints of other clusters are not used.
        pub cluster_local: bool,
    }

    /// Path normalisation.
    pub struct PathNormalization {
        /// How much.
        pub normalization: NormalizationType,
    }

    /// TLS settings.
    pub struct MeshTlsConfig {
        /// Lowest version.
        pub min_protocol_version: TlsProtocol,
        /// Allowed ciphers.
        pub cipher_suites: Vec<String>,
        /// Allowed curves.
        pub ecdh_curves: Vec<String>,
    }

    /// Which providers are used by default.
    pub struct DefaultProviders {
        /// For traces.
        pub tracing: Vec<String>,
        /// For metrics.
        pub metrics: Vec<String>,
        /// For access logs.
        pub access_logging: Vec<String>,
    }

    /// Settings of a proxy (`meshConfig.defaultConfig`, annotation `proxy.istio.io/config`).
    pub struct MeshProxyConfig {
        /// Where istiod is.
        pub discovery_address: String,
        /// How gateways see their clients.
        pub gateway_topology: Option<GatewayTopology>,
        /// Which headers are set.
        pub proxy_headers: Option<ProxyHeaders>,
        /// Traces.
        pub tracing: Option<ProxyTracing>,
        /// How traffic gets to the proxy.
        pub interception_mode: Option<String>,
        /// Limits of connections.
        pub connection_settings: Option<ConnectionSettings>,
        /// Environment of the proxy.
        pub proxy_metadata: BTreeMap<String, String>,
        /// Which statistics are kept.
        pub proxy_stats_matcher: Option<Value>,
        /// Time that a stopping proxy waits.
        pub termination_drain_duration: Option<Duration>,
        /// Start the application after the proxy.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// Worker threads.
        pub concurrency: Option<i32>,
    }

    /// How gateways see their clients.
    pub struct GatewayTopology {
        /// Trusted proxies before the gateway.
        pub num_trusted_proxies: u32,
        /// What happens to x-forwarded-client-cert.
        pub forward_client_cert_details: ForwardClientCertDetails,
        /// Clients send the PROXY protocol.
        pub proxy_protocol: Option<EmptyProvider>,
    }

    /// Which headers are set.
    pub struct ProxyHeaders {
        /// x-forwarded-client-cert.
        pub forwarded_client_cert: ForwardClientCertDetails,
        /// Details in x-forwarded-client-cert.
        pub set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        /// x-request-id.
        pub request_id: Option<ProxyHeaderSwitch>,
        /// server.
        pub server: Option<ServerHeader>,
        /// x-envoy-attempt-count.
        pub attempt_count: Option<ProxyHeaderSwitch>,
        /// x-envoy-* on answers.
        pub envoy_debug_headers: Option<ProxyHeaderSwitch>,
        /// x-envoy-peer-metadata.
        pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// Keep the case of HTTP/1 headers.
        pub preserve_http1_header_case: Option<bool>,
        /// x-forwarded-host.
        pub x_forwarded_host: Option<ProxyHeaderEnable>,
        /// x-forwarded-port.
        pub x_forwarded_port: Option<ProxyHeaderEnable>,
    }

    /// Details in x-forwarded-client-cert.
    pub struct SetCurrentClientCertDetails {
        /// The subject.
        pub subject: Option<bool>,
        /// The certificate.
        pub cert: Option<bool>,
        /// The chain.
        pub chain: Option<bool>,
        /// The names.
        pub dns: Option<bool>,
        /// The URI.
        pub uri: Option<bool>,
    }

    /// Switches a header off.
    pub struct ProxyHeaderSwitch {
        /// Off.
        pub disabled: Option<bool>,
    }

    /// Switches a header on.
    pub struct ProxyHeaderEnable {
        /// On.
        pub enabled: Option<bool>,
    }

    /// The server header.
    pub struct ServerHeader {
        /// Leave what the application says.
        pub disabled: Option<bool>,
        /// The value.
        pub value: String,
    }

    /// x-envoy-peer-metadata.
    pub struct MetadataExchangeHeaders {
        /// To whom.
        pub mode: MetadataExchangeMode,
    }

    /// Traces of a proxy.
    pub struct ProxyTracing {
        /// Share of the requests, in percent.
        pub sampling: Option<f64>,
        /// Longest path in a span.
        pub max_path_tag_length: u32,
        /// Further tags.
        pub custom_tags: BTreeMap<String, super::CustomTag>,
        /// Istio's own tags.
        pub enable_istio_tags: Option<bool>,
        /// Zipkin.
        pub zipkin: Option<Value>,
    }

    /// Limits of connections of a proxy.
    pub struct ConnectionSettings {
        /// A set of defaults.
        pub profile: ConnectionProfile,
        /// Longest idle time of a downstream connection.
        pub http_idle_timeout: Option<Duration>,
        /// Longest life of a downstream connection.
        pub http_max_connection_duration: Option<Duration>,
        /// Time to end a downstream connection that is going away.
        pub http_drain_timeout: Option<Duration>,
        /// Longest idle time of a stream.
        pub http_stream_idle_timeout: Option<Duration>,
        /// Longest life of a stream.
        pub http_max_stream_duration: Option<Duration>,
        /// Longest time for the headers of a request.
        pub http_request_headers_timeout: Option<Duration>,
        /// Longest time for a request.
        pub http_request_timeout: Option<Duration>,
        /// Streams of a downstream HTTP/2 connection; less than 0 is as if it was not there, here and below.
        pub http_max_concurrent_streams: Option<i32>,
        /// Window of a downstream HTTP/2 stream.
        pub http2_initial_stream_window_size: Option<i32>,
        /// Window of a downstream HTTP/2 connection.
        pub http2_initial_connection_window_size: Option<i32>,
        /// What happens to headers with underscores in their names.
        pub http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        /// Whether slashes side by side count as one.
        pub http_merge_slashes: Option<bool>,
        /// What happens to paths with escaped slashes.
        pub http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        /// Buffer of a downstream connection.
        pub listener_per_connection_buffer_limit_bytes: Option<i32>,
    }
}

proto_enum! {
    /// Encodings of the access log.
    pub enum AccessLogEncoding {
        /// Text.
        Text,
        /// JSON.
        Json,
    }

    /// How traffic reaches the application.
    pub enum InboundTrafficPolicyMode {
        /// By the address of the pod.
        Passthrough,
        /// By localhost.
        Localhost,
    }

    /// HTTP/2 for clusters that say nothing.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade,
        /// Yes.
        Upgrade,
    }

    /// Which Kubernetes Ingresses are read.
    pub enum IngressControllerMode {
        /// None without a class of ours.
        Unspecified,
        /// None at all.
        Off,
        /// Also those without a class.
        Default,
        /// Those whose annotation names the class of the mesh, and those whose IngressClass names the controller.
        Strict,
    }

    /// Who sees a ServiceEntry.
    pub enum MeshVisibility {
        /// Everybody.
        VisibilityUnspecified,
        /// Nobody.
        None,
        /// Its namespace.
        Namespace,
        /// Everybody.
        Public,
    }

    /// How much paths are normalised.
    pub enum NormalizationType {
        /// BASE.
        Default,
        /// Not at all.
        None,
        /// Dots and backslashes.
        Base,
        /// Slashes, too.
        MergeSlashes,
        /// Escaped slashes, too.
        DecodeAndMergeSlashes,
    }

    /// What happens to x-forwarded-client-cert.
    pub enum ForwardClientCertDetails {
        /// As usual for the kind of proxy.
        Undefined,
        /// Remove it.
        Sanitize,
        /// Forward it if the client has a certificate.
        ForwardOnly,
        /// Append to it if the client has a certificate.
        AppendForward,
        /// Replace it if the client has a certificate.
        SanitizeSet,
        /// Forward it always.
        AlwaysForwardOnly,
    }

    /// To whom x-envoy-peer-metadata is sent.
    pub enum MetadataExchangeMode {
        /// To all.
        Undefined,
        /// To services of the mesh.
        InMesh,
    }

    /// A set of defaults for connections.
    pub enum ConnectionProfile {
        /// None.
        Sidecar,
        /// For gateways that face the internet.
        Edge,
    }

    /// What happens to headers with underscores in their names.
    pub enum HeadersWithUnderscoresAction {
        /// As if nothing was said.
        HeadersWithUnderscoresUnspecified,
        /// They pass.
        HeadersWithUnderscoresAllow,
        /// The request is refused.
        HeadersWithUnderscoresRejectRequest,
        /// They are left out.
        HeadersWithUnderscoresDropHeader,
    }

    /// What happens to paths with escaped slashes.
    pub enum PathWithEscapedSlashesAction {
        /// As if nothing was said.
        PathWithEscapedSlashesUnspecified,
        /// They pass.
        KeepUnchanged,
        /// The request is refused.
        RejectRequest,
        /// The client is sent to the path without escapes.
        UnescapeAndRedirect,
        /// They are read without escapes.
        UnescapeAndForward,
    }
}

impl MeshConfig {
    /// The usual name of the ingress gateway's service.
    pub const INGRESS_SERVICE: &str = "istio-ingressgateway";

    /// Which Kubernetes Ingresses are read; strict by default.
    pub fn ingress_controller_mode(&self) -> IngressControllerMode {
        self.ingress_controller_mode
            .unwrap_or(IngressControllerMode::Strict)
    }

    /// The class of Ingresses that are read, `istio` by default.
    pub fn ingress_class(&self) -> &str {
        self.ingress_class.as_deref().unwrap_or("istio")
    }

    /// The service of the gateway that carries Ingresses out. Where it is set to nothing, the gateway's pods count.
    pub fn ingress_service(&self) -> &str {
        self.ingress_service
            .as_deref()
            .unwrap_or(Self::INGRESS_SERVICE)
    }

    /// Trust domain of identities, `cluster.local` by default.
    pub fn trust_domain(&self) -> &str {
        self.trust_domain
            .as_deref()
            .filter(|domain| !domain.is_empty())
            .unwrap_or("cluster.local")
    }

    /// Namespace of configuration for all namespaces, `istio-system` by default.
    pub fn root_namespace(&self) -> &str {
        self.root_namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("istio-system")
    }

    /// Whether mTLS is used wherever both sides can; true by default.
    pub fn auto_mtls(&self) -> bool {
        self.enable_auto_mtls.unwrap_or(true)
    }

    /// Time limit for connecting, 10 s by default.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(10))
    }

    /// What happens to unknown destinations; they can be reached by default.
    pub fn outbound_mode(&self) -> OutboundTrafficPolicyMode {
        self.outbound_traffic_policy
            .as_ref()
            .map_or(OutboundTrafficPolicyMode::AllowAny, |policy| policy.mode)
    }
}
