//! A listener and its filter chains, compiled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane::http_conn::HttpConn;
use xds::Wire as _;
use dataplane::listener::{FilterChainMatcher, FilterPredicate};
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::listener::v3::listener::DrainType;
use xds::envoy::config::listener::v3::{
    FilterChain, Listener as Message, filter::ConfigType as NetworkConfig, listener_filter::ConfigType as FilterConfig,
};
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{RouteSpecifier, Tracing as TracingMessage};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, http_filter};
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as TcpMessage;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, weighted_cluster::ClusterWeight as WeightedTcpCluster,
};
use xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;

use super::Shared;
use super::drain::Drain;
use super::kept::Kept;
use super::routes::Routes;
use crate::access_log::AccessLog;
use crate::h1::head::HeaderCase;
use crate::http::connection::Options;
use crate::http::filters::discovered::{Discovered, ROUTER, Settings};
use crate::http::filters::{FilterContext, HttpFilter, NamedFilter};
use crate::http::local_replies::LocalReplies;
use crate::network_filters::{ConnectionAuthz, ConnectionLimit, ConnectionRate};
use crate::stats::groups::ListenerHttpStats;
use crate::stats::{HttpStats, ListenerStats, TcpStats};
use crate::tls::server::ServerContext;
use crate::tracer::Tracer;
use crate::upstream::cluster::join;

/// A look at a connection before its filter chain is chosen.
pub struct Inspector {
    /// What it looks for.
    pub kind: InspectorKind,
    /// Where it does not look.
    pub disabled: Option<FilterPredicate>,
}

/// The kinds of listener filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectorKind {
    /// Where was the connection going before it was redirected?
    OriginalDst,
    /// Is it TLS, for whom and what?
    Tls,
    /// Is it HTTP?
    Http,
    /// Who is behind the load balancer?
    ProxyProtocol,
}

/// A compiled listener.
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The message, for dumps and for comparing the next one with it.
    pub message: Kept<Message>,
    /// The version the server gave it.
    pub version: String,
    /// When it came.
    pub updated: SystemTime,
    /// Its address.
    pub address: SocketAddr,
    /// Further addresses.
    pub additional: Vec<SocketAddr>,
    /// Whether it has a socket of its own.
    pub bind: bool,
    /// Whether connections are handed to the listener of their original destination.
    pub use_original_dst: bool,
    /// Listener filters in order.
    pub inspectors: Vec<Inspector>,
    /// How long they may take; `None` is for ever.
    pub inspect_timeout: Option<Duration>,
    /// Whether a connection goes on when they took too long.
    pub continue_on_timeout: bool,
    /// The choice among the chains.
    pub matcher: FilterChainMatcher,
    /// The chains in order.
    pub chains: Vec<Arc<Chain>>,
    /// The chain for everything else.
    pub default: Option<Arc<Chain>>,
    /// Logs of connections that no chain takes.
    pub access_log: Vec<AccessLog>,
    /// Its statistics.
    pub stats: Arc<ListenerStats>,
    /// INBOUND 1, OUTBOUND 2.
    pub direction: i32,
    /// It stands in the bootstrap.
    pub fixed: bool,
    /// Its connections drain when it changes, not when health checks are told to fail (`drain_type`).
    pub modify_only: bool,
    /// It differs from the one before in filter chains only: the others stay, with their connections.
    pub in_place: bool,
}

/// A compiled filter chain.
pub struct Chain {
    /// Its name.
    pub name: String,
    /// TLS, if it is terminated.
    pub tls: Option<ServerContext>,
    /// The time for the TLS handshake.
    pub handshake_timeout: Option<Duration>,
    /// What serves the connection.
    pub kind: ChainKind,
    /// Network filters before it.
    pub filters: Vec<NetworkFilter>,
    /// Begins when it is replaced or removed.
    pub drain: Drain,
}

/// What serves a connection in the end.
pub enum ChainKind {
    /// HTTP.
    Http(Arc<HttpManager>),
    /// TCP.
    Tcp(Arc<TcpProxy>),
}

