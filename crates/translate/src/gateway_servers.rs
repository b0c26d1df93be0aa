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

impl<'a> MergedServers<'a> {
    pub(crate) fn new(context: &Context<'a>) -> Self {
        let snapshot = context.snapshot;
        let mut out = Self {
            listeners: BTreeMap::new(),
            auto_passthrough: false,
        };
        let services = inbound_targets::services(context);
        let mut tls_hosts: HashMap<(u32, String), HashSet<String>> = HashMap::new();
        let mut route_names: HashSet<String> = HashSet::new();
        for gateway in snapshot
            .gateways
            .iter()
            .filter(|gateway| selects(&gateway.spec.selector, &context.proxy.labels))
        {
            for (index, server) in gateway.spec.servers.iter().enumerate() {
                let Some(port) = &server.port else { continue };
                let object = || format!("Gateway/{}/{}", gateway.namespace, gateway.name);
                let hosts: Vec<String> = server
                    .hosts
                    .iter()
                    .map(|entry| match entry.strip_prefix("./") {
                        Some(name) => format!("{}/{name}", gateway.namespace),
                        None => entry.clone(),
                    })
                    .collect();
                let kind = kind(server);
                {
                    let bound_port = bound_port(context, &services, port.number);
                    let problem = |message: String| {
                        context.problem(Problem::new(
                            object(),
                            format!("spec.servers[{index}]"),
                            message,
                        ));
                    };
                    if context.proxy.unprivileged && bound_port < 1024 {
                        problem(format!(
                            "port {bound_port} cannot be bound by this gateway, which is not privileged; the server is left out"
                        ));
                        continue;
                    }
                    let has_tls = server.tls.is_some() && kind != Kind::PlainHttp;
                    if server.tls.is_some() {
                        let taken = tls_hosts
                            .entry((bound_port, server.bind.clone()))
                            .or_default();
                        if let Some(host) = hosts.iter().find(|host| taken.contains(*host)) {
                            problem(format!(
                                "host {host} has TLS on port {bound_port} already; the server is left out"
                            ));
                            continue;
                        }
                        taken.extend(hosts.iter().cloned());
                    }
                    let name = format!("{}/{}", gateway.namespace, gateway.name);
                    let entry = GatewayServer {
                        server,
                        gateway: name,
                        hosts: hosts.clone(),
                        bound_port,
                        route_name: route_name(
                            server,
                            kind,
                            bound_port,
                            &gateway.name,
                            &gateway.namespace,
                        ),
                    };
                    let key = (server.bind.clone(), bound_port);
                    let existing = out.listeners.entry(key).or_default();
                    if !fits(existing, kind, has_tls) {
                        problem(format!(
                            "port {bound_port} is used by a server of another kind; the server is left out"
                        ));
                        continue;
                    }
                    if kind == Kind::Https && !route_names.insert(entry.route_name.clone()) {
                        problem("its port name is not unique; the server is left out".to_owned());
                        continue;
                    }
                    out.auto_passthrough |= kind == Kind::AutoPassthrough;
                    existing.push(entry);
                }
            }
        }
        out.listeners.retain(|_, servers| !servers.is_empty());
        out
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

/// Whether a further server may share a port. Plain HTTP takes plain HTTP only; servers with TLS are told apart by server name.
fn fits(existing: &[GatewayServer<'_>], kind: Kind, has_tls: bool) -> bool {
    let Some(first) = existing.first() else {
        return true;
    };
    match first.kind() {
        Kind::PlainHttp => kind == Kind::PlainHttp,
        Kind::PlainTcp => kind == Kind::PlainTcp,
        _ => has_tls || kind == Kind::PlainHttp,
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
