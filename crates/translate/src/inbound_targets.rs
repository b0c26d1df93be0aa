//! The ports of a workload that services lead to, or that its Sidecar object declares.

use crate::context::Context;
use crate::protocol::Protocol;
use crate::registry::Service;
use crate::registry::kubernetes::Cluster;
use api::istio::IstioIngressListener;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A port of the workload.
#[derive(Debug, Clone)]
pub(crate) struct InboundTarget<'a> {
    /// Services behind it, oldest first. The first decides.
    pub(crate) services: Vec<(Arc<Service>, u32)>,
    pub(crate) protocol: Protocol,
    /// The port of the workload.
    pub(crate) port: u32,
    pub(crate) ingress: Option<&'a IstioIngressListener>,
}

impl InboundTarget<'_> {
    pub(crate) fn service(&self) -> Option<&Arc<Service>> {
        self.services.first().map(|(service, _)| service)
    }

    /// The port of the service, or of the ingress listener.
    pub(crate) fn service_port(&self) -> u32 {
        match self.ingress {
            Some(_) => self.port,
            None => self.services.first().map_or(self.port, |(_, port)| *port),
        }
    }
}

/// Services that lead to this proxy, with their port and the port of the workload; oldest first.
pub(crate) fn services(
    context: &Context<'_>,
) -> Vec<(Arc<Service>, crate::registry::ServicePort, u32)> {
    let proxy = context.proxy;
    let registry = &context.snapshot.registry;
    let mut out: Vec<(Arc<Service>, crate::registry::ServicePort, u32)> = Vec::new();
    let mut push = |service: &Arc<Service>, port: &crate::registry::ServicePort, target: u32| {
        let known = out.iter().any(|(other, own, _)| {
            other.host == service.host
                && other.namespace == service.namespace
                && own.number == port.number
        });
        if !known && port.protocol != Protocol::Udp {
            out.push((service.clone(), port.clone(), target));
        }
    };
    if let Some(cluster) = context.snapshot.cluster(&proxy.cluster)
        && let Some(pod) = context.own_pod()
    {
        for selected in cluster.services_of_pod(pod) {
            let Some(service) = registry
                .services_of(&selected.host)
                .find(|service| service.kubernetes)
            else {
                continue;
            };
            for port in &selected.ports {
                push(service, port, Cluster::target_port(port, Some(pod)));
            }
        }
    }
    for (index, port_name, target, cluster) in context.uses_of_address(proxy.ip()) {
        let service = &registry.services[*index];
        if *cluster != proxy.cluster && service.kubernetes {
            continue;
        }
        if let Some(port) = service.ports.iter().find(|port| port.name == *port_name) {
            push(service, port, *target);
        }
    }
    out.sort_by(|(a, ..), (b, ..)| {
        (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace))
    });
    out
}

/// The inbound ports in order. A Sidecar object with ingress listeners replaces those of services.
pub(crate) fn targets<'a>(context: &'a Context<'_>) -> Vec<InboundTarget<'a>> {
    let services = services(context);
    let ingress = context
        .scope
        .sidecar
        .map(|sidecar| &sidecar.spec.ingress)
        .filter(|ingress| !ingress.is_empty());
    if let Some(ingress) = ingress {
        return ingress
            .iter()
            .filter_map(|listener| {
                let port = listener.port.as_ref()?;
                let services = services
                    .iter()
                    .filter(|(_, _, target)| *target == port.number)
                    .map(|(service, own, _)| (service.clone(), own.number))
                    .collect();
                Some(InboundTarget {
                    services,
                    protocol: Protocol::parse(&port.protocol),
                    port: port.number,
                    ingress: Some(listener),
                })
            })
            .collect();
    }
    let mut out: BTreeMap<u32, InboundTarget<'a>> = BTreeMap::new();
    for (service, port, target) in services {
        out.entry(target)
            .or_insert_with(|| InboundTarget {
                services: Vec::new(),
                protocol: port.protocol,
                port: target,
                ingress: None,
            })
            .services
            .push((service, port.number));
    }
    out.into_values().collect()
}
