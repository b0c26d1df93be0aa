//! HTTP filters and what routes say to them. A filter that is not known refuses the listener: traffic must never
//! pass a rule that was configured and is not applied.

use std::sync::Arc;

use dataplane::fault::Fault;
use dataplane::rbac::Rbac;
use xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::io::istio::http::peer_metadata::Config as PeerMetadata;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig as AlpnConfig;
use xds::prost_types::Any;

use super::cors::Cors;
use super::istio::StatsConfig;

/// A compiled HTTP filter.
pub enum HttpFilter {
    /// `envoy.filters.http.fault`, under its name in the configuration.
    Fault(String, Box<Fault>),
    /// `envoy.filters.http.cors`.
    Cors(String),
    /// `envoy.filters.http.rbac`, under its name in the configuration.
    Rbac(String, Box<Rbac>),
    /// `istio.metadata_exchange`.
    PeerMetadata(PeerExchange),
    /// `istio.alpn`.
    Alpn(Alpn),
    /// `istio.stats`.
    IstioStats(StatsConfig),
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
    pub fn compile(name: &str, any: &Any, direction: i32) -> Result<Option<Self>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        Ok(Some(match xds::any::message_name(any) {
            "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
                let config = decode::<HttpFault>(any)?;
                Self::Fault(
                    name.to_owned(),
                    Box::new(Fault::compile(&config).map_err(|error| text(&error))?),
                )
            }
            "envoy.extensions.filters.http.cors.v3.Cors" => Self::Cors(name.to_owned()),
            "envoy.extensions.filters.http.rbac.v3.RBAC" => {
                let config = decode::<xds::envoy::extensions::filters::http::rbac::v3::Rbac>(any)?;
                Self::Rbac(
                    name.to_owned(),
                    Box::new(Rbac::of_http(&config).map_err(|error| text(&error))?),
                )
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
            "stats.PluginConfig" => Self::IstioStats(StatsConfig::compile(any, direction)?),
            // Counts messages of gRPC streams for filters that are not here.
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => return Ok(None),
            // The router resolves the host of a dynamic forward proxy cluster itself.
            "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig" => {
                return Ok(None);
            }
            // Compresses the answers of the metrics listener; without it they are larger, not other.
            "envoy.extensions.filters.http.compressor.v3.Compressor" if direction == 0 => {
                return Ok(None);
            }
            other => return Err(format!("{other} is not supported")),
        }))
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
    Cors(Box<Cors>),
    /// Access rules of its own; none switches the filter off.
    Rbac(Box<Rbac>),
}

impl PerRoute {
    /// Compiles a per-route setting; `None` for filters that have none here.
    ///
    /// # Errors
    /// When the setting is wrong or not known.
    pub fn compile(name: &str, any: &Any) -> Result<Option<Self>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        Ok(Some(match xds::any::message_name(any) {
            "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
                let config = decode::<HttpFault>(any)?;
                Self::Fault(Box::new(
                    Fault::compile(&config).map_err(|error| text(&error))?,
                ))
            }
            "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
                Self::Cors(Box::new(Cors::compile(&decode::<CorsPolicy>(any)?)?))
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
            other => return Err(format!("{other} is not supported (filter {name})")),
        }))
    }
}

fn decode<M: xds::prost_reflect::prost::Name + Default>(any: &Any) -> Result<M, String> {
    M::decode(any.value.as_slice()).map_err(|error| error.to_string())
}