/// A network filter before the one that serves.
pub enum NetworkFilter {
    /// Istio's exchange of peer metadata over TCP.
    MetadataExchange,
    /// Istio's TCP metrics.
    IstioStats(crate::http::istio::StatsConfig),
    /// Access rules.
    Rbac(Box<dataplane::rbac::Rbac>),
    /// The cluster is named by the server name.
    SniCluster,
    /// A dynamic forward proxy cluster connects to the server name, at this port.
    SniForward(u16),
    /// So many connections at a time.
    ConnectionLimit(ConnectionLimit),
    /// So many connections in a time.
    LocalRateLimit(ConnectionRate),
    /// An authorization service decides.
    ExtAuthz(Box<ConnectionAuthz>),
}

/// A compiled HTTP connection manager.
pub struct HttpManager {
    /// The rules for every request.
    pub rules: HttpConn,
    /// Its statistics.
    pub stats: Arc<HttpStats>,
    /// The statuses of this listener alone.
    pub listener_stats: Arc<ListenerHttpStats>,
    /// Filters in order; the router is the last and implied.
    pub filters: Vec<NamedFilter>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Logs.
    pub access_log: Vec<AccessLog>,
    /// What is changed about replies of our own.
    pub local_replies: LocalReplies,
    /// Somebody looks at the headers of an answer when it is through: a log, metrics, a span.
    pub observes_headers: bool,
    /// For the codecs.
    pub options: Options,
    /// 0 auto, 1 HTTP/1, 2 HTTP/2.
    pub codec: i32,
    /// `suppress_envoy_headers` of the router.
    pub suppress_envoy_headers: bool,
    /// INBOUND 1, OUTBOUND 2.
    pub direction: i32,
    /// The filters whose settings come on their own (ECDS), by name.
    pub extensions: Vec<String>,
    /// Which requests become spans, and who collects them.
    pub tracing: Option<HttpTracing>,
}

/// The tracing of a connection manager.
pub struct HttpTracing {
    /// The rules.
    pub rules: dataplane::tracing::Tracing,
    /// Nobody: there are no spans, but decisions and names of operations are passed on all the same.
    pub tracer: Option<Arc<Tracer>>,
    /// Requests leave this workload.
    pub egress: bool,
}

/// Where routes come from.
pub enum RouteSource {
    /// They stand in the listener.
    Inline(Arc<Routes>),
    /// RDS, by name.
    Named(String),
}

/// A compiled TCP proxy.
pub struct TcpProxy {
    /// Its statistics.
    pub stats: Arc<TcpStats>,
    /// The prefix of its statistics.
    pub stat_prefix: String,
    /// Clusters with weights.
    pub clusters: Vec<TcpCluster>,
    /// Ring hash and maglev go by the address of the client (`hash_policy`).
    pub hash_source_ip: bool,
    /// Connections without traffic end after this.
    pub idle_timeout: Option<Duration>,
    /// Connections end after this.
    pub max_duration: Option<Duration>,
    /// Attempts to connect.
    pub connect_attempts: u32,
    /// The upstream is an HTTP proxy that is asked for a tunnel.
    pub tunnel: Option<Tunnel>,
    /// Logs.
    pub access_log: Vec<AccessLog>,
}

/// One of the clusters of a TCP proxy.
pub struct TcpCluster {
    /// Its name.
    pub name: String,
    /// Its share.
    pub weight: u32,
    /// What the metadata of its endpoints must say, where it has subsets.
    pub criteria: Option<dataplane::lb::Criteria>,
}

/// How an HTTP proxy is asked for a tunnel.
pub struct Tunnel {
    /// Whereto.
    pub host: dataplane::formatter::Formatter,
    /// Further headers.
    pub headers: dataplane::headers::HeaderMutations,
}

impl Tunnel {
    fn compile(
        config: &xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig,
    ) -> Result<Self, String> {
        if config.use_post {
            return Err("use_post: is not supported".into());
        }
        if config.propagate_response_headers || config.propagate_response_trailers {
            return Err("propagate_response_headers: is not supported".into());
        }
        Ok(Self {
            host: dataplane::formatter::Formatter::header(&config.hostname)
                .map_err(|error| format!("hostname: {error}"))?,
            headers: dataplane::headers::HeaderMutations::compile(&config.headers_to_add, &[])
                .map_err(|error| error.to_string())?,
        })
    }
}

