//! The HTTP connection manager.

use crate::context::{Context, ListenerClass};
use crate::http_filters;
use crate::network_filters::network_filter;
use crate::proto::{ads, duration, seconds};
use crate::protocol::Protocol;
use crate::security::HttpPolicies;
use crate::tracing;
use api::istio::{ConnectionSettings, ForwardClientCertDetails, NormalizationType};
use xds::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
    http1_protocol_options,
};
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension, http_connection_manager as hcm,
};

/// Where the routes come from.
pub(crate) enum Routes {
    Rds(String),
    Inline(Box<RouteConfiguration>),
}

/// What differs between connection managers.
pub(crate) struct HcmSpec {
    pub(crate) class: ListenerClass,
    pub(crate) stat_prefix: String,
    pub(crate) routes: Routes,
    pub(crate) protocol: Protocol,
    pub(crate) policies: HttpPolicies,
    /// Clients use it as a proxy, and name whole URLs.
    pub(crate) absolute_urls: bool,
    /// Filters between those of Istio and the router.
    pub(crate) before_router: Vec<HttpFilter>,
}

impl HcmSpec {
    pub(crate) fn new(
        class: ListenerClass,
        stat_prefix: String,
        routes: Routes,
        protocol: Protocol,
    ) -> Self {
        Self {
            class,
            stat_prefix: crate::names::stat(&stat_prefix),
            routes,
            protocol,
            policies: HttpPolicies::default(),
            absolute_urls: false,
            before_router: Vec::new(),
        }
    }
}

/// The network filter.
pub(crate) fn filter(context: &Context<'_>, spec: HcmSpec) -> Filter {
    network_filter(
        "envoy.filters.network.http_connection_manager",
        xds::any::pack(&manager(context, spec)),
    )
}

fn manager(context: &Context<'_>, spec: HcmSpec) -> HttpConnectionManager {
    let class = spec.class;
    let gateway = class == ListenerClass::Gateway;
    let inbound = class == ListenerClass::SidecarInbound;
    let mut http_filters = http_filters::all(context, class, spec.protocol, &spec.policies);
    http_filters.extend(spec.before_router);
    http_filters.push(http_filters::router(context));
    let (tracing, by_request_id) = tracing::block(context, class);
    let request_id = xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(by_request_id),
        ..Default::default()
    };
    let mut out = HttpConnectionManager {
        stat_prefix: spec.stat_prefix,
        http_filters,
        tracing,
        access_log: context.logs.http(class),
        stream_idle_timeout: Some(seconds(0)),
        use_remote_address: Some(gateway),
        proxy_100_continue: true,
        upgrade_configs: vec![hcm::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(xds::any::pack(&request_id)),
        }),
        route_specifier: Some(match spec.routes {
            Routes::Rds(name) => hcm::RouteSpecifier::Rds(Rds {
                config_source: Some(ads()),
                route_config_name: name,
            }),
            Routes::Inline(routes) => hcm::RouteSpecifier::RouteConfig(*routes),
        }),
        ..Default::default()
    };
    if gateway {
        out.http_protocol_options = Some(Http1ProtocolOptions::default());
    }
    if spec.absolute_urls {
        let options = out.http_protocol_options.get_or_insert_default();
        options.allow_absolute_url = Some(true);
    }
    if inbound && spec.protocol.is_http2() {
        out.http2_protocol_options = Some(Http2ProtocolOptions::default());
    }
    if context.proxy.http10 {
        let options = out.http_protocol_options.get_or_insert_default();
        options.accept_http_10 = true;
    }
    path_normalization(context, &mut out);
    headers(context, class, &mut out);
    connection_settings(context, &mut out);
    out
}

