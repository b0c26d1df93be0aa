//! Container probes: what to ask, when, and what the answers mean.

mod check;
mod schedule;

pub use check::{Checker, Outcome};
pub use schedule::{Next, Schedule, Verdict};

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod_sync::ProbeKind;

/// What a probe does, with names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `httpGet`.
    Http {
        /// `http` or `https`.
        tls: bool,
        /// Address to connect to.
        host: String,
        /// Port.
        port: u16,
        /// Path and query, starting with `/`.
        path: String,
        /// Request headers in order.
        headers: Vec<(String, String)>,
    },
    /// `tcpSocket`.
    Tcp {
        /// Address to connect to.
        host: String,
        /// Port.
        port: u16,
    },
    /// `exec`.
    Exec(Vec<String>),
    /// `grpc`: the standard health service.
    Grpc {
        /// Address to connect to.
        host: String,
        /// Port.
        port: u16,
        /// Service name, may be empty.
        service: String,
    },
}

/// A port given by number or by the name of one of the container's ports.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| {
                    format!("container {} has no port named {name:?}", container.name)
                })?,
        },
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// Resolves an `httpGet` (also of lifecycle hooks).
///
/// # Errors
/// A message that names the unknown port.
pub fn http_target(
    get: &k8s_openapi::api::core::v1::HTTPGetAction,
    container: &Container,
    pod_ip: Ipv4Addr,
) -> Result<Target, String> {
    let path = get.path.clone().unwrap_or_default();
    Ok(Target::Http {
        tls: get.scheme.as_deref() == Some("HTTPS"),
        host: get
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| pod_ip.to_string()),
        port: resolve_port(&get.port, container)?,
        path: if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        },
        headers: get
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}

/// Resolves what a probe asks.
///
/// # Errors
/// A message that names what is missing.
pub fn target(probe: &Probe, container: &Container, pod_ip: Ipv4Addr) -> Result<Target, String> {
    if let Some(get) = &probe.http_get {
        return http_target(get, container, pod_ip);
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty());
        return Ok(Target::Tcp {
            host: host.unwrap_or_else(|| pod_ip.to_string()),
            port: resolve_port(&socket.port, container)?,
        });
    }
    if let Some(exec) = &probe.exec {
        let lookup = |_: &str| None;
        let command = exec.command.iter().flatten();
        return Ok(Target::Exec(
            command
                .map(|word| crate::env::expand(word, lookup))
                .collect(),
        ));
    }
    if let Some(grpc) = &probe.grpc {
        return Ok(Target::Grpc {
            host: pod_ip.to_string(),
            port: u16::try_from(grpc.port)
                .map_err(|_| format!("invalid port number: {}", grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        });
    }
    Err("the probe names no handler (httpGet, tcpSocket, exec or grpc)".into())
}

/// The probe of a kind, if the container has it.
pub fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

#[cfg(test)]
mod tests;
