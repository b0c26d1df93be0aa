//! Clusters and their endpoints, compiled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use crate::circuit::Thresholds;
use crate::outlier::OutlierConfig;
use crate::stream::Metadata;

mod compile;
mod hosts;
mod subset;

pub use compile::transport;
pub use hosts::{Health, Host, HostSet, Locality, LocalityHosts};
pub use subset::{Fallback, Selector, SelectorFallback, Subsets};

/// How the endpoints of a cluster are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// They stand in `load_assignment`.
    Static,
    /// Every name in `load_assignment` is resolved; all addresses are endpoints.
    StrictDns,
    /// One name is resolved; the first address is used for new connections.
    LogicalDns,
    /// From EDS, under this name.
    Eds(String),
    /// The original destination of the connection.
    OriginalDst {
        /// The header that overrides it (`x-envoy-original-dst-host`), where allowed.
        header: Option<String>,
        /// The port that overrides the original one.
        port: Option<u16>,
    },
    /// The host of the request is resolved (dynamic forward proxy).
    DynamicForwardProxy,
}

/// How DNS clusters resolve names.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsOptions {
    /// `dns_refresh_rate`, 5 s by default.
    pub refresh: Duration,
    /// `dns_jitter`.
    pub jitter: Duration,
    /// `respect_dns_ttl`: the answer's TTL replaces the refresh rate.
    pub respect_ttl: bool,
    /// Whether A records are asked for.
    pub ipv4: bool,
    /// Whether AAAA records are asked for.
    pub ipv6: bool,
}

/// The load balancing policy.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`.
    RoundRobin(SlowStart),
    /// `LEAST_REQUEST`.
    LeastRequest {
        /// `choice_count`, 2 by default.
        choices: u32,
        /// `active_request_bias`, 1.0 by default.
        bias: f64,
        /// `slow_start_config`.
        slow_start: SlowStart,
    },
    /// `RANDOM`.
    Random,
    /// `RING_HASH`.
    RingHash {
        /// `minimum_ring_size`, 1024 by default.
        min: u64,
        /// `maximum_ring_size`, 8 Mi by default.
        max: u64,
        /// MurmurHash2 instead of xxHash.
        murmur: bool,
    },
    /// `MAGLEV`.
    Maglev {
        /// `table_size`, 65537 by default.
        table: u64,
    },
    /// `CLUSTER_PROVIDED`: the cluster knows (original destination, dynamic forward proxy).
    ClusterProvided,
}

/// `slow_start_config`: new hosts get a growing share. `None` window: off.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SlowStart {
    /// `slow_start_window`.
    pub window: Option<Duration>,
    /// `aggression`, 1.0 by default.
    pub aggression: f64,
    /// `min_weight_percent`, 10 by default.
    pub min_weight_percent: f64,
}

/// The transport to an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// Plain TCP.
    Raw,
    /// TLS.
    Tls(Arc<UpstreamTlsContext>),
    /// One of the others, behind a head that tells who connects.
    ProxyProtocol(ProxyProtocol, Arc<Transport>),
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    /// The head for a connection from `source` to `destination`; `None` for one that this proxy makes for itself between its own
    /// address and that of the upstream, which are the `ends`.
    pub fn head(
        self,
        connection: Option<(SocketAddr, SocketAddr)>,
        ends: (SocketAddr, SocketAddr),
    ) -> Vec<u8> {
        let (source, destination) = connection.unwrap_or(ends);
        match self {
            Self::V1 => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                format!(
                    "PROXY {family} {} {} {} {}\r\n",
                    source.ip(),
                    destination.ip(),
                    source.port(),
                    destination.port()
                )
                .into_bytes()
            }
            Self::V2 => {
                let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
                if connection.is_none() {
                    // LOCAL: whoever reads it takes the addresses of the connection itself.
                    out.extend_from_slice(&[0x20, 0, 0, 0]);
                    return out;
                }
                match (source.ip(), destination.ip()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                        out.extend_from_slice(&from.octets());
                        out.extend_from_slice(&to.octets());
                    }
                    (from, to) => {
                        let wide = |ip: IpAddr| match ip {
                            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                            IpAddr::V6(ip) => ip,
                        };
                        out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                        out.extend_from_slice(&wide(from).octets());
                        out.extend_from_slice(&wide(to).octets());
                    }
                }
                out.extend_from_slice(&source.port().to_be_bytes());
                out.extend_from_slice(&destination.port().to_be_bytes());
                out
            }
        }
    }
}

