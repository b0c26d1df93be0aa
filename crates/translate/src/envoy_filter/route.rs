//! Patches of route configurations, virtual hosts and routes.

use super::{GatewayPorts, Patch, Patches, list, merge};
use crate::context::ListenerClass;
use crate::names;
use api::istio::{ApplyTo, PatchOperation, RouteMatchAction};
use xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost, route::Action};

/// The patches that matter for routes of one direction.
pub(crate) struct RoutePatches<'a, 'b> {
    all: &'b Patches<'a>,
    class: ListenerClass,
    ports: &'b GatewayPorts,
    configurations: Vec<&'a Patch>,
    hosts: Vec<&'a Patch>,
    routes: Vec<&'a Patch>,
}

impl<'a> Patches<'a> {
    /// Those for routes of one direction.
    pub(crate) fn routes<'b>(
        &'b self,
        class: ListenerClass,
        ports: &'b GatewayPorts,
    ) -> RoutePatches<'a, 'b> {
        RoutePatches {
            all: self,
            class,
            ports,
            configurations: self.of(ApplyTo::RouteConfiguration, class),
            hosts: self.of(ApplyTo::VirtualHost, class),
            routes: self.of(ApplyTo::HttpRoute, class),
        }
    }
}

impl RoutePatches<'_, '_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.configurations.is_empty() && self.hosts.is_empty() && self.routes.is_empty()
    }

    /// Patches a route configuration.
    pub(crate) fn apply(&self, configuration: &mut RouteConfiguration) {
        let name = configuration.name.clone();
        for patch in &self.configurations {
            if patch.is_merge() && self.matches(patch, &name) {
                self.merge(configuration, patch);
            }
        }
        let hosts: Vec<&Patch> = self.matching(&self.hosts, &name);
        let routes: Vec<&Patch> = self.matching(&self.routes, &name);
        configuration
            .virtual_hosts
            .retain_mut(|host| self.virtual_host(host, &hosts, &routes));
        for patch in hosts {
            if patch.operation == PatchOperation::Add {
                configuration.virtual_hosts.extend(patch.message());
            }
        }
    }

    fn matching<'p>(&self, patches: &[&'p Patch], name: &str) -> Vec<&'p Patch> {
        patches
            .iter()
            .copied()
            .filter(|patch| self.matches(patch, name))
            .collect()
    }

    /// Whether the virtual host stays.
    fn virtual_host(&self, host: &mut VirtualHost, hosts: &[&Patch], routes: &[&Patch]) -> bool {
        for patch in hosts {
            if !is_host(patch, host) {
                continue;
            }
            match patch.operation {
                PatchOperation::Remove => return false,
                PatchOperation::Replace => {
                    if let Some(other) = patch.message() {
                        *host = other;
                    }
                }
                _ if patch.is_merge() => self.merge(host, patch),
                _ => {}
            }
        }
        let routes: Vec<&Patch> = routes
            .iter()
            .copied()
            .filter(|patch| is_host(patch, host))
            .collect();
        host.routes.retain_mut(|route| self.route(route, &routes));
        for patch in routes {
            let named = patch
                .routes
                .as_ref()
                .and_then(|wanted| wanted.vhost.as_ref())
                .is_some_and(|host| host.route.is_some());
            let first = patch.operation == PatchOperation::InsertFirst;
            let found = host.routes.iter().any(|route| is_route(patch, route));
            if patch.operation != PatchOperation::Remove && (!first || !named || found) {
                list::edit(&mut host.routes, patch, named, |route| {
                    is_route(patch, route)
                });
            }
        }
        true
    }

    /// Whether the route stays.
    fn route(&self, route: &mut Route, patches: &[&Patch]) -> bool {
        for patch in patches {
            if !is_route(patch, route) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if patch.is_merge() {
                self.merge(route, patch);
            }
        }
        true
    }

    fn merge<M: xds::Wire>(&self, target: &mut M, patch: &Patch) {
        if let Err(problem) = merge::message(target, patch) {
            self.all.report(problem);
        }
    }

    fn matches(&self, patch: &Patch, name: &str) -> bool {
        let Some(wanted) = &patch.routes else {
            return true;
        };
        if !wanted.name.is_empty() && wanted.name != name {
            return false;
        }
        if self.class != ListenerClass::Gateway {
            let port = match names::split(name) {
                Some((port, ..)) => Some(port),
                None => name.parse().ok(),
            };
            return wanted.port_number == 0 || Some(wanted.port_number) == port;
        }
        let own = GatewayRouteName::parse(name);
        let port = match self.ports.get(&own.port) {
            Some(ports) => ports.contains(&wanted.port_number),
            None => own.port == wanted.port_number,
        };
        (wanted.port_number == 0 || port)
            && (wanted.port_name.is_empty() || wanted.port_name == own.port_name)
            && (wanted.gateway.is_empty() || wanted.gateway == own.gateway)
    }
}

fn is_host(patch: &Patch, host: &VirtualHost) -> bool {
    let wanted = patch.routes.as_ref().and_then(|it| it.vhost.as_ref());
    wanted.is_none_or(|wanted| {
        (wanted.name.is_empty() || wanted.name == host.name)
            && (wanted.domain_name.is_empty() || host.domains.contains(&wanted.domain_name))
    })
}

fn is_route(patch: &Patch, route: &Route) -> bool {
    let wanted = patch.routes.as_ref().and_then(|it| it.vhost.as_ref());
    let Some(wanted) = wanted.and_then(|host| host.route.as_ref()) else {
        return true;
    };
    let action = match &route.action {
        Some(Action::Route(_)) => Some(RouteMatchAction::Route),
        Some(Action::Redirect(_)) => Some(RouteMatchAction::Redirect),
        Some(Action::DirectResponse(_)) => Some(RouteMatchAction::DirectResponse),
        _ => None,
    };
    (wanted.name.is_empty() || wanted.name == route.name)
        && (wanted.action == RouteMatchAction::Any
            || action.is_none_or(|action| action == wanted.action))
}

/// `http.<port>` or `https.<port>.<port name>.<gateway>.<namespace>`, each with or without an address behind.
#[derive(Default)]
struct GatewayRouteName<'a> {
    port: u32,
    port_name: &'a str,
    /// `namespace/name`; the route names of plain HTTP do not say it.
    gateway: String,
}

impl<'a> GatewayRouteName<'a> {
    fn parse(name: &'a str) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let port = parts.get(1).and_then(|port| port.parse().ok());
        match parts[..] {
            ["http", ..] => Self {
                port: port.unwrap_or_default(),
                ..Self::default()
            },
            ["https", _, port_name, gateway, namespace, ..] => Self {
                port: port.unwrap_or_default(),
                port_name,
                gateway: format!("{namespace}/{gateway}"),
            },
            _ => Self::default(),
        }
    }
}