/// Whether two versions of a listener are equal but for their filter chains.
fn only_chains_differ(before: &Message, after: &Message) -> bool {
    let bare = |message: &Message| {
        let mut message = message.clone();
        message.filter_chains.clear();
        message.default_filter_chain = None;
        message
    };
    !after.filter_chains.is_empty() && bare(before) == bare(after)
}

/// Reads a duration; negative ones count as zero.
pub fn duration(value: Option<&xds::prost_types::Duration>) -> Option<Duration> {
    dataplane::cluster::duration(value)
}

fn socket(address: &xds::envoy::config::core::v3::Address) -> Result<SocketAddr, String> {
    match &address.address {
        Some(AddressKind::SocketAddress(socket)) => {
            let port = match socket.port_specifier {
                Some(PortSpecifier::PortValue(port)) => port as u16,
                _ => 0,
            };
            let ip = socket
                .address
                .parse()
                .map_err(|_| format!("address: {:?} is not an IP address", socket.address))?;
            Ok(SocketAddr::new(ip, port))
        }
        Some(_) => Err("address: only IP addresses are supported for listeners".into()),
        None => Err("address is missing".into()),
    }
}

impl Listener {
    /// Compiles a listener. If nothing but filter chains has changed since the `previous` version, those that did not are
    /// taken over, so that their connections do not drain.
    ///
    /// # Errors
    /// Everything of it this proxy cannot use.
    pub fn compile(
        message: &Message,
        kept: Kept<Message>,
        version: &str,
        shared: &Shared,
        fixed: bool,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, String> {
        let unread = dataplane::unread::unread(message);
        if !unread.is_empty() {
            return Err(join(&unread));
        }
        for field in dataplane::unread::ignored(message) {
            tracing::warn!(
                "listener {}: {field} has no effect in this proxy",
                message.name
            );
        }
        let address = socket(message.address.as_ref().ok_or("address is missing")?)?;
        let mut additional = Vec::new();
        for more in &message.additional_addresses {
            additional.push(socket(
                more.address
                    .as_ref()
                    .ok_or("additional_addresses: address is missing")?,
            )?);
        }
        let matcher = FilterChainMatcher::new(
            &message.filter_chains,
            message.default_filter_chain.as_ref(),
        )
        .map_err(|errors| join(&errors))?;
        let mut chains = Vec::new();
        let previous = previous
            .map(|previous| (previous, previous.message.read()))
            .filter(|(_, before)| only_chains_differ(before, message));
        for (index, chain) in message.filter_chains.iter().enumerate() {
            let same = previous.as_ref().and_then(|(previous, message)| {
                let mut all = message.filter_chains.iter();
                previous.chains.get(all.position(|other| other == chain)?)
            });
            if let Some(same) = same {
                chains.push(same.clone());
                continue;
            }
            let compiled = Chain::compile(chain, message, shared).map_err(|error| {
                format!("filter_chains[{index}]{}: {error}", named(&chain.name))
            })?;
            chains.push(Arc::new(compiled));
        }
        let default = match &message.default_filter_chain {
            Some(chain)
                if let Some((previous, message)) = &previous
                    && message.default_filter_chain.as_ref() == Some(chain) =>
            {
                previous.default.clone()
            }
            Some(chain) => Some(Arc::new(
                Chain::compile(chain, message, shared)
                    .map_err(|error| format!("default_filter_chain: {error}"))?,
            )),
            None => None,
        };
        let mut inspectors = Vec::new();
        for (index, filter) in message.listener_filters.iter().enumerate() {
            let Some(FilterConfig::TypedConfig(any)) = &filter.config_type else {
                return Err(format!(
                    "listener_filters[{index}]: typed_config is missing"
                ));
            };
            let kind = match xds::any::message_name(any) {
                "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
                    InspectorKind::OriginalDst
                }
                "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
                    InspectorKind::Tls
                }
                "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
                    InspectorKind::Http
                }
                "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
                    InspectorKind::ProxyProtocol
                }
                other => {
                    return Err(format!(
                        "listener_filters[{index}]: {other} is not supported"
                    ));
                }
            };
            let disabled = match &filter.filter_disabled {
                Some(predicate) => Some(FilterPredicate::compile(predicate).map_err(|error| {
                    format!("listener_filters[{index}].filter_disabled: {error}")
                })?),
                None => None,
            };
            inspectors.push(Inspector { kind, disabled });
        }
        let label = label(message)?;
        let inspect_timeout = match duration(message.listener_filters_timeout.as_ref()) {
            None => Some(Duration::from_secs(15)),
            Some(Duration::ZERO) => None,
            timeout => timeout,
        };
        #[allow(deprecated)]
        let bind = message.bind_to_port.unwrap_or_else(|| {
            message
                .deprecated_v1
                .as_ref()
                .and_then(|v1| v1.bind_to_port)
                .unwrap_or(true)
        });
        Ok(Arc::new(Self {
            name: message.name.clone(),
            version: version.to_owned(),
            updated: SystemTime::now(),
            address,
            additional,
            bind,
            use_original_dst: message.use_original_dst.unwrap_or(false),
            inspectors,
            inspect_timeout,
            continue_on_timeout: message.continue_on_listener_filters_timeout,
            matcher,
            chains,
            default,
            access_log: AccessLog::compile(&message.access_log, shared)?,
            stats: shared
                .stats
                .group::<ListenerStats>(&format!("listener.{label}")),
            direction: message.traffic_direction,
            fixed,
            modify_only: message.drain_type() == DrainType::ModifyOnly,
            in_place: previous.is_some(),
            message: kept,
        }))
    }

    /// All chains, the default one last.
    pub fn all_chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default)
    }

    /// The route tables that stand in it.
    pub fn inline_routes(&self) -> impl Iterator<Item = &Arc<Routes>> {
        self.all_chains().filter_map(|chain| match &chain.kind {
            ChainKind::Http(manager) => match &manager.routes {
                RouteSource::Inline(routes) => Some(routes),
                RouteSource::Named(_) => None,
            },
            ChainKind::Tcp(_) => None,
        })
    }

    /// The messages of these tables, in the same order.
    pub fn inline_route_messages(&self) -> Vec<RouteConfiguration> {
        let message = self.message.read();
        let chains = message.filter_chains.iter();
        chains
            .chain(&message.default_filter_chain)
            .filter_map(|chain| {
                let manager = chain.filters.iter().rev().find_map(|filter| {
                    let Some(NetworkConfig::TypedConfig(any)) = &filter.config_type else {
                        return None;
                    };
                    typed::<HttpConnectionManager>(&unwrap_struct(any).ok()?).ok()
                })?;
                match manager.route_specifier {
                    Some(RouteSpecifier::RouteConfig(config)) => Some(config),
                    _ => None,
                }
            })
            .collect()
    }

    /// The route configurations it waits for.
    pub fn route_names(&self) -> impl Iterator<Item = &str> {
        self.all_chains().filter_map(|chain| match &chain.kind {
            ChainKind::Http(manager) => match &manager.routes {
                RouteSource::Named(name) => Some(name.as_str()),
                RouteSource::Inline(_) => None,
            },
            ChainKind::Tcp(_) => None,
        })
    }

    /// Takes settings that came on their own: streams that begin now have them, whenever their connection began.
    pub fn discovered(
        &self,
        name: &str,
        settings: &xds::prost_types::Any,
        shared: &Shared,
    ) -> Result<(), String> {
        for chain in self.all_chains() {
            let ChainKind::Http(manager) = &chain.kind else {
                continue;
            };
            for named in manager.filters.iter().filter(|named| named.name == name) {
                if let Settings::Discovered(discovered) = &named.filter {
                    discovered.set(settings, shared)?;
                }
            }
        }
        Ok(())
    }

    /// The settings of filters it waits for.
    pub fn extension_names(&self) -> impl Iterator<Item = &str> {
        self.all_chains()
            .flat_map(|chain| match &chain.kind {
                ChainKind::Http(manager) => &manager.extensions[..],
                ChainKind::Tcp(_) => &[],
            })
            .map(String::as_str)
    }

    /// The secrets its handshakes need.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.all_chains()
            .filter_map(|chain| chain.tls.as_ref())
            .flat_map(ServerContext::secret_names)
    }

    /// The chain a choice stands for.
    pub fn chain(&self, choice: dataplane::listener::Chain) -> Option<&Arc<Chain>> {
        match choice {
            dataplane::listener::Chain::Index(index) => self.chains.get(index),
            dataplane::listener::Chain::Default => self.default.as_ref(),
        }
    }
}

