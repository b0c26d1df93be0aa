//! What a proxy can reach: its Sidecar object, or everything its namespace sees.

use crate::objects::{Config, selects};
use crate::registry::{Service, ServicePort};
use crate::virtual_service::{MESH_GATEWAY, VirtualServiceConfig};
use crate::{ProxyInfo, Snapshot, host};
use api::istio::{CaptureMode, IstioEgressListener, OutboundTrafficPolicyMode, Port, Sidecar};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// An outbound listener of a Sidecar, or the one for everything.
#[derive(Debug)]
pub(crate) struct EgressListener<'a> {
    /// Only for this port; `None` is for all others.
    pub(crate) port: Option<&'a Port>,
    pub(crate) bind: &'a str,
    pub(crate) capture: CaptureMode,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) virtual_services: Vec<&'a Arc<VirtualServiceConfig>>,
}

/// What a proxy can reach.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) sidecar: Option<&'a Config<Sidecar>>,
    pub(crate) listeners: Vec<EgressListener<'a>>,
    /// For clusters: of every host one service, but each of its addresses.
    pub(crate) services: Vec<Arc<Service>>,
    by_host: HashMap<String, Arc<Service>>,
    pub(crate) mode: OutboundTrafficPolicyMode,
    /// Where unknown traffic goes instead of its destination.
    pub(crate) egress_proxy: Option<String>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a ProxyInfo) -> Self {
        let sidecar = if proxy.is_router() {
            None
        } else {
            select(snapshot, proxy)
        };
        let visible = snapshot.services_visible_to(&proxy.namespace);
        let virtual_services: Vec<_> = snapshot
            .virtual_services_visible_to(&proxy.namespace)
            .filter(|config| proxy.is_router() || config.is_for_gateway(MESH_GATEWAY))
            .collect();
        let mut mode = snapshot.mesh.outbound_mode();
        let mut egress_proxy = None;
        if let Some(policy) =
            sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref())
        {
            mode = policy.mode;
            egress_proxy = policy.egress_proxy.as_ref().map(|target| {
                let host = host::resolve_short(&target.host, &proxy.namespace, &snapshot.domain);
                crate::names::outbound(
                    target.port.as_ref().map_or(0, |port| port.number),
                    &target.subset,
                    &host,
                )
            });
        }
        let mut scope = Self {
            sidecar,
            listeners: Vec::new(),
            services: Vec::new(),
            by_host: HashMap::new(),
            mode,
            egress_proxy,
        };
        match sidecar.filter(|sidecar| !sidecar.spec.egress.is_empty()) {
            None => {
                let services: Vec<Arc<Service>> = visible.into_iter().cloned().collect();
                // Gateways take whatever is oldest; Kubernetes services come first all the same.
                let services = if proxy.is_router() {
                    services
                } else {
                    one_namespace_each(services, &proxy.namespace)
                };
                scope.listeners.push(EgressListener {
                    port: None,
                    bind: "",
                    capture: CaptureMode::Default,
                    services,
                    virtual_services,
                });
            }
            Some(sidecar) => {
                for listener in &sidecar.spec.egress {
                    scope.listeners.push(imported(
                        listener,
                        &sidecar.namespace,
                        &proxy.namespace,
                        &visible,
                        &virtual_services,
                    ));
                }
            }
        }
        scope.collect_services(snapshot, proxy);
        scope
    }

    fn collect_services(&mut self, snapshot: &Snapshot, proxy: &ProxyInfo) {
        let listeners = std::mem::take(&mut self.listeners);
        for listener in &listeners {
            listener
                .services
                .iter()
                .for_each(|service| self.add(service));
            if self.sidecar.is_none() {
                continue;
            }
            for config in &listener.virtual_services {
                for (target, ports) in destinations(config, &proxy.namespace) {
                    let candidates: Vec<_> = snapshot
                        .registry
                        .services_of(target)
                        .filter(|service| {
                            service
                                .visibility
                                .allows(&service.namespace, &proxy.namespace)
                        })
                        .collect();
                    let own = candidates
                        .iter()
                        .find(|service| service.namespace == proxy.namespace);
                    // Else that of Kubernetes, else the oldest.
                    let best = own
                        .or_else(|| candidates.iter().find(|service| service.kubernetes))
                        .or_else(|| candidates.first());
                    let Some(service) = best else { continue };
                    let wanted = match only_port(listener.port) {
                        Some(port) => BTreeSet::from([port]),
                        None => ports,
                    };
                    if let Some(service) = with_ports(service, &wanted) {
                        self.add(&service);
                    }
                }
            }
        }
        self.listeners = listeners;
    }

    /// Adds a service; ports of the same service from several listeners are united.
    fn add(&mut self, service: &Arc<Service>) {
        let key = service.host.to_ascii_lowercase();
        let Some(known) = self.by_host.get(&key).cloned() else {
            self.by_host.insert(key, service.clone());
            self.services.push(service.clone());
            return;
        };
        if known.kubernetes != service.kubernetes {
            // A ServiceEntry for a Kubernetes service adds endpoints, but no clusters.
            if service.kubernetes {
                if let Some(place) = self
                    .services
                    .iter_mut()
                    .find(|place| Arc::ptr_eq(place, &known))
                {
                    *place = service.clone();
                }
                self.by_host.insert(key, service.clone());
            }
            return;
        }
        let unlike = known.namespace != service.namespace
            || known.resolution != service.resolution
            || known.selector != service.selector
            || known.labels != service.labels
            || known.visibility != service.visibility;
        if unlike {
            return;
        }
        let missing: Vec<_> = service
            .ports
            .iter()
            .filter(|port| known.port(port.number).is_none())
            .cloned()
            .collect();
        if missing.is_empty() {
            // Another address of the same ServiceEntry.
            if !Arc::ptr_eq(&known, service) && known.address != service.address {
                self.services.push(service.clone());
            }
            return;
        }
        let mut united = Service::clone(&known);
        united.ports.extend(missing);
        let united = Arc::new(united);
        if let Some(place) = self
            .services
            .iter_mut()
            .find(|place| Arc::ptr_eq(place, &known))
        {
            *place = united.clone();
        }
        self.by_host.insert(key, united);
    }

    /// The service that a host means for this proxy.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_host
            .get(name)
            .or_else(|| self.by_host.get(&name.to_ascii_lowercase()))
    }
}

