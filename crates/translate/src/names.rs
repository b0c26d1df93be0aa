//! Names of clusters, listeners and routes, as istiod makes them.

use crate::registry::{Service, ServicePort};

/// The cluster that forwards to the address the client asked for.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// The cluster without endpoints.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// The cluster that forwards inbound traffic to the address the client asked for.
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The routes of the listener that applications use as their HTTP proxy.
pub(crate) const HTTP_PROXY: &str = "http_proxy";
/// The name of the filter chain for everything that is not HTTP.
pub(crate) const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";

/// `outbound|<port>|<subset>|<host>`.
pub(crate) fn outbound(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.<port>_.<subset>_.<host>`: the server name of Istio's mutual TLS, and the clusters of east-west gateways.
pub(crate) fn outbound_sni(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|<target port>||`.
pub(crate) fn inbound(target_port: u32) -> String {
    format!("inbound|{target_port}||")
}

/// A statistics name; the `;` ends it for the tag expressions of the bootstrap.
pub(crate) fn stat(name: &str) -> String {
    format!("{name};")
}

/// A pattern of the mesh configuration (`outboundClusterStatName`, `inboundClusterStatName`) filled in. `host` is the service's full name
/// as the rule writes it.
pub(crate) fn filled(
    pattern: &str,
    service: &Service,
    host: &str,
    subset: &str,
    port: &ServicePort,
    target: u32,
) -> String {
    let (short, plain) = if service.kubernetes {
        let short = format!("{}.{}", service.name, service.namespace);
        (short, service.name.clone())
    } else {
        (host.to_owned(), host.to_owned())
    };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &plain)
        .replace("%SERVICE_FQDN%", host)
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target.to_string())
        .replace("%SERVICE_PORT%", &port.number.to_string())
        .replace("%SERVICE_PORT_NAME%", &port.name)
}

/// Splits `outbound|<port>|<subset>|<host>` (or the `inbound` form).
pub(crate) fn split(cluster: &str) -> Option<(u32, &str, &str)> {
    let mut parts = cluster.splitn(4, '|');
    let direction = parts.next()?;
    if direction != "outbound" && direction != "inbound" {
        return None;
    }
    let port = parts.next()?.parse().ok()?;
    Some((port, parts.next()?, parts.next()?))
}

/// `<bind>_<port>`.
pub(crate) fn listener(bind: &str, port: u32) -> String {
    format!("{bind}_{port}")
}

/// `/apis/<group>/<version>/namespaces/<namespace>/<kind>/<name>`: what istioctl shows as the origin of a resource.
pub(crate) fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_can_be_split() {
        assert_eq!(split("outbound|8081||a.b"), Some((8081, "", "a.b")));
        assert_eq!(split("outbound|8081|v1|a.b"), Some((8081, "v1", "a.b")));
        assert_eq!(split("inbound|80||"), Some((80, "", "")));
        assert_eq!(split("PassthroughCluster"), None);
    }
}
