//! Reading and writing whole messages.
//!
//! prost's functions are generic over the buffer, so a crate that calls `Listener::decode` itself compiles the reading of a
//! listener, with all messages below it, once more: that would be a third of the proxy. The messages that are read and
//! written as a whole are listed here, and compiled here only.

use prost::{DecodeError, Message, Name};

/// A message that is read and written as a whole. A message that is missing in the list below only has to be added to it.
pub trait Wire: Name + Default {
    /// The message in these bytes.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// The bytes of this message.
    fn to_wire(&self) -> Vec<u8>;
}

macro_rules! whole_messages {
    ($($message:path),* $(,)?) => {$(
        impl Wire for $message {
            #[inline(never)]
            fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
                Self::decode(bytes)
            }

            #[inline(never)]
            fn to_wire(&self) -> Vec<u8> {
                self.encode_to_vec()
            }
        }
    )*};
}

whole_messages! {
    crate::envoy::config::bootstrap::v3::Bootstrap,
    crate::envoy::config::bootstrap::v3::LayeredRuntime,
    crate::envoy::config::cluster::v3::Cluster,
    crate::envoy::config::cluster::v3::OutlierDetection,
    crate::envoy::config::core::v3::HeaderValueOption,
    crate::envoy::config::core::v3::Node,
    crate::envoy::config::core::v3::TypedExtensionConfig,
    crate::envoy::config::endpoint::v3::ClusterLoadAssignment,
    crate::envoy::config::listener::v3::Filter,
    crate::envoy::config::listener::v3::FilterChain,
    crate::envoy::config::listener::v3::FilterChainMatch,
    crate::envoy::config::listener::v3::Listener,
    crate::envoy::config::listener::v3::ListenerFilter,
    crate::envoy::config::listener::v3::ListenerFilterChainMatchPredicate,
    crate::envoy::config::metrics::v3::StatsConfig,
    crate::envoy::config::route::v3::FilterConfig,
    crate::envoy::config::route::v3::HeaderMatcher,
    crate::envoy::config::route::v3::RateLimit,
    crate::envoy::config::route::v3::RetryPolicy,
    crate::envoy::config::route::v3::Route,
    crate::envoy::config::route::v3::RouteConfiguration,
    crate::envoy::config::route::v3::ScopedRouteConfiguration,
    crate::envoy::config::route::v3::Tracing,
    crate::envoy::config::route::v3::VirtualHost,
    crate::envoy::config::trace::v3::DatadogConfig,
    crate::envoy::config::trace::v3::OpenTelemetryConfig,
    crate::envoy::config::trace::v3::SkyWalkingConfig,
    crate::envoy::config::trace::v3::Tracing,
    crate::envoy::config::trace::v3::ZipkinConfig,
    crate::envoy::data::accesslog::v3::HttpAccessLogEntry,
    crate::envoy::data::accesslog::v3::TcpAccessLogEntry,
    crate::envoy::extensions::access_loggers::file::v3::FileAccessLog,
    crate::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter,
    crate::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig,
    crate::envoy::extensions::access_loggers::grpc::v3::HttpGrpcAccessLogConfig,
    crate::envoy::extensions::access_loggers::grpc::v3::TcpGrpcAccessLogConfig,
    crate::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig,
    crate::envoy::extensions::access_loggers::stream::v3::StderrAccessLog,
    crate::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog,
    crate::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig,
    crate::envoy::extensions::compression::brotli::compressor::v3::Brotli,
    crate::envoy::extensions::compression::gzip::compressor::v3::Gzip,
    crate::envoy::extensions::compression::gzip::decompressor::v3::Gzip,
    crate::envoy::extensions::compression::zstd::compressor::v3::Zstd,
    crate::envoy::extensions::filters::http::bandwidth_limit::v3::BandwidthLimit,
    crate::envoy::extensions::filters::http::basic_auth::v3::BasicAuth,
    crate::envoy::extensions::filters::http::basic_auth::v3::BasicAuthPerRoute,
    crate::envoy::extensions::filters::http::buffer::v3::Buffer,
    crate::envoy::extensions::filters::http::buffer::v3::BufferPerRoute,
    crate::envoy::extensions::filters::http::compressor::v3::Compressor,
    crate::envoy::extensions::filters::http::cors::v3::Cors,
    crate::envoy::extensions::filters::http::cors::v3::CorsPolicy,
    crate::envoy::extensions::filters::http::csrf::v3::CsrfPolicy,
    crate::envoy::extensions::filters::http::decompressor::v3::Decompressor,
    crate::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig,
    crate::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz,
    crate::envoy::extensions::filters::http::ext_authz::v3::ExtAuthzPerRoute,
    crate::envoy::extensions::filters::http::fault::v3::HttpFault,
    crate::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig,
    crate::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb,
    crate::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation,
    crate::envoy::extensions::filters::http::header_mutation::v3::HeaderMutationPerRoute,
    crate::envoy::extensions::filters::http::header_mutation::v3::Mutations,
    crate::envoy::extensions::filters::http::header_to_metadata::v3::Config,
    crate::envoy::extensions::filters::http::health_check::v3::HealthCheck,
    crate::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication,
    crate::envoy::extensions::filters::http::jwt_authn::v3::PerRouteConfig,
    crate::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit,
    crate::envoy::extensions::filters::http::lua::v3::Lua,
    crate::envoy::extensions::filters::http::lua::v3::LuaPerRoute,
    crate::envoy::extensions::filters::http::ratelimit::v3::RateLimit,
    crate::envoy::extensions::filters::http::ratelimit::v3::RateLimitPerRoute,
    crate::envoy::extensions::filters::http::rbac::v3::Rbac,
    crate::envoy::extensions::filters::http::rbac::v3::RbacPerRoute,
    crate::envoy::extensions::filters::http::router::v3::Router,
    crate::envoy::extensions::filters::http::set_metadata::v3::Config,
    crate::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector,
    crate::envoy::extensions::filters::listener::original_dst::v3::OriginalDst,
    crate::envoy::extensions::filters::listener::original_src::v3::OriginalSrc,
    crate::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol,
    crate::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector,
    crate::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit,
    crate::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz,
    crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
    crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter,
    crate::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing,
    crate::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit,
    crate::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy,
    crate::envoy::extensions::filters::network::rbac::v3::Rbac,
    crate::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::FilterConfig,
    crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy,
    crate::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery,
    crate::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
    crate::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig,
    crate::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest,
    crate::envoy::extensions::load_balancing_policies::maglev::v3::Maglev,
    crate::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash,
    crate::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin,
    crate::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig,
    crate::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    crate::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig,
    crate::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig,
    crate::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig,
    crate::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
    crate::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
    crate::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::DynatraceResourceDetectorConfig,
    crate::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::EnvironmentResourceDetectorConfig,
    crate::envoy::extensions::tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig,
    crate::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
    crate::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer,
    crate::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext,
    crate::envoy::extensions::transport_sockets::tls::v3::Secret,
    crate::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext,
    crate::envoy::extensions::upstreams::http::v3::HttpProtocolOptions,
    crate::envoy::r#type::matcher::v3::MetadataMatcher,
    crate::envoy::service::accesslog::v3::stream_access_logs_message::Identifier,
    crate::envoy::service::auth::v3::CheckRequest,
    crate::envoy::service::auth::v3::CheckResponse,
    crate::envoy::service::discovery::v3::DiscoveryResponse,
    crate::envoy::service::ratelimit::v3::RateLimitRequest,
    crate::envoy::service::ratelimit::v3::RateLimitResponse,
    crate::io::istio::http::peer_metadata::Config,
    crate::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig,
    crate::stats::PluginConfig,
    crate::udpa::r#type::v1::TypedStruct,
}