fn path_normalization(context: &Context<'_>, out: &mut HttpConnectionManager) {
    use hcm::PathWithEscapedSlashesAction::{KeepUnchanged, UnescapeAndForward};
    let kind = context
        .snapshot
        .mesh
        .path_normalization
        .as_ref()
        .map(|settings| settings.normalization)
        .unwrap_or_default();
    out.path_with_escaped_slashes_action = KeepUnchanged as i32;
    match kind {
        NormalizationType::None => out.normalize_path = Some(false),
        NormalizationType::Default | NormalizationType::Base => out.normalize_path = Some(true),
        NormalizationType::MergeSlashes => {
            out.normalize_path = Some(true);
            out.merge_slashes = true;
        }
        NormalizationType::DecodeAndMergeSlashes => {
            out.normalize_path = Some(true);
            out.merge_slashes = true;
            out.path_with_escaped_slashes_action = UnescapeAndForward as i32;
        }
    }
}

fn headers(context: &Context<'_>, class: ListenerClass, out: &mut HttpConnectionManager) {
    let config = &context.proxy_config;
    let settings = config.proxy_headers.as_ref();
    let on = |flag: Option<bool>| flag == Some(true);
    let server = settings.and_then(|settings| settings.server.as_ref());
    if server.is_some_and(|server| on(server.disabled)) {
        out.server_header_transformation = hcm::ServerHeaderTransformation::PassThrough as i32;
    } else if let Some(value) = server
        .map(|server| server.value.clone())
        .filter(|value| !value.is_empty())
    {
        out.server_name = value;
    } else if class != ListenerClass::SidecarOutbound {
        out.server_name = "istio-envoy".to_owned();
    }
    if settings
        .and_then(|settings| settings.request_id.as_ref())
        .is_some_and(|switch| on(switch.disabled))
    {
        out.generate_request_id = Some(false);
    }
    if on(settings.and_then(|settings| settings.preserve_http1_header_case)) {
        out.http_protocol_options
            .get_or_insert_default()
            .header_key_format = Some(preserve_case());
    }
    out.append_x_forwarded_port = settings
        .and_then(|settings| settings.x_forwarded_port.as_ref())
        .is_some_and(|switch| on(switch.enabled));
    let topology = config.gateway_topology.as_ref();
    match class {
        ListenerClass::SidecarOutbound => {}
        ListenerClass::SidecarInbound => {
            forward_client_cert(
                out,
                settings
                    .map(|settings| settings.forwarded_client_cert)
                    .unwrap_or_default(),
                ForwardClientCertDetails::AppendForward,
                false,
            );
        }
        ListenerClass::Gateway => {
            out.xff_num_trusted_hops = topology.map_or(0, |topology| topology.num_trusted_proxies);
            let wanted = topology
                .map(|topology| topology.forward_client_cert_details)
                .unwrap_or_default();
            forward_client_cert(out, wanted, ForwardClientCertDetails::SanitizeSet, true);
        }
    }
    if class != ListenerClass::SidecarOutbound
        && let Some(details) =
            settings.and_then(|settings| settings.set_current_client_cert_details.as_ref())
        && let Some(current) = out.set_current_client_cert_details.as_mut()
    {
        current.subject = details.subject.or(current.subject);
        current.cert = details.cert.unwrap_or(current.cert);
        current.chain = details.chain.unwrap_or(current.chain);
        current.dns = details.dns.unwrap_or(current.dns);
        current.uri = details.uri.unwrap_or(current.uri);
    }
}

fn forward_client_cert(
    out: &mut HttpConnectionManager,
    wanted: ForwardClientCertDetails,
    default: ForwardClientCertDetails,
    cert: bool,
) {
    use hcm::ForwardClientCertDetails as Envoy;
    let kind = if wanted == ForwardClientCertDetails::Undefined {
        default
    } else {
        wanted
    };
    let envoy = match kind {
        ForwardClientCertDetails::Undefined | ForwardClientCertDetails::Sanitize => Envoy::Sanitize,
        ForwardClientCertDetails::ForwardOnly => Envoy::ForwardOnly,
        ForwardClientCertDetails::AppendForward => Envoy::AppendForward,
        ForwardClientCertDetails::SanitizeSet => Envoy::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => Envoy::AlwaysForwardOnly,
    };
    out.forward_client_cert_details = envoy as i32;
    out.set_current_client_cert_details = Some(hcm::SetCurrentClientCertDetails {
        subject: Some(true),
        cert,
        dns: true,
        uri: true,
        ..Default::default()
    });
}

