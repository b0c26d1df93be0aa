//! Outbound listeners of sidecars, one for each HTTP port and one for each other address and port.

use super::filter_chain::{Chain, fallthrough};
use super::inspectors;
use super::tcp_routes::{self, ServiceOn};
use crate::context::{Context, ListenerClass};
use crate::hcm::{self, HcmSpec, Routes};
use crate::names;
use crate::proto::address;
use crate::protocol::{Class, Protocol};
use crate::proxy_info::Interception;
use crate::registry::{Service, ServicePort, UNSPECIFIED};
use crate::sidecar_scope::EgressListener;
use api::istio::CaptureMode;
use std::collections::BTreeMap;
use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{Filter, Listener};

const SNI_DYNAMIC_FORWARD_PROXY: &str =
    "envoy.extensions.filters.network.sni_dynamic_forward_proxy";

/// A listener while services are being added to it.
struct Entry {
    /// What it was made for; [`Protocol::Auto`] where it looks into connections.
    protocol: Protocol,
    chains: Vec<Chain>,
    /// The application connects to it itself.
    bound: bool,
    /// Later egress listeners may not add to it.
    locked: bool,
}

type Entries = BTreeMap<(String, u32), Entry>;

/// The listeners and the names of the route configurations they ask for.
pub(crate) fn listeners(context: &Context<'_>) -> (Vec<Listener>, Vec<String>) {
    let mut entries = Entries::new();
    for egress in &context.scope.listeners {
        match egress.port {
            Some(_) => explicit(context, egress, &mut entries),
            None => {
                entries.values_mut().for_each(|entry| entry.locked = true);
                catch_all(context, egress, &mut entries);
            }
        }
    }
    if let Some((key, entry)) = http_proxy(context) {
        entries.insert(key, entry);
    }
    let names = entries
        .values()
        .flat_map(|entry| &entry.chains)
        .filter_map(|chain| chain.routes.clone())
        .collect();
    let listeners = entries
        .into_iter()
        .map(|((bind, port), entry)| finish(context, &bind, port, entry))
        .collect();
    (listeners, names)
}

/// The listener for applications that use the proxy as their HTTP proxy, where the mesh or the proxy's metadata names a port for it.
fn http_proxy(context: &Context<'_>) -> Option<((String, u32), Entry)> {
    let own = context.proxy.metadata_text("HTTP_PROXY_PORT").parse().ok();
    let port = own.unwrap_or(context.snapshot.mesh.proxy_http_port);
    if port == 0 {
        return None;
    }
    let key = ("127.0.0.1".to_owned(), port);
    let mut spec = HcmSpec::new(
        ListenerClass::SidecarOutbound,
        format!("outbound_{}_{port}", key.0),
        Routes::Rds(names::HTTP_PROXY.to_owned()),
        Protocol::HttpProxy,
    );
    spec.absolute_urls = true;
    spec.before_router = crate::dynamic_dns::http_filters(context, None);
    let chain = Chain {
        filters: vec![hcm::filter(context, spec)],
        routes: Some(names::HTTP_PROXY.to_owned()),
        ..Chain::default()
    };
    let entry = Entry {
        protocol: Protocol::HttpProxy,
        chains: vec![chain],
        bound: true,
        locked: true,
    };
    Some((key, entry))
}

/// Whether there may be a listener: not on ports of the proxy itself, nor on privileged ones where they cannot be opened.
fn can_bind(context: &Context<'_>, bound: bool, bind: &str, port: &ServicePort) -> bool {
    if bound && context.proxy.unprivileged && port.number < 1024 {
        return false;
    }
    let wildcard = bind == UNSPECIFIED || bind.is_empty() && port.protocol.is_http();
    let taken =
        is_captured_port(context, port.number) || super::is_static_port(context.proxy, port.number);
    !(wildcard && taken)
}

/// Whether captured connections arrive at the port.
fn is_captured_port(context: &Context<'_>, port: u32) -> bool {
    let mesh = &context.snapshot.mesh;
    port == mesh.proxy_listen_port.unwrap_or(15001)
        || port == mesh.proxy_inbound_listen_port.unwrap_or(15006)
}

