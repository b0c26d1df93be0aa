//! The resources of one proxy, compiled.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter, filter};
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as LocalRateLimitConfig;
use xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier, http_filter,
};
use xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, tcp_proxy::ClusterSpecifier,
};
use xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use xds::prost_types::Any;

use crate::address::Address;
use crate::cluster::{ClusterConfig, Discovery, HostSet};
use crate::error::ConfigError;
use crate::fault::Fault;
use crate::http_conn::HttpConn;
use crate::jwt::JwtAuthn;
use crate::lb::LoadBalancer;
use crate::listener::{Chain as Choice, FilterChainMatcher, FilterPredicate};
use crate::local_ratelimit::LocalRateLimit;
use crate::rbac::Rbac;
use crate::route::{Route, RouteTable};
use crate::typed;
use crate::unread::unread;

/// Everything one proxy was sent.
#[derive(Debug, Default, Clone)]
pub struct Resources {
    /// LDS (and static listeners).
    pub listeners: Vec<Listener>,
    /// RDS.
    pub routes: Vec<RouteConfiguration>,
    /// CDS (and static clusters).
    pub clusters: Vec<Cluster>,
    /// EDS.
    pub endpoints: Vec<ClusterLoadAssignment>,
}

/// The same, compiled.
#[derive(Debug, Default)]
pub struct World {
    pub(super) listeners: Vec<ListenerModel>,
    pub(super) routes: HashMap<String, Arc<RouteTable>>,
    pub(super) clusters: HashMap<String, ClusterModel>,
}

#[derive(Debug)]
pub(super) struct ClusterModel {
    pub(super) config: ClusterConfig,
    pub(super) balancer: LoadBalancer,
}

#[derive(Debug)]
pub(super) struct ListenerModel {
    pub(super) name: String,
    pub(super) address: Option<SocketAddr>,
    pub(super) use_original_dst: bool,
    pub(super) binds: bool,
    matcher: FilterChainMatcher,
    chains: Vec<ChainModel>,
    default: Option<ChainModel>,
    http_inspector: Option<FilterPredicate>,
    tls_inspector: Option<FilterPredicate>,
}

#[derive(Debug)]
pub(super) struct ChainModel {
    pub(super) name: String,
    /// Whether TLS is terminated, and whether a client certificate is needed.
    pub(super) tls: Option<bool>,
    pub(super) rbac: Vec<Rbac>,
    pub(super) terminal: Terminal,
}

#[derive(Debug)]
pub(super) enum Terminal {
    Http(Box<HttpModel>),
    Tcp(Vec<(String, u32)>),
    Nothing,
}

#[derive(Debug)]
pub(super) struct HttpModel {
    pub(super) conn: HttpConn,
    pub(super) routes: Routes,
    pub(super) filters: Vec<(String, HttpFilterModel)>,
}

#[derive(Debug)]
pub(super) enum Routes {
    Inline(Arc<RouteTable>),
    Named(String),
}

#[derive(Debug)]
pub(super) enum HttpFilterModel {
    Rbac(Rbac),
    Jwt(JwtAuthn),
    Fault(Option<Fault>),
    LocalRateLimit(Option<LocalRateLimit>),
    /// Changes nothing about where a request goes.
    Other,
}

impl World {
    /// Compiles all resources. What cannot be used is left out and named; `seed` shifts round robin.
    pub fn compile(resources: &Resources, seed: u64) -> (Self, Vec<ConfigError>) {
        let mut world = Self::default();
        let mut errors = Vec::new();
        let mut endpoints = HashMap::new();
        for assignment in &resources.endpoints {
            match HostSet::compile(assignment) {
                Ok(set) => drop(endpoints.insert(assignment.cluster_name.as_str(), Arc::new(set))),
                Err(found) => collect(&mut errors, "endpoints", &assignment.cluster_name, found),
            }
        }
        for cluster in &resources.clusters {
            match ClusterConfig::compile(cluster) {
                Ok(config) => {
                    let hosts = match &config.discovery {
                        Discovery::Eds(service) => endpoints.get(service.as_str()).cloned(),
                        _ => config.assignment.clone(),
                    };
                    let balancer =
                        LoadBalancer::new(&config, hosts.unwrap_or_default(), &|_| false, seed);
                    world
                        .clusters
                        .insert(cluster.name.clone(), ClusterModel { config, balancer });
                }
                Err(found) => collect(&mut errors, "clusters", &cluster.name, found),
            }
        }
        for route in &resources.routes {
            match RouteTable::compile(route) {
                Ok(table) => {
                    let found: Vec<_> = table
                        .routes()
                        .flat_map(|route| filter_errors(route))
                        .collect();
                    collect(&mut errors, "routes", &route.name, found);
                    world.routes.insert(route.name.clone(), Arc::new(table));
                }
                Err(found) => collect(&mut errors, "routes", &route.name, found),
            }
        }
        for listener in &resources.listeners {
            match ListenerModel::compile(listener) {
                Ok(model) => world.listeners.push(model),
                Err(found) => collect(&mut errors, "listeners", &listener.name, found),
            }
        }
        (world, errors)
    }
}

