//! Envoy's bootstrap: the same file drives this proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::api_config_source::ApiType;
use xds::envoy::config::core::v3::grpc_service::TargetSpecifier;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use crate::tls::client::ClientContext;
use crate::tls::secrets::Secrets;
use crate::xds_client::channel::TargetAddress;
use crate::xds_client::{Mode, Target};

/// Reads a bootstrap from YAML or JSON text. Unknown fields are refused.
///
/// # Errors
/// Where the text is not a bootstrap.
pub fn parse(text: &str) -> Result<Bootstrap, String> {
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => {
            yaml_serde::from_str(text).map_err(|error| format!("neither JSON nor YAML: {error}"))?
        }
    };
    xds::json::from_value::<Bootstrap>(value, true).map_err(|error| error.to_string())
}

/// Reads a bootstrap file.
///
/// # Errors
/// When it cannot be read or is no bootstrap.
pub fn read(path: &Path) -> Result<Bootstrap, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The management server of a bootstrap that has one.
///
/// # Errors
/// When it is described in a way that is not supported.
pub fn management_server(
    bootstrap: &Bootstrap,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<Option<(Target, Mode)>, String> {
    let Some(ads) = bootstrap
        .dynamic_resources
        .as_ref()
        .and_then(|dynamic| dynamic.ads_config.as_ref())
    else {
        return Ok(None);
    };
    let mode = match ads.api_type() {
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => Mode::Delta,
        ApiType::Grpc | ApiType::AggregatedGrpc => Mode::StateOfTheWorld,
        other => {
            return Err(format!(
                "ads_config.api_type {} is not supported",
                other.as_str_name()
            ));
        }
    };
    let service = ads
        .grpc_services
        .first()
        .ok_or("ads_config.grpc_services is empty")?;
    match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
            let cluster = bootstrap
                .static_resources
                .iter()
                .flat_map(|resources| &resources.clusters)
                .find(|cluster| cluster.name == grpc.cluster_name)
                .ok_or_else(|| {
                    format!(
                        "ads_config: there is no static cluster {:?}",
                        grpc.cluster_name
                    )
                })?;
            let mut target = target_of(cluster, secrets, mark)?;
            if !grpc.authority.is_empty() {
                target.authority.clone_from(&grpc.authority);
            }
            Ok(Some((target, mode)))
        }
        Some(TargetSpecifier::GoogleGrpc(grpc)) => {
            let (host, port) = grpc
                .target_uri
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
                .ok_or_else(|| {
                    format!(
                        "ads_config: target_uri {:?} is not host:port",
                        grpc.target_uri
                    )
                })?;
            let target = Target {
                authority: grpc.target_uri.clone(),
                address: TargetAddress::Host(host, port),
                tls: None,
                mark,
                token_file: None,
            };
            Ok(Some((target, mode)))
        }
        None => Err("ads_config.grpc_services[0] names no target".into()),
    }
}

fn target_of(
    cluster: &Cluster,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<Target, String> {
    let address = cluster
        .load_assignment
        .iter()
        .flat_map(|assignment| &assignment.endpoints)
        .flat_map(|locality| &locality.lb_endpoints)
        .find_map(|endpoint| match &endpoint.host_identifier {
            Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref()?.address.as_ref(),
            _ => None,
        })
        .ok_or_else(|| format!("cluster {:?} has no endpoint", cluster.name))?;
    let address = match address {
        AddressKind::SocketAddress(socket) => {
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
                return Err(format!(
                    "cluster {:?}: its endpoint has no port",
                    cluster.name
                ));
            };
            TargetAddress::Host(socket.address.clone(), port as u16)
        }
        AddressKind::Pipe(pipe) => TargetAddress::Pipe(PathBuf::from(&pipe.path)),
        AddressKind::EnvoyInternalAddress(_) => {
            return Err("internal addresses are not supported".into());
        }
    };
    let tls = match cluster
        .transport_socket
        .as_ref()
        .and_then(|socket| socket.config_type.as_ref())
    {
        Some(ConfigType::TypedConfig(any)) => match xds::any::unpack::<UpstreamTlsContext>(any) {
            Ok(Some(context)) => Some(Arc::new(
                ClientContext::new(&context, secrets.clone()).map_err(|error| error.to_string())?,
            )),
            _ => None,
        },
        None => None,
    };
    let authority = match &address {
        TargetAddress::Host(host, port) => format!("{host}:{port}"),
        TargetAddress::Pipe(_) => cluster.name.clone(),
    };
    Ok(Target {
        address,
        tls,
        authority,
        mark,
        token_file: None,
    })
}
