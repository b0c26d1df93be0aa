//! HTTP filters and what routes say to them. A filter that is not known refuses the listener: traffic must never
//! pass a rule that was configured and is not applied.

pub mod basic_auth;
pub mod compressor;
pub mod csrf;
pub mod decompressor;
pub mod discovered;
pub mod ext_authz;
pub mod grpc_web;
pub mod health_check;
pub mod jwt;
pub mod lua;
pub mod rate_limit;
mod run;
pub mod throttle;

use std::sync::{Arc, OnceLock};

use dataplane::fault::Fault;
use dataplane::header_mutation::Mutations;
use dataplane::local_ratelimit::LocalRateLimit;
use dataplane::metadata_rules::{HeaderToMetadata, SetMetadata};
use dataplane::rbac::Rbac;
use http::header::{HeaderName, HeaderValue};
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::route::v3::FilterConfig;
use xds::envoy::extensions::filters::http as filter;
use xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::io::istio::http::peer_metadata::Config as PeerMetadata;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig as AlpnConfig;
use xds::prost_types::Any;

use self::lua::Lua;
use super::cors::Cors;
use super::istio::StatsConfig;
use crate::config::Shared;
use crate::stats::groups::{CsrfStats, LocalRateLimitStats};
use basic_auth::BasicAuth;
use compressor::Compressor;
use csrf::Csrf;
use decompressor::Decompressor;
use discovered::Settings;
use ext_authz::ExtAuthz;
use health_check::HealthCheck;
use jwt::Jwt;
use rate_limit::RateLimit;
use throttle::BandwidthLimit;

/// What a filter is compiled for.
pub struct FilterContext<'a> {
    /// What the parts of the proxy share.
    pub shared: &'a Shared,
    /// The prefix of the connection manager's statistics.
    pub stat_prefix: &'a str,
    /// INBOUND 1, OUTBOUND 2.
    pub direction: i32,
}

/// A filter with its name in the configuration, under which routes address it.
pub struct NamedFilter {
    /// The name.
    pub name: String,
    /// It only runs where a route says so.
    pub disabled: bool,
    /// The filter.
    pub filter: Settings,
}

/// A compiled HTTP filter.
pub enum HttpFilter {
    /// `envoy.filters.http.fault`.
    Fault(Box<Fault>),
    /// `envoy.filters.http.cors`.
    Cors,
    /// `envoy.filters.http.rbac`.
    Rbac(Box<Rbac>),
    /// `istio.metadata_exchange`.
    PeerMetadata(PeerExchange),
    /// `istio.alpn`.
    Alpn(Alpn),
    /// `istio.stats`.
    IstioStats(StatsConfig),
    /// `envoy.filters.http.jwt_authn`.
    Jwt(Box<Jwt>),
    /// `envoy.filters.http.local_ratelimit`.
    LocalRateLimit(LocalLimit),
    /// `envoy.filters.http.ratelimit`.
    RateLimit(Box<RateLimit>),
    /// `envoy.filters.http.ext_authz`.
    ExtAuthz(Box<ExtAuthz>),
    /// `envoy.filters.http.buffer`: the most bytes of a request.
    Buffer(usize),
    /// `envoy.filters.http.header_mutation`.
    HeaderMutation(Arc<Mutations>),
    /// `envoy.filters.http.header_to_metadata`.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// `envoy.filters.http.set_metadata`.
    SetMetadata(SetMetadata),
    /// `envoy.filters.http.compressor`.
    Compressor(Arc<Compressor>),
    /// `envoy.filters.http.grpc_web`.
    GrpcWeb,
    /// `envoy.filters.http.csrf`.
    Csrf(Box<Csrf>, Arc<CsrfStats>),
    /// `envoy.filters.http.basic_auth`.
    BasicAuth(Box<BasicAuth>),
    /// `envoy.filters.http.decompressor`.
    Decompressor(Arc<Decompressor>),
    /// `envoy.filters.http.bandwidth_limit`.
    BandwidthLimit(Box<BandwidthLimit>),
    /// `envoy.filters.http.health_check`.
    HealthCheck(Box<HealthCheck>),
    /// `envoy.filters.http.lua`.
    Lua(Box<Lua>),
}

/// What a filter does to the answer, on its way back.
pub enum ResponseStep {
    /// Changes headers one by one.
    Headers(Vec<(HeaderName, HeaderValue, HeaderAppendAction)>),
    /// `header_mutation`.
    Mutations(Arc<Mutations>),
    /// `header_to_metadata`.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// `compressor`.
    Compress(Arc<Compressor>),
    /// `grpc_web`.
    GrpcWeb(grpc_web::Dialect),
    /// `decompressor`.
    Decompress(Arc<Decompressor>),
    /// The body passes no faster than a bucket gives it leave.
    Throttle(Arc<throttle::Bucket>),
    /// The `lua` filter of this place, and what the route says to it.
    Script(usize, Option<Arc<PerRoute>>),
}

