//! TLS towards the upstream: by a DestinationRule, or mutual TLS wherever the endpoint can.

use super::connection_pool::HttpOptions;
use crate::context::Context;
use crate::proto::{agent_sds, fields_of, istiod_sds, text, transport_socket};
use crate::registry::Service;
use crate::traffic_policy::Policy;
use api::istio::{
    ClientTlsMode, ClientTlsSettings, MutualTlsMode, ProxyProtocol, ProxyProtocolVersion,
};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, TransportSocketMatch,
};
use xds::envoy::config::core::v3::{
    DataSource, ProxyProtocolConfig, TransportSocket, UpstreamHttpProtocolOptions, data_source,
    proxy_protocol_config,
};
use xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

/// The secret with the proxy's own certificate.
pub(crate) const OWN_CERTIFICATE: &str = "default";
/// The secret with the mesh's root certificates.
pub(crate) const ROOT_CERTIFICATES: &str = "ROOTCA";

/// How credentials in ConfigMaps are named.
const CONFIG_MAP_SCHEME: &str = "configmap://";

/// What a cluster's TLS depends on.
pub(crate) struct Upstream<'a> {
    pub(crate) service: &'a Service,
    pub(crate) policy: Policy<'a>,
    /// Default server name of mutual TLS.
    pub(crate) sni: String,
    /// Whether the rule is for selected workloads, which may use Secrets in sidecars.
    pub(crate) selected: bool,
    pub(crate) port_name: &'a str,
    /// Whether the rule or the subset itself sends connections where the client meant them to go.
    pub(crate) asks_all: bool,
    /// Whether the host of each request is resolved, so that the server name is that of the request.
    pub(crate) dynamic: bool,
}

impl Upstream<'_> {
    fn peer(&self, context: &Context<'_>) -> Peer {
        let mut subject_alt_names = Vec::new();
        // What hosts of a wildcard are called is known when they are asked for.
        if !self.dynamic && !self.service.kubernetes {
            subject_alt_names.extend(context.accounts_of(self.service).cloned());
        }
        Peer {
            selected: self.selected,
            dynamic: self.dynamic,
            subject_alt_names,
        }
    }
}

/// What TLS of the settings' own needs to know of the other side.
struct Peer {
    selected: bool,
    dynamic: bool,
    /// Names that it has where the settings say none: of a ServiceEntry and its endpoints.
    subject_alt_names: Vec<String>,
}

/// TLS to hosts that belong to no service, whose names are resolved one by one; `None` where there is none.
pub(crate) fn to_any_host(
    context: &Context<'_>,
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    settings: &ClientTlsSettings,
) -> Option<TransportSocket> {
    let peer = Peer {
        selected: false,
        dynamic: true,
        subject_alt_names: Vec::new(),
    };
    if settings.mode == ClientTlsMode::IstioMutual {
        by_request(cluster, options, &peer, settings);
        let names = &settings.subject_alt_names;
        return Some(mesh_socket(options, names, settings.sni.clone()));
    }
    own_tls(context, cluster, options, &peer, settings)
}

