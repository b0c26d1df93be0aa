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
use xds::envoy::config::listener::v3::Listener;

/// A listener while services are being added to it.
struct Entry {
    class: Class,
    chains: Vec<Chain>,
    /// The application connects to it itself.
    bound: bool,
    /// A chain of its own for a port of the Sidecar object: no default chain.
    explicit_bind: bool,
    /// Later egress listeners may not add to it.
    locked: bool,
}

type Entries = BTreeMap<(String, u32), Entry>;

/// The listeners and the names of the route configurations they ask for.
pub(crate) fn listeners(context: &Context<'_>) -> (Vec<Listener>, Vec<String>) {
    let mut entries = Entries::new();
    let mut routes: BTreeMap<(String, u32), String> = BTreeMap::new();
    for egress in &context.scope.listeners {
        match egress.port {
            Some(_) => explicit(context, egress, &mut entries, &mut routes),
            None => catch_all(context, egress, &mut entries, &mut routes),
        }
        entries.values_mut().for_each(|entry| entry.locked = true);
    }
    let mut names: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for (key, entry) in entries {
        if let Some(name) = routes.get(&key)
            && entry.class != Class::Tcp
        {
            names.push(name.clone());
        }
        out.push(finish(context, &key.0, key.1, entry));
    }
    (out, names)
}

fn no_interception(context: &Context<'_>, egress: &EgressListener<'_>) -> bool {
    match egress.capture {
        CaptureMode::None => true,
        CaptureMode::Iptables => false,
        CaptureMode::Default => context.proxy.interception == Interception::None,
    }
}

/// A listener that the Sidecar object names.
fn explicit(
    context: &Context<'_>,
    egress: &EgressListener<'_>,
    entries: &mut Entries,
    routes: &mut BTreeMap<(String, u32), String>,
) {
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
    for service in &egress.services {
        let place = Place {
            bind: &bind,
            bound,
            explicit_bind: !egress.bind.is_empty(),
        };
        add(context, egress, service, &own, &place, entries, routes);
    }
}

