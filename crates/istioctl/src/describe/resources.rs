//! Pods and services.

use serde_json::Value;

use super::Report;
use crate::dump::{list, text};

const RESERVED_USER: i64 = 1337;
const PROXY: &str = "istio-proxy";

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"], "containers").iter()
}

fn meshed(pod: &Value) -> bool {
    containers(pod)
        .chain(list(&pod["spec"], "initContainers"))
        .any(|container| container["name"] == PROXY)
}

/// The revision of the control plane a pod was injected by.
fn revision(pod: &Value) -> String {
    let annotations = &pod["metadata"]["annotations"];
    if let Some(revision) = annotations["istio.io/rev"].as_str() {
        return revision.to_owned();
    }
    let status = annotations["sidecar.istio.io/status"]
        .as_str()
        .unwrap_or_default();
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    status["revision"].as_str().unwrap_or_default().to_owned()
}

/// The pod, and what is wrong with it.
pub(super) fn pod(report: &mut Report, pod: &Value, ignore_unmeshed: bool) {
    let mut ports = Vec::new();
    for container in containers(pod) {
        for port in list(container, "ports") {
            let protocol = match port["protocol"].as_str() {
                Some("TCP") | None => String::new(),
                Some(other) => format!("/{other}"),
            };
            ports.push(format!(
                "{}{protocol} ({})",
                port["containerPort"],
                text(container, "name")
            ));
        }
        if container["name"] != PROXY && container["securityContext"]["runAsUser"] == RESERVED_USER
        {
            report.line(
                3,
                "WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.",
            );
        }
    }
    let name = report.name(pod);
    report.line(0, &format!("Pod: {name}"));
    report.line(3, &format!("Pod Revision: {}", revision(pod)));
    if ports.is_empty() {
        report.line(3, "Pod does not expose ports");
    } else {
        report.line(3, &format!("Pod Ports: {}", ports.join(", ")));
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        report.line(3, &format!("Pod is not Running ({phase})"));
        return;
    }
    for (statuses, kind) in [
        ("containerStatuses", ""),
        ("initContainerStatuses", "Init "),
    ] {
        for status in list(&pod["status"], statuses) {
            if status["ready"] != true {
                report.line(
                    0,
                    &format!(
                        "WARNING: Pod {name} {kind}Container {} NOT READY",
                        text(status, "name")
                    ),
                );
            }
        }
    }
    if ignore_unmeshed {
        return;
    }
    if !meshed(pod) {
        report.line(
            0,
            &format!("WARNING: {name} is not part of mesh; no Istio sidecar"),
        );
        return;
    }
    if pod["spec"]["securityContext"]["runAsUser"] == RESERVED_USER {
        report.line(
            3,
            "WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.",
        );
    }
    let labels = &pod["metadata"]["labels"];
    let has = |keys: &[&str]| keys.iter().any(|key| !labels[*key].is_null());
    let requirements = "https://istio.io/latest/docs/ops/deployment/application-requirements/";
    if !has(&[
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ]) {
        report.line(0, &format!("Suggestion: add required service name label for Istio telemetry. See {requirements}."));
    }
    if !has(&[
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ]) {
        report.line(0, &format!("Suggestion: add required service revision label for Istio telemetry. See {requirements}."));
    }
}

/// Whether a service's pod has a proxy that can be asked; says why not.
pub(super) fn usable(report: &mut Report, pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        report.line(3, &format!("Pod is not Running ({phase})"));
        return false;
    }
    let name = report.name(pod);
    let status = list(&pod["status"], "containerStatuses")
        .iter()
        .chain(list(&pod["status"], "initContainerStatuses"))
        .find(|status| status["name"] == PROXY);
    match status {
        None => report.line(0, &format!("Pod {name}: no container {PROXY:?} in pod")),
        Some(status) if status["ready"] != true => {
            report.line(
                0,
                &format!("WARNING: Pod {name} Container {PROXY} NOT READY"),
            );
        }
        Some(_) => return true,
    }
    false
}

/// A service and where its ports lead in a pod.
pub(super) fn service(report: &mut Report, service: &Value, pod: &Value) {
    let name = report.name(service);
    report.line(0, &format!("Service: {name}"));
    for port in list(&service["spec"], "ports") {
        if port["protocol"].as_str().unwrap_or("TCP") != "TCP" {
            continue;
        }
        match target_port(port, pod) {
            Some(number) => report.line(
                3,
                &format!(
                    "Port: {} {}/{} targets pod port {number}",
                    text(port, "name"),
                    port["port"],
                    protocol(port)
                ),
            ),
            None => report.line(
                3,
                &format!(
                    "no suitable port for manifest: {}",
                    pod["metadata"]["uid"].as_str().unwrap_or_default()
                ),
            ),
        }
    }
}

/// The port of a pod that a service's port leads to.
pub(super) fn target_port(port: &Value, pod: &Value) -> Option<i64> {
    let target = &port["targetPort"];
    match target.as_str() {
        Some(name) => containers(pod)
            .flat_map(|container| list(container, "ports"))
            .find(|port| port["name"] == name)
            .and_then(|port| port["containerPort"].as_i64()),
        None => target.as_i64().or_else(|| port["port"].as_i64()),
    }
}

/// The protocol Istio takes a port to speak, by its `appProtocol`, name or number.
pub(super) fn protocol(port: &Value) -> &'static str {
    let app = port["appProtocol"].as_str();
    let name = text(port, "name");
    if name.is_empty() && app.is_none() {
        return "auto-detect";
    }
    let word = app.unwrap_or(name).to_lowercase();
    let word = match word.as_str() {
        "kubernetes.io/h2c" => "http2",
        "kubernetes.io/ws" => "http",
        "kubernetes.io/wss" => "https",
        word if app.is_some() || word.starts_with("grpc-web") => {
            word.strip_prefix("grpc-web").map_or(word, |_| "grpc-web")
        }
        word => word.split('-').next().unwrap_or_default(),
    };
    match word {
        "tcp" => "TCP",
        "grpc" => "GRPC",
        "grpc-web" => "GRPC-Web",
        "http" => "HTTP",
        "http2" => "HTTP2",
        "https" => "HTTPS",
        "tls" => "TLS",
        "mongo" => "Mongo",
        "redis" => "Redis",
        "mysql" => "MySQL",
        "udp" => "UDP",
        "hbone" => "HBONE",
        // Protocols in which the server speaks first.
        _ if matches!(port["port"].as_i64(), Some(25 | 53 | 3306 | 27017)) => "TCP",
        _ => "UnsupportedProtocol",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn protocols_are_those_istio_takes_ports_to_speak() {
        let seen = |port: Value| protocol(&port);
        assert_eq!(seen(json!({"port": 80})), "auto-detect");
        assert_eq!(seen(json!({"port": 80, "name": "http-web"})), "HTTP");
        assert_eq!(seen(json!({"port": 80, "name": "grpc-web-x"})), "GRPC-Web");
        assert_eq!(
            seen(json!({"port": 80, "name": "web"})),
            "UnsupportedProtocol"
        );
        assert_eq!(seen(json!({"port": 3306, "name": "db"})), "TCP");
        assert_eq!(
            seen(json!({"port": 80, "name": "x", "appProtocol": "kubernetes.io/h2c"})),
            "HTTP2"
        );
    }
}
