//! Gateway.

use crate::Object;
use crate::message::Message;
use crate::names::{self, HostOf, Protocol};
use crate::problem::{Found, Validation, join, one};
use crate::tls;
use api::field::quote;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let mut v = Validation::default();
    // Gateways made from the Gateway API carry this mark.
    let converted = object.annotation("internal.istio.io/gateway-semantics") == Some("gateway");
    if !names::is_dns_label(object.name) && !converted {
        v.fail(format!("invalid gateway name: {}", quote(object.name)));
    }
    let spec = object.spec;
    if spec.list("servers").is_empty() {
        v.fail("gateway must have at least one server");
    }
    for server in spec.messages("servers") {
        v.add(server_problems(server, converted));
    }
    let mut seen = Vec::new();
    for server in spec.messages("servers") {
        let Some(port) = server.get("port") else {
            continue;
        };
        let name = port.text("name");
        if seen.contains(&name) {
            v.fail(format!(
                "port names in servers must be unique: duplicate name {name}"
            ));
        }
        seen.push(name);
        if !Protocol::of(port.text("protocol")).is_http() && server.sub("tls").flag("httpsRedirect")
        {
            v.warn("tls.httpsRedirect should only be used with http servers");
        }
    }
    v
}

fn server_problems(server: Message<'_>, converted: bool) -> Validation {
    let mut v = Validation::default();
    if server.list("hosts").is_empty() {
        v.fail("server config must contain at least one host");
    }
    for host in server.texts("hosts") {
        v.errors(names::namespaced_host(host, HostOf::Gateway { converted }));
    }
    let bind = server.text("bind");
    let port = server.get("port");
    let port_errors = port_errors(port, bind);
    let port_fine = port_errors.is_none();
    v.errors(port_errors);
    v.errors(bind_errors(port, bind));
    let tls = server.get("tls");
    v.add(tls::server(tls));
    if port_fine {
        let protocol = Protocol::of(server.sub("port").text("protocol"));
        match tls {
            None if protocol.is_tls() => {
                v.fail("server must have TLS settings for HTTPS/TLS protocols");
            }
            Some(tls) if !protocol.is_tls() => {
                if !protocol.is_http() {
                    v.fail("server cannot have TLS settings for non HTTPS/TLS ports");
                } else if !passes_through(tls)
                    || ["caCertificates", "privateKey", "serverCertificate"]
                        .into_iter()
                        .any(|field| !tls.text(field).is_empty())
                {
                    v.fail("server cannot have TLS settings for plain text HTTP ports");
                }
            }
            _ => {}
        }
    }
    v
}

fn passes_through(tls: Message<'_>) -> bool {
    matches!(
        tls.name("mode", "PASSTHROUGH"),
        "PASSTHROUGH" | "AUTO_PASSTHROUGH"
    )
}

fn port_errors(port: Option<Message<'_>>, bind: &str) -> Found {
    let Some(port) = port else {
        return one("port is required");
    };
    let mut errors = None;
    let protocol = port.text("protocol");
    if Protocol::of(protocol) == Protocol::Unknown {
        join(
            &mut errors,
            one(format!(
                "invalid protocol {}, supported protocols are HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP",
                quote(protocol)
            )),
        );
    }
    let number = port.int("number");
    if number > 0 || !bind.starts_with("unix://") {
        join(&mut errors, names::port(number));
    }
    if port.int("targetPort") > 0 {
        join(&mut errors, one("targetPort has no impact on Gateways"));
    }
    if port.text("name").is_empty() {
        join(
            &mut errors,
            one(format!("port name must be set: {}", shown(port))),
        );
    }
    errors
}

fn bind_errors(port: Option<Message<'_>>, bind: &str) -> Found {
    let mut errors = None;
    if let Some(path) = bind.strip_prefix("unix://") {
        join(&mut errors, names::unix_address(path));
        if let Some(port) = port.filter(|port| port.int("number") != 0) {
            join(
                &mut errors,
                one(format!(
                    "port number must be 0 for unix domain socket: {}",
                    shown(port)
                )),
            );
        }
    } else if !bind.is_empty() {
        join(&mut errors, names::ip_address(bind));
    }
    errors
}

/// A port as protobuf prints it.
fn shown(port: Message<'_>) -> String {
    let mut parts = Vec::new();
    if port.int("number") != 0 {
        parts.push(format!("number:{}", port.int("number")));
    }
    for field in ["protocol", "name"] {
        if !port.text(field).is_empty() {
            parts.push(format!("{field}:{}", quote(port.text(field))));
        }
    }
    if port.int("targetPort") != 0 {
        parts.push(format!("target_port:{}", port.int("targetPort")));
    }
    parts.join("  ")
}
