//! Listeners of gateways.

use super::filter_chain::Chain;
use super::inbound::MESH_ALL;
use super::inspectors;
use super::tcp_routes;
use crate::cluster::outbound;
use crate::cluster::tls::{OWN_CERTIFICATE, ROOT_CERTIFICATES, combined, credential, secret};
use crate::context::{Context, ListenerClass};
use crate::gateway_servers::{GatewayServer, Kind, MergedServers, intersection};
use crate::hcm::{self, HcmSpec, Routes};
use crate::host;
use crate::names;
use crate::network_filters::{logged_proxy, outbound_chain};
use crate::proto::{address, transport_socket};
use crate::protocol::Protocol;
use crate::security;
use api::istio::{CIPHER_SUITES, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use std::collections::HashSet;
use xds::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use xds::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

const CLASS: ListenerClass = ListenerClass::Gateway;

pub(crate) fn listeners(context: &Context<'_>, merged: &MergedServers<'_>) -> Vec<Listener> {
    merged
        .listeners
        .iter()
        .filter_map(|((bind, port), servers)| listener(context, bind, *port, servers))
        .collect()
}

fn listener(
    context: &Context<'_>,
    bind: &str,
    port: u32,
    servers: &[GatewayServer<'_>],
) -> Option<Listener> {
    let bind = if bind.is_empty() { "0.0.0.0" } else { bind };
    let mut chains: Vec<FilterChain> = Vec::new();
    let mut plain_http = false;
    let mut sni_taken = HashSet::new();
    for server in servers {
        match server.kind() {
            Kind::PlainHttp if plain_http => {}
            Kind::PlainHttp => {
                plain_http = true;
                let filters = vec![http(context, server, format!("outbound_{bind}_{port}"))];
                chains.push(
                    Chain {
                        filters,
                        ..Chain::default()
                    }
                    .finish(),
                );
            }
            Kind::Https => {
                let filters = vec![http(context, server, format!("outbound_{bind}_{port}"))];
                chains.push(terminating(context, server, filters, true));
            }
            Kind::TlsTcp => {
                if let Some(filters) = tcp_filters(context, server) {
                    chains.push(terminating(context, server, filters, false));
                }
            }
            Kind::PlainTcp => {
                if let Some(filters) = tcp_filters(context, server) {
                    chains.push(
                        Chain {
                            filters,
                            ..Chain::default()
                        }
                        .finish(),
                    );
                }
            }
            Kind::Passthrough => chains.extend(passthrough(context, server, &mut sni_taken)),
            Kind::AutoPassthrough => chains.extend(auto_passthrough(context, server)),
        }
    }
    if chains.is_empty() {
        return None;
    }
    let mut out = Listener {
        name: names::listener(bind, port),
        address: Some(address(bind, port)),
        traffic_direction: TrafficDirection::Outbound as i32,
        max_connections_to_accept_per_socket_event: Some(1),
        connection_balance_config: super::balance(context.proxy, "OUTBOUND_LISTENER_EXACT_BALANCE"),
        access_log: context.logs.listener(CLASS),
        filter_chains: chains,
        ..Default::default()
    };
    if context
        .proxy_config
        .gateway_topology
        .as_ref()
        .is_some_and(|topology| topology.proxy_protocol.is_some())
    {
        out.listener_filters.push(inspectors::proxy_protocol());
    }
    if servers
        .iter()
        .any(|server| !matches!(server.kind(), Kind::PlainHttp | Kind::PlainTcp))
    {
        out.listener_filters.push(inspectors::tls());
    }
    let settings = context.connections.as_ref();
    out.per_connection_buffer_limit_bytes = settings
        .and_then(|settings| settings.listener_per_connection_buffer_limit_bytes)
        .and_then(|bytes| u32::try_from(bytes).ok());
    Some(out)
}

fn http(context: &Context<'_>, server: &GatewayServer<'_>, stat_prefix: String) -> Filter {
    let protocol = server
        .server
        .port
        .as_ref()
        .map_or(Protocol::Http, |port| Protocol::parse(&port.protocol));
    let mut spec = HcmSpec::new(
        CLASS,
        stat_prefix,
        Routes::Rds(server.route_name.clone()),
        protocol,
    );
    // A name of a server with TLS stands as it is.
    if server.kind() == Kind::Https && !server.server.name.is_empty() {
        spec.stat_prefix.clone_from(&server.server.name);
    }
    spec.policies = security::http_policies(context, CLASS);
    hcm::filter(context, spec)
}

/// A chain that ends TLS.
fn terminating(
    context: &Context<'_>,
    server: &GatewayServer<'_>,
    mut filters: Vec<Filter>,
    http: bool,
) -> FilterChain {
    let settings = server.server.tls.clone().unwrap_or_default();
    let mut server_names = server.plain_hosts();
    server_names.sort();
    server_names.dedup();
    if settings.mode == ServerTlsMode::IstioMutual && !http {
        filters.splice(0..0, crate::network_filters::metadata_exchange(context));
    }
    let any = server_names.iter().any(|name| name == "*");
    let chain = Chain {
        server_names: if any { Vec::new() } else { server_names },
        filters,
        ..Chain::default()
    };
    FilterChain {
        transport_socket: Some(server_tls(context, &settings, http)),
        ..chain.finish()
    }
}

/// TLS of a server.
fn server_tls(context: &Context<'_>, settings: &ServerTlsSettings, http: bool) -> TransportSocket {
    let mesh = settings.mode == ServerTlsMode::IstioMutual;
    let client = matches!(
        settings.mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    ) || mesh;
    let alpn: &[&str] = if mesh && !http {
        &["istio-peer-exchange", "h2", "http/1.1"]
    } else {
        &["h2", "http/1.1"]
    };
    let mut certificates = Vec::new();
    let mut root = None;
    if mesh {
        certificates.push(secret(OWN_CERTIFICATE, false));
        root = Some(secret(ROOT_CERTIFICATES, false));
    } else if !settings.credential_names.is_empty() || !settings.credential_name.is_empty() {
        if settings.credential_names.is_empty() {
            certificates.push(credential(&settings.credential_name));
        }
        certificates.extend(
            settings
                .credential_names
                .iter()
                .map(|name| credential(name)),
        );
        let first = settings
            .credential_names
            .first()
            .unwrap_or(&settings.credential_name);
        let ca = if settings.ca_cert_credential_name.is_empty() {
            format!("{first}-cacert")
        } else {
            settings.ca_cert_credential_name.clone()
        };
        root = Some(credential(&ca));
    } else {
        let file =
            |certificate: &str, key: &str| secret(&format!("file-cert:{certificate}~{key}"), false);
        if settings.tls_certificates.is_empty() {
            certificates.push(file(&settings.server_certificate, &settings.private_key));
        }
        certificates.extend(
            settings
                .tls_certificates
                .iter()
                .map(|own| file(&own.server_certificate, &own.private_key)),
        );
        if !settings.ca_certificates.is_empty() {
            root = Some(secret(
                &format!("file-root:{}", settings.ca_certificates),
                false,
            ));
        }
    }
    let by_credential =
        !settings.credential_names.is_empty() || !settings.credential_name.is_empty();
    let mut validation = None;
    if client && let Some(root) = root {
        validation = Some(combined(
            &settings.subject_alt_names,
            &settings.ca_crl,
            root,
        ));
        // With certificates in files, istiod leaves these out.
        if by_credential
            && let Some(tls::common_tls_context::ValidationContextType::CombinedValidationContext(
                context,
            )) = &mut validation
            && let Some(default) = &mut context.default_validation_context
        {
            default.verify_certificate_spki = settings.verify_certificate_spki.clone();
            default.verify_certificate_hash = settings.verify_certificate_hash.clone();
        }
    }
    if !client && by_credential && !settings.subject_alt_names.is_empty() {
        validation = Some(names_only(&settings.subject_alt_names));
    }
    let common = tls::CommonTlsContext {
        tls_params: params(context, settings),
        tls_certificate_sds_secret_configs: certificates,
        alpn_protocols: alpn.iter().map(|alpn| (*alpn).to_owned()).collect(),
        validation_context_type: validation,
        ..Default::default()
    };
    let config = tls::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(client && settings.mode != ServerTlsMode::OptionalMutual),
        ..Default::default()
    };
    transport_socket("envoy.transport_sockets.tls", xds::any::pack(&config))
}

/// Names of a peer whose certificate is not checked, as istiod writes them.
#[allow(deprecated)] // istiod still writes match_subject_alt_names
fn names_only(names: &[String]) -> tls::common_tls_context::ValidationContextType {
    let matchers = names.iter().map(|name| StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(name.clone())),
        ..Default::default()
    });
    tls::common_tls_context::ValidationContextType::ValidationContext(
        tls::CertificateValidationContext {
            match_subject_alt_names: matchers.collect(),
            ..Default::default()
        },
    )
}