/// A local rate limit with its statistics.
pub struct LocalLimit {
    /// The limit; `None` never limits.
    pub limit: Option<LocalRateLimit>,
    stats: OnceLock<Arc<LocalRateLimitStats>>,
}

impl LocalLimit {
    fn compile(any: &Any) -> Result<Self, String> {
        let config = decode::<filter::local_ratelimit::v3::LocalRateLimit>(any)?;
        Ok(Self {
            limit: LocalRateLimit::compile(&config).map_err(|error| error.to_string())?,
            stats: OnceLock::new(),
        })
    }

    /// `<stat_prefix>.http_local_rate_limit.*`
    pub fn stats(&self, shared: &Shared) -> &LocalRateLimitStats {
        self.stats.get_or_init(|| {
            let prefix = self.limit.as_ref().map_or("", |limit| &limit.stat_prefix);
            shared
                .stats
                .group(&format!("{prefix}.http_local_rate_limit"))
        })
    }
}

/// Which way peer metadata travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerExchange {
    /// Read it from requests.
    pub from_downstream: bool,
    /// Answer with our own.
    pub to_downstream: bool,
    /// Add our own to requests.
    pub to_upstream: bool,
    /// Read it from responses.
    pub from_upstream: bool,
    /// Not for clusters outside of the mesh.
    pub skip_external: bool,
}

/// The application protocols offered to the upstream, by the protocol spoken to it.
#[derive(Debug, Clone)]
pub struct Alpn {
    /// For HTTP/1.0.
    pub http10: Option<Arc<[Vec<u8>]>>,
    /// For HTTP/1.1.
    pub http11: Option<Arc<[Vec<u8>]>>,
    /// For HTTP/2.
    pub http2: Option<Arc<[Vec<u8>]>>,
}

/// Access rules for connections.
///
/// # Errors
/// When the rules are wrong or not supported.
pub fn network_rbac(any: &Any) -> Result<Rbac, String> {
    let config = decode::<xds::envoy::extensions::filters::network::rbac::v3::Rbac>(any)?;
    Rbac::of_network(&config).map_err(|error| error.to_string())
}