/// The name of a listener in statistics: Envoy writes addresses with underscores there.
fn label(message: &Message) -> Result<String, String> {
    if !message.stat_prefix.is_empty() {
        return Ok(message.stat_prefix.clone());
    }
    let address = socket(message.address.as_ref().ok_or("address is missing")?)?;
    Ok(address.to_string().replace(':', "_"))
}

fn named(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!(" ({name})")
    }
}

/// A message in an `Any`, also inside of a `TypedStruct`.
pub(crate) fn unwrap_struct(any: &xds::prost_types::Any) -> Result<xds::prost_types::Any, String> {
    if !matches!(
        xds::any::message_name(any),
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct"
    ) {
        return Ok(any.clone());
    }
    // Both kinds of TypedStruct have the same two fields.
    let inner = xds::udpa::r#type::v1::TypedStruct::from_wire(&any.value)
        .map_err(|error| error.to_string())?;
    let (type_url, value) = (inner.type_url, inner.value);
    // The two that stand in every listener of a mesh are read here: going through the descriptors of all messages
    // costs many megabytes, once.
    match xds::type_url::message_name(&type_url) {
        "io.istio.http.peer_metadata.Config" => {
            let config = peer_metadata(value.as_ref());
            return Ok(xds::any::pack(&config));
        }
        "envoy.tcp.metadataexchange.config.MetadataExchange" => {
            return Ok(xds::prost_types::Any {
                type_url,
                value: Vec::new(),
            });
        }
        _ => {}
    }
    let mut json = match value {
        Some(value) => dataplane::matching::struct_to_json(&value),
        None => serde_json::Map::new(),
    };
    json.insert("@type".into(), type_url.into());
    xds::json::any_from_value(&serde_json::Value::Object(json), false)
        .map_err(|error| error.to_string())
}