/// What is wrong with the filter configurations of a route.
fn filter_errors(route: &Route) -> Vec<ConfigError> {
    let compile = |(name, any): (&str, &Arc<Any>)| {
        let error = HttpFilterModel::compile(any).err()?;
        Some(error.within(&format!("typed_per_filter_config[{name:?}]")))
    };
    route.filter_configs().filter_map(compile).collect()
}

fn collect(errors: &mut Vec<ConfigError>, kind: &str, name: &str, found: Vec<ConfigError>) {
    errors.extend(
        found
            .into_iter()
            .map(|error| error.within(&format!("{kind}[{name:?}]"))),
    );
}

impl ListenerModel {
    fn compile(config: &Listener) -> Result<Self, Vec<ConfigError>> {
        let one = |error: ConfigError| vec![error];
        let unread = unread(config);
        if !unread.is_empty() {
            return Err(unread);
        }
        let address = config
            .address
            .as_ref()
            .map(Address::compile)
            .transpose()
            .map_err(|e| one(e.within("address")))?;
        let matcher =
            FilterChainMatcher::new(&config.filter_chains, config.default_filter_chain.as_ref())?;
        let mut chains = Vec::with_capacity(config.filter_chains.len());
        let mut errors = Vec::new();
        for (index, chain) in config.filter_chains.iter().enumerate() {
            match ChainModel::compile(chain) {
                Ok(chain) => chains.push(chain),
                Err(error) => errors.push(error.within(&format!("filter_chains[{index}]"))),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let default = config
            .default_filter_chain
            .as_ref()
            .map(ChainModel::compile)
            .transpose();
        let inspector = |name: &str| -> Result<Option<FilterPredicate>, ConfigError> {
            let found = config
                .listener_filters
                .iter()
                .find(|filter: &&ListenerFilter| filter.name == name);
            let Some(found) = found else { return Ok(None) };
            match &found.filter_disabled {
                Some(predicate) => FilterPredicate::compile(predicate)
                    .map(Some)
                    .map_err(|e| e.within("listener_filters")),
                None => Ok(Some(FilterPredicate::Any(false))),
            }
        };
        Ok(Self {
            name: config.name.clone(),
            address: address.and_then(|address| address.socket()),
            use_original_dst: config.use_original_dst.unwrap_or(false)
                || config
                    .listener_filters
                    .iter()
                    .any(|filter| filter.name == "envoy.filters.listener.original_dst"),
            binds: config.bind_to_port.unwrap_or(true),
            matcher,
            chains,
            default: default.map_err(|e| one(e.within("default_filter_chain")))?,
            http_inspector: inspector("envoy.filters.listener.http_inspector").map_err(one)?,
            tls_inspector: inspector("envoy.filters.listener.tls_inspector").map_err(one)?,
        })
    }

    /// Whether client hellos (or HTTP) are looked at on this port.
    pub(super) fn inspects(&self, port: u16, http: bool) -> bool {
        let inspector = if http {
            &self.http_inspector
        } else {
            &self.tls_inspector
        };
        inspector
            .as_ref()
            .is_some_and(|disabled| !disabled.disabled(port))
    }

    pub(super) fn chain(
        &self,
        facts: &crate::listener::ConnectionFacts<'_>,
    ) -> Option<&ChainModel> {
        match self.matcher.find(facts)? {
            Choice::Index(index) => self.chains.get(index),
            Choice::Default => self.default.as_ref(),
        }
    }
}

impl ChainModel {
    fn compile(config: &FilterChain) -> Result<Self, ConfigError> {
        let mut chain = Self {
            name: config.name.clone(),
            tls: None,
            rbac: Vec::new(),
            terminal: Terminal::Nothing,
        };
        use xds::envoy::config::core::v3::transport_socket::ConfigType;
        if let Some(socket) = &config.transport_socket
            && let Some(ConfigType::TypedConfig(any)) = &socket.config_type
            && let Some(tls) = typed::unpack::<DownstreamTlsContext>(any)?
        {
            chain.tls = Some(tls.require_client_certificate.unwrap_or(false));
        }
        for filter in &config.filters {
            chain
                .filter(filter)
                .map_err(|error| error.within(&format!("filters[{:?}]", filter.name)))?;
        }
        Ok(chain)
    }

    fn filter(&mut self, config: &Filter) -> Result<(), ConfigError> {
        let Some(filter::ConfigType::TypedConfig(any)) = &config.config_type else {
            return Ok(());
        };
        if let Some(rbac) = typed::unpack::<NetworkRbac>(any)? {
            self.rbac.push(Rbac::of_network(&rbac)?);
        } else if let Some(tcp) = typed::unpack::<TcpProxy>(any)? {
            self.terminal = Terminal::Tcp(match tcp.cluster_specifier {
                Some(ClusterSpecifier::Cluster(name)) => vec![(name, 1)],
                Some(ClusterSpecifier::WeightedClusters(list)) => list
                    .clusters
                    .into_iter()
                    .map(|entry| (entry.name, entry.weight))
                    .collect(),
                None => return Err(ConfigError::new("cluster", "is missing")),
            });
        } else if let Some(hcm) = typed::unpack::<HttpConnectionManager>(any)? {
            self.terminal = Terminal::Http(Box::new(HttpModel::compile(&hcm)?));
        }
        Ok(())
    }
}

impl HttpModel {
    fn compile(config: &HttpConnectionManager) -> Result<Self, ConfigError> {
        let routes = match &config.route_specifier {
            Some(RouteSpecifier::RouteConfig(table)) => {
                Routes::Inline(Arc::new(RouteTable::compile(table).map_err(|errors| {
                    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    ConfigError::new("route_config", all.join("; "))
                })?))
            }
            Some(RouteSpecifier::Rds(rds)) => Routes::Named(rds.route_config_name.clone()),
            _ => {
                return Err(ConfigError::new(
                    "route_specifier",
                    "must be rds or route_config",
                ));
            }
        };
        let mut filters = Vec::with_capacity(config.http_filters.len());
        for filter in config.http_filters.iter().filter(|filter| !filter.disabled) {
            let model = match &filter.config_type {
                Some(http_filter::ConfigType::TypedConfig(any)) => HttpFilterModel::compile(any),
                _ => Ok(HttpFilterModel::Other),
            };
            filters.push((
                filter.name.clone(),
                model.map_err(|e| e.within(&format!("http_filters[{:?}]", filter.name)))?,
            ));
        }
        Ok(Self {
            conn: HttpConn::compile(config)?,
            routes,
            filters,
        })
    }
}

impl HttpFilterModel {
    /// Compiles the configuration of a filter, or what a route says instead of it.
    pub(super) fn compile(any: &Any) -> Result<Self, ConfigError> {
        Ok(if let Some(rbac) = typed::unpack::<HttpRbac>(any)? {
            Self::Rbac(Rbac::of_http(&rbac)?)
        } else if let Some(jwt) = typed::unpack::<JwtAuthentication>(any)? {
            Self::Jwt(JwtAuthn::compile(&jwt)?)
        } else if let Some(fault) = typed::unpack::<HttpFault>(any)? {
            Self::Fault(Some(Fault::compile(&fault)?))
        } else if let Some(limit) = typed::unpack::<LocalRateLimitConfig>(any)? {
            Self::LocalRateLimit(LocalRateLimit::compile(&limit)?)
        } else {
            Self::Other
        })
    }
}