/// Ciphers that Envoy knows, each once.
fn known_ciphers(wanted: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for cipher in wanted {
        if CIPHER_SUITES.contains(&cipher.as_str()) && !out.contains(cipher) {
            out.push(cipher.clone());
        }
    }
    out
}

/// Versions, ciphers and curves: those of the server, else those of the mesh.
fn params(context: &Context<'_>, settings: &ServerTlsSettings) -> Option<tls::TlsParameters> {
    use tls::tls_parameters::TlsProtocol as Version;
    let version = |version: TlsProtocol| match version {
        TlsProtocol::TlsAuto => Version::TlsAuto,
        TlsProtocol::V1_0 => Version::TlSv10,
        TlsProtocol::V1_1 => Version::TlSv11,
        TlsProtocol::V1_2 => Version::TlSv12,
        TlsProtocol::V1_3 => Version::TlSv13,
    };
    if !matches!(
        settings.mode,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    ) {
        return None;
    }
    let mut out = tls::TlsParameters::default();
    if let Some(defaults) = &context.snapshot.mesh.tls_defaults {
        out.ecdh_curves.clone_from(&defaults.ecdh_curves);
        out.cipher_suites.clone_from(&defaults.cipher_suites);
        out.tls_minimum_protocol_version = version(defaults.min_protocol_version) as i32;
    }
    if settings.min_protocol_version != TlsProtocol::TlsAuto {
        out.tls_minimum_protocol_version = version(settings.min_protocol_version) as i32;
    }
    if settings.max_protocol_version != TlsProtocol::TlsAuto {
        out.tls_maximum_protocol_version = version(settings.max_protocol_version) as i32;
    }
    let ciphers = known_ciphers(&settings.cipher_suites);
    if !settings.cipher_suites.is_empty() {
        out.cipher_suites = ciphers;
    }
    let said = out != tls::TlsParameters::default() || !settings.cipher_suites.is_empty();
    said.then_some(out)
}

