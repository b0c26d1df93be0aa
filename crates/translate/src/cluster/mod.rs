//! Clusters.

pub(crate) mod connection_pool;
pub(crate) mod inbound;
pub(crate) mod load_balancer;
pub(crate) mod outbound;
pub(crate) mod outlier;
pub(crate) mod passthrough;
pub(crate) mod tls;

use crate::proto::{fields_of, list, object, text};
use crate::registry::Service;
use prost_types::{Struct, Value};
use xds::envoy::config::cluster::v3::{Cluster, Filter, circuit_breakers};
use xds::envoy::config::core::v3::Metadata;

/// Fields of `filter_metadata.istio`.
pub(crate) fn metadata(services: &[&Service], extra: Vec<(&str, Value)>) -> Metadata {
    let services = services
        .iter()
        .map(|service| {
            object([
                ("host", text(service.host.clone())),
                ("name", text(service.name.clone())),
                ("namespace", text(service.namespace.clone())),
            ])
        })
        .collect();
    let mut fields: Struct = fields_of([("services", list(services))]);
    fields.fields.extend(
        extra
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value)),
    );
    crate::proto::metadata("istio", fields)
}

/// Circuit breakers that never open.
pub(crate) fn unlimited() -> circuit_breakers::Thresholds {
    circuit_breakers::Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        ..Default::default()
    }
}

/// The filter that exchanges metadata with the other proxy over TCP.
pub(crate) fn metadata_exchange() -> Filter {
    Filter {
        name: "istio.metadata_exchange".to_owned(),
        typed_config: Some(crate::network_filters::metadata_exchange_config()),
        ..Default::default()
    }
}

/// Sets the options of HTTP towards the upstream.
pub(crate) fn set_http_options(
    cluster: &mut Cluster,
    options: &xds::envoy::extensions::upstreams::http::v3::HttpProtocolOptions,
) {
    cluster.typed_extension_protocol_options.insert(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
        xds::any::pack(options),
    );
}
