//! The listener that redirected inbound connections arrive at, with chains for every port and mTLS mode.

use super::inspectors;
use super::virtual_outbound::black_hole;
use crate::ProxyInfo;
use crate::cluster::tls::{OWN_CERTIFICATE, ROOT_CERTIFICATES, combined_with, secret};
use crate::context::{Context, ListenerClass};
use crate::hcm::{self, HcmSpec, Routes};
use crate::inbound_targets::InboundTarget;
use crate::names;
use crate::network_filters::{
    logged_proxy, metadata_exchange, stats, tcp_proxy_filter, with_protocol,
};
use crate::proto::{address, config_metadata, seconds, transport_socket};
use crate::protocol::{Class, Protocol};
use crate::proxy_info::Interception;
use crate::security;
use api::istio::{CaptureMode, MutualTlsMode, TlsProtocol};
use std::collections::BTreeSet;
use xds::envoy::config::core::v3::{Metadata, TrafficDirection, TransportSocket};
use xds::envoy::config::listener::v3::listener::ConnectionBalanceConfig;
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use xds::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use xds::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, route,
};
use xds::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

/// Where inbound connections arrive by default.
const PORT: u32 = 15006;
const CLASS: ListenerClass = ListenerClass::SidecarInbound;
/// Application protocols of HTTP from another proxy of the mesh.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Application protocols of TCP from another proxy of the mesh.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// All of the above.
pub(crate) const MESH_ALL: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];

/// What the chains of a port have in common.
struct Place<'a> {
    target: Option<&'a InboundTarget<'a>>,
    /// 0: all ports that have no chains of their own.
    port: u32,
    cluster: String,
    protocol: Protocol,
    name: String,
    stat_prefix: String,
}

/// One chain of the matrix: what it matches and what it does.
struct Kind {
    tls: bool,
    alpn: &'static [&'static str],
    terminate: bool,
    http: bool,
}

const fn kind(tls: bool, alpn: &'static [&'static str], terminate: bool, http: bool) -> Kind {
    Kind {
        tls,
        alpn,
        terminate,
        http,
    }
}

/// The chains for a protocol and an mTLS mode, in order.
fn matrix(class: Class, mode: MutualTlsMode) -> Vec<Kind> {
    const PLAIN_HTTP: &[&str] = &super::filter_chain::PLAIN_HTTP;
    match (class, mode) {
        (Class::Http, MutualTlsMode::Disable) => vec![kind(false, &[], false, true)],
        (Class::Http, MutualTlsMode::Strict) => vec![kind(true, &[], true, true)],
        (Class::Http, _) => vec![
            kind(true, &MESH_ALL, true, true),
            kind(false, &[], false, true),
        ],
        (Class::Tcp, MutualTlsMode::Disable) => vec![kind(false, &[], false, false)],
        (Class::Tcp, MutualTlsMode::Strict) => vec![kind(true, &[], true, false)],
        (Class::Tcp, _) => {
            vec![
                kind(true, &MESH_ALL, true, false),
                kind(true, &[], false, false),
                kind(false, &[], false, false),
            ]
        }
        (Class::Auto, MutualTlsMode::Disable) => vec![
            kind(false, PLAIN_HTTP, false, true),
            kind(false, &[], false, false),
        ],
        (Class::Auto, MutualTlsMode::Strict) => vec![
            kind(true, &MESH_HTTP, true, true),
            kind(true, &[], true, false),
        ],
        (Class::Auto, _) => vec![
            kind(true, &MESH_HTTP, true, true),
            kind(false, PLAIN_HTTP, false, true),
            kind(true, &MESH_TCP, true, false),
            kind(false, &[], false, false),
            kind(true, &[], false, false),
        ],
    }
}

