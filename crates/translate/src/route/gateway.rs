//! Routes of gateways: those of all VirtualServices that are bound to a server, by host.

use super::configuration;
use super::http_route::{self, RouteScope};
use super::matches;
use super::sidecar::attempt_count;
use crate::context::Context;
use crate::gateway_servers::{GatewayServer, intersection};
use crate::host;
use std::collections::{BTreeMap, HashMap};
use xds::envoy::config::route::v3::{
    Route, RouteConfiguration, VirtualHost, virtual_host::TlsRequirementType,
};

/// Gateway, namespace and name of the VirtualServices that made the routes of a host.
type Sources = HashMap<String, Vec<(String, String, String)>>;

/// The route configuration that some servers share.
pub(crate) fn configuration_of(
    context: &Context<'_>,
    name: &str,
    servers: &[&GatewayServer<'_>],
) -> RouteConfiguration {
    let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
    let mut sources: Sources = HashMap::new();
    let mut built: HashMap<(String, String, String), Vec<Route>> = HashMap::new();
    for server in servers {
        add_server(context, server, &mut hosts, &mut sources, &mut built);
    }
    let mut virtual_hosts = if hosts.is_empty() {
        let port = servers.first().map_or(0, |server| server.declared_port());
        vec![VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..Default::default()
        }]
    } else {
        collapse(hosts, &sources)
    };
    for host in &mut virtual_hosts {
        let (last, first): (Vec<Route>, Vec<Route>) = std::mem::take(&mut host.routes)
            .into_iter()
            .partition(|route| route.r#match.as_ref().is_some_and(matches::is_catch_all));
        host.routes = first.into_iter().chain(last).collect();
    }
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    configuration(name.to_owned(), virtual_hosts)
}

fn add_server(
    context: &Context<'_>,
    server: &GatewayServer<'_>,
    hosts: &mut BTreeMap<String, VirtualHost>,
    sources: &mut Sources,
    built: &mut HashMap<(String, String, String), Vec<Route>>,
) {
    let port = server.declared_port();
    let redirect = server
        .server
        .tls
        .as_ref()
        .is_some_and(|tls| tls.https_redirect);
    let lookup = |name: &str| context.scope.service(name).cloned();
    let new_host = |name: &str, routes: Vec<Route>| VirtualHost {
        name: format!("{name}:{port}"),
        domains: vec![name.to_owned()],
        routes,
        include_request_attempt_count: attempt_count(context),
        require_tls: if redirect {
            TlsRequirementType::All as i32
        } else {
            0
        },
        ..Default::default()
    };
    for config in context
        .scope
        .listeners
        .iter()
        .flat_map(|listener| &listener.virtual_services)
    {
        // One that names the gateway twice has its rules twice.
        let named = config
            .spec
            .gateways
            .iter()
            .filter(|name| **name == server.gateway)
            .count();
        let own: Vec<&str> = config.spec.hosts.iter().map(String::as_str).collect();
        let common = intersection(&server.hosts_for(&config.namespace), &own);
        if named == 0 || common.is_empty() {
            continue;
        }
        let key = (
            server.gateway.clone(),
            config.namespace.clone(),
            config.name.clone(),
        );
        let routes = built.entry(key.clone()).or_insert_with(|| {
            let gateways = [server.gateway.as_str()];
            let scope = RouteScope {
                port,
                gateways: &gateways,
                tls: server.server.tls.is_some(),
                service: &lookup,
            };
            http_route::routes(context, config, &scope)
        });
        if routes.is_empty() {
            continue;
        }
        for name in std::iter::repeat_n(common, named).flatten() {
            let name = name.to_ascii_lowercase();
            match hosts.get_mut(&name) {
                Some(known) => {
                    known.routes.extend(routes.iter().cloned());
                    if redirect {
                        known.require_tls = TlsRequirementType::All as i32;
                    }
                }
                None => {
                    hosts.insert(name.clone(), new_host(&name, routes.clone()));
                }
            }
            sources.entry(name).or_default().push(key.clone());
        }
    }
    if redirect {
        for name in &server.hosts {
            let name = name.to_ascii_lowercase();
            match hosts.get_mut(&name) {
                Some(known) => known.require_tls = TlsRequirementType::All as i32,
                None => {
                    hosts.insert(name.clone(), new_host(&name, Vec::new()));
                }
            }
        }
    }
}

/// Hosts with routes of the same origin share a virtual host, which is called as the most specific of them.
fn collapse(hosts: BTreeMap<String, VirtualHost>, sources: &Sources) -> Vec<VirtualHost> {
    let mut sorted: Vec<(String, VirtualHost)> = hosts.into_iter().collect();
    sorted.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
    let origin = |domain: &String| sources.get(domain).map_or(&[][..], Vec::as_slice);
    let mut out: Vec<VirtualHost> = Vec::new();
    for (domain, host) in sorted {
        // Only the latest of an origin takes more in.
        let latest = out
            .iter_mut()
            .rfind(|other| origin(&other.domains[0]) == origin(&domain));
        match latest {
            Some(other) if other.require_tls == host.require_tls => other.domains.push(domain),
            _ => out.push(host),
        }
    }
    out
}
