//! Outbound routes of sidecars: one configuration for each HTTP port, one for each service whose protocol is found out.

use super::domains::{self, without_duplicates};
use super::http_route::{self, RouteScope};
use super::{configuration, matches};
use crate::context::Context;
use crate::host;
use crate::names;
use crate::proto::seconds;
use crate::registry::Service;
use crate::sidecar_scope::EgressListener;
use crate::virtual_service::{self, MESH_GATEWAY, VirtualServiceConfig};
use api::istio::OutboundTrafficPolicyMode;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use xds::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost, route,
    route_action::ClusterSpecifier,
};

/// Routes for some hosts on one port.
struct Wrapper<'a> {
    port: u32,
    services: Vec<Arc<Service>>,
    /// Hosts of the VirtualService that are no services.
    hosts: Vec<&'a str>,
    routes: Vec<Route>,
}

/// The route configuration `name`, as its listener asks for it: a port, `host:port`, or that of the listener which applications use as
/// their HTTP proxy.
pub(crate) fn outbound(context: &Context<'_>, name: &str) -> Option<RouteConfiguration> {
    let (only, port) = match name.rsplit_once(':') {
        _ if name == names::HTTP_PROXY => (None, 0),
        Some((host, port)) => (Some(host), port.parse().ok()?),
        None => (None, name.parse::<u32>().ok()?),
    };
    let Some(listener) = listener_for(context, port) else {
        // Nothing is imported, but unknown hosts are still answered.
        return only
            .is_none()
            .then(|| configuration(name.to_owned(), vec![catch_all(context)]));
    };
    let explicit_proxy = port == 0
        || listener
            .port
            .is_some_and(|port| port.protocol.eq_ignore_ascii_case("HTTP_PROXY"));
    let listener_port = if explicit_proxy { 0 } else { port };
    let services = services_on(listener, listener_port);
    let wrappers = wrappers(context, listener, services, listener_port);
    let mut hosts = virtual_hosts(context, wrappers, explicit_proxy);
    if let Some(only) = only {
        let wanted = format!("{only}:{port}");
        // Where a listener of its own has the port, it does not have to have this service.
        hosts.retain(|host| host.name == wanted);
        for host in &mut hosts {
            host.domains = vec!["*".to_owned()];
        }
        return Some(configuration(name.to_owned(), hosts));
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(catch_all(context));
    Some(configuration(name.to_owned(), hosts))
}

/// The egress listener that a port belongs to: its own, else that for all others, which is the last.
fn listener_for<'a>(context: &'a Context<'_>, port: u32) -> Option<&'a EgressListener<'a>> {
    let listeners = &context.scope.listeners;
    listeners
        .iter()
        .find(|listener| listener.port.is_none_or(|own| own.number == port))
}

/// Services by host, each with only the port in question; all ports for an HTTP proxy listener.
fn services_on(listener: &EgressListener<'_>, port: u32) -> BTreeMap<String, Arc<Service>> {
    let mut out: BTreeMap<String, Arc<Service>> = BTreeMap::new();
    for service in &listener.services {
        let shown = if port == 0 {
            service.clone()
        } else {
            let Some(found) = service.port(port) else {
                continue;
            };
            let mut only = Service::clone(service);
            only.ports = vec![found.clone()];
            Arc::new(only)
        };
        out.insert(service.host.to_ascii_lowercase(), shown);
    }
    out
}