/// `virtualInbound`, and listeners that the application's clients reach without redirection.
pub(crate) fn listeners(context: &Context<'_>, targets: &[InboundTarget<'_>]) -> Vec<Listener> {
    let proxy = context.proxy;
    let modes = context
        .snapshot
        .peer_policies
        .of_workload(&proxy.namespace, &proxy.labels);
    let mut out = Vec::new();
    let mut chains = Chains::default();
    let port = context
        .snapshot
        .mesh
        .proxy_inbound_listen_port
        .unwrap_or(PORT);
    let mut blocked = black_hole(context, CLASS, "virtualInbound-blackhole", port);
    blocked.filters.splice(0..0, metadata_exchange(context));
    chains.none.insert(port);
    chains.list.push(blocked);
    let declared: BTreeSet<u32> = targets.iter().map(|target| target.port).collect();
    chains.add(context, &passthrough(0), modes.mode);
    for (port, mode) in modes
        .ports
        .iter()
        .filter(|(port, _)| !declared.contains(port))
    {
        chains.add(context, &passthrough(*port), *mode);
    }
    let mut ordered: Vec<&InboundTarget<'_>> = Vec::new();
    for target in targets.iter().filter(|target| !reserved(context, target)) {
        // Of ingress listeners with one port, the first counts.
        if !ordered.iter().any(|other| other.port == target.port) {
            ordered.push(target);
        }
    }
    ordered.sort_by_key(|target| target.port);
    for target in ordered {
        let place = place(context, target);
        let unbound = proxy.interception == Interception::None
            || target
                .ingress
                .is_some_and(|ingress| ingress.capture_mode == CaptureMode::None);
        if unbound {
            if target.ingress.is_some() {
                out.push(own_listener(
                    context,
                    target,
                    &place,
                    modes.of_port(target.port),
                ));
            }
            continue;
        }
        chains.add(context, &place, modes.of_port(target.port));
    }
    if proxy.interception == Interception::None {
        return out;
    }
    let mut filters = vec![inspectors::original_dst()];
    if proxy.interception == Interception::Tproxy {
        filters.push(inspectors::original_src());
    }
    filters.extend(chains.tls_inspector());
    filters.extend(chains.http_inspector());
    out.push(Listener {
        name: "virtualInbound".to_owned(),
        address: Some(address("0.0.0.0", port)),
        traffic_direction: TrafficDirection::Inbound as i32,
        continue_on_listener_filters_timeout: true,
        max_connections_to_accept_per_socket_event: Some(1),
        access_log: context.logs.listener(CLASS),
        transparent: (proxy.interception == Interception::Tproxy).then_some(true),
        connection_balance_config: balance(proxy),
        filter_chains: chains.list,
        listener_filters: filters,
        listener_filters_timeout: Some(inspectors::timeout(context, true)),
        ..Default::default()
    });
    out
}

fn balance(proxy: &ProxyInfo) -> Option<ConnectionBalanceConfig> {
    super::balance(proxy, "INBOUND_LISTENER_EXACT_BALANCE")
}

/// Whether the proxy itself listens on the port: for health and metrics, and where captured connections arrive.
fn reserved(context: &Context<'_>, target: &InboundTarget<'_>) -> bool {
    let wildcard = match target.ingress {
        None => true,
        Some(ingress) if ingress.bind.is_empty() => target.protocol.is_http(),
        Some(ingress) => ingress.bind == "0.0.0.0",
    };
    let mesh = &context.snapshot.mesh;
    let static_port = super::is_static_port(context.proxy, target.port);
    // Ingress listeners are not compared with the ports of captured connections.
    let captured = target.ingress.is_none()
        && (target.port == mesh.proxy_listen_port.unwrap_or(15001)
            || target.port == mesh.proxy_inbound_listen_port.unwrap_or(PORT));
    wildcard && (static_port || captured)
}

/// Chains and what they need to know about connections, by port.
#[derive(Default)]
struct Chains {
    list: Vec<FilterChain>,
    tls: BTreeSet<u32>,
    http: BTreeSet<u32>,
    /// Ports with chains that need nothing.
    none: BTreeSet<u32>,
    tls_everywhere: bool,
    http_everywhere: bool,
}

impl Chains {
    fn add(&mut self, context: &Context<'_>, place: &Place<'_>, mode: MutualTlsMode) {
        let kinds = matrix(place.protocol.class(), mode);
        let needs_tls = kinds.iter().any(|kind| kind.tls);
        let needs_http = place.protocol.class() == Class::Auto
            && kinds.iter().any(|kind| !kind.tls && kind.http);
        if place.port == 0 {
            self.tls_everywhere = needs_tls;
            self.http_everywhere = needs_http;
        } else {
            self.none.insert(place.port);
            if needs_tls {
                self.tls.insert(place.port);
            }
            if needs_http {
                self.http.insert(place.port);
            }
        }
        self.list
            .extend(kinds.iter().map(|kind| chain(context, place, kind)));
    }

    fn tls_inspector(&self) -> Option<xds::envoy::config::listener::v3::ListenerFilter> {
        if !self.tls_everywhere && self.tls.is_empty() {
            return None;
        }
        let mut filter = inspectors::tls();
        filter.filter_disabled = if self.tls_everywhere {
            inspectors::ports(&self.none.difference(&self.tls).copied().collect())
        } else {
            inspectors::ports(&self.tls).map(inspectors::not)
        };
        Some(filter)
    }