/// The HTTP version spoken to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the client spoke (`use_downstream_protocol_config`).
    Downstream,
    /// What ALPN finds (`auto_config`).
    Auto,
}

/// `tcp_keepalive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Probes without an answer until the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// `upstream_http_protocol_options`: the server name of a handshake comes from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoSni {
    /// The name is sent.
    pub send: bool,
    /// The certificate of the upstream has to have it (`auto_san_validation`).
    pub validate: bool,
    /// Where the name stands, if not in the host.
    pub header: Option<http::HeaderName>,
}

/// One cluster, compiled.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Its name in statistics: `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// DNS options; used by `StrictDns`, `LogicalDns`, `DynamicForwardProxy`.
    pub dns: DnsOptions,
    /// The endpoints that stand in the message itself.
    pub assignment: Option<Arc<HostSet>>,
    /// The load balancing policy.
    pub lb: LbPolicy,
    /// `healthy_panic_threshold` in percent, 50 by default; 0 never panics.
    pub panic_threshold: f64,
    /// `update_merge_window`, 1 s by default: changes of health within it reach the balancers together.
    pub update_merge_window: Duration,
    /// Whether localities are chosen by weight (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// Subsets of the endpoints (`lb_subset_config`).
    pub subsets: Option<Subsets>,
    /// Ring hash and maglev hash the host name instead of the address.
    pub hash_host_names: bool,
    /// The hash balance factor in percent; `None` unbounded.
    pub hash_balance_factor: Option<u32>,
    /// `connect_timeout`, 5 s by default.
    pub connect_timeout: Duration,
    /// The limits, default and high priority.
    pub thresholds: [Thresholds; 2],
    /// Outlier detection.
    pub outlier: Option<Arc<OutlierConfig>>,
    /// Header names are written to the upstream with capitals (HTTP/1, `proper_case_words`).
    pub proper_case: bool,
    /// Trailers are passed on over HTTP/1 (`enable_trailers`).
    pub http1_trailers: bool,
    /// The HTTP version to the upstream.
    pub protocol: UpstreamProtocol,
    /// Requests per connection; `None` unlimited.
    pub max_requests_per_connection: Option<u64>,
    /// Idle connections are closed after this; `None` never. 1 h by default.
    pub idle_timeout: Option<Duration>,
    /// Connections are drained after this.
    pub max_connection_duration: Option<Duration>,
    /// A stream to the upstream has to end after this (`max_stream_duration`).
    pub max_stream_duration: Option<Duration>,
    /// The server name that TLS sends is the host of the request (`auto_sni`), or the value of this header.
    pub auto_sni: Option<AutoSni>,
    /// `max_concurrent_streams` of HTTP/2.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 keep-alive pings: interval and timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
    /// `per_connection_buffer_limit_bytes`, 1 MiB by default.
    pub buffer_limit: u32,
    /// The local address of upstream connections.
    pub bind_address: Option<IpAddr>,
    /// TCP keep-alive of upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Whether every downstream connection has upstream connections of its own.
    pub pool_per_downstream_connection: bool,
    /// The names of the upstream network filters (`istio.metadata_exchange`).
    pub filters: Vec<String>,
    /// `metadata.filter_metadata`.
    pub metadata: Arc<Metadata>,
    /// The names of the SDS secrets it needs before it can serve.
    pub secrets: Vec<String>,
    transports: Transports,
}

#[derive(Debug, Clone)]
struct Transports {
    plain: Transport,
    matches: Vec<TransportMatch>,
}

/// A transport socket for endpoints whose metadata has these values.
#[derive(Debug, Clone)]
pub struct TransportMatch {
    /// `tlsMode-istio`, ...
    pub name: String,
    criteria: serde_json::Map<String, Value>,
    transport: Transport,
}

/// A protobuf duration; negative ones count as zero.
pub fn duration(config: Option<&prost_types::Duration>) -> Option<Duration> {
    config.map(|duration| {
        let seconds = u64::try_from(duration.seconds).unwrap_or(0);
        let nanos = u32::try_from(duration.nanos).unwrap_or(0);
        Duration::new(seconds, nanos)
    })
}