/// The settings of `istio.metadata_exchange` from their generic form.
fn peer_metadata(
    value: Option<&xds::prost_types::Struct>,
) -> xds::io::istio::http::peer_metadata::Config {
    use xds::io::istio::http::peer_metadata::Config;
    use xds::io::istio::http::peer_metadata::config::{
        DiscoveryMethod, IstioHeaders, PropagationMethod, WorkloadDiscovery, discovery_method,
        propagation_method,
    };
    use xds::prost_types::value::Kind;
    use xds::prost_types::{Struct, Value};
    let list = |name: &str| -> Vec<Struct> {
        let Some(Kind::ListValue(list)) =
            value.and_then(|value| value.fields.get(name)?.kind.as_ref())
        else {
            return Vec::new();
        };
        let fields = |entry: &Value| match &entry.kind {
            Some(Kind::StructValue(fields)) => Some(fields.clone()),
            _ => None,
        };
        list.values.iter().filter_map(fields).collect()
    };
    let headers = |entry: &Struct| {
        let Some(Kind::StructValue(headers)) = entry.fields.get("istio_headers")?.kind.as_ref()
        else {
            return None;
        };
        let skip = headers
            .fields
            .get("skip_external_clusters")
            .and_then(|value| value.kind.as_ref());
        Some(IstioHeaders {
            skip_external_clusters: skip == Some(&Kind::BoolValue(true)),
        })
    };
    let discovery = |name: &str| {
        list(name)
            .iter()
            .map(|entry| DiscoveryMethod {
                method_specifier: Some(match headers(entry) {
                    Some(headers) => discovery_method::MethodSpecifier::IstioHeaders(headers),
                    None => {
                        discovery_method::MethodSpecifier::WorkloadDiscovery(WorkloadDiscovery {})
                    }
                }),
            })
            .collect()
    };
    let propagation = |name: &str| {
        list(name)
            .iter()
            .map(|entry| PropagationMethod {
                method_specifier: headers(entry)
                    .map(propagation_method::MethodSpecifier::IstioHeaders),
            })
            .collect()
    };
    Config {
        downstream_discovery: discovery("downstream_discovery"),
        upstream_discovery: discovery("upstream_discovery"),
        downstream_propagation: propagation("downstream_propagation"),
        upstream_propagation: propagation("upstream_propagation"),
        ..Config::default()
    }
}

