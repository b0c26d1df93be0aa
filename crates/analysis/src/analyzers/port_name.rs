//! `service.PortNameAnalyzer`: ports whose name tells no protocol (IST0118, IST0150).

use super::multi_service::target_port;
use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::is_control_plane;
use crate::kind::Kind;
use crate::messages;

/// Ports that are TCP without being called so: SMTP, DNS, MySQL, MongoDB.
const TCP_PORTS: [i64; 4] = [25, 53, 3306, 27017];

/// Services that Istio makes for gateways.
const MANAGED: [&str; 3] = [
    "istio.io-gateway-controller",
    "istio.io-mesh-controller",
    "istio.io-eastwest-controller",
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for service in context.each(Kind::Service) {
        let managed = service.label("gateway.istio.io/managed");
        if is_control_plane(service) || MANAGED.contains(&managed) {
            continue;
        }
        let external = service.spec.text("type") == "ExternalName";
        for (index, port) in service.spec.items("ports").iter().enumerate() {
            let name = port.text("name");
            let number = port.number("port");
            let application = port.field("appProtocol").as_str();
            let told = tells_protocol(number, name, port.text("protocol"), application);
            if told && !(name == "tcp" && external) {
                continue;
            }
            let message = if external {
                messages::external_name_service_type_invalid_port_name(service)
            } else {
                messages::port_name_is_not_under_naming_convention(
                    service,
                    name,
                    number,
                    &target_port(port),
                )
            };
            context.report(message.at(&format!("spec.ports[{index}].port")));
        }
    }
}

/// Whether the protocol of a port is known: UDP, a known `appProtocol`, or a name that begins with one.
fn tells_protocol(number: i64, name: &str, protocol: &str, application: Option<&str>) -> bool {
    if protocol == "UDP" {
        return true;
    }
    if let Some("kubernetes.io/h2c" | "kubernetes.io/ws" | "kubernetes.io/wss") = application {
        return true;
    }
    let name = application.unwrap_or(name).to_lowercase();
    let prefix = name.split('-').next().unwrap_or_default();
    name.starts_with("grpc-web")
        || TCP_PORTS.contains(&number)
        || matches!(
            prefix,
            "tcp"
                | "udp"
                | "grpc"
                | "http"
                | "http_proxy"
                | "http2"
                | "https"
                | "tls"
                | "mongo"
                | "redis"
                | "mysql"
        )
}

#[cfg(test)]
mod tests {
    use super::tells_protocol;

    #[test]
    fn the_word_before_the_first_dash_is_the_protocol() {
        for (name, expected) in [
            ("http", true),
            ("HTTP-web", true),
            ("grpc-web-x", true),
            ("web", false),
            ("httpx", false),
            ("", false),
            ("http_proxy", true),
            ("hbone", false),
        ] {
            assert_eq!(tells_protocol(80, name, "TCP", None), expected, "{name}");
        }
        assert!(tells_protocol(3306, "db", "TCP", None));
        assert!(tells_protocol(80, "x", "UDP", None));
        assert!(!tells_protocol(80, "http", "TCP", Some("strange")));
        assert!(tells_protocol(80, "x", "TCP", Some("kubernetes.io/h2c")));
    }
}