/// Keeps the case of HTTP/1 headers.
pub(crate) fn preserve_case() -> http1_protocol_options::HeaderKeyFormat {
    use http1_protocol_options::header_key_format::HeaderFormat;
    let config = xds::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig::default();
    http1_protocol_options::HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".to_owned(),
            typed_config: Some(xds::any::pack(&config)),
        })),
    }
}

/// Limits of downstream connections. What they say of headers and paths goes before what the mesh says.
fn connection_settings(context: &Context<'_>, out: &mut HttpConnectionManager) {
    let mut common = HttpProtocolOptions {
        idle_timeout: context.proxy.idle_timeout.map(duration),
        ..Default::default()
    };
    let mut said = false;
    if let Some(settings) = &context.connections {
        let set = |field: &mut Option<_>, value: Option<api::istio::Duration>| {
            if value.is_some() {
                *field = value.map(duration);
            }
        };
        set(&mut common.idle_timeout, settings.http_idle_timeout);
        set(
            &mut common.max_connection_duration,
            settings.http_max_connection_duration,
        );
        set(
            &mut common.max_stream_duration,
            settings.http_max_stream_duration,
        );
        set(
            &mut out.stream_idle_timeout,
            settings.http_stream_idle_timeout,
        );
        set(&mut out.request_timeout, settings.http_request_timeout);
        set(
            &mut out.request_headers_timeout,
            settings.http_request_headers_timeout,
        );
        set(&mut out.drain_timeout, settings.http_drain_timeout);
        let http2 = [
            settings.http_max_concurrent_streams,
            settings.http2_initial_stream_window_size,
            settings.http2_initial_connection_window_size,
        ];
        if http2.iter().any(Option::is_some) {
            let own = out.http2_protocol_options.get_or_insert_default();
            let [streams, stream, connection] =
                http2.map(|value| value.and_then(|value| u32::try_from(value).ok()));
            own.max_concurrent_streams = streams;
            own.initial_stream_window_size = stream;
            own.initial_connection_window_size = connection;
        }
        let action = settings.http_headers_with_underscores_action;
        said = action != api::istio::HeadersWithUnderscoresAction::default();
        common.headers_with_underscores_action = underscores(action) as i32;
        if let Some(merge) = settings.http_merge_slashes {
            out.merge_slashes = merge;
        }
        if let Some(action) = escaped_slashes(settings) {
            out.path_with_escaped_slashes_action = action as i32;
        }
    }
    if said || common != HttpProtocolOptions::default() {
        out.common_http_protocol_options = Some(common);
    }
}

fn underscores(action: api::istio::HeadersWithUnderscoresAction) -> HeadersWithUnderscoresAction {
    use api::istio::HeadersWithUnderscoresAction as Said;
    match action {
        Said::HeadersWithUnderscoresUnspecified | Said::HeadersWithUnderscoresAllow => {
            HeadersWithUnderscoresAction::Allow
        }
        Said::HeadersWithUnderscoresRejectRequest => HeadersWithUnderscoresAction::RejectRequest,
        Said::HeadersWithUnderscoresDropHeader => HeadersWithUnderscoresAction::DropHeader,
    }
}

fn escaped_slashes(settings: &ConnectionSettings) -> Option<hcm::PathWithEscapedSlashesAction> {
    use api::istio::PathWithEscapedSlashesAction as Said;
    use hcm::PathWithEscapedSlashesAction as Envoy;
    Some(match settings.http_path_with_escaped_slashes_action {
        Said::PathWithEscapedSlashesUnspecified => return None,
        Said::KeepUnchanged => Envoy::KeepUnchanged,
        Said::RejectRequest => Envoy::RejectRequest,
        Said::UnescapeAndRedirect => Envoy::UnescapeAndRedirect,
        Said::UnescapeAndForward => Envoy::UnescapeAndForward,
    })
}
