//! The Gateway objects of a proxy, merged: which servers share an address and port, and which are left out.

use crate::context::Context;
use crate::inbound_targets;
use crate::objects::selects;
use crate::protocol::Protocol;
use crate::registry::kubernetes::Cluster;
use crate::registry::{Service, TargetPort};
use crate::{Problem, host};
use api::istio::{Server, ServerTlsMode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A service with this label does not say on which port its gateway listens.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A server of a Gateway object.
#[derive(Debug, Clone)]
pub(crate) struct GatewayServer<'a> {
    pub(crate) server: &'a Server,
    /// `namespace/name`.
    pub(crate) gateway: String,
    /// With `./` replaced by the namespace of the gateway.
    pub(crate) hosts: Vec<String>,
    /// The port of the listener.
    pub(crate) bound_port: u32,
    pub(crate) route_name: String,
}

/// What a server does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    PlainHttp,
    /// TLS is terminated, then HTTP.
    Https,
    /// TLS is terminated, then TCP.
    TlsTcp,
    Passthrough,
    AutoPassthrough,
    PlainTcp,
}

impl GatewayServer<'_> {
    pub(crate) fn declared_port(&self) -> u32 {
        self.server.port.as_ref().map_or(0, |port| port.number)
    }

    pub(crate) fn port_name(&self) -> &str {
        self.server.port.as_ref().map_or("", |port| &port.name)
    }

    pub(crate) fn protocol(&self) -> Protocol {
        Protocol::parse(&protocol(self.server))
    }

    pub(crate) fn kind(&self) -> Kind {
        kind(self.server)
    }

    /// The hosts that VirtualServices of a namespace may bind to.
    pub(crate) fn hosts_for(&self, namespace: &str) -> Vec<&str> {
        self.hosts
            .iter()
            .filter_map(|entry| match entry.split_once('/') {
                None => Some(entry.as_str()),
                Some((owner, name)) if owner == "*" || owner == namespace => Some(name),
                Some(_) => None,
            })
            .collect()
    }

    /// The hosts without namespaces.
    pub(crate) fn plain_hosts(&self) -> Vec<String> {
        self.hosts
            .iter()
            .map(|entry| {
                entry
                    .split_once('/')
                    .map_or(entry.as_str(), |(_, name)| name)
                    .to_owned()
            })
            .collect()
    }
}

fn protocol(server: &Server) -> String {
    server
        .port
        .as_ref()
        .map(|port| port.protocol.to_ascii_uppercase())
        .unwrap_or_default()
}

fn kind(server: &Server) -> Kind {
    let protocol = protocol(server);
    let tls = server
        .tls
        .as_ref()
        .filter(|tls| !tls.https_redirect || matches!(protocol.as_str(), "HTTPS" | "TLS"));
    let http = matches!(
        protocol.as_str(),
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY"
    );
    match tls {
        None if http => Kind::PlainHttp,
        None => Kind::PlainTcp,
        Some(_) if http => Kind::PlainHttp,
        Some(tls) => match tls.mode {
            ServerTlsMode::Passthrough => Kind::Passthrough,
            ServerTlsMode::AutoPassthrough => Kind::AutoPassthrough,
            _ if protocol == "HTTPS" => Kind::Https,
            _ => Kind::TlsTcp,
        },
    }
}

/// The servers of a gateway proxy by address and port.
pub(crate) struct MergedServers<'a> {
    pub(crate) listeners: BTreeMap<(String, u32), Vec<GatewayServer<'a>>>,
    /// Whether some server forwards by server names that name services.
    pub(crate) auto_passthrough: bool,
}

/// What tells servers of one gateway proxy apart: port of the listener, protocol as it is written, and bind.
type ServerPort = (u32, String, String);