    fn http_inspector(&self) -> Option<xds::envoy::config::listener::v3::ListenerFilter> {
        if !self.http_everywhere && self.http.is_empty() {
            return None;
        }
        let mut ports: BTreeSet<u32> = self.none.difference(&self.http).copied().collect();
        if !self.http_everywhere {
            ports.insert(0);
        }
        let mut filter = inspectors::http();
        filter.filter_disabled = inspectors::ports(&ports);
        Some(filter)
    }
}

fn passthrough(port: u32) -> Place<'static> {
    Place {
        target: None,
        port,
        cluster: names::INBOUND_PASSTHROUGH.to_owned(),
        protocol: Protocol::Auto,
        name: String::new(),
        stat_prefix: names::INBOUND_PASSTHROUGH.to_owned(),
    }
}

fn place<'a>(context: &Context<'_>, target: &'a InboundTarget<'_>) -> Place<'a> {
    let bind = match target.ingress {
        None => "0.0.0.0",
        Some(ingress) if ingress.bind.is_empty() => context.proxy.ip(),
        Some(ingress) => &ingress.bind,
    };
    Place {
        target: Some(target),
        port: target.port,
        cluster: names::inbound(target.port),
        protocol: target.protocol,
        name: format!("{bind}_{}", target.port),
        stat_prefix: format!("inbound_{bind}_{}", target.port),
    }
}

fn chain(context: &Context<'_>, place: &Place<'_>, kind: &Kind) -> FilterChain {
    let mut filters: Vec<Filter> = metadata_exchange(context).into_iter().collect();
    if kind.http {
        filters.push(http(context, place));
    } else {
        filters.extend(security::tcp_policies(context));
        filters.extend(stats(context, CLASS));
        let mut proxy = logged_proxy(context, CLASS, &place.cluster);
        proxy.stat_prefix = tcp_stat_prefix(context, place);
        filters.push(tcp_proxy_filter(&proxy));
        filters = with_protocol(filters, place.protocol, &proxy.stat_prefix);
    }
    let name = match (place.target.is_some(), kind.http) {
        (true, _) => place.name.clone(),
        (false, true) => "virtualInbound-catchall-http".to_owned(),
        (false, false) => "virtualInbound".to_owned(),
    };
    FilterChain {
        name,
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(place.port).filter(|port| *port != 0),
            transport_protocol: if kind.tls { "tls" } else { "raw_buffer" }.to_owned(),
            application_protocols: kind.alpn.iter().map(|alpn| (*alpn).to_owned()).collect(),
            ..Default::default()
        }),
        filters,
        metadata: sidecar_origin(context, place),
        transport_socket: kind.terminate.then(|| server_tls(context, kind.http)),
        ..Default::default()
    }
}

/// The statistics name of connections that are not HTTP.
fn tcp_stat_prefix(context: &Context<'_>, place: &Place<'_>) -> String {
    let pattern = &context.snapshot.mesh.inbound_cluster_stat_name;
    if pattern.is_empty() {
        return place.cluster.clone();
    }
    let service_port = place.target.map_or(0, InboundTarget::service_port);
    let name = match place.target {
        None => "virtualInbound",
        Some(target) => target.port_name(),
    };
    let ingress = place.target.is_some_and(|target| target.ingress.is_some());
    let service = place.target.and_then(InboundTarget::service);
    let host = match (ingress, context.scope.sidecar, service) {
        (true, Some(sidecar), _) => format!("{}.{}", sidecar.name, sidecar.namespace),
        (false, _, Some(service)) => service.host.clone(),
        _ => String::new(),
    };
    let service = service.filter(|service| service.kubernetes && !ingress);
    let (short, plain) = match service {
        Some(service) => (
            format!("{}.{}", service.name, service.namespace),
            service.name.clone(),
        ),
        None => (host.clone(), host.clone()),
    };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &plain)
        .replace("%SERVICE_FQDN%", &host)
        .replace("%SUBSET_NAME%", "")
        .replace("%SERVICE_PORT%", &service_port.to_string())
        .replace("%SERVICE_PORT_NAME%", name)
}

/// The Sidecar object that a port comes from.
fn sidecar_origin(context: &Context<'_>, place: &Place<'_>) -> Option<Metadata> {
    place.target?.ingress?;
    let sidecar = context.scope.sidecar?;
    Some(config_metadata(names::config_path(
        "sidecar",
        &sidecar.namespace,
        &sidecar.name,
    )))
}

fn http(context: &Context<'_>, place: &Place<'_>) -> Filter {
    let routes = Routes::Inline(Box::new(routes(context, place)));
    let mut spec = HcmSpec::new(CLASS, place.stat_prefix.clone(), routes, place.protocol);
    spec.policies = security::http_policies(context, CLASS);
    hcm::filter(context, spec)
}