impl HttpFilter {
    /// Compiles a filter; `None` for filters that change nothing here.
    ///
    /// # Errors
    /// When the filter is not known or its settings are wrong.
    pub fn compile(any: &Any, context: &FilterContext<'_>) -> Result<Option<Self>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        Ok(Some(match xds::any::message_name(any) {
            "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
                let config = decode::<HttpFault>(any)?;
                Self::Fault(Box::new(
                    Fault::compile(&config).map_err(|error| text(&error))?,
                ))
            }
            "envoy.extensions.filters.http.cors.v3.Cors" => Self::Cors,
            "envoy.extensions.filters.http.rbac.v3.RBAC" => {
                let config = decode::<filter::rbac::v3::Rbac>(any)?;
                Self::Rbac(Box::new(
                    Rbac::of_http(&config).map_err(|error| text(&error))?,
                ))
            }
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => {
                Self::Jwt(Box::new(Jwt::compile(&decode(any)?, context)?))
            }
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
                Self::LocalRateLimit(LocalLimit::compile(any)?)
            }
            "envoy.extensions.filters.http.ratelimit.v3.RateLimit" => {
                Self::RateLimit(Box::new(RateLimit::compile(&decode(any)?, context)?))
            }
            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" => {
                Self::ExtAuthz(Box::new(ExtAuthz::compile(&decode(any)?, context)?))
            }
            "envoy.extensions.filters.http.buffer.v3.Buffer" => {
                Self::Buffer(buffer_limit(&decode(any)?)?)
            }
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => {
                let config = decode::<filter::header_mutation::v3::HeaderMutation>(any)?;
                Self::HeaderMutation(Arc::new(mutations(config.mutations.as_ref())?))
            }
            "envoy.extensions.filters.http.header_to_metadata.v3.Config" => Self::HeaderToMetadata(
                Arc::new(HeaderToMetadata::compile(&decode(any)?).map_err(|error| text(&error))?),
            ),
            "envoy.extensions.filters.http.set_metadata.v3.Config" => Self::SetMetadata(
                SetMetadata::compile(&decode(any)?).map_err(|error| text(&error))?,
            ),
            "envoy.extensions.filters.http.compressor.v3.Compressor" => {
                match Compressor::compile(&decode(any)?, context)? {
                    Some(compressor) => Self::Compressor(Arc::new(compressor)),
                    None => return Ok(None),
                }
            }
            "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => Self::GrpcWeb,
            "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => {
                let prefix = format!("http.{}.csrf", context.stat_prefix);
                let stats = context.shared.stats.group(&prefix);
                Self::Csrf(Box::new(Csrf::compile(&decode(any)?)?), stats)
            }
            "envoy.extensions.filters.http.basic_auth.v3.BasicAuth" => {
                Self::BasicAuth(Box::new(BasicAuth::compile(&decode(any)?, context)?))
            }
            "envoy.extensions.filters.http.decompressor.v3.Decompressor" => {
                Self::Decompressor(Arc::new(Decompressor::compile(&decode(any)?, context)?))
            }
            "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit" => {
                Self::BandwidthLimit(Box::new(BandwidthLimit::compile(&decode(any)?)?))
            }
            "envoy.extensions.filters.http.health_check.v3.HealthCheck" => {
                Self::HealthCheck(Box::new(HealthCheck::compile(&decode(any)?)?))
            }
            "envoy.extensions.filters.http.lua.v3.Lua" => {
                Self::Lua(Box::new(Lua::compile(&decode(any)?, context)?))
            }
            "io.istio.http.peer_metadata.Config" => {
                Self::PeerMetadata(peer_exchange(&decode::<PeerMetadata>(any)?))
            }
            "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" => {
                let config = decode::<AlpnConfig>(any)?;
                let of = |protocol: i32| {
                    config
                        .alpn_override
                        .iter()
                        .find(|entry| entry.upstream_protocol == protocol)
                        .map(|entry| {
                            entry
                                .alpn_override
                                .iter()
                                .map(|name| name.clone().into_bytes())
                                .collect()
                        })
                };
                Self::Alpn(Alpn {
                    http10: of(0),
                    http11: of(1),
                    http2: of(2),
                })
            }
            "stats.PluginConfig" => Self::IstioStats(StatsConfig::compile(any, context.direction)?),
            // Counts messages of gRPC streams for filters that are not here.
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => return Ok(None),
            // The router resolves the host of a dynamic forward proxy cluster itself.
            "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig" => {
                return Ok(None);
            }
            other => return Err(format!("{other} is not supported")),
        }))
    }
}

fn mutations(config: Option<&filter::header_mutation::v3::Mutations>) -> Result<Mutations, String> {
    Mutations::compile(config).map_err(|error| format!("mutations.{error}"))
}

fn buffer_limit(config: &filter::buffer::v3::Buffer) -> Result<usize, String> {
    match config.max_request_bytes {
        Some(max) if max > 0 => Ok(max as usize),
        _ => Err("max_request_bytes: must be more than 0".into()),
    }
}

fn peer_exchange(config: &PeerMetadata) -> PeerExchange {
    use xds::io::istio::http::peer_metadata::config::{discovery_method, propagation_method};
    let discovers = |methods: &[xds::io::istio::http::peer_metadata::config::DiscoveryMethod]| {
        methods.iter().any(|method| {
            matches!(
                method.method_specifier,
                Some(discovery_method::MethodSpecifier::IstioHeaders(_))
            )
        })
    };
    let propagates =
        |methods: &[xds::io::istio::http::peer_metadata::config::PropagationMethod]| {
            methods.iter().any(|method| {
                matches!(
                    method.method_specifier,
                    Some(propagation_method::MethodSpecifier::IstioHeaders(_))
                )
            })
        };
    let skip_external = config.upstream_propagation.iter().any(|method| {
        matches!(&method.method_specifier,
            Some(propagation_method::MethodSpecifier::IstioHeaders(headers)) if headers.skip_external_clusters)
    });
    PeerExchange {
        from_downstream: discovers(&config.downstream_discovery),
        from_upstream: discovers(&config.upstream_discovery),
        to_downstream: propagates(&config.downstream_propagation),
        to_upstream: propagates(&config.upstream_propagation),
        skip_external,
    }
}

