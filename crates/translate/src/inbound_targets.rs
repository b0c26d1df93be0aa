//! The ports of a workload that services lead to, or that its Sidecar object declares.

use crate::context::Context;
use crate::objects::selects;
use crate::protocol::Protocol;
use crate::registry::kubernetes::Cluster;
use crate::registry::{Resolution, Service, service_entry};
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

    /// The name of the port, of the service or of the ingress listener.
    pub(crate) fn port_name(&self) -> &str {
        if let Some(port) = self.ingress.and_then(|ingress| ingress.port.as_ref()) {
            return &port.name;
        }
        let first = self.services.first();
        let port = first.and_then(|(service, port)| service.port(*port));
        port.map_or("", |port| &port.name)
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
        // Several endpoints of one ServiceEntry may have this address.
        let known = out.iter().any(|(other, own, known)| {
            other.host == service.host
                && other.namespace == service.namespace
                && own.number == port.number
                && (service.kubernetes || *known == target)
        });
        if !known {
            out.push((service.clone(), port.clone(), target));
        }
    };
    let entry = context.own_workload_entry();
    if let Some(cluster) = context.snapshot.cluster(&proxy.cluster)
        && let Some(entry) = entry
    {
        // It stands for the pod, if there is one.
        let labels = service_entry::all_labels(entry);
        for selected in cluster.services.iter().filter(|service| {
            service.namespace == entry.namespace
                && service.resolution == Resolution::Static
                && !service.selector.is_empty()
                && selects(&service.selector, &labels)
        }) {
            let mut known = registry.services_of(&selected.host);
            let Some(service) = known.find(|service| service.kubernetes) else {
                continue;
            };
            let ports = selected.ports.iter();
            for port in ports.filter(|port| port.protocol != Protocol::Udp) {
                if let Some(target) = service_entry::target_of(entry, port) {
                    push(service, port, target);
                }
            }
        }
    } else if let Some(cluster) = context.snapshot.cluster(&proxy.cluster)
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
        if service.kubernetes && (*cluster != proxy.cluster || entry.is_some()) {
            continue;
        }
        if !service.kubernetes && service.namespace != proxy.namespace {
            continue;
        }
        if let Some(port) = service.ports.iter().find(|port| port.name == *port_name) {
            push(service, port, *target);
        }
    }
    out.sort_by(|(a, ..), (b, ..)| (&a.created, &a.host).cmp(&(&b.created, &b.host)));
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