fn routes(context: &Context<'_>, place: &Place<'_>) -> RouteConfiguration {
    let service_port = place.target.map_or(0, InboundTarget::service_port);
    let ingress = place.target.is_some_and(|target| target.ingress.is_some());
    let host = match context.scope.sidecar.filter(|_| ingress) {
        Some(sidecar) => format!("{}.{}", sidecar.name, sidecar.namespace),
        None => place
            .target
            .and_then(InboundTarget::service)
            .map(|service| service.host.clone())
            .unwrap_or_default(),
    };
    let retry = RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(2),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(place.cluster.clone())),
        timeout: Some(seconds(0)),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(seconds(0)),
            grpc_timeout_header_max: Some(seconds(0)),
            ..Default::default()
        }),
        retry_policy: (!place.protocol.is_grpc()).then_some(retry),
        ..Default::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(crate::route::matches::route_match(None, false)),
        decorator: Some(Decorator {
            operation: format!("{host}:{service_port}/*"),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    RouteConfiguration {
        name: place.cluster.clone(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{service_port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        }],
        validate_clusters: Some(false),
        ..Default::default()
    }
}

/// A listener of its own, for workloads without redirection.
fn own_listener(
    context: &Context<'_>,
    target: &InboundTarget<'_>,
    place: &Place<'_>,
    mode: MutualTlsMode,
) -> Listener {
    let bind = target
        .ingress
        .map(|ingress| ingress.bind.as_str())
        .filter(|bind| !bind.is_empty())
        .unwrap_or(context.proxy.ip());
    let mut chains = Chains::default();
    chains.add(context, place, mode);
    let mut filters = Vec::new();
    filters.extend(chains.tls_inspector());
    filters.extend(chains.http_inspector());
    Listener {
        name: names::listener(bind, target.port),
        address: Some(address(bind, target.port)),
        traffic_direction: TrafficDirection::Inbound as i32,
        continue_on_listener_filters_timeout: true,
        max_connections_to_accept_per_socket_event: Some(1),
        connection_balance_config: balance(context.proxy),
        access_log: context.logs.listener(CLASS),
        filter_chains: chains.list,
        listener_filters: filters,
        listener_filters_timeout: Some(inspectors::timeout(context, !chains.http.is_empty())),
        ..Default::default()
    }
}

/// Mutual TLS of the server side.
pub(crate) fn server_tls(context: &Context<'_>, http: bool) -> TransportSocket {
    const CIPHERS: [&str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
    ];
    use tls::tls_parameters::TlsProtocol as Version;
    let mesh = &context.snapshot.mesh;
    let settings = mesh.mesh_mtls.as_ref();
    let own_ciphers = settings
        .map(|settings| settings.cipher_suites.clone())
        .filter(|list| !list.is_empty());
    let minimum =
        if settings.is_some_and(|settings| settings.min_protocol_version == TlsProtocol::V1_3) {
            Version::TlSv13
        } else {
            Version::TlSv12
        };
    let mut domains = mesh.trust_domain_aliases.clone();
    domains.sort();
    domains.retain(|domain| domain != mesh.trust_domain());
    domains.insert(0, mesh.trust_domain().to_owned());
    let names = domains
        .iter()
        .map(|domain| MatchPattern::Prefix(format!("spiffe://{domain}/")));
    let alpn: &[&str] = if http {
        &["h2", "http/1.1"]
    } else {
        &["istio-peer-exchange", "h2", "http/1.1"]
    };
    // Files that the proxy's metadata names take the place of the mesh's certificates.
    let file = |key: &str| context.proxy.metadata_text(key);
    let certificate = match (file("TLS_SERVER_CERT_CHAIN"), file("TLS_SERVER_KEY")) {
        ("", _) | (_, "") => secret(OWN_CERTIFICATE, false),
        (chain, key) => secret(&format!("file-cert:{chain}~{key}"), false),
    };
    let root = match file("TLS_SERVER_ROOT_CERT") {
        "" => secret(ROOT_CERTIFICATES, false),
        path => secret(&format!("file-root:{path}"), false),
    };
    let common = tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: minimum as i32,
            tls_maximum_protocol_version: Version::TlSv13 as i32,
            cipher_suites: own_ciphers.unwrap_or_else(|| CIPHERS.map(str::to_owned).to_vec()),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![certificate],
        alpn_protocols: alpn.iter().map(|alpn| (*alpn).to_owned()).collect(),
        validation_context_type: Some(combined_with(names, "", root)),
        ..Default::default()
    };
    let config = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(true),
        ..Default::default()
    };
    transport_socket("envoy.transport_sockets.tls", xds::any::pack(&config))
}