/// All ports of all services.
fn catch_all(
    context: &Context<'_>,
    egress: &EgressListener<'_>,
    entries: &mut Entries,
    routes: &mut BTreeMap<(String, u32), String>,
) {
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
        let address = service.address_for(&context.proxy.cluster, context.proxy.dns_capture);
        for port in &service.ports {
            if bound && context.proxy.unprivileged && port.number < 1024 {
                continue;
            }
            let place = Place {
                bind,
                bound,
                explicit_bind: !egress.bind.is_empty(),
            };
            let headless = bind.is_empty()
                && service.is_headless()
                && address == UNSPECIFIED
                && !port.protocol.is_http();
            if !headless || port.protocol == Protocol::Udp {
                add(context, egress, service, port, &place, entries, routes);
                continue;
            }
            let mut instances = context
                .endpoints_of(service)
                .iter()
                .filter(|endpoint| endpoint.port_name == port.name)
                .peekable();
            if instances.peek().is_none() && !service.kubernetes && !service.selects_workloads {
                add(context, egress, service, port, &place, entries, routes);
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
                add(context, egress, service, port, &place, entries, routes);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    /// Empty: the wildcard address for HTTP, the address of the service for everything else.
    bind: &'a str,
    bound: bool,
    explicit_bind: bool,
}

fn add(
    context: &Context<'_>,
    egress: &EgressListener<'_>,
    service: &Service,
    port: &ServicePort,
    place: &Place<'_>,
    entries: &mut Entries,
    routes: &mut BTreeMap<(String, u32), String>,
) {
    let class = port.protocol.class();
    if port.protocol == Protocol::Udp {
        return;
    }
    let mut binds: Vec<String> = vec![place.bind.to_owned()];
    let mut cidr = None;
    if place.bind.is_empty() {
        binds = if class == Class::Http {
            vec![UNSPECIFIED.to_owned()]
        } else {
            let address = service.address_for(&context.proxy.cluster, context.proxy.dns_capture);
            if address.contains('/') {
                cidr = Some(address.to_owned());
                vec![UNSPECIFIED.to_owned()]
            } else {
                vec![address.to_owned()]
            }
        };
    }
    for bind in binds {
        let key = (bind, port.number);
        if entries.get(&key).is_some_and(|entry| entry.locked) {
            continue;
        }
        let existing = entries.get(&key).map(|entry| entry.class);
        if class == Class::Http && matches!(existing, Some(Class::Http | Class::Auto)) {
            continue;
        }
        let mut chains = Vec::new();
        if class != Class::Http {
            let on = ServiceOn {
                service,
                port: port.number,
                protocol: port.protocol,
                cidr: cidr.clone(),
                bind: &key.0,
            };
            chains.extend(tcp_routes::chains(context, &on, &egress.virtual_services));
        }
        let route_name = match class {
            Class::Http => Some(port.number.to_string()),
            Class::Auto => Some(format!("{}:{}", service.host, port.number)),
            Class::Tcp => None,
        };
        if let Some(name) = &route_name {
            chains.push(http_chain(context, &key, name, port.protocol, class));
        }
        merge(entries, &key, class, chains, place);
        if let Some(name) = route_name
            && (existing.is_none() || class != Class::Tcp)
        {
            routes
                .entry(key.clone())
                .and_modify(|current| {
                    if existing != Some(Class::Auto) {
                        *current = name.clone();
                    }
                })
                .or_insert(name);
        }
    }
}

fn http_chain(
    context: &Context<'_>,
    key: &(String, u32),
    route_name: &str,
    protocol: Protocol,
    class: Class,
) -> Chain {
    let stat_prefix = format!("outbound_{}_{}", key.0, key.1);
    let protocol = if class == Class::Auto {
        Protocol::Auto
    } else {
        protocol
    };
    let mut spec = HcmSpec::new(
        ListenerClass::SidecarOutbound,
        stat_prefix,
        Routes::Rds(route_name.to_owned()),
        protocol,
    );
    spec.before_router = crate::dynamic_dns::http_filters(context, key.1);
    Chain {
        sniffed_http: true,
        filters: vec![hcm::filter(context, spec)],
        ..Chain::default()
    }
}

/// What happens when two services want the same address and port.
fn merge(
    entries: &mut Entries,
    key: &(String, u32),
    class: Class,
    chains: Vec<Chain>,
    place: &Place<'_>,
) {
    let fresh = |class, chains| Entry {
        class,
        chains,
        bound: place.bound,
        explicit_bind: place.explicit_bind,
        locked: false,
    };
    let Some(entry) = entries.get_mut(key) else {
        entries.insert(key.clone(), fresh(class, chains));
        return;
    };
    match (entry.class, class) {
        // Everything on this port is served by the same routes already.
        (Class::Http | Class::Auto, Class::Http) => {}
        (Class::Http, Class::Auto) => {
            entries.insert(key.clone(), fresh(class, chains));
        }
        (_, _) => {
            for chain in chains {
                if !entry.chains.iter().any(|other| other.same_match(&chain)) {
                    let place = if chain.sniffed_http {
                        entry.chains.len()
                    } else {
                        entry
                            .chains
                            .iter()
                            .position(|other| other.sniffed_http)
                            .unwrap_or(entry.chains.len())
                    };
                    entry.chains.insert(place, chain);
                }
            }
            if entry.class != class {
                entry.class = Class::Auto;
            }
        }
    }
}

fn finish(context: &Context<'_>, bind: &str, port: u32, mut entry: Entry) -> Listener {
    let plain_http = (entry.bound || entry.explicit_bind) && entry.class == Class::Http;
    if plain_http {
        entry
            .chains
            .iter_mut()
            .for_each(|chain| chain.sniffed_http = false);
    }
    let mut out = Listener {
        name: names::listener(bind, port),
        address: Some(address(bind, port)),
        traffic_direction: TrafficDirection::Outbound as i32,
        continue_on_listener_filters_timeout: true,
        ..Default::default()
    };
    if entry.bound {
        out.max_connections_to_accept_per_socket_event = Some(1);
    } else {
        out.bind_to_port = Some(false);
    }
    let needs_tls = entry
        .chains
        .iter()
        .any(|chain| !chain.server_names.is_empty());
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
