//! Sidecar.

use crate::Object;
use crate::message::Message;
use crate::names::{self, HostOf, Protocol};
use crate::problem::{Found, Validation, join, one};
use crate::traffic_policy::connection_pool;
use crate::virtual_service::destination;
use crate::{selector, tls};
use api::field::quote;
use api::go::strconv;
use std::collections::BTreeMap;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = Validation::default();
    let only = |error: Found| Validation {
        error,
        warning: None,
    };
    if let error @ Some(_) = selector::by_labels(spec.get("workloadSelector"), "sidecar", &mut v) {
        return only(error);
    }
    let empty = spec.list("egress").is_empty()
        && spec.list("ingress").is_empty()
        && !spec.has("outboundTrafficPolicy")
        && !spec.has("inboundConnectionPool");
    if empty {
        return only(one("sidecar: empty configuration provided"));
    }
    let mut ports = Vec::new();
    for listener in spec.messages("ingress") {
        ingress(listener, &mut ports, &mut v);
    }
    v.errors(connection_pool(spec.get("inboundConnectionPool")));
    egress(object, &mut v);
    v.errors(outbound(spec.get("outboundTrafficPolicy")));
    v
}

fn ingress(listener: Message<'_>, ports: &mut Vec<i64>, v: &mut Validation) {
    let Some(port) = listener.get("port") else {
        v.fail("sidecar: port is required for ingress listeners");
        return;
    };
    no_target_port(port, v);
    v.errors(ip_listener(port, listener.text("bind")));
    unique_port(port.int("number"), ports, v);
    v.errors(default_endpoint(listener.text("defaultEndpoint")));
    let protocol = Protocol::of(port.text("protocol"));
    if let Some(tls) = listener.get("tls") {
        for (there, text) in [
            (
                !tls.list("subjectAltNames").is_empty(),
                "subjectAltNames is not supported in ingress tls",
            ),
            (tls.flag("httpsRedirect"), "httpsRedirect is not supported"),
            (
                !tls.text("credentialName").is_empty(),
                "credentialName is not currently supported",
            ),
            (
                !tls.list("credentialNames").is_empty(),
                "credentialNames is not currently supported",
            ),
            (
                !tls.list("tlsCertificates").is_empty(),
                "tls_certificates is not currently supported",
            ),
        ] {
            if there {
                v.fail(format!("sidecar: {text}"));
            }
        }
        let mode = tls.text("mode");
        if matches!(mode, "ISTIO_MUTUAL" | "AUTO_PASSTHROUGH") {
            v.fail(format!(
                "configuration is invalid: cannot set mode to {mode} in sidecar ingress tls"
            ));
        }
        if !protocol.is_tls() {
            v.fail("server cannot have TLS settings for non HTTPS/TLS ports");
        }
        v.add(tls::server(Some(tls)));
    }
    let pool = listener.get("connectionPool");
    v.errors(connection_pool(pool));
    if pool.is_some_and(|pool| pool.has("http")) && !protocol.is_http() {
        v.warn(format!(
            "sidecar: HTTP connection pool settings are configured for port {} ({}) but its protocol is not HTTP ({}); only TCP settings will apply",
            port.int("number"),
            quote(port.text("name")),
            port.text("protocol")
        ));
    }
}

fn no_target_port(port: Message<'_>, v: &mut Validation) {
    if port.int("targetPort") > 0 {
        v.fail("targetPort has no impact on Sidecars");
    }
}

fn unique_port(number: i64, ports: &mut Vec<i64>, v: &mut Validation) {
    if ports.contains(&number) {
        v.fail("sidecar: ports on IP bound listeners must be unique");
    }
    ports.push(number);
}

fn optional_name(port: Message<'_>) -> Found {
    match port.text("name") {
        "" => None,
        name => names::port_name(name),
    }
}

/// A listener at an address.
fn ip_listener(port: Message<'_>, bind: &str) -> Found {
    let mut errors = optional_name(port);
    join(&mut errors, names::protocol(port.text("protocol")));
    join(&mut errors, names::port(port.int("number")));
    if !bind.is_empty() {
        join(&mut errors, names::ip_address(bind));
    }
    errors
}

