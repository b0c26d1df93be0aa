//! Probes of an injected pod: the kubelet cannot speak mutual TLS, so its HTTP, TCP and gRPC probes go
//! to the agent beside the application, which makes the real probe.

use serde_json::{Map, Value, json};

/// The agent's port.
pub const STATUS_PORT: u16 = 15020;

/// Points the probes of `container` at the agent; what they were goes into `probers`, by path.
pub fn rewrite(container: &mut Value, probers: &mut Map<String, Value>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (field, path) in [
        ("livenessProbe", "livez"),
        ("readinessProbe", "readyz"),
        ("startupProbe", "startupz"),
    ] {
        let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) else {
            continue;
        };
        let path = format!("/app-health/{name}/{path}");
        let Some(prober) = prober(probe, &ports) else {
            continue;
        };
        let own = probe.get("httpGet").cloned();
        probe.remove("httpGet");
        probe.remove("tcpSocket");
        probe.remove("grpc");
        let mut http = json!({"path": path, "port": STATUS_PORT});
        if let Some(own) = own {
            if let Some(headers) = own.get("httpHeaders") {
                http["httpHeaders"] = headers.clone();
            }
            // The agent makes the TLS connection; it is asked in plain text.
            if own.get("scheme").is_some() {
                http["scheme"] = "HTTP".into();
            }
        }
        probe.insert("httpGet".into(), http);
        probers.insert(path, prober);
    }
}

/// What the agent needs to know to make the probe itself; `None` for probes that stay as they are.
fn prober(probe: &Map<String, Value>, ports: &Value) -> Option<Value> {
    let mut prober = Map::new();
    if let Some(http) = probe.get("httpGet") {
        let mut http = http.clone();
        http["port"] = number(&http["port"], ports);
        prober.insert("httpGet".into(), http);
    } else if let Some(tcp) = probe.get("tcpSocket") {
        let mut tcp = tcp.clone();
        tcp["port"] = number(&tcp["port"], ports);
        prober.insert("tcpSocket".into(), tcp);
    } else if let Some(grpc) = probe.get("grpc") {
        let service = grpc.get("service").cloned().unwrap_or(Value::Null);
        prober.insert(
            "grpc".into(),
            json!({"port": grpc["port"], "service": service}),
        );
    } else {
        return None;
    }
    if let Some(timeout) = probe.get("timeoutSeconds") {
        prober.insert("timeoutSeconds".into(), timeout.clone());
    }
    Some(Value::Object(prober))
}

/// A port as a number: names are looked up among the container's ports.
fn number(port: &Value, ports: &Value) -> Value {
    let Some(name) = port.as_str() else {
        return port.clone();
    };
    if let Ok(number) = name.parse::<u16>() {
        return number.into();
    }
    ports
        .as_array()
        .into_iter()
        .flatten()
        .find(|port| port["name"] == name)
        .map_or_else(|| port.clone(), |port| port["containerPort"].clone())
}