/// The servers of a proxy while they are merged, in the order in which they come.
#[derive(Default)]
struct Merging<'a> {
    order: Vec<ServerPort>,
    merged: HashMap<ServerPort, Vec<GatewayServer<'a>>>,
    /// By port: the last address with a server without TLS.
    plain: HashMap<u32, ServerPort>,
    /// By port: binds of further servers on ports without a plain one.
    other_binds: HashMap<u32, HashSet<String>>,
    ports: HashSet<u32>,
    route_names: HashSet<String>,
    /// By port: hosts with TLS and the bind that had them last.
    tls_hosts: HashMap<u32, HashMap<String, String>>,
}

impl<'a> Merging<'a> {
    /// Takes a server, or says why it is left out.
    fn add(&mut self, entry: GatewayServer<'a>) -> Result<(), String> {
        let port = entry.bound_port;
        let kind = entry.kind();
        let key: ServerPort = (
            port,
            entry
                .server
                .port
                .as_ref()
                .map(|port| port.protocol.clone())
                .unwrap_or_default(),
            entry.server.bind.clone(),
        );
        let has_tls = !matches!(kind, Kind::PlainHttp | Kind::PlainTcp);
        if self.ports.insert(port) {
            self.start(key, entry);
            return Ok(());
        }
        let taken = || {
            Err(format!(
                "port {port} is used by a server of another kind; the server is left out"
            ))
        };
        if let Some(current) = self.plain.get(&port).cloned() {
            let http = |protocol: &str| Protocol::parse(protocol).is_http();
            if current.2 == key.2 {
                if !(http(&key.1) && http(&current.1)) || entry.route_name.is_empty() {
                    return taken();
                }
                self.merged.entry(current).or_default().push(entry);
            } else if let Some(servers) = self.merged.get_mut(&key) {
                self.route_names.insert(entry.route_name.clone());
                servers.push(entry);
            } else {
                self.start(key, entry);
            }
            return Ok(());
        }
        if !has_tls {
            self.start(key, entry);
            return Ok(());
        }
        if kind == Kind::Https && !self.route_names.insert(entry.route_name.clone()) {
            return Err("its port name is not unique; the server is left out".to_owned());
        }
        let new_bind = self
            .other_binds
            .entry(port)
            .or_default()
            .insert(key.2.clone());
        if entry.server.tls.is_none() && !new_bind {
            return taken();
        }
        if !self.merged.contains_key(&key) {
            self.order.push(key.clone());
        }
        self.merged.entry(key).or_default().push(entry);
        Ok(())
    }

    fn start(&mut self, key: ServerPort, entry: GatewayServer<'a>) {
        if matches!(entry.kind(), Kind::PlainHttp | Kind::PlainTcp) {
            self.plain.insert(key.0, key.clone());
        }
        if !entry.route_name.is_empty() {
            self.route_names.insert(entry.route_name.clone());
        }
        self.order.push(key.clone());
        self.merged.insert(key, vec![entry]);
    }

    /// A host of the server that has TLS on this port and bind already; else all of them have it from now on.
    fn repeated_host(&mut self, port: u32, bind: &str, hosts: &[String]) -> Option<String> {
        let known = self.tls_hosts.entry(port).or_default();
        let repeated = hosts
            .iter()
            .find(|host| known.get(*host).is_some_and(|own| own == bind));
        if repeated.is_none() {
            known.extend(hosts.iter().map(|host| (host.clone(), bind.to_owned())));
        }
        repeated.cloned()
    }
}