/// Sets the transport socket, or several to choose from.
pub(crate) fn apply(
    context: &Context<'_>,
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    upstream: &Upstream<'_>,
) {
    let proxy_protocol = upstream.policy.proxy_protocol;
    let original_dst = cluster.cluster_discovery_type
        == Some(ClusterDiscoveryType::Type(
            DiscoveryType::OriginalDst as i32,
        ));
    let files = certificate_files(context);
    let socket = match upstream.policy.tls {
        Some(settings)
            if files.is_some()
                && !upstream.service.mesh_external
                && matches!(
                    settings.mode,
                    ClientTlsMode::IstioMutual | ClientTlsMode::Mutual
                ) =>
        {
            let own = ClientTlsSettings {
                subject_alt_names: settings.subject_alt_names.clone(),
                sni: settings.sni.clone(),
                insecure_skip_verify: settings.insecure_skip_verify,
                ..files.unwrap_or_default()
            };
            if settings.mode == ClientTlsMode::Mutual {
                mark_no_alpn_override(cluster);
            }
            own_tls(context, cluster, options, &upstream.peer(context), &own)
        }
        Some(settings) => match settings.mode {
            ClientTlsMode::Disable => None,
            ClientTlsMode::IstioMutual => {
                if upstream.dynamic {
                    by_request(cluster, options, &upstream.peer(context), settings);
                }
                Some(mutual_socket(context, options, upstream, Some(settings)))
            }
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                mark_no_alpn_override(cluster);
                own_tls(context, cluster, options, &upstream.peer(context), settings)
            }
        },
        None if auto_mtls(context, upstream) => match files {
            // With certificates of its own, the proxy does not look at what the endpoint can.
            Some(files) => {
                let own = ClientTlsSettings {
                    subject_alt_names: context.accounts_of(upstream.service).cloned().collect(),
                    sni: upstream.sni.clone(),
                    ..files
                };
                own_tls(context, cluster, options, &upstream.peer(context), &own)
            }
            None => {
                if upstream.dynamic {
                    let nothing = ClientTlsSettings::default();
                    by_request(cluster, options, &upstream.peer(context), &nothing);
                }
                let socket = mutual_socket(context, options, upstream, None);
                if !original_dst {
                    cluster.transport_socket_matches = matches(
                        wrap(socket, proxy_protocol),
                        wrap(
                            raw_socket("envoy.transport_sockets.raw_buffer"),
                            proxy_protocol,
                        ),
                    );
                    return;
                }
                Some(socket)
            }
        },
        None => None,
    };
    cluster.transport_socket = match (socket, proxy_protocol) {
        (Some(socket), _) => Some(wrap(socket, proxy_protocol)),
        (None, Some(_)) => Some(wrap(raw_socket("raw_buffer"), proxy_protocol)),
        (None, None) => None,
    };
}

/// The files that take the place of the mesh's certificates where the proxy's metadata names them.
fn certificate_files(context: &Context<'_>) -> Option<ClientTlsSettings> {
    let text = |key: &str| context.proxy.metadata_text(key).to_owned();
    let settings = ClientTlsSettings {
        mode: ClientTlsMode::Mutual,
        client_certificate: text("TLS_CLIENT_CERT_CHAIN"),
        private_key: text("TLS_CLIENT_KEY"),
        ca_certificates: text("TLS_CLIENT_ROOT_CERT"),
        ..ClientTlsSettings::default()
    };
    (!settings.client_certificate.is_empty()).then_some(settings)
}

/// Whether mutual TLS is used where the endpoint can.
fn auto_mtls(context: &Context<'_>, upstream: &Upstream<'_>) -> bool {
    let service = upstream.service;
    if service.mesh_external || !context.snapshot.mesh.auto_mtls() {
        return false;
    }
    if context
        .snapshot
        .peer_policies
        .of_namespace(&service.namespace)
        == MutualTlsMode::Disable
    {
        return false;
    }
    if upstream.asks_all || service.is_headless() {
        // The proxy cannot choose by endpoint, so all of them have to take mutual TLS.
        let mut endpoints = context
            .endpoints_of(service)
            .iter()
            .filter(|endpoint| endpoint.port_name == upstream.port_name)
            .peekable();
        return endpoints.peek().is_some() && endpoints.all(|endpoint| endpoint.mtls);
    }
    true
}

fn mutual_socket(
    context: &Context<'_>,
    options: &HttpOptions,
    upstream: &Upstream<'_>,
    settings: Option<&ClientTlsSettings>,
) -> TransportSocket {
    let service = upstream.service;
    let names: Vec<String> =
        match settings.filter(|settings| !settings.subject_alt_names.is_empty()) {
            Some(settings) => settings.subject_alt_names.clone(),
            None => context.accounts_of(service).cloned().collect(),
        };
    let sni = settings
        .map(|settings| settings.sni.clone())
        .filter(|sni| !sni.is_empty())
        .unwrap_or_else(|| upstream.sni.clone());
    mesh_socket(options, &names, sni)
}