/// Authorization before everything else.
fn guarded(context: &Context<'_>, filters: Vec<Filter>) -> Vec<Filter> {
    let mut out = security::tcp_policies(context);
    out.extend(filters);
    out
}

/// The filters of the first `tcp` rule that is for this server.
fn tcp_filters(context: &Context<'_>, server: &GatewayServer<'_>) -> Option<Vec<Filter>> {
    for config in &context.scope.listeners.first()?.virtual_services {
        if !config.is_for_gateway(&server.gateway) || !intersects(server, config) {
            continue;
        }
        for rule in config.spec.tcp.iter().filter(|rule| !rule.route.is_empty()) {
            if rule.matches.is_empty()
                || rule
                    .matches
                    .iter()
                    .any(|condition| holds(server, condition.port, &condition.gateways))
            {
                return Some(guarded(
                    context,
                    tcp_routes::filters(
                        context,
                        CLASS,
                        config,
                        &rule.route,
                        (server.declared_port(), server.port_name()),
                        server.protocol(),
                    ),
                ));
            }
        }
    }
    None
}

fn intersects(
    server: &GatewayServer<'_>,
    config: &crate::virtual_service::VirtualServiceConfig,
) -> bool {
    let hosts: Vec<&str> = config.spec.hosts.iter().map(String::as_str).collect();
    !intersection(&server.hosts_for(&config.namespace), &hosts).is_empty()
}