fn typed<M: xds::Wire>(any: &xds::prost_types::Any) -> Result<M, String> {
    xds::any::unpack::<M>(any)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("not a {}", M::FULL_NAME))
}

impl Chain {
    fn compile(message: &FilterChain, listener: &Message, shared: &Shared) -> Result<Self, String> {
        let tls = match message
            .transport_socket
            .as_ref()
            .and_then(|socket| socket.config_type.as_ref())
        {
            None => None,
            Some(xds::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(any)) => {
                match xds::any::message_name(any) {
                    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => None,
                    _ => {
                        let context: DownstreamTlsContext =
                            typed(any).map_err(|error| format!("transport_socket: {error}"))?;
                        let context = ServerContext::new(&context, shared.secrets.clone());
                        Some(context.map_err(|error| format!("transport_socket: {error}"))?)
                    }
                }
            }
        };
        let mut filters = Vec::new();
        let mut kind = None;
        for (index, filter) in message.filters.iter().enumerate() {
            let at = |error: String| format!("filters[{index}] ({}): {error}", filter.name);
            let Some(NetworkConfig::TypedConfig(any)) = &filter.config_type else {
                return Err(at("typed_config is missing".into()));
            };
            let any = unwrap_struct(any).map_err(at)?;
            match xds::any::message_name(&any) {
                "envoy.tcp.metadataexchange.config.MetadataExchange" => {
                    filters.push(NetworkFilter::MetadataExchange)
                }
                "stats.PluginConfig" => filters.push(NetworkFilter::IstioStats(
                    crate::http::istio::StatsConfig::compile(&any, listener.traffic_direction)
                        .map_err(at)?,
                )),
                "envoy.extensions.filters.network.rbac.v3.RBAC" => {
                    filters.push(NetworkFilter::Rbac(Box::new(
                        crate::http::filters::network_rbac(&any).map_err(at)?,
                    )))
                }
                // Counts what passes; changes nothing.
                "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy" => {}
                "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" => {
                    filters.push(NetworkFilter::SniCluster);
                }
                "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig" => {
                    use xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::{
                        FilterConfig, filter_config::PortSpecifier,
                    };
                    let port = match typed::<FilterConfig>(&any).map_err(at)?.port_specifier {
                        Some(PortSpecifier::PortValue(port)) => port as u16,
                        None => 443,
                    };
                    filters.push(NetworkFilter::SniForward(port));
                }
                "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit" => {
                    let config = typed(&any).map_err(at)?;
                    filters.push(NetworkFilter::ConnectionLimit(
                        ConnectionLimit::compile(&config, shared).map_err(at)?,
                    ));
                }
                "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" => {
                    let config = typed(&any).map_err(at)?;
                    filters.push(NetworkFilter::LocalRateLimit(
                        ConnectionRate::compile(&config, shared).map_err(at)?,
                    ));
                }
                "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
                    let config = typed(&any).map_err(at)?;
                    filters.push(NetworkFilter::ExtAuthz(Box::new(
                        ConnectionAuthz::compile(&config, shared).map_err(at)?,
                    )));
                }
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" =>
                {
                    let manager = typed::<HttpConnectionManager>(&any).map_err(at)?;
                    kind = Some(ChainKind::Http(Arc::new(
                        HttpManager::compile(&manager, listener, shared).map_err(at)?,
                    )));
                }
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
                    let proxy = typed::<TcpMessage>(&any).map_err(at)?;
                    kind = Some(ChainKind::Tcp(Arc::new(
                        TcpProxy::compile(&proxy, shared).map_err(at)?,
                    )));
                }
                other => return Err(at(format!("{other} is not supported"))),
            }
        }
        Ok(Self {
            name: message.name.clone(),
            tls,
            handshake_timeout: duration(message.transport_socket_connect_timeout.as_ref())
                .filter(|timeout| !timeout.is_zero()),
            kind: kind.ok_or("there is neither an http_connection_manager nor a tcp_proxy")?,
            filters,
            drain: Drain::default(),
        })
    }
}

