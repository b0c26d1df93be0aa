//! Route configurations.

pub(crate) mod actions;
pub(crate) mod domains;
pub(crate) mod fault_cors;
pub(crate) mod gateway;
pub(crate) mod hash;
pub(crate) mod http_route;
pub(crate) mod matches;
pub(crate) mod retry;
pub(crate) mod sidecar;

use xds::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

/// A route configuration that comes by RDS.
pub(crate) fn configuration(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(1_048_576),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}
