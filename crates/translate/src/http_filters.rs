//! The HTTP filters of a connection manager, in Istio's order.

use crate::context::{Context, ListenerClass};
use crate::proto::{boolean, fields_of, list, object, typed_struct};
use crate::protocol::Protocol;
use crate::security::HttpPolicies;
use api::istio::MetadataExchangeMode;
use xds::envoy::extensions::filters::http as filters;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use xds::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
use xds::prost_types::Any;

pub(crate) fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// All filters.
pub(crate) fn all(
    context: &Context<'_>,
    class: ListenerClass,
    protocol: Protocol,
    policies: &HttpPolicies,
) -> Vec<HttpFilter> {
    let plain = context.proxy.plain_envoy;
    let mut out = Vec::with_capacity(12);
    if !plain {
        out.push(metadata_exchange(context, class));
    }
    out.extend(policies.custom.iter().cloned());
    out.extend(policies.jwt.iter().cloned());
    out.extend(policies.rules.iter().cloned());
    if protocol == Protocol::GrpcWeb {
        out.push(http_filter(
            "envoy.filters.http.grpc_web",
            xds::any::pack(&filters::grpc_web::v3::GrpcWeb {}),
        ));
    }
    out.push(grpc_stats());
    if class != ListenerClass::SidecarInbound && !plain {
        out.push(alpn_filter());
    }
    out.push(http_filter(
        "envoy.filters.http.fault",
        xds::any::pack(&filters::fault::v3::HttpFault::default()),
    ));
    out.push(http_filter(
        "envoy.filters.http.cors",
        xds::any::pack(&filters::cors::v3::Cors {}),
    ));
    if !plain {
        let stats = context.telemetry.stats(class).into_iter();
        out.extend(stats.map(|config| http_filter("istio.stats", xds::any::pack(&config))));
    }
    out
}

/// The last filter of all.
pub(crate) fn router(context: &Context<'_>) -> HttpFilter {
    let headers = context.proxy_config.proxy_headers.as_ref();
    let suppress = headers
        .and_then(|headers| headers.envoy_debug_headers.as_ref())
        .and_then(|debug| debug.disabled)
        == Some(true);
    let config = filters::router::v3::Router {
        suppress_envoy_headers: suppress,
        ..Default::default()
    };
    http_filter("envoy.filters.http.router", xds::any::pack(&config))
}

fn metadata_exchange(context: &Context<'_>, class: ListenerClass) -> HttpFilter {
    let headers = context.proxy_config.proxy_headers.as_ref();
    let in_mesh = headers
        .and_then(|headers| headers.metadata_exchange_headers.as_ref())
        .is_some_and(|settings| settings.mode == MetadataExchangeMode::InMesh);
    let empty = || object([]);
    let discovery = list(vec![
        object([("istio_headers", empty())]),
        object([("workload_discovery", empty())]),
    ]);
    let value = if class == ListenerClass::SidecarInbound {
        let propagation = list(vec![object([("istio_headers", empty())])]);
        fields_of([
            ("downstream_discovery", discovery),
            ("downstream_propagation", propagation),
        ])
    } else {
        let to = if in_mesh {
            object([("skip_external_clusters", boolean(true))])
        } else {
            empty()
        };
        fields_of([
            ("upstream_discovery", discovery),
            (
                "upstream_propagation",
                list(vec![object([("istio_headers", to)])]),
            ),
        ])
    };
    http_filter(
        "istio.metadata_exchange",
        typed_struct(
            "type.googleapis.com/io.istio.http.peer_metadata.Config",
            value,
        ),
    )
}

fn grpc_stats() -> HttpFilter {
    use filters::grpc_stats::v3::{FilterConfig, filter_config::PerMethodStatSpecifier};
    let config = FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..Default::default()
    };
    http_filter("envoy.filters.http.grpc_stats", xds::any::pack(&config))
}

fn alpn_filter() -> HttpFilter {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let entry = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    let config = alpn::FilterConfig {
        alpn_override: vec![
            entry(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    };
    http_filter("istio.alpn", xds::any::pack(&config))
}