/// Whether a rule is for this server. On gateways only its port and its gateway are looked at, not who asks.
fn holds(server: &GatewayServer<'_>, port: u32, gateways: &[String]) -> bool {
    (port == 0 || port == server.declared_port())
        && (gateways.is_empty() || gateways.contains(&server.gateway))
}

/// Chains that forward by server name, from `tls` rules.
fn passthrough(
    context: &Context<'_>,
    server: &GatewayServer<'_>,
    taken: &mut HashSet<String>,
) -> Vec<FilterChain> {
    let mut out = Vec::new();
    for config in context
        .scope
        .listeners
        .iter()
        .flat_map(|listener| &listener.virtual_services)
    {
        if !config.is_for_gateway(&server.gateway) || !intersects(server, config) {
            continue;
        }
        for rule in config.spec.tls.iter().filter(|rule| !rule.route.is_empty()) {
            for condition in rule
                .matches
                .iter()
                .filter(|condition| holds(server, condition.port, &condition.gateways))
            {
                if condition.sni_hosts.iter().any(|name| taken.contains(name)) {
                    continue;
                }
                taken.extend(condition.sni_hosts.iter().cloned());
                let filters = guarded(
                    context,
                    tcp_routes::filters(
                        context,
                        CLASS,
                        config,
                        &rule.route,
                        (server.declared_port(), server.port_name()),
                        server.protocol(),
                    ),
                );
                out.push(
                    Chain {
                        server_names: condition.sni_hosts.clone(),
                        filters,
                        ..Chain::default()
                    }
                    .finish(),
                );
            }
        }
    }
    out
}

/// Chains whose server name is the name of a cluster.
fn auto_passthrough(context: &Context<'_>, server: &GatewayServer<'_>) -> Vec<FilterChain> {
    let mut out = Vec::new();
    // Here the namespace before a host does not count.
    let hosts = server.plain_hosts();
    for service in context
        .scope
        .services
        .iter()
        .filter(|service| !service.mesh_external && service.external_name.is_none())
    {
        if !hosts
            .iter()
            .any(|name| host::subset_of(&service.host, name))
        {
            continue;
        }
        let rule = context.snapshot.destination_rules.outbound(
            context.proxy,
            &service.host,
            &service.namespace,
        );
        for port in outbound::ports(service) {
            let subsets = rule
                .iter()
                .flat_map(|rule| &rule.spec.subsets)
                .map(|subset| subset.name.as_str());
            for subset in [""].into_iter().chain(subsets) {
                let cluster = names::outbound_sni(port.number, subset, &service.host);
                let mut proxy = logged_proxy(context, CLASS, &cluster);
                let pattern = &context.snapshot.mesh.outbound_cluster_stat_name;
                if !pattern.is_empty() {
                    proxy.stat_prefix =
                        names::filled(pattern, service, &service.host, subset, port, 0);
                }
                crate::network_filters::apply_rule(&mut proxy, rule.map(AsRef::as_ref), subset);
                proxy.tunneling_config = None;
                let chain = Chain {
                    server_names: vec![cluster],
                    filters: outbound_chain(context, CLASS, &proxy),
                    ..Chain::default()
                };
                let mut chain = chain.finish();
                let condition = chain
                    .filter_chain_match
                    .get_or_insert_with(FilterChainMatch::default);
                condition.application_protocols = MESH_ALL.map(str::to_owned).to_vec();
                out.push(chain);
            }
        }
    }
    out
}