fn wrappers<'a>(
    context: &Context<'_>,
    listener: &'a EgressListener<'_>,
    mut services: BTreeMap<String, Arc<Service>>,
    listener_port: u32,
) -> Vec<Wrapper<'a>> {
    let all = services.clone();
    let service_hosts: Vec<&str> = all.keys().map(String::as_str).collect();
    let is_service = |name: &str| all.contains_key(&name.to_ascii_lowercase());
    let selected = if listener_port == 80 || listener_port == 0 {
        listener.virtual_services.clone()
    } else {
        virtual_service::select(&listener.virtual_services, is_service, &service_hosts)
    };
    let owners = wildcard_owners(&selected, &service_hosts);
    let lookup = |name: &str| all.get(name).cloned();
    let mut out = Vec::new();
    for (index, config) in selected.iter().enumerate() {
        let scope = RouteScope {
            port: listener_port,
            gateways: &[MESH_GATEWAY],
            tls: false,
            service: &lookup,
        };
        let routes = http_route::routes(context, config, &scope);
        if routes.is_empty() {
            continue;
        }
        let (hosts, found) = separate(config, index, &services, &owners);
        let mut by_port: BTreeMap<u32, Vec<Arc<Service>>> = BTreeMap::new();
        for service in found {
            for port in service
                .ports
                .iter()
                .filter(|port| port.protocol.is_http_or_auto())
            {
                by_port
                    .entry(port.number)
                    .or_default()
                    .push(service.clone());
            }
        }
        // Hosts that are no services are served on port 80 only.
        if by_port.is_empty() && listener_port == 80 {
            by_port.insert(80, Vec::new());
        }
        for (port, services) in by_port {
            out.push(Wrapper {
                port,
                services,
                hosts: hosts.clone(),
                routes: routes.clone(),
            });
        }
    }
    for wrapper in &out {
        for service in &wrapper.services {
            services.remove(&service.host.to_ascii_lowercase());
        }
    }
    for service in services
        .into_values()
        .filter(|service| service.external_name.is_none())
    {
        for port in service
            .ports
            .iter()
            .filter(|port| port.protocol.is_http_or_auto())
        {
            out.push(Wrapper {
                port: port.number,
                services: vec![service.clone()],
                hosts: Vec::new(),
                routes: vec![http_route::default_route(context, &service, port.number)],
            });
        }
    }
    out
}

/// Of each service, the VirtualService whose host fits best: exact before wildcard, longer before shorter, older before newer.
fn wildcard_owners<'a>(
    configs: &[&Arc<VirtualServiceConfig>],
    services: &[&'a str],
) -> HashMap<&'a str, usize> {
    let mut out = HashMap::new();
    for service in services {
        let best = configs
            .iter()
            .enumerate()
            .flat_map(|(index, config)| {
                config
                    .spec
                    .hosts
                    .iter()
                    .map(move |name| (index, name.as_str()))
            })
            .filter(|(_, name)| {
                if host::is_wildcard(name) {
                    host::subset_of(service, name)
                } else {
                    name.eq_ignore_ascii_case(service)
                }
            })
            .min_by(|(i, a), (j, b)| host::by_specificity(a, b).then(i.cmp(j)));
        if let Some((index, _)) = best {
            out.insert(*service, index);
        }
    }
    out
}

/// Hosts of a VirtualService that are no services, and the services that it is for.
fn separate<'a>(
    config: &'a VirtualServiceConfig,
    index: usize,
    services: &BTreeMap<String, Arc<Service>>,
    owners: &HashMap<&str, usize>,
) -> (Vec<&'a str>, Vec<Arc<Service>>) {
    let mut hosts = Vec::new();
    let mut found: Vec<Arc<Service>> = Vec::new();
    for name in &config.spec.hosts {
        if !host::is_wildcard(name) {
            match services.get(&name.to_ascii_lowercase()) {
                Some(service) => found.push(service.clone()),
                None => hosts.push(name.as_str()),
            }
            continue;
        }
        let mut any = false;
        for (service_host, service) in services {
            if !host::matches(name, service_host) {
                continue;
            }
            any = true;
            if owners.get(service_host.as_str()) == Some(&index)
                && !found.iter().any(|other| Arc::ptr_eq(other, service))
            {
                found.push(service.clone());
            }
        }
        if !any {
            hosts.push(name.as_str());
        }
    }
    (hosts, found)
}