impl<'a> MergedServers<'a> {
    pub(crate) fn new(context: &Context<'a>) -> Self {
        let snapshot = context.snapshot;
        let services = inbound_targets::services(context);
        let mut merging = Merging::default();
        let mut auto_passthrough = false;
        for gateway in snapshot
            .gateways
            .iter()
            .filter(|gateway| selects(&gateway.spec.selector, &context.proxy.labels))
        {
            for (index, server) in gateway.spec.servers.iter().enumerate() {
                let Some(port) = &server.port else { continue };
                let hosts: Vec<String> = server
                    .hosts
                    .iter()
                    .map(|entry| match entry.strip_prefix("./") {
                        Some(name) => format!("{}/{name}", gateway.namespace),
                        None => entry.clone(),
                    })
                    .collect();
                let bound_port = bound_port(context, &services, port.number);
                let problem = |message: String| {
                    context.problem(Problem::new(
                        format!("Gateway/{}/{}", gateway.namespace, gateway.name),
                        format!("spec.servers[{index}]"),
                        message,
                    ));
                };
                if server.tls.is_some()
                    && let Some(host) = merging.repeated_host(bound_port, &server.bind, &hosts)
                {
                    problem(format!(
                        "host {host} has TLS on port {bound_port} already; the server is left out"
                    ));
                    continue;
                }
                let tls = server.tls.as_ref();
                auto_passthrough |=
                    tls.is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough);
                if context.proxy.unprivileged && bound_port < 1024 {
                    problem(format!(
                        "port {bound_port} cannot be bound by this gateway, which is not privileged; the server is left out"
                    ));
                }
                let route_name = route_name(
                    server,
                    kind(server),
                    bound_port,
                    &gateway.name,
                    &gateway.namespace,
                );
                let added = merging.add(GatewayServer {
                    server,
                    gateway: format!("{}/{}", gateway.namespace, gateway.name),
                    hosts,
                    bound_port,
                    route_name,
                });
                if let Err(message) = added {
                    problem(message);
                }
            }
        }
        let mut listeners: BTreeMap<(String, u32), Vec<GatewayServer<'a>>> = BTreeMap::new();
        for key in &merging.order {
            if context.proxy.unprivileged && key.0 < 1024 {
                continue;
            }
            let servers = merging.merged.get(key).into_iter().flatten().cloned();
            listeners
                .entry((key.2.clone(), key.0))
                .or_default()
                .extend(servers);
        }
        Self {
            listeners,
            auto_passthrough,
        }
    }

    /// The servers that share a route configuration.
    pub(crate) fn by_route_name(&self) -> BTreeMap<&str, Vec<&GatewayServer<'a>>> {
        let mut out: BTreeMap<&str, Vec<&GatewayServer<'a>>> = BTreeMap::new();
        for server in self
            .listeners
            .values()
            .flatten()
            .filter(|server| !server.route_name.is_empty())
        {
            out.entry(&server.route_name).or_default().push(server);
        }
        out
    }
}

/// The listener port of a declared port: the target port of the gateway's oldest service with that port, else the port itself.
fn bound_port(
    context: &Context<'_>,
    services: &[(Arc<Service>, crate::registry::ServicePort, u32)],
    declared: u32,
) -> u32 {
    let pod = context.own_pod().map(AsRef::as_ref);
    let mut found = services.iter().filter(|(service, port, _)| {
        service.kubernetes
            && port.number == declared
            && !service.labels.contains_key(NO_TRANSLATION)
    });
    if let Some((_, port, target)) = found.next() {
        let target = if matches!(port.target, TargetPort::Name(_)) {
            Cluster::target_port(port, pod)
        } else {
            *target
        };
        return target;
    }
    declared
}

fn route_name(
    server: &Server,
    kind: Kind,
    bound_port: u32,
    gateway: &str,
    namespace: &str,
) -> String {
    let bind = if server.bind.is_empty() {
        String::new()
    } else {
        format!(".{}", server.bind)
    };
    match kind {
        Kind::PlainHttp => format!("http.{bound_port}{bind}"),
        Kind::Https => {
            let port = server.port.as_ref();
            let (number, name) = port.map_or((0, ""), |port| (port.number, port.name.as_str()));
            format!("https.{number}.{name}.{gateway}.{namespace}{bind}")
        }
        _ => String::new(),
    }
}

/// Of two sets of hosts, those that both have; of a wildcard and a name it covers, the name.
pub(crate) fn intersection(a: &[&str], b: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for left in a {
        for right in b {
            let common = if host::subset_of(left, right) {
                left
            } else if host::subset_of(right, left) {
                right
            } else {
                continue;
            };
            if !out.iter().any(|known| known == common) {
                out.push((*common).to_owned());
            }
        }
    }
    out
}
