//! What the resource types of xDS have in common.

use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::core::v3::TypedExtensionConfig;
use crate::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;
use crate::type_url;

/// A message that is served by name over xDS.
pub trait Resource: prost::Message + prost::Name + Default + Clone + PartialEq {
    /// The type URL that it is subscribed with.
    const TYPE_URL: &'static str;

    /// The name that it is subscribed with.
    fn resource_name(&self) -> &str;
}

macro_rules! resources {
    ($($message:ty: $url:ident, $name:ident;)*) => {$(
        impl Resource for $message {
            const TYPE_URL: &'static str = type_url::$url;

            fn resource_name(&self) -> &str {
                &self.$name
            }
        }
    )*};
}

resources! {
    Cluster: CLUSTER, name;
    ClusterLoadAssignment: ENDPOINT, cluster_name;
    Listener: LISTENER, name;
    RouteConfiguration: ROUTE, name;
    ScopedRouteConfiguration: SCOPED_ROUTE, name;
    Secret: SECRET, name;
    TypedExtensionConfig: EXTENSION_CONFIG, name;
}