fn virtual_hosts(
    context: &Context<'_>,
    wrappers: Vec<Wrapper<'_>>,
    explicit_proxy: bool,
) -> Vec<VirtualHost> {
    let known: HashSet<String> = wrappers
        .iter()
        .flat_map(|wrapper| &wrapper.services)
        .flat_map(|service| {
            let host = service.host.to_ascii_lowercase();
            [format!("{host}."), host]
        })
        .collect();
    let mut names = HashSet::new();
    let mut taken = HashSet::new();
    let mut out = Vec::new();
    for wrapper in wrappers {
        let plain = wrapper
            .hosts
            .iter()
            .map(|name| (name.to_ascii_lowercase(), None));
        let services = wrapper
            .services
            .iter()
            .map(|service| (service.host.to_ascii_lowercase(), Some(service)));
        for (host_name, service) in plain.chain(services) {
            let name = format!("{}:{}", domains::ipv6_in_brackets(&host_name), wrapper.port);
            if !names.insert(name.clone()) {
                continue;
            }
            let (mut domains, mut short) = match service {
                Some(service) => domains::of_service(context, service),
                None => (vec![domains::ipv6_in_brackets(&host_name)], HashSet::new()),
            };
            if explicit_proxy && service.is_some() {
                (domains, short) = with_ports(domains, short, wrapper.port);
            }
            let mut domains = without_duplicates(domains, &mut taken, &short, &known);
            // Names without port mean port 80; of several ports, the first has them, even if it does not keep them.
            if explicit_proxy && wrapper.port != 80 {
                domains.retain(|domain| domain.contains(':'));
            }
            if domains.is_empty() {
                continue;
            }
            out.push(VirtualHost {
                name,
                domains,
                routes: wrapper.routes.clone(),
                include_request_attempt_count: attempt_count(context),
                ..Default::default()
            });
        }
    }
    out
}

/// Domains for clients that use the listener as an HTTP proxy: without the port and with it.
fn with_ports(
    domains: Vec<String>,
    short: HashSet<String>,
    port: u32,
) -> (Vec<String>, HashSet<String>) {
    let mut out = Vec::new();
    let mut short_out = HashSet::new();
    for domain in domains {
        let forms = [domain.clone(), format!("{domain}:{port}")];
        if short.contains(&domain) {
            short_out.extend(forms.iter().cloned());
        }
        out.extend(forms);
    }
    (out, short_out)
}

/// Whether requests say how many attempts they took.
pub(crate) fn attempt_count(context: &Context<'_>) -> bool {
    let headers = context.proxy_config.proxy_headers.as_ref();
    headers
        .and_then(|headers| headers.attempt_count.as_ref())
        .and_then(|switch| switch.disabled)
        != Some(true)
}

/// The virtual host for unknown hosts.
#[allow(deprecated)] // max_grpc_timeout: istiod still writes it
pub(crate) fn catch_all(context: &Context<'_>) -> VirtualHost {
    let (name, action) = match context.scope.mode {
        OutboundTrafficPolicyMode::RegistryOnly => (
            "block_all",
            route::Action::DirectResponse(DirectResponseAction {
                status: 502,
                ..Default::default()
            }),
        ),
        OutboundTrafficPolicyMode::AllowAny | OutboundTrafficPolicyMode::AllowAnyDynamicDns => {
            let dynamic = context.scope.mode == OutboundTrafficPolicyMode::AllowAnyDynamicDns;
            let cluster = match &context.scope.egress_proxy {
                Some(cluster) => cluster.clone(),
                None if dynamic => crate::dynamic_dns::ANY_CLUSTER.to_owned(),
                None => names::PASSTHROUGH.to_owned(),
            };
            let action = RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
                timeout: Some(seconds(0)),
                max_grpc_timeout: Some(seconds(0)),
                append_x_forwarded_host: context.x_forwarded_host(),
                ..Default::default()
            };
            (
                if dynamic {
                    "allow_any_dynamic_dns"
                } else {
                    "allow_any"
                },
                route::Action::Route(action),
            )
        }
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            r#match: Some(matches::route_match(None, false)),
            action: Some(action),
            ..Default::default()
        }],
        include_request_attempt_count: attempt_count(context),
        ..Default::default()
    }
}