/// What a route says to a filter.
pub enum PerRoute {
    /// A fault of its own.
    Fault(Box<Fault>),
    /// Who may read the answers from another origin.
    Cors(Arc<Cors>),
    /// Access rules of its own; none switches the filter off.
    Rbac(Box<Rbac>),
    /// A requirement of its own.
    Jwt(jwt::PerRoute),
    /// A limit of its own.
    LocalRateLimit(Box<LocalLimit>),
    /// Descriptors of its own.
    RateLimit(rate_limit::PerRoute),
    /// Other settings for the authorization service.
    ExtAuthz(ext_authz::PerRoute),
    /// Another limit; `None` switches the filter off.
    Buffer(Option<usize>),
    /// Changes of its own, beside the filter's.
    HeaderMutation(Arc<Mutations>),
    /// Rules of its own.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// A policy of its own.
    Csrf(Box<Csrf>),
    /// Users of its own.
    BasicAuth(basic_auth::Users),
    /// A limit of its own.
    BandwidthLimit(Box<BandwidthLimit>),
    /// A script of its own, or none.
    Lua(Box<lua::PerRoute>),
    /// `FilterConfig`: the filter is off, or on where it is off by default; with settings as above.
    Switch {
        /// It does not run.
        disabled: bool,
        /// The settings.
        config: Option<Box<PerRoute>>,
    },
}

impl PerRoute {
    /// The settings, also those inside of a switch.
    pub fn config(&self) -> Option<&Self> {
        match self {
            Self::Switch { config, .. } => config.as_deref(),
            own => Some(own),
        }
    }

    /// Compiles a per-route setting; `None` for filters that have none here.
    ///
    /// # Errors
    /// When the setting is wrong or not known.
    pub fn compile(name: &str, any: &Any) -> Result<Option<Self>, String> {
        let any = &crate::config::listener::unwrap_struct(any)?;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        Ok(Some(match xds::any::message_name(any) {
            "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
                let config = decode::<HttpFault>(any)?;
                Self::Fault(Box::new(
                    Fault::compile(&config).map_err(|error| text(&error))?,
                ))
            }
            "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
                Self::Cors(Arc::new(Cors::compile(&decode::<CorsPolicy>(any)?)?))
            }
            "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
                let config =
                    decode::<xds::envoy::extensions::filters::http::rbac::v3::RbacPerRoute>(any)?;
                let rbac = match config.rbac {
                    Some(rbac) => Rbac::of_http(&rbac).map_err(|error| text(&error))?,
                    None => Rbac::default(),
                };
                Self::Rbac(Box::new(rbac))
            }
            "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig" => {
                Self::Jwt(jwt::PerRoute::compile(&decode(any)?)?)
            }
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
                Self::LocalRateLimit(Box::new(LocalLimit::compile(any)?))
            }
            "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute" => {
                Self::RateLimit(rate_limit::PerRoute::compile(&decode(any)?)?)
            }
            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute" => {
                Self::ExtAuthz(ext_authz::PerRoute::compile(&decode(any)?)?)
            }
            "envoy.extensions.filters.http.buffer.v3.BufferPerRoute" => {
                use filter::buffer::v3::buffer_per_route::Override;
                let config = decode::<filter::buffer::v3::BufferPerRoute>(any)?;
                Self::Buffer(match &config.r#override {
                    Some(Override::Buffer(buffer)) => Some(buffer_limit(buffer)?),
                    Some(Override::Disabled(true)) => None,
                    _ => return Err("override: disabled: true or buffer is needed".into()),
                })
            }
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
                let config = decode::<filter::header_mutation::v3::HeaderMutationPerRoute>(any)?;
                Self::HeaderMutation(Arc::new(mutations(config.mutations.as_ref())?))
            }
            "envoy.extensions.filters.http.header_to_metadata.v3.Config" => Self::HeaderToMetadata(
                Arc::new(HeaderToMetadata::compile(&decode(any)?).map_err(|error| text(&error))?),
            ),
            "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => {
                Self::Csrf(Box::new(Csrf::compile(&decode(any)?)?))
            }
            "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute" => {
                let config = decode::<filter::basic_auth::v3::BasicAuthPerRoute>(any)?;
                Self::BasicAuth(basic_auth::Users::compile(config.users.as_ref())?)
            }
            "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit" => {
                Self::BandwidthLimit(Box::new(BandwidthLimit::compile(&decode(any)?)?))
            }
            "envoy.extensions.filters.http.lua.v3.LuaPerRoute" => {
                Self::Lua(Box::new(lua::PerRoute::compile(&decode(any)?)?))
            }
            "envoy.config.route.v3.FilterConfig" => {
                let config = decode::<FilterConfig>(any)?;
                let inner = match &config.config {
                    Some(inner) if !inner.type_url.is_empty() => Self::compile(name, inner)?,
                    _ => None,
                };
                Self::Switch {
                    disabled: config.disabled,
                    config: inner.map(Box::new),
                }
            }
            // The router resolves the host of a dynamic forward proxy cluster itself.
            "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig" => {
                return Ok(None);
            }
            other => return Err(format!("{other} is not supported (filter {name})")),
        }))
    }
}

fn decode<M: xds::Wire>(any: &Any) -> Result<M, String> {
    M::from_wire(&any.value).map_err(|error| error.to_string())
}