impl HttpManager {
    fn compile(
        message: &HttpConnectionManager,
        listener: &Message,
        shared: &Shared,
    ) -> Result<Self, String> {
        let mut rules = HttpConn::compile(message).map_err(|error| error.to_string())?;
        rules.node_address = crate::io::node_address();
        let mut filters = Vec::new();
        let context = FilterContext {
            shared,
            stat_prefix: &message.stat_prefix,
            direction: listener.traffic_direction,
        };
        let mut extensions = Vec::new();
        let mut suppress_envoy_headers = false;
        let count = message.http_filters.len();
        for (index, filter) in message.http_filters.iter().enumerate() {
            let at = |error: String| format!("http_filters[{index}] ({}): {error}", filter.name);
            let any = match &filter.config_type {
                Some(http_filter::ConfigType::TypedConfig(any)) => {
                    unwrap_struct(any).map_err(at)?
                }
                Some(http_filter::ConfigType::ConfigDiscovery(source)) => {
                    extensions.push(filter.name.clone());
                    let discovered = Discovered::new(source, &context);
                    let found = shared.extensions.read().get(&filter.name).cloned();
                    let found = found.and_then(|(config, _)| config.typed_config);
                    // Until something comes the listener warms.
                    if let Some(any) = found.as_ref().or(source.default_config.as_ref()) {
                        discovered.set(any, shared).map_err(at)?;
                    }
                    filters.push(NamedFilter {
                        name: filter.name.clone(),
                        disabled: filter.disabled,
                        filter: Settings::Discovered(discovered),
                    });
                    continue;
                }
                None if filter.is_optional => continue,
                None => return Err(at("typed_config is missing".into())),
            };
            if xds::any::message_name(&any) == ROUTER {
                let router: xds::envoy::extensions::filters::http::router::v3::Router =
                    typed(&any).map_err(at)?;
                suppress_envoy_headers = router.suppress_envoy_headers;
                if index + 1 != count {
                    return Err(at("the router must be the last filter".into()));
                }
                continue;
            }
            match HttpFilter::compile(&any, &context) {
                Ok(Some(compiled)) => filters.push(NamedFilter {
                    name: filter.name.clone(),
                    disabled: filter.disabled,
                    filter: Settings::Own(compiled),
                }),
                Ok(None) => {}
                Err(error) if filter.is_optional => {
                    tracing::warn!("optional filter {} left out: {error}", filter.name);
                }
                Err(error) => return Err(at(error)),
            }
        }
        let routes = match &message.route_specifier {
            Some(RouteSpecifier::RouteConfig(config)) => RouteSource::Inline(
                Routes::compile(config, None, "")
                    .map_err(|error| format!("route_config: {error}"))?,
            ),
            Some(RouteSpecifier::Rds(rds)) => RouteSource::Named(rds.route_config_name.clone()),
            _ => {
                return Err("route_config or rds is needed; scoped_routes is not supported".into());
            }
        };
        let h1 = message.http_protocol_options.clone().unwrap_or_default();
        let h2 = message.http2_protocol_options.clone().unwrap_or_default();
        let header_case = match h1.header_key_format.as_ref().and_then(|format| format.header_format.as_ref()) {
            Some(xds::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat::ProperCaseWords(_)) => {
                HeaderCase::ProperCase
            }
            _ => HeaderCase::Lower,
        };
        let options = Options {
            idle_timeout: rules.idle_timeout,
            accept_http_10: rules.accept_http10,
            max_head: rules.max_request_headers_kb as usize * 1024,
            max_headers: rules.max_headers_count as usize,
            custom_methods: h1.allow_custom_methods,
            default_host: h1.default_host_for_http_10.clone(),
            head_timeout: rules.request_headers_timeout,
            close_patience: rules.delayed_close_timeout,
            max_duration: rules.max_connection_duration,
            max_requests: rules.max_requests_per_connection,
            underscores: rules.underscores,
            proxy_100_continue: rules.proxy_100_continue,
            header_case,
            trailers: h1.enable_trailers,
            h2_max_streams: h2.max_concurrent_streams,
            h2_stream_window: h2.initial_stream_window_size,
            h2_connection_window: h2.initial_connection_window_size,
            allow_connect: h2.allow_connect,
        };
        Ok(Self {
            stats: shared
                .stats
                .group::<HttpStats>(&format!("http.{}", message.stat_prefix)),
            listener_stats: shared.stats.group(&format!(
                "listener.{}.http.{}",
                label(listener)?,
                message.stat_prefix
            )),
            observes_headers: message.tracing.is_some()
                || !message.access_log.is_empty()
                || filters.iter().any(|named| match &named.filter {
                    Settings::Own(filter) => matches!(filter, HttpFilter::IstioStats(_)),
                    Settings::Discovered(_) => true,
                }),
            rules,
            filters,
            routes,
            access_log: AccessLog::compile(&message.access_log, shared)?,
            local_replies: LocalReplies::compile(message.local_reply_config.as_ref())?,
            options,
            codec: message.codec_type,
            suppress_envoy_headers,
            extensions,
            tracing: message
                .tracing
                .as_ref()
                .map(|config| HttpTracing::compile(config, listener.traffic_direction, shared))
                .transpose()
                .map_err(|error| format!("tracing.{error}"))?,
            direction: listener.traffic_direction,
        })
    }
}