/// Where the application listens.
fn default_endpoint(endpoint: &str) -> Found {
    if endpoint.is_empty() {
        return None;
    }
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return names::unix_address(path);
    }
    let mut errors = None;
    let (host, port) = match strconv::split_host_port(endpoint) {
        Ok(parts) => parts,
        Err(why) => {
            join(&mut errors, one(why));
            ("", "")
        }
    };
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") {
        join(
            &mut errors,
            one(
                "sidecar: defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset",
            ),
        );
    }
    join(
        &mut errors,
        match strconv::atoi(port) {
            Ok(number) => names::port(number),
            Err(why) => one(format!(
                "sidecar: defaultEndpoint port ({port}) is not a number: {why}"
            )),
        },
    );
    errors
}

fn egress(object: &Object<'_>, v: &mut Validation) {
    let listeners: Vec<Message<'_>> = object.spec.messages("egress").collect();
    let mut ports = Vec::new();
    let mut sockets = Vec::new();
    let mut catch_all = false;
    for (i, listener) in listeners.iter().enumerate() {
        match listener.get("port") {
            None if catch_all => {
                v.fail("sidecar: egress can have only one listener with empty port");
                continue;
            }
            None if i == listeners.len() - 1 => catch_all = true,
            None => v.fail(
                "sidecar: the egress listener with empty port should be the last listener in the list",
            ),
            Some(port) => {
                no_target_port(port, v);
                let bind = listener.text("bind");
                let mode = listener.name("captureMode", "DEFAULT");
                v.errors(egress_port(port, bind, mode));
                let number = port.int("number");
                if number == 0 {
                    if sockets.contains(&bind) {
                        v.fail("sidecar: unix domain socket values for listeners must be unique");
                    }
                    sockets.push(bind);
                } else {
                    unique_port(number, &mut ports, v);
                }
            }
        }
        egress_hosts(object.namespace, &listener.texts("hosts"), v);
    }
}

fn egress_port(port: Message<'_>, bind: &str, mode: &str) -> Found {
    if port.int("number") != 0 {
        return ip_listener(port, bind);
    }
    let mut errors = optional_name(port);
    join(&mut errors, names::protocol(port.text("protocol")));
    join(
        &mut errors,
        match bind.strip_prefix("unix://") {
            Some(path) => names::unix_address(path),
            None => one("sidecar: ports with 0 value must have a unix domain socket bind address"),
        },
    );
    if !matches!(mode, "DEFAULT" | "NONE") {
        join(
            &mut errors,
            one("sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners"),
        );
    }
    errors
}

fn egress_hosts(namespace: &str, hosts: &[&str], v: &mut Validation) {
    if hosts.is_empty() {
        v.fail("sidecar: egress listener must contain at least one host");
        return;
    }
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in hosts {
        if let Some((ns, service)) = host.split_once('/')
            && !ns.starts_with('~')
        {
            let ns = if ns == "." { namespace } else { ns };
            let services = seen.entry(ns).or_default();
            let duplicate = if service == "*" {
                !services.is_empty()
            } else {
                services.contains(&service) || services.contains(&"*")
            };
            if duplicate {
                v.warn(format!("duplicated egress host: {host}"));
            }
            services.push(service);
        }
        v.errors(names::namespaced_host(host, HostOf::Sidecar));
    }
    if seen.len() > 1
        && seen
            .get("*")
            .is_some_and(|services| services.contains(&"*"))
    {
        v.warn("`*/*` host select all resources, no other hosts can be added");
    }
}

fn outbound(policy: Option<Message<'_>>) -> Found {
    let policy = policy?;
    let mode = policy.name("mode", "REGISTRY_ONLY");
    if mode == "ALLOW_ANY_DYNAMIC_DNS" {
        return one(
            "sidecar: ALLOW_ANY_DYNAMIC_DNS mode is only supported in MeshConfig, not in Sidecar resource",
        );
    }
    let proxy = policy.get("egressProxy")?;
    if mode != "ALLOW_ANY" {
        return one(
            "sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode",
        );
    }
    let mut errors = names::fqdn(proxy.text("host"));
    if !proxy.has("port") {
        join(
            &mut errors,
            one("sidecar: egress_proxy port must be non-nil"),
        );
        return errors;
    }
    join(&mut errors, destination(Some(proxy)));
    errors
}
