//! What the resource types of xDS have in common.

use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::core::v3::TypedExtensionConfig;
use crate::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;
use crate::type_url;
use crate::wire::next_field;
use prost_types::Any;

/// A message that is served by name over xDS.
pub trait Resource: crate::Wire + Clone + PartialEq {
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

/// The name inside of a resource, without reading the rest of it: state of the world does not put it outside. It is the
/// first field of each of [`Resource`]'s types. Empty if there is none, or the bytes are no message.
pub fn name_inside(resource: &Any) -> String {
    fn name(mut bytes: &[u8]) -> Option<String> {
        let mut found = None;
        while !bytes.is_empty() {
            if let (1, Some(value)) = next_field(&mut bytes).ok()? {
                found = Some(value);
            }
        }
        Some(std::str::from_utf8(found?).ok()?.to_owned())
    }
    name(&resource.value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_without_reading_the_resource() {
        let cluster = Cluster {
            name: "outbound|80||a.b".into(),
            alt_stat_name: "other".into(),
            ..Cluster::default()
        };
        assert_eq!(name_inside(&crate::any::pack(&cluster)), "outbound|80||a.b");
        let secret = Secret {
            name: "ROOTCA".into(),
            ..Secret::default()
        };
        let mut packed = crate::any::pack(&secret);
        assert_eq!(name_inside(&packed), "ROOTCA");
        packed.value.truncate(3);
        assert_eq!(name_inside(&packed), "");
        assert_eq!(name_inside(&Any::default()), "");
    }
}