impl HttpTracing {
    fn compile(config: &TracingMessage, direction: i32, shared: &Shared) -> Result<Self, String> {
        let rules = dataplane::tracing::Tracing::compile(config, &|name| std::env::var(name).ok())
            .map_err(|error| error.to_string())?;
        let tracer = match &config.provider {
            Some(provider) => Some(Tracer::compile(provider, shared)?),
            None => shared.tracer.get().cloned(),
        };
        Ok(Self {
            rules,
            tracer,
            egress: direction == 2,
        })
    }
}

impl TcpProxy {
    fn compile(message: &TcpMessage, shared: &Shared) -> Result<Self, String> {
        use dataplane::lb::Criteria;
        use dataplane::matching::metadata;
        let criteria = Criteria::of(&metadata(message.metadata_match.as_ref()));
        let clusters = match &message.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => vec![TcpCluster {
                name: name.clone(),
                weight: 1,
                criteria,
            }],
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let cluster = |cluster: &WeightedTcpCluster| TcpCluster {
                    name: cluster.name.clone(),
                    weight: cluster.weight,
                    criteria: Criteria::with(
                        criteria.as_ref(),
                        &metadata(cluster.metadata_match.as_ref()),
                    )
                    .or_else(|| criteria.clone()),
                };
                weighted.clusters.iter().map(cluster).collect()
            }
            None => return Err("cluster or weighted_clusters is missing".into()),
        };
        use xds::envoy::r#type::v3::hash_policy::PolicySpecifier;
        let mut hash_source_ip = false;
        for policy in &message.hash_policy {
            match &policy.policy_specifier {
                Some(PolicySpecifier::SourceIp(_)) => hash_source_ip = true,
                _ => return Err("hash_policy: only source_ip is supported".into()),
            }
        }
        let tunnel = message
            .tunneling_config
            .as_ref()
            .map(Tunnel::compile)
            .transpose()
            .map_err(|error| format!("tunneling_config.{error}"))?;
        let idle_timeout = match duration(message.idle_timeout.as_ref()) {
            None => Some(Duration::from_secs(3600)),
            Some(Duration::ZERO) => None,
            timeout => timeout,
        };
        Ok(Self {
            stats: shared
                .stats
                .group::<TcpStats>(&format!("tcp.{}", message.stat_prefix)),
            stat_prefix: message.stat_prefix.clone(),
            tunnel,
            clusters,
            hash_source_ip,
            idle_timeout,
            max_duration: duration(message.max_downstream_connection_duration.as_ref()),
            connect_attempts: message.max_connect_attempts.unwrap_or(1).max(1),
            access_log: AccessLog::compile(&message.access_log, shared)?,
        })
    }
}