/// TLS with the certificates of the mesh, towards one of `names`; any in the mesh, where there are none.
fn mesh_socket(options: &HttpOptions, names: &[String], sni: String) -> TransportSocket {
    let mut alpn = vec!["istio-peer-exchange".to_owned(), "istio".to_owned()];
    if options.is_http2() {
        alpn.push("h2".to_owned());
    }
    let common = tls::CommonTlsContext {
        tls_params: Some(client_params()),
        tls_certificate_sds_secret_configs: vec![secret(OWN_CERTIFICATE, false)],
        alpn_protocols: alpn,
        validation_context_type: Some(combined(names, "", secret(ROOT_CERTIFICATES, false))),
        ..Default::default()
    };
    tls_socket(common, sni)
}

fn tls_socket(common: tls::CommonTlsContext, sni: String) -> TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni,
        ..Default::default()
    };
    transport_socket("envoy.transport_sockets.tls", xds::any::pack(&context))
}

/// Takes server name and expected name from the request, as far as the settings leave that open.
fn by_request(
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    peer: &Peer,
    settings: &ClientTlsSettings,
) {
    let insecure = settings.insecure_skip_verify == Some(true);
    let name = settings.sni.is_empty();
    let validation = (peer.dynamic || name && settings.subject_alt_names.is_empty()) && !insecure;
    if peer.dynamic && !(name && validation) {
        crate::dynamic_dns::allow_insecure(cluster);
    }
    if name || validation {
        options.auto_sni = Some(UpstreamHttpProtocolOptions {
            auto_sni: name,
            auto_san_validation: validation,
            ..Default::default()
        });
    }
}

/// TLS with other certificates than those of the mesh.
fn own_tls(
    context: &Context<'_>,
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    peer: &Peer,
    settings: &ClientTlsSettings,
) -> Option<TransportSocket> {
    let insecure = settings.insecure_skip_verify == Some(true);
    let by_secret = !settings.credential_name.is_empty();
    // ConfigMaps are for everybody.
    let privileged = by_secret && !settings.credential_name.starts_with(CONFIG_MAP_SCHEME);
    if privileged && !context.proxy.is_router() && !peer.selected {
        return None;
    }
    by_request(cluster, options, peer, settings);
    let files = settings.mode == ClientTlsMode::Mutual && !by_secret;
    if files && (settings.client_certificate.is_empty() || settings.private_key.is_empty()) {
        return None;
    }
    let names = if settings.subject_alt_names.is_empty() {
        &peer.subject_alt_names
    } else {
        &settings.subject_alt_names
    };
    let mut sorted = names.to_vec();
    if settings.subject_alt_names.is_empty() {
        sorted.sort();
    }
    let mut certificates = Vec::new();
    if settings.mode == ClientTlsMode::Mutual {
        certificates.push(if by_secret {
            credential(&settings.credential_name)
        } else {
            secret(
                &format!(
                    "file-cert:{}~{}",
                    settings.client_certificate, settings.private_key
                ),
                false,
            )
        });
    }
    let validation = if insecure {
        tls::common_tls_context::ValidationContextType::ValidationContext(
            tls::CertificateValidationContext::default(),
        )
    } else {
        let root = if by_secret {
            credential(&format!("{}-cacert", settings.credential_name))
        } else if settings.ca_certificates.is_empty() {
            secret("file-root:system", false)
        } else {
            secret(&format!("file-root:{}", settings.ca_certificates), false)
        };
        combined(&sorted, &settings.ca_crl, root)
    };
    let mut params = client_params();
    if let Some(defaults) = &context.snapshot.mesh.tls_defaults {
        params.ecdh_curves.clone_from(&defaults.ecdh_curves);
        params.cipher_suites.clone_from(&defaults.cipher_suites);
    }
    let common = tls::CommonTlsContext {
        tls_params: Some(params),
        tls_certificate_sds_secret_configs: certificates,
        alpn_protocols: if options.is_http2() {
            vec!["h2".to_owned()]
        } else {
            Vec::new()
        },
        validation_context_type: Some(validation),
        ..Default::default()
    };
    Some(tls_socket(common, settings.sni.clone()))
}