/// The Sidecar object of a proxy: with a matching selector, without one, that of the root namespace.
fn select<'a>(snapshot: &'a Snapshot, proxy: &ProxyInfo) -> Option<&'a Config<Sidecar>> {
    let own = || {
        snapshot
            .sidecars
            .iter()
            .filter(|sidecar| sidecar.namespace == proxy.namespace)
    };
    let has_selector = |sidecar: &Config<Sidecar>| sidecar.spec.workload_selector.is_some();
    own()
        .find(|sidecar| {
            sidecar
                .spec
                .workload_selector
                .as_ref()
                .is_some_and(|selector| selects(&selector.labels, &proxy.labels))
        })
        .or_else(|| own().find(|sidecar| !has_selector(sidecar)))
        .or_else(|| {
            let root = snapshot.mesh.root_namespace();
            snapshot
                .sidecars
                .iter()
                .find(|sidecar| sidecar.namespace == root && !has_selector(sidecar))
        })
}

/// `namespace/host` entries of a listener.
struct Imports<'a> {
    wanted: Vec<(&'a str, &'a str)>,
    excluded: Vec<(&'a str, &'a str)>,
}

impl<'a> Imports<'a> {
    fn new(hosts: &'a [String], namespace: &'a str) -> Self {
        let mut out = Self {
            wanted: Vec::new(),
            excluded: Vec::new(),
        };
        for entry in hosts {
            let Some((owner, name)) = entry.split_once('/') else {
                continue;
            };
            let resolve = |owner: &'a str| if owner == "." { namespace } else { owner };
            match owner.strip_prefix('~') {
                Some("") => out.excluded.push(("*", name)),
                Some(excluded) => out.excluded.push((resolve(excluded), name)),
                None => out.wanted.push((resolve(owner), name)),
            }
        }
        out
    }

    /// Whether a host of a VirtualService is imported: one that has a name in common with an entry.
    fn touch(&self, owner: &str, name: &str) -> bool {
        let mut wanted = self.wanted.iter();
        !self.exclude(owner, name)
            && wanted.any(|(namespace, pattern)| {
                (*namespace == "*" || *namespace == owner) && host::matches(pattern, name)
            })
    }

    /// Whether a host of a service is imported: one whose names an entry covers.
    fn contain(&self, owner: &str, name: &str) -> bool {
        !self.exclude(owner, name) && covers(&self.wanted, owner, name)
    }

    fn exclude(&self, owner: &str, name: &str) -> bool {
        covers(&self.excluded, owner, name)
    }
}