fn no_interception(context: &Context<'_>, egress: &EgressListener<'_>) -> bool {
    match egress.capture {
        CaptureMode::None => true,
        CaptureMode::Iptables => false,
        CaptureMode::Default => context.proxy.interception == Interception::None,
    }
}

/// A listener that the Sidecar object names.
fn explicit(context: &Context<'_>, egress: &EgressListener<'_>, entries: &mut Entries) {
    let Some(port) = egress.port else { return };
    let protocol = Protocol::parse(&port.protocol);
    let bound = no_interception(context, egress);
    let bind = if !egress.bind.is_empty() {
        egress.bind.to_owned()
    } else if bound {
        "127.0.0.1".to_owned()
    } else {
        String::new()
    };
    let own = ServicePort {
        number: port.number,
        name: port.name.clone(),
        protocol,
        target: crate::registry::TargetPort::Same,
    };
    if !can_bind(context, bound, &bind, &own) {
        return;
    }
    for service in &egress.services {
        let place = Place { bind: &bind, bound };
        add(context, egress, service, &own, &place, entries);
    }
}

/// All ports of all services.
fn catch_all(context: &Context<'_>, egress: &EgressListener<'_>, entries: &mut Entries) {
    let bound = no_interception(context, egress);
    let bind = if !egress.bind.is_empty() {
        egress.bind
    } else if bound {
        "127.0.0.1"
    } else {
        ""
    };
    for service in &egress.services {
        if service.external_name.is_some() {
            continue;
        }
        let address = service.address_for(context.proxy);
        for port in &service.ports {
            if !can_bind(context, bound, bind, port) {
                continue;
            }
            let place = Place { bind, bound };
            let headless = bind.is_empty()
                && service.is_headless()
                && address == UNSPECIFIED
                && !port.protocol.is_http();
            if !headless || port.protocol == Protocol::Udp {
                add(context, egress, service, port, &place, entries);
                continue;
            }
            let mut instances = context
                .endpoints_of(service)
                .iter()
                .filter(|endpoint| endpoint.port_name == port.name)
                .peekable();
            if instances.peek().is_none() && !service.kubernetes && !service.selects_workloads {
                add(context, egress, service, port, &place, entries);
                continue;
            }
            for endpoint in instances {
                if endpoint.address == context.proxy.ip() || !crate::host::is_ip(&endpoint.address)
                {
                    continue;
                }
                let place = Place {
                    bind: &endpoint.address,
                    ..place
                };
                add(context, egress, service, port, &place, entries);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    /// Empty: the wildcard address for HTTP, the address of the service for everything else.
    bind: &'a str,
    bound: bool,
}

fn add(
    context: &Context<'_>,
    egress: &EgressListener<'_>,
    service: &Service,
    port: &ServicePort,
    place: &Place<'_>,
    entries: &mut Entries,
) {
    let class = port.protocol.class();
    if port.protocol == Protocol::Udp || service.external_name.is_some() {
        return;
    }
    let mut bind = place.bind.to_owned();
    let mut cidr = None;
    if bind.is_empty() {
        let address = service.address_for(context.proxy);
        if class == Class::Http {
            UNSPECIFIED.clone_into(&mut bind);
        } else if address.contains('/') {
            cidr = Some(address.to_owned());
            UNSPECIFIED.clone_into(&mut bind);
        } else {
            address.clone_into(&mut bind);
        }
    }
    let key = (bind, port.number);
    let existing = match entries.get(&key) {
        Some(entry) if entry.locked => return,
        Some(entry) => Some((entry.protocol, entry.protocol.class())),
        None => None,
    };
    // Whatever looks into connections, or speaks HTTP only, serves further HTTP services as well.
    let served = match class {
        Class::Http => matches!(existing, Some((_, Class::Http | Class::Auto))),
        Class::Auto => matches!(existing, Some((_, Class::Auto))),
        Class::Tcp => false,
    };
    // Servers that speak first do not share a port with anything that is looked into.
    let speaks_first = |protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
    let apart = existing.is_some_and(|(other, _)| {
        other != port.protocol && (speaks_first(other) || speaks_first(port.protocol))
    });
    if served || apart {
        return;
    }
    let mut chains = Vec::new();
    if class != Class::Http {
        let on = ServiceOn {
            service,
            port: port.number,
            port_name: &port.name,
            protocol: port.protocol,
            cidr,
            bind: &key.0,
        };
        chains.extend(tcp_routes::chains(context, &on, &egress.virtual_services));
    }
    let mut protocol = port.protocol;
    if class != Class::Tcp {
        let wildcard = key.0 == UNSPECIFIED;
        let sniffed = class == Class::Auto || wildcard && port.protocol != Protocol::HttpProxy;
        if sniffed {
            protocol = Protocol::Auto;
        }
        let routes = if class == Class::Auto && !wildcard {
            format!("{}:{}", service.host, port.number)
        } else {
            port.number.to_string()
        };
        let filter = http_filter(context, service, &key, &routes, port.protocol);
        chains.push(Chain {
            sniffed_http: sniffed,
            filters: vec![filter],
            routes: Some(routes),
            ..Chain::default()
        });
    }
    match entries.get_mut(&key) {
        Some(entry) if !(entry.protocol.class() == Class::Http && class == Class::Auto) => {
            for chain in chains {
                if !entry.chains.iter().any(|other| other.same_match(&chain)) {
                    entry.chains.push(chain);
                }
            }
            if class != Class::Tcp || entry.protocol.class() == Class::Http {
                entry.protocol = Protocol::Auto;
            }
        }
        _ => {
            let entry = Entry {
                protocol,
                chains,
                bound: place.bound,
                locked: false,
            };
            entries.insert(key, entry);
        }
    }
}

fn http_filter(
    context: &Context<'_>,
    service: &Service,
    key: &(String, u32),
    routes: &str,
    protocol: Protocol,
) -> Filter {
    let mut spec = HcmSpec::new(
        ListenerClass::SidecarOutbound,
        format!("outbound_{}_{}", key.0, key.1),
        Routes::Rds(routes.to_owned()),
        protocol,
    );
    spec.before_router = crate::dynamic_dns::http_filters(context, Some(service));
    hcm::filter(context, spec)
}

fn finish(context: &Context<'_>, bind: &str, port: u32, entry: Entry) -> Listener {
    let mut out = Listener {
        name: names::listener(bind, port),
        address: Some(address(bind, port)),
        traffic_direction: TrafficDirection::Outbound as i32,
        continue_on_listener_filters_timeout: true,
        connection_balance_config: super::balance(context.proxy, "OUTBOUND_LISTENER_EXACT_BALANCE"),
        ..Default::default()
    };
    if entry.bound {
        out.max_connections_to_accept_per_socket_event = Some(1);
    } else {
        out.bind_to_port = Some(false);
    }
    let asks_name = |filter: &Filter| filter.name == SNI_DYNAMIC_FORWARD_PROXY;
    let needs_tls = entry
        .chains
        .iter()
        .any(|chain| !chain.server_names.is_empty() || chain.filters.iter().any(asks_name));
    let needs_http = entry.chains.iter().any(|chain| chain.sniffed_http);
    if needs_tls {
        out.listener_filters.push(inspectors::tls());
    }
    if needs_http {
        out.listener_filters.push(inspectors::http());
    }
    out.listener_filters_timeout = Some(inspectors::timeout(context, needs_http));
    let several = entry.chains.len() > 1;
    let mut has_match_all = false;
    for chain in entry.chains {
        if chain.is_match_all() {
            has_match_all = true;
            if several {
                out.default_filter_chain = Some(chain.finish());
                continue;
            }
        }
        out.filter_chains.push(chain.finish());
    }
    if !has_match_all {
        out.default_filter_chain = Some(fallthrough(context));
    }
    out
}