/// The protocols that the proxy offers stand as they are: TLS is the application's.
pub(super) fn mark_no_alpn_override(cluster: &mut Cluster) {
    let metadata = cluster.metadata.get_or_insert_default();
    let istio = metadata
        .filter_metadata
        .entry("istio".to_owned())
        .or_insert_with(|| fields_of([]));
    istio
        .fields
        .insert("alpn_override".to_owned(), text("false"));
}

pub(crate) fn client_params() -> tls::TlsParameters {
    tls::TlsParameters {
        tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
        ..Default::default()
    }
}

/// The secret that a `credentialName` means. `builtin://` is the proxy's own certificate, and that of the mesh's roots.
pub(crate) fn credential(name: &str) -> tls::SdsSecretConfig {
    match name {
        "builtin://" => return secret(OWN_CERTIFICATE, false),
        "builtin://-cacert" => return secret(ROOT_CERTIFICATES, false),
        _ => {}
    }
    let name = name.strip_prefix("sds://").unwrap_or(name);
    let known = [CONFIG_MAP_SCHEME, "kubernetes://", "kubernetes-gateway://"];
    if name.starts_with("builtin://") {
        secret("default", true)
    } else if name.starts_with("invalid://") {
        secret("invalid://", true)
    } else if known.iter().any(|scheme| name.starts_with(scheme)) {
        secret(name, true)
    } else {
        secret(&format!("kubernetes://{name}"), true)
    }
}

/// A secret by name, from istiod or from the agent.
pub(crate) fn secret(name: &str, from_istiod: bool) -> tls::SdsSecretConfig {
    let mut source = if from_istiod {
        istiod_sds()
    } else {
        agent_sds()
    };
    if name.starts_with("file-") {
        source.initial_fetch_timeout = None;
    }
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(source),
    }
}

/// Root certificates from a secret, and names that the peer has to have.
pub(crate) fn combined(
    names: &[String],
    crl: &str,
    root: tls::SdsSecretConfig,
) -> tls::common_tls_context::ValidationContextType {
    let matchers = names
        .iter()
        .map(|name| string_matcher::MatchPattern::Exact(name.clone()));
    combined_with(matchers, crl, root)
}

#[allow(deprecated)] // istiod still writes match_subject_alt_names
pub(crate) fn combined_with(
    names: impl IntoIterator<Item = string_matcher::MatchPattern>,
    crl: &str,
    root: tls::SdsSecretConfig,
) -> tls::common_tls_context::ValidationContextType {
    let default = tls::CertificateValidationContext {
        match_subject_alt_names: names
            .into_iter()
            .map(|pattern| StringMatcher {
                match_pattern: Some(pattern),
                ..Default::default()
            })
            .collect(),
        crl: (!crl.is_empty()).then(|| DataSource {
            specifier: Some(data_source::Specifier::Filename(crl.to_owned())),
            ..Default::default()
        }),
        ..Default::default()
    };
    tls::common_tls_context::ValidationContextType::CombinedValidationContext(
        tls::common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(default),
            validation_context_sds_secret_config: Some(root),
            ..Default::default()
        },
    )
}

fn raw_socket(name: &str) -> TransportSocket {
    transport_socket(name, xds::any::pack(&RawBuffer {}))
}

fn wrap(socket: TransportSocket, proxy_protocol: Option<&ProxyProtocol>) -> TransportSocket {
    let Some(settings) = proxy_protocol else {
        return socket;
    };
    let version = match settings.version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig {
            version: version as i32,
            ..Default::default()
        }),
        transport_socket: Some(socket),
        ..Default::default()
    };
    transport_socket(
        "envoy.transport_sockets.upstream_proxy_protocol",
        xds::any::pack(&transport),
    )
}

fn matches(mutual: TransportSocket, plain: TransportSocket) -> Vec<TransportSocketMatch> {
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(fields_of([("tlsMode", text("istio"))])),
            transport_socket: Some(mutual),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(fields_of([])),
            transport_socket: Some(plain),
        },
    ]
}
