//! How a service can be reached from outside.

use serde_json::Value;

use super::{Config, Report, contains, find, resources};
use crate::dump::{list, text};

/// A service in front of pods of an ingress gateway.
#[derive(Debug)]
pub(super) struct Ingress {
    service: Value,
    pods: Vec<Value>,
}

impl Ingress {
    /// The service, if it selects some of the pods.
    pub(super) fn new<'a>(service: Value, pods: impl Iterator<Item = &'a Value>) -> Option<Self> {
        let pods: Vec<Value> = pods
            .filter(|pod| contains(&pod["metadata"]["labels"], &service["spec"]["selector"]))
            .cloned()
            .collect();
        (!pods.is_empty()).then_some(Self { service, pods })
    }

    fn address(&self) -> &str {
        let balancer = list(&self.service["status"]["loadBalancer"], "ingress");
        match balancer.first() {
            Some(first) => text(first, "ip"),
            None => self.pods[0]["status"]["hostIP"]
                .as_str()
                .unwrap_or("unknown"),
        }
    }

    fn show(&self, report: &mut Report) {
        for port in list(&self.service["spec"], "ports") {
            let name = text(port, "name");
            if !["http", "http2"].contains(&name)
                || resources::target_port(port, &self.pods[0]).is_none()
            {
                continue;
            }
            let scheme = match resources::protocol(port) {
                "HTTP" | "HTTP2" => "http",
                _ => "",
            };
            let number = port["port"].as_i64().unwrap_or(0);
            let suffix = if scheme == "http" && number == 80 {
                String::new()
            } else {
                format!(":{number}")
            };
            report.line(
                0,
                &format!(
                    "Exposed on Ingress Gateway {scheme}://{}{suffix}",
                    self.address()
                ),
            );
        }
    }
}

/// Shows the ingresses of the gateways a virtual service is bound to; whether there are any that were not shown before.
pub(super) fn exposed(
    report: &mut Report,
    virtual_service: &Value,
    config: &Config,
    ingresses: &[Ingress],
    seen: &mut Vec<String>,
) -> bool {
    let own = api::meta::namespace(virtual_service);
    let mut shown = false;
    for gateway in list(&virtual_service["spec"], "gateways")
        .iter()
        .filter_map(Value::as_str)
    {
        if gateway.is_empty() || gateway == "mesh" {
            continue;
        }
        let (namespace, name) = gateway.split_once('/').unwrap_or((own, gateway));
        let id = format!("{namespace}/{name}");
        if seen.contains(&id) {
            continue;
        }
        let Some(object) = find(&config.gateways, namespace, name) else {
            report.line(
                0,
                &format!("WARNING: Proxy is stale; it references to non-existent gateway {id}"),
            );
            continue;
        };
        seen.push(id);
        let selector = &object["spec"]["selector"];
        let mut matching: Vec<&Ingress> = ingresses
            .iter()
            .filter(|ingress| {
                ingress
                    .pods
                    .iter()
                    .any(|pod| contains(&pod["metadata"]["labels"], selector))
            })
            .collect();
        if matching.is_empty() {
            continue;
        }
        matching.sort_by_key(|ingress| ingress.address().to_owned());
        report.rule();
        for ingress in matching {
            ingress.show(report);
        }
        shown = true;
    }
    shown
}
