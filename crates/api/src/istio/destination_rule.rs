//! DestinationRule: how to talk to a service, and the named parts of it.

use super::{Duration, LabelSelector, PortSelector};
use std::collections::BTreeMap;

message! {
    /// Policy and subsets of a host.
    pub struct DestinationRule {
        /// The host in the service registry; short names are completed with the namespace of the rule.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub host: String,
        /// The policy for all ports and subsets.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named parts of the service.
        pub subsets: Vec<Subset>,
        /// Namespaces that see this rule: `.`, `*` or names.
        pub export_to: Vec<String>,
        /// Clients that the rule is for.
        pub workload_selector: Option<LabelSelector>,
    }

    /// How to talk to a service.
    pub struct TrafficPolicy {
        /// Choice of the endpoint.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits and keep-alive of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left alone for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
        /// Settings that replace the others for single ports.
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Tunnel TCP over HTTP.
        pub tunnel: Option<TunnelSettings>,
        /// Send a PROXY protocol header.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Limit of concurrent retries.
        pub retry_budget: Option<RetryBudget>,
    }

    /// Settings of one port; they replace those of the rule.
    pub struct PortTrafficPolicy {
        /// The service port.
        pub port: Option<PortSelector>,
        /// Choice of the endpoint.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits and keep-alive of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left alone for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
    }

    /// TCP inside of an HTTP request.
    pub struct TunnelSettings {
        /// `CONNECT` (default) or `POST`.
        pub protocol: String,
        /// The host to ask for.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub target_host: String,
        /// The port to ask for.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub target_port: u32,
    }

    /// The PROXY protocol.
    pub struct ProxyProtocol {
        /// Its version.
        pub version: ProxyProtocolVersion,
    }

    /// Limit of concurrent retries.
    pub struct RetryBudget {
        /// Share of the active requests, in percent; 20 by default.
        pub percent: Option<f64>,
        /// Window of the budget.
        pub budget_interval: Option<Duration>,
        /// Retries that are always allowed; 3 by default.
        pub min_retry_concurrency: u32,
    }

    /// A named part of a service.
    pub struct Subset {
        /// Its name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// Labels that its endpoints have.
        pub labels: BTreeMap<String, String>,
        /// A policy of its own.
        pub traffic_policy: Option<TrafficPolicy>,
    }

    /// Choice of the endpoint.
    pub struct LoadBalancerSettings {
        /// One of the simple ways.
        pub simple: Option<SimpleLb>,
        /// By a hash of the request.
        pub consistent_hash: Option<ConsistentHashLb>,
        /// By locality.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Window of the slow start of new endpoints (deprecated).
        pub warmup_duration_secs: Option<Duration>,
        /// Slow start of new endpoints.
        pub warmup: Option<WarmupConfiguration>,
        /// Zone-aware routing.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    }

    /// Slow start of new endpoints.
    pub struct WarmupConfiguration {
        /// The window.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub duration: Option<Duration>,
        /// Least share of the traffic, in percent; 10 by default.
        pub minimum_percent: Option<f64>,
        /// Speed of the increase; 1 by default.
        pub aggression: Option<f64>,
    }

    /// Zone-aware routing.
    pub struct ZoneAwareLbSetting {
        /// Whether it is on; true by default.
        pub enabled: Option<bool>,
        /// Which region comes after that of the client.
        pub failover: Vec<LocalityFailover>,
        /// Labels by which endpoints are ranked before regions are.
        pub failover_priority: Vec<String>,
        /// Least size of the upstream cluster.
        pub min_cluster_size: Option<u32>,
    }

    /// A hash of the request picks the endpoint.
    pub struct ConsistentHashLb {
        /// Hash this header.
        pub http_header_name: Option<String>,
        /// Hash this cookie.
        pub http_cookie: Option<HttpCookie>,
        /// Hash the address of the client.
        pub use_source_ip: Option<bool>,
        /// Hash this query parameter.
        pub http_query_parameter_name: Option<String>,
        /// Use a hash ring.
        pub ring_hash: Option<RingHash>,
        /// Use Maglev.
        pub maglev: Option<MagLev>,
        /// Least size of the ring (deprecated).
        pub minimum_ring_size: u64,
    }

    /// A cookie to hash.
    pub struct HttpCookie {
        /// Its name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// Its path.
        pub path: String,
        /// Its lifetime; given, the proxy creates the cookie.
        #[cfg_attr(feature = "schemas", schemars(with = "Option<String>"))]
        pub ttl: Option<Duration>,
        /// Further attributes of a created cookie.
        pub attributes: Vec<CookieAttribute>,
    }

    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Its name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// Its value.
        pub value: String,
    }

    /// A hash ring.
    pub struct RingHash {
        /// Its least size.
        pub minimum_ring_size: u64,
    }

    /// A Maglev table.
    pub struct MagLev {
        /// Its size, a prime.
        pub table_size: u64,
    }

    /// Load balancing by locality.
    pub struct LocalityLbSetting {
        /// Shares by locality of the client.
        pub distribute: Vec<LocalityDistribute>,
        /// Where to go when a region fails.
        pub failover: Vec<LocalityFailover>,
        /// Labels that order the endpoints.
        pub failover_priority: Vec<String>,
        /// Whether it is on.
        pub enabled: Option<bool>,
    }

    /// Shares for the clients of a locality.
    pub struct LocalityDistribute {
        /// The locality, `region/zone/subzone` with `*`.
        pub from: String,
        /// Percentages by locality.
        pub to: BTreeMap<String, u32>,
    }

    /// Another region to go to.
    pub struct LocalityFailover {
        /// The region of the client.
        pub from: String,
        /// The region to go to.
        pub to: String,
    }

    /// Limits and keep-alive of connections.
    pub struct ConnectionPoolSettings {
        /// Of all connections.
        pub tcp: Option<TcpSettings>,
        /// Of HTTP connections.
        pub http: Option<HttpSettings>,
    }

    /// Limits of connections.
    pub struct TcpSettings {
        /// Most connections at a time.
        pub max_connections: i32,
        /// Time limit for connecting.
        pub connect_timeout: Option<Duration>,
        /// TCP keep-alive.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection.
        pub max_connection_duration: Option<Duration>,
        /// Longest idle time of a connection; 0s is allowed.
        #[cfg_attr(feature = "schemas", schemars(with = "Option<String>"))]
        pub idle_timeout: Option<Duration>,
    }

    /// TCP keep-alive.
    pub struct TcpKeepalive {
        /// Unanswered probes before a connection is dead.
        pub probes: u32,
        /// Idle time before the first probe.
        pub time: Option<Duration>,
        /// Time between probes.
        pub interval: Option<Duration>,
    }

    /// Limits of HTTP.
    pub struct HttpSettings {
        /// Most requests waiting for a connection.
        pub http1_max_pending_requests: i32,
        /// Most active requests.
        pub http2_max_requests: i32,
        /// Requests per connection.
        pub max_requests_per_connection: i32,
        /// Most retries at a time.
        pub max_retries: i32,
        /// Longest idle time of a connection.
        pub idle_timeout: Option<Duration>,
        /// Whether to use HTTP/2.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Use the protocol of the client.
        pub use_client_protocol: bool,
        /// Streams per HTTP/2 connection.
        pub max_concurrent_streams: i32,
        /// HTTP/2 pings.
        pub http2_keep_alive: Option<Http2KeepAlive>,
    }

    /// HTTP/2 pings.
    pub struct Http2KeepAlive {
        /// Time between pings.
        pub interval: Option<Duration>,
        /// Time limit for the answer.
        pub timeout: Option<Duration>,
    }

    /// When an endpoint is left alone for a while.
    pub struct OutlierDetection {
        /// Not used any more (deprecated).
        pub consecutive_errors: i32,
        /// Count errors of this proxy apart.
        pub split_external_local_origin_errors: bool,
        /// Failed connections in a row.
        pub consecutive_local_origin_failures: Option<u32>,
        /// Gateway errors in a row.
        pub consecutive_gateway_errors: Option<u32>,
        /// 5xx answers in a row.
        #[serde(rename = "consecutive5xxErrors")]
        pub consecutive_5xx_errors: Option<u32>,
        /// Time between sweeps.
        pub interval: Option<Duration>,
        /// Shortest ejection.
        pub base_ejection_time: Option<Duration>,
        /// Most ejected endpoints, in percent.
        pub max_ejection_percent: i32,
        /// Share of healthy endpoints below which all are used.
        pub min_health_percent: i32,
    }

    /// TLS towards a service.
    pub struct ClientTlsSettings {
        /// Which kind of TLS.
        pub mode: ClientTlsMode,
        /// Path of the certificate.
        pub client_certificate: String,
        /// Path of the key.
        pub private_key: String,
        /// Path of the CA certificates.
        pub ca_certificates: String,
        /// Name of a Secret.
        pub credential_name: String,
        /// Names the server has to have.
        pub subject_alt_names: Vec<String>,
        /// Server name to ask for.
        pub sni: String,
        /// Do not verify the server.
        pub insecure_skip_verify: Option<bool>,
        /// Path of a revocation list.
        pub ca_crl: String,
    }
}

proto_enum! {
    /// Versions of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1,
        /// Binary.
        V2,
    }

    /// Simple ways of choosing an endpoint.
    pub enum SimpleLb {
        /// The default, least requests.
        Unspecified,
        /// Least requests (old name).
        LeastConn,
        /// At random.
        Random,
        /// The address the client asked for.
        Passthrough,
        /// One after the other.
        RoundRobin,
        /// Least requests.
        LeastRequest,
    }

    /// Whether HTTP/1.1 connections become HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh says.
        Default,
        /// No.
        DoNotUpgrade,
        /// Yes.
        Upgrade,
    }

    /// Kinds of TLS towards a service.
    pub enum ClientTlsMode {
        /// None.
        Disable,
        /// The server has a certificate.
        Simple,
        /// Both have certificates.
        Mutual,
        /// Both have the mesh's certificates.
        IstioMutual,
    }
}