fn covers(entries: &[(&str, &str)], owner: &str, name: &str) -> bool {
    entries.iter().any(|(namespace, pattern)| {
        (*namespace == "*" || *namespace == owner) && host::subset_of(name, pattern)
    })
}

fn imported<'a>(
    listener: &'a IstioEgressListener,
    sidecar_namespace: &'a str,
    namespace: &'a str,
    visible: &[&'a Arc<Service>],
    virtual_services: &[&'a Arc<VirtualServiceConfig>],
) -> EgressListener<'a> {
    let _ = sidecar_namespace;
    let imports = Imports::new(&listener.hosts, namespace);
    let wanted: BTreeSet<u32> = only_port(listener.port.as_ref()).into_iter().collect();
    let mut services = Vec::new();
    for service in visible {
        let aliased = service
            .aliases
            .iter()
            .any(|alias| imports.contain(&service.namespace, alias));
        if !imports.contain(&service.namespace, &service.host) && !aliased {
            continue;
        }
        services.extend(with_ports(service, &wanted));
    }
    EgressListener {
        port: listener.port.as_ref().filter(|port| port.number != 0),
        bind: &listener.bind,
        capture: listener.capture_mode,
        services: one_namespace_each(services, namespace),
        virtual_services: virtual_services
            .iter()
            .filter(|config| {
                config
                    .spec
                    .hosts
                    .iter()
                    .any(|name| imports.touch(&config.namespace, name))
            })
            .copied()
            .collect(),
    }
}

/// The port that services have to have for a listener; none for one that is an HTTP proxy.
fn only_port(port: Option<&Port>) -> Option<u32> {
    port.filter(|port| port.number != 0 && !port.protocol.eq_ignore_ascii_case("HTTP_PROXY"))
        .map(|port| port.number)
}

/// A service with some of its ports only; an empty list or 0 means all. `None` if it has none of them.
fn with_ports(service: &Arc<Service>, wanted: &BTreeSet<u32>) -> Option<Arc<Service>> {
    if wanted.is_empty() || wanted.contains(&0) {
        return Some(service.clone());
    }
    let has = |port: &ServicePort| wanted.contains(&port.number);
    let found = service.ports.iter().filter(|port| has(port)).count();
    if found == service.ports.len() && found > 0 {
        return Some(service.clone());
    }
    (found > 0).then(|| {
        let mut only = Service::clone(service);
        only.ports.retain(has);
        Arc::new(only)
    })
}

/// Of services of the same host, keeps those of one namespace: the client's, else that of a Kubernetes service, else the first.
fn one_namespace_each(services: Vec<Arc<Service>>, namespace: &str) -> Vec<Arc<Service>> {
    let mut chosen: HashMap<String, (String, bool)> = HashMap::new();
    for service in &services {
        let key = service.host.to_ascii_lowercase();
        match chosen.get(&key) {
            None => {
                chosen.insert(key, (service.namespace.clone(), service.kubernetes));
            }
            Some((owner, kubernetes)) => {
                let better = service.namespace == namespace
                    || owner != namespace && service.kubernetes && !kubernetes;
                if better {
                    chosen.insert(key, (service.namespace.clone(), service.kubernetes));
                }
            }
        }
    }
    services
        .into_iter()
        .filter(|service| chosen[&service.host.to_ascii_lowercase()].0 == service.namespace)
        .collect()
}

/// Hosts that the rules of a VirtualService lead to for clients of a namespace, with their ports; 0 means all.
fn destinations<'a>(
    config: &'a VirtualServiceConfig,
    namespace: &str,
) -> BTreeMap<&'a str, BTreeSet<u32>> {
    let http = config.spec.http.iter().filter(|route| {
        let mut named = route
            .matches
            .iter()
            .map(|condition| condition.source_namespace.as_str())
            .filter(|name| !name.is_empty())
            .peekable();
        named.peek().is_none() || named.any(|name| name == namespace)
    });
    let http = http.flat_map(|route| {
        route
            .route
            .iter()
            .map(|target| &target.destination)
            .chain(route.mirror.iter())
            .chain(route.mirrors.iter().map(|mirror| &mirror.destination))
    });
    let tcp = config.spec.tcp.iter().flat_map(|route| &route.route);
    let tls = config.spec.tls.iter().flat_map(|route| &route.route);
    let mut out: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for target in http
        .chain(tcp.map(|target| &target.destination))
        .chain(tls.map(|target| &target.destination))
    {
        let port = api::istio::HttpRoute::port(&target.port).unwrap_or(0);
        out.entry(target.host.as_str()).or_default().insert(port);
    }
    out
}
